"""Base class of searches that choose the settings of a pipeline, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ..persistence import Persistent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from .._typing import Array, LabelsLike, StructuresLike


class SettingsSearch(Persistent, MetaEstimatorMixin, RegressorMixin, BaseEstimator):
    """A search whose result is the pipeline `best_estimator_`, with which it predicts."""

    best_estimator_: Any

    def _fitted(self):
        check_is_fitted(self, "best_estimator_")
        return self.best_estimator_

    @available_if(lambda self: self._fitted())
    def predict(self, X: StructuresLike, **options: Any) -> Array:
        """Predict with the fitted model.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Structures.
        **options
            See `KQEqRegressor.predict`.

        Returns
        -------
        predictions : ndarray
            As the best model returns them.
        """
        return self._fitted().predict(X, **options)

    @available_if(lambda self: self._fitted())
    def score(self, X: StructuresLike, y: LabelsLike) -> float:
        """R2 of the fitted model.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Structures.
        y : labels
            As in `fit`.

        Returns
        -------
        score : float
            See `KQEqRegressor.score`.
        """
        return self._fitted().score(X, y)


def candidates(given: Sequence[Any] | None, usual: Sequence[Any]) -> Sequence[Any]:
    """The values to try: those of the user, or the usual ones for None."""
    return usual if given is None else given


def group_numbers(groups: ArrayLike | None, n: int) -> Array:
    """Number of the group of every structure.

    Parameters
    ----------
    groups : array-like of shape (n,) or None
        Groups; None means that each structure is a group of its own.
    n : int
        Number of structures.

    Returns
    -------
    numbers : ndarray of shape (n,)
        From 0 to the number of groups minus one.

    Raises
    ------
    ValueError
        If there are not n entries.
    """
    numbers = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
    if len(numbers) != n:
        raise ValueError(f"groups has {len(numbers)} entries for {n} structures")
    return numbers
