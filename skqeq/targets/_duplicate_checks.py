"""Check of the energies of structures that occur more than once."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import pdist

from ._findings import Finding
from ._label_checks import LabelCheck

if TYPE_CHECKING:
    from .._typing import Array
    from ..structures import Structure

# Largest difference of the energies of one structure, eV per atom.
MAX_DIFFERENCE = 1e-3
# Lengths are rounded to multiples of this value, Angstrom. It is not a decimal number, because
# numbers of files have few decimals, and rounding errors would decide how these are rounded.
SPACING = 1.618e-4
# Fractions of a cell are rounded to multiples of 1 / N_FRACTIONS, which is divisible by all numbers
# up to 16. Fractions of ideal crystals are then multiples.
N_FRACTIONS = 720720
# In larger molecules, positions are compared instead of all distances.
MAX_ATOMS = 500


class EnergiesOfDuplicates(LabelCheck):
    """Structures with equal geometry, total charge and field have the same energy."""

    name, needs, in_fit = "energies of duplicates", ("energy",), False

    def __init__(self):
        self.first = {}  # key: index and energy of the first structure with this key
        self.n, self.different = 0, []

    def add(self, i, structure, labels):
        energy, key = float(labels["energy"]), _key(structure)
        earlier, other = self.first.setdefault(key, (i, energy))
        if earlier == i:
            return
        self.n += 1
        if abs(energy - other) > MAX_DIFFERENCE * len(structure):
            self.different.append((abs(energy - other), earlier, i))

    def finding(self):
        if not self.different:
            return self.ok(self.n)
        difference, one, other = max(self.different, key=lambda found: found[0])
        n = len(self.different)
        advice = (
            f"structures {one} and {other} have the same geometry and total charge, but their "
            f"energies differ by {difference:.3g} eV"
        )
        if n > 1:
            advice += f"; {n} energies differ from that of an earlier equal structure"
        advice += ": use labels of one method and one electronic state, and remove one of each pair"
        value, first = f"{difference:.3g} eV", self.different[0][2]
        return Finding(self.name, "warning", n, first, value, advice)


def _key(structure: Structure) -> bytes:
    """A hash that is equal for structures with the same geometry, total charge and field."""
    numbers = [structure.numbers, [structure.charge], structure.pbc, _rounded(structure.field)]
    parts = [np.asarray(part, dtype=np.float64) for part in (*numbers, *_geometry(structure))]
    return blake2b(b"".join(part.tobytes() for part in parts), digest_size=16).digest()


def _geometry(structure: Structure) -> tuple[Array, ...]:
    """Rounded numbers that do not change if the structure is shifted or, if possible, rotated."""
    positions = structure.positions
    if structure.periodic:
        axes = np.array(structure.pbc)
        fractions = (positions - positions[0]) @ np.linalg.inv(structure.cell)
        lengths = _rounded(fractions[:, ~axes])  # along the normal of a slab
        fractions = np.rint(N_FRACTIONS * fractions[:, axes]) % N_FRACTIONS
        return _rounded(structure.cell), fractions, lengths
    if structure.field.any():
        return (_rounded(positions),)
    if len(structure) > MAX_ATOMS:
        return (_rounded(positions - positions.mean(axis=0)),)
    return (_rounded(pdist(positions)),)


def _rounded(lengths: Array) -> Array:
    return np.rint(lengths / SPACING) + 0.0  # turns -0 into 0
