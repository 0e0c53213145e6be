"""Products of environments and sparse points, most of the work in single precision."""

from itertools import pairwise

import numpy as np

# Directions of every column block whose part of the products is in double precision. Environments
# of an element are alike: beyond 32 directions less than 2 % of a squared norm is left.
RANK = 32
SAMPLE = 128  # points that those directions are taken from


def products(values, runs, points):
    """``values @ points.T``, where `values` holds the columns `runs` of the points only."""
    dot, start = 0.0, 0
    for run in runs:
        stop = start + run.stop - run.start
        dot += values[:, start:stop] @ points[:, run].T
        start = stop
    return dot


class MixedProducts:
    """Products in single precision, with errors far below its rounding.

    Rounded to single precision, products of rows of norm one are wrong by 1e-7; a kernel matrix
    with eigenvalues of 1e-10 makes 1 % of the charges of that. So rows are split into their
    part in the span of the leading right singular vectors of the points, Q, and the rest, which is
    small::

        x . s = (x Q) . (s Q) + (x - x Q Q^T) . (s - s V V^T)

    The first product is in double precision, the second in single. A row that holds some columns
    only has its own Q, the basis of what V has there: the rest is orthogonal to it, and the
    identity is exact.

    Parameters
    ----------
    points : ndarray of shape (M, n_features)
        The sparse points.
    boundaries : tuple of int
        First column of each block, and the number of features.
    """

    def __init__(self, points, boundaries):
        self.points, self.boundaries = points, boundaries
        self.rest = np.empty(points.shape, dtype=np.float32)
        self.bases, self._leading = [], {}
        for start, stop in pairwise(boundaries):
            block = points[:, start:stop]
            some = block[:: max(1, len(block) // SAMPLE)]
            V = _orthonormal(some, RANK).T
            rest = (block @ V.T) @ V
            self.rest[:, start:stop] = np.subtract(block, rest, out=rest)
            self.bases.append(V)

    def __call__(self, b, values, runs):
        """Products of rows, which hold the columns `runs` of block b, with all points: (n, M)."""
        key = b, *((run.start, run.stop) for run in runs)
        if key not in self._leading:
            first = self.boundaries[b]
            parts = [self.bases[b][:, run.start - first : run.stop - first] for run in runs]
            Q = _orthonormal(np.concatenate(parts, axis=1))
            self._leading[key] = Q, products(Q.T, runs, self.points)
        Q, known = self._leading[key]
        leading = values @ Q
        rest = leading @ Q.T
        np.subtract(values, rest, out=rest)
        dot = products(rest.astype(np.float32), runs, self.rest)
        return dot + leading @ known


def _orthonormal(rows, rank=None):
    """Orthonormal basis of the leading directions of some rows: (n_columns, at most rank).

    By way of the products of rows, many times faster than a decomposition of the rows themselves.
    """
    squares, U = np.linalg.eigh(rows @ rows.T)
    kept = np.flatnonzero(squares > 1e-6 * squares[-1])[::-1][:rank]
    return rows.T @ (U[:, kept] / np.sqrt(squares[kept]))
