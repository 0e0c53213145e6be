"""Threads of linear algebra: fewer where products are small, and all of them back afterwards."""

from contextlib import nullcontext
from threading import Barrier, Thread

import pytest
from ase.build import molecule
from threadpoolctl import threadpool_info, threadpool_limits

from skqeq import check_structures
from skqeq._threads import ONE_THREAD, SMALL, threads_for


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
    with ONE_THREAD:
        assert blas() == {1}
        with ONE_THREAD:
            assert blas() == {1}
        assert blas() == {1}
    assert threads() == before
    with pytest.raises(ZeroDivisionError), ONE_THREAD:
        raise ZeroDivisionError
    assert threads() == before


def test_several_threads_of_python(before):
    """The last one out puts things back, in whatever order they came."""
    barrier, depths = Barrier(2), []

    def work(first):
        with ONE_THREAD:
            barrier.wait()
            if first:
                barrier.wait()  # the other one is out
                depths.append(ONE_THREAD.depth)
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
    assert threads_for(small) is ONE_THREAD
    assert isinstance(threads_for(range(SMALL + 1)), nullcontext)
