"""Streaming least squares by orthogonal reduction (TSQR)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.blas import dgemm, dtrsm
from scipy.linalg.lapack import dgeqrf, dormqr, dtpqrt

if TYPE_CHECKING:
    from .._typing import Array


# Up to so many rows per column they are kept as they are: they then span few directions, and a
# factorisation of those is cheaper. Later ones wait until they are so many, as the triangle is
# read and written for those that come together.
FEW = 0.6
MANY = 2048
# Columns that reflectors are found for at a time, and of LAPACK's blocks among them; columns that
# are updated at a time.
PANEL, BLOCK, CHUNK = 192, 16, 1024
TINY = 1e-300
UNDEFINED = "the least-squares problem holds infinite or undefined numbers"


class Triangle:
    """All rows seen so far of a least-squares problem, reduced to one triangle.

    Rows ``[J | r]`` are multiplied by orthogonal matrices until only an upper triangle is left::

        Q^T [J | r] = [R  z]
                      [0  rho]      so that   |J v - r|^2 = |R v - z|^2 + rho^2,

    whatever the number of rows. Unlike normal equations this does not square the condition
    number, and unlike a QR of everything it holds some thousand rows and one triangle. Rows that
    come first are kept until they are a good part of the number of unknowns; if no more come, the
    solution is found among their combinations.

    Parameters
    ----------
    n_columns : int
        Number of unknowns.
    penalty : float or ndarray of shape (n_columns,), default=0.0
        Adds ``sum_j (penalty_j v_j)^2`` to the squares. These rows are a triangle from the
        start and cost nothing.

    Attributes
    ----------
    n_rows : int
        Number of rows that were reduced.

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
        """The triangle that another one had as `augmented`.

        Parameters
        ----------
        R : ndarray of shape (n_columns + 1, n_columns + 1)
            It is copied.

        Returns
        -------
        triangle : Triangle
            With the same rows.
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
        """Sum of squares that no weights can remove."""
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
            # LAPACK wants Fortran order; the last column is the right-hand side. An empty triangle
            # would be slow: its pivots are rounding errors of rounding errors, down to denormals.
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
        """Add all rows that a triangle stands for.

        Parameters
        ----------
        R : ndarray of shape (n_columns + 1, n_columns + 1)
            Upper triangle, the last column belongs to the right-hand sides; see `augmented`. It is
            overwritten if it is in Fortran order.
        n_rows : int, default=0
            How many rows they were.
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
        """``[[R, z], [0, rho]]`` with the penalty in it, (n_columns + 1, n_columns + 1)."""
        return self._reduced()

    def copy(self) -> Triangle:
        """An independent triangle with the same rows.

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
        """The same rows with other weights as the origin.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            The origin.

        Returns
        -------
        triangle : Triangle
            Its solution is ``d = v' - v``.
        """
        other = self.copy()
        other._reduced()[:-1, -1] -= self.R @ v
        return other

    def residual(self, v: Array) -> Array:
        """The part of the residual that depends on the weights, in rotated rows.

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
        """Half of the sum of squares.

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
        """Weights of least loss.

        Returns
        -------
        v : ndarray of shape (n_columns,)
            Weights.

        Raises
        ------
        ValueError
            If the rows do not determine them.
        """
        few = 0 < self.n_rows <= FEW * self.n_columns
        if self._R is None and few and self._penalty.all():
            return self._solve_few()
        self.check()
        return solve_triangular(self.R, self.z, check_finite=False)

    def _solve_few(self):
        """The solution as a combination of the rows, which are fewer than the unknowns.

        In units of the penalty, ``J = L Q`` with n orthonormal rows Q, and ``v = Q^T y``: whatever
        is orthogonal to the rows only costs penalty.
        """
        J, r = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
        J /= self._penalty
        if not (np.isfinite(J).all() and np.isfinite(r).all()):
            raise ValueError(UNDEFINED)
        n = len(r)
        # The transpose of an array in C order is one in Fortran order.
        factors, tau, _, info = dgeqrf(J.T, lwork=64 * n, overwrite_a=True)
        among_rows = Triangle(n, 1.0)
        among_rows.update(np.triu(factors[:n]).T, r)
        y = np.zeros((self.n_columns, 1), order="F")
        y[:n, 0] = among_rows.solve()
        v, _, info = dormqr("L", "N", factors, tau, y, lwork=64, overwrite_c=True)
        return v[:, 0] / self._penalty


def rotate(R, rows):
    """Rotate rows into a triangle; both are in Fortran order and overwritten.

    LAPACK's tpqrt does it in blocks of columns, which are either too narrow for the products that
    update the rest, or so wide that the reflectors themselves take the time. Here it finds those of
    a panel, with narrow blocks, and the rest of the columns meet them all at once, as
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
        # The diagonals of the blocks of T; zero where a column needs no reflector.
        tau = T[np.arange(width) % len(T), np.arange(width)]
        inverse = np.triu(dgemm(1.0, V, V, trans_a=True), 1)
        inverse[np.diag_indices(width)] = 1.0 / np.maximum(tau, TINY)
        # All by SciPy: NumPy has BLAS threads of its own, which would keep those waiting.
        for first in range(panel.stop, n, CHUNK):
            here = slice(first, min(first + CHUNK, n))
            W = dgemm(1.0, V, rows[:, here], beta=1.0, c=R[panel, here], trans_a=True)
            W = dtrsm(1.0, inverse, W, trans_a=True, overwrite_b=True)
            R[panel, here] -= W
            dgemm(-1.0, V, W, beta=1.0, c=rows[:, here], overwrite_c=True)
