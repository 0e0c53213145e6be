"""Structures with elements for which a descriptor has no channels."""

from dataclasses import replace
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from ..structures import Structure, neighbor_pairs


class KnownPart(NamedTuple):
    """A structure without its atoms of unknown elements.

    Parameters
    ----------
    structure : Structure
        The structure without these atoms.
    atoms : ndarray of shape (n,)
        Indices of the remaining atoms in the original structure.
    described : ndarray of shape (n,)
        True for atoms that had no atom of an unknown element as a neighbour. Their descriptors are
        the same in both structures.
    """

    structure: Structure
    atoms: np.ndarray
    described: np.ndarray


def known_part(structure, elements, reach):
    """Remove all atoms of unknown elements from a structure.

    Parameters
    ----------
    structure : Structure
        A molecule, a slab or a crystal.
    elements : collection of int
        Atomic numbers of the known elements.
    reach : float
        Distance up to which atoms are neighbours, Angstrom.

    Returns
    -------
    part : KnownPart or None
        None if all atoms are of unknown elements.
    """
    known = np.isin(structure.numbers, list(elements))
    if not known.any():
        return None
    i, j, _ = neighbor_pairs(structure, reach)
    described = known.copy()
    described[i[~known[j]]] = False
    atoms = np.flatnonzero(known)
    numbers = structure.numbers[known]
    remaining = replace(
        structure,
        numbers=numbers,
        positions=structure.positions[known],
        masses=structure.masses[known],
        species=tuple(sorted(set(numbers.tolist()))),
        digest=blake2b(structure.digest + atoms.tobytes(), digest_size=16).digest(),
    )
    return KnownPart(remaining, atoms, described[known])
