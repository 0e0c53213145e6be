"""Choose the settings of a model of charges and dipoles."""

from __future__ import annotations

import time
import warnings
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from .._sklearn import Interval, StrOptions
from ..features import SOAPFeaturizer
from ..persistence import Persistent
from ..response import ChargeFlow, QEq
from ..sparsify import CURSparsifier
from ..structures import collect
from ..targets import Labels
from ._checks import check_defined
from ._kernel_matrices import kernel_matrices
from ._kqeq import KQEqRegressor
from ._left_out import Covariance, LeftOutError, NegativeEvidence, optimise

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .._typing import Array, LabelsLike, StructuresLike

# Charge responses, and factors by which their parameters are multiplied or divided as long as that
# lowers the score.
RESPONSES = (
    QEq(radius_scale=0.2),
    ChargeFlow(radius_scale=0.35),
    ChargeFlow(radius_scale=0.6),
)
RESPONSE_FACTORS = {"radius_scale": 1.4, "softness": 2.0, "range": 1.4}
# Cutoffs, Angstrom.
CUTOFFS = ((1.7, 3.5), (2.0, 4.5), (1.5, 3.0), (1.7, 2.5, 3.5), 3.5)
EXPONENTS = (2, 1, 3)
# Largest number of steps with one parameter in one direction.
MAX_STEPS = 4
# Numbers of gradient steps for one setting, and at the end.
TRIAL_STEPS, FINAL_STEPS = 12, 60
# A parameter that differs from its first value by a factor of twenty must lower the errors by 4.5
# percent, half of the square of ``log(20) / PRIOR_WIDTH``.
PRIOR_WIDTH = 10.0
# Column blocks with a smaller part of the variance of a field are left out.
SMALLEST_WEIGHT = 1e-6
# Number of classes in which structures are left out by size.
SIZE_CLASSES = 4


class ChargeTrial(NamedTuple):
    """One setting that was compared with others.

    Attributes
    ----------
    step : str
        The setting that was being chosen.
    value : object
        The value that was tried.
    score : float
        The score; the lowest is the best.
    errors : dict of {str: float}
        Mean norm of the errors of left-out structures for every target, in its unit.
    errors_by_size : dict of {str: float}
        The same if all structures of similar size are left out together.
    seconds : float
        Time of the trial.
    """

    step: str
    value: Any
    score: float
    errors: dict[str, float]
    errors_by_size: dict[str, float]
    seconds: float


