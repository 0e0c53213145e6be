"""Products of environments and sparse points, mostly in single precision."""

from itertools import pairwise

import numpy as np

# Number of directions, per column block, whose products are computed in double precision.
# Environments of one element are similar: 32 directions contain at least 98 % of a squared norm.
RANK = 32
# Number of points from which the directions are computed.
SAMPLE = 128


def products(values, columns, points):
    """Scalar products of rows and points, where the rows are zero outside of some columns.

    Parameters
    ----------
    values : ndarray of shape (n, m)
        The rows in the m columns in which they are not zero.
    columns : list of slice
        The m columns, as slices of all columns.
    points : ndarray of shape (M, n_features)
        The points in all columns.

    Returns
    -------
    dot : ndarray of shape (n, M)
        Scalar products.
    """
    dot, start = 0.0, 0
    for some in columns:
        stop = start + some.stop - some.start
        dot += values[:, start:stop] @ points[:, some].T
        start = stop
    return dot


class MixedProducts:
    """Scalar products at the speed of single precision, with much smaller errors.

    In single precision, scalar products of unit vectors have errors of 1e-7. Because the smallest
    eigenvalues of the kernel matrix are about 1e-10, such errors change charges by 1 %. Rows are
    therefore split into two parts. The first part is the projection on a few directions V, which
    are the leading right singular vectors of the points. The second part is the remainder, which is
    small::

        x . s = (x Q) . (s Q) + (x - x Q Q^T) . (s - s V V^T)

    The first product is computed in double precision, the second product in single precision. A row
    x is zero outside of some columns, and Q is an orthonormal basis of the directions V restricted
    to these columns. The remainder of x is orthogonal to Q, so that the identity is exact.

    Parameters
    ----------
    points : ndarray of shape (M, n_features)
        The sparse points s.
    boundaries : tuple of int
        First column of each column block, and the number of features.
    """

    def __init__(self, points, boundaries):
        self.points, self.boundaries = points, boundaries
        self.remainders = np.empty(points.shape, dtype=np.float32)
        self.directions = []  # V^T for every column block
        # Q and s Q, keyed by column block and columns. They are stored because all structures with
        # the same elements need the same ones.
        self._bases = {}
        for start, stop in pairwise(boundaries):
            block = points[:, start:stop]
            sample = block[:: max(1, len(block) // SAMPLE)]
            V_T = _orthonormal(sample, RANK).T
            projections = (block @ V_T.T) @ V_T
            self.remainders[:, start:stop] = np.subtract(block, projections, out=projections)
            self.directions.append(V_T)

    def __call__(self, b, values, columns):
        """Products (n, M) of rows with all points; the rows are given in `columns` of block b."""
        Q, points_Q = self._basis(b, columns)
        values_Q = values @ Q
        # In place, because the system would clear the memory of a new large array.
        remainder = values_Q @ Q.T
        np.subtract(values, remainder, out=remainder)
        dot = products(remainder.astype(np.float32), columns, self.remainders)
        return dot + values_Q @ points_Q

    def _basis(self, b, columns):
        """Q for some columns, shape (m, at most RANK), and its products with all points."""
        key = b, *((some.start, some.stop) for some in columns)
        if key not in self._bases:
            first = self.boundaries[b]
            parts = [self.directions[b][:, c.start - first : c.stop - first] for c in columns]
            Q = _orthonormal(np.concatenate(parts, axis=1))
            self._bases[key] = Q, products(Q.T, columns, self.points)
        return self._bases[key]


def _orthonormal(rows, rank=None):
    """Orthonormal basis of the leading directions of some rows, shape (n_columns, <= rank).

    It is computed from the eigenvectors of the small matrix of products of rows, which is many
    times faster than a singular value decomposition of the rows.
    """
    squares, U = np.linalg.eigh(rows @ rows.T)
    # Directions with small singular values are dominated by rounding errors.
    leading = np.flatnonzero(squares > 1e-6 * squares[-1])[::-1][:rank]
    return rows.T @ (U[:, leading] / np.sqrt(squares[leading]))
