"""Checked plain arrays of one structure, which skqeq works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ..parameters import MAX_ATOMIC_NUMBER
from ._geometry import shortest_vectors

if TYPE_CHECKING:
    from .._typing import Array


# Memory of the Python objects of one structure, without the data of its arrays, bytes.
OVERHEAD = 1050


@dataclass(frozen=True, eq=False, slots=True)
class Structure:
    """Geometry, total charge and external field of one structure, and nothing else.

    Parameters
    ----------
    numbers : ndarray of shape (n_atoms,)
        Atomic numbers.
    positions : ndarray of shape (n_atoms, 3)
        Positions of the atoms, Angstrom.
    cell : ndarray of shape (3, 3)
        Cell vectors in rows, Angstrom. For a slab, the vector that is not periodic is replaced by
        the unit normal of the slab.
    pbc : tuple of 3 bool
        Which cell vectors are periodic.
    volume : float
        Volume of the original cell, including vacuum, Angstrom^3; 0 if a cell vector is zero.
    masses : ndarray of shape (n_atoms,)
        Atomic mass units. They define the centre of mass, which is the origin of dipoles.
    charge : float
        Total charge, e.
    field : ndarray of shape (3,)
        External electric field, V/Angstrom; its energy is ``-dipole . field``.
    potential_points : ndarray of shape (n_points, 3) or None
        Points of the target `potential`, Angstrom.
    species : tuple of int
        Atomic numbers that occur, ascending.
    digest : bytes
        Hash of numbers, positions, cell and pbc, because per-atom features depend on these only.

    See Also
    --------
    check_structures : Make structures from `ase.Atoms`.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import check_structures
    >>> [ammonia] = check_structures([molecule("NH3")])
    >>> ammonia.symbols, ammonia.species, ammonia.periodic
    ('H3N', (1, 7), False)
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: tuple
    volume: float
    masses: np.ndarray
    charge: float
    field: np.ndarray
    potential_points: np.ndarray | None
    species: tuple
    digest: bytes

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def periodic(self) -> bool:
        """Whether any cell vector is periodic."""
        return any(self.pbc)

    @property
    def center_of_mass(self) -> Array:
        """Mass-weighted centre, shape (3,), Angstrom."""
        return self.masses @ self.positions / self.masses.sum()

    @property
    def symbols(self) -> str:
        """Chemical formula, for messages."""
        return formula(self.numbers)

    @property
    def n_bytes(self) -> int:
        """Approximate memory of the structure, bytes."""
        points = 0 if self.potential_points is None else self.potential_points.nbytes
        arrays = (self.numbers, self.positions, self.cell, self.masses, self.field)
        return OVERHEAD + points + sum(array.nbytes for array in arrays)

    def to_atoms(self) -> Atoms:
        """Convert to `ase.Atoms`.

        Returns
        -------
        atoms : ase.Atoms
            Atoms with numbers, positions, cell and pbc, and nothing else.
        """
        return Atoms(self.numbers, self.positions, cell=self.cell, pbc=self.pbc)


def reduced_cell(structure):
    """The shortest cell vectors of the same lattice, and which of them are periodic.

    With the cell vectors of a very skew cell, a sphere of neighbours extends over a huge number of
    periodic images. With the shortest vectors it extends over few images. The third vector of a
    slab is the unit normal.
    """
    order = np.argsort([not periodic for periodic in structure.pbc], kind="stable")
    periodic = True, True, all(structure.pbc)
    return shortest_vectors(structure.cell[order], periodic), periodic


def formula(numbers):
    """Chemical formula for messages, in which numbers that are not elements appear as '?'."""
    symbols = [chemical_symbols[z] if 0 <= z <= MAX_ATOMIC_NUMBER else "?" for z in numbers]
    counts = {s: symbols.count(s) for s in sorted(set(symbols))}
    return "".join(s + (str(n) if n > 1 else "") for s, n in counts.items()) or "empty"
