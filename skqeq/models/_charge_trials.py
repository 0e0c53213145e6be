"""The trials of a search for the settings of a model of charges and dipoles."""

from __future__ import annotations

import time
import warnings
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline, make_pipeline

from ..features import SOAPFeaturizer, StructureBlocks, VectorSOAPFeaturizer
from ..response import ChargeFlow, QEq
from ..sparsify import CURSparsifier
from ..structures import StructureFeatures
from ._atomic_dipoles import DIPOLE
from ._kernel_matrices import kernel_matrices
from ._kqeq import KQEqRegressor
from ._left_out import Covariance, LeftOutError, NegativeEvidence, optimise
from ._settings_search import candidates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tqdm import tqdm

    from .._typing import Array
    from ..targets import Labels
    from ._charge_search import ChargeSearchCV

# Part of the time limit for the choice of settings; the last optimisation takes the rest.
TRIAL_SHARE = 0.6
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
# Start of amplitudes that are zero, whose logarithm does not exist; V or e.
SMALLEST_AMPLITUDE = 1e-3
# The pipeline that the search takes; a VectorSOAPFeaturizer can be added.
STEPS = [SOAPFeaturizer, CURSparsifier, KQEqRegressor]
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
        The same if all structures of similar size are left out together; empty if all structures
        have the same size.
    kept : bool
        Whether these settings are better than all before.
    seconds : float
        Time of the trial.
    """

    step: str
    value: Any
    score: float
    errors: dict[str, float]
    errors_by_size: dict[str, float]
    kept: bool
    seconds: float


def rows_of_structures(labels: Labels, n: int) -> Array:
    """Number of known labels of every structure.

    Parameters
    ----------
    labels : Labels
        Labels of n structures.
    n : int
        Number of structures.

    Returns
    -------
    rows : ndarray of shape (n,)
        Every component of a dipole counts as a label.
    """
    rows = np.zeros(n)
    for name in labels.names:
        for i in range(n):
            values = labels.values(name, i)
            rows[i] += 0 if values is None else np.count_nonzero(~np.isnan(values))
    return rows


class Sample(NamedTuple):
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

    def partitions(self, size_weight: float) -> list[tuple[Array, float]]:
        """Folds by group, and folds by size, with their weights in the score.

        Structures that all have the same size have no folds by size.
        """
        sizes = np.array([len(atoms) for atoms in self.X])
        edges = np.quantile(sizes, np.arange(1, SIZE_CLASSES) / SIZE_CLASSES)
        by_size = np.searchsorted(edges, sizes)
        if by_size.max() == by_size.min():
            return [(self.groups, 1.0)]
        return [(self.groups, 1.0 - size_weight), (by_size, size_weight)]


class Settings:
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

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        found = _find_steps(pipeline)
        if [type(step) for step in found.values()] not in (STEPS, [*STEPS, VectorSOAPFeaturizer]):
            raise ValueError(
                "ChargeSearchCV needs a pipeline of SOAPFeaturizer, CURSparsifier and "
                "KQEqRegressor, whose first two steps can also be the pipeline 'chi' in "
                "StructureBlocks, beside the VectorSOAPFeaturizer 'dipole'; got "
                f"{', '.join(type(step).__name__ for step in found.values())}"
            )
        self.soap, self.sparse, self.model, *vectors = (f"{name}__" for name in found)
        self.vectors = vectors[0] if vectors else None

    def steps(self, pipeline: Pipeline) -> list[Any]:
        """Featurizer, sparsifier and model of a pipeline; then the vectors, or None."""
        found = list(_find_steps(pipeline).values())
        return found if len(found) == 4 else [*found, None]

    def logs(self, pipeline: Pipeline, terms: Sequence[Any], names: Sequence[str]) -> Array:
        """Logarithms of the amplitudes of all terms, and of the noise of all targets."""
        _, sparsifier, regressor, vectors = self.steps(pipeline)
        response = regressor.checked_response()
        amplitudes = []
        for field, block in terms:
            amplitude, baseline = regressor.amplitude_chi, regressor.amplitude_baseline
            weights = sparsifier.block_weights
            if field == DIPOLE:
                amplitude, weights = regressor.amplitude_dipole, vectors.block_weights
            elif field != "chi":
                amplitude, baseline = response.prior(field)[:2]
            if isinstance(weights, dict):
                weights = weights.get(field)
            n_blocks = 1 + max(b for other, b in terms if other == field and b is not None)
            if weights is None or len(weights) != n_blocks:
                weights = np.ones(n_blocks)
            part = 1.0 if block is None else weights[block] / np.sum(weights)
            value = baseline if block is None else amplitude * np.sqrt(part)
            amplitudes.append(max(value, SMALLEST_AMPLITUDE))
        noise = [getattr(regressor, f"sigma_{name}") for name in names]
        return np.log([*amplitudes, *noise])

    def prior_centre(self, pipeline: Pipeline, terms: Sequence[Any], names: Sequence[str]) -> Array:
        """Logarithms for the user's pipeline, with a response of the type that `pipeline` has.

        The response has its default amplitudes.
        """
        given = clone(self.pipeline)
        response = self.steps(pipeline)[2].checked_response()
        given.set_params(**{f"{self.model}response": type(response)()})
        return self.logs(given, terms, names)

    def params(
        self, pipeline: Pipeline, terms: Sequence[Any], names: Sequence[str], logs: Array
    ) -> dict[str, Any]:
        """The parameters of the pipeline for such logarithms."""
        values = np.exp(logs)
        by_field: dict[str, dict[Any, float]] = {}
        for (field, block), value in zip(terms, values, strict=False):
            by_field.setdefault(field, {})[block] = float(value)
        params: dict[str, Any] = {}
        weights: dict[str, tuple[float, ...]] = {}
        response = clone(self.steps(pipeline)[2].checked_response())
        for field, amplitudes in by_field.items():
            baseline = amplitudes.pop(None, None)
            squares = np.square([amplitudes[b] for b in range(len(amplitudes))])
            squares[squares < SMALLEST_WEIGHT * squares.sum()] = 0.0
            weights[field] = tuple((squares / squares.sum()).tolist())
            total = float(np.sqrt(squares.sum()))
            if field == DIPOLE:
                params[f"{self.model}amplitude_dipole"] = total
                params[f"{self.vectors}block_weights"] = weights.pop(field)
            elif field == "chi":
                params[f"{self.model}amplitude_chi"] = total
                if baseline is not None:
                    params[f"{self.model}amplitude_baseline"] = baseline
            else:
                of_amplitude, of_constants = response.prior_parameters[field]
                response.set_params(**{of_amplitude: total})
                if baseline is not None:
                    response.set_params(**{of_constants: baseline})
        several = len(weights["chi"]) > 1
        params[f"{self.sparse}block_weights"] = weights if several else None
        params[f"{self.model}response"] = response
        for name, value in zip(names, values[len(terms) :].tolist(), strict=True):
            params[f"{self.model}sigma_{name}"] = value
        return params


class Trials:
    """Compares settings on a sample, and remembers the best ones.

    Parameters
    ----------
    search : ChargeSearchCV
        Its parameters, and the list of trials.
    settings : Settings
        The pipeline.
    sample : Sample
        Structures on which settings are compared.
    bar : tqdm
        The progress bar.
    """

    def __init__(
        self, search: ChargeSearchCV, settings: Settings, sample: Sample, bar: tqdm
    ) -> None:
        self.search, self.settings, self.sample, self.bar = search, settings, sample, bar
        self.params: dict[str, Any] = {}
        self.best = np.inf
        self._features: dict[str, Any] = {}
        self._begin = time.perf_counter()
        self._limit = np.inf if search.time_limit is None else search.time_limit

    def descend(self) -> None:
        """Choose one setting after the other."""
        settings = self.settings
        of_response = f"{settings.model}response"
        self.try_out("start", "as given", {})
        given = str(settings.steps(settings.pipeline)[2].checked_response())
        for response in candidates(self.search.responses, RESPONSES):
            if str(response) != given:
                self.try_out("response", response, {of_response: response})
        self._climb(of_response)
        for cutoff in candidates(self.search.cutoffs, CUTOFFS):
            if cutoff != self._steps({})[0].r_cut:
                changed = {f"{settings.soap}r_cut": cutoff, f"{settings.sparse}block_weights": None}
                self.try_out("cutoffs", cutoff, changed)
        for zeta in EXPONENTS:
            if zeta != self._steps({})[1].zeta:
                self.try_out("zeta", zeta, {f"{settings.sparse}zeta": zeta})
        self._climb(of_response)

    def _climb(self, of_response):
        """Change the parameters of the response as long as the score falls."""
        for name, factor in RESPONSE_FACTORS.items():
            for direction in (factor, 1.0 / factor):
                moved = False
                for _ in range(MAX_STEPS):
                    response = clone(self._steps({})[2].checked_response())
                    value = response.get_params().get(name)
                    if not isinstance(value, Real) or value == 0.0:
                        break  # this response lacks it, or has a value for each element
                    response.set_params(**{name: value * direction})
                    if not self.try_out(name, value * direction, {of_response: response}):
                        break
                    moved = True
                if moved:
                    break

    def try_out(self, step: str, value: Any, changed: dict[str, Any]) -> bool:
        """Try new values of some parameters; keep them if the score falls.

        Once the time is over, settings other than the first are not tried.
        """
        if self.search.trials_ and self._elapsed() >= TRIAL_SHARE * self._limit:
            self.search.complete_ = False
            return False
        params, trial = self._trial(
            self.sample, step, value, changed, TRIAL_STEPS, self.search.trial_points
        )
        better = trial.score < self.best - self.search.min_gain
        if better:
            self.params, self.best = params, trial.score
        self.search.trials_.append(trial._replace(kept=better))
        self.bar.update()
        self.bar.set_postfix_str(f"{step}, best score {self.best:.3f}")
        return better

    def finish(self, sample: Sample) -> None:
        """Optimise amplitudes and noise for the chosen settings with more structures."""
        self._features = {}
        n_points = self.settings.steps(self.settings.pipeline)[1].n_points
        step = "amplitudes and noise"
        self.bar.set_postfix_str(step)
        self.params, trial = self._trial(sample, step, None, {}, FINAL_STEPS, n_points)
        self.search.trials_.append(trial)
        self.best = trial.score

    def _elapsed(self):
        return time.perf_counter() - self._begin

    def _pipeline(self, changed):
        return clone(self.settings.pipeline).set_params(**{**self.params, **changed})

    def _steps(self, changed):
        return self.settings.steps(self._pipeline(changed))

    def _trial(self, sample, step, value, changed, n_steps, n_points):
        """Optimise the amplitudes for some settings; return all parameters, and the trial."""
        begin, settings = self._elapsed(), self.settings
        pipeline = self._pipeline(changed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bad settings, and of few points
            features = self._made(pipeline, sample, n_points)
            data = kernel_matrices(settings.steps(pipeline)[2], features, sample.y)
            start = settings.logs(pipeline, data.terms, data.names)
            centre = settings.prior_centre(pipeline, data.terms, data.names)
            left_out = LeftOutError(data, sample.partitions(self.search.size_weight))
            of_evidence = self.search.optimize == "evidence"
            objective = NegativeEvidence(data) if of_evidence else left_out
            left = self._limit - self._elapsed()
            logs, score = optimise(objective, data, start, centre, PRIOR_WIDTH, n_steps, left)
        similar, *by_size = left_out.errors(Covariance(data, logs))
        seconds = self._elapsed() - begin
        trial = ChargeTrial(step, value, score, similar, *(by_size or [{}]), True, seconds)
        best = settings.params(pipeline, data.terms, data.names, logs)
        return {**self.params, **changed, **best}, trial

    def _made(self, pipeline, sample, n_points):
        """Features of the sample; those of the last settings are stored."""
        soap, sparsifier, _, vectors = self.settings.steps(pipeline)
        n_points = min(n_points, sparsifier.n_points)
        sparsifier = clone(sparsifier).set_params(n_points=n_points, block_weights=None)
        kernels = self._stored("chi", make_pipeline(clone(soap), sparsifier), sample)
        if vectors is None:
            return kernels
        alike = clone(vectors).set_params(block_weights=None)
        parts = {"chi": kernels, DIPOLE: self._stored(DIPOLE, alike, sample)}
        return StructureFeatures.stacked(parts)

    def _stored(self, name, transformer, sample):
        key = repr(transformer.get_params())
        if self._features.get(name, (None,))[0] != key:
            self._features[name] = key, transformer.fit_transform(sample.X)
        return self._features[name][1]


def _find_steps(pipeline):
    """Featurizer, sparsifier and model of a pipeline, and its vectors, by the names of parameters.

    The result has other steps if the pipeline does.
    """
    found = dict(pipeline.steps)
    blocks = next((x for x in found.items() if isinstance(x[1], StructureBlocks)), None)
    if blocks is None:
        return found
    name, union = blocks
    parts = dict(union.transformer_list)
    if set(parts) != {"chi", DIPOLE} or not isinstance(parts["chi"], Pipeline):
        return found
    del found[name]
    inside = {f"{name}__chi__{step}": x for step, x in parts["chi"].steps}
    return {**inside, **found, f"{name}__{DIPOLE}": parts[DIPOLE]}
