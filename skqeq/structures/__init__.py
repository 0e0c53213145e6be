"""Structures: the gate for `ase.Atoms` and the ragged container of per-atom features."""

from ._features import Block, StructureFeatures, Tile
from ._structure import Structure, check_structures, strip

__all__ = [
    "Block",
    "Structure",
    "StructureFeatures",
    "Tile",
    "check_structures",
    "strip",
]
