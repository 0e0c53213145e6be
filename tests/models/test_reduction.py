"""Labels reduced to triangles: parts of the data, changed noise, and several processes."""

import copy
import pickle

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPRegressor,
    KQEqRegressor,
    QEq,
    QEqRegressor,
    SOAPFeaturizer,
    make_targets,
)
from skqeq.datasets import load_molecules
from skqeq.models._workers import _load_cached, empty_triangle, merge_pairwise
from skqeq.solvers import Triangle


@pytest.fixture(scope="module")
def data():
    X, y = load_molecules()
    X, y = X[:80], y[:80]
    features = make_pipeline(
        SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2), CURSparsifier(n_points=10)
    ).fit_transform(X)
    noise = np.random.default_rng(0).uniform(0.5, 2.0, len(X))
    charges = [None if i % 3 else q for i, q in enumerate(y["charges"])]
    return features, make_targets(dipole=y["dipole"], dipole_sigma=noise, charges=charges)


MODELS = {
    "kqeq": KQEqRegressor(),
    "no baseline": KQEqRegressor(baseline=False, sigma_dipole=0.01),
    "flow": KQEqRegressor(response=ChargeFlow(), amplitude_chi=2.0),
    "qeq": QEqRegressor(sigma_charges=0.1),
}


@pytest.fixture(params=MODELS)
def model(request):
    return copy.deepcopy(MODELS[request.param])


def weights(data):
    return np.append(np.random.default_rng(1).integers(0, 3, len(data[0]) - 1), 2.0)


def inputs(model, data):
    """Structures for QEqRegressor, features for other models."""
    features, y = data
    return (features.structures if isinstance(model, QEqRegressor) else features), y


def test_parts_make_the_whole(model, data):
    X, y = inputs(model, data)
    w = weights(data)
    whole = copy.deepcopy(model).fit(X, y, w)
    for bounds in ([0, 40, 45, 80], [0, 79, 80]):
        parts = copy.deepcopy(model)
        for a, b in zip(bounds[:-1], bounds[1:], strict=True):
            parts.partial_fit(X[a:b], y[a:b], w[a:b])
        assert_allclose(parts.coef_, whole.coef_, rtol=0, atol=1e-8 * np.abs(whole.coef_).max())
        assert parts.fit_history_[0]["loss"] == pytest.approx(whole.fit_history_[0]["loss"])
        assert parts.targets_ == whole.targets_
        names = ["dipole", "charges"]
        stored = copy.deepcopy(model).set_params(store_triangles=True).fit(X, y, w)
        found, expected = (m.predict_std(X[:3], names) for m in (parts, stored))
        for name in names:
            for one, other in zip(found[name], expected[name], strict=True):
                assert_allclose(one, other, rtol=1e-6)


def test_noise_and_amplitudes_can_change(model, data):
    X, y = inputs(model, data)
    stored = copy.deepcopy(model).set_params(store_triangles=True).fit(X, y)
    whole = copy.deepcopy(model).fit(X, y)
    assert_allclose(stored.coef_, whole.coef_, rtol=0, atol=1e-8 * np.abs(whole.coef_).max())
    changes = {"sigma_dipole": 1e-3, "sigma_charges": 0.5, "amplitude_baseline": 3.0}
    if hasattr(model, "amplitude_chi"):
        changes["amplitude_chi"] = 5.0
    if isinstance(getattr(model, "response", None), ChargeFlow):
        changes["response__amplitude"] = 0.3
    whole.set_params(**changes).fit(X, y)
    assert stored.set_params(**changes).refit() is stored
    assert_allclose(stored.coef_, whole.coef_, rtol=0, atol=1e-8 * np.abs(whole.coef_).max())
    assert_allclose(stored.predict(X)["dipole"], whole.predict(X)["dipole"], atol=1e-8)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_several_processes(model, data, backend):
    X, y = inputs(model, data)
    w = weights(data)
    whole = copy.deepcopy(model).fit(X, y, w)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        parallel = copy.deepcopy(model).fit(X, y, w)
    assert not hasattr(parallel, "triangles_")
    assert_allclose(parallel.coef_, whole.coef_, rtol=0, atol=1e-8 * np.abs(whole.coef_).max())


def test_workers_drop_the_last_fit(data):
    """Workers of joblib live on after the fit, but do not keep its large sparse set."""
    X, y = data
    energies = make_targets(energy=np.zeros(len(X)))
    with joblib.parallel_config(backend="loky", n_jobs=2):
        for fit in (
            lambda: KQEqRegressor().fit(X, y),
            lambda: GAPRegressor().fit(X[:20], energies[:20]),
        ):
            fit()
            # There are so many tasks that every worker gets some of them.
            loaded = joblib.delayed(_load_cached.cache_info)
            infos = joblib.Parallel(pre_dispatch="all")(loaded() for _ in range(16))
            assert [info.currsize for info in infos] == [0] * 16
    with joblib.parallel_config(backend="threading", n_jobs=2):
        KQEqRegressor().fit(X, y)
    assert _load_cached.cache_info().currsize == 0


