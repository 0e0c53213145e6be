"""Minimisation of a loss with linear and non-linear terms.

Some weights u, such as those of local energies, enter all residuals linearly. At given other
weights w, the best u follow from the normal equations, whose matrix never changes. The iteration
therefore minimises the loss over w, with the best u at every w (variable projection: Golub and
Pereyra, SIAM J. Numer. Anal. 10, 413 (1973)). Without it, the loss has a narrow curved valley: a
change of the electronegativities is compensated by a change of the local energies that depends on
the charges, and hence on w.

The residuals of energies, forces and stress are quadratic in w along any direction. Two
evaluations give their coefficients, and the loss along the direction is then known exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize_scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._typing import Array, History
    from ._terms import Line, LossTerm
    from ._triangle import Triangle


# If a step changes the loss by less than this part, rounding errors hide whether it gains.
ROUNDING = 1e-11
# Largest number of conjugate-gradient steps for one Newton step.
MAX_CG_STEPS = 30
# Longest step along a direction.
LONGEST = 4.0
# Residuals after a longer step are computed again. The residuals at the start have the factor
# 1 - s^2 in those that follow from the coefficients, and rounding errors must not grow.
FARTHEST = 1.4
# Lengths of steps along a curved path that are tried.
CURVED_STEPS = (1.0, 0.5, 0.25)
# Largest number of steps with one matrix of normal equations. It costs as much as ten steps.
MAX_REUSES = 10
# Below the rounding error of the loss, a step must lower the expected decrease by this factor.
EFFECTIVE = 0.9
# With an old matrix, the expected decrease must be below this part of the tolerance.
REUSED_PART = 0.3
# A new matrix is made if a step gains less than this part of the expected decrease.
SLOW = 0.1


class State(NamedTuple):
    """Weights, and all that is known there.

    Attributes
    ----------
    v : ndarray of shape (n_columns,)
        Weights.
    residuals : list of ndarray
        Residuals of every term.
    loss : float
        The loss.
    """

    v: np.ndarray
    residuals: list[np.ndarray]
    loss: float


class Position(NamedTuple):
    """The place of an iteration between two steps, from which it continues with the same steps.

    Parameters
    ----------
    iteration : int
        Number of the iteration, which has one matrix of normal equations.
    start : ndarray of shape (n_columns,)
        Weights at which the matrix was made.
    v : ndarray of shape (n_columns,)
        Weights before the next step.
    n_reuses : int, default=-1
        Number of steps by conjugate gradients; -1 before the first step of the iteration.
    last : ndarray of shape (3, n_columns) or (0, n_columns), default=empty
        Gradient, preconditioned gradient and direction of the last step by conjugate gradients;
        empty if there was none.
    full : float, default=inf
        Expected decrease before the last full step that the loss could not judge, or infinity.
    step : float, default=0.0
        Length of the last step.

    Examples
    --------
    >>> import numpy as np
    >>> from skqeq.solvers import Position
    >>> Position(0, np.zeros(2), np.zeros(2)).n_reuses
    -1
    """

    iteration: int
    start: np.ndarray
    v: np.ndarray
    n_reuses: int = -1
    last: np.ndarray = np.zeros((0, 0))
    full: float = np.inf
    step: float = 0.0


class Loss:
    """The loss of linear rows, of the prior, and of terms that are not linear.

    Parameters
    ----------
    triangle : Triangle
        Linear rows and the prior.
    terms : sequence of LossTerm
        Terms that are not linear in the weights.
    linear : ndarray of int
        Columns of weights in which all residuals are linear.
    """

    def __init__(self, triangle: Triangle, terms: Sequence[LossTerm], linear: Array) -> None:
        self.triangle, self.terms, self.linear = triangle, terms, linear
        triangle.check()
        self._gram = triangle.R.T @ triangle.R
        self._inner: Array | None = None  # Cholesky factor for the linear weights

    def at(self, v: Array) -> State:
        """Compute the residuals and the loss."""
        return self._state(v, [term.residual(v) for term in self.terms])

    def _state(self, v, residuals):
        loss = self.triangle.loss(v) + sum(0.5 * float(r @ r) for r in residuals)
        return State(v, residuals, loss)

    def gradient(self, state: State) -> Array:
        """Gradient of the loss."""
        gradient = self.triangle.gradient(state.v)
        for term, residual in zip(self.terms, state.residuals, strict=True):
            gradient = gradient + term.pull_back(state.v, residual)
        return gradient

    def normal_equations(self, v: Array) -> tuple[Array, Array]:
        """The matrix ``J^T J`` of all rows and of the prior, and the gradient."""
        H, gradient = self._gram.copy(), self.triangle.gradient(v)
        for term in self.terms:
            of_term, of_gradient = term.normal_equations(v)
            H += of_term
            gradient = gradient + of_gradient
        if self._inner is None and len(self.linear):
            self._inner = cholesky(H[np.ix_(self.linear, self.linear)])
        return H, gradient

    def projected(self, state: State) -> tuple[State, Array]:
        """Optimise the linear weights; return the new state, and the change of the weights."""
        change = np.zeros_like(state.v)
        if not len(self.linear):
            return state, change
        gradient = self.triangle.gradient(state.v)[self.linear]
        for term, residual in zip(self.terms, state.residuals, strict=True):
            gradient = gradient + term.linear_pull_back(state.v, residual)[self.linear]
        change[self.linear] = -cho_solve((self._inner, True), gradient)
        residuals = [
            residual + term.linear_product(state.v, change)
            for term, residual in zip(self.terms, state.residuals, strict=True)
        ]
        return self._state(state.v + change, residuals), change

    def along(self, state: State, direction: Array) -> Path:
        """The loss along a direction, with the best linear weights at every point."""
        lines = [
            term.line(state.v, residual, direction)
            for term, residual in zip(self.terms, state.residuals, strict=True)
        ]
        triangle, u = self.triangle, self.linear
        rotated = triangle.residual(state.v), triangle.R @ direction
        coefficients = [(triangle.R.T @ part)[u] for part in rotated] + [np.zeros(len(u))]
        if len(u):
            for term, line in zip(self.terms, lines, strict=True):
                for k, part in enumerate(line.coefficients):
                    coefficients[k] += term.linear_pull_back(state.v, part)[u]
            coefficients = [
                solve_triangular(self._inner, part, lower=True) for part in coefficients
            ]
        return Path(rotated, triangle.rho2, lines, coefficients)

    def step(self, state: State, direction: Array, path: Path) -> tuple[float, State]:
        """Go to the smallest loss along a direction; return the length of the step, too."""
        s = path.best()
        moved = state.v + s * direction
        if s > FARTHEST:
            return s, self.projected(self.at(moved))[0]
        residuals = [line.residual(s) for line in path.lines]
        return s, self.projected(self._state(moved, residuals))[0]


class Path(NamedTuple):
    """The loss along a direction, as a function of the length s of the step.

    Attributes
    ----------
    rotated : tuple of ndarray
        Residuals of the triangle at the start, and their derivative.
    rho2 : float
        Twice the constant part of the loss of the triangle.
    lines : list
        The residuals of every term.
    coefficients : list of ndarray
        Coefficients of 1, s and s^2 in the gradient with respect to the linear weights, multiplied
        by the inverse of their Cholesky factor.
    """

    rotated: tuple[np.ndarray, np.ndarray]
    rho2: float
    lines: list[Line]
    coefficients: list[np.ndarray]

    def loss(self, s: float) -> float:
        """The loss after a step of length s, with the best linear weights there."""
        linear = self.rotated[0] + s * self.rotated[1]
        a, b, c = self.coefficients
        gain = a + s * (b + s * c)
        loss = 0.5 * float(linear @ linear + self.rho2 - gain @ gain)
        return loss + sum(line.loss(s) for line in self.lines)

    def best(self) -> float:
        """The length of the step with the smallest loss."""
        found = minimize_scalar(
            self.loss, bounds=(0.0, LONGEST), method="bounded", options={"xatol": 1e-8}
        )
        return 1.0 if self.loss(1.0) <= found.fun else float(found.x)


def cholesky(H):
    """The lower Cholesky factor of the matrix of normal equations."""
    try:
        return np.linalg.cholesky(H)
    except np.linalg.LinAlgError:
        raise ValueError(
            "the least-squares problem is singular to working precision: raise sigma, or lower "
            "n_points"
        ) from None


def gauss_newton(
    triangle: Triangle,
    terms: Sequence[LossTerm],
    v: Array,
    max_iter: int,
    tol: float,
    callback: Callable[[Array, dict[str, float]], object] | None = None,
    linear: Array | None = None,
    store: Callable[[Position], object] | None = None,
    resume: Position | None = None,
) -> tuple[Array, History, bool]:
    """Minimise the loss of a triangle (linear rows and prior) plus non-linear terms.

    Each iteration sets up the normal equations ``H = J^T J`` of the linearised problem and takes
    three kinds of steps. The first follows a curved path: the solution of the linearised problem,
    plus a correction for the second-order change of the residuals, which is the geodesic
    acceleration of [1]_. It is compared with the best point along the straight line. The next steps
    use the old H as the preconditioner of non-linear conjugate gradients with exact line searches
    [2]_. They cost a tenth of a new H. When they gain little, the next iteration begins.

    Gauss-Newton neglects the second derivatives of the terms. If terms have a `curvature_product`,
    the first step of an iteration is found by truncated Newton instead ([2]_, algorithm 7.1): a few
    steps of linear conjugate gradients with the true Hessian, preconditioned by H.

    Parameters
    ----------
    triangle : Triangle
        Linear rows and the prior.
    terms : sequence of LossTerm
        Terms that are not linear in the weights.
    v : ndarray of shape (n_columns,)
        Initial weights.
    max_iter : int
        Largest number of steps along a curved path.
    tol : float
        The iteration stops when the next step is expected to lower the loss by less than `tol`
        times the loss.
    callback : callable, default=None
        Called as ``callback(v, entry)`` with every entry of the history.
    linear : ndarray of int, default=None
        Columns of weights in which all residuals are linear; None means that there are none.
    store : callable, default=None
        Called as ``store(position)`` after every call of `callback`.
    resume : Position, default=None
        A position that `store` received, from which the iteration continues. Its weights take the
        place of `v`. The history begins with the entry of this position.

    Returns
    -------
    v : ndarray of shape (n_columns,)
        Weights.
    history : list of dict
        Before every step: the loss, its expected decrease, and the length of the last step.
    converged : bool
        Whether `tol` was reached, or steps no longer reduce the expected decrease because of
        rounding errors.

    References
    ----------
    .. [1] Transtrum, Machta, Sethna, Phys. Rev. E 83, 036701 (2011).
    .. [2] Nocedal and Wright, Numerical Optimization, 2nd ed. (2006).

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
    none = np.array([], dtype=int)
    loss = Loss(triangle, terms, none if linear is None else linear)
    iteration = Iteration(loss, tol, callback, store)
    v, converged = iteration.run(Position(0, v, v) if resume is None else resume, max_iter)
    return v, iteration.history, converged


