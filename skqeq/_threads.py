"""The policy for BLAS threads: one thread for small structures, no change for large ones.

NumPy and SciPy each contain a BLAS library with a thread pool of its own. After a product, these
threads wait actively for the next product, for about 20 ms. If small products alternate between
both libraries, the waiting threads of one library block the cores for the other, and two threads
take two to three times as long as one. Products of large structures are faster with all threads.

The number of threads is a setting of the whole process. The OpenBLAS libraries of NumPy and SciPy
cannot limit the threads of a single Python thread: ``openblas_set_num_threads_local`` exists, but
changes the same global number in their builds. Other Python threads are therefore affected while
the limit is active. The policy is as follows:

- The limit is active during the linear algebra of one small structure, never longer.
- If a library already uses one thread, it is not touched. A program that runs skqeq in several
  Python threads should itself limit BLAS to one thread, by ``OPENBLAS_NUM_THREADS=1`` or
  `threadpoolctl.threadpool_limits`. Then skqeq changes nothing at all.
- When the last Python thread leaves the context, the original numbers are restored, also after an
  exception.
- A number that another Python thread has set in the meantime is not overwritten.

One case remains: if another Python thread enters a `threadpool_limits` context while the limit is
active, it takes one thread for the original number, and restores one thread at its end.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from threading import Lock

from threadpoolctl import ThreadpoolController

# Largest number of atoms for which one thread is faster than several.
SMALL_STRUCTURE = 100


class OneBlasThread(AbstractContextManager):
    """A context in which BLAS uses one thread. Several Python threads can be inside.

    Attributes
    ----------
    depth : int
        Number of times that the context was entered, less the number of times that it was left.
    """

    def __init__(self):
        self.depth = 0
        self._lock = Lock()
        self._original = []  # libraries that were changed, and their numbers of threads

    def __enter__(self):
        with self._lock:
            self.depth += 1
            try:
                if self.depth == 1:
                    self._limit()
            except BaseException:  # such as KeyboardInterrupt: __exit__ will not be called
                self._leave()
                raise
        return self

    def __exit__(self, *error):
        with self._lock:
            self._leave()

    def _limit(self):
        for library in _blas_libraries():
            n_threads = library.num_threads
            if n_threads > 1:
                self._original.append((library, n_threads))
                library.set_num_threads(1)

    def _leave(self):
        self.depth -= 1
        if self.depth == 0:
            while self._original:
                library, n_threads = self._original.pop()
                # Any other number was set by another Python thread, and is valid.
                if library.num_threads == 1:
                    library.set_num_threads(n_threads)


ONE_BLAS_THREAD = OneBlasThread()


def blas_threads_for(structure):
    """A context for the linear algebra of one structure.

    Parameters
    ----------
    structure : Structure
        Its number of atoms decides whether BLAS is limited to one thread.

    Returns
    -------
    context : context manager
        It can be nested, and used by several Python threads at the same time.
    """
    return ONE_BLAS_THREAD if len(structure) <= SMALL_STRUCTURE else nullcontext()


@cache
def _blas_libraries():
    """The BLAS libraries of this process. The search takes milliseconds, so it is done once."""
    return ThreadpoolController().select(user_api="blas").lib_controllers
