"""Compositions of structures, and the energies of free atoms that they determine.

A total energy determines only the sum of the energies of its free atoms. If all training structures
are water, the energies of H and of O are unknown, and so is the energy of the reaction
2 H2O -> 2 H2 + O2, although the energy of every number of water molecules is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._counts import counted
from .._warnings import warn_once

if TYPE_CHECKING:
    from .._typing import Array
    from ..structures import Structures
    from ..targets import Labels


def element_counts(structures: Structures, elements: Array) -> Array:
    """Number of atoms of each element in every structure.

    Parameters
    ----------
    structures : Structures
        The structures.
    elements : ndarray of shape (n_elements,)
        Atomic numbers.

    Returns
    -------
    counts : ndarray of shape (n, n_elements)
    """
    onehot = structures.numbers[:, None] == elements
    return np.add.reduceat(onehot.astype(float), structures.offsets[:-1], axis=0)


def composition_basis(
    structures: Structures, elements: Array, labels: Labels, weights: Array
) -> Array | None:
    """Basis of the compositions whose sum of atomic energies is determined by labels.

    Parameters
    ----------
    structures : Structures
        Training structures.
    elements : ndarray of shape (n_elements,)
        Atomic numbers.
    labels : Labels
        Their labels.
    weights : ndarray of shape (n,)
        Weights of the structures.

    Returns
    -------
    basis : ndarray of shape (rank, n_elements) or None
        Orthonormal rows; None if the energies of all elements are determined.
    """
    labelled = labels.known("energy") & (weights > 0)
    counts = np.unique(element_counts(structures, elements)[labelled], axis=0)
    _, sizes, basis = np.linalg.svd(counts, full_matrices=False)
    rank = int((sizes > 1e-9 * sizes[0]).sum())
    return None if rank == len(elements) else basis[:rank]


def warn_of_compositions(structures: Structures, elements: Array, basis: Array) -> None:
    """Warn about energies that contain an unknown sum of atomic energies.

    Parameters
    ----------
    structures : Structures
        Structures to predict.
    elements : ndarray of shape (n_elements,)
        Atomic numbers.
    basis : ndarray of shape (rank, n_elements)
        From `composition_basis`.
    """
    counts = element_counts(structures, elements)
    outside = np.abs(counts - counts @ basis.T @ basis).max(axis=1) > 1e-6 * counts.max(axis=1)
    if outside.any():
        i = int(outside.argmax())
        warn_once(
            f"the energies of {counted(outside.sum(), 'structure')} contain sums of atomic "
            f"energies that the training labels do not determine; the first is structure {i} "
            f"({structures[i].symbols}). Compare such energies only within one composition, train "
            "on more compositions, or give `atomic_energies`; forces are not affected",
            kind="composition",
        )