class Iteration:
    """The iteration of `gauss_newton`.

    Parameters
    ----------
    loss : Loss
        The loss to minimise.
    tol : float
        Relative decrease of the loss at which the iteration stops.
    callback : callable or None
        Called with the weights and every entry of the history.
    store : callable or None
        Called with the position after every call of `callback`.

    Attributes
    ----------
    history : list of dict
        One entry for every step.
    """

    def __init__(
        self,
        loss: Loss,
        tol: float,
        callback: Callable[[Array, dict[str, float]], object] | None,
        store: Callable[[Position], object] | None,
    ) -> None:
        self.loss, self.tol, self.callback, self.store = loss, tol, callback, store
        self.history: History = []
        self._step = 0.0  # length of the last step

    def run(self, at: Position, max_iter: int) -> tuple[Array, bool]:
        """Minimise the loss; return the weights, and whether the tolerance was reached."""
        self._step = at.step
        start, first = at.start, min(at.iteration, max_iter)
        state = self.loss.at(at.v)
        for iteration in range(first, max_iter + 1):
            if at.n_reuses < 0:
                start = state.v
            H, gradient = self.loss.normal_equations(start)
            if not np.isfinite(gradient).all():
                raise ValueError("the least-squares problem holds infinite or undefined numbers")
            normal = NormalEquations(H)
            if at.n_reuses < 0:
                state, change = self.loss.projected(state)
                gradient = gradient + H @ change
                direction = normal.direction(gradient, self.loss.terms, state.v, state.loss)
                decrease = -0.5 * float(gradient @ direction)
                at = Position(iteration, start, state.v, step=self._step)
                self._report(state, decrease, at)
                if decrease <= self.tol * state.loss:
                    return state.v, True
                if iteration == max_iter:
                    break
                if decrease > ROUNDING * state.loss:
                    moved = self._curved_step(state, normal, direction)
                    if not moved.loss < state.loss:
                        break
                    state = moved
                    if all(term.has_curvature for term in self.loss.terms):
                        continue
                at = at._replace(n_reuses=0)
            state, converged = self._conjugate_steps(state, normal, at)
            if converged:
                return state.v, True
            at = at._replace(n_reuses=-1)
        return state.v, False

    def _report(self, state, decrease, position):
        entry = {"loss": float(state.loss), "decrease": decrease, "step": float(self._step)}
        self.history.append(entry)
        if self.callback is not None:
            self.callback(state.v, entry)
        if self.store is not None:
            self.store(position)

    def _curved_step(self, state, normal, direction):
        """The best point on a straight line, or on a path that follows the curved valley."""
        path = self.loss.along(state, direction)
        self._step, moved = self.loss.step(state, direction, path)
        if any(term.has_curvature for term in self.loss.terms):
            return moved
        pulled = sum(
            term.pull_back(state.v, line.coefficients[2])
            for term, line in zip(self.loss.terms, path.lines, strict=True)
        )
        bend = normal.solve(pulled)
        for s in CURVED_STEPS:
            trial, _ = self.loss.projected(self.loss.at(state.v + s * direction + s**2 * bend))
            if trial.loss < moved.loss:
                self._step = s
                return trial
        return moved

    def _conjugate_steps(self, state, normal, at):
        """Conjugate gradients, preconditioned by the normal equations of an earlier point.

        Returns the last state, and whether the tolerance was reached.
        """
        last, full = at.last if len(at.last) else None, at.full
        for k in range(at.n_reuses, MAX_REUSES):
            stored = np.zeros((0, len(state.v))) if last is None else np.stack(last)
            at = Position(at.iteration, at.start, state.v, k, stored, full, self._step)
            gradient = self.loss.gradient(state)
            gradient[self.loss.linear] = 0.0  # but for rounding errors, they are zero already
            steepest = normal.solve(gradient)
            decrease = -0.5 * float(gradient @ steepest)
            if decrease <= REUSED_PART * self.tol * state.loss:
                self._report(state, decrease, at)
                return state, True
            if decrease <= ROUNDING * state.loss:
                # The loss cannot judge the step. Full steps are taken while they are effective.
                if decrease > EFFECTIVE * full:
                    return state, k <= 1
                self._report(state, decrease, at)
                self._step, full = 1.0, decrease
                state, _ = self.loss.projected(self.loss.at(state.v + steepest))
                continue
            direction = steepest
            if last is not None:
                # The formula of Polak and Ribiere; a negative factor restarts the iteration.
                factor = gradient @ (steepest - last[1]) / (last[0] @ last[1])
                direction = steepest + max(0.0, factor) * last[2]
                if gradient @ direction >= 0.0:
                    direction = steepest
            last = gradient, steepest, direction
            self._report(state, decrease, at)
            path = self.loss.along(state, direction)
            self._step, moved = self.loss.step(state, direction, path)
            gain = state.loss - moved.loss
            if gain > 0.0:
                state = moved
            if gain < SLOW * decrease:
                break
        return state, False


