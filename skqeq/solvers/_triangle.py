"""Streaming least squares by orthogonal reduction (TSQR)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.blas import dgemm, dtrsm
from scipy.linalg.lapack import dgeqrf, dormqr, dtpqrt

if TYPE_CHECKING:
    from .._typing import Array


# Rows are buffered until there are more than FEW per column. Fewer rows are not reduced to a
# triangle, because a factorisation of the rows themselves is cheaper (see `_solve_few`).
FEW = 0.6
# Once there is a triangle, rows are buffered until there are more than MANY: each reduction reads
# and writes the whole triangle.
MANY = 2048
# Three block sizes of `rotate`, in columns: of a panel, of LAPACK's blocks inside a panel, and of
# the update of the remaining columns.
PANEL, BLOCK, CHUNK = 192, 16, 1024
# Avoids a division by zero for columns that need no reflector.
TINY = 1e-300
UNDEFINED = "the least-squares problem holds infinite or undefined numbers"


class Triangle:
    """A least-squares problem whose rows are reduced to one triangle as they are added.

    Rows ``[J | r]`` are multiplied by orthogonal matrices until only an upper triangle is left::

        Q^T [J | r] = [R  z]
                      [0  rho]      so that   |J v - r|^2 = |R v - z|^2 + rho^2,

    for any number of rows. Unlike the normal equations, this does not square the condition number.
    Unlike a QR factorisation of all rows together, it stores only a few thousand rows and one
    triangle. The first rows are only collected. If there are few rows compared with the number of
    unknowns, the solution is computed as a linear combination of the rows.

    Parameters
    ----------
    n_columns : int
        Number of unknowns.
    penalty : float or ndarray of shape (n_columns,), default=0.0
        Adds ``sum_j (penalty_j v_j)^2`` to the sum of squares. The initial triangle is the
        diagonal matrix of the penalties.

    Attributes
    ----------
    n_rows : int
        Number of rows that were added.

    References
    ----------
    Demmel, Grigori, Hoemmen, Langou, SIAM J. Sci. Comput. 34, A206 (2012).

    Examples
    --------
    >>> import numpy as np
    >>> from skqeq.solvers import Triangle
    >>> triangle = Triangle(1)
    >>> triangle.update(np.array([[1.0], [1.0]]), np.array([1.0, 3.0]))
    >>> triangle.solve()
    array([2.])
    """

    def __init__(self, n_columns: int, penalty: float | Array = 0.0) -> None:
        self._penalty = np.full(n_columns, penalty, dtype=np.float64)
        self._R: Array | None = None
        self._waiting: list[tuple[Array, Array]] = []
        self.n_rows = 0

    @classmethod
    def from_augmented(cls, R: Array) -> Triangle:
        """Make a triangle from the array `augmented` of another one.

        Parameters
        ----------
        R : ndarray of shape (n_columns + 1, n_columns + 1)
            The array; it is copied.

        Returns
        -------
        triangle : Triangle
            A triangle that represents the same rows.
        """
        triangle = cls(len(R) - 1)
        triangle._R = R.copy(order="F")
        return triangle

    @property
    def n_columns(self) -> int:
        """Number of unknowns."""
        return len(self._penalty)

    @property
    def R(self) -> Array:
        """The triangle, shape (n_columns, n_columns)."""
        return self._reduced()[:-1, :-1]

    @property
    def z(self) -> Array:
        """The rotated right-hand side, shape (n_columns,)."""
        return self._reduced()[:-1, -1]

    @property
    def rho2(self) -> float:
        """Smallest sum of squares over all weights."""
        return self._reduced()[-1, -1] ** 2

    def update(self, J: Array, r: Array) -> None:
        """Add rows.

        Parameters
        ----------
        J : ndarray of shape (n, n_columns)
            Rows.
        r : ndarray of shape (n,)
            Right-hand sides.
        """
        n = len(r)
        if n == 0:
            return
        self.n_rows += n
        few = FEW * self.n_columns if self._R is None else 0
        if n + sum(len(r) for _, r in self._waiting) <= max(few, MANY):
            J, r = np.array(J, dtype=np.float64, order="C"), np.array(r)
            self._waiting.append((J, r))
            return
        self._waiting.append((J, r))
        self._reduced()

    def _reduced(self):
        """The triangle with all rows in it."""
        if self._R is None:
            # LAPACK needs Fortran order. The last column is the right-hand side. The reduction
            # would be slow if it started from zeros, because pivots would become denormal numbers.
            self._R = np.zeros((self.n_columns + 1, self.n_columns + 1), order="F")
            diagonal = np.arange(self.n_columns)
            self._R[diagonal, diagonal] = self._penalty
        if self._waiting:
            stop = sum(len(r) for _, r in self._waiting)
            rows = np.empty((stop, len(self._R)), order="F")
            while self._waiting:
                J, r = self._waiting.pop()
                here = slice(stop - len(r), stop)
                rows[here, :-1], rows[here, -1], stop = J, r, here.start
            rotate(self._R, rows)
        return self._R

    def merge(self, R: Array, n_rows: int = 0) -> None:
        """Add all rows that another triangle represents.

        Parameters
        ----------
        R : ndarray of shape (n_columns + 1, n_columns + 1)
            Upper triangle in the form of `augmented`; its last column belongs to the right-hand
            sides. It is overwritten if it is in Fortran order.
        n_rows : int, default=0
            Number of these rows.
        """
        n = len(self._reduced())
        if R.shape != (n, n):
            raise ValueError(f"a triangle of shape {R.shape} cannot be added to one of {(n, n)}")
        self.n_rows += n_rows
        R = np.asfortranarray(R)
        self._R, _, _, info = dtpqrt(n, min(48, n), self._R, R, overwrite_a=True, overwrite_b=True)
        if info:
            raise ValueError(f"LAPACK tpqrt rejected argument {-info}")

    @property
    def augmented(self) -> Array:
        """``[[R, z], [0, rho]]``, including the penalty: (n_columns + 1, n_columns + 1)."""
        return self._reduced()

    def copy(self) -> Triangle:
        """Make an independent triangle with the same rows.

        Returns
        -------
        triangle : Triangle
            The copy.
        """
        other = Triangle(self.n_columns, self._penalty)
        other._R = None if self._R is None else self._R.copy(order="F")
        other._waiting, other.n_rows = list(self._waiting), self.n_rows
        return other

    def centered(self, v: Array) -> Triangle:
        """The same problem for changes of the weights.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights from which changes are measured.

        Returns
        -------
        triangle : Triangle
            Its unknowns are ``d = v' - v``.
        """
        other = self.copy()
        other._reduced()[:-1, -1] -= self.R @ v
        return other

    def residual(self, v: Array) -> Array:
        """The rotated residuals, without the part `rho2` that does not depend on the weights.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.

        Returns
        -------
        residual : ndarray of shape (n_columns,)
            ``R v - z``.
        """
        return self.R @ v - self.z

    def loss(self, v: Array) -> float:
        """Half the sum of squares.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.

        Returns
        -------
        loss : float
            ``|J v - r|^2 / 2``.
        """
        if self._R is None:
            residuals = [J @ v - r for J, r in self._waiting]
            residual = np.concatenate([self._penalty * v, *residuals])
            return float(0.5 * residual @ residual)
        residual = self.residual(v)
        return float(0.5 * (residual @ residual + self.rho2))

    def gradient(self, v: Array) -> Array:
        """Gradient of `loss`.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.

        Returns
        -------
        gradient : ndarray of shape (n_columns,)
            ``R^T (R v - z)``.
        """
        return self.R.T @ self.residual(v)

    def check(self) -> None:
        """Refuse rows that do not determine the weights.

        Raises
        ------
        ValueError
            If the triangle holds NaN or infinity, or is singular to working precision.
        """
        diagonal = np.abs(np.diag(self.R))
        if not np.isfinite(self._reduced()).all():
            raise ValueError(UNDEFINED)
        if diagonal.min() <= 1e-14 * diagonal.max():
            raise ValueError(
                "the least-squares problem is singular to working precision: raise sigma, or "
                "lower n_points"
            )

    def solve(self) -> Array:
        """Find the weights with the smallest loss.

        Returns
        -------
        v : ndarray of shape (n_columns,)
            Weights.

        Raises
        ------
        ValueError
            If the rows do not determine the weights.
        """
        few = 0 < self.n_rows <= FEW * self.n_columns
        if self._R is None and few and self._penalty.all():
            return self._solve_few()
        self.check()
        return solve_triangular(self.R, self.z, check_finite=False)

    def _solve_few(self):
        """The solution for fewer rows than unknowns: a linear combination of the rows.

        Weights are in units of the penalty. With ``J = L Q``, where Q has n orthonormal rows, the
        solution is ``v = Q^T y``. A component of v that is orthogonal to these rows does not change
        the residuals and increases the penalty, so it is zero.
        """
        J, r = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
        J /= self._penalty
        if not (np.isfinite(J).all() and np.isfinite(r).all()):
            raise ValueError(UNDEFINED)
        n = len(r)
        # J.T is in Fortran order, because J is in C order; LAPACK then needs no copy.
        factors, tau, _, info = dgeqrf(J.T, lwork=64 * n, overwrite_a=True)
        among_rows = Triangle(n, 1.0)
        among_rows.update(np.triu(factors[:n]).T, r)
        y = np.zeros((self.n_columns, 1), order="F")
        y[:n, 0] = among_rows.solve()
        v, _, info = dormqr("L", "N", factors, tau, y, lwork=64, overwrite_c=True)
        return v[:, 0] / self._penalty


def rotate(R, rows):
    """Reduce rows into a triangle; both arrays are in Fortran order and are overwritten.

    LAPACK's tpqrt could reduce all columns, but it has one block size for two purposes: narrow
    blocks make the update of the remaining columns slow, and wide blocks make the computation of
    the reflectors slow. Here tpqrt computes the reflectors of one panel of columns, with narrow
    blocks. All reflectors of the panel are then applied to the remaining columns together, as
    ``1 - [1; V] T^T [1; V]^T`` with ``T^-1 = striu(V^T V) + diag(1 / tau)`` (Joffrain et al., ACM
    Trans. Math. Softw. 32, 169 (2006)).

    Parameters
    ----------
    R : ndarray of shape (n, n)
        Upper triangle.
    rows : ndarray of shape (m, n)
        Rows.
    """
    n = len(R)
    for start in range(0, n, PANEL):
        panel = slice(start, min(start + PANEL, n))
        width, V = panel.stop - start, rows[:, panel]
        top = np.asfortranarray(R[panel, panel])
        R[panel, panel], _, T, info = dtpqrt(0, min(BLOCK, width), top, V, overwrite_b=True)
        if info:
            raise ValueError(f"LAPACK tpqrt rejected argument {-info}")
        # tau is the diagonal of the blocks of T; it is zero if a column needs no reflector.
        tau = T[np.arange(width) % len(T), np.arange(width)]
        inverse = np.triu(dgemm(1.0, V, V, trans_a=True), 1)
        inverse[np.diag_indices(width)] = 1.0 / np.maximum(tau, TINY)
        # Only SciPy's BLAS is used here. NumPy may have a separate pool of BLAS threads, which
        # would compete with that of SciPy.
        for first in range(panel.stop, n, CHUNK):
            here = slice(first, min(first + CHUNK, n))
            W = dgemm(1.0, V, rows[:, here], beta=1.0, c=R[panel, here], trans_a=True)
            W = dtrsm(1.0, inverse, W, trans_a=True, overwrite_b=True)
            R[panel, here] -= W
            dgemm(-1.0, V, W, beta=1.0, c=rows[:, here], overwrite_c=True)
