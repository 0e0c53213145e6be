"""Least squares of non-linear rows beside a triangle of linear ones.

Rows know their `loss` at any weights v, and `linearize` yields pieces of their weighted Jacobian
(n, n_columns) and residual (n,). Rows that know the rest of their Hessian have a
`curvature_product`, and rows that know the best of some weights, given the others, have `settled`,
which returns the weights with these and their loss. Rows that are elsewhere have, instead of
`linearize`, an `add_to` of their own, see `add_linearized`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.linalg import solve_triangular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._typing import Array, History
    from ..targets._observables import DipoleMagnitude
    from ._triangle import Triangle


# Relative error of a loss.
ROUNDING = 1e-13


class NonlinearRows:
    """Labels ``y = g(m)`` of linear quantities ``m = J v + m_0``, with noise.

    Structures are added one by one, and the Jacobians in blocks of them; `gathered` stacks
    what was added into the arrays below.

    Parameters
    ----------
    target : Target
        Gives ``g`` (`value`), its `derivative`, and `nearest`.

    Attributes
    ----------
    J : ndarray of shape (n, k, n_columns)
        Derivative of the linear quantities.
    m_0 : ndarray of shape (n, k)
        Their values at ``v = 0``.
    y, sigma : ndarray of shape (n, 1)
        Labels and their noise.
    m_start : ndarray of shape (n, k)
        A guess of the linear quantities.

    Examples
    --------
    >>> import numpy as np
    >>> from skqeq.solvers import NonlinearRows
    >>> from skqeq.targets import TARGETS
    >>> rows = NonlinearRows(TARGETS["dipole_magnitude"])
    >>> rows.jacobians.append(np.eye(3))
    >>> rows.add(np.zeros(3), y=[2.0], sigma=0.1, m_start=np.ones(3))
    >>> round(float(rows.gathered().loss(np.array([0.0, 0.0, 1.9]))), 6)
    0.5
    """

    def __init__(self, target: DipoleMagnitude) -> None:
        self.target = target
        self.jacobians: list[Array] = []
        self._entries: list[Any] = []

    def add(self, m_0: Array, y: Array, sigma: Array, m_start: Array) -> None:
        """Add the label of one structure.

        Parameters
        ----------
        m_0 : ndarray of shape (k,)
            The linear quantities at ``v = 0``.
        y, sigma : float or ndarray of shape (1,)
            Label and noise.
        m_start : ndarray of shape (k,)
            A guess of the linear quantities.
        """
        self._entries.append((m_0, y, np.full(np.shape(y), sigma), m_start))

    def gathered(self) -> Self:
        """Stack everything added.

        Returns
        -------
        self : NonlinearRows
            With the arrays of the class.
        """
        columns = zip(*self._entries, strict=True)
        self.m_0, self.y, self.sigma, self.m_start = (np.array(c) for c in columns)
        self.J = np.concatenate(self.jacobians).reshape(*self.m_0.shape, -1)
        self.jacobians.clear()
        self._entries.clear()
        return self

    def linear(self, v: Array) -> Array:
        """The linear quantities at weights.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.

        Returns
        -------
        m : ndarray of shape (n, k)
            ``J v + m_0``.
        """
        return self.J @ v + self.m_0

    def loss(self, v: Array) -> float:
        """Half the sum of squared residuals in units of the noise.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.

        Returns
        -------
        loss : float
            Without a unit.
        """
        residual = (self.target.value(self.linear(v)) - self.y) / self.sigma
        return 0.5 * np.sum(residual**2)

    def linearize(self, v: Array, response: bool = True) -> Iterator[tuple[Array, Array]]:
        """Yield weighted Jacobian and residual.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.
        response : bool, default=True
            Not looked at: the linear quantities know the response of the charges.

        Yields
        ------
        jacobian : ndarray of shape (n, n_columns)
            Derivative of the residual.
        residual : ndarray of shape (n,)
            In units of the noise.
        """
        m = self.linear(v)
        D = self.target.derivative(m) / self.sigma[..., None]
        jacobian = (D @ self.J).reshape(-1, self.J.shape[-1])
        residual = (self.target.value(m) - self.y) / self.sigma
        yield jacobian, residual.ravel()

    def curvature_product(self, v: Array, direction: Array) -> Array:
        """What the Hessian of `loss` has beyond ``jacobian^T jacobian``, times a direction.

        Parameters
        ----------
        v, direction : ndarray of shape (n_columns,)
            Weights, and the direction.

        Returns
        -------
        product : ndarray of shape (n_columns,)
            The product.
        """
        m = self.linear(v)
        weight = (self.target.value(m) - self.y) / self.sigma**2
        bent = weight * self.target.curvature_product(m, self.J @ direction)
        return np.tensordot(bent, self.J, axes=2)

    def extend(self, other: NonlinearRows) -> None:
        """Add the labels that were added to other rows; neither may be `gathered` yet.

        Parameters
        ----------
        other : NonlinearRows
            Of the same target.
        """
        self.jacobians += other.jacobians
        self._entries += other._entries

    def toward_start(self) -> Iterator[tuple[Array, Array]]:
        """Linear rows that pull m to the values nearest `m_start` that satisfy the labels.

        Yields
        ------
        rows : ndarray of shape (n k, n_columns)
            In units of the noise.
        residual : ndarray of shape (n k,)
            What they should be.
        """
        goal = self.target.nearest(self.m_start, self.y)
        rows = self.J / self.sigma[..., None]
        residual = (goal - self.m_0) / self.sigma
        yield rows.reshape(-1, self.J.shape[-1]), residual.ravel()


def gauss_newton(
    triangle: Triangle,
    rows: Sequence[Any],
    v: Array,
    max_iter: int,
    tol: float,
    callback: Callable[[Array, dict[str, float]], object] | None = None,
) -> tuple[Array, History, bool]:
    """Minimise the loss of a triangle (linear rows and prior) and of non-linear rows.

    Steps solve the linearised problem, and are halved until the true loss falls sufficiently
    (Nocedal and Wright, Numerical Optimization, 2nd ed., algorithm 3.1); it never rises.

    Gauss-Newton drops the curvature of the non-linear rows and then converges linearly, slowly
    where residuals are large. Where rows know their curvature, the matrix of the linearised problem
    preconditions a few conjugate-gradient steps on the true Hessian instead (truncated Newton,
    algorithm 7.1).

    Parameters
    ----------
    triangle : Triangle
        Linear rows and the prior.
    rows : list
        The others.
    v : ndarray of shape (n_columns,)
        Start.
    max_iter : int
        Largest number of steps.
    tol : float
        Stop when the norm of the gradient is below `tol` times the norms of the rows' terms
        that cancel in it, and the loss is not expected to fall by more than this part of it.
    callback : callable, default=None
        Called as ``callback(v, entry)`` with every entry of the history.

    Returns
    -------
    v : ndarray of shape (n_columns,)
        Weights.
    history : list of dict
        Loss, relative gradient norm and step length of every iteration.
    converged : bool
        Whether `tol` was reached, or all that the precision of the loss allows.

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
    curved = [r for r in rows if hasattr(r, "curvature_product")]
    history, step = [], 0.0
    v, current = _settled(triangle, rows, v)
    for iteration in range(max_iter + 1):
        local, gradient, norm = linearized(triangle, rows, v)
        history.append({"loss": float(current), "gradient": float(norm), "step": step})
        if callback is not None:
            callback(v, history[-1])
        direction = _direction(local, curved, v, gradient, forcing=min(0.1, np.sqrt(norm)))
        slope = gradient @ direction
        # Where the rows' terms are large, a gradient that is small beside them may still lead far.
        if norm <= tol and -slope <= max(tol, ROUNDING) * current:
            return v, history, True
        if iteration == max_iter:
            break
        if -slope < ROUNDING * current:
            # The loss cannot tell the points apart any more; its gradient still can, until it
            # is rounding too.
            if len(history) > 1 and norm > 0.5 * history[-2]["gradient"]:
                return v, history, True
            v, step = v + direction, 1.0
            continue
        step = 1.0
        moved, trial = _settled(triangle, rows, v + direction)
        while not trial <= current + 1e-4 * step * slope and step > 1e-8:
            step *= 0.5
            moved, trial = _settled(triangle, rows, v + step * direction)
        if not trial <= current:
            break
        v, current = moved, trial
    return v, history, False


