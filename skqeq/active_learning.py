"""Active learning: dynamics on the model finds what it does not know, a reference labels it."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import joblib
import numpy as np
from ase import units
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.neighborlist import natural_cutoffs, neighbor_list
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_scalar
from tqdm import tqdm

from ._sklearn import HasMethods, Interval, StrOptions
from .calculator import KQEqCalculator
from .models import unwrap
from .persistence import replacing
from .sparsify import SparseSource, leverage_scores
from .structures import (
    StackedSource,
    StructureFeatures,
    check_structures,
    collect,
    concatenate,
    strip,
)
from .targets import Labels, make_targets, targets_from_atoms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

    from ._typing import Array, Model, PathType


__all__ = ["ActiveLearner", "LangevinDynamics", "select_novel", "select_uncertain", "uncertainty"]

LOGGER = logging.getLogger(__name__)
PER_ATOM = ("charges", "forces")
# What may differ when a run is resumed, because no result depends on it.
FREE = ("directory", "verbose", "n_jobs", "memory")
# Of a process that was killed while it wrote, see `replacing`.
LEFTOVERS = (".*-parameters.json", "round_*/.*-*.xyz", "round_*/.*-model.joblib")


class ActiveLearner(BaseEstimator):
    """Grow a data set where the model is uncertain, and fit the model to it.

    Every round runs dynamics on the model of the last one, picks structures from the trajectories,
    has them labelled by a reference calculation, and fits a new model to all data [1]_.

    All that a run knows is in its directory, in files that appear complete or not at all: one for
    every trajectory, reference calculation and model. A run that was killed is resumed by starting
    it again in the same way; it repeats at most one of these, and ends with the same data, bit for
    bit, as if it had not been interrupted.

    Parameters
    ----------
    model : estimator
        Pipeline of `SOAPFeaturizer`, `CURSparsifier` and a charge model; a clone of it is fitted
        in every round.
    reference : ase calculator or callable
        What labels structures; ``reference(atoms)`` returns a dict with a value for every one of
        `targets`, in the units of `skqeq.make_targets`. If it raises, the structure is left out.
    directory : str or path
        Where the run is kept. Two processes cannot work in one directory.
    targets : sequence of str, default=("energy", "forces")
        What the model is fitted to.
    explore : callable, default=None
        ``explore(atoms, rng)`` yields structures, such as those of a trajectory. `atoms` starts it
        and has the model as its calculator, `rng` is a `numpy.random.Generator`, the one source of
        randomness. None means `LangevinDynamics` with its defaults.
    method : {"variance", "cur"}, default="variance"
        Picks the structures, see `select_uncertain` and `select_novel`.
    n_select : int, default=10
        Structures that are labelled in a round.
    n_trajectories : int, default=5
        Trajectories in a round. Each starts from a structure of the data.
    max_uncertainty : float, default=0.5
        A trajectory ends with the first structure whose `uncertainty` is larger.
    min_distance : float, default=0.6
        A trajectory ends before the first structure with two atoms closer than this, in units of
        the sum of their covalent radii.
    random_state : int, default=0
        Seed.
    verbose : int, default=1
        Above 0 progress bars are shown.

    Attributes
    ----------
    model_ : estimator
        The model of the last round.
    data_ : list of ase.Atoms
        All labelled structures, with labels under the keys ``REF_energy``, ``REF_forces``, ... and
        with ``info["round"]``.

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
            The first structures. Those that carry all targets, where `skqeq.targets_from_atoms`
            finds them, keep them; the others are labelled by the reference.
        n_rounds : int
            Number of rounds, counted from the beginning of the run.

        Returns
        -------
        self : ActiveLearner
            With `model_` and `data_`.

        Raises
        ------
        ValueError
            If the directory holds a run with other parameters.
        RuntimeError
            If another process works in the directory, or if a round ends without any trajectory
            or without any label.
        """
        self._validate_params()
        check_scalar(n_rounds, "n_rounds", Integral, min_val=0)
        directory = Path(self.directory)
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory):
            for pattern in LEFTOVERS:
                for leftover in directory.glob(pattern):
                    leftover.unlink()
            self._check_same_run(X)
            self._frames(0, "selected.xyz", self._first, X)
            data: list[Atoms] = []
            for r in range(n_rounds + 1):
                data = data + self._frames(r, "data.xyz", self._label, r, data)
                self._fit(r, data)
        self.data_ = data
        self.model_ = self.load_model(n_rounds)
        return self

    def load_model(self, r: int) -> Any:
        """The model that was fitted to the data of round r and of all before.

        Parameters
        ----------
        r : int
            Round; 0 for the model of the first structures.

        Returns
        -------
        model : fitted estimator
            From the directory of the run.
        """
        return joblib.load(self._path(r, "model.joblib"))

    # ---- a round, from its end to its beginning -----------------------------------------------

    def _fit(self, r, data):
        """Fit the model of round r."""
        path = self._path(r, "model.joblib")
        if not path.exists():
            y = targets_from_atoms(data, list(self.targets))
            model = clone(self.model).fit(data, y)
            with replacing(path) as temporary:
                joblib.dump(model, temporary)
            LOGGER.info("round %d: fitted to %d structures", r, len(data))

    def _label(self, r, data):
        """Have the selected structures of round r labelled; those that fail are left out."""
        selected = self._frames(r, "selected.xyz", self._select, r, data)
        answers = []
        for i, atoms in enumerate(self._progress(selected, f"round {r}: reference")):
            if not self._is_labelled(atoms):
                [atoms] = self._frames(r, f"reference_{i:03}.xyz", self._ask, atoms)
            answers.append(atoms)
        labelled = [atoms for atoms in answers if "failed" not in atoms.info]
        if not labelled:
            raise RuntimeError(
                f"all {len(answers)} reference calculations of round {r} failed, the first with "
                f"{answers[0].info['failed']}; to try again, remove the files reference_*.xyz from "
                f"{self._path(r)}"
            )
        return labelled

    def _ask(self, atoms):
        """One reference calculation."""
        atoms = atoms.copy()
        try:
            labels = self._evaluate(strip([atoms])[0])
        except Exception as error:  # whatever a reference may raise
            atoms.info["failed"] = one_line(error)
            LOGGER.warning("a reference calculation failed: %s", atoms.info["failed"])
            return [atoms]
        return [with_labels(atoms, labels)]

    def _evaluate(self, atoms):
        """Labels by the reference, checked: dict."""
        if hasattr(self.reference, "get_property"):
            labels = {name: self.reference.get_property(name, atoms) for name in self.targets}
        else:
            labels = self.reference(atoms)
        y = make_targets(**{name: [labels[name]] for name in self.targets})
        for name in self.targets:
            if y[name][0] is None or not np.isfinite(y[name][0]).all():
                raise ValueError(f"{name} = {labels[name]}")
        Labels(y, collect([atoms]))  # that there is one for every atom
        return {name: y[name][0] for name in self.targets}

    def _select(self, r, data):
        """Pick structures from the trajectories of round r."""
        candidates, reasons = [], []
        for unit in self._progress(range(self.n_trajectories), f"round {r}: dynamics"):
            frames = self._frames(
                r, f"trajectory_{unit:03}.xyz", self._run_trajectory, r, unit, data
            )
            candidates += frames[1:]  # behind the start, which is known
            reasons.append(frames[-1].info.get("stopped"))
        if not candidates:
            raise RuntimeError(
                f"no trajectory of round {r} has a usable structure; the first was stopped because "
                f"of {reasons[0]}; explore more gently, or begin with more structures"
            )
        transformer, _ = unwrap(self.load_model(r - 1))
        select = {"variance": select_uncertain, "cur": select_novel}[self.method]
        picked = select(transformer(data), transformer(candidates), self.n_select, self._rng(r, 0))
        LOGGER.info("round %d: %d of %d structures picked", r, len(picked), len(candidates))
        for i in picked:
            candidates[i].info["round"] = r
        return [candidates[i] for i in picked]

    def _run_trajectory(self, r, unit, data):
        """The start of a trajectory, and what was found from there up to the limits."""
        rng = self._rng(r, 1 + unit)
        [start] = strip([data[rng.integers(len(data))]])
        model = self.load_model(r - 1)
        transformer, _ = unwrap(model)
        atoms = start.copy()
        atoms.calc = KQEqCalculator(model)
        explore = self.explore or LangevinDynamics()
        frames, stopped = [start], None
        try:
            for frame in explore(atoms, rng):
                [frame] = strip([frame])
                if neighbor_list("i", frame, natural_cutoffs(frame, mult=self.min_distance)).size:
                    stopped = "atoms that are too close"
                    break
                [unknown] = uncertainty(transformer([frame]))
                frame.info["uncertainty"] = unknown
                frames.append(frame)
                if unknown > self.max_uncertainty:
                    stopped = f"an uncertainty of {unknown:.3g}"
                    break
        except (ValueError, ArithmeticError) as error:  # of a model far from what it knows
            stopped = one_line(error)
        if stopped:
            LOGGER.info("round %d: trajectory %d stopped because of %s", r, unit, stopped)
            frames[-1].info["stopped"] = stopped
        return frames

    def _first(self, X):
        """The first structures, with those labels that they bring along."""
        first = []
        for atoms, stripped in zip(X, strip(X), strict=True):
            stripped.info["round"] = 0
            try:
                y = targets_from_atoms([atoms], list(self.targets))
            except ValueError:  # some are missing
                first.append(stripped)
            else:
                first.append(with_labels(stripped, {name: y[name][0] for name in self.targets}))
        return first

    def _is_labelled(self, atoms):
        return all(f"REF_{name}" in {**atoms.arrays, **atoms.info} for name in self.targets)

    # ---- what is on disk ----------------------------------------------------------------------

    def _path(self, r, name=""):
        return Path(self.directory) / f"round_{r:03}" / name

    def _frames(self, r, name, compute, *args):
        """The structures in a file of round r, which is computed if it is not there.

        They are always read from the file, with its finite digits, so that it makes no difference
        whether they were computed by this process.
        """
        path = self._path(r, name)
        if not path.exists():
            frames = compute(*args)
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as temporary:
                write(temporary, frames, format="extxyz")
        return read(path, ":", format="extxyz")

    def _check_same_run(self, X):
        """Record the parameters of a new run; refuse to go on with an old one with others."""
        parameters = {
            name: value
            for name, value in self.get_params().items()
            if name.rpartition("__")[2] not in FREE
        }
        parameters["X"] = joblib.hash([(s.digest, s.charge, s.field) for s in check_structures(X)])
        text = json.dumps(parameters, default=plain, indent=1)
        path = Path(self.directory) / "parameters.json"
        if not path.exists():
            with replacing(path) as temporary:
                temporary.write_text(text)
        recorded, given = json.loads(path.read_text()), json.loads(text)
        for name in {**recorded, **given}:
            if recorded.get(name) != given.get(name):
                raise ValueError(
                    f"{path.parent} holds a run with {name} = {recorded.get(name)!r}, but now it "
                    f"is {given.get(name)!r}; go on with the old value, or take another directory"
                )

    def _rng(self, *key):
        """Random numbers that depend on the seed and on what they are for, and on nothing else."""
        return np.random.default_rng([self.random_state, *key])

    def _progress(self, items, description):
        return tqdm(items, description, disable=not self.verbose, leave=False)


@dataclass(frozen=True)
class LangevinDynamics:
    """Langevin dynamics from random velocities: the default way to explore.

    Parameters
    ----------
    temperature : float, default=300.0
        Of the thermostat and of the first velocities, K.
    timestep : float, default=1.0
        Length of a step, fs.
    friction : float, default=0.01
        Friction of the thermostat, 1/fs.
    n_steps : int, default=1000
        Length of the trajectory.
    interval : int, default=20
        Number of steps from one structure that is looked at to the next.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from ase.calculators.emt import EMT
    >>> from skqeq.active_learning import LangevinDynamics
    >>> water = molecule("H2O")
    >>> water.calc = EMT()
    >>> explore = LangevinDynamics(n_steps=10, interval=5)
    >>> len([atoms.copy() for atoms in explore(water, np.random.default_rng(0))])
    2
    """

    temperature: float = 300.0
    timestep: float = 1.0
    friction: float = 0.01
    n_steps: int = 1000
    interval: int = 20

    def __call__(self, atoms: Atoms, rng: np.random.Generator) -> Iterator[Atoms]:
        """Yield `atoms` in its later states.

        Parameters
        ----------
        atoms : ase.Atoms
            With a calculator; it is moved.
        rng : numpy.random.Generator
            Of the velocities and of the thermostat.

        Yields
        ------
        atoms : ase.Atoms
        """
        speed = np.sqrt(units.kB * self.temperature / atoms.get_masses())[:, None]
        atoms.set_velocities(speed * rng.standard_normal((len(atoms), 3)))
        dynamics = Langevin(
            atoms,
            self.timestep * units.fs,
            temperature_K=self.temperature,
            friction=self.friction / units.fs,
            fixcm=False,  # ASE will drop it, because it spoils the temperature of small systems
            rng=rng,
        )
        for _ in range(self.n_steps // self.interval):
            dynamics.run(self.interval)
            yield atoms


# ---- which structures are worth a calculation ---------------------------------------------------


def uncertainty(phi: StructureFeatures) -> Array:
    """What the sparse set cannot explain of the most uncertain atom of every structure.

    The prior variance of an electronegativity that stays, whatever the weights, is
    ``amplitude_chi^2 (1 - |phi_i|^2)``.

    Parameters
    ----------
    phi : StructureFeatures
        From `skqeq.CURSparsifier`, or from `skqeq.StructureBlocks` of such.

    Returns
    -------
    uncertainty : ndarray of shape (n,)
        ``max_i sqrt(1 - |phi_i|^2)``, the standard deviation in units of `amplitude_chi`: 0 for a
        structure whose environments are in the sparse set, 1 for one that is like none of them. Of
        several blocks the largest, each in units of its own amplitude.

    Raises
    ------
    TypeError
        If the features have no sparse set.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, SOAPFeaturizer
    >>> from skqeq.active_learning import uncertainty
    >>> soap = SOAPFeaturizer(r_cut=3.0, n_max=4, l_max=3)
    >>> features = make_pipeline(soap, CURSparsifier(n_points=1)).fit([molecule("H2O")])
    >>> stretched = molecule("H2O")
    >>> stretched.set_distance(0, 1, 1.5)
    >>> known, unknown = uncertainty(features.transform([molecule("H2O"), stretched]))
    >>> bool(known < 1e-3 < unknown)
    True
    """
    return np.max([_unexplained(part) for part in sparse_blocks(phi)], axis=0)


def _unexplained(phi):
    """`uncertainty` of the features of one sparse set."""
    worst = []
    for _, block in phi.blocks():
        worst.append(np.minimum.reduceat(block.squared_norms(), block.offsets[:-1]))
    return np.sqrt(np.maximum(0.0, 1.0 - np.concatenate(worst)))


def select_uncertain(
    data: StructureFeatures, candidates: StructureFeatures, n: int, rng: np.random.Generator
) -> list[int]:
    """Pick the most uncertain structure, as if the others were known, again and again.

    A structure that was picked joins the sparse set, so that none like it follows.

    Parameters
    ----------
    data, candidates : StructureFeatures
        From `skqeq.CURSparsifier`; what is known, which does not matter here beyond the sparse
        set, and what can be picked.
    n : int
        How many.
    rng : numpy.random.Generator
        Not needed.

    Returns
    -------
    picked : list of int
        Indices of candidates, the most uncertain first.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, SOAPFeaturizer
    >>> from skqeq.active_learning import select_uncertain
    >>> known, candidates = [molecule("CH3OH")], [molecule("CH3OH"), molecule("CH3CHO")]
    >>> soap = SOAPFeaturizer(r_cut=3.0, n_max=4, l_max=3)
    >>> features = make_pipeline(soap, CURSparsifier(n_points=1)).fit(known)
    >>> data, others = features.transform(known), features.transform(candidates)
    >>> select_uncertain(data, others, 1, np.random.default_rng(0))
    [1]
    """
    picked: list[int] = []
    phi = candidates
    # A larger sparse set explains more: what was once computed is an upper bound.
    bounds, current = uncertainty(phi), np.zeros(len(phi), dtype=int)
    while len(picked) < min(n, len(phi)):
        best = int(np.argmax(bounds))
        if current[best] == len(picked):
            picked.append(best)
            bounds[best] = -1.0
            phi = StructureFeatures(phi.structures, _extended(phi.source, phi.structures[best]))
        else:
            [bounds[best]] = uncertainty(phi[[best]])
            current[best] = len(picked)
    return picked


def select_novel(
    data: StructureFeatures, candidates: StructureFeatures, n: int, rng: np.random.Generator
) -> list[int]:
    """Pick the structure of largest CUR leverage, remove it from the others, again and again.

    A structure is the mean of its atoms' descriptors. Leverage is that in the space which is left
    after the dominant directions of the data were removed.

    Parameters
    ----------
    data, candidates : StructureFeatures
        From `skqeq.CURSparsifier`; what is known, and what can be picked.
    n : int
        How many.
    rng : numpy.random.Generator
        Of the random projection of the descriptors.

    Returns
    -------
    picked : list of int
        Indices of candidates; fewer than `n` if the rest holds nothing new.

    References
    ----------
    Mahoney and Drineas, PNAS 106, 697 (2009).

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, SOAPFeaturizer
    >>> from skqeq.active_learning import select_novel
    >>> known, candidates = [molecule("CH3OH")], [molecule("CH3OH"), molecule("CH3CHO")]
    >>> soap = SOAPFeaturizer(r_cut=3.0, n_max=4, l_max=3)
    >>> features = make_pipeline(soap, CURSparsifier(n_points=1)).fit(known)
    >>> data, others = features.transform(known), features.transform(candidates)
    >>> select_novel(data, others, 1, np.random.default_rng(0))
    [1]
    """
    structures = concatenate([data.structures, candidates.structures])
    offsets = structures.offsets
    sketches = []
    for part in sparse_blocks(candidates):
        sketches.append(part.source.sketch(structures, rng))
    atoms = np.concatenate(sketches, axis=1)
    means = np.add.reduceat(atoms, offsets[:-1]) / np.diff(offsets)[:, None]
    known, rest = np.split(means, [len(data)])
    # Half of the directions, because the last ones are mixtures of many.
    dominant = np.linalg.svd(known, full_matrices=False)[2][: max(1, min(known.shape) // 2)]
    rest = rest - rest @ dominant.T @ dominant
    picked: list[int] = []
    negligible = 1e-6 * np.linalg.norm(means, axis=1).max()
    while len(picked) < n and np.linalg.norm(rest, axis=1).max() > negligible:
        best = int(np.argmax(leverage_scores(rest, n - len(picked))))
        picked.append(best)
        direction = rest[best] / np.linalg.norm(rest[best])
        rest = rest - np.outer(rest @ direction, direction)
    return picked


def sparse_blocks(phi):
    """The features of every sparse set; features without one are refused."""
    sources = phi.source.sources if isinstance(phi, StructureFeatures) else [None]
    if not all(isinstance(source, SparseSource) for source in sources):
        raise TypeError("active learning needs a pipeline of SOAPFeaturizer and CURSparsifier")
    return [StructureFeatures(phi.structures, source) for source in sources]


def _extended(source, structure):
    """The source whose sparse sets also hold the environments of a structure."""
    return StackedSource(
        [part.with_environments(structure) for part in source.sources], source.names
    )


# ---- files --------------------------------------------------------------------------------------


@contextmanager
def locked(directory):
    """Keep other processes out; the operating system forgets the lock of a dead one."""
    with open(directory / "lock", "a") as handle:
        try:
            try:
                import fcntl
            except ModuleNotFoundError:  # Windows
                import msvcrt

                msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise RuntimeError(f"another process is at work in {directory}") from None
        yield


def with_labels(atoms, labels):
    """Labels under keys that no reader of ASE takes for results of a calculator."""
    for name, value in labels.items():
        place = atoms.arrays if name in PER_ATOM else atoms.info
        place[f"REF_{name}"] = value
    return atoms


def one_line(error):
    """Kind and message of an exception."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def plain(value):
    """What JSON can hold of a parameter, the same in every process."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if is_dataclass(value):
        return repr(value)
    name = getattr(value, "__qualname__", type(value).__qualname__)
    parameters = getattr(value, "parameters", None)  # of a calculator
    return {name: dict(parameters)} if parameters else name
