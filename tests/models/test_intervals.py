"""Left-out errors of a fit, and the standard deviations and intervals that follow from them."""

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPRegressor,
    KQEqRegressor,
    KQEqRegressorCV,
    QEqRegressor,
    SOAPFeaturizer,
    calibrate,
    make_targets,
    predict_interval,
)
from skqeq.datasets import load_molecules, load_water
from skqeq.models import Calibration
from skqeq.models._jackknife import left_out_predictions


@pytest.fixture(scope="module")
def molecules():
    X, y, groups = load_molecules(return_groups=True)
    common = [i for i, atoms in enumerate(X) if 9 not in atoms.numbers][:60]
    table = make_targets(dipole=y["dipole"], charges=list(y["charges"]))
    return [X[i] for i in common], table[common], groups[common]


@pytest.fixture(scope="module")
def features(molecules):
    soap = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2)
    return make_pipeline(soap, CURSparsifier(n_points=10)).fit_transform(molecules[0])


def left_out(model, X, y, weights, groups):
    """Left-out predictions by structure and target."""
    problem = clone(model).problem(X, y, weights)
    found = left_out_predictions(problem, model.posterior_, model._weights(), groups)
    return {(p.number, p.name): p for p in found}


def check_group(model, X, y, weights, group, found):
    """Compare with a fit that leaves out a group."""
    others = np.setdiff1d(np.arange(len(X)), group)
    fitted = clone(model).fit(X[others], y[others], weights[others])
    predicted = fitted.predict_targets(X[group], y.dtype.names)
    variances = {(p.number, p.name): v for p, v in fitted.variances(X[group], y.dtype.names)}
    for k, i in enumerate(group):
        for name in y.dtype.names:
            label = y[name][i]
            if weights[i] == 0.0 or label is None or np.isnan(label).all():
                assert (i, name) not in found
                continue
            errors = np.ravel(label - predicted[name][k])
            assert_allclose(found[i, name].errors, errors, atol=1e-9)
            expected = np.where(np.isnan(errors), np.nan, variances[k, name])
            assert_allclose(found[i, name].variances, expected, rtol=1e-7, atol=1e-12)


def test_left_out_predictions_equal_those_of_refits(molecules, features):
    (_, y, groups), y = molecules, molecules[1].copy()
    y["charges"][3], y["dipole"][7], y["dipole"][9, 1] = None, np.nan, np.nan
    weights = np.random.default_rng(0).integers(0, 3, len(y)).astype(float)
    model = KQEqRegressor(response=ChargeFlow(), sigma_dipole=0.01, store_triangles=True)
    model.fit(features, y, weights)
    found = left_out(model, features, y, weights, groups)
    for i in (3, 7, 9, 40):
        check_group(model, features, y, weights, np.flatnonzero(groups == groups[i]), found)


def test_left_out_energies_and_forces():
    X, y = load_water()
    X, y = X[::30], y[::30][["energy", "forces"]]
    y["forces"][2] = None
    soap = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=1, cutoff_width=1.0)
    phi = make_pipeline(soap, CURSparsifier(n_points=5)).fit_transform(X)
    # Fitted energies of the free atoms have a prior mean that depends on all labels.
    model = GAPRegressor(
        atomic_energies={"H": -10.0, "O": -440.0}, sigma_forces=0.3, store_triangles=True
    )
    weights, groups = np.ones(len(X)), np.arange(len(X)) // 2
    model.fit(phi, y, weights)
    found = left_out(model, phi, y, weights, groups)
    check_group(model, phi, y, weights, np.array([2, 3]), found)


