"""The kernel between environments and sparse points, whitened by Cholesky."""

import hashlib
import warnings

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.linalg.blas import dsyrk
from sklearn.exceptions import ConvergenceWarning


class SparseKernel:
    """Whitened features of one group of environments: ``phi = K_nM L^-T``, ``K_MM = L L^T``.

    The kernel is ``k(p, p') = sum_b w_b (p_b . p_b' / |p_b| |p_b'|)^zeta`` over column blocks b.

    Parameters
    ----------
    points : ndarray of shape (n_features, M)
        Sparse points in columns, so that a tile's columns select contiguous memory; every
        column block of every point has norm one.
    boundaries : tuple of int
        First column of each block, and the number of features.
    block_weights : ndarray of shape (n_blocks,)
        They sum to one, so that ``k(p, p) = 1``.
    zeta : int
        Exponent.
    """

    def __init__(self, points, boundaries, block_weights, zeta):
        self.points = points
        self.boundaries = boundaries
        self.block_weights = block_weights
        self.zeta = zeta

    def factorize(self, jitter, name):
        """Cholesky factor `chol` of K_MM, with as much `jitter` as it takes, and its `digest`."""
        K_mm = 0.0
        for b, weight in enumerate(self.block_weights):
            block = self.points[self.boundaries[b] : self.boundaries[b + 1]]
            # BLAS syrk computes one triangle of the symmetric product, which is all we need.
            K_mm += weight * _power(dsyrk(1.0, block.T, lower=1), self.zeta)
        if not np.isfinite(K_mm).all():
            raise ValueError(f"features of {name} are infinite or undefined")
        self.jitter = jitter
        while True:
            try:
                self.chol = cholesky(
                    K_mm + self.jitter * np.eye(len(K_mm)), lower=True, check_finite=False
                )
                break
            except np.linalg.LinAlgError:
                self.jitter = max(10 * self.jitter, 1e-14)
        if self.jitter > jitter:
            warnings.warn(
                f"the kernel matrix of {len(K_mm)} sparse points of {name} is singular to "
                f"working precision; jitter was raised from {jitter:.0e} to {self.jitter:.0e}. "
                "Lower n_points, or raise jitter to silence this",
                ConvergenceWarning,
                stacklevel=4,
            )
        self.digest = hashlib.blake2b(self.chol.tobytes(), digest_size=16).hexdigest()
        return self

    def __call__(self, tile):
        """Kernel of every row of a tile with every sparse point: (n, M)."""
        dots = {}
        for b, columns, piece in block_pieces(tile, self.boundaries):
            dots[b] = dots.get(b, 0.0) + tile.values[:, piece] @ self.points[columns]
        K = 0.0
        for b, norms in block_norms(tile, self.boundaries).items():
            K += self.block_weights[b] * _power(dots[b] / norms[:, None], self.zeta)
        return K

    def whiten(self, K):
        """Solve ``phi L^T = K`` in place."""
        return solve_triangular(self.chol, K.T, lower=True, overwrite_b=True, check_finite=False).T


def block_pieces(tile, boundaries):
    """Pieces of a tile cut at the boundaries of the column blocks.

    Yields the block's number, the feature columns and the columns of ``tile.values``.
    """
    for columns, piece in tile.pieces():
        cuts = [b for b in boundaries if columns.start < b < columns.stop]
        edges = [columns.start, *cuts, columns.stop]
        shift = piece.start - columns.start
        for start, stop in zip(edges[:-1], edges[1:], strict=True):
            b = int(np.searchsorted(boundaries, start, side="right")) - 1
            yield b, slice(start, stop), slice(start + shift, stop + shift)


def block_norms(tile, boundaries):
    """Norm of every row in every column block that the tile holds; 1 for a zero row."""
    squares = {}
    for b, _, piece in block_pieces(tile, boundaries):
        rows = tile.values[:, piece]
        squares[b] = squares.get(b, 0.0) + np.einsum("ij,ij->i", rows, rows)
    return {b: np.sqrt(np.where(s == 0.0, 1.0, s)) for b, s in squares.items()}


def _power(x, zeta):
    """``x**zeta`` by repeated products, several times faster than a general power."""
    result = x
    for _ in range(zeta - 1):
        result = result * x
    return result


def normalize_blocks(points, boundaries):
    """Divide every column block of every point (a column) by its norm, in place."""
    for start, stop in zip(boundaries[:-1], boundaries[1:], strict=True):
        norms = np.linalg.norm(points[start:stop], axis=0)
        norms[norms == 0.0] = 1.0
        points[start:stop] /= norms
    return points
