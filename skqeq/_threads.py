"""Threads of linear algebra, where they do harm.

NumPy and SciPy each have a BLAS of their own, with threads of its own, which go on waiting for work
when a product is done. Where products are small and alternate between both, the threads of each
keep the cores from the other, and two cores take several times as long as one.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from threading import Lock

from threadpoolctl import ThreadpoolController

# Structures up to so many atoms have small products.
SMALL = 100


class OneThread(AbstractContextManager):
    """A context in which BLAS has one thread, of however many threads of Python are in it."""

    def __init__(self):
        self.lock, self.depth, self.limit = Lock(), 0, None

    def __enter__(self):
        with self.lock:
            if self.limit is None:
                self.limit = _controller().limit(limits=1, user_api="blas")
            self.depth += 1

    def __exit__(self, *error):
        with self.lock:
            self.depth -= 1
            if self.depth == 0:
                self.limit.restore_original_limits()
                self.limit = None


ONE_THREAD = OneThread()


def threads_for(structure):
    """A context for the linear algebra of one structure."""
    return ONE_THREAD if len(structure) <= SMALL else nullcontext()


@cache
def _controller():
    return ThreadpoolController()
