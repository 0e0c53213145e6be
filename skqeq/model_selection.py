"""Scorers and splitters for partly labelled data, and the evidence of a model."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.model_selection import BaseCrossValidator, StratifiedGroupKFold, StratifiedKFold
from sklearn.utils.metadata_routing import MetadataRequest

# Model files name the default scorer of searches by this module.
from ._counts import counted
from ._sklearn import PassthroughScorer  # noqa: F401
from .metrics import has_label, target_mae, target_r2, target_rmse
from .models import (
    Evidence,
    check_defined,
    check_weights,
    labels_of_predictions,
    log_evidence,
    maximize_evidence,
    predict_for_scores,
)
from .structures import collect
from .targets import TARGETS, Labels, as_table, check_names, column_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

    from ._typing import Array, LabelsLike, Metric, Model, StructuresLike


__all__ = ["Evidence", "LabelledKFold", "TargetScorer", "log_evidence", "maximize_evidence"]

_METRICS = {"r2": (target_r2, 1.0), "mae": (target_mae, -1.0), "rmse": (target_rmse, -1.0)}


class TargetScorer:
    """A scorer for one target of a model that may predict several targets.

    Parameters
    ----------
    target : str
        A column of y, see `skqeq.make_targets`.
    metric : {"rmse", "mae", "r2"}, default="rmse"
        The metric; errors are in the unit of the target. Errors are negated, because scikit-learn
        maximises scores.
    per_atom : bool, default=False
        Whether to divide energies by the number of atoms. Without the division, the R2 of energies
        of different compositions is close to 1 even for useless models.

    Notes
    -----
    The scorer raises a ValueError if a fold has no label of the target. `GridSearchCV` hides this
    error unless ``error_score="raise"`` is set. `LabelledKFold` makes folds that all have labels.

    Examples
    --------
    >>> from sklearn.model_selection import cross_val_score
    >>> from skqeq import QEqRegressor
    >>> from skqeq.datasets import load_molecules
    >>> from skqeq.model_selection import TargetScorer
    >>> X, y = load_molecules()
    >>> scorer = TargetScorer("charges", "mae")
    >>> cross_val_score(QEqRegressor(), X[:60], y[:60], scoring=scorer, cv=3).shape
    (3,)
    """

    # Scorers in older model files have no such attribute.
    _weight_request: bool | str | None = None

    def __init__(self, target: str, metric: Metric = "rmse", *, per_atom: bool = False) -> None:
        check_names([target])
        if metric not in _METRICS:
            raise ValueError(f"unknown metric {metric!r}; known: {', '.join(_METRICS)}")
        if per_atom and not TARGETS[target].extensive:
            raise ValueError(f"per_atom=True is for energies, but the target is {target}")
        self.target = target
        self.metric = metric
        self.per_atom = per_atom

    def set_score_request(self, *, sample_weight: bool | str | None) -> Self:
        """Say whether searches pass `sample_weight` to this scorer, with metadata routing.

        Parameters
        ----------
        sample_weight : bool, str or None
            As in the scorers of `sklearn.metrics.make_scorer`.

        Returns
        -------
        self : TargetScorer
            This scorer.
        """
        self._weight_request = sample_weight
        return self

    def get_metadata_routing(self) -> MetadataRequest:
        """The metadata that the scorer requests; scikit-learn calls this method.

        Returns
        -------
        request : MetadataRequest
            See `sklearn.utils.metadata_routing`.
        """
        request = MetadataRequest(owner=self)
        request.score.add_request(param="sample_weight", alias=self._weight_request)
        return request

    def __repr__(self) -> str:
        per_atom = ", per_atom=True" if self.per_atom else ""
        return f"TargetScorer({self.target!r}, {self.metric!r}{per_atom})"

    def __call__(
        self,
        estimator: Model,
        X: StructuresLike,
        y: LabelsLike,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Score a fitted model, pipeline or search on structures X with labels y."""
        structures = collect(X)
        labels = Labels(y, structures)
        check_defined(labels, structures)
        if self.target not in labels.columns:
            raise ValueError(
                f"y has no column {self.target!r}, only {', '.join(labels.columns)}; choose one "
                f"of them for TargetScorer, or add {self.target} to y"
            )
        if self.target not in labels.names:
            raise ValueError(
                f"no structure of this fold has {self.target}: split with LabelledKFold, or use "
                'fewer folds. With error_score="raise", a search reports this error'
            )
        function, sign = _METRICS[self.metric]
        weights = check_weights(sample_weight, len(labels.table))
        predicted = predict_for_scores(estimator, X, [self.target])
        truth = labels_of_predictions(labels.table, predicted)[self.target]
        predicted = predicted[self.target]
        if self.per_atom:
            target = TARGETS[self.target]
            truth, predicted = (target.comparable(v, structures) for v in (truth, predicted))
        return sign * function(truth, predicted, weights)