def fixed_point(
    triangle: Triangle,
    rows: Sequence[Any],
    v: Array,
    max_iter: int,
    tol: float,
    callback: Callable[[Array, dict[str, float]], object] | None = None,
) -> tuple[Array, History, bool]:
    """Solve the problem linearised at fixed charges, take those of the solution, and repeat.

    For energies and linear rows this is Gauss-Newton without damping. With rows whose charges
    respond to the weights it stops elsewhere than at the least loss, and it may never stop.

    Parameters
    ----------
    triangle : Triangle
        Linear rows and the prior.
    rows : list
        The others.
    v : ndarray of shape (n_columns,)
        Start.
    max_iter : int
        Largest number of steps.
    tol : float
        Stop when a step changes the weights by less than `tol` times their norm.
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
        v, current = _settled(triangle, rows, v)
        local, _, norm = linearized(triangle, rows, v, response=False)
        history.append({"loss": float(current), "gradient": float(norm), "step": step})
        if callback is not None:
            callback(v, history[-1])
        if converged or iteration == max_iter or not np.isfinite(current):
            break
        change, step = local.solve(), 1.0
        v = v + change
        converged = np.linalg.norm(change) <= tol * np.linalg.norm(v)
    return v, history, bool(converged)


def _settled(triangle, rows, v):
    """The weights, some of them better, and their loss."""
    total = 0.0
    for r in rows:
        v, loss = r.settled(v) if hasattr(r, "settled") else (v, r.loss(v))
        total += loss
    return v, triangle.loss(v) + total


def linearized(triangle, rows, v, **options):
    """All rows at v in one triangle for the step, their gradient, and its relative norm."""
    local = triangle.centered(v)
    gradient = triangle.gradient(v)
    scale = np.linalg.norm(gradient)
    for r in rows:
        slope, size = add_linearized(r, local, v, **options)
        gradient = gradient + slope
        scale += size
    return local, gradient, np.linalg.norm(gradient) / scale if scale > 0 else 0.0


def add_linearized(rows, triangle, v, **options):
    """Add rows at v to a triangle; their gradient, and the size of what cancels in it."""
    if hasattr(rows, "add_to"):
        return rows.add_to(triangle, v, **options)
    gradient, scale = np.zeros_like(v), 0.0
    for jacobian, residual in rows.linearize(v, **options):
        gradient += jacobian.T @ residual
        scale += np.linalg.norm(jacobian, axis=1) @ np.abs(residual)
        triangle.update(jacobian, -residual)
    return gradient, scale


def _direction(local, rows, v, gradient, forcing, max_steps=30):
    """Solve the linearised problem, or that with the curvature of the rows.

    For the latter, ``H d = -gradient``, conjugate gradients are preconditioned with the former.
    """
    if not rows:
        return local.solve()
    local.check()
    R = local.R
    direction, residual = np.zeros_like(gradient), -gradient
    search, old = None, None
    for _ in range(max_steps):
        half = solve_triangular(R, residual, trans="T", check_finite=False)
        preconditioned = solve_triangular(R, half, check_finite=False)
        new = residual @ preconditioned
        search = preconditioned if search is None else preconditioned + new / old * search
        old = new
        curved = R.T @ (R @ search) + sum(r.curvature_product(v, search) for r in rows)
        curvature = search @ curved
        if curvature <= 0.0:
            # Beyond the convex region: what was found so far descends, at least the first step.
            return direction if direction.any() else search
        direction = direction + new / curvature * search
        residual = residual - new / curvature * curved
        if np.linalg.norm(residual) <= forcing * np.linalg.norm(gradient):
            break
    return direction