def test_left_out_total_energies():
    """The mean energies of the free atoms come from the fit; they hardly change without a label."""
    X, y = load_water()
    X, y = X[::12], make_targets(energy=y[::12]["energy"])
    soap = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=1, cutoff_width=1.0)
    phi = make_pipeline(soap, CURSparsifier(n_points=5)).fit_transform(X)
    model = GAPRegressor(sigma_energy=0.01, store_triangles=True).fit(phi, y)
    with pytest.raises(ValueError, match="must be those of the last fit"):
        model.calibrate(phi, make_targets(energy=y["energy"] + 1.0))
    calibration = model.calibrate(phi, y).calibration_["energy"]
    errors, parts = [], []
    for i in range(len(X)):
        others = np.delete(np.arange(len(X)), i)
        fitted = clone(model).fit(phi[others], y[others])
        errors.append(abs(y["energy"][i] - fitted.predict_energy(phi[[i]])[0]))
        [(prediction, variances)] = fitted.variances(phi[[i]], ["energy"])
        parts.append(calibration.parts(variances, prediction.solution.structure)[:, 0])
    scores = np.sort(errors / calibration.spread(np.array(parts).T))
    assert_allclose(calibration.scores[-1], scores, rtol=1e-2, atol=1e-3)


def synthetic(n, seed, factors=(4.0, 0.25, 0.01)):
    """Errors of Student's t distribution with a known spread, in groups of two."""
    rng = np.random.default_rng(seed)
    parts = np.array([*rng.lognormal(-2.0, 1.0, (2, n)), np.ones(n)])
    spread = np.sqrt(np.array(factors) @ parts)
    kinds = rng.integers(5, 25, n // 2).repeat(2)
    # Small structures have twice the error that their variances suggest.
    errors = spread * rng.standard_t(4.0, n) * np.where(kinds < 10, 2.0, 1.0)
    return errors, parts, kinds, np.arange(n) // 2


def test_coverage_of_known_errors():
    fitted = Calibration("dipole", "per_atom").fit(*synthetic(4000, 0))
    errors, parts, kinds, _ = synthetic(20000, 1)
    for coverage in (0.5, 0.8, 0.95):
        inside = np.abs(errors) <= fitted.half_widths(parts, kinds, coverage)
        for some in (kinds > 0, kinds < 10, kinds >= 20):
            assert abs(inside[some].mean() - coverage) < 0.03
    # The spread contains 68 percent of the errors, whatever the tails of their distribution are.
    assert abs(np.mean(np.abs(errors) < fitted.spread(parts)) - 0.683) < 0.02


def test_factors_are_found_in_spite_of_outliers():
    errors, parts, kinds, groups = synthetic(4000, 2)
    kinds = np.full(4000, 20)
    errors = np.sqrt(np.array([4.0, 0.25, 0.1]) @ parts) * np.random.default_rng(0).normal(
        size=4000
    )
    clean = Calibration("dipole", "per_atom").fit(errors, parts, kinds, groups)
    assert_allclose(clean.factors, [4.0, 0.25, 0.1], rtol=0.4)
    errors[::200] *= 1e3
    spoiled = Calibration("dipole", "per_atom").fit(errors, parts, kinds, groups)
    assert_allclose(spoiled.factors, clean.factors, rtol=0.1)


def test_finite_samples():
    """With few groups the quantile is that of one more group, which is larger than all others."""
    errors = np.arange(1.0, 20.0)
    parts = np.array([np.ones(19), np.zeros(19), np.zeros(19)])
    fitted = Calibration("dipole", "per_atom").fit(errors, parts, np.ones(19), np.arange(19))
    assert_allclose(fitted.half_widths(parts[:, :1], np.ones(1), 0.95), 19.0)
    assert_allclose(fitted.half_widths(parts[:, :1], np.ones(1), 0.5), 10.0)
    with pytest.raises(ValueError, match="at least 24 left-out groups, and there are 19"):
        fitted.half_widths(parts[:, :1], np.ones(1), 0.96)


def test_elements_with_few_labels_have_the_quantile_of_all():
    rng = np.random.default_rng(0)
    numbers = np.r_[np.full(200, 1), np.full(200, 6), np.full(4, 9)]
    errors = rng.normal(size=404) * np.where(numbers == 6, 5.0, 1.0)
    parts = np.array([np.ones(404), np.zeros(404), np.ones(404)])
    fitted = Calibration("charges", "per_atom").fit(errors, parts, numbers, np.arange(404))
    h, c, f, unknown = fitted.half_widths(parts[:, :4], np.array([1, 6, 9, 17]), 0.9)
    assert 3.0 * h < c
    assert h < f < c
    assert f == unknown
    # An element of which the labels are few, but enough for this coverage, has its own quantile.
    assert fitted.half_widths(parts[:, :1], np.array([9]), 0.5) < f


@pytest.mark.parametrize("cv", [None, 4])
def test_coverage_of_new_molecules(cv):
    X, y, groups = load_molecules(return_groups=True)
    table = make_targets(dipole=y["dipole"], charges=list(y["charges"]))
    groups = np.unique(groups, return_inverse=True)[1]
    train, test = (np.flatnonzero(groups % 2 == k) for k in (0, 1))
    soap = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2)
    last = KQEqRegressor(
        response=ChargeFlow(), sigma_dipole=0.005, store_triangles=True, handle_unknown="prior"
    )
    model = make_pipeline(soap, CURSparsifier(n_points=40), last)
    known, new = ([X[i] for i in index] for index in (train, test))
    model.fit(known, table[train])
    raw = skqeq.predict_std(model, new, ["dipole"])["dipole"]
    calibrate(model, known, table[train], groups=groups[train], cv=cv)
    # The parameters are far from the best ones, so that the posterior is too narrow.
    assert np.median(skqeq.predict_std(model, new, ["dipole"])["dipole"]) > 2.0 * np.median(raw)
    predicted = model.predict(new)
    for coverage in (0.5, 0.9, 0.95):
        lower, upper = predict_interval(model, new, coverage)
        for name in ("dipole", "charges"):
            low, high, truth, middle = (
                np.concatenate(list(t[name])) for t in (lower, upper, table[test], predicted)
            )
            assert_allclose((low + high) / 2, middle, atol=1e-12)
            assert abs(np.mean((low <= truth) & (truth <= high)) - coverage) < 0.06


