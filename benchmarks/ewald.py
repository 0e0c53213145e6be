"""Time to compute the dense hardness matrix of crystals and slabs, relative to the floor.

    python benchmarks/ewald.py [--accuracy 1e-8]

The floor is the time of the work that cannot be avoided. It has two parts. The first part is the
product of the N x 2 n_k structure factors with their transpose, ``4 N^2 n_k`` flops at the rate of
NumPy's matrix product. The second part is 10 ns for every pair within the real-space cutoff. A pair
consists of an atom and either another atom or an image, and is counted once. The floor is computed
for the splitting width at which it is lowest. Each time is the shortest of all runs within two
seconds, without the checks of the structure. If pymatgen is installed, its time is measured, too.
The table is printed and written to ``benchmarks/results/ewald.csv``.
"""

import argparse
import csv
import time
from pathlib import Path
from unittest import mock

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from floor import gemm_rate
from vesin import NeighborList

from skqeq._pythran import _ewald_numpy
from skqeq.electrostatics import _ewald, gaussian_widths, hardness_matrix
from skqeq.electrostatics._waves import half_sphere
from skqeq.structures import check_structures

try:
    from pymatgen.analysis.ewald import EwaldSummation
    from pymatgen.io.ase import AseAtomsAdaptor
except ImportError:
    EwaldSummation = None

PAIR = 10e-9  # time that the floor includes for each pair, seconds
CHARGES = {"Zn": 2, "O": -2, "H": 1}
LARGEST_FOR_PYMATGEN = 384
RESULTS = Path(__file__).parent / "results"


def wurtzite(*repeats, pbc=True):
    """A rattled supercell of wurtzite ZnO."""
    atoms = bulk("ZnO", "wurtzite", a=3.25, c=5.2) * repeats
    atoms.rattle(0.1, seed=0)
    atoms.pbc = pbc
    return atoms


def water(n, spacing=3.1):
    """A box of n^3 randomly rotated molecules with the density of liquid water."""
    rng = np.random.default_rng(0)
    box = Atoms(cell=[n * spacing] * 3, pbc=True)
    for place in np.ndindex(n, n, n):
        one = molecule("H2O")
        one.rotate(360 * rng.random(), rng.normal(size=3), center="COM")
        one.positions += spacing * np.array(place)
        box += one
    return box


CASES = {
    "ZnO": wurtzite(1, 1, 1),
    "ZnO, 2 x 2 x 3": wurtzite(2, 2, 3),
    "ZnO, 4 x 3 x 2": wurtzite(4, 3, 2),
    "ZnO, 6 x 4 x 4": wurtzite(6, 4, 4),
    "ZnO, 8 x 8 x 6": wurtzite(8, 8, 6),
    "ZnO slab, 5 x 5 x 3": wurtzite(5, 5, 3, pbc=(True, True, False)),
    "64 water molecules": water(4),
}


def measure(name, atoms, accuracy):
    """One row of the table."""
    [structure] = check_structures([atoms])
    widths = gaussian_widths(structure.numbers)
    floor, halved, n_waves, n_pairs = lowest_floor(structure, widths, accuracy, gemm_rate())
    skqeq = best_of(lambda: hardness_matrix(structure, widths, accuracy=accuracy))
    names = ("ewald_pair_matrix", "structure_factors")
    with mock.patch.multiple(_ewald, **{name: getattr(_ewald_numpy, name) for name in names}):
        twin = best_of(lambda: hardness_matrix(structure, widths, accuracy=accuracy))
    pymatgen = None
    if EwaldSummation and all(structure.pbc) and len(atoms) <= LARGEST_FOR_PYMATGEN:
        pymatgen = pymatgen_seconds(atoms, accuracy)
    return {
        "structure": name,
        "atoms": len(atoms),
        "waves": n_waves,
        "pairs": n_pairs,
        "floor, ms": f"{1e3 * floor:.2f}",
        "skqeq, ms": f"{1e3 * skqeq:.2f}",
        "ratio": f"{skqeq / floor:.2f}",
        "to half the product": f"{skqeq / halved:.2f}",
        "NumPy twin / skqeq": f"{twin / skqeq:.1f}",
        "pymatgen / skqeq": "" if pymatgen is None else f"{pymatgen / skqeq:.0f}",
    }


def lowest_floor(structure, widths, accuracy, rate):
    """Two floors in seconds, and the numbers of plane waves and of pairs for the first floor.

    The second floor counts only half of the flops of the product, because the product is symmetric.
    """
    floors = []
    volume = _ewald.EwaldSum(structure, widths, accuracy).volume
    for sigma in volume ** (1 / 3) * np.linspace(0.1, 0.24, 15):
        ewald = _ewald.EwaldSum(structure, widths, accuracy, sigma)
        n_waves = len(half_sphere(ewald.cell, ewald.cutoffs.reciprocal)[0])
        neighbors = NeighborList(cutoff=ewald.cutoffs.real, full_list=False)
        [d] = neighbors.compute(ewald.fractions @ ewald.cell, ewald.cell, True, "d")
        product = 4 * len(structure) ** 2 * n_waves / rate
        pairs = PAIR * len(d)
        floors.append((product + pairs, product / 2 + pairs, n_waves, len(d)))
    floor, _, n_waves, n_pairs = min(floors)
    return floor, min(halved for _, halved, _, _ in floors), n_waves, n_pairs


def best_of(function, seconds=2.0):
    """Shortest time of all runs that start within a time limit, seconds."""
    best, begin = np.inf, time.perf_counter()
    while (start := time.perf_counter()) < begin + seconds:
        function()
        best = min(best, time.perf_counter() - start)
    return best


def pymatgen_seconds(atoms, accuracy):
    """Time of pymatgen for the matrix of point charges with the same accuracy, seconds."""
    structure = AseAtomsAdaptor.get_structure(atoms)
    structure.add_oxidation_state_by_element({s: CHARGES[s] for s in set(atoms.symbols)})
    digits = -np.log10(accuracy)
    return best_of(lambda: EwaldSummation(structure, acc_factor=digits).total_energy_matrix)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accuracy", type=float, default=1e-8, help="1/Angstrom, default 1e-8")
    args = parser.parse_args()
    if EwaldSummation is None:
        print("pymatgen is not installed; its column is empty")
    rows = []
    for name, atoms in CASES.items():
        rows.append(measure(name, atoms, args.accuracy))
        print(rows[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / "ewald.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
