"""Locks of a process that may be forked while another thread holds them."""

from __future__ import annotations

import os
from typing import TypeVar

Lock = TypeVar("Lock")


def fork_safe(lock: Lock) -> Lock:
    """Hold a lock while the process is forked, so that it is free in parent and child.

    A fork copies only the thread that calls it. If another thread holds the lock at that moment,
    nobody in the child would ever release it, and what the lock protects could be half changed.

    Parameters
    ----------
    lock : Lock or RLock
        A lock that is only held for short times.

    Returns
    -------
    lock : Lock or RLock
        The same lock.
    """
    if hasattr(os, "register_at_fork"):
        acquire, release = lock.acquire, lock.release  # type: ignore[attr-defined]
        os.register_at_fork(before=acquire, after_in_parent=release, after_in_child=release)
    return lock
