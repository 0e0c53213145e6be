"""Charges with the lowest energy, by factorisation or by conjugate gradients.

Two problems are solved, each by both methods. Charge equilibration minimises
``q . A q / 2 - V . q`` over charges of a given sum. Charge flow adds the cost of the flow. Its
charges are ``p = P V``, where ``P = F (1 + F^T A F)^-1 F^T`` and ``X = F F^T`` is the Laplacian of
the softness, see `skqeq.response.FlowEquilibrium`.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.polynomial import Chebyshev
from scipy.linalg.lapack import dpotrf, dpotrs, dpstrf
from scipy.sparse.csgraph import connected_components

from ..parameters import COULOMB

MAX_ITERATIONS = 300
# Rounding error of potentials whose mean was subtracted, relative to the largest potential.
ROUNDING = 16 * np.finfo(float).eps
# Number of Chebyshev terms per square root of the condition number, and its maximum.
SERIES, MAX_TERMS = 1.5, 100


class Cholesky:
    """Minimise ``q . A q / 2 - V . q`` at a given sum of q, by factorisation.

    Parameters
    ----------
    A : ndarray of shape (n_atoms, n_atoms)
        Hardness matrix, eV/e^2; positive definite.
    name : str
        Name of the structure in error messages.
    """

    n_iterations = 0

    def __init__(self, A, name):
        # LAPACK needs Fortran order. The transpose of the symmetric C-ordered matrix has this order
        # without a copy.
        self._chol, info = dpotrf(A.T, lower=1)
        if info:
            raise ValueError(_not_positive(name))
        self._u = dpotrs(self._chol, np.ones((len(A), 1)), lower=1)[0][:, 0]
        self._u /= self._u.sum()

    def minimise(self, V, total=0.0, start=None):
        """Charges of least energy.

        Parameters
        ----------
        V : ndarray of shape (n_atoms,) or (n_atoms, k)
            Potentials, V; each column is a separate problem.
        total : float, default=0.0
            Sum of the charges, e.
        start : ndarray of shape (n_atoms,), default=None
            Not needed here, see `ConjugateGradients.minimise`.

        Returns
        -------
        q : ndarray of shape (n_atoms,) or (n_atoms, k)
            Charges, e.
        """
        q = dpotrs(self._chol, V, lower=1)[0].reshape(V.shape)
        # The first pass gives the charges the required sum. The second removes the rounding error
        # of the sum.
        for _ in range(2):
            q = q + np.multiply.outer(self._u, total - q.sum(axis=0))
        return q


class FlowCholesky:
    """``P = F (1 + F^T A F)^-1 F^T`` by factorisation, where ``F F^T = X``.

    F comes from a pivoted Cholesky factorisation of X. The number of its columns is the rank of X,
    so that the connected parts of the graph need not be found. The matrix in parentheses is
    positive definite for any softness. The expression ``X (1 + A X)^-1`` is equal, but has large
    rounding errors if the softness is large.

    Parameters
    ----------
    A : ndarray of shape (n_atoms, n_atoms)
        Hardness matrix, eV/e^2; positive definite for charges that sum to zero.
    X : ndarray of shape (n_atoms, n_atoms)
        Laplacian of the softness, e/V.
    name : str
        Name of the structure in error messages.
    """

    n_iterations = 0

    def __init__(self, A, X, name):
        chol, pivots, rank, _ = dpstrf(X, lower=1)
        F = np.zeros((len(A), rank))
        F[pivots - 1] = np.tril(chol)[:, :rank]
        # Flows conserve charge, so that the columns of F sum to zero, apart from rounding errors.
        # These errors would create charge, and are subtracted.
        self._F = F - F.mean(axis=0)
        self._chol, info = dpotrf(np.eye(rank) + self._F.T @ (A @ self._F), lower=1)
        if info:
            raise ValueError(_not_positive(name))

    def project(self, V, start=None):
        """``P V`` for V of shape (n_atoms,) or (n_atoms, k); e. `start` is not needed here."""
        if not len(self._chol):
            return np.zeros_like(V)
        flows = dpotrs(self._chol, self._F.T @ V, lower=1)[0]
        return self._F @ flows.reshape(-1, *V.shape[1:])


class _Iteration(ABC):
    """Preconditioned conjugate gradients, the base class for the two problems.

    A subclass defines two methods. `_precondition` returns a search direction for a residual
    potential. `_product` returns the charges that belong to a search direction, and how they change
    the residual.

    Parameters
    ----------
    A : HardnessOperator
        Hardness matrix, eV/e^2; positive definite for charges that sum to zero.
    name : str
        Name of the structure in error messages.

    Attributes
    ----------
    n_iterations : int
        Number of products with A in the last call.
    """

    advice = "use solver='dense', or raise the value of accuracy"

    def __init__(self, A, name):
        self._A, self._name = A, name
        if A.diagonal.min() <= 0:
            raise ValueError(_not_positive(name))
        self.n_iterations = 0

    @abstractmethod
    def _precondition(self, residual):
        """Return a search direction, the charges that it moves, and the size of the residual, V."""

    @abstractmethod
    def _product(self, direction):
        """Return the direction, the charges that it moves, and how much they lower the residual."""

    def _iterate(self, q, residual, tolerance):
        """Iterate until the residual potential is below the tolerance; return the charges."""
        direction, size = 0.0, 1.0
        for _ in range(MAX_ITERATIONS):
            preconditioned, charges, error = self._precondition(residual)
            if error <= tolerance:
                return q
            previous, size = size, residual @ charges
            direction, step, change = self._product(preconditioned + size / previous * direction)
            self.n_iterations += 1
            # A negative curvature means that the energy has no minimum.
            curvature = step @ change
            if curvature <= 0:
                raise ValueError(_not_positive(self._name))
            q = q + size / curvature * step
            residual = residual - size / curvature * change
        raise RuntimeError(
            f"{self._name}: charges did not converge in {MAX_ITERATIONS} iterations (residual "
            f"{self._precondition(residual)[2]:.1e} V, tolerance {tolerance:.1e} V): {self.advice}"
        )


class ConjugateGradients(_Iteration):
    """Minimise ``q . A q / 2 - V . q`` at a given sum of q, by conjugate gradients.

    The iteration stops when the potential is the same for all atoms, within a tolerance. The
    tolerance is the accuracy of A times ``k_e / Angstrom`` times the size of the charges, plus the
    rounding error of the potential. Atoms of one element can have equal potentials; the charges
    are then zero, and only the rounding error is left.

    Parameters
    ----------
    A : HardnessOperator
        Hardness matrix, eV/e^2; positive definite for charges that sum to zero.
    name : str
        Name of the structure in error messages.
    """

    advice = "use solver='dense', raise hardness, lower radius_scale, or raise the accuracy value"

    def __init__(self, A, name):
        super().__init__(A, name)
        self._inverse = A.preconditioner()

    def minimise(self, V, total=0.0, start=None):
        """Charges of least energy.

        Parameters
        ----------
        V : ndarray of shape (n_atoms,) or (n_atoms, k)
            Potentials, V; each column is a separate problem.
        total : float, default=0.0
            Sum of the charges, e.
        start : ndarray of shape (n_atoms,), default=None
            Charges to start from, e, which may have any sum; used only if V has one column.

        Returns
        -------
        q : ndarray of shape (n_atoms,) or (n_atoms, k)
            Charges, e.
        """
        self.n_iterations = 0
        if V.ndim == 2:
            return np.stack([self._minimise(v, total, None) for v in V.T], axis=1)
        return self._minimise(V, total, start)

    def _minimise(self, V, total, start):
        # Estimate the size of the charges by the charges of atoms that do not interact.
        scale = np.abs((V - V.mean()) / self._A.diagonal).max() + abs(total) / len(V)
        tolerance = self._A.accuracy * COULOMB * scale + ROUNDING * np.abs(V).max()
        q = np.zeros(len(V)) if start is None else start
        q = q + (total - q.sum()) / len(V)
        return self._iterate(q, _neutral(V - self._A @ q if q.any() else V), tolerance)

    def _precondition(self, residual):
        charges = _neutral(self._inverse(residual))
        return charges, charges, np.abs(residual).max()

    def _product(self, direction):
        # Without the second mean, rounding errors would let the sum of the charges drift.
        return direction, direction, _neutral(self._A @ direction)


class FlowConjugateGradients(_Iteration):
    """``P V`` by conjugate gradients, with products with A and X alone.

    Flows can make charges of the form ``p = X v``. Among these, ``p = P V`` solves
    ``X^+ p + A p = V``, where ``X^+`` is the pseudo-inverse of X. The iteration updates v together
    with p, and therefore never needs ``X^+``. The preconditioner replaces A by its diagonal D, as
    if the charges of different atoms did not interact::

        (X^+ + D)^-1 = X D^(1/2) (1 + Y)^-1 D^(-1/2),    Y = D^(1/2) X D^(1/2).

    A Chebyshev series approximates the inverse of ``1 + Y``. It needs products with the sparse
    matrix Y only. Together they cost much less than one product with A.

    The iteration stops when the next step of the preconditioner would move only small charges:
    their potential is below the accuracy of A times ``k_e / Angstrom`` times the size of the
    charges. If two parts of a structure exchange almost no charge, the difference of their
    potentials may be larger.

    Parameters
    ----------
    A : HardnessOperator
        Hardness matrix, eV/e^2; positive definite for charges that sum to zero.
    X : sparse array of shape (n_atoms, n_atoms)
        Laplacian of the softness, e/V.
    name : str
        Name of the structure in error messages.
    """

    advice = "use solver='dense', lower the softness, or raise the value of accuracy"

    def __init__(self, A, X, name):
        super().__init__(A, name)
        self._X = X
        n_parts, self._parts = connected_components(X)
        self._sizes = np.bincount(self._parts, minlength=n_parts)
        self._root = np.sqrt(A.diagonal)
        self._Y = X.multiply(self._root[:, None]).multiply(self._root).tocsr()
        # Gershgorin's upper bound on the eigenvalues of Y.
        self._largest = 2.0 * self._Y.diagonal().max()
        # The error of the series decays as exp(-2 n_terms / sqrt(condition number)).
        n_terms = int(np.ceil(SERIES * np.sqrt(1.0 + self._largest)))
        self._series = _inverse_series(self._largest, min(n_terms, MAX_TERMS))

    def project(self, V, start=None):
        """``P V`` for V of shape (n_atoms,) or (n_atoms, k); e.

        `start` is a potential v (n_atoms,) to start from, V; it is used only if V has one column.
        """
        self.n_iterations = 0
        if V.ndim == 2:
            return np.stack([self._project(v, None) for v in V.T], axis=1)
        return self._project(V, start)

    def _project(self, V, start):
        rounding = ROUNDING * np.abs(V).max()
        V = self._balanced(V)
        # Estimate the size of the charges by the charges of atoms that do not interact.
        scale = np.abs(V / self._A.diagonal).max()
        tolerance = self._A.accuracy * COULOMB * scale + rounding
        p, residual = np.zeros_like(V), V
        if start is not None:
            p = self._X @ start
            residual = self._balanced(V - start - self._A @ p)
        return _neutral(self._iterate(p, residual, tolerance))

    def _precondition(self, residual):
        v = self._root * self._inverse(residual / self._root)
        charges = self._X @ v
        return v, charges, np.abs(self._A.diagonal * charges).max()

    def _product(self, direction):
        direction = self._balanced(direction)
        step = self._X @ direction
        # X^+ step is the direction itself, so that the pseudo-inverse is never computed.
        return direction, step, self._balanced(direction + self._A @ _neutral(step))

    def _balanced(self, v):
        """Subtract from v its mean over each connected part of the graph, which drives no flow."""
        return v - (np.bincount(self._parts, v) / self._sizes)[self._parts]

    def _inverse(self, x):
        """``(1 + Y)^-1 x`` by Clenshaw's recurrence for Chebyshev series."""
        first, second = 0.0, 0.0
        for coefficient in self._series[:0:-1]:
            first, second = coefficient * x + 2.0 * self._shifted(first) - second, first
        return self._series[0] * x + self._shifted(first) - second

    def _shifted(self, x):
        """Product with Y, scaled and shifted so that its eigenvalues are between -1 and 1."""
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
