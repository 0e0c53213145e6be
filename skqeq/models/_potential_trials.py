"""The trials of a search for the settings of a potential."""

from __future__ import annotations

import time
import warnings
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from ..features import SOAPFeaturizer, StructureBlocks
from ..metrics import has_label, target_rmse
from ..response import ChargeFlow, NoCharges, QEq
from ..sparsify import CURSparsifier
from ..structures import collect
from ..targets import ENERGIES, TARGETS
from ._checks import labels_of_predictions
from ._functions import predict_for_scores
from ._gapkqeq import GAPKQEqRegressor
from ._settings_search import candidates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._typing import Array
    from ._potential_search import PotentialSearchCV

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
        self._begin = time.perf_counter()

    def descend(self, names: Sequence[str]) -> None:
        """Choose one setting after the other, for labels of these targets."""
        self._choose_local_energies([name for name in names if name in ENERGIES])
        self._choose_charges(names)

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
        """Try new values of some parameters; keep them if the score falls.

        Once the time is over, settings other than the first of a stage are not tried.
        """
        start, limit = time.perf_counter(), self.search.time_limit
        if limit is not None and start - self._begin >= limit and np.isfinite(self.best):
            self.search.complete_ = False
            return False
        # Their texts are compared, as values may be arrays or responses.
        if params and all(str(self.value(name)) == str(new) for name, new in params.items()):
            return False
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
            if np.isnan(errors).all():
                raise ValueError(
                    "no left-out structure can be predicted: in every fold, these structures have "
                    "no labels, or elements that the others lack; use other groups"
                )
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

    def _choose_local_energies(self, names):
        settings = self.settings
        self.begin(names)
        self.params[f"{settings.model}response"] = NoCharges()
        self.try_out("start", "as given", {})
        for r_cut in candidates(self.search.cutoffs, CUTOFFS):
            both = {**settings.cutoff("chi", r_cut), **settings.cutoff("gap", r_cut)}
            self.try_out("cutoffs", r_cut, both)
        for n_max, l_max in RESOLUTIONS:
            params = settings.soap("gap", n_max=n_max, l_max=l_max)
            self.try_out("n_max, l_max", (n_max, l_max), params)
        for sigma in GAUSSIANS:
            self.try_out("sigma_atom", sigma, settings.soap("gap", sigma_atom=sigma))
        for zeta in EXPONENTS:
            self.try_out("zeta", zeta, settings.kernel("gap", zeta=zeta))
        for name in names:
            self.climb(f"{settings.model}sigma_{name}", NOISE_FACTOR)

    def _choose_charges(self, names):
        model, given = self.settings.model, self.settings.pipeline[-1].checked_response()
        responses = candidates(self.search.responses, RESPONSES)
        wanted = len(responses) == 0 and not isinstance(given, NoCharges)
        if wanted or set(names) - set(ENERGIES):
            # The user wants charges, or labels need them.
            self.begin(names)
        if not isinstance(given, NoCharges):
            self.try_out("response", given, {f"{model}response": given})
        for response in responses:
            params = {f"{model}response": response, f"{model}amplitude_chi": AMPLITUDE_CHI}
            self.try_out("response", response, params)
        response = self.value(f"{model}response")
        if not isinstance(response, NoCharges):
            self._choose_settings_of_charges(response, names)

    def _choose_settings_of_charges(self, response, names):
        model = self.settings.model
        self.climb(f"{model}amplitude_chi", NOISE_FACTOR)
        for r_cut in candidates(self.search.cutoffs, CUTOFFS):
            self.try_out("cutoffs of chi", r_cut, self.settings.cutoff("chi", r_cut))
        numbers = response.get_params()
        if numbers.get("softness") == 0.0:
            del numbers["range"]  # No charge flows over any distance.
        for name, factor in RESPONSE_FACTORS.items():
            if isinstance(numbers.get(name), Real) and numbers[name] > 0.0:
                self.climb(f"{model}response__{name}", factor)
        for name in names:
            self.climb(f"{model}sigma_{name}", NOISE_FACTOR)
