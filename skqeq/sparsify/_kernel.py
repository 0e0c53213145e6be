"""The kernel between environments and sparse points, whitened by Cholesky."""

import hashlib
from bisect import bisect_right
from functools import cached_property
from itertools import groupby, pairwise

import numpy as np
from scipy.linalg import solve_triangular
from sklearn.exceptions import ConvergenceWarning

from .._state import check_array, check_that, check_type, is_number
from .._warnings import warn_once
from ._mixed import MixedProducts, products

# Key of the group that contains environments of all elements.
ALL = 0
# Number of columns that are whitened at a time.
COLUMNS = 128
# Rounding errors of norms and sums that are one.
TOLERANCE = 1e-6
# Attributes that can be made again, and are not written to files.
DERIVED = ("_mixed", "_inverses")


class SparseKernel:
    """Whitened features of one group of environments: ``phi = K_nM L^-T``, ``K_MM = L L^T``.

    The kernel is ``k(p, p') = sum_b w_b (p_b . p_b' / |p_b| |p_b'|)^zeta`` over column blocks b.

    Parameters
    ----------
    points : ndarray of shape (M, n_features)
        Sparse points. Every column block of every point has norm one.
    boundaries : tuple of int
        First column of each column block, and the number of features.
    block_weights : ndarray of shape (n_blocks,)
        Weights w_b of the column blocks. They sum to one, so that ``k(p, p) = 1``.
    zeta : int
        Exponent.
    dtype : {"float64", "float32"}
        Precision of the products of environments and points, see `MixedProducts`.

    Attributes
    ----------
    chol : ndarray of shape (M, M)
        Lower triangle L, set by `factorize`.
    jitter : float
        Number that was added to the diagonal of K_MM.
    digest : str
        Hash of the sparse points, the kernel and L. Two sparse sets with the same descriptor are
        the same if their hashes are equal.
    """

    def __init__(self, points, boundaries, block_weights, zeta, dtype):
        self.points = points
        self.boundaries = boundaries
        self.block_weights = block_weights
        self.zeta = zeta
        self.dtype = dtype

    @cached_property
    def _mixed(self):
        return MixedProducts(self.points, self.boundaries)

    @cached_property
    def _inverses(self):
        """The inverses of the diagonal blocks of L, with `COLUMNS` columns each."""
        starts = range(0, len(self.chol), COLUMNS)
        blocks = [self.chol[s : s + COLUMNS, s : s + COLUMNS] for s in starts]
        return [solve_triangular(L, np.eye(len(L)), lower=True) for L in blocks]

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name not in DERIVED}

    def factorize(self, jitter, name):
        """Compute L, with a larger jitter than the given one if K_MM is singular.

        Parameters
        ----------
        jitter : float
            Number to add to the diagonal of K_MM.
        name : str
            Name of the group in messages.

        Returns
        -------
        self : SparseKernel
            The kernel, with the attributes `chol`, `jitter` and `digest`.
        """
        K_mm = 0.0
        for b, weight in enumerate(self.block_weights):
            block = self.points[:, self.boundaries[b] : self.boundaries[b + 1]]
            K_mm += weight * _power(block @ block.T, self.zeta)
        if not np.isfinite(K_mm).all():
            raise ValueError(f"features of {name} are infinite or undefined")
        self.jitter = jitter
        while True:
            try:
                # NumPy, not SciPy: they have separate BLAS threads. For 20 ms after the products
                # above, NumPy's threads keep the cores busy, and SciPy's threads would wait.
                self.chol = np.linalg.cholesky(K_mm + self.jitter * np.eye(len(K_mm)))
                break
            except np.linalg.LinAlgError:
                self.jitter = max(10 * self.jitter, 1e-14)
        if self.jitter > jitter:
            warn_once(
                f"the kernel matrix of {len(K_mm)} sparse points of {name} is singular to "
                f"working precision; jitter was raised from {jitter:.0e} to {self.jitter:.0e}. "
                "Lower n_points, or raise jitter to silence this",
                f"jitter of {name}",
                ConvergenceWarning,
            )
        self.digest = self._content()
        self.__dict__.pop("_inverses", None)  # those of an earlier L
        return self

    def reweighted(self, block_weights):
        """The kernel of the same points with other weights of the column blocks, of sum one."""
        return ReweightedKernel(self, block_weights).factorize(self.jitter, "the sparse set")

    def check_loaded(self):
        """Check a kernel that was read from a file.

        Raises
        ------
        ValueError
            If points, weights and Cholesky factor do not fit; the message names what does not fit.
        """
        edges = check_type(self, "boundaries", tuple)
        ascending = len(edges) > 1 and all(is_number(edge, "i") for edge in edges) and edges[0] == 0
        ascending = ascending and all(a < b for a, b in pairwise(edges))
        check_that(ascending, self, "boundaries", "a tuple of ascending int that begins with 0")
        points = check_array(self, "points", (None, edges[-1]))
        norms = np.add.reduceat(points**2, edges[:-1], axis=1)
        normalised = (np.abs(norms - 1.0) < TOLERANCE) | (norms == 0.0)
        check_that(normalised.all(), self, "points", "an array whose column blocks have norm one")
        weights = check_array(self, "block_weights", (len(edges) - 1,), least=0.0)
        check_that(abs(weights.sum() - 1) < TOLERANCE, self, "block_weights", "weights of sum one")
        check_that(is_number(self.zeta, "i", least=1), self, "zeta", "a positive integer")
        check_that(self.dtype in ("float64", "float32"), self, "dtype", "float64 or float32")
        check_that(is_number(self.jitter, least=0.0), self, "jitter", "not negative")
        chol = check_array(self, "chol", (len(points),) * 2)
        # The diagonal of K_MM is one, unless the features of a point are zero.
        diagonal = np.einsum("ij,ij->i", chol, chol) - self.jitter
        correct = np.abs(diagonal - (norms > 0) @ weights) < TOLERANCE
        correct = correct.all() and (chol.diagonal() > 0).all() and not np.triu(chol, 1).any()
        check_that(correct, self, "chol", "the Cholesky factor of the kernel of the points")
        # In files of earlier versions, it is the hash of L alone.
        digests = (self._content(), hashlib.blake2b(chol.tobytes(), digest_size=16).hexdigest())
        check_that(self.digest in digests, self, "digest", "the hash of the kernel")

    def _content(self):
        """Hash of all that determines the features."""
        # A sparse set of one point has L = 1, whatever the point and the exponent are.
        content = hashlib.blake2b(f"{self.zeta} {self.dtype}".encode(), digest_size=16)
        for array in (self.points, np.asarray(self.block_weights), self.chol):
            content.update(np.ascontiguousarray(array).tobytes())
        return content.hexdigest()

    def __call__(self, tile):
        """The kernel K_nM between the n atoms of a tile and the sparse points."""
        K = np.zeros((len(tile.values), len(self.points)))
        for b, values, columns in column_blocks(tile, self.boundaries):
            if self.block_weights[b] == 0.0:
                continue
            if self.dtype == "float32":
                dot = self._mixed(b, values, columns)
            else:
                dot = products(values, columns, self.points)
            # The points are normalised already; only the rows of the atoms are divided by norms.
            K += self.block_weights[b] * _power(dot / row_norms(values)[:, None], self.zeta)
        return K

    def whiten(self, K):
        """Solve ``phi L^T = K`` for phi, in place, by blocked forward substitution.

        The inverses of the diagonal blocks are known, so that only matrix products are left. For
        few rows, a factorisation of each block would take most of the time. A product with an
        inverse alone would leave a residual as large as the condition number times the rounding
        error. One step of iterative refinement removes it, so that ``phi w = K u`` holds to
        rounding errors for ``L^T u = w``.
        """
        for k, inverse in enumerate(self._inverses):
            block = slice(k * COLUMNS, (k + 1) * COLUMNS)
            K[:, block] -= K[:, : block.start] @ self.chol[block, : block.start].T
            phi = K[:, block] @ inverse.T
            phi += (K[:, block] - phi @ self.chol[block, block].T) @ inverse.T
            K[:, block] = phi
        return K


