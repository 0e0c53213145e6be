"""One budget for all memory that is only there to save recomputation.

Three kinds of results are kept between steps: descriptors of structures, rows of a fit, and rows
of a cross-validation. All of them count against one number of bytes per process. Rows *claim* their
memory and hold it until they release it; descriptors take what nobody has claimed, and are dropped
when somebody claims more.
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
    """A number of bytes, and how many of them are claimed.

    Parameters
    ----------
    limit : int
        Bytes.

    Attributes
    ----------
    limit : int
        Bytes that all results together may take.
    claimed : int
        Bytes that have been claimed and not yet released.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.claimed = limit, 0
        self._lock = RLock()
        self._listeners: list[Callable[[], None]] = []

    @property
    def available(self) -> int:
        """Bytes that can still be claimed; descriptors may fill them until then."""
        return max(0, self.limit - self.claimed)

    def claim(self, n_bytes: int) -> bool:
        """Reserve memory if there is enough, for which descriptors are dropped.

        Parameters
        ----------
        n_bytes : int
            Size of what is to be kept.

        Returns
        -------
        granted : bool
            If True, `release` the same number later. If False, nothing was reserved.
        """
        with self._lock:
            if n_bytes > self.available:
                return False
            self.claimed += n_bytes
        self._notify()
        return True

    def release(self, n_bytes: int) -> None:
        """Give claimed memory back.

        Parameters
        ----------
        n_bytes : int
            As it was claimed.
        """
        with self._lock:
            self.claimed -= n_bytes

    def reservation(self) -> Reservation:
        """Claims of one object, released with it."""
        return Reservation(self)

    def set_limit(self, limit: int) -> None:
        """Change the limit; descriptors that no longer fit are dropped, claims stay."""
        self.limit = limit
        self._notify()

    @contextmanager
    def limited(self, limit: int) -> Iterator[None]:
        """A context with another limit."""
        before = self.limit
        self.set_limit(limit)
        try:
            yield
        finally:
            self.set_limit(before)

    def share(self, n_jobs: int) -> Share:
        """The part of each of several worker processes of what is available here."""
        return Share(self.available // n_jobs)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Register a store, whose `listener` drops what exceeds `available`."""
        self._listeners.append(listener)

    def _notify(self):
        for listener in self._listeners:
            listener()


class Reservation:
    """Memory that one object has claimed, released when the object is garbage-collected.

    A fit that fails, or is interrupted, must not shrink the budget of the next one, so claims are
    tied to the life of the object that keeps the memory.

    Parameters
    ----------
    budget : MemoryBudget
        Where it claims.

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
        # The finalizer must not refer to self, or self would live for ever.
        self._finalizer = finalize(self, _release, budget, self._sizes)

    @property
    def n_bytes(self) -> int:
        """Bytes that are claimed now."""
        return self._sizes[0]

    def claim(self, n_bytes: int) -> bool:
        """Claim more, see `MemoryBudget.claim`."""
        granted = self._budget.claim(n_bytes)
        if granted:
            self._sizes[0] += n_bytes
        return granted

    def release(self) -> None:
        """Give everything back; more can be claimed afterwards."""
        _release(self._budget, self._sizes)

    def __reduce__(self):
        # A copy in another process, or one for another object, has claimed nothing.
        return _empty_reservation, ()


def _empty_reservation():
    return BUDGET.reservation()


def _release(budget, sizes):
    n_bytes, sizes[0] = sizes[0], 0
    budget.release(n_bytes)


class Share:
    """The part of a budget that one worker process may use; the parent sends it with a task.

    Parameters
    ----------
    n_bytes : int
        Bytes.
    """

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self.process, self.machine = os.getpid(), platform.node()

    def apply(self) -> None:
        """Use this share as the budget of the current process, if it is a worker of the parent.

        Workers that are threads of the parent use its budget. Workers on other machines keep
        their own, since they do not compete with the parent for memory.
        """
        if platform.node() == self.machine and os.getpid() != self.process:
            BUDGET.set_limit(self.n_bytes)


def set_memory_budget(n_bytes: float) -> None:
    """Set how much memory this process may use to save recomputation.

    The budget covers descriptors of structures, rows of fits and rows of cross-validation. It does
    not cover what every fit needs, such as the sparse set and the triangle. If it is too small,
    results do not change but take longer.

    Parameters
    ----------
    n_bytes : float
        Bytes, such as ``8e9``; 0 keeps nothing. The default is 2 GiB, or the environment variable
        ``SKQEQ_MEMORY``, which is read when skqeq is imported. Worker processes on the same machine
        divide what the budget of their parent has left.

    See Also
    --------
    get_memory_budget : Read it.

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
    """How much memory this process may use to save recomputation.

    Returns
    -------
    n_bytes : int
        Bytes.

    See Also
    --------
    set_memory_budget : Change it.

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
