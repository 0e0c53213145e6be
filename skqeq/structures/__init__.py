"""Structures: checks of `ase.Atoms`, and the ragged container of per-atom features."""

from ._base import NO_GRADIENT, FeatureGradient, FeatureSource
from ._check import (
    as_sequence,
    check_structures,
    holds_structures,
    implausible_structures,
    strip,
)
from ._collection import LazyStructures, Structures, collect, concatenate
from ._directional import DirectionalFeatures
from ._features import StructureFeatures, check_same_features
from ._neighbors import Neighborhood, gather_pairs, move_pairs, neighbor_pairs, spread_pairs
from ._numbers import BOOLEAN, as_floats, holds_booleans
from ._plausibility import Finding
from ._sources import ArraySource, NoFeatures, StackedGradient, StackedSource
from ._structure import Structure, reduced_cell
from ._tiles import Block, Tile
from ._total_charge import CHARGE_KEYS, with_total_charge, with_total_charges

__all__ = [
    "Block",
    "DirectionalFeatures",
    "FeatureGradient",
    "FeatureSource",
    "Finding",
    "Neighborhood",
    "Structure",
    "StructureFeatures",
    "Structures",
    "Tile",
    "check_structures",
    "implausible_structures",
    "strip",
    "with_total_charges",
]
