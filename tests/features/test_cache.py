"""The cache of descriptor rows."""

import itertools
import os
import signal
import threading

import numpy as np
import pytest
from ase.build import molecule
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    KQEqCalculator,
    KQEqRegressor,
    SOAPFeaturizer,
    predict_std,
    predict_targets,
)
from skqeq._memory import BUDGET, MemoryBudget
from skqeq.features import ROWS, PowerSpectrum
from skqeq.features._cache import RowCache

ROW = np.zeros(10)


def test_rows_of_the_descriptor_used_last_stay():
    limit = 8 * ROW.nbytes
    store = RowCache(MemoryBudget(limit))
    for cutoff in (3.0, 4.0, 5.0):
        for structure in range(6):
            store.put((cutoff, structure), ROW)
            assert store.nbytes <= limit
    assert all(store.get((5.0, structure)) is not None for structure in range(6))
    assert sum(store.get((4.0, structure)) is not None for structure in range(6)) == 2
    assert all(store.get((3.0, structure)) is None for structure in range(6))
    # Reading a row also marks it as recently used.
    store.get((4.0, next(s for s in range(6) if (4.0, s) in store._rows)))
    for structure in range(6, 9):
        store.put((4.0, structure), ROW)
    assert sum(store.get((5.0, structure)) is not None for structure in range(6)) == 3


def test_two_descriptors_share():
    """The cache holds rows of both descriptors of a double SOAP, which are requested in turn."""
    store = RowCache(MemoryBudget(20 * ROW.nbytes))
    for structure in range(100):
        for cutoff in (1.7, 3.5):
            store.put((cutoff, structure), ROW)
    counts = [sum((cutoff, s) in store._rows for s in range(100)) for cutoff in (1.7, 3.5)]
    assert sum(counts) == 20 and min(counts) >= 9


# ---- predictions --------------------------------------------------------------------------------


def fitted_model(X):
    model = make_pipeline(
        SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=1), CURSparsifier(n_points=2), KQEqRegressor()
    )
    return model.fit(X, np.arange(3.0 * len(X)).reshape(-1, 3))


def waters(n, seed):
    X = [molecule("H2O") for _ in range(n)]
    for i, atoms in enumerate(X):
        atoms.rattle(0.05, seed=1000 * seed + i)
    return X


@pytest.mark.parametrize(
    "predict",
    [
        lambda model, X: model.predict(X),
        lambda model, X: predict_targets(model, X, ["dipole", "quadrupole"]),
        lambda model, X: predict_std(model, X, ["dipole"]),
        lambda model, X: [KQEqCalculator(model).get_charges(atoms) for atoms in X],
    ],
)
def test_predictions_do_not_fill_the_store(predict):
    X = waters(6, seed=1)
    model = fitted_model(X).set_params(kqeqregressor__store_triangles=True).fit(X, np.ones((6, 3)))
    ROWS.clear()
    predict(model, waters(20, seed=2))
    assert ROWS.nbytes == 0
    model.fit(X, np.ones((6, 3)))
    of_fit = ROWS.nbytes
    assert of_fit > 0
    for seed in range(3, 8):
        predict(model, waters(20, seed))
        assert ROWS.nbytes <= 2 * of_fit


def test_predictions_find_the_rows_of_a_fit(monkeypatch):
    X = waters(6, seed=3)
    ROWS.clear()
    model = fitted_model(X)
    expected = model.predict(X)
    monkeypatch.setattr(PowerSpectrum, "rows", None)
    np.testing.assert_array_equal(model.predict(X), expected)
    scores = cross_val_score(
        model, X, np.ones((6, 3)), cv=2, scoring=lambda m, X, y: m.predict(X).sum()
    )
    assert np.isfinite(scores).all()


def test_features_that_are_fitted_more_than_once_are_stored(monkeypatch):
    X = waters(6, seed=4)
    ROWS.clear()
    steps = fitted_model(X)
    ROWS.clear()
    features = steps[:-1].transform(X)
    first = KQEqRegressor().fit(features, np.ones((6, 3))).coef_
    monkeypatch.setattr(PowerSpectrum, "rows", None)
    np.testing.assert_array_equal(KQEqRegressor().fit(features, np.ones((6, 3))).coef_, first)


# ---- processes ----------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_children_can_use_the_store_of_their_parent():
    """Another thread of the parent can be inside the store at the moment of the fork."""
    done = threading.Event()

    def use():
        for i in itertools.count():
            ROWS.put(("parent", i % 1000), ROW)
            ROWS.get(("parent", i % 1000))
            if BUDGET.claim(1):
                BUDGET.release(1)
            if done.is_set():
                return

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    statuses = []
    for _ in range(50):
        child = os.fork()
        if child == 0:
            signal.alarm(5)  # ends a child that waits for a lock
            ROWS.put(("child", 0), ROW)
            os._exit(0 if ROWS.get(("child", 0)) is ROW and BUDGET.claim(1) else 1)
        statuses.append(os.waitpid(child, 0)[1])
        if statuses[-1]:
            break
    done.set()
    for thread in threads:
        thread.join()
    ROWS.clear()
    assert statuses == [0] * 50