def test_a_stored_reduction_is_not_changed(data):
    X, y = data
    first = KQEqRegressor(store_triangles=True).fit(X[:40], y[:40])
    before = copy.deepcopy(first.triangles_)
    second = pickle.loads(pickle.dumps(first)).partial_fit(X[40:], y[40:])
    third = copy.copy(first).partial_fit(X[40:], y[40:])
    assert_array_equal(second.coef_, third.coef_)
    for name, R in before.items():
        assert_array_equal(first.triangles_[name], R)


def test_a_failure_leaves_the_model_as_it_was(data, monkeypatch):
    X, y = data
    model = KQEqRegressor().partial_fit(X[:40], y[:40])
    coef = model.coef_.copy()

    def full(self, J, r):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Triangle, "update", full)
        with pytest.raises(OSError, match="No space left"):
            model.partial_fit(X[40:], y[40:])
    with pytest.raises(ValueError, match="X holds 40 structures, but y 10"):
        model.partial_fit(X[40:], y[40:50])
    assert_array_equal(model.coef_, coef)
    model.partial_fit(X[40:], y[40:])
    whole = KQEqRegressor().fit(X, y)
    assert_allclose(model.coef_, whole.coef_, atol=1e-8 * np.abs(whole.coef_).max())


def test_refused_continuations(data):
    X, y = data
    fitted = KQEqRegressor().fit(X, y)
    for proceed in (lambda: fitted.partial_fit(X, y), fitted.refit):
        with pytest.raises(ValueError, match="fit it with store_triangles=True"):
            proceed()
    model = KQEqRegressor(store_triangles=True).fit(X, y).set_params(response__hardness=1.0)
    for proceed in (lambda: model.partial_fit(X, y), model.refit):
        with pytest.raises(ValueError, match="reduced with other values of response__hardness"):
            proceed()
    model.set_params(response=ChargeFlow())
    with pytest.raises(ValueError, match="other values of response: fit again"):
        model.refit()
    model.set_params(response=QEq()).refit()  # `QEq()` is equivalent to the default, None.
    magnitudes = make_targets(dipole_magnitude=np.linalg.norm(y["dipole"], axis=1))
    other = KQEqRegressor(store_triangles=True).fit(X, magnitudes)
    with pytest.raises(ValueError, match="its labels are not linear in the charges"):
        other.refit()
    for fit in (
        lambda: other.partial_fit(X, magnitudes),
        lambda: KQEqRegressor().partial_fit(X, magnitudes),
        lambda: GAPRegressor().partial_fit(X, make_targets(energy=np.zeros(80))),
    ):
        with pytest.raises(ValueError, match="linear in the charges"):
            fit()
    hydrogen = [i for i, s in enumerate(X.structures) if set(s.species) <= {1, 6}]
    model = QEqRegressor().partial_fit(X.structures[hydrogen], y[hydrogen])
    with pytest.raises(ValueError, match="known elements: H, C; fit again"):
        model.partial_fit(X.structures, y)


def test_pipelines(data):
    X, y = load_molecules()
    X, y = X[:60], y["dipole"][:60]
    soap, sparse = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2), CURSparsifier(n_points=5)
    model = make_pipeline(soap, sparse, KQEqRegressor(store_triangles=True)).fit(X[:40], y[:40])
    assert skqeq.partial_fit(model, X[40:], y[40:]) is model
    whole = KQEqRegressor().fit(model[:-1].transform(X), y)
    assert_allclose(model[-1].coef_, whole.coef_, atol=1e-8 * np.abs(whole.coef_).max())
    model.set_params(kqeqregressor__sigma_dipole=0.05)
    assert skqeq.refit(model) is model
    whole.set_params(sigma_dipole=0.05).fit(model[:-1].transform(X), y)
    assert_allclose(model[-1].coef_, whole.coef_, atol=1e-8 * np.abs(whole.coef_).max())


@pytest.mark.parametrize("n_parts", range(1, 8))
def test_merging(n_parts):
    rng = np.random.default_rng(n_parts)
    parts, rows = [], []
    for _ in range(n_parts):
        triangle = empty_triangle(6)
        J, r = rng.normal(size=(5, 6)), rng.normal(size=5)
        triangle.update(J, r)
        rows.append(np.column_stack([J, r]))
        parts.append({"a": triangle.augmented})
    [(name, R)] = merge_pairwise(iter(parts)).items()
    rows = np.concatenate(rows)
    assert name == "a"
    assert_allclose(R.T @ R, rows.T @ rows, atol=1e-12)
    assert_allclose(np.tril(R, -1), 0.0)
