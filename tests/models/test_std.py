"""Standard deviations of predictions."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    KQEqRegressor,
    KQEqRegressorCV,
    SOAPFeaturizer,
    make_targets,
)
from skqeq.datasets import load_molecules
from skqeq.targets import TARGETS


@pytest.fixture(scope="module")
def data():
    X, y = load_molecules()
    common = [i for i, atoms in enumerate(X) if 9 not in atoms.numbers][:60]
    X, y = [X[i] for i in common], y[common]
    soap = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2)
    return make_pipeline(soap, CURSparsifier(n_points=10)).fit_transform(X), y


def naive(model, X, i, name):
    """The same by dense matrices, and derivatives of predictions by differences of weights."""
    scale = np.full(len(model.coef_), model.amplitude_chi)
    n_elements = len(model.elements_)
    scale[-n_elements:] = model.amplitude_baseline
    coef = model.coef_.copy()

    def predictions(structures, target):
        rows = []
        for k in range(len(coef)):
            ends = []
            for step in (-1e-4, 1e-4):
                model.coef_ = coef + step * np.eye(len(coef))[k]
                ends.append(np.ravel(model.predict_target(structures, target)))
            rows.append((ends[1] - ends[0]) / 2e-4)
        model.coef_ = coef
        return np.array(rows).T * scale

    J = predictions(X[:40], "dipole") / model.sigma_dipole
    covariance = np.linalg.inv(J.T @ J + np.eye(len(coef)))
    rows = predictions(X[[i]], name)
    return np.einsum("ij,jk,ik->i", rows, covariance, rows)


@pytest.mark.parametrize("name", ["dipole", "charges", "quadrupole", "dipole_magnitude"])
def test_a_naive_covariance(data, name):
    X, y = data
    model = KQEqRegressor(sigma_dipole=0.05, store_triangles=True).fit(X[:40], y["dipole"][:40])
    for i in (3, 50):
        structure, phi = X.structures[i], X[i]
        std = np.ravel(model.predict_std(X[[i]], [name])[name][0])
        unknown = 1.0 - np.einsum("ij,ij->i", phi, phi)
        # What a change of each electronegativity does, by differences.
        [solution] = model.solutions(X[[i]], [name])
        over = []
        for k in range(len(structure)):
            ends = []
            for step in (-1e-4, 1e-4):
                chi = solution.chi + step * np.eye(len(structure))[k]
                solution.charges = solution.equilibrium.charges(chi)
                ends.append(TARGETS[name].observe(solution))
            over.append((ends[1] - ends[0]) / 2e-4)
        expected = naive(model, X, i, name) + np.array(over).T ** 2 @ unknown
        assert_allclose(std**2, expected, rtol=1e-5, atol=1e-10)


def test_errors_are_as_large_as_they_are_said_to_be():
    X, y = load_molecules()
    D, n = y["dipole"], 300
    soap = SOAPFeaturizer(r_cut=3.5, n_max=4, l_max=3)
    search = KQEqRegressorCV(
        KQEqRegressor(store_triangles=True), sigmas=np.geomspace(0.003, 0.3, 9), scoring="rmse"
    )
    model = make_pipeline(soap, CURSparsifier(n_points=60), search).fit(X[:n], D[:n])
    predicted, std = model.predict(X[n:], return_std=True)
    noise = model[-1].calibration_ * model[-1].best_params_["sigma_dipole"]
    z = (predicted - D[n:]) / np.sqrt(std**2 + noise**2)
    assert std.shape == predicted.shape
    assert 0.6 < np.sqrt(np.mean(z**2)) < 1.6
    # Those of large uncertainty err more.
    size, error = np.linalg.norm(std, axis=1), np.linalg.norm(predicted - D[n:], axis=1)
    order = np.argsort(size)
    half = len(order) // 2
    assert error[order[half:]].mean() > 1.3 * error[order[:half]].mean()


def test_forms_and_limits(data):
    X, y = data
    model = KQEqRegressor(response=ChargeFlow(), store_triangles=True)
    table = make_targets(dipole=y["dipole"], charges=y["charges"])
    predicted, std = model.fit(X, table).predict(X, return_std=True)
    assert std.dtype.names == predicted.dtype.names
    assert all(s.shape == q.shape for s, q in zip(std["charges"], predicted["charges"]))
    few = KQEqRegressor(response=ChargeFlow(), store_triangles=True).fit(X[:20], table[:20])
    more = few.predict_std(X, ["dipole"])["dipole"]
    assert (more > std["dipole"] - 1e-10).all()  # more labels, less doubt
    # Without labels of any use, what is left is the prior.
    blind = KQEqRegressor(sigma_dipole=1e6, baseline=False, store_triangles=True)
    blind.fit(X, y["dipole"])
    over = next(iter(blind.solutions(X[[0]]))).dipole_response
    found = blind.predict_std(X[[0]], ["dipole"])["dipole"][0]
    phi = X[0]
    cross = phi @ phi.T
    np.fill_diagonal(cross, 1.0)
    assert_allclose(found, np.sqrt(np.einsum("ia,ij,ja->a", over, cross, over)), rtol=1e-6)


def test_what_has_none(data):
    X, y = data
    with pytest.raises(ValueError, match="fit it with store_triangles=True"):
        KQEqRegressor().fit(X, y["dipole"]).predict(X, return_std=True)
    model = KQEqRegressor(store_triangles=True).fit(X, y["dipole"])
    with pytest.raises(ValueError, match="no standard deviation of forces"):
        model.predict_std(X, ["forces"])
