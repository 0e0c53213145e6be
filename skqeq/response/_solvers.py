"""Two ways to minimise ``q A q / 2 - V . q`` over charges of a given sum."""

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from ..parameters import COULOMB

MAX_ITERATIONS = 300


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


def _neutral(x):
    return x - x.mean()


def _not_positive(name):
    return (
        f"{name}: the hardness matrix is not positive definite; raise hardness, or lower "
        "radius_scale"
    )
