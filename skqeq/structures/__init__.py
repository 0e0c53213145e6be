"""Structures: the gate for `ase.Atoms` and the ragged container of per-atom features."""

from ._collection import Structures
from ._features import StructureFeatures
from ._structure import Structure, check_structures, strip
from ._tiles import Block, Tile

__all__ = [
    "Block",
    "Structure",
    "StructureFeatures",
    "Structures",
    "Tile",
    "check_structures",
    "strip",
]
