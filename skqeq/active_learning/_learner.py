"""The loop of active learning: explore, select, label, fit."""

from __future__ import annotations

import logging
from numbers import Integral, Real
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Self

import joblib
import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_scalar
from tqdm import tqdm

from .._sklearn import HasMethods, Interval, StrOptions
from .._warnings import warn_once
from ..metrics import has_label
from ..models import unwrap
from ..structures import check_structures, collect, strip
from ..targets import (
    Labels,
    MissingLabelsError,
    free_energy,
    make_targets,
    targets_from_atoms,
)
from ._exploration import LangevinDynamics, one_line, run_trajectory
from ._selection import select_novel, select_uncertain
from ._store import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

    from .._typing import Model, PathType


# The public name, with which users configure log messages; this module is private.
LOGGER = logging.getLogger("skqeq.active_learning")
FREE_ENERGY = (
    "the energy of the reference is not its free energy, of which forces and stress are "
    "derivatives; pass a function as reference that returns the free energy as energy"
)
# Labels with a value for every atom.
PER_ATOM = ("charges", "forces")


class ActiveLearner(BaseEstimator):
    """Extend a data set with structures on which the model is uncertain, and fit the model again.

    Every round has four steps [1]_. The model of the previous round explores structures, by default
    by molecular dynamics. Some structures are selected from the trajectories. A reference
    calculation labels them. A new model is fitted to all data.

    The state of a run is stored in its directory, with one file for every trajectory, reference
    calculation and model; a file is never left half written. To resume a run that was killed, start
    it again with the same arguments. At most one trajectory, calculation or fit is repeated, and
    the final data are identical, bit for bit, to the data of an uninterrupted run.

    Parameters
    ----------
    model : estimator
        Pipeline of `SOAPFeaturizer`, `CURSparsifier` and a charge model; every round fits a clone
        of the pipeline.
    reference : ase calculator or callable
        Source of labels. A callable ``reference(atoms)`` returns a dict with a value for each of
        `targets`, in the units of `skqeq.make_targets`. If the reference raises an exception for a
        structure, this structure is left out.
    directory : str or path
        Directory of the run. Two processes cannot work in one directory.
    targets : sequence of str, default=("energy", "forces")
        Targets to which the model is fitted.
    explore : callable, default=None
        ``explore(atoms, rng)`` yields structures, such as snapshots of a trajectory. `atoms` is
        the first structure, with the model as its calculator; `rng` is a `numpy.random.Generator`
        and must be the only source of randomness. None means `LangevinDynamics` with its defaults.
        The calculator raises `ModelBreakdownError` if the model cannot be evaluated; this ends the
        trajectory. All other exceptions are passed on to the caller of `run`.
    method : {"variance", "cur"}, default="variance"
        Function that selects structures: `select_uncertain` ("variance") or `select_novel` ("cur").
    n_select : int, default=10
        Number of structures that a round labels.
    n_trajectories : int, default=5
        Number of trajectories in a round. Each starts from a random structure of the data.
    max_uncertainty : float, default=0.5
        A trajectory ends with the first structure whose `uncertainty` is larger than this value.
    min_distance : float, default=0.6
        A trajectory ends before the first structure in which two atoms are closer than this
        distance, in units of the sum of their covalent radii.
    random_state : int, default=0
        Seed of the random numbers.
    verbose : int, default=1
        If above 0, progress bars are shown.

    Attributes
    ----------
    model_ : estimator
        Model of the last round.
    data_ : list of ase.Atoms
        All labelled structures, with labels under the keys ``REF_energy``, ``REF_forces``, ... and
        the round in ``info["round"]``.

    References
    ----------
    .. [1] Vondrák, Reuter, Margraf, J. Chem. Phys. 159, 054109 (2023).

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from ase.build import molecule
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer
    >>> from skqeq.active_learning import ActiveLearner, LangevinDynamics
    >>> model = make_pipeline(
    ...     SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=1), CURSparsifier(n_points=2), KQEqRegressor()
    ... )
    >>> def reference(atoms):
    ...     return {"charges": [-0.7, 0.35, 0.35]}
    >>> water = [molecule("H2O") for _ in range(2)]
    >>> water[1].rattle(0.1, seed=0)
    >>> with TemporaryDirectory() as directory:
    ...     learner = ActiveLearner(
    ...         model, reference, directory, targets=["charges"], n_select=1, verbose=0,
    ...         explore=LangevinDynamics(n_steps=4, interval=2), n_trajectories=1,
    ...     ).run(water, n_rounds=1)
    >>> len(learner.data_)
    3
    """

    _parameter_constraints = {
        "model": [HasMethods("fit")],
        "reference": [HasMethods("get_property"), callable],
        "directory": [str, PathLike],
        "targets": ["array-like"],
        "explore": [callable, None],
        "method": [StrOptions({"variance", "cur"})],
        "n_select": [Interval(Integral, 1, None, closed="left")],
        "n_trajectories": [Interval(Integral, 1, None, closed="left")],
        "max_uncertainty": [Interval(Real, 0.0, None, closed="neither")],
        "min_distance": [Interval(Real, 0.0, None, closed="left")],
        "random_state": [Interval(Integral, 0, None, closed="left")],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        model: Model,
        reference: BaseCalculator | Callable[[Atoms], Mapping[str, Any]],
        directory: PathType,
        targets: Sequence[str] = ("energy", "forces"),
        explore: Callable[[Atoms, np.random.Generator], Iterable[Atoms]] | None = None,
        method: Literal["variance", "cur"] = "variance",
        n_select: int = 10,
        n_trajectories: int = 5,
        max_uncertainty: float = 0.5,
        min_distance: float = 0.6,
        random_state: int = 0,
        verbose: int = 1,
    ) -> None:
        self.model = model
        self.reference = reference
        self.directory = directory
        self.targets = targets
        self.explore = explore
        self.method = method
        self.n_select = n_select
        self.n_trajectories = n_trajectories
        self.max_uncertainty = max_uncertainty
        self.min_distance = min_distance
        self.random_state = random_state
        self.verbose = verbose

    def run(self, X: Sequence[Atoms], n_rounds: int) -> Self:
        """Start a run, resume it, or append rounds to it.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Initial structures. If a structure has labels of all targets (see
            `skqeq.targets_from_atoms`), they are used; otherwise the reference labels it.
        n_rounds : int
            Number of rounds, counted from the beginning of the run.

        Returns
        -------
        self : ActiveLearner
            The same object, with the attributes `model_` and `data_`.

        Raises
        ------
        ValueError
            If the directory holds a run with other parameters.
        RuntimeError
            If another process works in the directory, or if no trajectory or no reference
            calculation of a round succeeds.
        """
        self._validate_params()
        check_scalar(n_rounds, "n_rounds", Integral, min_val=0)
        with self._files.opened():
            self._files.check_parameters(self.get_params() | {"X": self._digest(X)})
            self._files.structures(0, "selected.xyz", self._first_structures, X)
            data: list[Atoms] = []
            for r in range(n_rounds + 1):
                data = data + self._files.structures(r, "data.xyz", self._label, r, data)
                self._fit(r, data)
        self.data_ = data
        self.model_ = self.load_model(n_rounds)
        return self

    def load_model(self, r: int) -> Any:
        """Load the model of round r from the directory of the run.

        Parameters
        ----------
        r : int
            Number of the round; 0 is the model that was fitted to the initial structures.

        Returns
        -------
        model : fitted estimator
            Fitted to the data of round r and of all earlier rounds.
        """
        return self._files.load_model(r)

    # The steps of a round call each other in reverse order: labelling calls the selection of
    # structures, and the selection calls the exploration. Only steps whose files are missing run.

    def _fit(self, r, data):
        """Fit the model of round r to all data collected so far."""
        if not self._files.has_model(r):
            y = targets_from_atoms(data, list(self.targets))
            self._files.save_model(r, clone(self.model).fit(data, y))
            LOGGER.info("round %d: fitted to %d structures", r, len(data))

    def _label(self, r, data):
        """Label the selected structures of round r, and leave out structures that fail."""
        selected = self._files.structures(r, "selected.xyz", self._select, r, data)
        results = []
        for i, atoms in enumerate(self._progress(selected, f"round {r}: reference")):
            if not self._is_labelled(atoms):
                name = f"reference_{i:03}.xyz"
                [atoms] = self._files.structures(r, name, self._calculate, atoms)
            results.append(atoms)
        labelled = [atoms for atoms in results if "failed" not in atoms.info]
        if not labelled:
            raise RuntimeError(
                f"all {len(results)} reference calculations of round {r} failed, the first with "
                f"{results[0].info['failed']}; to try again, remove the files reference_*.xyz "
                f"from {self._files.round_path(r)}"
            )
        return labelled

    def _calculate(self, atoms):
        """Label one structure with the reference; if this fails, store the reason in ``info``."""
        atoms = atoms.copy()
        try:
            labels = self._reference_labels(strip([atoms])[0])
        except Exception as error:  # electronic-structure programs fail in many ways
            atoms.info["failed"] = one_line(error)
            LOGGER.warning("a reference calculation failed: %s", atoms.info["failed"])
            return [atoms]
        return [with_labels(atoms, labels)]

    def _reference_labels(self, atoms):
        """Compute and check the labels of one structure."""
        if hasattr(self.reference, "get_property"):
            labels = {name: self.reference.get_property(name, atoms) for name in self.targets}
            free = free_energy(getattr(self.reference, "results", {}))
            derivatives = {"forces", "stress"} & labels.keys()
            if "energy" in labels and derivatives and free is not None:
                warn_once(FREE_ENERGY, "free energy")
        else:
            labels = self.reference(atoms)
        y = make_targets(**{name: [labels[name]] for name in self.targets})
        for name in self.targets:
            if y[name][0] is None or not np.isfinite(y[name][0]).all():
                raise ValueError(f"{name} = {labels[name]}")
        Labels(y, collect([atoms]))  # raises an error if the number of atoms differs
        return {name: y[name][0] for name in self.targets}

    def _select(self, r, data):
        """Select structures from the trajectories of round r."""
        candidates, reasons = [], []
        for k in self._progress(range(self.n_trajectories), f"round {r}: dynamics"):
            name = f"trajectory_{k:03}.xyz"
            trajectory = self._files.structures(r, name, self._run_trajectory, r, k, data)
            candidates += trajectory[1:]  # the first structure is already in the data
            reasons.append(trajectory[-1].info.get("stopped", "an exploration that yields nothing"))
        if not candidates:
            raise RuntimeError(
                f"no trajectory of round {r} has a usable structure; the first trajectory was "
                f"stopped because of {reasons[0]}; explore closer to the known structures, such as "
                "at a lower temperature, or begin with more structures"
            )
        transformer, _ = unwrap(self.load_model(r - 1))
        select = {"variance": select_uncertain, "cur": select_novel}[self.method]
        picked = select(transformer(data), transformer(candidates), self.n_select, self._rng(r, 0))
        LOGGER.info("round %d: %d of %d structures picked", r, len(picked), len(candidates))
        for i in picked:
            candidates[i].info["round"] = r
        return [candidates[i] for i in picked]

    def _run_trajectory(self, r, k, data):
        """Run trajectory k of round r, which starts from a random structure of the data."""
        rng = self._rng(r, 1 + k)
        [start] = strip([data[rng.integers(len(data))]])
        try:
            structures, stopped = run_trajectory(
                self.explore or LangevinDynamics(),
                self.load_model(r - 1),
                start,
                rng,
                min_distance=self.min_distance,
                max_uncertainty=self.max_uncertainty,
            )
        except Exception as error:
            # The error comes from the user's function. Unlike a new exception, a note preserves its
            # type, attributes and traceback.
            error.add_note(f"raised by trajectory {k} of round {r} of the run in {self.directory}")
            raise
        if stopped:
            LOGGER.info("round %d: trajectory %d stopped because of %s", r, k, stopped)
            structures[-1].info["stopped"] = stopped
        return structures

    def _first_structures(self, X):
        """The initial structures; a structure keeps its labels if it has labels of all targets."""
        structures, names = strip(X), list(self.targets)
        try:
            y = targets_from_atoms(X, names)
        except MissingLabelsError:
            y = [None] * len(structures)
        for atoms, row in zip(structures, y, strict=True):
            atoms.info["round"] = 0
            if row is not None and all(has_label(row[name]) for name in names):
                with_labels(atoms, {name: row[name] for name in names})
        return structures

    def _is_labelled(self, atoms):
        return all(f"REF_{name}" in {**atoms.arrays, **atoms.info} for name in self.targets)

    @property
    def _files(self):
        return RunDirectory(self.directory)

    @staticmethod
    def _digest(X):
        """Hash of the initial structures, which must not change when a run is resumed."""
        return joblib.hash([(s.digest, s.charge, s.field) for s in check_structures(X)])

    def _rng(self, *key):
        """A generator that depends only on the seed and the step, so that runs can be resumed."""
        return np.random.default_rng([self.random_state, *key])

    def _progress(self, items, description):
        return tqdm(items, description, disable=not self.verbose, leave=False)


def with_labels(atoms, labels):
    """Attach labels under keys that ASE's readers do not mistake for results of a calculator."""
    for name, value in labels.items():
        labelled = atoms.arrays if name in PER_ATOM else atoms.info
        labelled[f"REF_{name}"] = value
    return atoms
