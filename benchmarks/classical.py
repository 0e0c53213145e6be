"""Compare classical charge equilibration and lattice sums with published numbers.

    python benchmarks/classical.py

The script computes the charges of the twenty alkali halides in table II of Rappé and Goddard,
J. Phys. Chem. 95, 3358 (1991). It uses the Coulomb integrals of Slater functions, as in the paper,
and then the Gaussian charges of skqeq. It also computes the Madelung constants of four crystals. It
takes a few seconds, and writes ``benchmarks/results/halides.csv`` and ``madelung.csv``.
"""

import csv
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk

from skqeq.electrostatics import hardness_matrix
from skqeq.parameters import COULOMB, qeq_electronegativities, qeq_radii
from skqeq.response import equilibrate

RESULTS = Path(__file__).parent / "results"

# Published bond length (Angstrom) and charge of the metal (e), quoted from the tests of the Rust
# library cheq (docs.rs/crate/cheq). The formula of the paper reproduces all digits of the charges.
HALIDES = {
    "LiF": (1.564, 0.791),
    "LiCl": (2.021, 0.939),
    "LiBr": (2.170, 0.902),
    "LiI": (2.392, 0.841),
    "NaF": (1.926, 0.665),
    "NaCl": (2.361, 0.766),
    "NaBr": (2.502, 0.745),
    "NaI": (2.711, 0.709),
    "KF": (2.171, 0.662),
    "KCl": (2.667, 0.775),
    "KBr": (2.821, 0.768),
    "KI": (3.048, 0.754),
    "RbF": (2.270, 0.653),
    "RbCl": (2.787, 0.763),
    "RbBr": (2.945, 0.757),
    "RbI": (3.177, 0.747),
    "CsF": (2.345, 0.655),
    "CsCl": (2.906, 0.769),
    "CsBr": (3.072, 0.767),
    "CsI": (3.315, 0.763),
}
# Idempotential J (eV) from table I of the same paper, and quantum number n of the valence shell.
ELEMENTS = {
    "Li": (4.772, 2),
    "F": (14.948, 2),
    "Na": (4.592, 3),
    "Cl": (9.892, 3),
    "K": (3.840, 4),
    "Br": (8.850, 4),
    "Rb": (3.692, 5),
    "I": (7.524, 5),
    "Cs": (3.422, 6),
}
# The paper has zeta = lambda (2 n + 1) / (2 R). The mean radius is therefore R / lambda.
LAMBDA = 0.4913
# The mean radius of a Gaussian charge is its width times sqrt(8 / pi).
RADIUS_SCALE = np.sqrt(np.pi / 8) / LAMBDA

# Each entry holds a crystal, its shortest distance d between ions (Angstrom), and its Madelung
# constant. The constant is minus the energy of a formula unit with the charges `CHARGES`, in units
# of k_e e^2 / d. All constants are from Y. Sakamoto, J. Chem. Phys. 28, 164 (1958). Those of rock
# salt and caesium chloride are also in the OEIS, as A085469 and A181152.
MADELUNG = {
    "rock salt": (bulk("NaCl", "rocksalt", a=5.64), 5.64 / 2, 1.7475645946331822),
    "caesium chloride": (bulk("CsCl", "cesiumchloride", a=4.12), 2.06 * 3**0.5, 1.7626747730709883),
    "zinc blende": (bulk("ZnS", "zincblende", a=5.41), 5.41 * 3**0.5 / 4, 1.6380550533887895),
    "fluorite": (bulk("CaF2", "fluorite", a=5.46), 5.46 * 3**0.5 / 4, 5.038784879848579),
}
CHARGES = {"Na": 1, "Cl": -1, "Cs": 1, "Zn": 1, "S": -1, "Ca": 2, "F": -1}
ACCURACIES = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12)


def slater_integral(first, second, distance):
    """Coulomb energy of two Slater ns densities with charge 1 e at a given distance, eV.

    The integral is computed in momentum space. The Fourier transform of the density of a shell is
    ``F(k) = (2 zeta)^(2n+1) sin(2 n t) / (2 n k ((2 zeta)^2 + k^2)^n)``, ``tan t = k / (2 zeta)``.
    """
    k = np.linspace(1e-6, 60.0, 600_001)  # 1/Angstrom
    product = np.ones_like(k)
    for symbol in (first, second):
        n = ELEMENTS[symbol][1]
        radius = qeq_radii()[Atoms(symbol).numbers[0]]
        a = LAMBDA * (2 * n + 1) / radius
        angle = np.arctan2(k, a)
        product *= a ** (2 * n + 1) * np.sin(2 * n * angle) / (2 * n * k * (a**2 + k**2) ** n)
    return COULOMB * 2 / np.pi * np.trapezoid(product * np.sinc(k * distance / np.pi), k)


def halide(symbols):
    """A molecule, its electronegativities (V) and its idempotentials (eV/e^2)."""
    atoms = Atoms(symbols, [[0.0, 0.0, 0.0], [0.0, 0.0, HALIDES[symbols][0]]])
    J = np.array([ELEMENTS[symbol][0] for symbol in atoms.symbols])
    return atoms, qeq_electronegativities()[atoms.numbers], J


def slater_charge(symbols):
    """Charge of the metal from equation 18 of the paper, e."""
    atoms, chi, J = halide(symbols)
    return (chi[1] - chi[0]) / (J.sum() - 2 * slater_integral(*atoms.symbols, HALIDES[symbols][0]))


def gaussian_charge(symbols):
    """Charge of the metal, e, for Gaussian charges with the mean radii of the Slater charges."""
    atoms, chi, J = halide(symbols)
    widths = RADIUS_SCALE * qeq_radii()[atoms.numbers]
    # The idempotential includes the self-energy of the Gaussian, which is therefore subtracted.
    hardness = J - COULOMB / (np.sqrt(np.pi) * widths)
    return equilibrate(atoms, chi, widths, hardness)[0]


def madelung_constant(name, accuracy):
    """Madelung constant from Gaussians that do not overlap, without their self-energies."""
    atoms, distance, _ = MADELUNG[name]
    q = np.array([CHARGES[symbol] for symbol in atoms.symbols], dtype=float)
    width = 0.2
    C = hardness_matrix(atoms, np.full(len(atoms), width), accuracy=accuracy) / COULOMB
    return -distance * (q @ C @ q / 2 - q @ q / (2 * np.sqrt(np.pi) * width))


def write(name, rows):
    """Write rows to a table in the folder of results."""
    with (RESULTS / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main():
    rows = []
    for symbols, (distance, published) in HALIDES.items():
        rows.append(
            {
                "molecule": symbols,
                "distance (A)": distance,
                "published": published,
                "Slater": f"{slater_charge(symbols):.4f}",
                "Gaussian": f"{gaussian_charge(symbols):.4f}",
            }
        )
        print(*rows[-1].values())
    write("halides", rows)
    rows = []
    for name, (_, _, published) in MADELUNG.items():
        for accuracy in ACCURACIES:
            constant = madelung_constant(name, accuracy)
            rows.append(
                {
                    "crystal": name,
                    "published": f"{published:.12f}",
                    "accuracy": f"{accuracy:g}",
                    "skqeq": f"{constant:.12f}",
                    "error": f"{abs(constant - published):.0e}",
                }
            )
            print(*rows[-1].values())
    write("madelung", rows)


if __name__ == "__main__":
    main()