def test_a_refitted_pipeline_leaves_out_structures_from_all_steps(molecules):
    X, y, groups = molecules
    soap = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2)
    model = KQEqRegressor(sigma_dipole=0.05, store_triangles=True)
    model = make_pipeline(soap, CURSparsifier(n_points=10), model).fit(X, y["dipole"])
    folds = GroupKFold(3)
    calibrate(model, X, y["dipole"], groups=groups, cv=folds)
    errors, parts = [], []
    for train, test in folds.split(X, groups=groups):
        fitted = clone(model).fit([X[i] for i in train], y["dipole"][train])
        new = [X[i] for i in test]
        errors.append(y["dipole"][test] - fitted.predict(new))
        variances = fitted[-1].variances(fitted[:-1].transform(new), ["dipole"])
        parts += [v for _, v in variances]
    errors, parts = np.concatenate(errors).ravel(), np.concatenate(parts, axis=1)
    parts = np.concatenate([parts, np.ones((1, len(errors)))])
    calibration = model[-1].calibration_["dipole"]
    scores = np.sort(np.abs(errors) / calibration.spread(parts))
    assert_allclose(calibration.scores[-1], scores, rtol=1e-6, atol=1e-9)
    assert calibration.n_groups[-1] == len(np.unique(groups))


def test_forms_searches_and_files(molecules, tmp_path):
    X, y, groups = molecules
    soap = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2)
    search = KQEqRegressorCV(KQEqRegressor(store_triangles=True), sigmas=[0.02, 0.05])
    grid = GridSearchCV(make_pipeline(soap, CURSparsifier(n_points=10), search), {}, cv=2)
    grid.fit(X, y["dipole"], kqeqregressorcv__groups=groups)
    lower, upper = predict_interval(grid, X[:4], coverage=0.8)
    assert lower.shape == upper.shape == (4, 3)
    table = predict_interval(grid, X[:4], 0.8, names=["dipole"])
    assert_array_equal(table[0]["dipole"], lower)
    noise = grid.best_estimator_[-1].noise_["dipole"]
    assert noise == pytest.approx(
        np.sqrt(grid.best_estimator_[-1].calibration_["dipole"].factors[2])
    )
    skqeq.save(grid, tmp_path / "model.skqeq")
    joblib.dump(grid, tmp_path / "model.joblib")
    for again in (skqeq.load(tmp_path / "model.skqeq"), joblib.load(tmp_path / "model.joblib")):
        assert_array_equal(predict_interval(again, X[:4], 0.8)[1], upper)
    damaged = grid.best_estimator_[-1].calibration_["dipole"]
    damaged.factors = np.array([1.0, -1.0, 1.0])
    skqeq.save(grid, tmp_path / "model.skqeq")
    with pytest.raises(ValueError, match="factors of Calibration is an array"):
        skqeq.load(tmp_path / "model.skqeq")


