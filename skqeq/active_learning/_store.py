"""The directory of a run: files with structures, models and parameters, and a lock."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path

import joblib
from ase.io import write

from ..datasets import parse_frame, split_frames
from ..persistence import replacing

# These parameters may differ when a run is resumed, because no result depends on them.
IGNORED_PARAMETERS = ("directory", "verbose", "n_jobs", "memory")
# Temporary files of `replacing`, left by a process that was killed while it wrote.
LEFTOVERS = (".*-parameters.json", "round_*/.*-*.xyz", "round_*/.*-model.joblib")


class RunDirectory:
    """The files of an active learning run.

    A file is never left half written. A resumed run skips the steps whose files exist.

    Parameters
    ----------
    path : str or path
        The directory; it need not exist.
    """

    def __init__(self, path):
        self.path = Path(path)

    @contextmanager
    def opened(self):
        """Create the directory, lock it, and remove the incomplete files of a killed process."""
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path):
            for pattern in LEFTOVERS:
                for leftover in self.path.glob(pattern):
                    leftover.unlink()
            yield

    def round_path(self, r, name=""):
        """Path of a file of round r, or of the folder of the round."""
        return self.path / f"round_{r:03}" / name

    def structures(self, r, name, compute, *args):
        """Read structures from a file of round r; compute and write them first if it is missing.

        New structures are also read back from the file, which holds rounded numbers. Otherwise an
        uninterrupted run and a resumed run, which only reads the file, would have different values.

        Parameters
        ----------
        r : int
            Number of the round.
        name : str
            File name.
        compute : callable
            ``compute(*args)`` returns the list of structures for a missing file.
        *args
            Arguments of `compute`.

        Returns
        -------
        structures : list of ase.Atoms
            Content of the file.
        """
        path = self.round_path(r, name)
        if not path.exists():
            structures = compute(*args)
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as temporary:
                write(temporary, structures, format="extxyz")
        with open(path, "rb") as file:
            return [parse_frame(frame) for _, frame in split_frames(file, path)]

    def has_model(self, r):
        """Whether the model of round r has already been fitted."""
        return self.round_path(r, "model.joblib").exists()

    def save_model(self, r, model):
        """Write the model of round r."""
        with replacing(self.round_path(r, "model.joblib")) as temporary:
            joblib.dump(model, temporary)

    def load_model(self, r):
        """Read the model of round r."""
        return joblib.load(self.round_path(r, "model.joblib"))

    def check_parameters(self, parameters):
        """Record the parameters of a new run, or compare them with those of an existing run.

        Parameters
        ----------
        parameters : dict of {str: object}
            All parameters; names of nested parameters have double underscores. Parameters in
            `IGNORED_PARAMETERS` are not compared.

        Raises
        ------
        ValueError
            If a parameter differs from the recorded one; the message names it.
        """
        parameters = {
            name: value
            for name, value in parameters.items()
            if name.rpartition("__")[2] not in IGNORED_PARAMETERS
        }
        text = json.dumps(parameters, default=as_json, indent=1)
        path = self.path / "parameters.json"
        if not path.exists():
            with replacing(path) as temporary:
                temporary.write_text(text)
        recorded, given = json.loads(path.read_text()), json.loads(text)
        for name in {**recorded, **given}:
            if recorded.get(name) != given.get(name):
                raise ValueError(
                    f"{self.path} holds a run with {name} = {recorded.get(name)!r}, but now it "
                    f"is {given.get(name)!r}; continue with the old value, or use another directory"
                )


@contextmanager
def locked(directory):
    """Lock a directory against other processes.

    The operating system releases the lock when a process ends, so a run that was killed can be
    resumed immediately.

    Parameters
    ----------
    directory : pathlib.Path
        An existing directory; the lock is its file ``lock``.

    Raises
    ------
    RuntimeError
        If another process has locked the directory.
    """
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
            raise RuntimeError(f"another process is running in {directory}") from None
        yield


def as_json(value):
    """Represent a parameter in JSON, in a form that is the same in every process.

    Functions and estimators are represented by their names only, because the parameters of an
    estimator are compared separately.
    """
    if hasattr(value, "tolist"):
        return value.tolist()
    if is_dataclass(value):
        return repr(value)
    name = getattr(value, "__qualname__", type(value).__qualname__)
    parameters = getattr(value, "parameters", None)  # of an ASE calculator
    return {name: dict(parameters)} if parameters else name
