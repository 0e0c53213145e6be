"""Minimisation of a loss with linear and non-linear terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._typing import Array, History
    from ._terms import LossTerm
    from ._triangle import Triangle


# Relative rounding error of a loss.
ROUNDING = 1e-13
# Largest number of conjugate-gradient steps for one Newton step.
MAX_CG_STEPS = 30


def gauss_newton(
    triangle: Triangle,
    terms: Sequence[LossTerm],
    v: Array,
    max_iter: int,
    tol: float,
    callback: Callable[[Array, dict[str, float]], object] | None = None,
) -> tuple[Array, History, bool]:
    """Minimise the loss of a triangle (linear rows and prior) plus non-linear terms.

    A step solves the linearised problem. Its length is halved until the true loss decreases
    sufficiently (Nocedal and Wright, Numerical Optimization, 2nd ed., algorithm 3.1), so that the
    loss never increases.

    Gauss-Newton neglects the second derivatives of the non-linear terms. It therefore converges
    only linearly, and slowly if residuals are large. If terms have a `curvature_product`, the step
    is found by truncated Newton instead (algorithm 7.1): a few conjugate-gradient steps with the
    true Hessian, preconditioned by the matrix of the linearised problem.

    Parameters
    ----------
    triangle : Triangle
        Linear rows and the prior.
    terms : sequence of LossTerm
        Terms that are not linear in the weights.
    v : ndarray of shape (n_columns,)
        Initial weights.
    max_iter : int
        Largest number of steps.
    tol : float
        The iteration stops when two conditions hold. First, the norm of the gradient is below `tol`
        times a scale. Every row contributes a part of the gradient, and the scale is the sum of the
        norms of these parts. Second, the expected decrease of the loss is below `tol` times the
        loss.
    callback : callable, default=None
        Called as ``callback(v, entry)`` with every entry of the history.

    Returns
    -------
    v : ndarray of shape (n_columns,)
        Weights.
    history : list of dict
        Loss, relative gradient norm and step length of every iteration.
    converged : bool
        Whether `tol` was reached, or steps changed the loss by less than its rounding error.

    Examples
    --------
    >>> import numpy as np
    >>> from skqeq.solvers import NonlinearRows, Triangle, gauss_newton
    >>> from skqeq.targets import TARGETS
    >>> rows = NonlinearRows(TARGETS["dipole_magnitude"])
    >>> rows.jacobians.append(np.eye(3))
    >>> rows.add(np.zeros(3), y=[2.0], sigma=0.1, m_start=np.ones(3))
    >>> start = np.array([1.0, 0.0, 0.0])
    >>> v, history, converged = gauss_newton(Triangle(3, 1e-3), [rows.gathered()], start, 20, 1e-9)
    >>> v.round(3), converged
    (array([2., 0., 0.]), True)
    """
    curved = [term for term in terms if term.has_curvature]
    history, step = [], 0.0
    v, current = _with_best_offsets(triangle, terms, v)
    for iteration in range(max_iter + 1):
        local, gradient, norm = linearized(triangle, terms, v)
        history.append({"loss": float(current), "gradient": float(norm), "step": step})
        if callback is not None:
            callback(v, history[-1])
        direction = _direction(local, curved, v, gradient, forcing=min(0.1, np.sqrt(norm)))
        decrease = -(gradient @ direction)
        # The second condition is needed because the gradient is compared with large contributions
        # that cancel in it: a relatively small gradient may still lower the loss considerably.
        if norm <= tol and decrease <= max(tol, ROUNDING) * current:
            return v, history, True
        if iteration == max_iter:
            break
        if decrease < ROUNDING * current:
            # The loss cannot judge the step, because its change is below the rounding error. Full
            # steps are taken as long as they halve the gradient.
            if len(history) > 1 and norm > 0.5 * history[-2]["gradient"]:
                return v, history, True
            v, step = v + direction, 1.0
            continue
        step = 1.0
        moved, trial = _with_best_offsets(triangle, terms, v + direction)
        while not trial <= current - 1e-4 * step * decrease and step > 1e-8:
            step *= 0.5
            moved, trial = _with_best_offsets(triangle, terms, v + step * direction)
        if not trial <= current:
            break
        v, current = moved, trial
    return v, history, False


def fixed_point(
    triangle: Triangle,
    terms: Sequence[LossTerm],
    v: Array,
    max_iter: int,
    tol: float,
    callback: Callable[[Array, dict[str, float]], object] | None = None,
) -> tuple[Array, History, bool]:
    """Solve the problem linearised at fixed charges, take the charges of the solution, and repeat.

    For energies and linear rows this is Gauss-Newton without damping. The rows of forces depend on
    the response of the charges, which is neglected here. With forces, the iteration therefore does
    not converge to the minimum of the loss, and may not converge at all.

    Parameters
    ----------
    triangle : Triangle
        Linear rows and the prior.
    terms : sequence of LossTerm
        Terms that are not linear in the weights.
    v : ndarray of shape (n_columns,)
        Initial weights.
    max_iter : int
        Largest number of steps.
    tol : float
        The iteration stops when a step changes the weights by less than `tol` times their norm.
    callback : callable, default=None
        As in `gauss_newton`.

    Returns
    -------
    v : ndarray of shape (n_columns,)
        Weights.
    history : list of dict
        As from `gauss_newton`.
    converged : bool
        Whether `tol` was reached.

    References
    ----------
    Vondrák, Reuter, Margraf, J. Chem. Phys. 159, 054109 (2023).

    Examples
    --------
    >>> import numpy as np
    >>> from skqeq.solvers import Triangle, fixed_point
    >>> triangle = Triangle(1)
    >>> triangle.update(np.array([[1.0], [1.0]]), np.array([1.0, 3.0]))
    >>> v, history, converged = fixed_point(triangle, [], np.zeros(1), max_iter=5, tol=1e-9)
    >>> v.round(6), converged
    (array([2.]), True)
    """
    history, step, converged = [], 0.0, False
    for iteration in range(max_iter + 1):
        v, current = _with_best_offsets(triangle, terms, v)
        local, _, norm = linearized(triangle, terms, v, response=False)
        history.append({"loss": float(current), "gradient": float(norm), "step": step})
        if callback is not None:
            callback(v, history[-1])
        if converged or iteration == max_iter or not np.isfinite(current):
            break
        change, step = local.solve(), 1.0
        v = v + change
        converged = np.linalg.norm(change) <= tol * np.linalg.norm(v)
    return v, history, bool(converged)


def _with_best_offsets(triangle, terms, v):
    """The weights after each term has optimised its offsets, and the total loss."""
    total = 0.0
    for term in terms:
        v, loss = term.with_best_offsets(v)
        total += loss
    return v, triangle.loss(v) + total


def linearized(
    triangle: Triangle, terms: Sequence[LossTerm], v: Array, response: bool = True
) -> tuple[Triangle, Array, float]:
    """Linearise all terms at some weights, and collect all rows in one triangle.

    Parameters
    ----------
    triangle : Triangle
        Linear rows and the prior.
    terms : sequence of LossTerm
        Terms that are not linear in the weights.
    v : ndarray of shape (n_columns,)
        Weights.
    response : bool, default=True
        Whether the charges respond to the weights.

    Returns
    -------
    local : Triangle
        All rows; the unknowns are changes of the weights.
    gradient : ndarray of shape (n_columns,)
        Gradient of the loss.
    norm : float
        Norm of the gradient divided by the sum of the norms of the contributions to it.
    """
    local = triangle.centered(v)
    gradient = triangle.gradient(v)
    scale = np.linalg.norm(gradient)
    for term in terms:
        of_term, size = term.add_to(local, v, response)
        gradient = gradient + of_term
        scale += size
    return local, gradient, float(np.linalg.norm(gradient) / scale) if scale > 0 else 0.0


def _direction(local, curved, v, gradient, forcing):
    """The step of Gauss-Newton, or of truncated Newton if terms have a curvature.

    Truncated Newton solves ``H d = -gradient`` by conjugate gradients. The preconditioner is the
    matrix ``R^T R`` of the linearised problem.
    """
    if not curved:
        return local.solve()
    local.check()
    R = local.R
    direction, residual = np.zeros_like(gradient), -gradient
    search, old = None, None
    for _ in range(MAX_CG_STEPS):
        half = solve_triangular(R, residual, trans="T", check_finite=False)
        preconditioned = solve_triangular(R, half, check_finite=False)
        new = residual @ preconditioned
        search = preconditioned if search is None else preconditioned + new / old * search
        old = new
        product = R.T @ (R @ search) + sum(term.curvature_product(v, search) for term in curved)
        curvature = search @ product
        if curvature <= 0.0:
            # The loss is not convex here. The direction found so far is a descent direction; in the
            # first step, the preconditioned gradient is one.
            return direction if direction.any() else search
        direction = direction + new / curvature * search
        residual = residual - new / curvature * product
        if np.linalg.norm(residual) <= forcing * np.linalg.norm(gradient):
            break
    return direction