class ReweightedKernel(SparseKernel):
    """The kernel of the points of another kernel, with other weights of the column blocks.

    Parameters
    ----------
    original : SparseKernel
        The other kernel. Its points are shared, also in files.
    block_weights : ndarray of shape (n_blocks,)
        Weights of the column blocks, of sum one.
    """

    def __init__(self, original, block_weights):
        self.original = original
        self.boundaries = original.boundaries
        self.block_weights = block_weights
        self.zeta = original.zeta
        self.dtype = original.dtype

    @property
    def points(self):
        return self.original.points

    @property
    def _mixed(self):
        return self.original._mixed

    def check_loaded(self):
        original = check_type(self, "original", SparseKernel)
        original.check_loaded()
        super().check_loaded()


def column_blocks(tile, boundaries):
    """Split a tile by column blocks.

    Parameters
    ----------
    tile : Tile
        Features of some atoms.
    boundaries : tuple of int
        First column of each column block, and the number of columns.

    Yields
    ------
    b : int
        Index of the column block.
    values : ndarray of shape (n, m)
        Values of the tile in this block.
    columns : list of slice
        The columns of `values`, as slices of the columns of all features.
    """
    pieces = list(tile.pieces())
    for b, group in groupby(pieces, lambda piece: bisect_right(boundaries, piece[0].start) - 1):
        group = list(group)
        # The pieces of one column block are adjacent in the tile, so that no copy is made.
        values = tile.values[:, group[0][1].start : group[-1][1].stop]
        yield b, values, [columns for columns, _ in group]


def row_norms(rows):
    """Norm of every row, or 1 for a row of zeros, to avoid a division by zero."""
    squares = np.einsum("ij,ij->i", rows, rows)
    return np.sqrt(np.where(squares == 0.0, 1.0, squares))


def _power(x, zeta):
    """``x**zeta`` by repeated products, several times faster than a general power."""
    if zeta < 4:
        return x if zeta == 1 else x * _power(x, zeta - 1)
    half = _power(x, zeta // 2)
    return half * half if zeta % 2 == 0 else half * half * x


def normalize_blocks(rows, boundaries):
    """Divide every column block of every row by its norm, in place."""
    for start, stop in zip(boundaries[:-1], boundaries[1:], strict=True):
        rows[:, start:stop] /= row_norms(rows[:, start:stop])[:, None]
    return rows
