"""Linear algebra uses fewer threads for small products, and all threads afterwards."""

from contextlib import nullcontext
from threading import Barrier, Thread

import pytest
from ase.build import molecule
from threadpoolctl import threadpool_info, threadpool_limits

from skqeq import check_structures
from skqeq._threads import (
    ONE_BLAS_THREAD,
    SMALL_STRUCTURE,
    OneBlasThread,
    _blas_libraries,
    blas_threads_for,
)


def threads():
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}


@pytest.fixture
def before():
    with threadpool_limits(2, user_api="blas"):
        yield threads()


def blas():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_one_thread_and_back(before):
    assert blas() == {2}
    with ONE_BLAS_THREAD:
        assert blas() == {1}
        with ONE_BLAS_THREAD:
            assert blas() == {1}
        assert blas() == {1}
    assert threads() == before
    with pytest.raises(ZeroDivisionError), ONE_BLAS_THREAD:
        raise ZeroDivisionError
    assert threads() == before


def test_several_threads_of_python(before):
    """When the last thread leaves, it restores the limits, whatever the order of the threads."""
    barrier, depths = Barrier(2), []

    def work(first):
        with ONE_BLAS_THREAD:
            barrier.wait()
            if first:
                barrier.wait()  # The other thread has left at this point.
                depths.append(ONE_BLAS_THREAD.depth)
        if not first:
            barrier.wait()

    workers = [Thread(target=work, args=(first,)) for first in (True, False)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert depths == [1]
    assert threads() == before


def test_large_structures_keep_their_threads():
    [small] = check_structures([molecule("H2O")])
    assert blas_threads_for(small) is ONE_BLAS_THREAD
    assert isinstance(blas_threads_for(range(SMALL_STRUCTURE + 1)), nullcontext)


def test_a_limit_of_the_user_is_left_alone():
    with threadpool_limits(1, user_api="blas"):
        with ONE_BLAS_THREAD:
            assert not ONE_BLAS_THREAD._original
        assert blas() == {1}


def test_a_limit_that_was_set_meanwhile_stays(before):
    """A limit that another thread of Python or the code inside sets meanwhile is kept."""
    with ONE_BLAS_THREAD:
        limit = threadpool_limits(3, user_api="blas")
    try:
        assert blas() == {3}
    finally:
        limit.restore_original_limits()
        threadpool_limits(2, user_api="blas")


def test_an_interrupt_on_the_way_in(before, monkeypatch):
    limit = OneBlasThread()
    libraries = [*_blas_libraries(), InterruptedLibrary()]
    monkeypatch.setattr("skqeq._threads._blas_libraries", lambda: libraries)
    with pytest.raises(KeyboardInterrupt), limit:
        pytest.fail("the block must not run")
    assert limit.depth == 0
    assert threads() == before


class InterruptedLibrary:
    """A library whose use is interrupted by Ctrl-C."""

    num_threads = 2

    def set_num_threads(self, n):
        if n == 1:
            raise KeyboardInterrupt
