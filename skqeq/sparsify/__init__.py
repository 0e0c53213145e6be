"""Sparse sets: which environments carry the Gaussian process, and the whitened kernel to them."""

from ._cur import CURSparsifier

__all__ = ["CURSparsifier"]
