"""Choose the settings of a potential by cross-validation of small models."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, check_cv
from sklearn.pipeline import Pipeline, make_pipeline
from tqdm import tqdm

from .._sklearn import Interval
from ..features import SOAPFeaturizer, StructureBlocks
from ..response import NoCharges
from ..sparsify import CURSparsifier
from ..structures import collect
from ..targets import ENERGIES, Labels
from ._checks import check_defined
from ._gapkqeq import GAPKQEqRegressor
from ._potential_trials import Settings, Trial, Trials
from ._settings_search import SettingsSearch, group_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike
    from sklearn.model_selection import BaseCrossValidator

    from .._typing import LabelsLike, StructuresLike
    from ..response import Response


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
    responses : sequence of responses, default=None
        Charge responses to try. The parameters of the best one are then varied. None means six
        usual ones. An empty sequence keeps the response of the estimator, and varies its
        parameters; with `NoCharges`, the search chooses local energies alone.
    cutoffs : sequence of float or tuple of two floats, default=None
        Cutoffs to try, Angstrom. None means four usual choices; an empty sequence keeps those of
        the estimator.
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
    time_limit : float, default=None
        After this time, s, no further setting is tried. At least one is tried in each stage that
        the labels need, so that a search can take longer than a very short limit. The fit with the
        chosen settings is not included. None means that the search takes the time it needs.
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
    complete_ : bool
        Whether all settings were tried before the time was over.
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
        "responses": ["array-like", None],
        "cutoffs": ["array-like", None],
        "cv": ["cv_object"],
        "trial_points": [Interval(Integral, 1, None, closed="left")],
        "trial_atoms": [Interval(Integral, 1, None, closed="left")],
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
        cutoffs: Sequence[float | tuple[float, float]] | None = None,
        cv: int | BaseCrossValidator | Iterable[tuple[Any, Any]] = 5,
        trial_points: int = 100,
        trial_atoms: int = 3000,
        min_gain: float = 0.01,
        time_limit: float | None = None,
        refit: bool = True,
        random_state: int = 0,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.responses = responses
        self.cutoffs = cutoffs
        self.cv = cv
        self.trial_points = trial_points
        self.trial_atoms = trial_atoms
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
        self.complete_ = True
        trials = Trials(self, settings, [structures[i] for i in index], labels.table[index], folds)
        with tqdm(desc="potential", unit="trial", disable=not self.verbose, leave=False) as bar:
            trials.bar = bar
            trials.descend(labels.names)
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
