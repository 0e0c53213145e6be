"""Processes for iterative fits, each of which has its own part of the structures.

An iterative fit computes much for each structure that does not depend on the weights, and stores it
for the next step. A process therefore has the same structures from the first step to the last:
only weights and sums over structures travel. Joblib alone sends a task to any process that is free.
"""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from joblib import effective_n_jobs, parallel_config
from joblib._parallel_backends import LokyBackend
from joblib.externals.loky import ProcessPoolExecutor, process_executor
from joblib.externals.loky.process_executor import BrokenProcessPool
from joblib.parallel import get_active_backend

from ..structures import StructureFeatures
from ..targets import ENERGIES, GRADIENTS
from ._workers import Part, Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._problem import Problem

# Cost of a structure with forces, relative to one of the same size without labels of the energy.
# For an energy alone, the derivatives of the features are not needed.
COST_OF_ENERGY, COST_OF_GRADIENTS = 2.0, 20.0


class LostPart(RuntimeError):
    """The executor has started a new process, which has no part of the structures."""


class Processes(AbstractContextManager):
    """Processes of joblib's loky backend, which are addressed one by one.

    Parameters
    ----------
    n_jobs : int
        Number of processes.
    """

    def __init__(self, n_jobs: int) -> None:
        # One executor per process, because an executor chooses a process by itself.
        self._environment = get_active_backend()[0]._prepare_worker_env(n_jobs)
        self._executors = [self._executor() for _ in range(n_jobs)]

    def __len__(self) -> int:
        return len(self._executors)

    def submit(self, k: int, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call a function in process k."""
        return self._executors[k].submit(function, *arguments)

    def restart(self, k: int) -> None:
        """Replace process k, which was killed."""
        self._executors[k].shutdown(wait=True, kill_workers=True)
        self._executors[k] = self._executor()

    def _executor(self):
        return ProcessPoolExecutor(max_workers=1, env=self._environment)

    def __exit__(self, *error: object) -> None:
        # After an error, a process may be busy with a long task.
        for executor in self._executors:
            executor.shutdown(wait=True, kill_workers=error[0] is not None)


def processes_for(n_jobs: int | None) -> AbstractContextManager[Processes | None]:
    """Start processes for an iterative fit.

    Parameters
    ----------
    n_jobs : int or None
        The parameter of the estimator.

    Returns
    -------
    processes : context manager
        Yields `Processes`. It yields None for one job, and if joblib has another backend than loky,
        such as a cluster; the tasks are then distributed by `Workers`.
    """
    n = effective_n_jobs(n_jobs)
    if n == 1 or not isinstance(get_active_backend()[0], LokyBackend):
        return nullcontext()
    return Processes(n)


class ResidentWorkers(Workers):
    """Processes among which the structures of a fit are divided for its whole duration.

    A process that is killed is replaced once in each call of `map`, and its part of the call is
    computed again. If it is killed twice, `map` raises RuntimeError.

    Parameters
    ----------
    problem : Problem
        The problem of all structures.
    processes : Processes
        The processes; each gets one part of about the same cost.
    """

    def __init__(self, problem: Problem, processes: Processes) -> None:
        self.problem, self.n_jobs = problem, len(processes)
        self.bounds = equal_parts(costs(problem), len(processes))
        self._processes = processes
        self._folder: TemporaryDirectory[str] | None = None

    def _begin_all(self):
        joblib.dump(self.problem.without_structures(), self._path)
        for k in range(len(self)):
            self._begin(k)

    def _run(self, function, share, arguments):
        tasks = [(self._path, function, share, own) for own in arguments]
        futures = [self._submit(k, task) for k, task in enumerate(tasks)]
        for k, future in enumerate(futures):
            try:
                yield future.result()
            except (BrokenProcessPool, LostPart):
                yield self._again(k, tasks[k])

    def _submit(self, k, task):
        try:
            return self._processes.submit(k, _on_part, *task)
        except BrokenProcessPool as error:  # the process was killed since the last call
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return failed

    def _again(self, k, task):
        self._processes.restart(k)
        self._begin(k)
        try:
            return self._processes.submit(k, _on_part, *task).result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a process of the fit was killed twice, probably because the memory was full: "
                "lower n_jobs, or skqeq.set_memory_budget"
            ) from error

    def _begin(self, k):
        first, end = self.bounds[k : k + 2]
        structures = self.problem.features.structures[first:end]
        self._processes.submit(k, _begin, self._path, structures, first)

    def __exit__(self, *error: object) -> None:
        if self._folder is None:
            return
        if error[0] is None:
            for k in range(len(self)):
                with suppress(BrokenProcessPool):  # a killed process holds no part
                    self._processes.submit(k, _end, self._path)
        self._folder.cleanup()


def costs(problem: Problem) -> np.ndarray:
    """Approximate relative cost of the structures of a problem.

    Parameters
    ----------
    problem : Problem
        Structures and labels.

    Returns
    -------
    costs : ndarray of shape (n_structures,)
        Zero for structures of weight zero.
    """
    per_atom = np.ones(len(problem.features))
    for names, cost in ((ENERGIES, COST_OF_ENERGY), (GRADIENTS, COST_OF_GRADIENTS)):
        for name in set(names) & set(problem.labels.names):
            per_atom[problem.labels.known(name)] = cost
    return problem.features.structures.sizes * np.where(problem.weights > 0, per_atom, 0.0)


def equal_parts(costs: np.ndarray, n_parts: int) -> list[int]:
    """Divide structures into consecutive parts of about the same cost.

    Parameters
    ----------
    costs : ndarray of shape (n_structures,)
        Cost of each structure.
    n_parts : int
        Largest number of parts; there are fewer if there are not enough structures.

    Returns
    -------
    bounds : list of int
        The bounds of the parts, from 0 to n_structures.
    """
    total = np.cumsum(costs)
    edges = total[-1] * np.arange(1, n_parts) / n_parts
    inner = 1 + np.searchsorted(total, edges * (1.0 - 1e-12))
    return np.unique([0, *inner, len(costs)]).tolist()


# ---- in the processes ---------------------------------------------------------------------------

# The parts of this process; the keys are the files of the problems.
PARTS: dict[str, Part] = {}


def _begin(path, structures, first):
    # Loky takes stored results of more than 300 MB for a leak, and would start a new process.
    process_executor._MAX_MEMORY_LEAK_SIZE = np.inf
    problem = joblib.load(path)
    features = StructureFeatures(structures, problem.features.source)
    PARTS[path] = Part(problem.part(features, first), {})


def _end(path):
    PARTS.pop(path, None)


def _on_part(path, function, share, arguments):
    if path not in PARTS:
        raise LostPart(path)
    share.apply()
    with parallel_config("sequential"):  # a process must not start further processes
        return function(PARTS[path], *arguments)
