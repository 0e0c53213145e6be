"""Structures: the gate for `ase.Atoms` and the ragged container of per-atom features."""

from ._features import ArraySource, Block, StructureFeatures, Tile, check_same_features
from ._structure import Structure, as_sequence, check_structures, strip

__all__ = [
    "ArraySource",
    "Block",
    "Structure",
    "StructureFeatures",
    "Tile",
    "as_sequence",
    "check_same_features",
    "check_structures",
    "strip",
]
