"""Charges of least energy, by factorisation or by iteration, for both kinds of response.

Those of charge equilibration minimise ``q A q / 2 - V . q`` at a given sum; those that flow between
neighbours, ``p = P V``, also pay for the flow, see `skqeq.response.ChargeFlow`.
"""

import numpy as np
from numpy.polynomial import Chebyshev
from scipy.linalg.lapack import dpotrf, dpotrs, dpstrf
from scipy.sparse.csgraph import connected_components

from ..parameters import COULOMB

MAX_ITERATIONS = 300
# Terms of a series, in units of the root of the condition number.
SERIES, MAX_TERMS = 1.5, 100


class Cholesky:
    """Minimisation by factorisation.

    Parameters
    ----------
    A : ndarray of shape (n_atoms, n_atoms)
        Hardness matrix, eV/e^2; positive definite.
    name : str
        What error messages call the structure.
    """

    n_iterations = 0

    def __init__(self, A, name):
        # A column of the C-ordered symmetric matrix is a row of the Fortran-ordered one.
        self._chol, info = dpotrf(A.T, lower=1)
        if info:
            raise ValueError(_not_positive(name))
        self._u = dpotrs(self._chol, np.ones((len(A), 1)), lower=1)[0][:, 0]
        self._u /= self._u.sum()

    def minimise(self, V, total=0.0, start=None):
        """The minimum for V of shape (n_atoms,) or (n_atoms, k), whose columns sum to `total`."""
        q = dpotrs(self._chol, V, lower=1)[0].reshape(V.shape)
        # The second pass removes the rounding that the first leaves in the sum.
        for _ in range(2):
            q = q + np.multiply.outer(self._u, total - q.sum(axis=0))
        return q


class ConjugateGradients:
    """Minimisation by preconditioned conjugate gradients among charges of the given sum.

    It stops when the potential is constant to the accuracy of A times ``k_e / Angstrom`` times the
    size of the charges.

    Parameters
    ----------
    A : HardnessOperator
        Hardness matrix, eV/e^2; positive definite for charges that sum to zero.
    name : str
        What error messages call the structure.

    Attributes
    ----------
    n_iterations : int
        Products with A in the last call of `minimise`.
    """

    def __init__(self, A, name):
        self._A, self._name = A, name
        if A.diagonal.min() <= 0:
            raise ValueError(_not_positive(name))
        self._precondition = A.preconditioner()
        self.n_iterations = 0

    def minimise(self, V, total=0.0, start=None):
        """The minimum, as `Cholesky.minimise`; `start` are charges to start from."""
        self.n_iterations = 0
        if V.ndim == 2:
            return np.stack([self._minimise(v, total, None) for v in V.T], axis=1)
        return self._minimise(V, total, start)

    def _minimise(self, V, total, start):
        # The charges that each atom would take alone tell how large charges are.
        scale = np.abs((V - V.mean()) / self._A.diagonal).max() + abs(total) / len(V)
        tolerance = self._A.accuracy * COULOMB * scale
        q = np.zeros(len(V)) if start is None else start
        q = q + (total - q.sum()) / len(V)
        residual = _neutral(V - self._A @ q if q.any() else V)
        step, size = 0.0, 1.0
        for _ in range(MAX_ITERATIONS):
            if np.abs(residual).max() <= tolerance:
                return q
            z = _neutral(self._precondition(residual))
            previous, size = size, residual @ z
            step = z + size / previous * step
            # Rounding must not let the sum of the charges drift.
            response = _neutral(self._A @ step)
            self.n_iterations += 1
            curvature = step @ response
            if curvature <= 0:
                raise ValueError(_not_positive(self._name))
            q = q + size / curvature * step
            residual = residual - size / curvature * response
        raise RuntimeError(
            f"{self._name}: charges did not converge in {MAX_ITERATIONS} iterations (residual "
            f"{np.abs(residual).max():.1e} V, wanted {tolerance:.1e} V): use solver='dense', raise "
            "hardness, lower radius_scale, or ask for less accuracy"
        )


class FlowCholesky:
    """``P = F (1 + F^T A F)^-1 F^T`` by factorisation, where ``F F^T = X``.

    F comes from a pivoted factorisation, which has as many columns as X has rank, so that nothing
    depends on which atoms are connected. The matrix in brackets is positive definite for any
    softness; ``X (1 + A X)^-1``, which is the same, loses digits where it is large.

    Parameters
    ----------
    A : ndarray of shape (n_atoms, n_atoms)
        Hardness matrix, eV/e^2; positive definite for charges that sum to zero.
    X : ndarray of shape (n_atoms, n_atoms)
        Laplacian of the softness, e/V.
    name : str
        What error messages call the structure.
    """

    n_iterations = 0

    def __init__(self, A, X, name):
        chol, pivots, rank, _ = dpstrf(X, lower=1)
        F = np.zeros((len(A), rank))
        F[pivots - 1] = np.tril(chol)[:, :rank]
        # Rounding must not make charge.
        self._F = F - F.mean(axis=0)
        self._chol, info = dpotrf(np.eye(rank) + self._F.T @ (A @ self._F), lower=1)
        if info:
            raise ValueError(_not_positive(name))

    def project(self, V, start=None):
        """``P V`` for V of shape (n_atoms,) or (n_atoms, k); e."""
        if not len(self._chol):
            return np.zeros_like(V)
        flows = dpotrs(self._chol, self._F.T @ V, lower=1)[0]
        return self._F @ flows.reshape(-1, *V.shape[1:])


