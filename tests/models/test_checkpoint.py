"""Fits that are killed and continue, and fits by several processes."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    KQEqRegressor,
    QEqRegressor,
    SOAPFeaturizer,
    StructureBlocks,
    make_targets,
)
from skqeq.datasets import load_molecules, load_water
from skqeq.models import _checkpoint, _levels, _resident_workers

FILE = _checkpoint.FILE


class Stopped(RuntimeError):
    """Raised in place of a kill."""


def regressor(**options):
    noise = {"sigma_energy": 0.05, "sigma_forces": 0.3}
    return GAPKQEqRegressor(**({"amplitude_gap": 10.0, "tol": 1e-20} | noise | options))


@pytest.fixture(scope="module")
def water():
    """Features and labels of small clusters; some have labels of energies only."""
    X, y = load_water()
    small = [i for i, atoms in enumerate(X) if atoms.info["n_molecules"] <= 3][:24]
    X, y = [X[i] for i in small], y[["energy", "forces"]][small]
    y["forces"][::5] = None
    soap = SOAPFeaturizer(r_cut=3.0, cutoff_width=1.5, n_max=3, l_max=2)
    part = make_pipeline(soap, CURSparsifier(n_points=12))
    return StructureBlocks([("chi", part), ("gap", part)]).fit_transform(X), y


@pytest.fixture(scope="module")
def whole(water):
    return regressor().fit(*water)


@pytest.fixture
def small_levels(monkeypatch):
    """Smaller problems also for the few sparse points of these tests."""
    monkeypatch.setattr(_levels, "LEVELS", ((6, 2), (3, 2)))
    monkeypatch.setattr(_levels, "MIN_STRUCTURES", 4)


@pytest.fixture
def stop_after(monkeypatch):
    """Return a function that stops the next fit when its progress is stored for the n-th time."""
    monkeypatch.setattr(_checkpoint, "INTERVAL", 0.0)
    store = _checkpoint.Checkpoint.store

    def stop(n, error=Stopped):
        count = []

        def counting(self, progress):
            store(self, progress)
            count.append(progress)
            if len(count) == n:
                raise error

        monkeypatch.setattr(_checkpoint.Checkpoint, "store", counting)
        return count

    return stop


# The length of a step is known to about 1e-8. Fits with large `tol` end before they forget it.
ROUGH = 1e-6


def assert_same_fit(model, other, X, tol=1e-9):
    """Compare weights, relative to the largest one, and predictions."""
    size = np.abs(other.coef_).max()
    assert_allclose(model.coef_, other.coef_, rtol=0, atol=tol * size)
    found, expected = model.predict(X), other.predict(X)
    assert_allclose(found["energy"], expected["energy"], rtol=0, atol=10 * tol)
    forces = [np.concatenate([np.ravel(f) for f in p["forces"]]) for p in (found, expected)]
    assert_allclose(*forces, rtol=0, atol=10 * tol)


@pytest.mark.parametrize("tol", [1e-4, 1e-13])
def test_a_fit_continues_with_the_same_steps(tol, water, stop_after, tmp_path):
    """Also a rough fit, whose weights depend on the steps, ends with the same weights."""
    folder = tmp_path / "new" / "folder"
    options = {"sigma_energy": 0.01, "sigma_forces": 0.1, "tol": tol, "checkpoint": folder}
    stored = stop_after(99)
    once = regressor(**options).fit(*water)
    positions = [progress.position for progress in stored]
    assert len(positions) == once.n_iter_
    second = [p.iteration for p in positions].index(1)
    # The first step, a step by conjugate gradients, the next iteration, and the last step.
    for n in (1, 4, second + 1, len(positions)):
        stop_after(n)
        fit = regressor(**options)
        with pytest.raises(Stopped):
            fit.fit(*water)
        assert not hasattr(fit, "coef_")  # an error leaves no weights in the model
        again = stop_after(99)
        fit.fit(*water)
        assert again[0].position[:1] == positions[n - 1][:1]
        assert again[0].position.n_reuses == positions[n - 1].n_reuses
        assert list(folder.iterdir()) == []
        assert_same_fit(fit, once, water[0], ROUGH if tol > 1e-8 else 1e-8)
        for step, same in zip(fit.fit_history_, once.fit_history_, strict=tol > 1e-8):
            assert step.keys() == same.keys()
            assert step["loss"] == pytest.approx(same["loss"], rel=1e-7)
        seconds = [step["seconds"] for step in fit.fit_history_]
        assert seconds == sorted(seconds)


def test_a_smaller_problem_continues(water, stop_after, small_levels, tmp_path):
    stored = stop_after(99)
    once = regressor(checkpoint=tmp_path, tol=1e-4).fit(*water)
    levels = [progress.level for progress in stored]
    assert set(levels) == {0, 1, _checkpoint.FULL}
    for n in (2, levels.index(1) + 1, levels.index(_checkpoint.FULL) + 2):
        stop_after(n)
        fit = regressor(checkpoint=tmp_path, tol=1e-4)
        with pytest.raises(Stopped):
            fit.fit(*water)
        again = stop_after(99)
        fit.fit(*water)
        assert [progress.level for progress in again] == levels[n - 1 :]
        assert_same_fit(fit, once, water[0], ROUGH)


def test_fixed_point(water, stop_after, tmp_path):
    X, y = load_molecules()
    soap = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2)
    phi = make_pipeline(soap, CURSparsifier(n_points=3)).fit_transform(X[:12])
    y = KQEqRegressor().fit(phi, y["dipole"][:12]).predict_targets(phi, ["energy"])
    options = {"algorithm": "fixed_point", "sigma_energy": 0.1, "tol": 1e-12}
    once = KQEqRegressor(**options).fit(phi, y)
    stop_after(3)
    fit = KQEqRegressor(**options, checkpoint=tmp_path)
    with pytest.raises(Stopped):
        fit.fit(phi, y)
    stop_after(99)
    fit.fit(phi, y)
    assert fit.n_iter_ == once.n_iter_ > 3
    assert_allclose(fit.coef_, once.coef_, rtol=0, atol=1e-8 * np.abs(once.coef_).max())


def test_an_interrupt_keeps_the_last_weights(water, whole, stop_after, tmp_path, monkeypatch):
    stop_after(2, KeyboardInterrupt)
    monkeypatch.setattr(_checkpoint, "INTERVAL", 3600.0)
    fit = regressor(checkpoint=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit.fit(*water)
    # The progress is written, although the last minute is not over.
    assert (tmp_path / FILE).exists()
    assert 1 <= fit.n_iter_ < whole.n_iter_
    assert np.isfinite(fit.predict(water[0])["energy"]).all()
    stop_after(99)
    fit.fit(*water)
    assert_same_fit(fit, whole, water[0])
    assert not (tmp_path / FILE).exists()


def test_at_most_one_file_per_minute(water, stop_after, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(_checkpoint.Checkpoint, "_write", lambda self: written.append(1))
    stored = stop_after(99)
    regressor(checkpoint=tmp_path).fit(*water)
    assert len(written) == len(stored) > 1
    monkeypatch.setattr(_checkpoint, "INTERVAL", 60.0)
    written.clear()
    regressor(checkpoint=tmp_path).fit(*water)
    assert written == []


@pytest.fixture
def stopped(water, stop_after, tmp_path):
    stop_after(2)
    with pytest.raises(Stopped):
        regressor(checkpoint=tmp_path).fit(*water)
    stop_after(99)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sigma_forces", {"sigma_forces": 0.31}),
        ("amplitude_gap", {"amplitude_gap": 9.0}),
        ("response__hardness", {"response": skqeq.QEq(hardness=3.0)}),
        ("response", {"response": ChargeFlow()}),
    ],
)
def test_other_parameters_are_refused(name, options, water, stopped):
    with pytest.raises(ValueError, match=rf"belongs to another fit, whose .*\b{name}\b.* differ"):
        regressor(checkpoint=stopped, **options).fit(*water)
    assert (stopped / FILE).exists()


def test_other_data_are_refused(water, stopped):
    X, y = water
    fit = regressor(checkpoint=stopped)
    changed = y.copy()
    changed["energy"][3] += 1e-6
    others = {
        "structures": (X[::-1], y[::-1]),
        "labels": (X, changed),
        "sample_weight": (X, y, np.linspace(1.0, 2.0, len(y))),
    }
    for name, data in others.items():
        with pytest.raises(ValueError, match=f"whose .*{name}.* were different"):
            fit.fit(*data)
    # Other sparse points, of which there are as many.
    soap = SOAPFeaturizer(r_cut=3.0, cutoff_width=1.5, n_max=3, l_max=2)
    part = make_pipeline(soap, CURSparsifier(n_points=12)).fit(X.structures[12:])
    blocks = [("chi", part), ("gap", part)]
    phi = StructureBlocks(blocks).fit(X.structures[12:]).transform(X.structures)
    with pytest.raises(ValueError, match="whose features were different"):
        fit.fit(phi, y)


def test_tolerances_and_processes_may_change(water, whole, stopped):
    fit = regressor(checkpoint=str(stopped), max_iter=40, tol=1e-19, verbose=0, n_jobs=2)
    assert_same_fit(fit.fit(*water), whole, water[0])


def test_a_damaged_file(water, stopped):
    content = (stopped / FILE).read_bytes()
    (stopped / FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="is not a checkpoint, or is damaged"):
        regressor(checkpoint=stopped).fit(*water)


def test_a_full_disk_does_not_end_the_fit(water, whole, stop_after, tmp_path, monkeypatch):
    def full(path):
        raise OSError("No space left on device")

    stop_after(99)
    monkeypatch.setattr(_checkpoint, "replacing", full)
    fit = regressor(checkpoint=tmp_path)
    with pytest.warns(UserWarning, match="no checkpoint could be written: No space left"):
        fit.fit(*water)
    assert_same_fit(fit, whole, water[0])


def test_parameter(molecules, dipoles, tmp_path):
    """A linear fit does not use the folder; models with the parameter can be copied and saved."""
    folder = tmp_path / "folder"
    for model in (QEqRegressor(checkpoint=str(folder)), QEqRegressor(checkpoint=folder)):
        assert clone(model).checkpoint == model.checkpoint
        model.fit(molecules, dipoles)
        assert not folder.exists()
        skqeq.save(model, tmp_path / "model.skqeq")
        again = skqeq.load(tmp_path / "model.skqeq")
        assert again.checkpoint is None
        assert (again.predict(molecules) == model.predict(molecules)).all()
    with pytest.raises(ValueError, match="checkpoint"):
        QEqRegressor(checkpoint=3).fit(molecules, dipoles)


# ---- processes ----------------------------------------------------------------------------------

SCRIPT = """
import sys
import numpy as np
from sklearn.pipeline import make_pipeline
from skqeq import CURSparsifier, GAPKQEqRegressor, SOAPFeaturizer, StructureBlocks
from skqeq.datasets import load_water
from skqeq.models import _checkpoint

