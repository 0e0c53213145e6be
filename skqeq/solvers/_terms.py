"""Terms of the loss that are not linear in the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._typing import Array
    from ..targets import DipoleMagnitude
    from ._triangle import Triangle


class LossTerm(ABC):
    """Half a sum of squared residuals that are not linear in the weights v.

    A subclass defines `loss` and `linearize`. One that knows more of its residuals also overrides
    `curvature_product`, with `has_curvature`, or `with_best_offsets`.

    Attributes
    ----------
    has_curvature : bool
        Whether there is a `curvature_product`.

    Examples
    --------
    The square of the only weight has the label 4:

    >>> import numpy as np
    >>> from skqeq.solvers import LossTerm, Triangle, gauss_newton
    >>> class Square(LossTerm):
    ...     def loss(self, v):
    ...         return 0.5 * (v[0] ** 2 - 4.0) ** 2
    ...     def linearize(self, v, response=True):
    ...         yield np.array([2.0 * v]), v**2 - 4.0
    ...     def toward_start(self):
    ...         yield np.ones((1, 1)), np.ones(1)
    >>> v, _, converged = gauss_newton(Triangle(1, 1e-3), [Square()], np.ones(1), 50, 1e-9)
    >>> v.round(3), converged
    (array([2.]), True)
    """

    has_curvature = False

    @abstractmethod
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

    @abstractmethod
    def linearize(self, v: Array, response: bool = True) -> Iterator[tuple[Array, Array]]:
        """Yield weighted Jacobians and residuals, some rows at a time.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.
        response : bool, default=True
            Whether the charges respond to the weights.

        Yields
        ------
        J : ndarray of shape (n, n_columns)
            Derivatives of the residuals.
        residual : ndarray of shape (n,)
            In units of the noise.
        """

    @abstractmethod
    def toward_start(self) -> Iterator[tuple[Array, Array]]:
        """Yield linear rows that pull the weights toward a good start of the iteration.

        Yields
        ------
        J : ndarray of shape (n, n_columns)
            Rows.
        residual : ndarray of shape (n,)
            Right-hand sides.
        """

    def with_best_offsets(self, v: Array) -> tuple[Array, float]:
        """Weights of which those that are easily optimised have their best values.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.

        Returns
        -------
        v : ndarray of shape (n_columns,)
            Unchanged here.
        loss : float
            Half the sum of squared residuals at the returned weights.
        """
        return v, self.loss(v)

    def curvature_product(self, v: Array, direction: Array) -> Array:
        """The part of the Hessian of `loss` beyond ``J^T J``, times a direction.

        Parameters
        ----------
        v, direction : ndarray of shape (n_columns,)
            Weights, and the direction.

        Returns
        -------
        product : ndarray of shape (n_columns,)
            The product.
        """
        raise TypeError(f"{type(self).__name__} does not know its curvature")

    def add_to(self, triangle: Triangle, v: Array, response: bool = True) -> tuple[Array, float]:
        """Add the linearised rows to a triangle.

        Parameters
        ----------
        triangle : Triangle
            Over changes of the weights; it is changed.
        v : ndarray of shape (n_columns,)
            Weights.
        response : bool, default=True
            As of `linearize`.

        Returns
        -------
        gradient : ndarray of shape (n_columns,)
            Gradient of `loss`.
        scale : float
            Sum of the norms of the contributions that cancel in the gradient.
        """
        gradient, scale = np.zeros_like(v), 0.0
        for jacobian, residual in self.linearize(v, response):
            gradient += jacobian.T @ residual
            scale += np.linalg.norm(jacobian, axis=1) @ np.abs(residual)
            triangle.update(jacobian, -residual)
        return gradient, scale


class NonlinearRows(LossTerm):
    """Labels ``y = g(m)`` of linear quantities ``m = J v + m_0``, with noise.

    Structures are added one by one, and Jacobians in blocks of structures; `gathered` then stacks
    them into the arrays below.

    Parameters
    ----------
    target : Target
        Has the methods `value`, which is ``g``, `derivative`, `curvature_product` and `nearest`.

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

    has_curvature = True

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
        """Stack all labels that were added.

        Returns
        -------
        self : NonlinearRows
            With all arrays.
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
            Ignored: the linear quantities contain the response of the charges.

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
        """The part of the Hessian of `loss` beyond ``J^T J``, times a direction.

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
        of_m = weight * self.target.curvature_product(m, self.J @ direction)
        return np.tensordot(of_m, self.J, axes=2)

    def extend(self, other: NonlinearRows) -> None:
        """Add the labels of other rows, before either is `gathered`.

        Parameters
        ----------
        other : NonlinearRows
            Rows of the same target.
        """
        self.jacobians += other.jacobians
        self._entries += other._entries

    def toward_start(self) -> Iterator[tuple[Array, Array]]:
        """Yield linear rows that pull m to the values nearest to `m_start` that satisfy the labels.

        Yields
        ------
        rows : ndarray of shape (n k, n_columns)
            In units of the noise.
        residual : ndarray of shape (n k,)
            Right-hand sides.
        """
        goal = self.target.nearest(self.m_start, self.y)
        rows = self.J / self.sigma[..., None]
        residual = (goal - self.m_0) / self.sigma
        yield rows.reshape(-1, self.J.shape[-1]), residual.ravel()
