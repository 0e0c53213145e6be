"""Pairs of atoms within a distance."""

import numpy as np
from vesin import NeighborList

from ._structure import reduced_cell


def neighbor_pairs(structure, cutoff):
    """All ordered pairs of atoms closer than a cutoff, periodic images among them.

    Parameters
    ----------
    structure : Structure
        A molecule, a slab or a crystal.
    cutoff : float
        Angstrom.

    Returns
    -------
    i, j : ndarray of shape (n_pairs,)
        Both atoms; an atom is a pair with its own images, but not with itself.
    D : ndarray of shape (n_pairs, 3)
        Vectors from i to j, Angstrom.
    """
    cell, pbc = reduced_cell(structure) if structure.periodic else (np.eye(3), structure.pbc)
    neighbors = NeighborList(cutoff=cutoff, full_list=True)
    i, j, D = neighbors.compute(structure.positions, cell, pbc, "ijD", copy=False)
    return i.astype(np.int64), j.astype(np.int64), D.copy()


def gather_pairs(i, j, D, g, n_atoms):
    """Derivatives with respect to positions and strain from those with respect to D.

    Parameters
    ----------
    i, j, D
        Pairs, see `neighbor_pairs`.
    g : ndarray of shape (n_pairs, 3)
        Derivatives of a number.
    n_atoms : int
        Number of atoms.

    Returns
    -------
    gradient : ndarray of shape (n_atoms, 3)
    virial : ndarray of shape (3, 3)
    """
    gradient = [np.bincount(j, g_a, n_atoms) - np.bincount(i, g_a, n_atoms) for g_a in g.T]
    # Of no pairs bincount makes integers.
    return np.stack(gradient, axis=1).astype(np.float64), g.T @ D


def spread_pairs(i, j, D, g, n_atoms):
    """The same for one number per atom i, of which a pair's ``g`` is the derivative of that of i.

    Returns
    -------
    gradient : ndarray of shape (n_atoms, 3, n_atoms)
        With respect to the position of atom k, of the number of atom i, at ``[k, :, i]``.
    virial : ndarray of shape (3, 3, n_atoms)
    """
    gradient, virial = np.empty((n_atoms, 3, n_atoms)), np.empty((3, 3, n_atoms))
    for a in range(3):
        flat = np.bincount(j * n_atoms + i, g[:, a], n_atoms**2)
        flat -= np.bincount(i * n_atoms + i, g[:, a], n_atoms**2)
        gradient[:, a] = flat.reshape(n_atoms, n_atoms)
        for b in range(3):
            virial[a, b] = np.bincount(i, g[:, a] * D[:, b], n_atoms)
    return gradient, virial
