"""Damped Gauss-Newton for a few non-linear rows beside a triangle of linear ones."""

import numpy as np


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
    """

    def __init__(self, target):
        self.target = target
        self.jacobians = []
        self._entries = []

    def add(self, m_0, y, sigma, m_start):
        """Add the label of one structure."""
        self._entries.append((m_0, y, np.full(np.shape(y), sigma), m_start))

    def gathered(self):
        """Stack everything added."""
        columns = zip(*self._entries, strict=True)
        self.m_0, self.y, self.sigma, self.m_start = (np.array(c) for c in columns)
        self.J = np.concatenate(self.jacobians).reshape(*self.m_0.shape, -1)
        self.jacobians.clear()
        self._entries.clear()
        return self

    def linear(self, v):
        """The linear quantities m, shape (n, k)."""
        return self.J @ v + self.m_0

    def loss(self, v):
        """Half the sum of squared residuals in units of the noise."""
        residual = (self.target.value(self.linear(v)) - self.y) / self.sigma
        return 0.5 * np.sum(residual**2)

    def linearize(self, v):
        """Weighted Jacobian (n, n_columns) and residual (n,) at v."""
        m = self.linear(v)
        D = self.target.derivative(m) / self.sigma[..., None]
        jacobian = (D @ self.J).reshape(-1, self.J.shape[-1])
        residual = (self.target.value(m) - self.y) / self.sigma
        return jacobian, residual.ravel()

    def toward_start(self):
        """Linear rows that pull m to the values nearest `m_start` that satisfy the labels."""
        goal = self.target.nearest(self.m_start, self.y)
        rows = self.J / self.sigma[..., None]
        residual = (goal - self.m_0) / self.sigma
        return rows.reshape(-1, self.J.shape[-1]), residual.ravel()


def gauss_newton(triangle, rows, v, max_iter, tol, callback=None):
    """Minimise the loss of a triangle (linear rows and prior) and of non-linear rows.

    Every step solves the linearised problem and is halved until the true loss falls
    sufficiently (Nocedal and Wright, Numerical Optimization, 2nd ed., algorithm 3.1); the
    prior makes the matrix positive definite, so that such a step exists.

    Parameters
    ----------
    triangle : Triangle
        Linear rows and the prior.
    rows : list of NonlinearRows
        The others.
    v : ndarray of shape (n_columns,)
        Start.
    max_iter : int
        Largest number of steps.
    tol : float
        Stop when the norm of the gradient is below `tol` times the norm of the terms that
        cancel in it.
    callback : callable, default=None
        Called as ``callback(iteration, loss, gradient_norm)``.

    Returns
    -------
    v : ndarray of shape (n_columns,)
        Weights.
    history : list of dict
        Loss, relative gradient norm and step length of every iteration.
    converged : bool
    """

    def loss(v):
        return triangle.loss(v) + sum(r.loss(v) for r in rows)

    history, step, current = [], 0.0, loss(v)
    for iteration in range(max_iter + 1):
        local = triangle.copy()
        gradient = triangle.gradient(v)
        scale = np.linalg.norm(gradient)
        for r in rows:
            jacobian, residual = r.linearize(v)
            part = jacobian.T @ residual
            gradient = gradient + part
            scale += np.linalg.norm(part)
            local.update(jacobian, jacobian @ v - residual)
        norm = np.linalg.norm(gradient) / scale if scale > 0 else 0.0
        history.append({"loss": float(current), "gradient": float(norm), "step": step})
        if callback is not None:
            callback(iteration, current, norm)
        if norm <= tol:
            return v, history, True
        if iteration == max_iter:
            break
        direction = local.solve() - v
        slope = gradient @ direction
        step, trial = 1.0, loss(v + direction)
        while trial > current + 1e-4 * step * slope and step > 1e-10:
            step *= 0.5
            trial = loss(v + step * direction)
        if trial >= current:
            break
        v, current = v + step * direction, trial
    return v, history, False
