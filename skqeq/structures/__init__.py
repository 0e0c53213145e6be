"""Structures: checks of `ase.Atoms`, and the ragged container of per-atom features."""

from ._base import NO_GRADIENT, FeatureGradient, FeatureSource
from ._collection import LazyStructures, Structures, collect, concatenate
from ._features import StructureFeatures, check_same_features
from ._neighbors import Neighborhood, gather_pairs, neighbor_pairs, spread_pairs
from ._sources import ArraySource, NoFeatures, StackedSource
from ._structure import (
    CHARGE_KEYS,
    Structure,
    as_sequence,
    check_structures,
    reduced_cell,
    strip,
)
from ._tiles import Block, Tile

__all__ = [
    "Block",
    "FeatureGradient",
    "FeatureSource",
    "Neighborhood",
    "Structure",
    "StructureFeatures",
    "Structures",
    "Tile",
    "check_structures",
    "strip",
]
