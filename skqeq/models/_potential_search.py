"""Choose the settings of a potential by cross-validation of small models."""

from __future__ import annotations

import time
import warnings
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, check_cv
from sklearn.pipeline import Pipeline, make_pipeline
from tqdm import tqdm

from .._sklearn import Interval
from ..features import SOAPFeaturizer, StructureBlocks
from ..metrics import has_label, target_rmse
from ..response import ChargeFlow, NoCharges, QEq
from ..sparsify import CURSparsifier
from ..structures import collect
from ..targets import ENERGIES, TARGETS, Labels
from ._checks import check_defined, labels_of_predictions
from ._functions import predict_for_scores
from ._gapkqeq import GAPKQEqRegressor
from ._settings_search import SettingsSearch, group_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike
    from sklearn.model_selection import BaseCrossValidator

    from .._typing import Array, LabelsLike, StructuresLike

# Cutoffs, Angstrom: a single one, or one for bonds and one for distant neighbours. The width of the
# cutoff function is half of the cutoff.
CUTOFFS = (4.0, 5.0, (2.5, 5.0), (3.0, 6.0))
# Weights of two cutoffs in the kernel of local energies.
WEIGHTS = (0.8, 0.2)
# `n_max` and `l_max` of local energies, widths of the Gaussians, Angstrom, and exponents of the
# kernel.
RESOLUTIONS = ((4, 3), (6, 5))
GAUSSIANS = (0.3, 0.5)
EXPONENTS = (1, 4)
# Charge responses. With hard and wide charges, it costs energy to move charge between distant
# atoms. Without softness, charges are local: they depend on the neighbours of an atom alone.
RESPONSES = (
    QEq(hardness=3.0, radius_scale=0.7),
    QEq(hardness=30.0, radius_scale=0.7),
    QEq(hardness=30.0, radius_scale=1.3),
    ChargeFlow(radius_scale=1.0),
    ChargeFlow(radius_scale=1.0, softness=0.1, range=0.15),
    ChargeFlow(radius_scale=1.0, softness=0.0),
)
# Prior standard deviation of the electronegativities with these responses, V. If it is too small,
# electrostatic energies are negligible.
AMPLITUDE_CHI = 10.0
# Factors by which numbers are multiplied or divided as long as that lowers the errors.
NOISE_FACTOR = 3.0
RESPONSE_FACTORS = {
    "hardness": 2.0,
    "radius_scale": 1.4,
    "softness": 3.0,
    "range": 1.5,
    "amplitude": 3.0,
}
# Largest number of such steps in one direction.
MAX_STEPS = 6
# Tolerance of the fits that compare settings. With 0.1, charges often stay at their start.
TRIAL_TOL = 3e-2
# A trial ends if its score would be above the best one by this number even if its errors in the
# remaining folds were those of the best settings.
MAX_EXCESS = 0.05


class Trial(NamedTuple):
    """One set of settings that was compared with others.

    Attributes
    ----------
    step : str
        The setting that was being chosen.
    value : object
        The value that was tried.
    score : float
        Mean over the folds and the targets of the logarithm of the held-out RMSE; the lowest is the
        best.
    rmse : dict of {str: float}
        Geometric mean over the folds of the held-out RMSE of every target; of the energy per atom.
        If a trial ended early, the errors of the remaining folds are those of the best settings.
    kept : bool
        Whether these settings are better than all before.
    seconds : float
        Time of all fits and predictions.
    """

    step: str
    value: Any
    score: float
    rmse: dict[str, float]
    kept: bool
    seconds: float


