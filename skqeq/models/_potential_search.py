"""Choose the settings of a potential by cross-validation of small models."""

from __future__ import annotations

import time
import warnings
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.model_selection import GroupKFold, check_cv
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from .._sklearn import Interval
from ..features import SOAPFeaturizer, StructureBlocks
from ..metrics import has_label, target_rmse
from ..persistence import Persistent
from ..response import ChargeFlow, NoCharges, QEq
from ..sparsify import CURSparsifier
from ..structures import collect
from ..targets import ENERGIES, TARGETS, Labels
from ._checks import check_defined, labels_of_predictions
from ._functions import predict_for_scores
from ._gapkqeq import GAPKQEqRegressor

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike
    from sklearn.model_selection import BaseCrossValidator

    from .._typing import Array, LabelsLike, StructuresLike

# Cutoffs and widths of the cutoff function, Angstrom, and weights of the cutoffs.
CUTOFFS = (
    (3.0, 1.5, None),
    (4.0, 2.0, None),
    (5.0, 2.5, None),
    (6.0, 3.0, None),
    ((3.0, 6.0), (1.5, 4.0), (0.8, 0.2)),
)
# Charge responses, from the simplest. With hard and wide charges, it costs energy to move charge
# between distant atoms.
RESPONSES = (
    NoCharges(),
    QEq(hardness=10.0, radius_scale=0.7),
    QEq(hardness=30.0, radius_scale=0.7),
    QEq(hardness=30.0, radius_scale=1.3),
    ChargeFlow(radius_scale=1.0),
    ChargeFlow(radius_scale=1.0, softness=0.1, range=0.15),
)
# Factors by which numbers are multiplied or divided as long as that lowers the errors.
NOISE_FACTOR = 3.0
RESPONSE_FACTORS = {"hardness": 1.5, "radius_scale": 1.4, "softness": 3.0, "range": 1.5}
# Largest number of such steps in one direction.
MAX_STEPS = 6
# Tolerance of the fits that compare settings.
TRIAL_TOL = 1e-2


class Trial(NamedTuple):
    """One set of settings that was compared with others.

    Attributes
    ----------
    step : str
        The setting that was being chosen.
    value : object
        The value that was tried.
    score : float
        Mean over the targets of the logarithm of the held-out RMSE; the lowest is the best.
    rmse : dict of {str: float}
        Held-out RMSE of every target; of the energy per atom.
    seconds : float
        Time of all fits and predictions.
    """

    step: str
    value: Any
    score: float
    rmse: dict[str, float]
    seconds: float


