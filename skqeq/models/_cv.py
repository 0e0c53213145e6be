"""Cross-validation of a linear model for many values of its noise, without fitting it anew.

With rows J and labels r in units in which the prior of the weights is 1, and a noise s, those
structures F that are left out of a fit have the residuals

    e_F = (1 - H_FF)^-1 (r - J v)_F,    H = J (J^T J + s^2)^-1 J^T,    v = (J^T J + s^2)^-1 J^T r

(Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 5.4.2, for blocks).
One eigenvalue problem serves all s: that of ``J J^T`` where there are fewer rows than weights, of
``J^T J`` otherwise. For folds of many structures in data of many rows, the weights of every fold
come from ``J^T J`` less its part of the fold.
"""

from __future__ import annotations

import warnings
from functools import partial
from itertools import chain, groupby, product
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from joblib import effective_n_jobs
from scipy.linalg import cho_factor, cho_solve
from sklearn.base import BaseEstimator, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from ..metrics import target_mae, target_r2, target_rmse
from ..persistence import Persistent
from ..targets import make_targets
from ..targets._labels import to_form
from ._base import ChargeModel
from ._dispatch import predict_std, unwrap
from ._evidence import maximize_evidence
from ._kqeq import KQEqRegressor
from ._reduction import Part, Parts, combined, empty, merge_pairwise

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike
    from sklearn.model_selection import BaseCrossValidator

    from .._typing import Array, LabelsLike, Metric, StructuresLike
    from ._qeq import QEqRegressor


# Rows are kept in memory up to so many bytes, and made once more otherwise.
KEPT_BYTES = 2**31
# Of up to so many folds the normal equations are kept.
FEW_FOLDS = 20
# Folds of so many rows are solved together: few enough for the processor's cache.
BATCH_ROWS = 128
# The fold that is left out of no fit.
NOTHING = -2
METRICS = {"r2": target_r2, "rmse": target_rmse, "mae": target_mae}


