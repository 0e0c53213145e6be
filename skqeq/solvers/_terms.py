"""Terms of the loss that are not linear in the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._typing import Array
    from ._triangle import Triangle


class LossTerm(ABC):
    """Half the sum of squared residuals that are not linear in the weights v.

    A subclass defines `residual`, `linearize` and `toward_start`. The defaults of all other methods
    use these. A subclass may also define `curvature_product`, and set `has_curvature`. If its
    residuals are not quadratic in the weights, it must override `line`.

    Attributes
    ----------
    has_curvature : bool
        Whether the class defines `curvature_product`.

    Examples
    --------
    A problem with one weight, whose square has the label 4:

    >>> import numpy as np
    >>> from skqeq.solvers import LossTerm, Triangle, gauss_newton
    >>> class Square(LossTerm):
    ...     def residual(self, v):
    ...         return v**2 - 4.0
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
    def residual(self, v: Array) -> Array:
        """Residuals in units of the noise, in the order of `linearize`.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.

        Returns
        -------
        residual : ndarray of shape (n,)
            Predictions minus labels.
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
        residual = self.residual(v)
        return 0.5 * float(residual @ residual)

    def squares(self, v: Array) -> dict[str, float]:
        """Sum of squared residuals of each target, in units of the noise.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.

        Returns
        -------
        squares : dict of {str: float}
            The keys are the targets; empty if the class does not report them.
        """
        return {}

    def pull_back(self, v: Array, factors: Array) -> Array:
        """The transposed Jacobian times a vector.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.
        factors : ndarray of shape (n,)
            A factor for every row.

        Returns
        -------
        product : ndarray of shape (n_columns,)
            ``J^T factors``.
        """
        product, start = np.zeros_like(v), 0
        for J, residual in self.linearize(v):
            product += J.T @ factors[start : start + len(residual)]
            start += len(residual)
        return product

    def normal_equations(self, v: Array) -> tuple[Array, Array]:
        """The matrix ``J^T J`` and the gradient of `loss`.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.

        Returns
        -------
        H : ndarray of shape (n_columns, n_columns)
            The matrix.
        gradient : ndarray of shape (n_columns,)
            ``J^T residual``.
        """
        H, gradient = np.zeros((len(v), len(v))), np.zeros_like(v)
        for J, residual in self.linearize(v):
            H += J.T @ J
            gradient += J.T @ residual
        return H, gradient

    def linear_product(self, v: Array, change: Array) -> Array:
        """Change of the residuals, for a change of weights in which they are linear.

        Parameters
        ----------
        v, change : ndarray of shape (n_columns,)
            Weights, and their change.

        Returns
        -------
        product : ndarray of shape (n,)
            ``J change``.
        """
        return self.residual(v + change) - self.residual(v)

    def linear_pull_back(self, v: Array, factors: Array) -> Array:
        """The transposed Jacobian times a vector; only the linear weights are needed.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.
        factors : ndarray of shape (n,)
            A factor for every row.

        Returns
        -------
        product : ndarray of shape (n_columns,)
            ``J^T factors``; entries of other weights may be zero.
        """
        return self.pull_back(v, factors)

    def line(self, v: Array, residual: Array, direction: Array) -> Line:
        """The residuals along a direction, for terms whose residuals are quadratic there.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.
        residual : ndarray of shape (n,)
            Residuals at v.
        direction : ndarray of shape (n_columns,)
            The direction.

        Returns
        -------
        line : Line
            Two evaluations of the residuals determine it.
        """
        ahead, behind = self.residual(v + direction), self.residual(v - direction)
        return QuadraticLine(residual, 0.5 * (ahead - behind), 0.5 * (ahead + behind) - residual)

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

    def add_to(self, triangle: Triangle, v: Array, response: bool = True) -> Array:
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
        """
        gradient = np.zeros_like(v)
        for jacobian, residual in self.linearize(v, response):
            gradient += jacobian.T @ residual
            triangle.update(jacobian, -residual)
        return gradient


class Line(ABC):
    """The residuals of a term along a direction, as functions of the length s of the step.

    Attributes
    ----------
    coefficients : tuple of ndarray
        Coefficients of 1, s and s^2 in the residuals; empty if they are not quadratic.
    """

    coefficients: tuple[Array, ...] = ()

    @abstractmethod
    def residual(self, s: float) -> Array:
        """Residuals after a step.

        Parameters
        ----------
        s : float
            Length of the step.

        Returns
        -------
        residual : ndarray of shape (n,)
            In units of the noise.
        """

    def loss(self, s: float) -> float:
        """Half the sum of squared residuals after a step.

        Parameters
        ----------
        s : float
            Length of the step.

        Returns
        -------
        loss : float
            A number without unit.
        """
        residual = self.residual(s)
        return 0.5 * float(residual @ residual)


class QuadraticLine(Line):
    """Residuals ``zero + s first + s^2 second``.

    Parameters
    ----------
    zero, first, second : ndarray of shape (n,)
        The coefficients.
    """

    def __init__(self, zero: Array, first: Array, second: Array) -> None:
        self.coefficients = zero, first, second

    def residual(self, s: float) -> Array:
        zero, first, second = self.coefficients
        return zero + s * (first + s * second)
