"""Standard deviations of predictions."""

import copy
import warnings

import numpy as np
import pytest
from ase.build import bulk
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.pipeline import FeatureUnion, make_pipeline

import skqeq
from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    GAPRegressor,
    KQEqRegressor,
    KQEqRegressorCV,
    QEq,
    SOAPFeaturizer,
    StructureBlocks,
    make_targets,
)
from skqeq.datasets import load_molecules, load_water
from skqeq.models._jacobian import TargetJacobian
from skqeq.targets import TARGETS

HARD = QEq(hardness=5.0)


@pytest.fixture(scope="module")
def data():
    X, y = load_molecules()
    common = [i for i, atoms in enumerate(X) if 9 not in atoms.numbers][:60]
    X, y = [X[i] for i in common], y[common]
    soap = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2)
    return make_pipeline(soap, CURSparsifier(n_points=10)).fit_transform(X), y


def by_weights(model, X, name):
    """Finite differences of predictions, for weights in units of their prior widths."""
    n_elements = len(model.elements_)
    scale = np.full(len(model.coef_), model.amplitude_chi)
    scale[-n_elements:] = model.amplitude_baseline
    other, columns = copy.copy(model), []
    for unit in np.eye(len(scale)):
        ends = []
        for step in (-1e-4, 1e-4):
            other.coef_ = model.coef_ + step * unit
            ends.append(np.ravel(other.predict_target(X, name)))
        columns.append((ends[1] - ends[0]) / 2e-4)
    return np.array(columns).T * scale


@pytest.fixture(scope="module")
def fitted(data):
    """A model, and the covariance of its weights from dense matrices; tests change neither."""
    X, y = data
    model = KQEqRegressor(sigma_dipole=0.05, store_triangles=True).fit(X[:40], y["dipole"][:40])
    J = by_weights(model, X[:40], "dipole") / 0.05
    return model, np.linalg.inv(J.T @ J + np.eye(len(model.coef_)))


@pytest.mark.parametrize("name", ["dipole", "charges", "quadrupole", "dipole_magnitude"])
def test_a_naive_covariance(data, fitted, name):
    X, (model, covariance) = data[0], fitted
    for i in (3, 50):
        structure, phi = X.structures[i], X[i]
        std = np.ravel(model.predict_std(X[[i]], [name])[name][0])
        rows = by_weights(model, X[[i]], name)
        explained = np.einsum("ij,jk,ik->i", rows, covariance, rows)
        unknown = 1.0 - np.einsum("ij,ij->i", phi, phi)
        # The derivatives with respect to each electronegativity are differences.
        [solution] = model.solutions(X[[i]], [name])
        derivatives = []
        for k in range(len(structure)):
            ends = []
            for step in (-1e-4, 1e-4):
                chi = solution.chi + step * np.eye(len(structure))[k]
                solution.charges = solution.equilibrium.charges(chi=chi)
                ends.append(TARGETS[name].observe(solution))
            derivatives.append((ends[1] - ends[0]) / 2e-4)
        expected = explained + np.array(derivatives).T ** 2 @ unknown
        assert_allclose(std**2, expected, rtol=1e-5, atol=1e-10)


def test_parameters_that_are_set_after_the_fit_change_nothing(data):
    """`predict_std` uses noise and amplitudes of the fit; `refit` uses the new ones."""
    X, y = data
    model = KQEqRegressor(sigma_dipole=0.05, store_triangles=True).fit(X[:40], y["dipole"][:40])
    names = ["dipole", "charges", "energy", "forces"]
    before, coef = model.predict_std(X[40:44], names), model.coef_.copy()
    new = {"sigma_dipole": 1.0, "amplitude_chi": 3.0, "amplitude_baseline": 0.1}
    model.set_params(**new, response__radius_scale=0.5)
    after = model.predict_std(X[40:44], names)
    for name in names:
        for a, b in zip(before[name], after[name], strict=True):
            assert_array_equal(a, b)
    model.set_params(response=None).refit()
    assert not np.allclose(model.coef_, coef)
    fresh = KQEqRegressor(**new, store_triangles=True).fit(X[:40], y["dipole"][:40])
    found, expected = (m.predict_std(X[40:44], names) for m in (model, fresh))
    assert (found["dipole"] > 1.5 * before["dipole"]).all()
    for name in names:
        for a, b in zip(found[name], expected[name], strict=True):
            assert_allclose(a, b, rtol=1e-6)


