"""Calibrate a fitted model, also inside pipelines and searches."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing

from ..targets import TARGETS
from ._cv_blocks import fold_numbers
from ._functions import unwrap
from ._jackknife import LeftOutPrediction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import ArrayLike
    from sklearn.model_selection import BaseCrossValidator

    from .._typing import Array, LabelsLike, M, StructuresLike
    from ._problem import Problem


def calibrate(
    model: M,
    X: StructuresLike,
    y: LabelsLike,
    sample_weight: ArrayLike | None = None,
    *,
    groups: ArrayLike | None = None,
    cv: int | BaseCrossValidator | Iterable[tuple[Any, Any]] | None = None,
) -> M:
    """Calibrate standard deviations and intervals by the errors of left-out structures.

    Afterwards, `predict_std` returns standard deviations that fit these errors, and
    `predict_interval` works.

    Parameters
    ----------
    model : fitted estimator
        A charge model, a pipeline that ends in one, or a search over either; it is changed. It must
        have been fitted with ``store_triangles=True``.
    X : sequence of ase.Atoms
        The structures of the fit.
    y : labels
        Their labels.
    sample_weight : array-like of shape (n,), default=None
        The weights of the fit.
    groups : array-like of shape (n,), default=None
        Structures of one group, such as conformers of one molecule, are left out together.
    cv : int, cross-validation generator or iterable, default=None
        With None, the errors of left-out structures follow from the fit itself, without another
        fit. They are exact for labels that are linear in the weights, but the transformers of the
        pipeline, and with them the sparse set, have seen all structures. Otherwise, folds as in
        `GridSearchCV`: the whole pipeline is fitted again without each fold. This takes as long as
        that many fits, and also counts the error of the choice of the sparse set. With groups, an
        integer means shuffled folds in which every group is complete.

    Returns
    -------
    model : estimator
        The same object.

    Raises
    ------
    ValueError
        If the model was fitted without ``store_triangles=True``, or to other data.

    Notes
    -----
    The class `skqeq.models.Calibration` documents the method. `KQEqRegressorCV` calibrates its
    model in `fit`, if the model has ``store_triangles=True``.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer
    >>> from skqeq import calibrate, predict_interval
    >>> from skqeq.datasets import load_molecules
    >>> X, y, groups = load_molecules(return_groups=True)
    >>> model = KQEqRegressor(sigma_dipole=0.01, store_triangles=True)
    >>> model = make_pipeline(SOAPFeaturizer(n_max=3, l_max=2), CURSparsifier(n_points=8), model)
    >>> model = model.fit(X[:60], y["dipole"][:60])
    >>> model = calibrate(model, X[:60], y["dipole"][:60], groups=groups[:60])
    >>> lower, upper = predict_interval(model, X[60:62], coverage=0.9)
    >>> lower.shape, bool((lower < upper).all())
    ((2, 3), True)
    """
    transform, last = unwrap(model, "calibrate")
    features = transform(X)
    if cv is None:
        last.calibrate(features, y, sample_weight, groups=groups)
        return model
    last.check_posterior()
    problem = clone(last).problem(features, y, sample_weight)
    table = problem.labels.table
    if isinstance(cv, Integral) and groups is not None:
        cv = GroupKFold(int(cv), shuffle=True, random_state=0)
    folds, ids = fold_numbers(cv, table, groups), fold_numbers(None, table, groups)
    last.set_calibration(refitted_predictions(model, X, problem, folds), problem, ids)
    return model


def refitted_predictions(
    model: Any, X: Any, problem: Problem, folds: Array
) -> Iterator[LeftOutPrediction]:
    """Yield predictions by models that are fitted without each fold, with all their transformers.

    Parameters
    ----------
    model : fitted estimator
        As in `calibrate`.
    X : sequence of ase.Atoms
        The structures.
    problem : Problem
        The labels.
    folds : ndarray of shape (n_structures,)
        The fold in which each structure is left out; -1 for structures that never are.

    Yields
    ------
    prediction : LeftOutPrediction
    """
    table, names = problem.labels.table, problem.labels.names
    for f in np.unique(folds[folds >= 0]):
        train, test = np.flatnonzero(folds != f), np.flatnonzero(folds == f)
        steps, last = _unfitted(model)
        known, new, y = _safe_indexing(X, train), _safe_indexing(X, test), table[train]
        for step in steps:
            known = step.fit_transform(known, y)
            new = step.transform(new)
        last.fit(known, y, problem.weights[train])
        # Predictions of structures with unknown elements have the prior; they are no test.
        features, unknown = last._checked_features(new, names, "skip")
        index = np.flatnonzero(~unknown)
        if not len(index):
            continue
        for prediction, variances in last.variances(new[index], names):
            number, name = int(test[index[prediction.number]]), prediction.name
            label = problem.labels.values(name, number)
            if label is not None and problem.weights[number] > 0.0:
                errors = label - TARGETS[name].observe(prediction.solution)
                yield LeftOutPrediction(number, name, errors, variances)


def _unfitted(model: Any) -> tuple[list[Any], Any]:
    """Copies of the transformers and of the charge model, without the searches around them."""
    steps: list[Any] = []
    while hasattr(model, "best_estimator_") or isinstance(model, Pipeline):
        if isinstance(model, Pipeline):
            steps += [clone(step) for _, step in model.steps[:-1]]
            model = model.steps[-1][1]
        else:
            model = model.best_estimator_
    return steps, clone(model)
