"""One budget for all results that are stored only to avoid computing them again.

Several kinds of results are stored for later steps: descriptors of structures, structures that were
read from a file, rows of a fit, and rows of a cross-validation. Their total size must stay below
one limit, in bytes, per process. Rows and structures *claim* memory until they release it.
Descriptors use the remaining memory, and are deleted when more memory is claimed.

Memory is claimed by ``structures/_collection.py``, ``models/_derivative_rows.py``,
``models/_geometry_store.py`` and ``models/_cv_stream.py``; ``features/_cache.py`` stores
descriptors in the rest, and ``models/_workers.py`` and ``models/_resident_workers.py`` divide the
budget among worker processes.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import RLock
from weakref import finalize

from ._locks import fork_safe

__all__ = ["get_memory_budget", "set_memory_budget"]

# Whether features are computed for a prediction, which rarely needs those of a structure again.
PREDICTING = ContextVar("PREDICTING", default=False)

DEFAULT = 2**31
VARIABLE = "SKQEQ_MEMORY"


class MemoryBudget:
    """A limit, in bytes, for the total size of arrays that different objects store.

    Parameters
    ----------
    limit : int
        Largest total size of all arrays, bytes.

    Attributes
    ----------
    limit : int
        The limit, which `set_limit` can change.
    claimed : int
        Number of bytes that are currently claimed.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.claimed = limit, 0
        self._lock = fork_safe(RLock())
        self._listeners: list[Callable[[], None]] = []

    @property
    def available(self) -> int:
        """Number of bytes that are not claimed; descriptors may use them."""
        return max(0, self.limit - self.claimed)

    def claim(self, n_bytes: int) -> bool:
        """Claim memory if enough is available; descriptors that no longer fit are deleted.

        Parameters
        ----------
        n_bytes : int
            Size of the arrays that the caller wants to store.

        Returns
        -------
        granted : bool
            True if the memory was claimed; it must be released later. False if there was not
            enough memory.
        """
        with self._lock:
            if n_bytes > self.available:
                return False
            self.claimed += n_bytes
        self._notify()
        return True

    def release(self, n_bytes: int) -> None:
        """Return claimed memory.

        Parameters
        ----------
        n_bytes : int
            Number of bytes that were claimed.
        """
        with self._lock:
            self.claimed -= n_bytes

    def reservation(self) -> Reservation:
        """Make a `Reservation`, whose claims end when its owner is deleted."""
        return Reservation(self)

    def set_limit(self, limit: int) -> None:
        """Change the limit. Descriptors that no longer fit are deleted; claims remain valid."""
        self.limit = limit
        self._notify()

    @contextmanager
    def limited(self, limit: int) -> Iterator[None]:
        """A context manager that sets another limit temporarily."""
        before = self.limit
        self.set_limit(limit)
        try:
            yield
        finally:
            self.set_limit(before)

    def share(self, n_jobs: int) -> Share:
        """Divide the available memory among `n_jobs` worker processes."""
        return Share(self.available // n_jobs)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever less memory may be available, so that a cache can shrink."""
        self._listeners.append(listener)

    def _notify(self):
        for listener in self._listeners:
            listener()


class Reservation:
    """Claims of one owner, which are released when the owner is garbage-collected.

    An object that stores arrays makes a reservation and holds it as an attribute. If a fit fails or
    is interrupted, its memory is therefore available for the next fit.

    Parameters
    ----------
    budget : MemoryBudget
        The budget in which memory is claimed.

    Examples
    --------
    >>> from skqeq._memory import BUDGET
    >>> reservation = BUDGET.reservation()
    >>> reservation.claim(10**6)
    True
    >>> reservation.release()
    """

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget, self._sizes = budget, [0]
        # The finalizer gets the list and not self, because a reference to self would prevent
        # garbage collection.
        self._finalizer = finalize(self, _release, budget, self._sizes)

    @property
    def n_bytes(self) -> int:
        """Number of bytes that are currently claimed."""
        return self._sizes[0]

    def claim(self, n_bytes: int) -> bool:
        """Claim memory, see `MemoryBudget.claim`."""
        granted = self._budget.claim(n_bytes)
        if granted:
            self._sizes[0] += n_bytes
        return granted

    def release(self) -> None:
        """Return all claimed memory. The reservation can be used again."""
        _release(self._budget, self._sizes)

    def __reduce__(self):
        # A copy, for example in another process, starts without claims.
        return _empty_reservation, ()


def _empty_reservation():
    return BUDGET.reservation()


def _release(budget, sizes):
    n_bytes, sizes[0] = sizes[0], 0
    budget.release(n_bytes)


class Share:
    """The part of a budget that one worker process may use; it is sent to the worker with a task.

    Parameters
    ----------
    n_bytes : int
        Number of bytes per worker.
    """

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self.process, self.machine = os.getpid(), platform.node()

    def apply(self) -> None:
        """Make this share the budget of the current process, if it is a worker on this machine.

        A worker that is a thread of the parent process shares the parent's budget. The budget of a
        worker on another machine does not change, because it does not share memory with the parent.
        """
        if platform.node() == self.machine and os.getpid() != self.process:
            BUDGET.set_limit(self.n_bytes)


def set_memory_budget(n_bytes: float) -> None:
    """Set how much memory this process may use to avoid recomputation.

    The budget covers descriptors of structures, structures that were read from a file, rows of fits
    and rows of cross-validation. It does not include the memory that every fit needs, such as the
    sparse set and one block of features. A smaller budget does not change any result, but
    computations take longer.

    Parameters
    ----------
    n_bytes : float
        Number of bytes, such as ``8e9``; with 0 nothing is stored. The default is 2 GiB, unless the
        environment variable ``SKQEQ_MEMORY`` holds another number when it is first needed. The
        worker processes of a fit divide the available memory of their parent among them, if they
        run on the same machine. Each worker process of a scikit-learn search has the full default.

    See Also
    --------
    get_memory_budget : Return the current budget.

    Examples
    --------
    >>> import skqeq
    >>> before = skqeq.get_memory_budget()
    >>> skqeq.set_memory_budget(8e9)
    >>> skqeq.get_memory_budget()
    8000000000
    >>> skqeq.set_memory_budget(before)
    """
    BUDGET.set_limit(_n_bytes(n_bytes, "n_bytes"))


def get_memory_budget() -> int:
    """Return how much memory this process may use to avoid recomputation.

    Returns
    -------
    n_bytes : int
        Number of bytes.

    See Also
    --------
    set_memory_budget : Change the budget.

    Examples
    --------
    >>> import skqeq
    >>> skqeq.get_memory_budget() >= 0
    True
    """
    return BUDGET.limit


def _n_bytes(value, name):
    """Check a number of bytes, and convert it to an int."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0.0 <= number < float("inf"):
        raise ValueError(f"{name} must be a number of bytes, 0 or more, got {value!r}")
    return int(number)


BUDGET = MemoryBudget(_n_bytes(os.environ.get(VARIABLE, DEFAULT), VARIABLE))