class LabelledKFold(BaseCrossValidator):
    """K folds with equal numbers of labelled structures; groups are not divided.

    Parameters
    ----------
    target : str
        Column of y whose labels are distributed evenly over the folds.
    n_splits : int, default=5
        Number of folds.
    shuffle : bool, default=False
        Whether to shuffle structures before splitting.
    random_state : int or None, default=None
        Seed for shuffling.

    Examples
    --------
    >>> import numpy as np
    >>> from skqeq import make_targets
    >>> from skqeq.model_selection import LabelledKFold
    >>> y = make_targets(dipole_magnitude=[0.1, 0.2, np.nan, np.nan])
    >>> [test.tolist() for _, test in LabelledKFold("dipole_magnitude", 2).split(y, y)]
    [[0, 2], [1, 3]]
    """

    # With metadata routing, scikit-learn passes groups only to splitters that request them.
    __metadata_request__split = {"groups": True}

    def __init__(
        self, target: str, n_splits: int = 5, shuffle: bool = False, random_state: int | None = None
    ) -> None:
        self.target = target
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state

    def get_n_splits(self, X: object = None, y: object = None, groups: object = None) -> int:
        """Number of folds.

        Parameters
        ----------
        X, y, groups : ignored
            Present for API consistency.

        Returns
        -------
        n_splits : int
            The parameter `n_splits`.
        """
        return self.n_splits

    def split(
        self, X: object, y: LabelsLike, groups: ArrayLike | None = None
    ) -> Iterator[tuple[Array, Array]]:
        """Yield training and test indices.

        Parameters
        ----------
        X : ignored
            Present for API consistency.
        y : labels
            Labels as in `skqeq.KQEqRegressor.fit`.
        groups : array-like of shape (n,), default=None
            Structures with equal groups are in the same fold.

        Yields
        ------
        train, test : ndarray of int
            Indices of structures.

        Raises
        ------
        ValueError
            If y has no column of the target, or if there are more folds than labelled structures
            (or than groups with labels).
        """
        table, _ = as_table(y)
        names = column_names(table)
        if self.target not in names:
            raise ValueError(f"y has no column {self.target!r}, only {', '.join(names)}")
        labelled = np.array([has_label(value) for value in table[self.target]])
        n_labelled = labelled.sum() if groups is None else len(set(np.asarray(groups)[labelled]))
        if n_labelled < self.n_splits:
            unit = "structure" if groups is None else "group"
            raise ValueError(
                f"n_splits={self.n_splits}, but only {counted(n_labelled, unit)} with {self.target}"
            )
        kind = StratifiedKFold if groups is None else StratifiedGroupKFold
        folds = kind(self.n_splits, shuffle=self.shuffle, random_state=self.random_state)
        with warnings.catch_warnings():
            # scikit-learn warns if there are fewer unlabelled structures than folds, which is
            # harmless.
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            folds = list(folds.split(np.zeros(len(labelled)), labelled, groups))
        yield from folds
