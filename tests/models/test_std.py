"""Standard deviations of predictions."""

import warnings

import numpy as np
import pytest
from ase.build import bulk
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    GAPRegressor,
    KQEqRegressor,
    KQEqRegressorCV,
    SOAPFeaturizer,
    StructureBlocks,
    make_targets,
)
from skqeq.datasets import load_molecules, load_water
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
    assert_allclose(skqeq.predict_std(model, X[n:], ["dipole"])["dipole"], std)  # calibrated
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


def of_weights(model, X, names):
    """Derivatives of all predictions with respect to weights in units of their prior."""
    scale, coef, energies = model._scale(), model.coef_, model.atomic_energies_
    columns = []
    for k in range(len(scale)):
        ends = []
        for step in (-1e-4, 1e-4):
            moved = np.concatenate([coef, energies])
            moved[k] += step * scale[k]
            model.coef_, model.atomic_energies_ = np.split(moved, [len(coef)])
            table = model.predict_targets(X, names)
            ends.append([np.concatenate([np.ravel(t[name]) for name in names]) for t in table])
        columns.append([(b - a) / 2e-4 for a, b in zip(*ends)])
    model.coef_, model.atomic_energies_ = coef, energies
    return [np.array(of_one).T for of_one in zip(*columns)]


@pytest.fixture(scope="module")
def water():
    X, y = load_water()
    return X[::40], y[::40][["energy", "forces"]]


@pytest.mark.parametrize("kind", ["kqeq", "flow", "gap"])
def test_a_naive_covariance_of_energies_and_forces(water, kind):
    X, y = water
    soap = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=1, cutoff_width=1.0)
    # All environments are sparse points: the fields are known where the weights are.
    features = make_pipeline(soap, CURSparsifier(n_points=10**4, jitter=1e-8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        phi = features.fit_transform(X[:2])
    noise = {"sigma_energy": 0.01, "sigma_forces": 0.3}
    model = {
        "kqeq": KQEqRegressor(hardness=5.0, **noise, store_triangles=True),
        "flow": KQEqRegressor(response=ChargeFlow(), **noise, store_triangles=True),
        "gap": GAPRegressor(**noise, store_triangles=True),
    }[kind].fit(phi, y[:2])
    names = ["energy", "forces"] + ["dipole", "born_effective_charges"] * (kind != "gap")
    sizes = [len(atoms) for atoms in X[:2]]
    weight = [
        1 / np.concatenate([[noise["sigma_energy"] * n], np.full(3 * n, noise["sigma_forces"])])
        for n in sizes
    ]
    labels = of_weights(model, phi, ["energy", "forces"])
    J = np.concatenate([w[:, None] * rows for w, rows in zip(weight, labels)])
    covariance = np.linalg.inv(J.T @ J + np.eye(J.shape[1]))
    found = model.predict_std(phi, names)
    for std, rows in zip(found, of_weights(model, phi, names)):
        expected = np.sqrt(np.einsum("ij,jk,ik->i", rows, covariance, rows))
        values = np.concatenate([np.ravel(std[name]) for name in names])
        assert_allclose(values, expected, rtol=1e-3, atol=1e-3 * expected.max())
    assert found["forces"][0].shape == (sizes[0], 3)
    y_new, std = model.predict(phi, return_std=True)
    assert_allclose(std["energy"], found["energy"])
    assert y_new["forces"][1].shape == std["forces"][1].shape


def test_a_field_that_no_weights_describe(water):
    X, _ = water
    soap = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2, cutoff_width=1.0)
    phi = make_pipeline(soap, CURSparsifier(n_points=2)).fit_transform(X[:3])
    model = KQEqRegressor(hardness=5.0, store_triangles=True, sigma_charges=1e6)
    charges = [np.full(len(a), a.info["charge"] / len(a)) for a in X[:3]]
    model.fit(phi, make_targets(charges=charges))
    rows, (atoms, solution) = phi[0], (X[0], next(model.solutions(phi[[0]], ["charges"])))
    gram = rows @ rows.T
    np.fill_diagonal(gram, 1.0)
    same = atoms.numbers[:, None] == atoms.numbers
    q = solution.charges
    expected = q @ (gram + same * model.amplitude_baseline**2) @ q
    found = model.predict_std(phi[[0]], ["energy"])["energy"][0]
    assert found == pytest.approx(np.sqrt(expected), rel=1e-4)


def test_stress_of_crystals_and_slabs():
    X = []
    for seed, pbc in enumerate([True, True, (True, True, False)]):
        X.append(bulk("NaCl", "rocksalt", a=5.6, cubic=True))
        X[-1].rattle(0.1, seed=seed)
        X[-1].pbc = pbc
    soap = SOAPFeaturizer(r_cut=3.5, n_max=2, l_max=1, cutoff_width=1.0)
    blocks = StructureBlocks(
        [(name, make_pipeline(soap, CURSparsifier(n_points=3))) for name in ("chi", "gap")]
    )
    y = make_targets(energy=[-1.0, -1.1, -0.9])
    model = make_pipeline(blocks, GAPKQEqRegressor(hardness=5.0, store_triangles=True)).fit(X, y)
    std = skqeq.predict_std(model, X, ["energy", "forces", "stress"])
    assert np.isfinite(std["energy"]).all() and (std["energy"] > 0).all()
    assert np.isfinite(std["stress"][:2]).all()
    assert_array_equal(np.isnan(std["stress"][2]), [False, False, True, True, True, False])
    last, phi = model[-1], model[0].transform(X)
    rows = of_weights(last, phi, ["stress"])[0]
    J = np.concatenate(of_weights(last, phi, ["energy"])) / (0.001 * 8)
    covariance = np.linalg.inv(J.T @ J + np.eye(J.shape[1]))
    expected = np.einsum("ij,jk,ik->i", rows, covariance, rows)
    # The rest is that of fields at the atoms which the sparse points do not describe.
    assert (std["stress"][0] ** 2 >= 0.999 * expected).all()
    assert_allclose(std["stress"][0] ** 2, expected, rtol=0.5)


def test_what_has_none(data):
    X, y = data
    with pytest.raises(ValueError, match="fit it with store_triangles=True"):
        KQEqRegressor().fit(X, y["dipole"]).predict(X, return_std=True)
    model = KQEqRegressor(store_triangles=True).fit(X, y["dipole"])
    with pytest.raises(ValueError, match="unknown target 'force'"):
        model.predict_std(X, ["force"])
