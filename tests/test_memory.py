"""One memory budget for all data that are stored to avoid recomputation."""

import gc
import os
import pickle
import subprocess
import sys

import pytest

import skqeq
from skqeq._memory import BUDGET, MemoryBudget, Share


def test_claims_fit_into_the_limit():
    budget = MemoryBudget(100)
    assert budget.claim(60) and budget.available == 40
    assert not budget.claim(41) and budget.available == 40
    assert budget.claim(40) and budget.available == 0
    budget.release(60)
    assert budget.available == 60
    budget.set_limit(50)  # The new limit is lower than the memory that is already claimed.
    assert budget.available == 10
    budget.set_limit(30)
    assert budget.available == 0 and not budget.claim(1) and budget.claim(0)


def test_stores_make_room_for_claims():
    budget, seen = MemoryBudget(100), []
    budget.on_change(lambda: seen.append(budget.available))
    budget.claim(70)
    budget.claim(70)
    with budget.limited(80):
        pass
    assert seen == [30, 10, 30]


def test_a_reservation_ends_with_its_owner():
    budget = MemoryBudget(100)
    reservation = budget.reservation()
    assert reservation.claim(30) and reservation.claim(30) and not reservation.claim(50)
    assert reservation.n_bytes == 60 and budget.claimed == 60
    reservation.release()
    assert budget.claimed == 0 == reservation.n_bytes
    assert reservation.claim(80)
    del reservation
    gc.collect()
    assert budget.claimed == 0


def test_a_pickled_reservation_has_claimed_nothing():
    reservation = BUDGET.reservation()
    assert reservation.claim(1000)
    before = BUDGET.claimed
    copy = pickle.loads(pickle.dumps(reservation))
    assert copy.n_bytes == 0 and BUDGET.claimed == before


def test_limit_is_back_after_an_error():
    budget = MemoryBudget(100)
    with pytest.raises(ZeroDivisionError), budget.limited(5):
        assert budget.limit == 5
        raise ZeroDivisionError
    assert budget.limit == 100


def test_public_functions(memory_budget):
    memory_budget(8e9)
    assert skqeq.get_memory_budget() == 8_000_000_000 == BUDGET.limit
    memory_budget(0)
    assert BUDGET.available == 0


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "much", None])
def test_bad_budgets(value):
    before = skqeq.get_memory_budget()
    with pytest.raises(ValueError, match="n_bytes must be a number of bytes"):
        skqeq.set_memory_budget(value)
    assert skqeq.get_memory_budget() == before


@pytest.mark.parametrize("value, printed", [(None, 2**31), ("3e6", 3_000_000), ("0", 0)])
def test_environment(value, printed, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "SKQEQ_MEMORY"}
    if value is not None:
        environment["SKQEQ_MEMORY"] = value
    code = "from skqeq._memory import BUDGET; print(BUDGET.limit)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == printed


def test_bad_environment(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "import skqeq; skqeq.QEqRegressor"],
        env=os.environ | {"SKQEQ_MEMORY": "lots"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "SKQEQ_MEMORY must be a number of bytes, 0 or more, got 'lots'" in done.stderr


def test_workers_share_what_is_left(memory_budget):
    limit = BUDGET.claimed + 1000  # other tests may have left structures in memory
    memory_budget(limit)
    reservation = BUDGET.reservation()
    assert reservation.claim(200)
    share = BUDGET.share(4)
    assert share.n_bytes == 200
    share.apply()  # In a thread of the same process, the limit stays the same.
    assert BUDGET.limit == limit
    share.process = -1  # The share acts as in a worker, which is another process.
    share.machine, here = "elsewhere", share.machine
    share.apply()
    assert BUDGET.limit == limit
    share.machine = here
    share.apply()
    assert BUDGET.limit == 200


def test_shares_can_be_sent():
    share = pickle.loads(pickle.dumps(Share(7)))
    assert (share.n_bytes, share.process) == (7, os.getpid())
