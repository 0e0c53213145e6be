"""The policy for BLAS threads: one thread for small structures, no change for large ones.

NumPy and SciPy each contain a BLAS library with a separate thread pool. After a product, the
threads wait actively for the next product for about 20 ms. If small products alternate between the
two libraries, the waiting threads of one library occupy the cores that the other one needs: two
threads take two to three times as long as one. Products for large structures are faster with all
threads.

The number of threads is a setting of the whole process. The OpenBLAS libraries of NumPy and SciPy
cannot limit the BLAS threads of a single Python thread: ``openblas_set_num_threads_local`` exists,
but changes the same global number in their builds. The limit therefore affects other Python threads
as well. The policy is as follows:

- The limit is active only during the linear algebra of one small structure.
- If a library already uses one thread, its setting is not changed. A program that runs skqeq in
  several Python threads should therefore limit BLAS to one thread, with ``OPENBLAS_NUM_THREADS=1``
  or `threadpoolctl.threadpool_limits`.
- When the last Python thread leaves the context, the original numbers are restored, even after an
  exception.
- If another Python thread has set a number in the meantime, this number is not overwritten.

One problem remains. If another Python thread enters a `threadpool_limits` context while the limit
is active, that context saves one thread as the original number, and restores it at its end.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from threading import Lock

from threadpoolctl import ThreadpoolController

from ._locks import fork_safe

# Largest number of atoms for which one thread is faster than several.
SMALL_STRUCTURE = 100


class OneBlasThread(AbstractContextManager):
    """A context in which BLAS uses one thread; several Python threads can be in it.

    Attributes
    ----------
    depth : int
        Number of times that the context was entered, minus the number of times that it was left.
    """

    def __init__(self):
        self.depth = 0
        self._lock = fork_safe(Lock())
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
                # Another Python thread has set any other number, which must not be overwritten.
                if library.num_threads == 1:
                    library.set_num_threads(n_threads)


ONE_BLAS_THREAD = OneBlasThread()


def blas_threads_for(structure):
    """A context for the linear algebra of one structure.

    Parameters
    ----------
    structure : Structure
        BLAS is limited to one thread if the structure is small.

    Returns
    -------
    context : context manager
        The context can be nested, and several Python threads can use it at the same time.
    """
    return ONE_BLAS_THREAD if len(structure) <= SMALL_STRUCTURE else nullcontext()


@cache
def _blas_libraries():
    """The BLAS libraries of this process. The search takes milliseconds, so it is done once."""
    return ThreadpoolController().select(user_api="blas").lib_controllers
