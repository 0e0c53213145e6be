"""The progress of an iterative fit on disk, from which a fit that was killed continues."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._warnings import warn_once
from ..persistence import replacing
from ..solvers import Position

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._typing import Array, History, PathType
    from ._problem import Problem

# Shortest time between two checkpoints, s.
INTERVAL = 60.0
FILE = "checkpoint.npz"
# Level of the full problem; smaller problems have the numbers 0, 1, ...
FULL = -1
# Parameters that may change between a fit and its continuation.
FREE = {"checkpoint", "max_iter", "n_jobs", "store_triangles", "tol", "verbose", "handle_unknown"}
# Largest relative difference of features that two machines compute for the same structure. Features
# of other sparse points differ by much more.
SAME_FEATURES = 1e-4


class Progress(NamedTuple):
    """The place of a fit between two steps, from which it continues with the same steps.

    Attributes
    ----------
    level : int
        Number of the smaller problem, or `FULL`.
    position : Position
        The place of the iteration that solves this problem, with its weights.
    history : list of dict
        Entries of the steps of the full problem, up to that of the next step.
    seconds : float
        Time since the beginning of the fit.
    """

    level: int
    position: Position
    history: History
    seconds: float


class NoCheckpoint(AbstractContextManager):
    """Stores nothing, for fits without the parameter `checkpoint`."""

    def read(self) -> Progress | None:
        """The progress of an earlier fit, or None."""
        return None

    def store(self, progress: Progress) -> None:
        """Take the progress of this fit."""

    def __exit__(self, *error: object) -> None:
        """End the fit."""


class Checkpoint(NoCheckpoint):
    """Stores the progress of a fit in a folder, at most once in `INTERVAL`.

    The file is replaced as a whole, so that a process may be killed at any time. When the context
    ends without an error, the fit is complete and the file is deleted. After an error or an
    interrupt, the file holds the last progress.

    Parameters
    ----------
    folder : str or path
        The folder, which is made if it does not exist.
    problem : Problem
        The data and the model of the fit.
    parameters : dict
        Parameters of the estimator.

    Raises
    ------
    OSError
        If the folder cannot be made.
    """

    def __init__(self, folder: PathType, problem: Problem, parameters: dict[str, Any]) -> None:
        self.path = Path(folder) / FILE
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._identity = identity(problem, parameters)
        self._probe = probe(problem)
        self._pending: Progress | None = None
        self._written = time.monotonic()

    def read(self) -> Progress | None:
        """The progress of an earlier fit of the same problem.

        Returns
        -------
        progress : Progress or None
            None if there is no file.

        Raises
        ------
        ValueError
            If the file is damaged, or belongs to another fit.
        """
        if not self.path.exists():
            return None
        try:
            with open(self.path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                identity, probe = about.pop("identity"), file["probe"]
                arrays = {name: file[name] for name in ("start", "v", "last")}
                progress = Progress(position=Position(**about.pop("position"), **arrays), **about)
        except Exception as error:  # a damaged file can raise any error
            raise ValueError(
                f"{self.path} is not a checkpoint, or is damaged ({error!r}); delete it to begin "
                "from the start"
            ) from error
        names = self._identity.keys() | identity.keys()
        different = [n for n in sorted(names) if self._identity.get(n) != identity.get(n)]
        if not different and not _same(self._probe, probe):
            different = ["features"]
        if different:
            raise ValueError(
                f"{self.path} belongs to another fit, whose {', '.join(different)} were different; "
                "delete it to begin from the start, or choose another folder for checkpoint"
            )
        return progress

    def store(self, progress: Progress) -> None:
        """Take the progress of this fit, and write it if the last file is old enough.

        Parameters
        ----------
        progress : Progress
            The place of the fit before its next step.
        """
        self._pending = progress
        if time.monotonic() >= self._written + INTERVAL:
            self._write()

    def _write(self):
        progress, self._pending = self._pending, None
        position = progress.position._asdict()
        arrays = {name: position.pop(name) for name in ("start", "v", "last")}
        about = progress._asdict() | {"position": position, "identity": self._identity}
        try:
            with replacing(self.path) as temporary:
                np.savez(temporary, probe=self._probe, about=json.dumps(about), **arrays)
        except OSError as error:
            # A fit of hours must not end because a disk is full.
            warn_once(f"no checkpoint could be written: {error}", "checkpoint")
        self._written = time.monotonic()

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            for path in (self.path, *self.path.parent.glob(f".*-{FILE}")):
                path.unlink(missing_ok=True)
        elif self._pending is not None:
            self._write()


def identity(problem: Problem, parameters: dict[str, Any]) -> dict[str, str]:
    """Digests of the data and the parameters that determine the weights.

    Parameters
    ----------
    problem : Problem
        The data.
    parameters : dict
        Parameters of the estimator and of its response.

    Returns
    -------
    identity : dict of {str: str}
        The keys are ``"structures"``, ``"labels"``, ``"sample_weight"`` and the parameters.
    """
    structures, labels = problem.features.structures, problem.labels
    of_labels = [
        part
        for name in labels.names
        for part in (
            name.encode(),
            labels.relative_sigma(name),
            *(labels.values(name, i) for i in range(len(structures))),
        )
    ]
    of_structures = (
        part
        for s in structures
        for part in (s.digest, s.masses, np.append(s.field, s.charge), s.potential_points)
    )
    return {
        "structures": digest(of_structures),
        "labels": digest(of_labels),
        "sample_weight": digest([problem.weights]),
        **{name: _text(value) for name, value in parameters.items() if name not in FREE},
    }


def digest(parts: Iterable[bytes | Array | None]) -> str:
    """A hash of bytes and arrays, one after the other."""
    total = hashlib.sha256()
    for part in parts:
        content = b"none" if part is None else part
        if not isinstance(content, bytes):
            content = np.ascontiguousarray(content, dtype=np.float64).tobytes()
        total.update(len(content).to_bytes(8, "little") + content)
    return total.hexdigest()


def probe(problem: Problem) -> Array:
    """Features of a few structures, which contain all elements.

    Their numbers can differ between machines by rounding errors. A hash would differ.

    Parameters
    ----------
    problem : Problem
        The structures and their features.

    Returns
    -------
    probe : ndarray of shape (n, n_features)
        The sum over the atoms of each structure.
    """
    structures = problem.features.structures
    first = {structures.first_with(element) for element in problem.layout.elements}
    return np.stack([problem.features[int(i)].sum(axis=0) for i in sorted(first)])


def _same(first, second):
    if first.shape != second.shape:
        return False
    size = max(np.abs(first).max(initial=0.0), np.abs(second).max(initial=0.0))
    return bool(np.abs(first - second).max(initial=0.0) <= SAME_FEATURES * size)


def _text(value):
    """A parameter as a text that is the same in each process."""
    if hasattr(value, "get_params"):  # its parameters have their own names
        return type(value).__name__
    if isinstance(value, (np.ndarray, list, tuple)):
        return digest([np.asarray(value)])
    return repr(value)