class PotentialSearchCV(SettingsSearch):
    """Choose the settings of a potential: descriptors, kernel, charge response and noise.

    The search changes one setting after the other, and keeps a change if it lowers the held-out
    errors of small models. It has two stages:

    1. Local energies without charges, fitted to energies, forces and stress: the cutoffs, the
       resolution and the Gaussians of the descriptor, the exponent of the kernel, and
       the noise of each label. These fits are linear and quick.
    2. Local energies and charges, fitted to all labels: the charge response, the amplitude and the
       cutoffs of the electronegativities, the parameters of the response, and the noise again.

    The small models have few sparse points, and are fitted to a part of the structures. The model
    with the chosen settings is then fitted to all structures. It has no charges if charges do not
    lower the errors, and if all labels are energies, forces or stress.

    The score is the mean over folds and targets of the logarithm of the held-out RMSE, so that each
    target counts the same, whatever its unit is. A trial ends after the first folds if its errors
    there are clearly larger than those of the best settings.

    Parameters
    ----------
    estimator : Pipeline, default=None
        The start of the search: a pipeline of `StructureBlocks` and `GAPKQEqRegressor`, whose
        blocks ``"chi"`` and ``"gap"`` are pipelines of `SOAPFeaturizer` and `CURSparsifier`. Its
        other parameters, such as the number of sparse points, are those of the final model. None
        means 500 sparse points per element.
    cv : int, cross-validation generator or iterable, default=5
        Folds of the trials, as in `GridSearchCV`. With groups, an integer means shuffled folds in
        which every group is complete.
    trial_points : int, default=100
        Number of sparse points per element of the small models.
    trial_atoms : int, default=3000
        Approximate number of atoms of all structures of the trials, which are drawn at random.
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
    >>> search = PotentialSearchCV(trial_points=5, trial_atoms=100, refit=False)
    >>> search = search.fit(X[:60], y[["energy", "forces"]][:60], groups=groups[:60])
    >>> sorted(search.trials_[0].rmse)
    ['energy', 'forces']
    """

    _parameter_constraints = {
        "estimator": [Pipeline, None],
        "cv": ["cv_object"],
        "trial_points": [Interval(Integral, 1, None, closed="left")],
        "trial_atoms": [Interval(Integral, 1, None, closed="left")],
        "min_gain": [Interval(Real, 0.0, None, closed="left")],
        "refit": ["boolean"],
        "random_state": [Integral],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator: Pipeline | None = None,
        *,
        cv: int | BaseCrossValidator | Iterable[tuple[Any, Any]] = 5,
        trial_points: int = 100,
        trial_atoms: int = 3000,
        min_gain: float = 0.01,
        refit: bool = True,
        random_state: int = 0,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.cv = cv
        self.trial_points = trial_points
        self.trial_atoms = trial_atoms
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
        trials = Trials(self, settings, [structures[i] for i in index], labels.table[index], folds)
        with tqdm(desc="potential", unit="trial", disable=not self.verbose, leave=False) as bar:
            trials.bar = bar
            _descend(trials, settings, labels.names)
        self.best_score_ = trials.best
        self.best_estimator_ = settings.pipeline_with(trials.params)
        params = clone(self.best_estimator_).get_params()
        self.best_params_ = {name: params[name] for name in trials.params}
        if self.refit:
            self.best_estimator_.fit(structures, y)
        return self

    def _folds(self, structures, table, groups):
        """Indices of the structures of the trials, and the folds among them."""
        n, rng = len(structures), np.random.default_rng(self.random_state)
        ids = group_numbers(groups, n)
        order = rng.permutation(n)
        sizes = np.cumsum([len(structures[i]) for i in order])
        n_chosen, cv = 1 + np.searchsorted(sizes, self.trial_atoms), self.cv
        first = np.sort(np.unique(ids[order], return_index=True)[1])  # structure of each group
        if isinstance(cv, Integral) and len(first) >= cv:
            n_chosen = max(n_chosen, 1 + first[cv - 1])  # each fold has at least one group
        index = np.sort(order[:n_chosen])
        if isinstance(cv, Integral):
            cv = GroupKFold(int(cv), shuffle=True, random_state=self.random_state)
        return index, list(check_cv(cv).split(index, table[index], ids[index]))


def default_potential() -> Pipeline:
    """The pipeline from which a search starts.

    Returns
    -------
    pipeline : Pipeline
        Not fitted.
    """
    chi, gap = (
        make_pipeline(
            SOAPFeaturizer(r_cut=4.0, cutoff_width=2.0, n_max=n_max, l_max=l_max),
            CURSparsifier(n_points=500),
        )
        # Electronegativities vary more smoothly than local energies.
        for n_max, l_max in ((4, 3), (6, 4))
    )
    # Local energies of molecules are some eV; with the default amplitude, they are too stiff.
    regressor = GAPKQEqRegressor(amplitude_gap=10.0, response=NoCharges())
    return make_pipeline(StructureBlocks([("chi", chi), ("gap", gap)]), regressor)


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

    def pipeline_with(self, params: dict[str, Any]) -> Pipeline:
        """A copy of the pipeline with other values of some parameters."""
        # Values are copied, as `set_params` writes the parameters of a response into the response.
        copies = {name: clone(value, safe=False) for name, value in params.items()}
        return clone(self.pipeline).set_params(**copies)

    def soap(self, block: str, **params: Any) -> dict[str, Any]:
        """Parameters of the descriptor of a block."""
        return {f"{self._paths[block][0]}{name}": value for name, value in params.items()}

    def kernel(self, block: str, **params: Any) -> dict[str, Any]:
        """Parameters of the kernel of a block."""
        return {f"{self._paths[block][1]}{name}": value for name, value in params.items()}

    def cutoff(self, block: str, r_cut: float | tuple[float, float]) -> dict[str, Any]:
        """Parameters for one cutoff or two of a block."""
        half = tuple(r / 2 for r in r_cut) if isinstance(r_cut, tuple) else r_cut / 2
        weights = WEIGHTS if isinstance(r_cut, tuple) and block == "gap" else None
        return {
            **self.soap(block, r_cut=r_cut, cutoff_width=half),
            **self.kernel(block, block_weights=weights),
        }

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
    """

    def __init__(
        self,
        search: PotentialSearchCV,
        settings: Settings,
        X: list[Any],
        y: Array,
        folds: Sequence[tuple[Array, Array]],
    ) -> None:
        self.search, self.settings, self.X, self.y = search, settings, X, y
        self.folds = folds
        self.params: dict[str, Any] = {}
        self.bar: Any = None

    def begin(self, names: Sequence[str]) -> None:
        """Begin a stage of the search, which compares models of some targets."""
        columns = [n for n in self.y.dtype.names or () if n.removesuffix("_sigma") in names]
        self.names, self.labels = list(names), self.y[columns]
        self.best = np.inf
        # Logarithms of the errors of the best settings, by fold and target.
        self.errors = np.zeros((len(self.folds), len(names)))

    def value(self, name: str) -> Any:
        """The current value of a parameter."""
        return self.settings.pipeline_with(self.params).get_params()[name]

    def try_out(self, step: str, value: Any, params: dict[str, Any]) -> bool:
        """Try new values of some parameters; keep them if the score falls."""
        # Their texts are compared, as values may be arrays or responses.
        if params and all(str(self.value(name)) == str(new) for name, new in params.items()):
            return False
        start = time.perf_counter()
        errors = self._errors({**self.params, **params})
        score = float(np.nanmean(errors))
        better = score < self.best - self.search.min_gain
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Mean of empty slice")
            rmse = dict(zip(self.names, np.exp(np.nanmean(errors, axis=0)).tolist(), strict=True))
        seconds = time.perf_counter() - start
        self.search.trials_.append(Trial(step, value, score, rmse, better, seconds))
        if better:
            self.params, self.best, self.errors = {**self.params, **params}, score, errors
        self.bar.update()
        self.bar.set_postfix_str(f"{step}, best score {self.best:.3f}")
        return better

    def climb(self, name: str, factor: float) -> None:
        """Multiply or divide a parameter by a factor as long as the score falls."""
        for direction in (1.0 / factor, factor):
            moved = False
            for _ in range(MAX_STEPS):
                # Three digits, which are easier to read.
                value = float(f"{self.value(name) * direction:.3g}")
                if not self.try_out(name.split("__")[-1], value, {name: value}):
                    break
                moved = True
            if moved:
                break

    def _errors(self, params):
        """Logarithms of the errors, by fold and target."""
        errors = self.errors.copy()
        for k, (train, test) in enumerate(self.folds):
            errors[k] = self._errors_of_fold(params, train, test)
            if np.nanmean(errors) > self.best + MAX_EXCESS:
                break
        return errors

    def _errors_of_fold(self, params, train, test):
        small = {
            **self.settings.points(self.search.trial_points),
            f"{self.settings.model}tol": TRIAL_TOL,
        }
        model = self.settings.pipeline_with({**params, **small})
        with warnings.catch_warnings():
            # Trials need not converge, and bad settings may fit badly.
            warnings.simplefilter("ignore")
            model.fit([self.X[i] for i in train], self.labels[train])
            X = [self.X[i] for i in test]
            predicted = predict_for_scores(model, X, self.names)
        truth, structures = labels_of_predictions(self.labels[test], predicted), collect(X)
        errors = []
        for name in self.names:
            pair = (TARGETS[name].comparable(v[name], structures) for v in (truth, predicted))
            known = any(has_label(value) for value in truth[name])
            errors.append(np.log(target_rmse(*pair)) if known else np.nan)
        return errors


def _descend(trials, settings, names):
    """Choose one setting after the other."""
    _choose_local_energies(trials, settings, [name for name in names if name in ENERGIES])
    _choose_charges(trials, settings, names)


def _choose_local_energies(trials, settings, names):
    trials.begin(names)
    trials.params[f"{settings.model}response"] = NoCharges()
    trials.try_out("start", "as given", {})
    for r_cut in CUTOFFS:
        both = {**settings.cutoff("chi", r_cut), **settings.cutoff("gap", r_cut)}
        trials.try_out("cutoffs", r_cut, both)
    for n_max, l_max in RESOLUTIONS:
        params = settings.soap("gap", n_max=n_max, l_max=l_max)
        trials.try_out("n_max, l_max", (n_max, l_max), params)
    for sigma in GAUSSIANS:
        trials.try_out("sigma_atom", sigma, settings.soap("gap", sigma_atom=sigma))
    for zeta in EXPONENTS:
        trials.try_out("zeta", zeta, settings.kernel("gap", zeta=zeta))
    for name in names:
        trials.climb(f"{settings.model}sigma_{name}", NOISE_FACTOR)


def _choose_charges(trials, settings, names):
    model = settings.model
    if set(names) - set(ENERGIES):
        # These labels need charges.
        trials.begin(names)
    given = settings.pipeline[-1].checked_response()
    if not isinstance(given, NoCharges):
        trials.try_out("response", given, {f"{model}response": given})
    for response in RESPONSES:
        params = {f"{model}response": response, f"{model}amplitude_chi": AMPLITUDE_CHI}
        trials.try_out("response", response, params)
    response = trials.value(f"{model}response")
    if isinstance(response, NoCharges):
        return
    trials.climb(f"{model}amplitude_chi", NOISE_FACTOR)
    for r_cut in CUTOFFS:
        trials.try_out("cutoffs of chi", r_cut, settings.cutoff("chi", r_cut))
    numbers = response.get_params()
    if numbers.get("softness") == 0.0:
        del numbers["range"]  # No charge flows over any distance.
    for name, factor in RESPONSE_FACTORS.items():
        if isinstance(numbers.get(name), Real) and numbers[name] > 0.0:
            trials.climb(f"{model}response__{name}", factor)
    for name in names:
        trials.climb(f"{model}sigma_{name}", NOISE_FACTOR)
