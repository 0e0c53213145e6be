"""Structures and labels of the regression cases, from bundled data and simple formulas."""

from functools import cache

import numpy as np
from ase.build import bulk
from ase.neighborlist import neighbor_list
from ase.units import Bohr, Hartree

from skqeq.datasets import load_ions, load_molecules, load_water

COULOMB = Hartree * Bohr  # eV*Angstrom/e^2
NAN = np.nan
# Invented charges are computed from Pauling's electronegativities.
PAULING = {1: 2.20, 6: 2.55, 7: 3.04, 8: 3.44, 9: 3.98, 11: 0.93, 17: 3.16}
PAIR_CUTOFF = 4.5  # Angstrom
# These energies are subtracted from those of water clusters, eV, so that small differences matter.
ATOMIC_ENERGIES = {"H": -17.0, "O": -2042.1}


@cache
def _bundled(name):
    if name == "water":
        X, y, groups = load_water("pbe0", return_groups=True)
    else:
        load = {"molecules": load_molecules, "ions": load_ions}[name]
        X, y, groups = load(return_groups=True)
    return X, y, groups


def bundled(name, n, max_atoms):
    """The first n structures of a bundled set that have few atoms: copies, labels, groups."""
    X, y, groups = _bundled(name)
    index = [i for i, atoms in enumerate(X) if len(atoms) <= max_atoms][:n]
    X = [X[i].copy() for i in index]
    for seed, atoms in enumerate(X):
        atoms.rattle(0.02, seed=seed)  # no two environments are equal by symmetry
    return X, y[index].copy(), groups[index]


def of_charges(X, charges, in_field=False):
    """The first structure of each total charge.

    With `in_field`, only structures in a field count.
    """
    X = [atoms for atoms in X if "external_field" in atoms.info or not in_field]
    return [next(a for a in X if a.info["charge"] == charge) for charge in charges]


def relative_energies(X, energies):
    """Energies of water clusters minus the energies of their atoms, eV."""
    return [e - sum(ATOMIC_ENERGIES[s] for s in atoms.symbols) for atoms, e in zip(X, energies)]


def crystal(seed, strain=0.0):
    """A rattled cubic cell of rock salt, 8 atoms."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    sheared = np.eye(3) + strain * np.array([[1.0, 0.3, 0.0], [0.3, -0.5, 0.1], [0.0, 0.1, 0.4]])
    atoms.set_cell(atoms.cell[:] @ sheared, scale_atoms=True)
    atoms.rattle(0.25, seed=seed)
    return atoms


def slab(seed, field=None):
    """Two rattled (001) layers of rock salt with vacuum along z, 8 atoms."""
    atoms = crystal(seed)
    atoms.set_cell(np.diag([5.6, 5.7, 17.0]))
    atoms.pbc = (True, True, False)
    atoms.rattle(0.1, seed=seed + 100)
    if field is not None:
        atoms.info["external_field"] = [0.0, 0.0, field]
    return atoms


def _pairs(atoms):
    i, j, D, d = neighbor_list("ijDd", atoms, PAIR_CUTOFF)
    return i, j, D, d, (1.0 - (d / PAIR_CUTOFF) ** 2)


def pair_energies(atoms):
    """Energy, forces and virial of a polynomial pair potential between all neighbours.

    Like charges repel each other, unlike ones attract: ``z (1 - (r / r_cut)^2)^3``.
    """
    i, j, D, d, x = _pairs(atoms)
    z = np.where(atoms.numbers[i] == atoms.numbers[j], 2.0, -1.5)
    slope = -6.0 * z * d / PAIR_CUTOFF**2 * x**2
    pull = (slope / d)[:, None] * D
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, i, pull)
    return 0.5 * np.sum(z * x**3), forces, 0.5 * np.einsum("pa,pb->ab", pull, D)


def pair_stress(atoms):
    """Stress of the pair potential; NaN for the components that a slab does not have."""
    virial = pair_energies(atoms)[2]
    stress = virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] / atoms.get_volume()
    if not atoms.pbc[2]:
        stress[[2, 3, 4]] = NAN
    return stress


def invented_charges(atoms):
    """Charges from differences of electronegativity between neighbours."""
    i, j, _, d, x = _pairs(atoms)
    chi = np.array([PAULING[z] for z in atoms.numbers])
    charges = np.zeros(len(atoms))
    np.add.at(charges, i, 0.5 * x**2 * (chi[i] - chi[j]) * np.exp(-((d / 2.5) ** 2)))
    return -charges


def invented_born_charges(atoms, charges):
    """Tensors that resemble Born charges: the charges, and a term along bonds to neighbours."""
    i, j, D, d, x = _pairs(atoms)
    along = (0.2 * x**2 * np.exp(-(d**2)))[:, None, None] * np.einsum("pa,pb->pab", D, D)
    tensors = charges[:, None, None] * np.eye(3)
    np.add.at(tensors, i, along)
    np.add.at(tensors, j, -along)
    return tensors


def centred(atoms):
    """Positions about the centre of mass, Angstrom."""
    return atoms.positions - atoms.get_center_of_mass()


def quadrupole(atoms, charges):
    """Traceless quadrupole of point charges, (3, 3), e*Angstrom^2."""
    r = centred(atoms)
    theta = np.einsum("i,ia,ib->ab", charges, r, r)
    return 0.5 * (3.0 * theta - np.trace(theta) * np.eye(3))


def add_potential_points(atoms, seed):
    """Add a few points outside of the molecule to ``info``."""
    directions = np.random.default_rng(seed).normal(size=(4, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    reach = np.linalg.norm(centred(atoms), axis=1).max() + 2.5
    atoms.info["potential_points"] = atoms.get_center_of_mass() + reach * directions


def potential(atoms, charges):
    """Potential of point charges at the points in ``info``, V."""
    D = atoms.info["potential_points"][:, None] - atoms.positions
    return COULOMB * (charges / np.linalg.norm(D, axis=2)).sum(axis=1)
