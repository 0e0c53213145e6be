"""Latent fields: the numbers per atom that Gaussian processes predict, and their priors."""

from ._field import VECTORS, Component, ElementTable, Field, components_of
from ._layout import FieldLayout
from ._rows import AtomRows

__all__ = ["AtomRows", "Component", "ElementTable", "Field", "FieldLayout", "components_of"]