def test_energies_and_norms():
    X, y = load_water()
    X, y = X[::8], y[::8]["energy"]
    soap = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2, cutoff_width=1.0)
    model = GAPRegressor(sigma_energy=0.01, store_triangles=True)
    model = make_pipeline(soap, CURSparsifier(n_points=8), model).fit(X, make_targets(energy=y))
    calibrate(model, X, make_targets(energy=y))
    # The noise of an energy grows with the number of atoms, as in the fit.
    calibration = model[-1].calibration_["energy"]
    structures = skqeq.check_structures([X[0], X[-1]])
    noise = [calibration.parts(np.zeros((2, 1)), s)[2, 0] for s in structures]
    assert_allclose(noise, [len(X[0]) ** 2, len(X[-1]) ** 2])
    lower, upper = predict_interval(model, X, 0.9)
    inside = (lower["energy"] <= y) & (y <= upper["energy"])
    assert inside.mean() > 0.85
    norms = make_targets(dipole_magnitude=[0.39, 0.0] * 5)
    pairs = [X[0], X[0]] * 5
    classical = QEqRegressor(store_triangles=True).fit(pairs, norms).calibrate(pairs, norms)
    lower, upper = classical.predict_interval(pairs[:2], 0.9)
    assert (lower["dipole_magnitude"] >= 0.0).all()
    assert (upper["dipole_magnitude"] > 0.0).all()


def test_models_without_left_out_errors(molecules, features):
    y = molecules[1]["dipole"]
    with pytest.raises(ValueError, match="store_triangles=True"):
        KQEqRegressor().fit(features, y).calibrate(features, y)
    model = KQEqRegressor(sigma_dipole=0.05, store_triangles=True).fit(features, y)
    with pytest.raises(ValueError, match=r"call skqeq.calibrate\(model, X, y\)"):
        model.predict_interval(features)
    for other in ((features, 2.0 * y), (features[:50], y[:50])):
        with pytest.raises(ValueError, match="must be those of the last fit"):
            model.calibrate(*other)
    model.calibrate(features, y)
    with pytest.raises(ValueError, match="no left-out errors of quadrupole; .* were dipole"):
        model.predict_interval(features, 0.9, ["quadrupole"])
    for coverage in (0, 1.0, 95, "0.9", True, np.nan):
        with pytest.raises(ValueError, match="coverage must be a number between 0 and 1"):
            model.predict_interval(features, coverage)
    # A calibration belongs to the weights of one fit.
    assert not hasattr(model.fit(features, y), "calibration_")
    assert not hasattr(clone(model.calibrate(features, y)), "calibration_")
    assert not hasattr(model.set_params(sigma_dipole=0.1).refit(), "calibration_")