class NormalEquations:
    """The matrix of the normal equations at some weights, as a preconditioner.

    Parameters
    ----------
    H : ndarray of shape (n_columns, n_columns)
        The matrix.
    """

    def __init__(self, H: Array) -> None:
        self.H, self._factor = H, cholesky(H)

    def solve(self, gradient: Array) -> Array:
        """The step ``-H^-1 gradient``."""
        return -cho_solve((self._factor, True), gradient, check_finite=False)

    def direction(self, gradient: Array, terms: Sequence[LossTerm], v: Array, loss: float) -> Array:
        """The step of Gauss-Newton, or of truncated Newton if terms have a curvature.

        Truncated Newton solves ``(H + curvature) d = -gradient`` by conjugate gradients.
        """
        curved = [term for term in terms if term.has_curvature]
        if not curved:
            return self.solve(gradient)
        # Far from the minimum, a rough solution is enough.
        forcing = min(0.1, float(np.sqrt(-0.5 * gradient @ self.solve(gradient) / loss)))
        direction, residual = np.zeros_like(gradient), -gradient
        search, old = np.zeros_like(gradient), np.inf
        for _ in range(MAX_CG_STEPS):
            preconditioned = -self.solve(residual)
            new = residual @ preconditioned
            search = preconditioned + new / old * search
            old = new
            product = self.H @ search + sum(term.curvature_product(v, search) for term in curved)
            curvature = search @ product
            if curvature <= 0.0:
                # The loss is not convex here. The direction found so far is a descent direction; in
                # the first step, the preconditioned gradient is one.
                return direction if direction.any() else search
            direction = direction + new / curvature * search
            residual = residual - new / curvature * product
            if np.linalg.norm(residual) <= forcing * np.linalg.norm(gradient):
                break
        return direction