def test_born_charges_alone(water):
    """Born charges are linear in the weights, but are no linear function of the charges."""
    X, _ = water
    soap = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=1, cutoff_width=1.0)
    phi = make_pipeline(soap, CURSparsifier(n_points=3)).fit_transform(X[:3])
    rng = np.random.default_rng(0)
    born = make_targets(born_effective_charges=[rng.normal(size=(len(a), 3, 3)) for a in X[:3]])
    model = KQEqRegressor(sigma_born_effective_charges=0.3, store_triangles=True).fit(phi, born)
    std = model.predict_std(phi, ["dipole", "born_effective_charges"])
    n_weights = len(model.coef_)
    J = np.concatenate(of_weights(model, phi, ["born_effective_charges"]))[:, :n_weights] / 0.3
    covariance = np.linalg.inv(J.T @ J + np.eye(n_weights))
    [rows, *_] = of_weights(model, phi, ["dipole"])
    explained = np.einsum("ij,jk,ik->i", rows[:, :n_weights], covariance, rows[:, :n_weights])
    [solution] = model.solutions(phi[:1], ["dipole"])
    unknown = 1.0 - np.einsum("ij,ij->i", phi[0], phi[0])
    rest = solution.equilibrium.dipole_rows["chi"] ** 2 @ unknown
    assert_allclose(std["dipole"][0] ** 2, explained + rest, rtol=1e-4)
    assert all((x > 0).all() for x in std["born_effective_charges"])
    with pytest.raises(ValueError, match="its labels are not linear in the charges"):
        model.refit()


def test_held_out_errors_have_the_predicted_size():
    X, y = load_molecules()
    D, n = y["dipole"], 300
    soap = SOAPFeaturizer(r_cut=3.5, n_max=4, l_max=3)
    search = KQEqRegressorCV(
        KQEqRegressor(store_triangles=True), sigmas=np.geomspace(0.0003, 0.3, 13), scoring="rmse"
    )
    model = make_pipeline(soap, CURSparsifier(n_points=60), search).fit(X[:n], D[:n])
    predicted, std = model.predict(X[n:], return_std=True)
    z = (predicted - D[n:]) / np.sqrt(std**2 + model[-1].noise_["dipole"] ** 2)
    assert std.shape == predicted.shape
    # `predict_std` gives the calibrated standard deviations, like `predict(return_std=True)`.
    assert_allclose(skqeq.predict_std(model, X[n:], ["dipole"])["dipole"], std)
    assert 0.6 < np.mean(np.abs(z) < 1.0) < 0.76
    # Errors are larger where the standard deviations are larger.
    size, error = np.linalg.norm(std, axis=1), np.linalg.norm(predicted - D[n:], axis=1)
    order = np.argsort(size)
    half = len(order) // 2
    assert error[order[half:]].mean() > 1.3 * error[order[:half]].mean()


def test_every_target_is_calibrated():
    """Each target has a calibration factor, because its errors are larger than the noise."""
    X, y = load_molecules()
    n, model = 300, KQEqRegressor(sigma_dipole=0.02, sigma_charges=0.02, store_triangles=True)
    soap = SOAPFeaturizer(r_cut=3.5, n_max=4, l_max=3)
    search = KQEqRegressorCV(model, sigmas={"sigma_dipole": [0.02]}, cv=5)
    table = make_targets(dipole=y["dipole"], charges=list(y["charges"]))
    model = make_pipeline(soap, CURSparsifier(n_points=60), search).fit(X[:n], table[:n])
    predicted, std = model.predict(X[n:], return_std=True)
    for name in ("dipole", "charges"):
        truth, found, s = (np.concatenate(list(t[name])) for t in (table[n:], predicted, std))
        z = (found - truth) / np.sqrt(s**2 + search.noise_[name] ** 2)
        assert 0.6 < np.mean(np.abs(z) < 1.0) < 0.76
    # A common factor would be wrong for both targets.
    dipole, charges = (search.calibration_[name].factors for name in ("dipole", "charges"))
    assert dipole[0] > 1.3 * charges[0] > 1.3
    # A target without labels has the mean factors of the others.
    X, names = model[:-1].transform(X[:3]), ["quadrupole"]
    found = search.predict_std(X, names)["quadrupole"]
    variances = [v for _, v in search.best_estimator_.variances(X, names)]
    expected = [np.sqrt((dipole + charges)[:2] @ v / 2) for v in variances]
    assert_allclose(found, expected, rtol=1e-9)


