"""The distribution of the weights after a fit, and the uncertainty of predictions.

`KQEqRegressorCV` also multiplies standard deviations by a calibration from held-out errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular

from .._state import check_array, check_that, check_type, is_number
from ..fields import FieldLayout
from ..targets import TARGETS
from ._prediction_rows import prediction_rows
from ._workers import combined

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._typing import Array
    from ..structures import StructureFeatures
    from ._forward import ForwardModel
    from ._prediction_rows import Predicted


class Posterior:
    """The posterior distribution of the weights, given the labels of a fit.

    The distribution is normal. Its mean is the weights of the fit, and in units of the prior its
    covariance is ``(R^T R)^-1``. The method `fit` stores it together with the noise and the
    amplitudes, so that it does not change if parameters are set after the fit.

    Parameters
    ----------
    layout : FieldLayout
        The weights and their priors.
    factor : ndarray of shape (n_weights, n_weights), default=None
        Upper triangle R.
    triangles : dict of {str: ndarray of shape (n_weights + 1, n_weights + 1)}, default=None
        The triangle of each target, see `KQEqRegressor`; an alternative to `factor`.
    sigmas : dict of {str: float}, default=None
        The noise of each target; needed with `triangles`.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor
    >>> model = QEqRegressor(store_triangles=True)
    >>> model = model.fit([molecule("H2O")], [[0.0, 0.0, -0.39]])
    >>> model.posterior_.factor.shape
    (4, 4)
    """

    def __init__(
        self,
        layout: FieldLayout,
        factor: Array | None = None,
        triangles: dict[str, Array] | None = None,
        sigmas: dict[str, float] | None = None,
    ) -> None:
        self.layout = layout
        self._factor, self._triangles, self._sigmas = factor, triangles or {}, sigmas or {}

    def check_loaded(self) -> None:
        """Check a posterior that was read from a file.

        Raises
        ------
        ValueError
            If the triangles do not fit the layout; the message names what does not fit.
        """
        check_type(self, "layout", FieldLayout).check_loaded()
        n = self.layout.n_columns
        if self._factor is not None:
            check_array(self, "_factor", (n, n))
        check_triangles(self, "_triangles", n)
        sigmas = check_type(self, "_sigmas", dict)
        correct = all(is_number(sigma) and sigma > 0 for sigma in sigmas.values())
        correct = correct and sigmas.keys() >= self._triangles.keys()
        check_that(correct, self, "_sigmas", "positive and known for every target of _triangles")

    @property
    def factor(self) -> Array:
        """Upper triangle R, shape (n_weights, n_weights)."""
        if self._factor is not None:
            return self._factor
        # Computed on demand, because it needs as much memory as the triangle of a target.
        return combined(self.layout, self._triangles, self._sigmas).R

    def variances(
        self,
        forward: ForwardModel,
        features: StructureFeatures,
        weights: Array,
        names: Sequence[str],
    ) -> Iterator[tuple[Predicted, Array]]:
        """Yield predictions, and the variances of their components.

        A variance has two parts. The first is due to the uncertainty of the weights. The second is
        due to the remainder of every field, which the features do not describe. Its variance is
        ``amplitude^2 (1 - |phi_i|^2)`` for the features of one kernel, and it is independent for
        every atom. Both parts are propagated through the response of the charges.

        Parameters
        ----------
        forward : ForwardModel
            Fields and response.
        features : StructureFeatures
            Features of all fields.
        weights : ndarray of shape (n_weights,)
            Weights of the fit.
        names : sequence of str
            Targets.

        Yields
        ------
        prediction : Predicted
            A prediction.
        variances : ndarray of shape (2, k)
            Both parts of the variances of its components, in the squared unit of the target.
        """
        R = self.factor_for(forward.layout)
        for rows in prediction_rows(forward, features, weights, names):
            of_weights, of_remainders = (
                rows.split(part) for part in (_variances_of(R, rows.J), rows.remainders)
            )
            for prediction, *parts in zip(rows.predictions, of_weights, of_remainders, strict=True):
                yield prediction, np.array(parts)

    def factor_for(self, layout: FieldLayout) -> Array:
        """Upper triangle R for a layout that may have more elements than that of the fit.

        Parameters
        ----------
        layout : FieldLayout
            The layout of the fit, or one that its method `with_elements` has made.

        Returns
        -------
        R : ndarray of shape (n_columns, n_columns)
            The labels say nothing about the constants of new elements, which have their prior.
        """
        if len(layout.elements) == len(self.layout.elements):
            return self.factor
        places = self.layout.places_in(layout)
        R = np.eye(layout.n_columns)
        R[np.ix_(places, places)] = self.factor
        return R


def check_triangles(owner: object, name: str, n_weights: int) -> None:
    """Check the triangles of targets, which were read from a file.

    Parameters
    ----------
    owner : object
        The object.
    name : str
        Name of its attribute, a dict.
    n_weights : int
        Number of weights of the model.

    Raises
    ------
    ValueError
        If there is an unknown target, or a triangle of another size.
    """
    triangles, shape = check_type(owner, name, dict), (n_weights + 1,) * 2
    correct = all(target in TARGETS for target in triangles) and all(
        isinstance(R, np.ndarray) and R.shape == shape and R.dtype == float and np.isfinite(R).all()
        for R in triangles.values()
    )
    check_that(correct, owner, name, f"arrays of finite numbers of shape {shape} by target")


def _variances_of(R: Array, J: Array) -> Array:
    """Variances of ``J v`` for weights v with the covariance ``(R^T R)^-1``."""
    return np.square(solve_triangular(R, J.T, trans="T", check_finite=False)).sum(axis=0)
