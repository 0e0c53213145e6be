"""Labels that are functions of quantities that are linear in the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ._terms import Line, LossTerm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._typing import Array
    from ..targets import DipoleMagnitude


class NonlinearLine(Line):
    """Residuals of `NonlinearRows` along a direction.

    Parameters
    ----------
    rows : NonlinearRows
        Labels and noise.
    m, change : ndarray of shape (n, k)
        The linear quantities at the start, and their change for a step of length one.
    """

    def __init__(self, rows: NonlinearRows, m: Array, change: Array) -> None:
        self._rows, self._m, self._change = rows, m, change

    def residual(self, s: float) -> Array:
        value = self._rows.target.value(self._m + s * self._change)
        return ((value - self._rows.y) / self._rows.sigma).ravel()


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

    def residual(self, v: Array) -> Array:
        """Residuals in units of the noise.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights.

        Returns
        -------
        residual : ndarray of shape (n,)
            Predictions minus labels.
        """
        return ((self.target.value(self.linear(v)) - self.y) / self.sigma).ravel()

    def line(self, v: Array, residual: Array, direction: Array) -> NonlinearLine:
        return NonlinearLine(self, self.linear(v), self.J @ direction)

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
        yield jacobian, residual.ravel()

    def linear_product(self, v: Array, change: Array) -> Array:
        return np.zeros(self.y.size)  # local energies change no charges

    def linear_pull_back(self, v: Array, factors: Array) -> Array:
        return np.zeros_like(v)

    def squares(self, v: Array) -> dict[str, float]:
        residual = self.residual(v)
        return {self.target.name: float(residual @ residual)}

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