class PotentialSearchCV(Persistent, MetaEstimatorMixin, RegressorMixin, BaseEstimator):
    """Choose the settings of a potential: cutoffs, charge response and noise.

    The search changes one setting after the other, and keeps a change if it lowers the held-out
    errors of small models: the cutoff of the local energies, the noise of each label, the charge
    response and its parameters, the cutoff and the amplitude of the electronegativities, and the
    noise again. The small models have few sparse points, and are fitted to a part of the
    structures. The model with the chosen settings is then fitted to all structures.

    The score is the mean over the targets of the logarithm of the held-out RMSE, so that each
    target counts the same, whatever its unit is.

    Parameters
    ----------
    estimator : Pipeline, default=None
        The start of the search: a pipeline of `StructureBlocks` and `GAPKQEqRegressor`, whose
        blocks ``"chi"`` and ``"gap"`` are pipelines of `SOAPFeaturizer` and `CURSparsifier`. Its
        other parameters, such as the number of sparse points, are those of the final model. None
        means 500 sparse points per element, ``n_max=6`` and ``l_max=4``.
    cv : int, cross-validation generator or iterable, default=3
        Folds of the trials, as in `GridSearchCV`. With groups, an integer means shuffled folds in
        which every group is complete.
    trial_points : int, default=100
        Number of sparse points per element of the small models.
    trial_structures : int, default=100
        Approximate number of structures of the trials; whole groups are drawn at random.
    min_gain : float, default=0.01
        A change is kept if the score falls by more than this number: 0.01 means that the errors
        fall by one percent on average.
    refit : bool, default=True
        Whether to fit the model with the chosen settings to all structures.
    random_state : int, default=0
        Seed of the choice of structures and of the folds.
    verbose : int, default=0
        If above 0, a progress bar shows the setting that is being chosen, and its best score.

    Attributes
    ----------
    best_estimator_ : Pipeline
        The model with the chosen settings; fitted to all structures if `refit` is True.
    best_params_ : dict of {str: object}
        The chosen settings as parameters of the pipeline.
    best_score_ : float
        Their score; the lowest is the best.
    trials_ : list of Trial
        All settings that were tried, in the order of the search. An interrupted search keeps those
        that were finished.

    See Also
    --------
    sklearn.model_selection.GridSearchCV : Tries all combinations of a few values.

    Notes
    -----
    The chosen noise balances the targets: it gives the lowest errors, and need not be the size of
    the errors. Do not use `skqeq.predict_std` with it.

    Examples
    --------
    >>> from skqeq import PotentialSearchCV
    >>> from skqeq.datasets import load_water
    >>> X, y, groups = load_water(return_groups=True)
    >>> search = PotentialSearchCV(trial_points=5, trial_structures=9, refit=False)
    >>> search = search.fit(X[:60], y[["energy", "forces"]][:60], groups=groups[:60])
    >>> sorted(search.trials_[0].rmse)
    ['energy', 'forces']
    """

    _parameter_constraints = {
        "estimator": [Pipeline, None],
        "cv": ["cv_object"],
        "trial_points": [Interval(Integral, 1, None, closed="left")],
        "trial_structures": [Interval(Integral, 2, None, closed="left")],
        "min_gain": [Interval(Real, 0.0, None, closed="left")],
        "refit": ["boolean"],
        "random_state": [Integral],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator: Pipeline | None = None,
        *,
        cv: int | BaseCrossValidator | Iterable[tuple[Any, Any]] = 3,
        trial_points: int = 100,
        trial_structures: int = 100,
        min_gain: float = 0.01,
        refit: bool = True,
        random_state: int = 0,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.cv = cv
        self.trial_points = trial_points
        self.trial_structures = trial_structures
        self.min_gain = min_gain
        self.refit = refit
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: StructuresLike, y: LabelsLike, *, groups: ArrayLike | None = None) -> Self:
        """Choose the settings, and fit the model to all structures.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Structures.
        y : labels
            Energies, forces or stress, and optionally further targets; see `GAPKQEqRegressor.fit`.
        groups : array-like of shape (n,), default=None
            Structures of one group, such as those of one trajectory, are in the same fold.

        Returns
        -------
        self : estimator
            With the chosen settings.

        Raises
        ------
        ValueError
            If y has no labels of energies, forces or stress, or if the estimator is not a pipeline
            as described above.
        """
        self._validate_params()
        structures: list[Any] = list(X)  # type: ignore[arg-type]  # any sequence is iterable
        labels = Labels(y, collect(structures))
        check_defined(labels, collect(structures))
        if set(ENERGIES).isdisjoint(labels.names):
            raise ValueError(f"a potential needs labels of one of {', '.join(ENERGIES)}")
        start = default_potential() if self.estimator is None else self.estimator
        settings = Settings(start)
        index, folds = self._folds(structures, labels.table, groups)
        self.trials_: list[Trial] = []
        trials = Trials(
            self, settings, [structures[i] for i in index], labels.table[index], folds, labels.names
        )
        with tqdm(desc="potential", unit="trial", disable=not self.verbose, leave=False) as bar:
            trials.bar = bar
            _descend(trials, settings, labels.names)
        self.best_params_, self.best_score_ = trials.params, trials.best
        self.best_estimator_ = clone(start).set_params(**trials.params)
        if self.refit:
            self.best_estimator_.fit(structures, y)
        return self

    def _folds(self, structures, table, groups):
        """Indices of the structures of the trials, and the folds among them."""
        n, rng = len(structures), np.random.default_rng(self.random_state)
        ids = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
        if len(ids) != n:
            raise ValueError(f"groups has {len(ids)} entries for {n} structures")
        order = rng.permutation(ids.max() + 1)
        sizes = np.cumsum(np.bincount(ids)[order])
        chosen = order[: 1 + np.searchsorted(sizes, min(self.trial_structures, n))]
        index = np.flatnonzero(np.isin(ids, chosen))
        cv = self.cv
        if isinstance(cv, Integral):
            cv = GroupKFold(int(cv), shuffle=True, random_state=self.random_state)
        return index, list(check_cv(cv).split(index, table[index], ids[index]))

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
            See `GAPKQEqRegressor.predict`.

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
            See `GAPKQEqRegressor.score`.
        """
        return self._fitted().score(X, y)


def default_potential() -> Pipeline:
    """The pipeline from which a search starts.

    Returns
    -------
    pipeline : Pipeline
        Not fitted.
    """
    r_cut, width, _ = CUTOFFS[1]
    half = make_pipeline(
        SOAPFeaturizer(r_cut=r_cut, cutoff_width=width, n_max=6, l_max=4),
        CURSparsifier(n_points=500),
    )
    blocks = StructureBlocks([("chi", half), ("gap", clone(half))])
    # Local energies of molecules are some eV; with the default amplitude, they are too stiff.
    return make_pipeline(blocks, GAPKQEqRegressor(amplitude_gap=10.0))


class Settings:
    """Names of the parameters of a pipeline that the search changes.

    Parameters
    ----------
    pipeline : Pipeline
        See `PotentialSearchCV`.

    Raises
    ------
    ValueError
        If the pipeline has other steps.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        first = pipeline.steps[0][1]
        blocks = dict(first.transformer_list) if isinstance(first, StructureBlocks) else {}
        halves: dict[str, Any] = {name: blocks.get(name) for name in ("chi", "gap")}
        steps = [
            [type(step) for _, step in half.steps] if isinstance(half, Pipeline) else []
            for half in halves.values()
        ]
        is_regressor = isinstance(pipeline[-1], GAPKQEqRegressor)
        if steps != [[SOAPFeaturizer, CURSparsifier]] * 2 or not is_regressor:
            raise ValueError(
                "PotentialSearchCV needs a pipeline of StructureBlocks and GAPKQEqRegressor, whose "
                "blocks 'chi' and 'gap' are pipelines of SOAPFeaturizer and CURSparsifier"
            )
        self.pipeline = pipeline
        self.model = f"{pipeline.steps[-1][0]}__"
        self._paths = {
            name: [f"{pipeline.steps[0][0]}__{name}__{step}__" for step, _ in half.steps]
            for name, half in halves.items()
        }

    def cutoff(self, block: str, r_cut: Any, width: Any, weights: Any) -> dict[str, Any]:
        """Parameters for the cutoffs of a block."""
        soap, sparse = self._paths[block]
        of_soap = {f"{soap}r_cut": r_cut, f"{soap}cutoff_width": width}
        return {**of_soap, f"{sparse}block_weights": weights}

    def points(self, n_points: int) -> dict[str, int]:
        """Parameters for the number of sparse points of both blocks."""
        return {f"{sparse}n_points": n_points for _, sparse in self._paths.values()}