class ChargeSearchCV(Persistent, MetaEstimatorMixin, RegressorMixin, BaseEstimator):
    """Choose the settings of a model of charges and dipoles by their left-out errors.

    All amplitudes and the noise are optimised together, by their derivatives: the amplitude of
    every column block of the descriptor in every latent field, those of the constants, and the
    noise of every target. The error of left-out structures is known exactly without fitting again,
    and so are its derivatives. Settings that have no derivative are chosen one after the other:
    the charge response, its parameters, the cutoffs and the exponent of the kernel. Each is tried
    on a part of the structures, with optimised amplitudes and noise. The model with the chosen
    settings is then fitted to all structures.

    Parameters
    ----------
    estimator : Pipeline, default=None
        The start of the search: a pipeline of `SOAPFeaturizer`, `CURSparsifier` and
        `KQEqRegressor`. Other parameters, such as the number of sparse points, remain. None means
        cutoffs of 1.7 and 3.5 Angstrom, 1000 sparse points per element, and `ChargeFlow`.
    optimize : {"loo", "evidence"}, default="loo"
        Which function is minimised. "loo" is the error of left-out structures, or of left-out
        groups. "evidence" is the negative logarithm of the probability of the labels.
    size_weight : float, default=0.5
        With "loo", the part of the score that comes from predictions for structures of other sizes
        than those of the training: four classes by number of atoms are left out one after the
        other. With zero, only the errors for similar structures count; the settings are then often
        worse for other kinds of structures.
    trial_rows : int, default=1000
        Approximate number of labels with which settings without a derivative are compared, where
        a dipole has three labels. Whole groups are drawn at random.
    final_rows : int, default=4000
        The same for the last optimisation of the amplitudes. Time and memory grow with its third
        and second power.
    trial_points : int, default=300
        Largest number of sparse points per element in trials.
    min_gain : float, default=0.01
        A setting is changed if the score falls by more than this number: 0.01 means that the errors
        fall by one percent.
    time_limit : float, default=None
        After this time, s, no further setting is tried; the last optimisation follows. None means
        that the search takes the time it needs.
    refit : bool, default=True
        Whether to fit the model with the chosen settings to all structures.
    random_state : int, default=0
        Seed of the choice of structures.
    verbose : int, default=0
        If above 0, a progress bar shows the setting that is being chosen, and the best score.

    Attributes
    ----------
    best_estimator_ : Pipeline
        The model with the chosen settings; fitted to all structures if `refit` is True.
    best_params_ : dict of {str: object}
        The chosen settings as parameters of the pipeline.
    best_score_ : float
        Their score; the lowest is the best. With "loo", it is the mean over the targets of the
        logarithm of the mean error.
    trials_ : list of ChargeTrial
        All settings that were tried; the last one is the final optimisation. An interrupted search
        keeps those that were finished.

    See Also
    --------
    KQEqRegressorCV : Chooses the noise of a model alone.
    PotentialSearchCV : Chooses the settings of a fit to energies and forces.

    References
    ----------
    Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), sections 5.4.1, 5.4.2.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import ChargeSearchCV, CURSparsifier, KQEqRegressor, SOAPFeaturizer
    >>> from skqeq.datasets import load_molecules
    >>> X, y, groups = load_molecules(return_groups=True)
    >>> model = make_pipeline(
    ...     SOAPFeaturizer(r_cut=(2.0, 3.5), n_max=3, l_max=2),
    ...     CURSparsifier(n_points=10),
    ...     KQEqRegressor(),
    ... )
    >>> search = ChargeSearchCV(model, trial_rows=60, final_rows=90, refit=False)
    >>> search = search.fit(X[:40], y["dipole"][:40], groups=groups[:40])
    >>> bool(search.best_score_ <= search.trials_[0].score)
    True
    """

    _parameter_constraints = {
        "estimator": [Pipeline, None],
        "optimize": [StrOptions({"loo", "evidence"})],
        "size_weight": [Interval(Real, 0.0, 1.0, closed="both")],
        "trial_rows": [Interval(Integral, 10, None, closed="left")],
        "final_rows": [Interval(Integral, 10, None, closed="left")],
        "trial_points": [Interval(Integral, 1, None, closed="left")],
        "min_gain": [Interval(Real, 0.0, None, closed="left")],
        "time_limit": [Interval(Real, 0.0, None, closed="left"), None],
        "refit": ["boolean"],
        "random_state": [Integral],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator: Pipeline | None = None,
        *,
        optimize: Literal["loo", "evidence"] = "loo",
        size_weight: float = 0.5,
        trial_rows: int = 1000,
        final_rows: int = 4000,
        trial_points: int = 300,
        min_gain: float = 0.01,
        time_limit: float | None = None,
        refit: bool = True,
        random_state: int = 0,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.optimize = optimize
        self.size_weight = size_weight
        self.trial_rows = trial_rows
        self.final_rows = final_rows
        self.trial_points = trial_points
        self.min_gain = min_gain
        self.time_limit = time_limit
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
            Targets that are linear in the charges: dipole, charges, quadrupole or potential.
        groups : array-like of shape (n,), default=None
            Structures of one group, such as conformers of one molecule, are left out together.

        Returns
        -------
        self : estimator
            With the chosen settings.

        Raises
        ------
        ValueError
            If labels of another target are given, or if the estimator is not a pipeline as
            described above.
        """
        self._validate_params()
        structures: list[Any] = list(X)  # type: ignore[arg-type]  # any sequence is iterable
        labels = Labels(y, collect(structures))
        check_defined(labels, collect(structures))
        ids = np.arange(len(structures))
        if groups is not None:
            ids = np.unique(groups, return_inverse=True)[1].ravel()
            if len(ids) != len(structures):
                raise ValueError(f"groups has {len(ids)} entries for {len(structures)} structures")
        start = default_model() if self.estimator is None else self.estimator
        settings = _Settings(start)
        self.trials_: list[ChargeTrial] = []
        order = np.random.default_rng(self.random_state).permutation(ids.max() + 1)
        n_rows = np.bincount(ids, _rows_of_structures(labels, len(structures)))[order]

        def sample(rows):
            chosen = order[: 1 + np.searchsorted(np.cumsum(n_rows), rows)]
            index = np.flatnonzero(np.isin(ids, chosen))
            return _Sample([structures[i] for i in index], labels.table[index], ids[index])

        with tqdm(desc="settings", unit="trial", disable=not self.verbose, leave=False) as bar:
            trials = _Trials(self, settings, sample(self.trial_rows), bar)
            trials.descend()
            trials.finish(sample(self.final_rows))
        self.best_params_, self.best_score_ = trials.params, trials.best
        self.best_estimator_ = clone(start).set_params(**trials.params)
        if self.refit:
            self.best_estimator_.fit(structures, y)
        return self

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


def default_model() -> Pipeline:
    """The pipeline from which a search starts.

    Returns
    -------
    pipeline : Pipeline
        Not fitted.
    """
    return make_pipeline(
        SOAPFeaturizer(r_cut=(1.7, 3.5), n_max=8, l_max=6),
        CURSparsifier(n_points=1000),
        KQEqRegressor(response=ChargeFlow(radius_scale=0.35)),
    )


def _rows_of_structures(labels, n):
    """Number of known labels of every structure."""
    rows = np.zeros(n)
    for name in labels.names:
        for i in np.flatnonzero(labels.known(name)).tolist():
            rows[i] += np.count_nonzero(~np.isnan(labels.values(name, i)))
    return rows


class _Sample(NamedTuple):
    """Some of the structures.

    Attributes
    ----------
    X : list of ase.Atoms
        The structures.
    y : ndarray of shape (n,)
        Their labels.
    groups : ndarray of shape (n,)
        Their groups.
    """

    X: list[Any]
    y: Array
    groups: Array

    def partitions(self, size_weight):
        """Folds by group, and folds by size, with their weights in the score."""
        sizes = np.array([len(atoms) for atoms in self.X])
        edges = np.quantile(sizes, np.arange(1, SIZE_CLASSES) / SIZE_CLASSES)
        by_size = np.searchsorted(edges, sizes)
        return [(self.groups, 1.0 - size_weight), (by_size, size_weight)]


class _Settings:
    """The parameters of a pipeline that the search changes.

    Parameters
    ----------
    pipeline : Pipeline
        See `ChargeSearchCV`.

    Raises
    ------
    ValueError
        If the pipeline has other steps.
    """

    def __init__(self, pipeline):
        steps = [type(step) for _, step in pipeline.steps]
        if steps != [SOAPFeaturizer, CURSparsifier, KQEqRegressor]:
            raise ValueError(
                "ChargeSearchCV needs a pipeline of SOAPFeaturizer, CURSparsifier and "
                f"KQEqRegressor, got {', '.join(step.__name__ for step in steps)}"
            )
        self.pipeline = pipeline
        self.soap, self.sparse, self.model = (f"{name}__" for name, _ in pipeline.steps)

    def logs(self, pipeline, terms, names):
        """Logarithms of the amplitudes of all terms, and of the noise of all targets."""
        regressor, sparsifier = pipeline[2], pipeline[1]
        response = regressor._checked_response()
        n_blocks = 1 + max(b for _, b in terms if b is not None)
        amplitudes = []
        for field, block in terms:
            amplitude, baseline = regressor.amplitude_chi, regressor.amplitude_baseline
            if field != "chi":
                amplitude, baseline = response.prior(field)[:2]
            weights = sparsifier.block_weights
            if isinstance(weights, dict):
                weights = weights.get(field)
            if weights is None or len(weights) != n_blocks:
                weights = np.ones(n_blocks)
            part = 1.0 if block is None else weights[block] / np.sum(weights)
            value = baseline if block is None else amplitude * np.sqrt(part)
            amplitudes.append(max(value, 1e-3))
        noise = [getattr(regressor, f"sigma_{name}") for name in names]
        return np.log([*amplitudes, *noise])

    def prior_centre(self, pipeline, terms, names):
        """Logarithms for the user's pipeline, with a response of the type that `pipeline` has.

        The response has its default amplitudes.
        """
        given = clone(self.pipeline)
        given[2].set_params(response=type(pipeline[2]._checked_response())())
        return self.logs(given, terms, names)

    def params(self, pipeline, terms, names, logs):
        """The parameters of the pipeline for such logarithms."""
        values = np.exp(logs)
        by_field: dict[str, dict[Any, float]] = {}
        for (field, block), value in zip(terms, values, strict=False):
            by_field.setdefault(field, {})[block] = float(value)
        params, weights = {}, {}
        response = clone(pipeline[2]._checked_response())
        for field, amplitudes in by_field.items():
            baseline = amplitudes.pop(None, None)
            squares = np.square([amplitudes[b] for b in range(len(amplitudes))])
            squares[squares < SMALLEST_WEIGHT * squares.sum()] = 0.0
            weights[field] = tuple((squares / squares.sum()).tolist())
            total = float(np.sqrt(squares.sum()))
            if field == "chi":
                params[f"{self.model}amplitude_chi"] = total
                if baseline is not None:
                    params[f"{self.model}amplitude_baseline"] = baseline
            else:
                of_amplitude, of_constants = response.prior_parameters[field]
                response.set_params(**{of_amplitude: total})
                if baseline is not None:
                    response.set_params(**{of_constants: baseline})
        several = len(next(iter(weights.values()))) > 1
        params[f"{self.sparse}block_weights"] = weights if several else None
        params[f"{self.model}response"] = response
        for name, value in zip(names, values[len(terms) :].tolist(), strict=True):
            params[f"{self.model}sigma_{name}"] = value
        return params


class _Trials:
    """Compares settings on a sample, and remembers the best ones.

    Parameters
    ----------
    search : ChargeSearchCV
        Its parameters, and the list of trials.
    settings : _Settings
        The pipeline.
    sample : _Sample
        Structures on which settings are compared.
    bar : tqdm
        The progress bar.
    """

    def __init__(self, search, settings, sample, bar):
        self.search, self.settings, self.sample, self.bar = search, settings, sample, bar
        self.params: dict[str, Any] = {}
        self.best = np.inf
        self._features: dict[str, Any] = {}
        self._begin = time.perf_counter()

    def descend(self):
        """Choose one setting after the other."""
        settings = self.settings
        of_response = f"{settings.model}response"
        self.try_out("start", "as given", {})
        for response in RESPONSES:
            self.try_out("response", response, {of_response: response})
        self._climb(of_response)
        for cutoff in CUTOFFS:
            changed = {f"{settings.soap}r_cut": cutoff, f"{settings.sparse}block_weights": None}
            self.try_out("cutoffs", cutoff, changed)
        for zeta in EXPONENTS:
            self.try_out("zeta", zeta, {f"{settings.sparse}zeta": zeta})
        self._climb(of_response)

    def _climb(self, of_response):
        """Change the parameters of the response as long as the score falls."""
        for name, factor in RESPONSE_FACTORS.items():
            for direction in (factor, 1.0 / factor):
                moved = False
                for _ in range(MAX_STEPS):
                    response = clone(self._pipeline({})[2]._checked_response())
                    value = response.get_params().get(name)
                    if not isinstance(value, Real) or value == 0.0:
                        return
                    response.set_params(**{name: value * direction})
                    if not self.try_out(name, value * direction, {of_response: response}):
                        break
                    moved = True
                if moved:
                    break

    def try_out(self, step, value, changed):
        """Try new values of some parameters; keep them if the score falls.

        Once the time is over, settings other than the first are not tried.
        """
        limit, elapsed = self.search.time_limit, time.perf_counter() - self._begin
        if limit is not None and elapsed > limit and self.search.trials_:
            return False
        trial = self._trial(
            self.sample, step, value, changed, TRIAL_STEPS, self.search.trial_points
        )
        score = self.search.trials_[-1].score
        better = score < self.best - self.search.min_gain
        if better:
            self.params, self.best = trial, score
        self.bar.update()
        self.bar.set_postfix_str(f"{step}, best score {self.best:.3f}")
        return better

    def finish(self, sample):
        """Optimise amplitudes and noise for the chosen settings with more structures."""
        self._features = {}
        n_points = self.settings.pipeline[1].n_points
        self.params = self._trial(sample, "amplitudes and noise", None, {}, FINAL_STEPS, n_points)
        self.best = self.search.trials_[-1].score

    def _pipeline(self, changed):
        return clone(self.settings.pipeline).set_params(**{**self.params, **changed})

    def _trial(self, sample, step, value, changed, n_steps, n_points):
        """Optimise the amplitudes for some settings, and return all parameters."""
        begin, settings = time.perf_counter(), self.settings
        pipeline = self._pipeline(changed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bad settings, and of few points
            data = kernel_matrices(pipeline[2], self._made(pipeline, sample, n_points), sample.y)
            start = settings.logs(pipeline, data.terms, data.names)
            centre = settings.prior_centre(pipeline, data.terms, data.names)
            left_out = LeftOutError(data, sample.partitions(self.search.size_weight))
            of_evidence = self.search.optimize == "evidence"
            objective = NegativeEvidence(data) if of_evidence else left_out
            logs, score = optimise(objective, data, start, centre, PRIOR_WIDTH, n_steps)
        errors = left_out.errors(Covariance(data, logs))
        seconds = time.perf_counter() - begin
        self.search.trials_.append(ChargeTrial(step, value, score, *errors, seconds))
        best = settings.params(pipeline, data.terms, data.names, logs)
        return {**self.params, **changed, **best}

    def _made(self, pipeline, sample, n_points):
        """Features of the sample; those of the last settings are stored."""
        soap, sparsifier = pipeline[0], clone(pipeline[1])
        n_points = min(n_points, sparsifier.n_points)
        sparsifier.set_params(n_points=n_points, block_weights=None)
        key = repr((soap.get_params(), sparsifier.get_params()))
        if key not in self._features:
            features = make_pipeline(clone(soap), sparsifier).fit_transform(sample.X)
            self._features = {key: features}
        return self._features[key]