class FlowConjugateGradients:
    """``P V`` by preconditioned conjugate gradients, with products with A and X alone.

    ``p = P V`` solves ``X^+ p + A p = V`` among the charges ``p = X v`` that flows can make; v is
    kept with p, so that ``X^+`` is not needed. The preconditioner is the answer of atoms that do
    not see each other's charges, with D the diagonal of A::

        (X^+ + D)^-1 = X D^(1/2) (1 + Y)^-1 D^(-1/2),    Y = D^(1/2) X D^(1/2),

    the inverse by a Chebyshev series, which needs products with the sparse Y only, many fewer
    operations than one with A. It stops when the charges that the preconditioner would still move
    make no more than the accuracy of A times ``k_e / Angstrom`` times the size of the charges in
    potential: between parts that minute flows connect, potentials may differ by more.

    Parameters
    ----------
    A : HardnessOperator
        Hardness matrix, eV/e^2; positive definite for charges that sum to zero.
    X : sparse array of shape (n_atoms, n_atoms)
        Laplacian of the softness, e/V.
    name : str
        What error messages call the structure.
    """

    def __init__(self, A, X, name):
        self._A, self._X, self._name = A, X, name
        if A.diagonal.min() <= 0:
            raise ValueError(_not_positive(name))
        n_parts, self._parts = connected_components(X)
        self._sizes = np.bincount(self._parts, minlength=n_parts)
        self._root = np.sqrt(A.diagonal)
        self._Y = X.multiply(self._root[:, None]).multiply(self._root).tocsr()
        # No eigenvalue of Y is larger.
        self._largest = 2.0 * self._Y.diagonal().max()
        n_terms = int(np.ceil(SERIES * np.sqrt(1.0 + self._largest)))
        self._series = _inverse_series(self._largest, min(n_terms, MAX_TERMS))
        self.n_iterations = 0

    def project(self, V, start=None):
        """As of `FlowCholesky`; `start` is a potential v to start from, V."""
        self.n_iterations = 0
        if V.ndim == 2:
            return np.stack([self._project(v, None) for v in V.T], axis=1)
        return self._project(V, start)

    def _project(self, V, start):
        X, V = self._X, self._balanced(V)
        # The charges that each atom would take alone tell how large charges are.
        tolerance = self._A.accuracy * COULOMB * np.abs(V / self._A.diagonal).max()
        p, residual = np.zeros_like(V), V
        if start is not None:
            p = X @ start
            residual = self._balanced(V - start - self._A @ p)
        driving, size = 0.0, 1.0
        for _ in range(MAX_ITERATIONS):
            v = self._precondition(residual)
            z = X @ v
            if np.abs(self._A.diagonal * z).max() <= tolerance:
                return _neutral(p)
            previous, size = size, residual @ z
            driving = self._balanced(v + size / previous * driving)
            step = X @ driving
            response = self._balanced(driving + self._A @ _neutral(step))
            self.n_iterations += 1
            curvature = step @ response
            if curvature <= 0:
                raise ValueError(_not_positive(self._name))
            p = p + size / curvature * step
            residual = residual - size / curvature * response
        worst = np.abs(self._A.diagonal * z).max()
        raise RuntimeError(
            f"{self._name}: charges did not converge in {MAX_ITERATIONS} iterations (residual "
            f"{worst:.1e} V, wanted {tolerance:.1e} V): use solver='dense', lower "
            "the softness, or ask for less accuracy"
        )

    def _balanced(self, v):
        """Without the mean of each connected part, which flows nowhere."""
        return v - (np.bincount(self._parts, v) / self._sizes)[self._parts]

    def _precondition(self, residual):
        """``D^(1/2) (1 + Y)^-1 D^(-1/2)`` by the recurrence of Clenshaw."""
        x, first, second = residual / self._root, 0.0, 0.0
        for coefficient in self._series[:0:-1]:
            first, second = coefficient * x + 2.0 * self._shifted(first) - second, first
        return self._root * (self._series[0] * x + self._shifted(first) - second)

    def _shifted(self, x):
        """Y with its eigenvalues moved to between -1 and 1."""
        return x if np.isscalar(x) else 2.0 / self._largest * (self._Y @ x) - x


def _inverse_series(largest, n_terms):
    """Chebyshev coefficients of ``1 / (1 + y)`` for y from 0 to `largest`."""
    if largest == 0.0:
        return np.ones(1)
    return Chebyshev.interpolate(lambda y: 1.0 / (1.0 + y), n_terms, [0.0, largest]).coef


def _neutral(x):
    return x - x.mean()


def _not_positive(name):
    return (
        f"{name}: the hardness matrix is not positive definite; raise hardness, or lower "
        "radius_scale"
    )
