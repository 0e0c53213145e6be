"""Choose the noise of a charge model by exact cross-validation."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from .._sklearn import HasMethods, StrOptions
from .._state import check_that
from .._warnings import muted, warn_once
from ..metrics import TOO_FEW, target_mae, target_r2, target_rmse
from ..persistence import Persistent
from ..targets import make_targets, to_form
from ._base import ChargeModel
from ._calibrate import refitted_predictions
from ._cv_blocks import fold_numbers, members_of
from ._cv_predictions import HeldOut
from ._cv_residuals import held_out_rows
from ._evidence_search import maximize_evidence
from ._functions import predict_interval, predict_std, unwrap
from ._grid import at_end, by_ratio
from ._kqeq import KQEqRegressor

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike
    from sklearn.model_selection import BaseCrossValidator

    from .._typing import Array, LabelsLike, Metric, StructuresLike
    from ._calibration import Calibration
    from ._qeq import QEqRegressor


METRICS = {"r2": target_r2, "rmse": target_rmse, "mae": target_mae}


class KQEqRegressorCV(Persistent, MetaEstimatorMixin, RegressorMixin, BaseEstimator):
    """A charge model whose noise is chosen by cross-validation, at little more cost than one fit.

    `KQEqRegressorCV` is related to `KQEqRegressor` as `sklearn.linear_model.RidgeCV` is to `Ridge`.
    Cross-validation leaves out whole structures and never single rows, because the components of a
    dipole are correlated. The scores are exact: they equal the scores of separate fits to the
    remaining structures.

    There are two ways to use it with a pipeline. As the last step of a pipeline, it uses the same
    features in all folds. If the sparse set was chosen from the same structures, the scores are
    then slightly too good. If it wraps a pipeline, ``KQEqRegressorCV(pipeline, cv=5)``, all steps
    are fitted in every fold, once for all values of the noise. The scores then equal those of
    `GridSearchCV`.

    Parameters
    ----------
    estimator : KQEqRegressor, QEqRegressor or Pipeline, default=None
        The model, or a pipeline that ends in one; None means ``KQEqRegressor()``.
    sigmas : array-like of shape (n,) or dict of {str: array-like}, default=None
        Values of the noise to try, in the unit of the target. Labels of several targets need a
        dict, such as ``{"sigma_dipole": [0.002, 0.01], "sigma_charges": [0.02]}``; all combinations
        of its values are tried. None means 16 values from 1e-4 to 0.1, for a single target.
    cv : int, cross-validation generator or iterable, default=None
        Folds, as in `GridSearchCV`; None leaves out one structure at a time. If `estimator` is a
        pipeline, `cv` must be given.
    scoring : {"r2", "rmse", "mae"}, default="r2"
        The score by which the best noise is chosen. "r2" is the mean R2 over the targets. "rmse"
        and "mae" are negative errors; for several targets, each error is divided by the standard
        deviation of the labels, and the mean is taken. With `cv`, scores are means over the folds
        that have labels. With ``cv=None``, the predictions for all structures are scored together.
    optimize_noise : bool, default=False
        Whether to choose the noise by `skqeq.model_selection.maximize_evidence` instead of trying
        `sigmas`. Cross-validation then only scores the chosen noise.
    verbose : int, default=0
        If above 0, progress bars are shown.

    Attributes
    ----------
    best_estimator_ : estimator
        The model or pipeline with the best noise, fitted to all structures. A pipeline with a model
        as its only step becomes that model.
    best_params_ : dict of {str: float}
        The best noise.
    best_score_ : float
        The score of the best noise; errors are negative.
    cv_results_ : dict
        ``"params"`` is the list of candidates. All other entries are arrays with one value per
        candidate: ``"score"``; for every target the means over the folds ``"r2_<target>"``,
        ``"rmse_<target>"`` and ``"mae_<target>"``; and the standard deviations over the folds
        ``"std_r2_<target>"``, ``"std_rmse_<target>"`` and ``"std_mae_<target>"``.
    calibration_ : dict of {str: Calibration}
        For every target, how standard deviations and intervals follow from the errors of left-out
        structures, see `skqeq.calibrate`. It uses the best noise. Only if the estimator has
        ``store_triangles=True``. If the estimator is a pipeline, all steps are fitted once more in
        every fold.
    noise_ : dict of {str: float}
        For every target, the noise of the labels according to the calibration. The expected squared
        difference between prediction and label is ``std^2 + noise^2``; for energies, this is the
        noise of one atom if `energy_noise` is "per_atom".
    left_out_ : ndarray of shape (n,)
        Held-out predictions of the best model for every structure, in the form of
        `skqeq.make_targets`; NaN where there is no label.

    Notes
    -----
    If ``n_jobs`` of the model is above 1, several processes compute the rows of the labels.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, KQEqRegressorCV, SOAPFeaturizer
    >>> from skqeq.datasets import load_molecules
    >>> X, y, groups = load_molecules(return_groups=True)
    >>> search = KQEqRegressorCV(sigmas=np.geomspace(1e-3, 1.0, 7))
    >>> model = make_pipeline(SOAPFeaturizer(), CURSparsifier(n_points=8), search)
    >>> model = model.fit(X[:60], y["dipole"][:60])
    >>> model[-1].best_params_["sigma_dipole"] in search.sigmas
    True
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "sigmas": ["array-like", dict, None],
        "cv": ["cv_object"],
        "scoring": [StrOptions(set(METRICS))],
        "optimize_noise": ["boolean"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator: KQEqRegressor | QEqRegressor | Pipeline | None = None,
        sigmas: ArrayLike | dict[str, Any] | None = None,
        cv: int | BaseCrossValidator | Iterable[tuple[Any, Any]] | None = None,
        scoring: Metric = "r2",
        optimize_noise: bool = False,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.sigmas = sigmas
        self.cv = cv
        self.scoring = scoring
        self.optimize_noise = optimize_noise
        self.verbose = verbose

    def fit(
        self,
        X: StructuresLike,
        y: LabelsLike,
        sample_weight: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Choose the noise, and fit the model to all structures.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            Input of the estimator.
        y : labels
            Targets that are linear in the charges, see `KQEqRegressor.fit`.
        sample_weight : array-like of shape (n,), default=None
            As in `KQEqRegressor.fit`; scores are weighted too.
        groups : array-like of shape (n,), default=None
            Passed to `cv`. With ``cv=None``, the structures of a group are left out together.

        Returns
        -------
        self : estimator
            Fitted.

        Raises
        ------
        TypeError
            If the estimator is neither a charge model nor a pipeline that ends in one.
        ValueError
            If there are labels of energies or norms of dipoles, or if `sigmas`, `cv` or `scoring`
            do not suit the labels.
        """
        self._validate_params()
        pipeline, model = self._clone()
        transformed, head = X, None
        if pipeline is not None:
            # An unfitted copy for the folds: the fit below may change the state of a random number
            # generator.
            head = clone(pipeline[:-1])
            fitted_head = pipeline[:-1]
            transformed = fitted_head.fit_transform(X, y)
        if self.optimize_noise:
            model = self._optimize(model, transformed, y, sample_weight)
        problem = model.problem(transformed, y, sample_weight)
        problem.check_linear(type(self).__name__)
        labels, weights = problem.labels, problem.weights
        candidates = self._candidates(model, labels.names)
        folds = fold_numbers(self.cv, labels.table, groups)
        tested = self._tested(labels, weights, folds)
        if pipeline is None:
            rows = held_out_rows(problem, folds, bool(self.verbose))
            passes = [rows]
        else:
            passes = self._refitted(head, model, X, y, sample_weight, folds)
        held_out = self._held_out(passes, candidates, labels)
        self._score([result.table for result in held_out], candidates, labels, weights, tested)
        model.set_params(**self.best_params_)
        if pipeline is None:
            rows.fit(model)
            self.best_estimator_ = model
        else:
            model.fit(transformed, y, sample_weight)
            # A pipeline with a `memory` replaces its steps by fitted copies.
            pipeline.steps = [*fitted_head.steps, (pipeline.steps[-1][0], model)]
            self.best_estimator_ = pipeline
        if not model.store_triangles:
            return self
        if pipeline is None:
            model.calibrate(X, y, sample_weight, groups=groups)
        else:
            predictions = refitted_predictions(pipeline, X, problem, folds)
            ids = fold_numbers(None, labels.table, groups)
            model.set_calibration(predictions, problem, ids)
        return self

    def _clone(self):
        """A clone of the pipeline (or None) and a clone of the model."""
        best = KQEqRegressor() if self.estimator is None else clone(self.estimator)
        if isinstance(best, Pipeline) and len(best) == 1:
            best = best[-1]  # no other step needs a fit
        pipeline, model = None, best
        if isinstance(best, Pipeline):
            if self.cv is None:
                raise ValueError(
                    "cv=None would fit the pipeline once for every structure: give folds, such as "
                    "cv=5 or cv=GroupKFold(5)"
                )
            pipeline, model = best, best[-1]
        if not isinstance(model, ChargeModel):
            raise TypeError(
                f"estimator must be a charge model, or a pipeline that ends in one, got {model!r}"
            )
        if self.verbose:
            model.set_params(verbose=self.verbose)
        return pipeline, model

    def _optimize(self, model, X, y, sample_weight):
        """The model with the noise that maximises the evidence."""
        labelled = clone(model).problem(X, y).labels.names
        names = [f"sigma_{name}" for name in labelled]
        model, self.evidence_history_ = maximize_evidence(
            model, X, y, names, sample_weight, verbose=self.verbose
        )
        return model

    def _refitted(self, head, model, X, y, sample_weight, folds):
        """Yield the rows of all structures for every fold; the head is fitted without the fold."""
        numbers = np.unique(folds[folds >= 0])
        for f in tqdm(numbers, "folds", disable=not self.verbose, leave=False):
            train = np.flatnonzero(folds != f)
            fitted = clone(head).fit(_safe_indexing(X, train), _safe_indexing(y, train))
            # Elements of the fold that are not in the other folds have the prior, as in `score`.
            trial = clone(model).set_params(handle_unknown="prior")
            problem = trial.problem(fitted.transform(X), y, sample_weight)
            yield held_out_rows(problem, np.where(folds == f, 0, -1), bool(self.verbose))

    def _held_out(self, passes, candidates, labels):
        """Held-out predictions of every candidate."""
        held_out = [HeldOut(labels) for _ in candidates]
        for rows in passes:
            for index, sigmas in by_ratio(candidates, labels.names):
                for c, errors in zip(index, rows.held_out(sigmas), strict=True):
                    held_out[c].add(rows.rows, errors)
            del rows  # free their memory before the rows of the next fold are made
        return held_out

    def _candidates(self, model, names):
        """Values of the noise to try, one dict per candidate."""
        if self.optimize_noise:
            return [{f"sigma_{name}": getattr(model, f"sigma_{name}") for name in names}]
        labelled = [f"sigma_{name}" for name in names]
        sigmas = self.sigmas
        if sigmas is None:
            sigmas = np.geomspace(1e-4, 1e-1, 16)
        if not isinstance(sigmas, dict):
            if len(labelled) > 1:
                raise ValueError(
                    f"y has labels of {', '.join(names)}: sigmas must be a dict with some of "
                    f"{', '.join(labelled)}"
                )
            sigmas = {labelled[0]: sigmas}
        unlabelled = sorted(set(sigmas) - set(labelled))
        if unlabelled or not sigmas:
            raise ValueError(
                f"the keys of sigmas must be among {', '.join(labelled)}, the labels of y; got "
                f"{', '.join(unlabelled) or 'none'}"
            )
        sigmas = {name: np.atleast_1d(np.asarray(s, dtype=float)) for name, s in sigmas.items()}
        for name, values in sigmas.items():
            bad = ~(np.isfinite(values) & (values > 0))
            if values.ndim != 1 or not len(values) or bad.any():
                raise ValueError(f"sigmas of {name} must be positive numbers, got {values}")
        fixed = {name: float(getattr(model, name)) for name in labelled}
        return [
            fixed | dict(zip(sigmas, map(float, values), strict=True))
            for values in product(*sigmas.values())
        ]

    def _tested(self, labels, weights, folds):
        """A dict from every target to the structures in each fold that have a label of it."""
        tested = {}
        for name in labels.names:
            index = np.flatnonzero((folds >= 0) & (weights > 0) & labels.known(name))
            parts = [index]
            if self.cv is not None:
                parts = [index[part] for part in members_of(folds[index])]
            if not len(index):
                raise ValueError(f"cv leaves out no structure that has a label of {name}")
            if self.scoring == "r2" and min(map(len, parts)) < 2:
                raise ValueError(
                    f"a fold with only one label of {name} has no R2: use scoring='rmse', or fewer "
                    "folds"
                )
            tested[name] = parts
        return tested

    def _score(self, tables, candidates, labels, weights, tested):
        """Set the attributes that compare the candidates."""
        results, ranks = {"params": candidates}, []
        for name in labels.names:
            truth = labels.table[name]
            # R2 is undefined for a fold with one structure; the errors are still defined.
            with muted(TOO_FEW):
                for metric, function in METRICS.items():
                    scores = [
                        [function(truth[p], table[name][p], weights[p]) for p in tested[name]]
                        for table in tables
                    ]
                    results[f"{metric}_{name}"] = np.mean(scores, axis=1)
                    results[f"std_{metric}_{name}"] = np.std(scores, axis=1)
            ranks.append(results[f"{self.scoring}_{name}"])
            if self.scoring != "r2":
                known = np.concatenate([np.ravel(v) for v in truth if v is not None])
                ranks[-1] = -ranks[-1] / (np.nanstd(known) if len(labels.names) > 1 else 1.0)
        results["score"] = np.mean(ranks, axis=0)
        best = int(np.nanargmax(results["score"]))
        self.cv_results_, self.best_score_ = results, float(results["score"][best])
        self.best_params_ = candidates[best]
        for name, value in self.best_params_.items():
            more = at_end(value, {candidate[name] for candidate in candidates})
            if more:
                warn_once(
                    f"the best {name}, {value:.3g}, is at the end of sigmas: try {more} values",
                    f"end of {name}",
                )
        # Model files can store arrays and lists of arrays, but not structured arrays.
        best = {name: tables[best][name].copy() for name in tables[best].dtype.names}
        self._left_out = {n: list(c) if c.dtype == object else c for n, c in best.items()}

    @property
    def left_out_(self) -> Array:
        """Held-out predictions of the best model, shape (n,)."""
        check_is_fitted(self)
        return make_targets(**self._left_out)

    @property
    def calibration_(self) -> dict[str, Calibration]:
        """The calibration of every target; see the class."""
        calibration: dict[str, Calibration] = unwrap(self.best_estimator_)[1].calibration_
        return calibration

    @property
    def noise_(self) -> dict[str, float]:
        """The noise of the labels of every target; see the class."""
        return {name: float(np.sqrt(c.factors[2])) for name, c in self.calibration_.items()}

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "best_estimator_")

    def check_features(self, X: StructuresLike) -> None:
        """Refuse features that differ from those of the fit, see `KQEqRegressor.check_features`.

        Parameters
        ----------
        X : StructureFeatures
            As in `fit`, if the estimator is not a pipeline.

        Raises
        ------
        ValueError
            If their number or meaning differs.
        """
        if isinstance(self.best_estimator_, ChargeModel):
            self.best_estimator_.check_features(X)

    def _check_fitted(self):
        best = self.best_estimator_
        last = best.steps[-1][1] if isinstance(best, Pipeline) else best
        correct = isinstance(last, ChargeModel)
        check_that(correct, self, "best_estimator_", "a charge model or a pipeline with one")

    def predict(self, X: StructuresLike, return_std: bool = False) -> Any:
        """Predict with the best model, see `KQEqRegressor.predict`.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        return_std : bool, default=False
            Whether to return the standard deviations of `predict_std` as well.

        Returns
        -------
        y : same form as in `fit`
            Predictions of the targets that `fit` was given.
        std : same form as in `fit`
            Only with `return_std`.
        """
        check_is_fitted(self)
        if not return_std:
            return self.best_estimator_.predict(X)
        y = self.best_estimator_.predict(X)
        model = unwrap(self.best_estimator_)[1]
        return y, to_form(self.predict_std(X, model.targets_), model.y_form_)

    def predict_std(self, X: StructuresLike, names: Sequence[str]) -> Array:
        """Standard deviations of the best model, which are calibrated.

        Labels scatter around the predictions with the variance ``std^2 + noise^2``, see `noise_`.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        names : sequence of str
            Columns of `skqeq.make_targets`.

        Returns
        -------
        std : ndarray of shape (n,)
            In the form of `KQEqRegressor.predict_std`.

        Raises
        ------
        ValueError
            If the estimator was fitted without ``store_triangles=True``.
        """
        check_is_fitted(self)
        std: Array = predict_std(self.best_estimator_, X, names)
        return std

    def predict_interval(
        self, X: StructuresLike, coverage: float = 0.95, names: Sequence[str] | None = None
    ) -> tuple[Any, Any]:
        """Intervals that contain a given fraction of the labels of new structures.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        coverage : float, default=0.95
            Fraction of the labels that shall be in their intervals, between 0 and 1.
        names : sequence of str, default=None
            Targets; None means the targets that `fit` was given.

        Returns
        -------
        lower, upper : same form as in `fit`
            See `KQEqRegressor.predict_interval`.

        Raises
        ------
        ValueError
            If the estimator was fitted without ``store_triangles=True``, or if there are too few
            left-out structures for this coverage.
        """
        check_is_fitted(self)
        return predict_interval(self.best_estimator_, X, coverage, names)

    def score(
        self, X: StructuresLike, y: LabelsLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Score of the best model, see `KQEqRegressor.score`.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        y : labels
            As in `fit`.
        sample_weight : array-like of shape (n,), default=None
            Weights of the structures.

        Returns
        -------
        score : float
            Mean R2 over the targets that have labels.
        """
        check_is_fitted(self)
        return self.best_estimator_.score(X, y, sample_weight)

    def __sklearn_tags__(self) -> Any:
        model = KQEqRegressor() if self.estimator is None else self.estimator
        return model.__sklearn_tags__()
