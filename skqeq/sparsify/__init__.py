"""Sparse sets: the environments on which the Gaussian process is based, and its whitened kernel."""

from ._cur import CURSparsifier
from ._environments import environments_of
from ._kernel import ReweightedKernel, SparseKernel
from ._selection import leverage_scores
from ._source import SparseSource

__all__ = ["CURSparsifier"]
