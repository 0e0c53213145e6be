"""Choose the settings of a model of charges and dipoles."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline, make_pipeline
from tqdm import tqdm

from .._sklearn import Interval, StrOptions
from ..features import SOAPFeaturizer
from ..response import ChargeFlow
from ..sparsify import CURSparsifier
from ..structures import collect
from ..targets import Labels
from ._charge_trials import ChargeTrial, Sample, Settings, Trials, rows_of_structures
from ._checks import check_defined
from ._kqeq import KQEqRegressor
from ._settings_search import SettingsSearch, group_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from .._typing import LabelsLike, StructuresLike
    from ..response import Response


class ChargeSearchCV(SettingsSearch):
    """Choose the settings of a model of charges and dipoles by their left-out errors.

    All amplitudes and the noise are optimised together, by their derivatives: the amplitude of
    every column block of the descriptor in every latent field, those of the constants and of
    atomic dipoles, and the noise of every target. The error of left-out structures is known exactly
    without fitting again, and so are its derivatives. Settings that have no derivative are chosen
    one after the other: the charge response, its parameters, the cutoffs and the exponent of the
    kernel. Each is tried on a part of the structures, with optimised amplitudes and noise. The
    model with the chosen settings is then fitted to all structures.

    Parameters
    ----------
    estimator : Pipeline, default=None
        The start of the search: a pipeline of `SOAPFeaturizer`, `CURSparsifier` and
        `KQEqRegressor`. For atomic dipoles, the first step is `StructureBlocks` with the blocks
        ``"chi"``, a pipeline of the first two, and ``"dipole"``, a `VectorSOAPFeaturizer`, whose
        cutoffs remain. Other parameters, such as the number of sparse points, remain. None means
        cutoffs of 1.7 and 3.5 Angstrom, 1000 sparse points per element, and `ChargeFlow`.
    responses : sequence of responses, default=None
        Charge responses to try. The parameters of the best one are then varied. None means `QEq`
        and `ChargeFlow`, each with usual widths of the charges. An empty sequence keeps the
        response of the estimator, and varies its parameters.
    cutoffs : sequence of float or tuple of float, default=None
        Cutoffs to try, Angstrom. None means five usual choices; an empty sequence keeps those of
        the estimator.
    optimize : {"loo", "evidence"}, default="loo"
        Which function is minimised. "loo" is the error of left-out structures, or of left-out
        groups. "evidence" is the negative logarithm of the probability of the labels.
    size_weight : float, default=0.5
        With "loo", the part of the score that comes from predictions for structures of other sizes
        than those of the training: four classes by number of atoms are left out one after the
        other. With zero, only the errors for similar structures count; the settings are then often
        worse for other kinds of structures. If all structures have the same size, it is zero.
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
        Time for the search, s. After 60 % of it, no further setting is tried; the last optimisation
        of the amplitudes takes the rest. At least one setting is tried, so that a search can take
        longer than a very short limit. The fit with the chosen settings is not included. None
        means that the search takes the time it needs.
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
    complete_ : bool
        Whether all settings were tried before the time was over.
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
        "responses": ["array-like", None],
        "cutoffs": ["array-like", None],
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
        responses: Sequence[Response] | None = None,
        cutoffs: Sequence[float | tuple[float, ...]] | None = None,
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
        self.responses = responses
        self.cutoffs = cutoffs
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
            If labels of another target are given, if all structures are in one group, or if the
            estimator is not a pipeline as described above.
        """
        self._validate_params()
        structures: list[Any] = list(X)  # type: ignore[arg-type]  # any sequence is iterable
        labels = Labels(y, collect(structures))
        check_defined(labels, collect(structures))
        ids = group_numbers(groups, len(structures))
        if ids.max() == 0:
            raise ValueError(
                "a search leaves out groups of structures, but there is only one group"
            )
        start = default_charge_model() if self.estimator is None else self.estimator
        settings = Settings(start)
        self.trials_: list[ChargeTrial] = []
        self.complete_ = True
        order = np.random.default_rng(self.random_state).permutation(ids.max() + 1)
        n_rows = np.bincount(ids, rows_of_structures(labels, len(structures)))[order]

        def sample(rows):
            chosen = order[: 1 + np.searchsorted(np.cumsum(n_rows), rows)]
            index = np.flatnonzero(np.isin(ids, chosen))
            return Sample([structures[i] for i in index], labels.table[index], ids[index])

        with tqdm(desc="settings", unit="trial", disable=not self.verbose, leave=False) as bar:
            trials = Trials(self, settings, sample(self.trial_rows), bar)
            trials.descend()
            trials.finish(sample(self.final_rows))
        self.best_params_, self.best_score_ = trials.params, trials.best
        self.best_estimator_ = clone(start).set_params(**trials.params)
        if self.refit:
            self.best_estimator_.fit(structures, y)
        return self


def default_charge_model() -> Pipeline:
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
