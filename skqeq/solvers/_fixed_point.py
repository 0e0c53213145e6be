"""The fixed-point iteration for charges, and the linearisation of a loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._gauss_newton import Position

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._typing import Array, History
    from ._terms import LossTerm
    from ._triangle import Triangle


def fixed_point(
    triangle: Triangle,
    terms: Sequence[LossTerm],
    v: Array,
    max_iter: int,
    tol: float,
    callback: Callable[[Array, dict[str, float]], object] | None = None,
    store: Callable[[Position], object] | None = None,
    resume: Position | None = None,
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
    store : callable, default=None
        As in `gauss_newton`.
    resume : Position, default=None
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
    history, converged = [], False
    at = Position(0, v, v) if resume is None else resume
    v, step = at.v, at.step
    for iteration in range(min(at.iteration, max_iter), max_iter + 1):
        current = triangle.loss(v) + sum(term.loss(v) for term in terms)
        local, gradient = linearized(triangle, terms, v, response=False)
        change = local.solve()
        entry = {"loss": float(current), "decrease": float(-0.5 * gradient @ change), "step": step}
        history.append(entry)
        if callback is not None:
            callback(v, entry)
        if store is not None:
            store(Position(iteration, v, v, step=step))
        if converged or iteration == max_iter or not np.isfinite(current):
            break
        step = 1.0
        v = v + change
        converged = np.linalg.norm(change) <= tol * np.linalg.norm(v)
    return v, history, bool(converged)


def linearized(
    triangle: Triangle, terms: Sequence[LossTerm], v: Array, response: bool = True
) -> tuple[Triangle, Array]:
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
    """
    local = triangle.centered(v)
    gradient = triangle.gradient(v)
    for term in terms:
        gradient = gradient + term.add_to(local, v, response)
    return local, gradient
