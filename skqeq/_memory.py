"""One budget for all memory that serves only to save recomputation.

Several kinds of results are kept for later steps: descriptors of structures, structures that were
read from a file, rows of a fit, and rows of a cross-validation. Together they must fit into one
number of bytes per process. Rows and structures *claim* memory, and hold it until they release it.
Descriptors fill the rest, and are dropped when more memory is claimed.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from weakref import finalize

__all__ = ["get_memory_budget", "set_memory_budget"]

DEFAULT = 2**31
VARIABLE = "SKQEQ_MEMORY"


class MemoryBudget:
    """A number of bytes that several owners of arrays share.

    Parameters
    ----------
    limit : int
        Bytes that all arrays together may take.

    Attributes
    ----------
    limit : int
        As given, or as changed by `set_limit`.
    claimed : int
        Bytes that are claimed at present.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.claimed = limit, 0
        self._lock = RLock()
        self._listeners: list[Callable[[], None]] = []

    @property
    def available(self) -> int:
        """Bytes that are not claimed; descriptors may fill them."""
        return max(0, self.limit - self.claimed)

    def claim(self, n_bytes: int) -> bool:
        """Claim memory if enough is available. Descriptors are dropped to make room.

        Parameters
        ----------
        n_bytes : int
            Size of the arrays to be kept.

        Returns
        -------
        granted : bool
            True if the memory is claimed; `release` it later. False if there is not enough.
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
            The number that was claimed.
        """
        with self._lock:
            self.claimed -= n_bytes

    def reservation(self) -> Reservation:
        """Claims that end with the life of their owner, see `Reservation`."""
        return Reservation(self)

    def set_limit(self, limit: int) -> None:
        """Change the limit. Descriptors that do not fit are dropped; claims remain valid."""
        self.limit = limit
        self._notify()

    @contextmanager
    def limited(self, limit: int) -> Iterator[None]:
        """A context manager that sets another limit for a while."""
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
        """Call `listener` whenever less may be available, for a store to shrink."""
        self._listeners.append(listener)

    def _notify(self):
        for listener in self._listeners:
            listener()


class Reservation:
    """Claims of one owner, which are released when the owner is garbage-collected.

    The owner of arrays makes a reservation and keeps it as an attribute. If a fit fails or is
    interrupted, its memory is available again for the next one.

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
        # The list, not self: a finalizer that refers to its object would keep it alive.
        self._finalizer = finalize(self, _release, budget, self._sizes)

    @property
    def n_bytes(self) -> int:
        """Bytes that are claimed at present."""
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
        # A copy, for instance in another process, starts without claims.
        return _empty_reservation, ()


def _empty_reservation():
    return BUDGET.reservation()


def _release(budget, sizes):
    n_bytes, sizes[0] = sizes[0], 0
    budget.release(n_bytes)


class Share:
    """The part of a budget that one worker process may use. It is sent to the worker with a task.

    Parameters
    ----------
    n_bytes : int
        Bytes per worker.
    """

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self.process, self.machine = os.getpid(), platform.node()

    def apply(self) -> None:
        """Make this share the budget of the current process, if it is a worker on this machine.

        A worker that is a thread uses the budget of its process. A worker on another machine keeps
        its own budget, because it does not compete with the parent for memory.
        """
        if platform.node() == self.machine and os.getpid() != self.process:
            BUDGET.set_limit(self.n_bytes)


def set_memory_budget(n_bytes: float) -> None:
    """Set how much memory this process may use to save recomputation.

    The budget covers descriptors of structures, structures that were read from a file, rows of fits
    and rows of cross-validation. The memory that a fit cannot do without, such as the sparse set
    and one block of features, comes on top. A smaller budget never changes a result; it only takes
    more time.

    Parameters
    ----------
    n_bytes : float
        Bytes, such as ``8e9``; with 0 nothing is kept. The default is 2 GiB, unless the environment
        variable ``SKQEQ_MEMORY`` holds another number when skqeq is imported. Worker processes
        of a fit divide what is available in their parent, if they run on the same machine. Each
        worker process of a search by scikit-learn has the full default.

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
    """Return how much memory this process may use to save recomputation.

    Returns
    -------
    n_bytes : int
        Bytes.

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
    """A non-negative number of bytes as an int."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0.0 <= number < float("inf"):
        raise ValueError(f"{name} must be a number of bytes, 0 or more, got {value!r}")
    return int(number)


BUDGET = MemoryBudget(_n_bytes(os.environ.get(VARIABLE, DEFAULT), VARIABLE))