class KQEqRegressorCV(Persistent, MetaEstimatorMixin, RegressorMixin, BaseEstimator):
    """A charge model whose noise is chosen by cross-validation, at hardly more cost than one fit.

    What `sklearn.linear_model.RidgeCV` is to `Ridge`. Whole structures are left out, never single
    rows: the components of a dipole know each other. The scores are exactly those of fits to
    the other structures.

    At the end of a pipeline it takes the features as they are. If their sparse set was picked from
    the same structures, it knows those that are left out a little. Around a pipeline,
    ``KQEqRegressorCV(pipeline, cv=5)``, everything in it is fitted anew in every fold, once for all
    values of the noise, and the scores are those of `GridSearchCV`.

    Parameters
    ----------
    estimator : KQEqRegressor, QEqRegressor or Pipeline, default=None
        The model, or a pipeline that ends in one; None means ``KQEqRegressor()``.
    sigmas : array-like of shape (n,) or dict of {str: array-like}, default=None
        Values of the noise of the only target, in its unit, or of several, such as
        ``{"sigma_dipole": [0.002, 0.01], "sigma_charges": [0.02]}``, of which all combinations are
        tried. None means 16 values from 1e-4 to 0.1 for the only target.
    cv : int, cross-validation generator or iterable, default=None
        Folds, as in `GridSearchCV`; None leaves out every structure on its own. Around a pipeline
        it must be given.
    scoring : {"r2", "rmse", "mae"}, default="r2"
        What is best: the largest mean over the targets of R2, or the least error, of several
        targets the mean over them of errors over the standard deviation of the labels. With `cv`,
        scores are means over the folds that have labels; otherwise all that was left out is one
        set.
    optimize_noise : bool, default=False
        Whether to find the noise by the evidence, with `skqeq.model_selection.maximize_evidence`,
        instead of trying `sigmas`. The scores of `cv` are then those of what was found.
    verbose : int, default=0
        Above 0 progress bars are shown.

    Attributes
    ----------
    best_estimator_ : estimator
        The model, or pipeline, with the best noise, fitted to everything; of a pipeline of nothing
        but a model, the model.
    best_params_ : dict of {str: float}
        Its noise.
    best_score_ : float
        Its score; errors are negative.
    cv_results_ : dict
        ``"params"``, a list of dict, and arrays over it: ``"score"``, and for every target
        ``"r2_<target>"``, ``"rmse_<target>"`` and ``"mae_<target>"``.
    calibration_ : dict of {str: float}
        By target, how much larger the errors of what was left out are than the model expects of
        its noise and amplitudes, whose ratios alone matter for predictions. Standard deviations
        are multiplied by it, those of other targets by the root mean square. A noise far below the
        best one makes it too large.
    noise_ : dict of {str: float}
        By target, what is to be added to the square of a standard deviation, squared, for the
        expected error to a label: `calibration_` times the noise. It is that of labels whose own
        is 1: with ``<target>_sigma`` multiply by that, with `sample_weight` divide by its root.
    left_out_ : ndarray of shape (n,)
        What the best model predicts of every structure when it is left out, in the form of
        `skqeq.make_targets`; NaN where there is no label.

    Notes
    -----
    With ``n_jobs`` of the model, rows are made and looked at by several processes, see
    `KQEqRegressor`.

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
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Choose the noise, and fit to everything.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            What the estimator takes.
        y : labels
            Those that are linear in the charges, see `KQEqRegressor.fit`.
        groups : array-like of shape (n,), default=None
            Handed to `cv`. Without `cv`, the structures of a group are left out together.
        sample_weight : array-like of shape (n,), default=None
            As in `KQEqRegressor.fit`; scores are weighted too.

        Returns
        -------
        self : estimator
            Fitted.

        Raises
        ------
        TypeError
            If the estimator is no charge model, and no pipeline that ends in one.
        ValueError
            If there are labels of energies or norms of dipoles, or `sigmas`, `cv` or `scoring` do
            not suit the labels.
        """
        if self.scoring not in METRICS:
            raise ValueError(f"scoring must be one of {', '.join(METRICS)}, got {self.scoring!r}")
        best = KQEqRegressor() if self.estimator is None else clone(self.estimator)
        head, model = None, best
        if isinstance(best, Pipeline) and len(best) == 1:
            best = model = best[-1]  # there is nothing before it to fit
        if isinstance(best, Pipeline):
            if self.cv is None:
                raise ValueError(
                    "cv=None would fit the pipeline once for every structure: give folds, such as "
                    "cv=5 or cv=GroupKFold(5)"
                )
            head, model = best[:-1], best[-1]
        if not isinstance(model, ChargeModel):
            raise TypeError(
                f"estimator must be a charge model, or a pipeline that ends in one, got {model!r}"
            )
        if self.verbose:
            model.set_params(verbose=self.verbose)
        given = X
        if head is not None:
            fresh = clone(head)  # fits may change the state of random numbers
            X = head.fit_transform(X, y)
        if self.optimize_noise:
            names = [f"sigma_{name}" for name in _labelled(model, X, y)]
            model, self.evidence_history_ = maximize_evidence(
                model, X, y, names, sample_weight, verbose=self.verbose
            )
        features, labels, weights = model._prepare(X, y, sample_weight)
        model._check_linear(labels, type(self).__name__)
        if self.optimize_noise:
            candidates = [{name: model.get_params()[name] for name in names}]
        else:
            candidates = self._candidates(model, labels.names)
        folds = _folds(self.cv, labels.table, groups)
        tested = self._tested(labels, weights, folds)
        if head is None:
            rows = _Rows(model, features, labels, weights, folds)
            every = [rows]
        else:
            every = self._fitted_anew(fresh, model, given, y, sample_weight, folds)
        left_out = [_LeftOut(labels) for _ in candidates]
        for some in every:
            for index, sigmas in _by_ratio(candidates, labels.names):
                found = some.left_out(sigmas, bool(self.verbose))
                for c, part in zip(index, found, strict=True):
                    left_out[c].add(some.rows, *part)
            del some  # before those of the next fold are made
        self._score([found.table for found in left_out], candidates, labels, weights, tested)
        self.calibration_ = left_out[candidates.index(self.best_params_)].excess
        self.noise_ = {
            name: ratio * self.best_params_[f"sigma_{name}"]
            for name, ratio in self.calibration_.items()
        }
        model.set_params(**self.best_params_)
        if head is None:
            model._solve(rows.problem(), [])
            model.targets_, model.y_form_ = labels.columns, labels.form
            best = model
        else:
            model.fit(X, y, sample_weight)
            # With a memory, head holds fitted copies of the steps.
            best.steps = [*head.steps, (best.steps[-1][0], model)]
        self.best_estimator_ = best
        return self

    def _fitted_anew(self, head, model, X, y, sample_weight, folds):
        """Yield the rows of all structures whose features know nothing of a fold."""
        for f in tqdm(_numbers(folds), "folds", disable=not self.verbose, leave=False):
            train = np.flatnonzero(folds != f)
            known = clone(head).fit(_safe_indexing(X, train), _safe_indexing(y, train))
            one = clone(model)
            data = one._prepare(known.transform(X), y, sample_weight)
            yield _Rows(one, *data, np.where(folds == f, 0, -1))

    def _candidates(self, model, names):
        known = [f"sigma_{name}" for name in names]
        sigmas = self.sigmas
        if sigmas is None:
            sigmas = np.geomspace(1e-4, 1e-1, 16)
        if not isinstance(sigmas, dict):
            if len(known) > 1:
                raise ValueError(
                    f"y has labels of {', '.join(names)}: sigmas must be a dict with some of "
                    f"{', '.join(known)}"
                )
            sigmas = {known[0]: sigmas}
        strange = sorted(set(sigmas) - set(known))
        if strange or not sigmas:
            raise ValueError(
                f"the keys of sigmas must be of {', '.join(known)}, the labels of y; got "
                f"{', '.join(strange) or 'none'}"
            )
        sigmas = {name: np.atleast_1d(np.asarray(s, dtype=float)) for name, s in sigmas.items()}
        for name, values in sigmas.items():
            bad = ~(np.isfinite(values) & (values > 0))
            if values.ndim != 1 or not len(values) or bad.any():
                raise ValueError(f"sigmas of {name} must be positive numbers, got {values}")
        fixed = {name: float(getattr(model, name)) for name in known}
        return [
            fixed | dict(zip(sigmas, map(float, values), strict=True))
            for values in product(*sigmas.values())
        ]

    def _tested(self, labels, weights, folds):
        """By target, those structures of every fold that have a label of it."""
        tested = {}
        for name in labels.names:
            known = np.flatnonzero((folds >= 0) & (weights > 0) & labels.known(name))
            parts = [known] if self.cv is None else [known[part] for part in _members(folds[known])]
            if not len(known):
                raise ValueError(f"cv leaves out no structure that has a label of {name}")
            if self.scoring == "r2" and min(map(len, parts)) < 2:
                raise ValueError(
                    f"folds of one structure with a label of {name} have no R2: use "
                    "scoring='rmse', or fewer folds"
                )
            tested[name] = parts
        return tested

    def _score(self, tables, candidates, labels, weights, tested):
        """Fill in the attributes that compare candidates."""
        results, ranks = {"params": candidates}, []
        for name in labels.names:
            truth = labels.table[name]
            with warnings.catch_warnings():
                # Folds of one structure have errors and no R2.
                warnings.simplefilter("ignore", UndefinedMetricWarning)
                for metric, function in METRICS.items():
                    scores = [
                        [function(truth[p], table[name][p], weights[p]) for p in tested[name]]
                        for table in tables
                    ]
                    results[f"{metric}_{name}"] = np.mean(scores, axis=1)
            ranks.append(results[f"{self.scoring}_{name}"])
            if self.scoring != "r2":
                known = np.concatenate([np.ravel(v) for v in truth if v is not None])
                ranks[-1] = -ranks[-1] / (np.nanstd(known) if len(labels.names) > 1 else 1.0)
        results["score"] = np.mean(ranks, axis=0)
        best = int(np.nanargmax(results["score"]))
        self.cv_results_, self.best_score_ = results, float(results["score"][best])
        self.best_params_ = candidates[best]
        for name, value in self.best_params_.items():
            tried = np.unique([candidate[name] for candidate in candidates])
            if len(tried) > 2 and value in (tried[0], tried[-1]):
                more = "smaller" if value == tried[0] else "larger"
                warnings.warn(
                    f"the best {name}, {value:.3g}, is at the end of sigmas: try {more} ones",
                    stacklevel=3,
                )
        # Arrays and lists of them go into any file.
        best = {name: tables[best][name].copy() for name in tables[best].dtype.names}
        self._left_out = {n: list(c) if c.dtype == object else c for n, c in best.items()}

    @property
    def left_out_(self) -> Array:
        """What the best model predicts of structures that it does not know, shape (n,)."""
        check_is_fitted(self)
        return make_targets(**self._left_out)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "best_estimator_")

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
        """Standard deviations by the best model times `calibration_`.

        Labels scatter around predictions with ``std^2 + noise^2``, see `noise_`.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        names : sequence of str
            Columns of `skqeq.make_targets`.

        Returns
        -------
        std : ndarray of shape (n,)
            As from `KQEqRegressor.predict_std`.

        Raises
        ------
        ValueError
            If the estimator was fitted without ``store_triangles=True``.
        """
        check_is_fitted(self)
        std = predict_std(self.best_estimator_, X, names)
        usual = float(np.sqrt(np.mean(np.square(list(self.calibration_.values())))))
        for name in names:
            for i, value in enumerate(std[name]):
                ratio = self.calibration_.get(name, usual)
                std[name][i] = None if value is None else ratio * value
        return std

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
            Mean over the labelled targets of R2.
        """
        check_is_fitted(self)
        return self.best_estimator_.score(X, y, sample_weight)

    def __sklearn_tags__(self) -> Any:
        model = KQEqRegressor() if self.estimator is None else self.estimator
        return model.__sklearn_tags__()


def _labelled(model, X, y):
    """Names of the targets of which there are labels."""
    return clone(model)._prepare(X, y, None)[1].names


def _folds(cv, table, groups):
    """The fold in which each structure is left out, shape (n,); -1 where it never is."""
    n = len(table)
    if groups is not None and len(groups) != n:
        raise ValueError(f"groups holds {len(groups)} values for {n} structures")
    if cv is None:
        kept = np.arange(n) if groups is None else np.asarray(groups)
        return np.unique(kept, return_inverse=True)[1].ravel()
    folds = np.full(n, -1)
    everything = np.arange(n)
    for f, (train, test) in enumerate(check_cv(cv).split(everything, table, groups)):
        if (folds[test] >= 0).any() or len(np.setxor1d(train, np.setdiff1d(everything, test))):
            raise ValueError("cv must split into folds that do not overlap, each tested once")
        folds[test] = f
    return folds


def _numbers(folds):
    return np.unique(folds[folds >= 0])


def _by_ratio(candidates, names):
    """Candidates whose noises have the same ratios, with their noises (n, n_targets)."""
    groups = {}
    for c, candidate in enumerate(candidates):
        sigmas = np.array([candidate[f"sigma_{name}"] for name in names])
        groups.setdefault(tuple((sigmas / sigmas[0]).round(12)), []).append((c, sigmas))
    for members in groups.values():
        index, sigmas = zip(*members, strict=True)
        yield index, np.array(sigmas)


class _LeftOut:
    """What is predicted of structures that a fit does not know, and how wrong it is.

    Attributes
    ----------
    table : ndarray of shape (n_structures,)
        Predictions; NaN where there is no label.
    """

    def __init__(self, labels):
        self.labels = labels
        self.table = make_targets(**{name: list(labels.table[name]) for name in labels.names})
        for name in labels.names:
            column = self.table[name]
            if column.dtype == object:
                column[:] = [None if v is None else np.full(v.shape, np.nan) for v in column]
            else:
                column[...] = np.nan
        self._squares = {name: [0.0, 0] for name in labels.names}  # and of how many rows

    @property
    def excess(self):
        """Root mean square of the errors in units of their standard deviation, by target."""
        squares = dict(self._squares)
        for name, (total, n) in squares.items():
            # The sum of all targets is positive, as 1 - H is, but not that of each.
            if total <= 0.0:
                squares[name] = np.sum(list(self._squares.values()), axis=0)
                warnings.warn(
                    f"what the errors of {name} are over what is expected of them cannot be told "
                    f"from its {n} labels; that of all targets is taken",
                    stacklevel=3,
                )
        return {name: float(np.sqrt(total / n)) for name, (total, n) in squares.items()}

    def add(self, parts, errors, squares):
        """Take in errors of the rows `parts`, which are NaN where nothing was left out."""
        start = 0
        for rows in parts:
            stop = start + len(rows.residual)
            wrong, square, start = errors[start:stop], squares[start:stop], stop
            known, sums = ~np.isnan(square), self._squares[rows.name]
            sums[0] += square[known].sum()
            sums[1] += known.sum()
            column, labels = self.table[rows.name], self.labels.table[rows.name]
            numbers, places = np.unique(rows.structures, return_index=True)
            if column.dtype != object:
                predicted, found = column[numbers], labels[numbers].astype(float)
                present = ~np.isnan(found)
                found[present] -= wrong
                column[numbers] = np.where(np.isnan(found), predicted, found)
                continue
            for i, error in zip(numbers, np.split(wrong, places[1:]), strict=True):
                if not np.isnan(error).any():
                    column[i] = np.array(labels[i], dtype=float)
                    column[i][~np.isnan(column[i])] -= error


class _Rows:
    """All rows of a fit, and what it would predict of structures that it does not know.

    Up to `KEPT_BYTES` of rows are kept; more are reduced to triangles, of every fold if there are
    `FEW_FOLDS` at most, and made once more when they are needed. So are rows that are many times
    more than the weights.
    """

    def __init__(self, model, features, labels, weights, folds):
        self.model, self.names, self.folds = model, list(labels.names), folds
        self.scale, self.n_jobs = model._scale(), effective_n_jobs(model.n_jobs)
        self.n_columns, self.n_folds = len(self.scale), folds.max() + 1
        self.parameters = features, labels, weights
        known = (labels.values(name, i) for name in self.names for i in np.flatnonzero(weights))
        self.n_rows = sum(int((~np.isnan(v)).sum()) for v in known if v is not None)
        kept = 8 * self.n_rows * self.n_columns <= KEPT_BYTES
        self.dual = kept and self.n_rows <= self.n_columns
        # One eigenvalue problem, and blocks of H, cost less than factorisations for every fold and
        # noise unless there are many more rows than weights.
        many = not kept or 2.5 * self.n_rows > self.n_folds * self.n_columns
        self.by_fold = many and self.n_folds <= FEW_FOLDS
        self.kept = None
        if kept:
            self.kept = list(chain.from_iterable(self._map(_listed)))
        # Without their Jacobians; and triangles by fold, or of everything, and target.
        self.rows, self.triangles, self.spectrum = [], {}, None
        if self.dual:
            self.rows = _outlines(self.kept)
        else:
            self.triangles = merge_pairwise(self._reduced())
        if not kept and not self.by_fold:
            self._check_waiting()

    def _map(self, function, *arguments):
        """Yield what a function makes of the rows, block by block: of all, or of every part."""
        if self.kept is not None:
            yield function([self.kept], *arguments)
        elif self.n_jobs == 1:
            yield function(_blocks(Part(self.model, *self.parameters, 0, {})), *arguments)
        else:
            with Parts(self.model, *self.parameters, self.n_rows) as parts:
                yield from parts.map(_on_blocks, function, *arguments)

    def _reduced(self):
        """Yield triangles by fold and target; all their rows come to `rows`."""
        owners = self.folds if self.by_fold else np.zeros_like(self.folds)
        for rows, triangles in self._map(_reduced, owners):
            self.rows += rows
            yield triangles

    def _check_waiting(self):
        """Refuse folds whose rows come so far apart that too many must wait for the others."""
        folds = _folds_of(self.rows, self.folds)
        blocks = np.repeat([rows.block for rows in self.rows], [len(r.weight) for r in self.rows])
        folds, blocks = folds[folds >= 0], blocks[folds >= 0]
        last = np.zeros(self.n_folds, dtype=int)
        np.maximum.at(last, folds, blocks)
        # After each block: rows that came less those whose fold is complete.
        come, gone = (np.bincount(at, minlength=blocks.max() + 1) for at in (blocks, last[folds]))
        most = KEPT_BYTES / (8 * self.n_columns)
        if np.cumsum(come - gone).max() > most:
            raise ValueError(
                "groups whose structures are far from each other need their rows at once, for "
                f"which they are too many; sort X by group, or use up to {FEW_FOLDS} folds"
            )
        if self.n_jobs > 1:
            bounds = Parts(self.model, *self.parameters, self.n_rows).bounds
            parts = np.searchsorted(bounds, blocks, "right")
            first, last = np.full(self.n_folds, len(bounds)), np.zeros(self.n_folds, dtype=int)
            np.minimum.at(first, folds, parts)
            np.maximum.at(last, folds, parts)
            # Folds that are divided among workers wait for the end of all of them.
            if np.sum((first < last)[folds]) > most:
                self.n_jobs = 1

    def problem(self):
        """Of all rows and the prior, with the noise that the model has now: what solves it."""
        if self.model.store_triangles or not self.dual:
            triangles = self.triangles
            if self.dual:
                [(_, triangles)] = self._map(_reduced, np.zeros_like(self.folds))
            found = merge_pairwise({name: R} for (_, name), R in triangles.items())
            if self.model.store_triangles:
                self.model._keep(found)
            return combined(self.model, found)
        sigmas = np.array([getattr(self.model, f"sigma_{name}") for name in self.names])
        units = self._units(sigmas)
        if self.spectrum is None or self.spectrum.ratios != units.ratios:
            self.spectrum = _Spectrum(*units.stacked(self.kept), units.ratios)
        return self.spectrum.problem(sigmas[0])

    def left_out(self, sigmas, verbose=False):
        """What is predicted of every structure when its fold is left out.

        Parameters
        ----------
        sigmas : ndarray of shape (n, n_targets)
            Noises, all of the same ratios.

        Returns
        -------
        found : list of (errors, squares)
            Of every row, in the unit of its label, NaN where it is in no fold. The squares are in
            units of what the model expects: ``e . (1 - H) e`` over the square of the noise, or that
            of e and of the residuals of the fit to everything.
        """
        units = self._units(sigmas[0])
        find = self._dual if self.dual else self._by_fold if self.by_fold else self._one_by_one
        factors = [rows.weight * units.ratios[rows.name] for rows in self.rows]
        return [
            (errors / np.concatenate(factors), errors * residuals / sigma**2)
            for errors, residuals, sigma in zip(
                *find(units, sigmas[:, 0], verbose), sigmas[:, 0], strict=True
            )
        ]

    def _units(self, sigmas):
        ratios = (sigmas[0] / sigmas).tolist()
        return _Units(self.scale, dict(zip(self.names, ratios, strict=True)))

    def _dual(self, units, sigmas, verbose):
        self.spectrum = _Spectrum(*units.stacked(self.kept), units.ratios)
        U = self.spectrum.U
        # What is left of each direction: 1 - H = U diag(left) U^T.
        left = sigmas[:, None] ** 2 / (self.spectrum.values + sigmas[:, None] ** 2)
        residuals = left * (U.T @ self.spectrum.r) @ U.T
        errors = np.full_like(residuals, np.nan)
        for part in _batches(_members(_folds_of(self.kept, self.folds)), verbose):
            errors[:, part] = _solved(U[part], left, residuals[:, part])
        return errors, residuals

    def _one_by_one(self, units, sigmas, verbose):
        gram, right = self._normal(units)
        values, V = np.linalg.eigh(sum(gram.values()))
        weights = 1.0 / (np.maximum(values, 0.0) + sigmas[:, None] ** 2)
        coefficients = weights * (V.T @ sum(right.values()))
        errors, residuals, waiting, start = [], [], [], 0
        sizes = np.bincount(_folds_of(self.rows, self.folds) + 1, minlength=self.n_folds + 1)[1:]
        arguments = self.folds, sizes, units, V, weights, coefficients
        shown = verbose and self.n_jobs == 1
        for some, others, (Z, places) in self._map(_one_by_one, *arguments, shown):
            errors.append(some)
            residuals.append(others)
            waiting.append((Z, start + places))
            start += some.shape[1]
        errors, residuals = (np.concatenate(x, axis=1) for x in (errors, residuals))
        # Folds whose rows are in several parts.
        Z, places = map(np.concatenate, zip(*waiting, strict=True))
        folds = _folds_of(self.rows, self.folds)[places]
        for part in _batches(_members(folds), verbose):
            right = residuals[:, places[part]]
            errors[:, places[part]] = _solved(Z[part], weights, right, complement=True)
        return errors, residuals

    def _by_fold(self, units, sigmas, verbose):
        gram, right = self._normal(units)
        everything, of_all = sum(gram.values()), sum(right.values())
        weights = {}
        folds = [*_numbers(self.folds).tolist(), NOTHING]
        for f in tqdm(folds, "folds", disable=not verbose, leave=False):
            rest, b = everything - gram.get(f, 0.0), of_all - right.get(f, 0.0)
            diagonal, found = np.einsum("ii->i", rest), []
            given = diagonal.copy()
            for sigma in sigmas:
                diagonal[:] = given + sigma**2
                found.append(cho_solve(cho_factor(rest, lower=True, check_finite=False), b))
            weights[f] = np.array(found).T
        found = self._map(_by_fold, self.folds, units, weights)
        return [np.concatenate(part, axis=1) for part in zip(*found, strict=True)]

    def _normal(self, units):
        """Normal equations of every fold, in these units."""
        gram, right = {}, {}
        for (f, name), R in self.triangles.items():
            J, r = units.scaled(name, R[:-1, :-1], R[:-1, -1])
            gram[f] = gram.get(f, 0.0) + J.T @ J
            right[f] = right.get(f, 0.0) + J.T @ r
        return gram, right


class _Units(NamedTuple):
    """Those in which the prior of the weights is 1, and all noise that of the first target.

    Attributes
    ----------
    scale : ndarray of shape (n_columns,)
        Prior standard deviations of the weights.
    ratios : dict of {str: float}
        Noise of the first target over that of each.
    """

    scale: np.ndarray
    ratios: dict

    def scaled(self, name, J, r):
        """Jacobian and labels of a target."""
        return J * (self.scale * self.ratios[name]), r * self.ratios[name]

    def stacked(self, rows):
        """Jacobian and labels of several sets of rows."""
        parts = (self.scaled(part.name, part.J, part.residual) for part in rows)
        return map(np.concatenate, zip(*parts, strict=True))


def _blocks(part):
    """The rows of all targets of one block of structures after the other."""
    rows = part.model._linear_rows(part.features, part.labels, part.weights, part.first)
    for _, found in groupby(rows, lambda rows: rows.block):
        yield list(found)


def _on_blocks(part, function, *arguments):
    return function(_blocks(part), *arguments)


def _listed(blocks):
    return list(chain.from_iterable(blocks))


def _outlines(rows):
    """Rows without their Jacobians."""
    return [part._replace(J=None) for part in rows]


def _folds_of(rows, folds):
    """The fold of every row."""
    return np.concatenate([folds[part.structures] for part in rows])


def _members(folds):
    """Places of those rows that belong to every fold."""
    order = np.argsort(folds, kind="stable")
    numbers, starts = np.unique(folds[order], return_index=True)
    parts = np.split(order, starts[1:])
    return [part for f, part in zip(numbers, parts) if f >= 0]


def _reduced(blocks, owners):
    """Rows without their Jacobians, and triangles by owner of the structure and target."""
    outlines, triangles = [], {}
    for block in blocks:
        outlines += _outlines(block)
        for rows in block:
            found = owners[rows.structures]
            for f in np.unique(found).tolist():
                triangle = triangles.setdefault((f, rows.name), empty(rows.J.shape[1]))
                triangle.update(rows.J[found == f], rows.residual[found == f])
    return outlines, {key: triangle.augmented for key, triangle in triangles.items()}


def _one_by_one(blocks, folds, sizes, units, V, weights, coefficients, verbose):
    """Errors of all rows of folds that are complete, residuals, and the rows of other folds."""
    none = np.empty(0, dtype=int)
    Z, right, owners, places = np.empty((0, len(V))), np.empty((len(weights), 0)), none, none
    solved, residuals, start = [], [right], 0
    for block in blocks:
        J, r = units.stacked(block)
        more = J @ V
        residuals.append(r - coefficients @ more.T)
        # Those that are still waiting come first.
        Z = np.concatenate([Z, more])
        right = np.concatenate([right, residuals[-1]], axis=1)
        owners = np.concatenate([owners, _folds_of(block, folds)])
        places = np.concatenate([places, np.arange(start, start + len(r))])
        start += len(r)
        members = _members(owners)
        done = [part for part in members if len(part) == sizes[owners[part[0]]]]
        for part in _batches(done, verbose):
            found = _solved(Z[part], weights, right[:, part], complement=True)
            solved.append((places[part], found))
        waiting = [part for part in members if len(part) < sizes[owners[part[0]]]]
        wait = np.sort(np.concatenate([none, *waiting]))
        Z, right, owners, places = Z[wait], right[:, wait], owners[wait], places[wait]
    errors = np.full((len(weights), start), np.nan)
    for part, found in solved:
        errors[:, part] = found
    return errors, np.concatenate(residuals, axis=1), (Z, places)


def _by_fold(blocks, folds, units, weights):
    """Errors of all rows with the weights of their fold, and with those of all folds."""
    nothing = np.empty((weights[NOTHING].shape[1], 0))
    errors, residuals = [nothing], [nothing]
    for rows in chain.from_iterable(blocks):
        J, r = units.scaled(rows.name, rows.J, rows.residual)
        owners = folds[rows.structures]
        error = np.full((len(nothing), len(r)), np.nan)
        for f in _numbers(owners).tolist():
            error[:, owners == f] = (r[owners == f, None] - J[owners == f] @ weights[f]).T
        errors.append(error)
        residuals.append((r[:, None] - J @ weights[NOTHING]).T)
    return [np.concatenate(part, axis=1) for part in (errors, residuals)]


class _Spectrum:
    """Rows ``J v = r``, fewer than the weights, by the eigenvectors U of ``J J^T``."""

    def __init__(self, J, r, ratios):
        self.J, self.r, self.ratios = J, r, ratios
        values, self.U = np.linalg.eigh(J @ J.T)
        self.values = np.maximum(values, 0.0)

    def problem(self, sigma):
        """``|v|^2 + |J v - r|^2 / sigma^2``, with what a `Triangle` has to minimise it."""
        return SimpleNamespace(solve=partial(self._solve, sigma), loss=partial(self._loss, sigma))

    def _solve(self, sigma):
        # Without the refinement the rounding errors of J J^T would be those of the weights.
        combination, left = np.zeros_like(self.r), self.r
        for _ in range(3):
            combination += self.U @ ((self.U.T @ left) / (self.values + sigma**2))
            v = self.J.T @ combination
            left = self.r - self.J @ v - sigma**2 * combination
        return v

    def _loss(self, sigma, v):
        return 0.5 * (v @ v + np.sum((self.J @ v - self.r) ** 2) / sigma**2)


def _solved(Z, weights, right, complement=False):
    """Solutions of ``Z diag(w) Z^T x = right``, or ``(1 - Z diag(w) Z^T) x = right``.

    Parameters
    ----------
    Z : ndarray of shape (n_folds, k, n)
    weights : ndarray of shape (n_weights, n)
    right : ndarray of shape (n_weights, n_folds, k)
    complement : bool

    Returns
    -------
    x : ndarray of shape (n_weights, n_folds, k)
    """
    x, k = np.empty_like(right), Z.shape[1]
    # Of large folds only one matrix at a time is held.
    step = len(weights) if k <= len(weights) else 1
    for start in range(0, len(weights), step):
        some = slice(start, start + step)
        blocks = _products(Z, weights[some])
        if complement:
            blocks = np.eye(k) - blocks
        x[some] = np.linalg.solve(blocks, right[some, ..., None])[..., 0]
    return x


def _products(Z, weights):
    """``Z diag(w) Z^T`` of every fold and every w of the weights.

    Parameters
    ----------
    Z : ndarray of shape (n_folds, k, n)
    weights : ndarray of shape (n_weights, n)

    Returns
    -------
    products : ndarray of shape (n_weights, n_folds, k, k)
    """
    k = Z.shape[1]
    products = np.empty((len(weights), len(Z), k, k))
    if k > len(weights):
        for w, of_one in zip(weights, products, strict=True):
            rows = Z * np.sqrt(w)
            np.matmul(rows, rows.swapaxes(-1, -2), out=of_one)
        return products
    # The products of two rows serve all weights.
    for a in range(k):
        for b in range(a + 1):
            products[..., a, b] = weights @ (Z[:, a] * Z[:, b]).T
            products[..., b, a] = products[..., a, b]
    return products


def _batches(parts, verbose):
    """Folds of the same number of rows together: arrays (n_folds, n_rows), not too large ones."""
    sizes = {}
    for part in parts:
        sizes.setdefault(len(part), []).append(part)
    with tqdm(total=len(parts), desc="folds", disable=not verbose, leave=False) as bar:
        for size, members in sizes.items():
            step = max(1, BATCH_ROWS // size)
            for start in range(0, len(members), step):
                batch = np.array(members[start : start + step])
                yield batch
                bar.update(len(batch))
