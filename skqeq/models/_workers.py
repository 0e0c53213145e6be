"""Rows of labels reduced to triangles, by one process or many.

A triangle represents the rows of one target. It does not depend on the amplitudes of the model,
because its weights are not in units of their prior. It does not depend on the noise of the target
either, which is the parameter ``sigma_<target>``, because the noise of each label is divided by it.
With the triangles of all targets, a fit with other noise or amplitudes does not need the data, and
more data can be added at any time. Parts of the data can be reduced by any process and in any
order.
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager
from functools import lru_cache
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import joblib
import numpy as np
from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from tqdm import tqdm

from .._locks import fork_safe
from .._memory import BUDGET
from ..solvers import NonlinearRows, Triangle
from ..structures import StructureFeatures
from ._training_r2 import RowSample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .._typing import Array
    from ..fields import FieldLayout
    from ._problem import Problem

# A triangle must not start from zero, see `Triangle`. This penalty has no effect on results: with
# noise s and amplitude a, it acts like a prior that is 1 / (TINY a / s) times wider than the prior
# of the model.
TINY = 1e-12
# Parts per worker. With few parts, workers wait for the last one; with many, merging takes long.
PARTS_PER_WORKER = 4
# Longest time that a worker waits for the others to release a fit, s.
MAX_WAIT = 0.5
LOCK = fork_safe(Lock())


def empty_triangle(n_columns: int) -> Triangle:
    """A triangle without rows.

    Parameters
    ----------
    n_columns : int
        Number of weights.

    Returns
    -------
    triangle : Triangle
    """
    return Triangle(n_columns, TINY)


class Part(NamedTuple):
    """The task of a worker: some of the structures of a fit.

    Attributes
    ----------
    problem : Problem
        The problem of these structures.
    store : dict
        Objects that the worker stores for the next call with the same part.
    """

    problem: Problem
    store: dict


class Workers(AbstractContextManager):
    """Processes among which the structures of a fit are divided.

    The sparse set is large. The first call of `map` therefore writes the data that all workers need
    to a folder, so that they are not sent with every task. When the context ends, the folder is
    deleted and the workers release the data.

    Parameters
    ----------
    problem : Problem
        The problem of all structures.
    n_rows : int
        Approximate number of rows of all labels.
    """

    def __init__(self, problem: Problem, n_rows: int) -> None:
        self.problem = problem
        self.n_jobs = effective_n_jobs(problem.n_jobs)
        # The triangle of a part with fewer rows than weights would be larger than its rows.
        n_parts = min(PARTS_PER_WORKER * self.n_jobs, ceil(n_rows / (2 * problem.layout.n_columns)))
        offsets, n = problem.features.structures.offsets, len(problem.features)
        edges = np.linspace(0, offsets[-1], max(self.n_jobs, n_parts) + 1)[1:-1]
        self.bounds = np.unique([0, *np.searchsorted(offsets, edges), n]).tolist()
        self._folder: TemporaryDirectory[str] | None = None

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def map(
        self, function: Callable[..., Any], *arguments: Any, each: Sequence[Any] | None = None
    ) -> Iterator[Any]:
        """Yield ``function(part, *arguments)`` for all parts, in order.

        Parameters
        ----------
        function : callable
            Takes a `Part`.
        *arguments
            More arguments of the function.
        each : sequence, default=None
            One last argument for every part.

        Yields
        ------
        result : object
            Return value of the function.
        """
        if self._folder is None:
            self._folder = TemporaryDirectory(dir=os.environ.get("JOBLIB_TEMP_FOLDER"))
            self._begin_all()
        last = [()] * len(self) if each is None else [(x,) for x in each]
        yield from self._run(function, BUDGET.share(self.n_jobs), [(*arguments, *x) for x in last])

    def _begin_all(self):
        """Write the data that all workers need."""
        joblib.dump((self.problem.without_structures(), {}), self._path)

    def _run(self, function, share, arguments):
        """Yield the results of all parts, for the arguments of each."""
        features = self.problem.features
        tasks = (
            delayed(_on_part)(function, self._path, features.structures[a:b], a, share, own)
            for a, b, own in zip(self.bounds[:-1], self.bounds[1:], arguments, strict=True)
        )
        results = _parallel(self.n_jobs)(tasks)
        silent = not (self.problem.forward.verbose or features.source.verbose)
        yield from tqdm(results, "parts", len(self), disable=silent, leave=False)

    @property
    def _path(self):
        return os.path.join(self._folder.name, "fit.joblib")

    def __exit__(self, *error: object) -> None:
        if self._folder is not None:
            folder, n_jobs = self._folder.name, self.n_jobs
            tasks = (delayed(_forget)(folder, n_jobs, os.getpid()) for _ in range(n_jobs))
            try:
                list(_parallel(n_jobs)(tasks))
            finally:
                self._folder.cleanup()


def _parallel(n_jobs):
    try:
        return Parallel(n_jobs=n_jobs, return_as="generator")
    except ValueError:  # a backend that returns all results at the end
        return Parallel(n_jobs=n_jobs)


def _forget(folder, n_jobs, parent):
    """Release the fit that this process loaded, and wait until the other workers have done so.

    Joblib cannot send a task to a certain worker. While a worker waits here, the remaining tasks go
    to the other workers, so that each worker gets one. Workers that are threads share the data of
    the parent; they need not wait.
    """
    _load_cached.cache_clear()
    if os.getpid() == parent:
        return
    (Path(folder) / f"dropped-{os.getpid()}").touch()
    end = time.monotonic() + MAX_WAIT
    while len(list(Path(folder).glob("dropped-*"))) < n_jobs and time.monotonic() < end:
        time.sleep(0.005)


def _on_part(function, path, structures, first, share, arguments):
    """Run a task in a worker; what it stores is limited to its share of the memory budget."""
    share.apply()
    problem, stores = _load(path)
    part = problem.part(StructureFeatures(structures, problem.features.source), first)
    store = stores.setdefault(first, {})
    with parallel_config("sequential"):  # a worker must not start further workers
        return function(Part(part, store), *arguments)


def _load(path):
    with LOCK:  # workers may be threads, which share the loaded fit
        return _load_cached(path)


@lru_cache(maxsize=1)
def _load_cached(path):
    return joblib.load(path)


# ---- triangles ----------------------------------------------------------------------------------


def reduce_labels(problem: Problem) -> dict[str, Array]:
    """Reduce all labels to triangles, in several processes if the problem has several jobs.

    Parameters
    ----------
    problem : Problem
        A problem whose labels are all linear in the charges.

    Returns
    -------
    triangles : dict of {str: ndarray of shape (n_weights + 1, n_weights + 1)}
        One triangle per target.
    """
    if effective_n_jobs(problem.n_jobs) == 1:
        return _reduced(Part(problem, {}))
    with Workers(problem, 3 * len(problem.features)) as workers:
        return merge_pairwise(workers.map(_reduced))


def merge_pairwise(parts: Iterable[dict[Any, Array]]) -> dict[Any, Array]:
    """Merge the triangles of all parts, separately for each key.

    Triangles of the same number of parts are merged first, so that only a few are in memory at a
    time.

    Parameters
    ----------
    parts : iterable of dict
        One dict of triangles per part.

    Returns
    -------
    triangles : dict
        One triangle per key.
    """
    waiting: list[tuple[int, dict[Any, Array]]] = []  # (number of parts, triangles), decreasing
    for triangles in parts:
        size = 1
        while waiting and waiting[-1][0] == size:
            triangles, size = merged(waiting.pop()[1], triangles), 2 * size
        waiting.append((size, triangles))
    triangles = waiting.pop()[1]
    while waiting:
        triangles = merged(waiting.pop()[1], triangles)
    return triangles


def merged(first: dict[Any, Array], second: dict[Any, Array]) -> dict[Any, Array]:
    """Merge the triangles of two parts.

    Parameters
    ----------
    first, second : dict of {key: ndarray}
        Triangles of each part; they are not changed.

    Returns
    -------
    triangles : dict of {key: ndarray}
        Triangles of both parts together.
    """
    both = dict(first)
    for name, R in second.items():
        both[name] = R
        if name in first:
            triangle = Triangle.from_augmented(first[name])
            triangle.merge(R.copy(order="F"))
            both[name] = triangle.augmented
    return both


def combined(
    layout: FieldLayout, triangles: dict[str, Array], sigmas: dict[str, float]
) -> Triangle:
    """Merge the prior and the triangles of all targets, with their noise, into one triangle.

    Parameters
    ----------
    layout : FieldLayout
        The weights and their priors.
    triangles : dict of {str: ndarray of shape (n_weights + 1, n_weights + 1)}
        The triangle of each target.
    sigmas : dict of {str: float}
        The noise of each target.

    Returns
    -------
    triangle : Triangle
    """
    scale = np.append(layout.scale, 1.0)
    triangle = Triangle(layout.n_columns, penalty=1.0)
    for name, R in triangles.items():
        triangle.merge(np.asfortranarray(R * (scale / sigmas[name])))
    return triangle


def _reduced(part):
    triangles = {}
    for rows in part.problem.linear_rows():
        if rows.name not in triangles:
            triangles[rows.name] = empty_triangle(rows.J.shape[1])
        triangles[rows.name].update(rows.J, rows.residual)
    return {name: triangle.augmented for name, triangle in triangles.items()}


def merge_charge_rows(
    triangle: Triangle, workers: Workers, sample: RowSample
) -> dict[str, NonlinearRows]:
    """Parallel version of `Problem.reduce_charge_rows`.

    Parameters
    ----------
    triangle : Triangle
        For the weights in units of their prior; modified in place.
    workers : Workers
        Processes, each of which has a part of the structures.
    sample : RowSample
        Keeps some of the rows.

    Returns
    -------
    nonlinear : dict of {str: NonlinearRows}
        Rows of targets that are not linear in the charges.
    """
    nonlinear: dict[str, NonlinearRows] = {}
    for R, n_rows, of_part, sample_of_part in workers.map(_reduced_charge_rows):
        triangle.merge(R, n_rows)
        sample.extend(sample_of_part)
        for name, rows in of_part.items():
            nonlinear.setdefault(name, NonlinearRows(rows.target)).extend(rows)
    return nonlinear


def _reduced_charge_rows(part):
    triangle = empty_triangle(part.problem.layout.n_columns)
    sample = RowSample(part.problem)
    nonlinear = part.problem.reduce_charge_rows(triangle, sample)
    return triangle.augmented, triangle.n_rows, nonlinear, sample
