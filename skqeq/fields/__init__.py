"""Latent fields: the numbers per atom that Gaussian processes predict, and their priors."""

from ._field import ElementTable, Field
from ._layout import FieldLayout
from ._rows import AtomRows

__all__ = ["AtomRows", "ElementTable", "Field", "FieldLayout"]
