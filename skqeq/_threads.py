"""How many threads BLAS uses: one for small structures, what the user has set for all others.

NumPy and SciPy each bring a BLAS with threads of its own. After a product these threads wait
actively for the next one, for some 20 ms. Where small products alternate between both libraries,
the waiting threads of one keep the cores from the other, and two cores take two to three times as
long as one. Products of large structures gain from several threads.

No BLAS that NumPy and SciPy are shipped with can limit the threads of one calling thread: the limit
of OpenBLAS is one number per process (its ``openblas_set_num_threads_local`` sets the same number
unless it was built with OpenMP). Another Python thread can therefore see the limit of one. The
policy keeps the harm small:

- The limit lasts for the linear algebra of one small structure, not for a fit or a prediction.
- A library that already has one thread is left alone. A program with threads of its own should
  limit BLAS once, for all of them (`threadpoolctl.threadpool_limits`, ``OPENBLAS_NUM_THREADS=1``):
  then nothing is ever changed here.
- The last Python thread that leaves restores what the first one found, also after an exception.
- A limit that somebody else has set in the meantime is not overwritten.

What remains: a thread that enters a `threadpool_limits` context of its own at the very moment of
our limit will find one thread, and restore that when it leaves.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from threading import Lock

from threadpoolctl import ThreadpoolController

# Largest number of atoms for which one thread is faster.
SMALL_STRUCTURE = 100


class OneBlasThread(AbstractContextManager):
    """A context in which BLAS has one thread; several Python threads can be in it.

    Attributes
    ----------
    depth : int
        How often it was entered and not yet left, by all Python threads.
    """

    def __init__(self):
        self.depth = 0
        self._lock = Lock()
        self._found = []  # libraries that were changed, with their number of threads

    def __enter__(self):
        with self._lock:
            self.depth += 1
            try:
                if self.depth == 1:
                    self._limit()
            except BaseException:  # an interrupt: without a return there is no call of __exit__
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
                self._found.append((library, n_threads))
                library.set_num_threads(1)

    def _leave(self):
        self.depth -= 1
        if self.depth == 0:
            while self._found:
                library, n_threads = self._found.pop()
                # Any other number was set by somebody else since, who wants to keep it.
                if library.num_threads == 1:
                    library.set_num_threads(n_threads)


ONE_BLAS_THREAD = OneBlasThread()


def blas_threads_for(structure):
    """A context with the number of BLAS threads that suits the linear algebra of one structure.

    Parameters
    ----------
    structure : Structure
        Only its number of atoms matters.

    Returns
    -------
    context : context manager
        Can be entered by several Python threads, and again inside itself.
    """
    return ONE_BLAS_THREAD if len(structure) <= SMALL_STRUCTURE else nullcontext()


@cache
def _blas_libraries():
    """The BLAS libraries of this process; looking for them takes milliseconds."""
    return ThreadpoolController().select(user_api="blas").lib_controllers
