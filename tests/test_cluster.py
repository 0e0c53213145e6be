"""Fits on a cluster of separate processes."""

import os
import signal
import threading
import time

import ase.io
import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer, partial_fit
from skqeq.datasets import load_molecules, open_structures

from .test_search import GRID, assert_same_search

distributed = pytest.importorskip("distributed")

N = 240


@pytest.fixture(scope="module")
def cluster():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield cluster, client


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    X, y = load_molecules()
    path = tmp_path_factory.mktemp("cluster") / "train.xyz"
    ase.io.write(path, X[:N])
    return path, y["dipole"][:N]


def pipeline(**options):
    soap = SOAPFeaturizer(r_cut=(1.7, 3.5), n_max=6, l_max=4)
    return make_pipeline(soap, CURSparsifier(n_points=20), KQEqRegressor(**options))


@pytest.fixture(scope="module")
def serial(data):
    path, D = data
    return pipeline().fit(open_structures(path), D)


def assert_same(model, serial):
    size = np.abs(serial[-1].coef_).max()
    assert_allclose(model[-1].coef_, serial[-1].coef_, rtol=0, atol=1e-8 * size)


def test_the_weights_are_those_of_one_process(cluster, data, serial):
    path, D = data
    with joblib.parallel_config(backend="dask"):
        model = pipeline().fit(open_structures(path), D)
    assert_same(model, serial)


def test_grid_search(cluster, model, molecules, table):
    search = GridSearchCV(model, GRID, cv=KFold(3))
    one = clone(search).fit(molecules, table)
    with joblib.parallel_config(backend="dask"):
        assert_same_search(search.fit(molecules, table), one)


def test_energies_and_forces(cluster, data):
    X, D = open_structures(data[0])[:30], data[1][:30]
    soap = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2)
    features = make_pipeline(soap, CURSparsifier(n_points=6)).fit_transform(X)
    y = KQEqRegressor().fit(features, D).predict_targets(features, ["dipole", "energy", "forces"])
    whole = KQEqRegressor(sigma_forces=0.01).fit(features, y)
    with joblib.parallel_config(backend="dask"):
        model = KQEqRegressor(sigma_forces=0.01).fit(features, y)
    assert model.n_iter_ == whole.n_iter_ > 2
    assert_allclose(model.coef_, whole.coef_, rtol=0, atol=1e-8 * np.abs(whole.coef_).max())


def test_a_worker_dies(cluster, data, serial):
    path, D = data
    cluster, client = cluster
    killed = []

    def kill():
        pids = client.run(os.getpid)
        for _ in range(6000):
            busy = [worker for worker, tasks in client.processing().items() if tasks]
            if busy:
                os.kill(pids[busy[0]], signal.SIGKILL)
                killed.append(busy[0])
                return
            time.sleep(0.01)

    features = pipeline()[:-1].fit(open_structures(path)).transform(open_structures(path))
    murder = threading.Thread(target=kill)
    murder.start()
    with joblib.parallel_config(backend="dask"):
        model = KQEqRegressor().fit(features, D)
    murder.join()
    assert killed
    size = np.abs(model.coef_).max()
    assert_allclose(model.coef_, serial[-1].coef_, rtol=0, atol=1e-8 * size)


def test_an_unreadable_structure(cluster, data, tmp_path, serial):
    path, D = data
    text = path.read_text()
    broken = tmp_path / "broken.xyz"
    broken.write_text(text)
    model = pipeline(store_triangles=True).fit(open_structures(path)[: N // 2], D[: N // 2])
    before = model[-1].coef_.copy()
    rest = open_structures(broken)
    # The file is damaged after it was opened.
    broken.write_text(text[: len(text) // 2].rsplit("\n", 1)[0] + "\n" + "x" * (len(text) // 2))
    with (
        joblib.parallel_config(backend="dask"),
        pytest.raises(ValueError, match=r"structure \d+ cannot be read: structure \d+ of .*broken"),
    ):
        partial_fit(model, rest[N // 2 :], D[N // 2 :])
    assert (model[-1].coef_ == before).all()
    with joblib.parallel_config(backend="dask"):
        partial_fit(model, open_structures(path)[N // 2 :], D[N // 2 :])
    whole = KQEqRegressor().fit(model[:-1].transform(open_structures(path)), D)
    assert_allclose(model[-1].coef_, whole.coef_, atol=1e-8 * np.abs(whole.coef_).max())


def test_a_full_disk(data, monkeypatch):
    X, D = open_structures(data[0])[:40], data[1][:40]
    small = {"soapfeaturizer__n_max": 2, "cursparsifier__n_points": 2}
    model = pipeline(store_triangles=True).set_params(**small)
    model.fit(X[:20], D[:20])
    before = model[-1].coef_.copy()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(joblib, "dump", full)
        with pytest.raises(OSError, match="No space left"), joblib.parallel_config(n_jobs=2):
            partial_fit(model, X[20:], D[20:])
    assert (model[-1].coef_ == before).all()
