"""The error of left-out structures as a function of amplitudes and noise, with its gradient.

Let K be the covariance of the labels r, which includes the noise (`_kernel_matrices`), ``P = K^-1``
and ``alpha = P r``. If the rows I of one group are left out, the errors of their predictions are

    e_I = P_II^-1 alpha_I

(Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), eqs. 5.10-5.12, for single
rows). With ``f = dF/de`` for a function F of all errors, ``c_I = P_II^-1 f_I``, and P_I for the
columns I of P, a change dK of the covariance changes F by

    dF = -sum_I (P_I c_I)^T dK (alpha - P_I e_I).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import cho_solve
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._typing import Array
    from ._kernel_matrices import KernelMatrices

# Below this error, a norm is rounded off, so that its derivative exists; in units of the labels.
ROUNDED = 1e-4


class Covariance:
    """The covariance of the labels for given amplitudes and noise, and its inverse.

    Parameters
    ----------
    data : KernelMatrices
        Matrices and labels.
    logs : ndarray of shape (n_terms + n_targets,)
        Logarithms of the amplitudes, and then of the noise of every target.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the covariance is singular to working precision.
    """

    def __init__(self, data: KernelMatrices, logs: Array) -> None:
        self.data, n_terms = data, len(data.matrices)
        self.squares = np.exp(2.0 * logs)
        self.noise = self.squares[n_terms:][data.targets]
        K = np.zeros_like(data.matrices[0])
        for square, G in zip(self.squares, data.matrices, strict=False):
            K += square * G
        K[np.diag_indices_from(K)] += self.noise
        self.factor = np.linalg.cholesky(K)
        lower, _ = dpotri(self.factor, lower=1)
        self.inverse = np.tril(lower) + np.tril(lower, -1).T
        self.alpha = self.inverse @ data.residual

    def gradient(self, of_K: Array) -> Array:
        """Derivatives with respect to the logarithms, from those with respect to K."""
        of_terms = [np.vdot(of_K, G) for G in self.data.matrices]
        of_noise = np.bincount(self.data.targets, of_K.diagonal(), len(self.data.names))
        return 2.0 * self.squares * np.concatenate([of_terms, of_noise])


class LeftOutError:
    """Mean logarithm of the errors of left-out structures.

    The error of a target is the mean over the structures of the norm of their errors. Unlike the
    root mean square, it does not depend on a few outliers alone.

    Parameters
    ----------
    data : KernelMatrices
        Matrices and labels.
    partitions : sequence of (ndarray of shape (n_structures,), float)
        Fold of every structure, and the weight of the partition in the mean.
    """

    def __init__(self, data: KernelMatrices, partitions: Sequence[tuple[Array, float]]) -> None:
        self.data = data
        self.partitions = []
        for folds, weight in partitions:
            of_rows = folds[data.structures]
            members = [np.flatnonzero(of_rows == fold) for fold in np.unique(of_rows)]
            self.partitions.append((members, weight))

    def __call__(self, covariance: Covariance) -> tuple[float, Array]:
        """The mean logarithm, and its derivatives with respect to the covariance."""
        value, of_K = 0.0, np.zeros_like(covariance.inverse)
        for members, weight in self.partitions:
            errors, factors = _left_out(covariance, members)
            part, of_errors = self._mean_log(errors)
            value += weight * part
            U, V = np.empty((len(errors), len(members))), np.empty((len(errors), len(members)))
            for k, rows in enumerate(members):
                columns = covariance.inverse[:, rows]
                U[:, k] = columns @ cho_solve((factors[k], True), of_errors[rows])
                V[:, k] = covariance.alpha - columns @ errors[rows]
            of_K -= (weight * U) @ V.T
        return value, of_K

    def errors(self, covariance: Covariance) -> list[dict[str, float]]:
        """Mean norm of the errors of every target, for each partition."""
        result = []
        for members, _ in self.partitions:
            norms = self._norms(_left_out(covariance, members)[0])
            means = [float(norm[some].mean()) for norm, some in norms]
            result.append(dict(zip(self.data.names, means, strict=True)))
        return result

    def _norms(self, errors):
        """Norm of the errors of every structure, and which structures have labels, by target."""
        for t in range(len(self.data.names)):
            rows = self.data.targets == t
            structures = self.data.structures[rows]
            errors_in_units = errors[rows] * self.data.scale[rows]
            squares = np.bincount(structures, errors_in_units**2)
            yield np.sqrt(squares + ROUNDED**2), np.bincount(structures) > 0

    def _mean_log(self, errors):
        """Mean over the targets of the logarithm of the error, and its derivatives."""
        value, gradient = 0.0, np.empty_like(errors)
        n_targets = len(self.data.names)
        for t, (norms, some) in enumerate(self._norms(errors)):
            rows, mean = self.data.targets == t, norms[some].mean()
            value += np.log(mean) / n_targets
            by_norm = errors[rows] * self.data.scale[rows] ** 2 / norms[self.data.structures[rows]]
            gradient[rows] = by_norm / (some.sum() * mean * n_targets)
        return value, gradient


class NegativeEvidence:
    """Negative logarithm of the probability of the labels, divided by their number.

    Parameters
    ----------
    data : KernelMatrices
        Matrices and labels.
    """

    def __init__(self, data: KernelMatrices) -> None:
        self.data = data

    def __call__(self, covariance: Covariance) -> tuple[float, Array]:
        """The value, and its derivatives with respect to the covariance."""
        r, alpha, n = self.data.residual, covariance.alpha, len(self.data.residual)
        log_det = 2.0 * np.log(covariance.factor.diagonal()).sum()
        value = 0.5 * (r @ alpha + log_det + n * np.log(2 * np.pi))
        value += np.log(self.data.scale).sum()
        return value / n, 0.5 * (covariance.inverse - np.outer(alpha, alpha)) / n


def _left_out(covariance, members):
    """Errors of all rows, each predicted without its group; and factors of the blocks of P."""
    errors, factors = np.empty_like(covariance.alpha), []
    for rows in members:
        factor = np.linalg.cholesky(covariance.inverse[np.ix_(rows, rows)])
        errors[rows] = cho_solve((factor, True), covariance.alpha[rows])
        factors.append(factor)
    return errors, factors


def optimise(
    objective: Any,
    data: KernelMatrices,
    start: Array,
    centre: Array,
    width: float,
    max_iter: int,
    max_seconds: float = np.inf,
) -> tuple[Array, float]:
    """Minimise an objective over the logarithms of amplitudes and noise.

    Parameters
    ----------
    objective : LeftOutError or NegativeEvidence
        The function.
    data : KernelMatrices
        Matrices and labels.
    start : ndarray of shape (n_terms + n_targets,)
        Logarithms at the start.
    centre : ndarray of shape (n_terms + n_targets,)
        Centre of the prior of the logarithms.
    width : float
        A change of one logarithm by this number costs as much as an increase of the objective by
        one half.
    max_iter : int
        Largest number of steps.
    max_seconds : float, default=inf
        After this time, s, there is no further step; the first one is always made.

    Returns
    -------
    logs : ndarray of shape (n_terms + n_targets,)
        The best logarithms.
    value : float
        The objective there, without the prior.
    """
    best = (np.inf, start, np.inf)
    end = time.perf_counter() + max_seconds

    def loss(logs: Array) -> tuple[float, Array]:
        nonlocal best
        try:
            covariance = Covariance(data, logs)
            value, of_K = objective(covariance)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(logs)
        change = (logs - centre) / width
        total = value + 0.5 * float(change @ change)
        if total < best[0]:
            best = total, logs.copy(), value
        return total, covariance.gradient(of_K) + change / width

    def stop(_: Array) -> None:
        if time.perf_counter() > end:
            raise StopIteration

    options = {"maxiter": max_iter}
    minimize(loss, start, jac=True, method="L-BFGS-B", callback=stop, options=options)
    return best[1], best[2]
