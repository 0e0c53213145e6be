"""Streaming least squares by orthogonal reduction (TSQR)."""

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dtpqrt


class Triangle:
    """All rows seen so far of a least-squares problem, reduced to one triangle.

    Rows ``[J | r]`` are multiplied by orthogonal matrices until only an upper triangle is left::

        Q^T [J | r] = [R  z]
                      [0  rho]      so that   |J v - r|^2 = |R v - z|^2 + rho^2,

    whatever the number of rows. Unlike normal equations this does not square the condition
    number, and unlike a QR of everything it holds one block of rows and one triangle.

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

    def __init__(self, n_columns, penalty=0.0):
        # LAPACK wants Fortran order; the last column is the right-hand side. An empty triangle
        # would be slow: its pivots are rounding errors of rounding errors, down to denormals.
        self._R = np.zeros((n_columns + 1, n_columns + 1), order="F")
        diagonal = np.arange(n_columns)
        self._R[diagonal, diagonal] = penalty
        self.n_rows = 0

    @property
    def n_columns(self):
        """Number of unknowns."""
        return len(self._R) - 1

    @property
    def R(self):
        """The triangle, shape (n_columns, n_columns)."""
        return self._R[:-1, :-1]

    @property
    def z(self):
        """The rotated right-hand side, shape (n_columns,)."""
        return self._R[:-1, -1]

    @property
    def rho2(self):
        """Sum of squares that no weights can remove."""
        return self._R[-1, -1] ** 2

    def update(self, J, r):
        """Add rows J of shape (n, n_columns) with right-hand sides r of shape (n,)."""
        n = len(r)
        if n == 0:
            return
        rows = np.empty((n, len(self._R)), order="F")
        rows[:, :-1] = J
        rows[:, -1] = r
        block = max(1, min(48, n, len(self._R)))
        self._R, _, _, info = dtpqrt(0, block, self._R, rows, overwrite_a=True, overwrite_b=True)
        if info:
            raise ValueError(f"LAPACK tpqrt rejected argument {-info}")
        self.n_rows += n

    def copy(self):
        """An independent triangle with the same rows."""
        other = Triangle(self.n_columns)
        other._R = self._R.copy(order="F")
        other.n_rows = self.n_rows
        return other

    def centered(self, v):
        """The same rows with v as the origin of the weights: minimises over ``d = v' - v``."""
        other = self.copy()
        other._R[:-1, -1] -= self.R @ v
        return other

    def residual(self, v):
        """``R v - z``: the part of the residual that depends on v, in rotated rows."""
        return self.R @ v - self.z

    def loss(self, v):
        """``|J v - r|^2 / 2``."""
        residual = self.residual(v)
        return 0.5 * (residual @ residual + self.rho2)

    def gradient(self, v):
        """Gradient of `loss`."""
        return self.R.T @ self.residual(v)

    def check(self):
        """Raise a ValueError if the rows do not determine the weights."""
        diagonal = np.abs(np.diag(self.R))
        if not np.isfinite(self._R).all():
            raise ValueError("the least-squares problem holds infinite or undefined numbers")
        if diagonal.min() <= 1e-14 * diagonal.max():
            raise ValueError(
                "the least-squares problem is singular to working precision: raise sigma, or "
                "lower n_points"
            )

    def solve(self):
        """Weights of least loss.

        Raises
        ------
        ValueError
            If the rows do not determine them.
        """
        self.check()
        return solve_triangular(self.R, self.z, check_finite=False)