_checkpoint.INTERVAL = 0.0
folder, weights, wait = sys.argv[1:]
X, y = load_water()
small = [i for i, atoms in enumerate(X) if atoms.info["n_molecules"] <= 3][:24]
soap = SOAPFeaturizer(r_cut=3.0, cutoff_width=1.5, n_max=3, l_max=2)
part = make_pipeline(soap, CURSparsifier(n_points=12))
model = make_pipeline(
    StructureBlocks([("chi", part), ("gap", part)]),
    GAPKQEqRegressor(10.0, sigma_energy=0.05, sigma_forces=0.3, tol=1e-13, checkpoint=folder),
)
if wait == "wait":
    import time
    store, n = _checkpoint.Checkpoint.store, []

    def slow(self, progress):
        store(self, progress)
        n.append(progress)
        if len(n) == 2:
            print("stored", flush=True)
            time.sleep(600)

    _checkpoint.Checkpoint.store = slow
model.fit([X[i] for i in small], y[["energy", "forces"]][small])
np.save(weights, model[-1].coef_)
"""


def test_a_killed_process_continues(tmp_path):
    def run(folder, wait="no", name="coef.npy"):
        arguments = [sys.executable, "-P", "-c", SCRIPT, str(folder), str(tmp_path / name), wait]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)

    with run(tmp_path / "a", "wait") as killed:
        assert killed.stdout.readline() == "stored\n"
        killed.send_signal(signal.SIGKILL)
    assert (tmp_path / "a" / FILE).exists()
    with run(tmp_path / "a") as continued, run(tmp_path / "b", name="whole.npy") as whole:
        assert continued.wait() == whole.wait() == 0
    coef, expected = np.load(tmp_path / "coef.npy"), np.load(tmp_path / "whole.npy")
    assert_allclose(coef, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    assert not (tmp_path / "a" / FILE).exists()


def test_equal_weights_by_processes(water, whole, small_levels):
    assert_same_fit(regressor(n_jobs=2).fit(*water), whole, water[0])


def test_dipole_magnitudes_by_processes(water, stop_after, tmp_path):
    X, _ = water
    y = np.array([np.linalg.norm(s.positions[0]) for s in X.structures])
    y = make_targets(dipole_magnitude=y)
    options = {"sigma_dipole_magnitude": 0.3, "tol": 1e-13}
    fits = [regressor(n_jobs=n, **options).fit(X, y) for n in (1, 2)]
    assert fits[0].n_iter_ > 2
    size = np.abs(fits[0].coef_).max()
    assert_allclose(fits[1].coef_, fits[0].coef_, rtol=0, atol=1e-8 * size)
    stop_after(2)
    fit = regressor(n_jobs=2, checkpoint=tmp_path, **options)
    with pytest.raises(Stopped):
        fit.fit(X, y)
    stop_after(99)
    assert_allclose(fit.fit(X, y).coef_, fits[0].coef_, rtol=0, atol=1e-8 * size)


def workers_of(monkeypatch):
    """The processes of the next fit, and calls of `map`, at one of which a test can act."""
    act, n_calls = {}, []
    mapped = _resident_workers.ResidentWorkers.map

    def acting(self, function, *arguments, each=None):
        n_calls.append(1)
        if len(n_calls) in act:
            executors = self._processes._executors
            act[len(n_calls)]([next(iter(e._processes)) for e in executors])
        yield from mapped(self, function, *arguments, each=each)

    monkeypatch.setattr(_resident_workers.ResidentWorkers, "map", acting)
    return act


def test_a_killed_worker_is_replaced(water, whole, monkeypatch):
    act, pids = workers_of(monkeypatch), []

    def kill(processes):
        pids.append(processes)
        os.kill(processes[1], signal.SIGKILL)
        time.sleep(0.2)

    act |= {5: kill, 8: pids.append}
    fit = regressor(n_jobs=2).fit(*water)
    assert len(pids) == 2
    assert pids[0][0] == pids[1][0] and pids[0][1] != pids[1][1]
    assert_same_fit(fit, whole, water[0])


def test_much_memory_in_a_worker(water):
    """Loky replaces a process whose memory grows, and with it all that the process stored."""

    def grow(part):
        part.store.setdefault("rows", np.ones(5 * 10**7))  # 400 MB
        # Loky looks at the memory once per second.
        time.sleep(1.1)
        return os.getpid()

    def stored(part):
        return os.getpid(), len(part.store)

    def forget(part):
        _resident_workers.PARTS.clear()

    problem = regressor().problem(*water)
    with (
        _resident_workers.Processes(2) as processes,
        _resident_workers.ResidentWorkers(problem, processes) as workers,
    ):
        pids = [list(workers.map(grow)) for _ in range(2)]
        assert pids[0] == pids[1]
        assert list(workers.map(stored)) == [(pid, 1) for pid in pids[0]]
        list(workers.map(forget))
        assert [n for _, n in workers.map(stored)] == [0, 0]


def test_an_interrupt_with_workers(water, monkeypatch):
    act, pids = workers_of(monkeypatch), []

    def interrupt(processes):
        pids.extend(processes)
        raise KeyboardInterrupt

    act[12] = interrupt
    fit = regressor(n_jobs=2)
    with pytest.raises(KeyboardInterrupt):
        fit.fit(*water)
    assert np.isfinite(fit.predict(water[0])["energy"]).all()
    assert len(pids) == 2
    for pid in pids:  # no process is left
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_error_in_a_worker_reaches_the_caller(water):
    def fail(part):
        raise ValueError(f"from structure {part.problem.first}")

    def first(part):
        return part.problem.first, len(part.problem.features)

    problem = regressor().problem(*water)
    with (
        _resident_workers.Processes(2) as processes,
        _resident_workers.ResidentWorkers(problem, processes) as workers,
    ):
        with pytest.raises(ValueError, match="from structure 0"):
            list(workers.map(fail))
        (_, middle), (begin, n) = workers.map(first)
        assert (middle, n) == (begin, 24 - begin)


def test_equal_parts():
    equal_parts = _resident_workers.equal_parts
    assert equal_parts(np.ones(10), 2) == [0, 5, 10]
    assert equal_parts(np.array([9.0, 1, 1, 1, 1, 1, 1, 1, 1, 1]), 2) == [0, 1, 10]
    assert equal_parts(np.ones(2), 4) == [0, 1, 2]
    costs = np.random.default_rng(0).uniform(1.0, 2.0, 1000)
    parts = np.add.reduceat(costs, equal_parts(costs, 3)[:-1])
    assert np.ptp(parts) < 4.0
