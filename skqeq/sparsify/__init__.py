"""Sparse sets: which environments carry the Gaussian process, and the whitened kernel to them."""

from ._cur import CURSparsifier
from ._environments import environments_of
from ._kernel import SparseKernel
from ._selection import leverage_scores
from ._source import SparseSource

__all__ = ["CURSparsifier"]
