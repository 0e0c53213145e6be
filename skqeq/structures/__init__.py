"""Structures: the gate for `ase.Atoms` and the ragged container of per-atom features."""

from ._collection import Structures
from ._collection import collect as collect
from ._collection import concatenate as concatenate
from ._features import StructureFeatures
from ._sources import StackedSource as StackedSource
from ._structure import CHARGE_KEYS as CHARGE_KEYS
from ._structure import Structure, check_structures, strip
from ._structure import as_sequence as as_sequence
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