def test_forms_and_limits(data):
    X, y = data
    model = KQEqRegressor(response=ChargeFlow(), store_triangles=True)
    table = make_targets(dipole=y["dipole"], charges=y["charges"])
    predicted, std = model.fit(X, table).predict(X, return_std=True)
    assert std.dtype.names == predicted.dtype.names
    assert all(s.shape == q.shape for s, q in zip(std["charges"], predicted["charges"]))
    few = KQEqRegressor(response=ChargeFlow(), store_triangles=True).fit(X[:20], table[:20])
    more = few.predict_std(X, ["dipole"])["dipole"]
    assert (more > std["dipole"] - 1e-10).all()
    # With huge noise, the posterior is the prior.
    blind = KQEqRegressor(sigma_dipole=1e6, baseline=False, store_triangles=True)
    blind.fit(X, y["dipole"])
    rows = next(iter(blind.solutions(X[[0]]))).equilibrium.dipole_rows["chi"].T
    found = blind.predict_std(X[[0]], ["dipole"])["dipole"][0]
    phi = X[0]
    cross = phi @ phi.T
    np.fill_diagonal(cross, 1.0)
    assert_allclose(found, np.sqrt(np.einsum("ia,ij,ja->a", rows, cross, rows)), rtol=1e-6)


def of_weights(model, X, names):
    """Finite differences of all predictions, for weights in units of their prior widths."""
    scale, coef, energies = model.layout_.scale, model.coef_, model.atomic_energies_
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
def test_a_naive_covariance_of_energies_and_forces(water, kind, monkeypatch):
    X, y = water
    # Other tests check the variances of the remainders of the fields.
    nothing = lambda jacobian: np.zeros(sum(jacobian.sizes))  # noqa: E731
    monkeypatch.setattr(TargetJacobian, "residual_variances", nothing)
    soap = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=1, cutoff_width=1.0)
    # All environments are sparse points, so that the weights determine the fields exactly.
    features = make_pipeline(soap, CURSparsifier(n_points=10**4, jitter=1e-8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        phi = features.fit_transform(X[:2])
    noise = {"sigma_energy": 0.01, "sigma_forces": 0.3}
    model = {
        "kqeq": KQEqRegressor(response=HARD, **noise, store_triangles=True),
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


def test_remainder_of_a_field_in_the_energy(water):
    X, _ = water
    soap = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2, cutoff_width=1.0)
    phi = make_pipeline(soap, CURSparsifier(n_points=2)).fit_transform(X[:3])
    model = KQEqRegressor(response=HARD, store_triangles=True, sigma_charges=1e6)
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
    model = make_pipeline(blocks, GAPKQEqRegressor(response=HARD, store_triangles=True)).fit(X, y)
    std = skqeq.predict_std(model, X, ["energy", "forces", "stress"])
    assert np.isfinite(std["energy"]).all() and (std["energy"] > 0).all()
    assert np.isfinite(std["stress"][:2]).all()
    assert_array_equal(np.isnan(std["stress"][2]), [False, False, True, True, True, False])
    last, phi = model[-1], model[0].transform(X)
    rows = of_weights(last, phi, ["stress"])[0]
    J = np.concatenate(of_weights(last, phi, ["energy"])) / (0.001 * 8)
    covariance = np.linalg.inv(J.T @ J + np.eye(J.shape[1]))
    expected = np.einsum("ij,jk,ik->i", rows, covariance, rows)
    # The standard deviations also contain the remainders of the fields.
    assert (std["stress"][0] ** 2 >= 0.999 * expected).all()


def correlated(model, features, ends, name, column):
    """Covariances between predictions for several geometries, from kernels and finite differences.

    The prediction is the energy or a component of the dipole. The remainder of a field is the part
    that the sparse points cannot describe; it is independent for every atom. The variable `factors`
    holds derivatives with respect to the fields.
    """
    last, phi = model[-1], model[:-1].transform(ends)
    rows = [row[column] for row in of_weights(last, phi, [name])]
    J = np.linalg.solve(last.posterior_.factor.T, np.array(rows).T)
    total = J.T @ J
    solutions = list(last.solutions(phi, [name]))
    parts = {}
    for key, (soap, sparse) in features.items():
        raw = [np.asarray(x) for x in soap.transform(ends)]
        white = [np.asarray(x) for x in sparse.transform(soap.transform(ends))]
        raw = [x / np.linalg.norm(x, axis=1)[:, None] for x in raw]
        k = np.einsum("eif,gif->ieg", raw, raw) ** sparse.zeta
        parts[key] = k - np.einsum("eim,gim->ieg", white, white)
    factors = []
    for s in solutions:
        if name == "energy":
            factors.append(s.energy_derivatives)
        else:
            factors.append({key: x[column] for key, x in s.equilibrium.dipole_rows.items()})
    fields = {  # The values are pairs of amplitude and name of the features.
        "chi": (last.get_params().get("amplitude_chi"), "chi"),
        "reference": (0.1, "chi"),  # The amplitude 0.1 is the default of ChargeFlow.
        "energy": (last.get_params().get("amplitude_gap"), "gap"),
    }
    for place in factors[0]:
        amplitude, key = fields[place]
        if amplitude is not None:
            g = np.array([of_one[place] for of_one in factors]).T  # atom, geometry
            total += amplitude**2 * np.einsum("ie,ig,ieg->eg", g, g, parts[key])
    return total


def of_difference(covariance, h):
    """Variance of a central difference, from the covariance of the predictions at both ends."""
    return (covariance[1, 1] - covariance[0, 1] - covariance[1, 0] + covariance[0, 0]) / (4 * h**2)


@pytest.mark.parametrize("kind", ["kqeq", "flow", "gap", "gap and charges"])
def test_derivatives_of_the_remainders_of_fields(water, kind):
    X, y = water
    soap = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2, cutoff_width=1.0)
    sparse = CURSparsifier(n_points=4)
    noise = {"sigma_energy": 0.1, "sigma_forces": 0.5, "store_triangles": True, "tol": 1e-2}
    last = {
        "kqeq": KQEqRegressor(response=HARD, **noise),
        "flow": KQEqRegressor(response=ChargeFlow(hardness=5.0), **noise),
        "gap": GAPRegressor(sigma_energy=0.1, sigma_forces=0.5, store_triangles=True),
        "gap and charges": GAPKQEqRegressor(response=ChargeFlow(hardness=5.0), **noise),
    }[kind]
    half = make_pipeline(soap, sparse)
    if kind == "gap and charges":
        half = StructureBlocks([("chi", half), ("gap", clone(half))])
        half.set_params(gap__soapfeaturizer__r_cut=2.5)
    model = make_pipeline(half, last) if "and" in kind else make_pipeline(soap, sparse, last)
    model.fit(X[:6], y[:6])
    if "and" in kind:
        parts = {name: (part[0], part[1]) for name, part in model[0].transformer_list}
    else:
        parts = {"gap" if kind == "gap" else "chi": (model[0], model[1])}
    names = ["forces"] + ["born_effective_charges"] * (kind != "gap")
    [atoms] = [a for a in X if a.info["charge"] == 0 and len(a) > 3][:1]
    std = skqeq.predict_std(model, [atoms], names)
    h = 1e-3
    for j, b in ((0, 0), (1, 2), (len(atoms) - 1, 1)):
        ends = []
        for step in (-h, h):
            ends.append(atoms.copy())
            ends[-1].positions[j, b] += step
        variance = of_difference(correlated(model, parts, ends, "energy", 0), h)
        assert std["forces"][0][j, b] ** 2 == pytest.approx(variance, rel=1e-3)
        if kind != "gap":
            variance = of_difference(correlated(model, parts, ends, "dipole", 1), h)
            born = std["born_effective_charges"][0][j, 1, b]
            assert born**2 == pytest.approx(variance, rel=1e-3)


def test_elements_without_sparse_points():
    """Fields of an element without sparse points have the prior variance.

    Forces on its atoms have a larger standard deviation than with sparse points.
    """
    X, _ = load_molecules()
    others = [i for i, atoms in enumerate(X) if set(atoms.numbers) <= {1, 6}][:4]
    ethers = [i for i, atoms in enumerate(X) if set(atoms.numbers) == {1, 6, 8}][:4]
    X = [X[i] for i in others + ethers]
    std = []
    for seen in (X, X[:4]):
        soap = SOAPFeaturizer(
            r_cut=3.0, n_max=2, l_max=2, cutoff_width=1.0, species=["H", "C", "O"]
        )
        sparse = CURSparsifier(n_points=4).fit(soap.fit_transform(seen))
        model = GAPRegressor(store_triangles=True)
        phi = sparse.transform(soap.transform(X))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(phi, make_targets(energy=np.zeros(len(X))))
        messages = [str(warning.message) for warning in caught]
        assert len(messages) == (seen is not X)
        assert all(" holds O, of which there are no sparse points" in text for text in messages)
        std.append(model.predict_std(phi, ["forces"])["forces"][-1])
    oxygen = X[-1].numbers == 8
    assert (std[1][oxygen] > std[0][oxygen]).all()


def test_stress_of_the_remainder_of_a_field():
    X = [bulk("NaCl", "rocksalt", a=5.6, cubic=True) for _ in range(3)]
    for seed, atoms in enumerate(X):
        atoms.rattle(0.1, seed=seed)
    soap = SOAPFeaturizer(r_cut=3.5, n_max=2, l_max=2, cutoff_width=1.0)
    last = KQEqRegressor(response=HARD, sigma_energy=0.1, store_triangles=True)
    model = make_pipeline(soap, CURSparsifier(n_points=3), last)
    model.fit(X, make_targets(energy=[-1.0, -1.1, -0.9]))
    std = skqeq.predict_std(model, X[:1], ["stress"])["stress"][0] * X[0].get_volume()
    h = 1e-4
    for component, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        ends = []
        for step in (-h, h):
            strain = np.eye(3)
            strain[a, b] += step
            ends.append(X[0].copy())
            ends[-1].set_cell(X[0].cell @ strain.T, scale_atoms=True)
        parts = {"chi": (model[0], model[1])}
        variance = of_difference(correlated(model, parts, ends, "energy", 0), h)
        assert std[component] ** 2 == pytest.approx(variance, rel=1e-3)


def test_models_and_targets_without_standard_deviations(data):
    X, y = data
    with pytest.raises(ValueError, match="fit it with store_triangles=True"):
        KQEqRegressor().fit(X, y["dipole"]).predict(X, return_std=True)
    model = KQEqRegressor(store_triangles=True).fit(X, y["dipole"])
    with pytest.raises(ValueError, match="unknown target 'force'"):
        model.predict_std(X, ["force"])


def test_fields_of_several_kernels():
    """The kernels of a union add, and so do the variances of the remainders of their fields."""
    X, y = load_water()
    X, y = X[:120:20], y[:120:20]

    def half(r_cut, n_points=3):
        soap = SOAPFeaturizer(r_cut=r_cut, n_max=2, l_max=2, cutoff_width=1.0)
        return make_pipeline(soap, CURSparsifier(n_points=n_points))

    names = ["charges", "energy", "forces"]
    charges = make_targets(charges=[np.full(len(a), a.info["charge"] / len(a)) for a in X])
    found = []
    for amplitude, parts in ((1.0, ("a", "b")), (np.sqrt(2.0), ("a",))):
        # The sum of two equal kernels is a kernel with twice the variance.
        union = FeatureUnion([(name, half(3.0)) for name in parts])
        model = KQEqRegressor(amplitude_chi=amplitude, sigma_charges=0.1, store_triangles=True)
        found.append(skqeq.predict_std(make_pipeline(union, model).fit(X, charges), X, names))
    for name in ("charges", "forces"):
        for once, twice in zip(found[1][name], found[0][name]):
            assert_allclose(twice**2, once**2, rtol=1e-6)
    assert_allclose(found[0]["energy"], found[1]["energy"], rtol=1e-6)