class Trials:
    """Compares settings by cross-validation, and remembers the best ones.

    Parameters
    ----------
    search : PotentialSearchCV
        Its parameters, and the list of trials.
    settings : Settings
        The pipeline.
    X, y
        Structures and labels of the trials.
    folds : list of (ndarray, ndarray)
        Training and test structures.
    names : sequence of str
        Targets.
    """

    def __init__(
        self,
        search: PotentialSearchCV,
        settings: Settings,
        X: list[Any],
        y: Array,
        folds: Sequence[tuple[Array, Array]],
        names: Sequence[str],
    ) -> None:
        self.search, self.settings, self.X, self.y = search, settings, X, y
        self.folds, self.names = folds, names
        self.params: dict[str, Any] = {}
        self.best = np.inf
        self.bar: Any = None

    def value(self, name: str) -> Any:
        """The current value of a parameter."""
        return clone(self.settings.pipeline).set_params(**self.params).get_params()[name]

    def try_out(self, step: str, value: Any, params: dict[str, Any]) -> bool:
        """Try new values of some parameters; keep them if the score falls."""
        start = time.perf_counter()
        rmse = self._rmse({**self.params, **params})
        score = float(np.mean(np.log(list(rmse.values()))))
        trial = Trial(step, value, score, rmse, time.perf_counter() - start)
        self.search.trials_.append(trial)
        better = score < self.best - self.search.min_gain
        if better:
            self.params, self.best = {**self.params, **params}, score
        self.bar.update()
        self.bar.set_postfix_str(f"{step}, best score {self.best:.3f}")
        return better

    def climb(self, name: str, factor: float) -> None:
        """Multiply or divide a parameter by a factor as long as the score falls."""
        for direction in (1.0 / factor, factor):
            moved = False
            for _ in range(MAX_STEPS):
                value = self.value(name) * direction
                if not self.try_out(name.split("__")[-1], value, {name: value}):
                    break
                moved = True
            if moved:
                break

    def _rmse(self, params):
        trial = {**params, **self.settings.points(self.search.trial_points)}
        trial[f"{self.settings.model}tol"] = TRIAL_TOL
        squares: dict[str, list[float]] = {name: [] for name in self.names}
        for train, test in self.folds:
            model = clone(self.settings.pipeline).set_params(**trial)
            X = [self.X[i] for i in test]
            with warnings.catch_warnings():
                # Trials need not converge, and bad settings may fit badly.
                warnings.simplefilter("ignore")
                model.fit([self.X[i] for i in train], self.y[train])
                predicted = predict_for_scores(model, X, list(self.names))
            truth, structures = labels_of_predictions(self.y[test], predicted), collect(X)
            for name in self.names:
                if any(has_label(value) for value in truth[name]):
                    pair = (
                        TARGETS[name].comparable(v[name], structures) for v in (truth, predicted)
                    )
                    squares[name].append(target_rmse(*pair) ** 2)
        return {name: float(np.sqrt(np.nanmean(parts))) for name, parts in squares.items()}


def _descend(trials, settings, names):
    """Choose one setting after the other."""
    model = settings.model
    # Without charges a fit to energies is linear, and takes a small part of the time. Other targets
    # need charges.
    local = set(names) <= set(ENERGIES)
    if local:
        trials.params[f"{model}response"] = NoCharges()
    trials.try_out("start", "as given", {})
    for cutoff in CUTOFFS:
        trials.try_out("cutoff of local energies", cutoff[0], settings.cutoff("gap", *cutoff))
    noise = [f"{model}sigma_{name}" for name in names]
    for name in noise:
        trials.climb(name, NOISE_FACTOR)
    for response in RESPONSES:
        if not isinstance(response, NoCharges):
            trials.try_out("response", response, {f"{model}response": response})
    response = trials.value(f"{model}response")
    if isinstance(response, NoCharges):
        return
    for name, factor in RESPONSE_FACTORS.items():
        if isinstance(response.get_params().get(name), Real):
            trials.climb(f"{model}response__{name}", factor)
    for cutoff in CUTOFFS:
        trials.try_out("cutoff of chi", cutoff[0], settings.cutoff("chi", *cutoff))
    for name in (f"{model}amplitude_chi", *noise):
        trials.climb(name, NOISE_FACTOR)
