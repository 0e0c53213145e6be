"""Terms of the loss that are not linear in the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .._typing import Array
    from ..targets import DipoleMagnitude
    from ._triangle import Triangle


class LossTerm(ABC):
    """Half the sum of squared residuals that are not linear in the weights v.

    A subclass defines `loss`, `linearize` and `toward_start`. It may also define
    `curvature_product` and set `has_curvature`, and it may override `with_best_offsets`.

    Attributes
    ----------
    has_curvature : bool
        Whether the class defines `curvature_product`.
    squares : dict of {str: float}
        Sum of squared residuals of each target in the last linearisation, in units of the noise;
        empty if the class does not report it.

    Examples
    --------
    A problem with one weight, whose square has the label 4:

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
    squares: Mapping[str, float] = MappingProxyType({})

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
            A number without unit.
        """

    @abstractmethod
    def linearize(self, v: Array, response: bool = True) -> Iterator[tuple[Array, Array]]:
        """Yield Jacobians and residuals in units of the noise, some rows at a time.

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
        """Optimise weights that can be optimised at once, such as the energies of the free atoms.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.

        Returns
        -------
        v : ndarray of shape (n_columns,)
            The weights after this optimisation; the base class does not change them.
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
        raise TypeError(f"{type(self).__name__} does not define curvature_product")

    def add_to(self, triangle: Triangle, v: Array, response: bool = True) -> tuple[Array, float]:
        """Add the linearised rows to a triangle.

        Parameters
        ----------
        triangle : Triangle
            A triangle for changes of the weights; modified in place.
        v : ndarray of shape (n_columns,)
            Weights.
        response : bool, default=True
            As in `linearize`.

        Returns
        -------
        gradient : ndarray of shape (n_columns,)
            Gradient of `loss`.
        scale : float
            Sum of the norms of the contributions of the rows to the gradient.
        """
        gradient, scale = np.zeros_like(v), 0.0
        for jacobian, residual in self.linearize(v, response):
            gradient += jacobian.T @ residual
            scale += np.linalg.norm(jacobian, axis=1) @ np.abs(residual)
            triangle.update(jacobian, -residual)
        return gradient, scale


class NonlinearRows(LossTerm):
    """Labels ``y = g(m)``, with noise, of quantities ``m = J v + m_0`` that are linear in v.

    Labels are added one structure at a time, and Jacobians one block of structures at a time; the
    method `gathered` then stacks them into the arrays below.

    Parameters
    ----------
    target : Target
        Has the methods `value` (the function ``g``), `derivative`, `curvature_product` and
        `nearest`.

    Attributes
    ----------
    J : ndarray of shape (n, k, n_columns)
        Derivatives of the linear quantities with respect to the weights.
    m_0 : ndarray of shape (n, k)
        Values of the linear quantities at ``v = 0``.
    y, sigma : ndarray of shape (n, 1)
        Labels and their noise.
    m_start : ndarray of shape (n, k)
        Initial guess of the linear quantities.

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
            Initial guess of the linear quantities.
        """
        self._entries.append((m_0, y, np.full(np.shape(y), sigma), m_start))

    def gathered(self) -> Self:
        """Stack all labels that were added.

        Returns
        -------
        self : NonlinearRows
            The same object, in which all arrays are set.
        """
        columns = zip(*self._entries, strict=True)
        self.m_0, self.y, self.sigma, self.m_start = (np.array(c) for c in columns)
        self.J = np.concatenate(self.jacobians).reshape(*self.m_0.shape, -1)
        self.jacobians.clear()
        self._entries.clear()
        return self

    def linear(self, v: Array) -> Array:
        """The linear quantities for given weights.

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
            A number without unit.
        """
        residual = (self.target.value(self.linear(v)) - self.y) / self.sigma
        return 0.5 * np.sum(residual**2)

    def linearize(self, v: Array, response: bool = True) -> Iterator[tuple[Array, Array]]:
        """Yield the Jacobian and the residuals in units of the noise.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.
        response : bool, default=True
            Ignored, because J already includes the response of the charges.

        Yields
        ------
        jacobian : ndarray of shape (n, n_columns)
            Derivatives of the residuals.
        residual : ndarray of shape (n,)
            In units of the noise.
        """
        m = self.linear(v)
        D = self.target.derivative(m) / self.sigma[..., None]
        jacobian = (D @ self.J).reshape(-1, self.J.shape[-1])
        residual = (self.target.value(m) - self.y) / self.sigma
        self.squares = {self.target.name: float((residual**2).sum())}
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
        """Append the labels of another `NonlinearRows`; neither object may be gathered yet.

        Parameters
        ----------
        other : NonlinearRows
            Rows of the same target.
        """
        self.jacobians += other.jacobians
        self._entries += other._entries

    def toward_start(self) -> Iterator[tuple[Array, Array]]:
        """Yield linear rows that pull m toward values that satisfy the labels.

        Among all such values, these are the nearest to `m_start`.

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
