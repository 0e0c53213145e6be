"""Simple reference implementations, and structures for comparisons.

The functions use explicit loops and inverses, and nothing of the package.
"""

from math import erf, pi, sqrt

import numpy as np
from ase.build import molecule
from ase.units import Bohr, Hartree

COULOMB = Hartree * Bohr  # eV*Angstrom/e^2

# Rappe and Goddard (1991); UFF: radii in Angstrom, electronegativities in V.
RADII = {"H": 0.371, "C": 0.759, "N": 0.715, "O": 0.669, "F": 0.706}
CHI = {"H": 4.528, "C": 5.343, "N": 6.899, "O": 8.741, "F": 10.874}


def rattled(name, seed, charge=None, field=None, amplitude=0.08):
    """A molecule of the g2 set with displaced atoms, so that it has no symmetry."""
    atoms = molecule(name)
    atoms.positions += amplitude * np.random.default_rng(seed).normal(size=atoms.positions.shape)
    if charge is not None:
        atoms.info["charge"] = charge
    if field is not None:
        atoms.info["external_field"] = field
    return atoms


def of_package(caught):
    """Recorded warnings without the deprecations that ASE causes in `Atoms` with NumPy 2.5."""
    return [w for w in caught if not issubclass(w.category, DeprecationWarning)]


def cif(sites, lengths=(5.64, 5.64, 5.64), group="P 1", column=None):
    """Text of a CIF file with an orthogonal cell; `column` names one more column of the sites."""
    cell = "".join(f"_cell_length_{axis} {x}\n" for axis, x in zip("abc", lengths))
    angles = "".join(f"_cell_angle_{name} 90\n" for name in ("alpha", "beta", "gamma"))
    names = ["label", "type_symbol", "fract_x", "fract_y", "fract_z"]
    columns = "".join(f"_atom_site_{name}\n" for name in [*names, *([column] if column else [])])
    group = f"_symmetry_space_group_name_H-M '{group}'\n"
    return f"data_x\n{cell}{angles}{group}loop_\n{columns}{sites}\n"


def gaussian_widths(atoms, scale=0.35):
    return np.array([scale * RADII[s] for s in atoms.symbols])


def hardness_matrix(atoms, widths, hardness=0.0):
    """Coulomb energy of Gaussian charges: [V23] eqs. 9-11."""
    n = len(atoms)
    A = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            r = sqrt(sum((atoms.positions[i] - atoms.positions[j]) ** 2))
            gamma = sqrt(widths[i] ** 2 + widths[j] ** 2)
            if i == j:
                A[i, j] = COULOMB / (sqrt(pi) * widths[i]) + np.broadcast_to(hardness, n)[i]
            else:
                A[i, j] = COULOMB * erf(r / (sqrt(2) * gamma)) / r
    return A


def linear_response(A):
    """``-dq/dchi`` and ``dq/dQ`` from the inverse of the matrix bordered by the constraint."""
    n = len(A)
    bordered = np.zeros((n + 1, n + 1))
    bordered[:n, :n] = A
    bordered[:n, n] = bordered[n, :n] = 1.0
    inverse = np.linalg.inv(bordered)
    return inverse[:n, :n], inverse[:n, n]


def equilibrate(atoms, chi, widths=None, hardness=0.0):
    """Charges for electronegativities chi, with the structure's total charge and field."""
    widths = gaussian_widths(atoms) if widths is None else widths
    P, unit = linear_response(hardness_matrix(atoms, widths, hardness))
    field = np.array(atoms.info.get("external_field", np.zeros(3)))
    return unit * atoms.info.get("charge", 0.0) - P @ (chi - atoms.positions @ field)


def dipole(atoms, charges):
    center = atoms.get_center_of_mass()
    return sum(q * (r - center) for q, r in zip(charges, atoms.positions))


def quadrupole(atoms, charges):
    """Buckingham's traceless tensor, (3, 3)."""
    theta = np.zeros((3, 3))
    for q, r in zip(charges, atoms.positions - atoms.get_center_of_mass()):
        for a in range(3):
            for b in range(3):
                theta[a, b] += q * (3 * r[a] * r[b] - (a == b) * sum(r**2)) / 2
    return theta


def potential(points, atoms, charges, widths):
    """Potential of Gaussian charges, V."""
    values = []
    for point in points:
        value = 0.0
        for q, r, alpha in zip(charges, atoms.positions, widths):
            d = sqrt(sum((point - r) ** 2))
            value += COULOMB * q * erf(d / (sqrt(2) * alpha)) / d
        values.append(value)
    return np.array(values)


def invented_charges(atoms):
    """Labels: equilibrated charges whose electronegativities depend on the neighbours."""
    distances = np.linalg.norm(atoms.positions[:, None] - atoms.positions, axis=2)
    crowding = np.sum(np.exp(-(distances**2)), axis=1) - 1.0
    chi = 4.0 * np.array([CHI[s] for s in atoms.symbols]) + 2.0 * np.sin(3.0 * crowding)
    return equilibrate(atoms, chi)


def soap(X, species, r_cut, n_max=4, l_max=3, sigma=None, **options):
    """Power spectra from DScribe with the columns of all species: one array per structure."""
    from dscribe.descriptors import SOAP

    descriptor = SOAP(
        species=species,
        r_cut=r_cut,
        n_max=n_max,
        l_max=l_max,
        sigma=r_cut / 8 if sigma is None else sigma,
        rbf="gto",
        **options,
    )
    return [descriptor.create(atoms) for atoms in X]
