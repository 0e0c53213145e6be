"""Learned dipoles of the atoms, beside charge equilibration and charge flow."""

import copy

import numpy as np
import pytest
from ase import Atoms
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, LeaveOneOut, cross_val_predict
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    KQEqRegressor,
    KQEqRegressorCV,
    QEq,
    SOAPFeaturizer,
    StructureBlocks,
    VectorSOAPFeaturizer,
    check_structures,
    make_targets,
)
from skqeq.electrostatics import potential_matrix
from skqeq.model_selection import log_evidence

SOAP = {"r_cut": 2.5, "n_max": 2, "l_max": 2, "cutoff_width": 1.0}
VECTORS = {"n_max": 2, "l_max": 2, "n_channels": 2, "cutoff_width": 1.0}
POLARIZABLE = QEq(polarizability={"H": 0.3, "C": 0.0, "O": 0.6})


def blocks(**options):
    kernels = make_pipeline(SOAPFeaturizer(**SOAP), CURSparsifier(n_points=4))
    vectors = VectorSOAPFeaturizer(**(VECTORS | options))
    return StructureBlocks([("chi", kernels), ("dipole", vectors)])


def pipeline(**params):
    return make_pipeline(blocks(), KQEqRegressor(sigma_dipole=0.02, **params))


@pytest.fixture
def bent(molecules, dipoles):
    """Labels that charges alone do not explain: a part of each dipole is turned."""
    return dipoles + 0.2 * np.roll(dipoles, 1, axis=1)


@pytest.fixture
def fitted(molecules, bent):
    return pipeline(store_triangles=True).fit(molecules, bent)


def solutions(model, X, names=("dipole",)):
    return list(model[-1].solutions(model[:-1].transform(X), names))


@pytest.mark.parametrize("response", [QEq(), ChargeFlow(), POLARIZABLE], ids=repr)
def test_observables_are_sums_over_charges_and_dipoles(response, molecules, bent):
    model = pipeline(response=response).fit(molecules, bent)
    atoms, points = molecules[1], np.array([[3.0, 1.0, 0.0], [0.0, -4.0, 1.0], [0.5, 0.5, 0.3]])
    atoms.info["potential_points"] = points
    [solution] = solutions(model, [atoms])
    q, d = solution.charges, solution.atomic_dipoles
    assert np.abs(d).max() > 1e-3
    total = d if solution.induced_dipoles is None else d + solution.induced_dipoles
    r, theta = atoms.positions - atoms.get_center_of_mass(), np.zeros((3, 3))
    for charge, dipole, x in zip(q, total, r, strict=True):
        theta += charge * (3 * np.outer(x, x) - x @ x * np.eye(3)) / 2
        theta += 1.5 * (np.outer(x, dipole) + np.outer(dipole, x)) - x @ dipole * np.eye(3)
    assert_allclose(model.predict([atoms])[0], q @ r + total.sum(axis=0), atol=1e-12)
    found = skqeq.predict_target(model, [atoms], "quadrupole")[0]
    assert_allclose(found, theta.ravel()[[0, 4, 8, 5, 2, 1]], atol=1e-12)
    # A dipole of Gaussian charges is the derivative of a Gaussian charge by its position.
    found, h = skqeq.predict_target(model, [atoms], "potential")[0], 1e-4
    [structure] = check_structures([atoms])
    widths = solution.equilibrium.dipole_widths
    expected = potential_matrix(points, structure, solution.equilibrium.widths) @ q
    for axis in range(3):
        for sign in (-1, 1):
            moved = atoms.copy()
            moved.positions[:, axis] += sign * h
            [other] = check_structures([moved])
            part = potential_matrix(points, other, widths) @ total[:, axis]
            expected += sign * part / (2 * h)
    assert_allclose(found, expected, atol=1e-6)


def test_the_widths_of_dipoles(molecules, bent):
    model = pipeline(response=POLARIZABLE).fit(molecules, bent)
    [solution] = solutions(model, molecules[:1])
    widths, carbon = solution.equilibrium.dipole_widths, molecules[0].numbers == 6
    assert_array_equal(widths[carbon], solution.equilibrium.widths[carbon])
    assert_array_equal(widths[~carbon], solution.equilibrium.dipoles.widths[~carbon])


def test_predictions_turn_with_the_molecule(fitted, molecules):
    atoms, R = molecules[3], Rotation.random(random_state=0).as_matrix()
    turned, inverted = atoms.copy(), atoms.copy()
    turned.positions, inverted.positions = atoms.positions @ R.T, -atoms.positions
    one, two, three = solutions(fitted, [atoms, turned, inverted])
    assert_allclose(two.atomic_dipoles, one.atomic_dipoles @ R.T, atol=1e-12)
    assert_allclose(three.atomic_dipoles, -one.atomic_dipoles, atol=1e-12)
    predicted = fitted.predict([atoms, turned, inverted])
    assert_allclose(predicted[1], R @ predicted[0], atol=1e-10)
    assert_allclose(predicted[2], -predicted[0], atol=1e-10)


@pytest.mark.parametrize("response", [QEq(), ChargeFlow(), POLARIZABLE], ids=repr)
def test_born_charges_by_finite_differences(response, molecules, bent):
    model, atoms, h = pipeline(response=response).fit(molecules, bent), molecules[3], 1e-3
    [born] = skqeq.predict_born_effective_charges(model, [atoms])

    def dipole(step, i, b):
        moved = atoms.copy()
        moved.positions[i, b] += step
        [solution] = solutions(model, [moved])
        induced = solution.induced_dipoles
        total = solution.charges @ moved.positions + solution.atomic_dipoles.sum(axis=0)
        return total if induced is None else total + induced.sum(axis=0)

    for i, b in [(0, 0), (2, 1), (3, 2)]:
        ends = [dipole(k * h, i, b) for k in (-2, -1, 1, 2)]
        expected = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * h)
        assert_allclose(born[i, :, b], expected, atol=1e-6)
    assert_allclose(born.sum(axis=0), 0.0, atol=1e-9)


def by_weights(model, X, name):
    """Exact derivatives of a linear target by the weights in units of their prior."""
    other, scale = copy.copy(model), model.layout_.scale[: len(model.coef_)]
    columns = []
    for unit in np.eye(len(scale)):
        ends = []
        for sign in (-1, 1):
            other.coef_ = model.coef_ + sign * unit
            values = other.predict_targets(X, [name])[name]
            ends.append(np.concatenate([np.ravel(value) for value in values]))
        columns.append((ends[1] - ends[0]) / 2)
    return np.array(columns).T * scale


@pytest.mark.parametrize("name", ["dipole", "quadrupole", "born_effective_charges"])
def test_the_fit_and_its_covariance_are_those_of_dense_matrices(name, molecules, bent):
    # Almost without electronegativities from kernels, whose remainders add to the variance.
    fitted, molecules, bent = pipeline(store_triangles=True), molecules[:5], bent[:5]
    fitted.set_params(kqeqregressor__amplitude_chi=1e-6).fit(molecules, bent)
    X, model = fitted[:-1].transform(molecules), fitted[-1]
    J, y = by_weights(model, X, "dipole") / 0.02, bent.ravel() / 0.02
    scale = model.layout_.scale[: len(model.coef_)]
    rest = y - (model.predict(X).ravel() / 0.02 - J @ (model.coef_ / scale))
    precision = J.T @ J + np.eye(len(scale))
    assert_allclose(model.coef_ / scale, np.linalg.solve(precision, J.T @ rest), atol=1e-6)
    part = X[2:3]
    found = np.ravel(model.predict_std(part, [name])[name][0]) ** 2
    of_target = by_weights(model, part, name)
    expected = np.einsum("ij,jk,ik->i", of_target, np.linalg.inv(precision), of_target)
    assert_allclose(found, expected, rtol=1e-5, atol=1e-12)


def test_born_charges_as_labels(molecules, bent):
    """A fit to Born charges finds the weights that made them."""
    model = pipeline(sigma_born_effective_charges=1e-4).fit(molecules[:4], bent[:4])
    labels = make_targets(
        born_effective_charges=skqeq.predict_born_effective_charges(model, molecules[:4])
    )
    other = clone(model).fit(molecules[:4], labels)
    found = skqeq.predict_born_effective_charges(other, molecules[:4])
    for one, two in zip(found, labels["born_effective_charges"], strict=True):
        assert_allclose(one, two, atol=1e-3)


def test_magnitudes_as_labels(molecules, bent):
    y = make_targets(dipole_magnitude=np.linalg.norm(bent, axis=1))
    model = pipeline(sigma_dipole_magnitude=1e-3).fit(molecules, y)
    assert model.score(molecules, y) > 0.99
    assert np.abs(solutions(model, molecules)[0].atomic_dipoles).max() > 1e-3


def test_other_linear_labels(molecules, bent):
    """Weights that explain quadrupoles and potentials explain dipoles as well."""
    for atoms in molecules:
        atoms.info["potential_points"] = atoms.positions[:2] + [0.0, 2.5, 0.0]
    truth = pipeline().fit(molecules, bent)
    names = ["dipole", "quadrupole", "potential", "charges"]
    y = skqeq.predict_targets(truth, molecules, names)
    noise = {f"sigma_{name}": 1e-5 for name in names}
    found = clone(truth).set_params(**{f"kqeqregressor__{k}": v for k, v in noise.items()})
    assert found.fit(molecules, y).score(molecules, y) > 0.9999


def test_without_a_block_nothing_changes(molecules, dipoles):
    alone = make_pipeline(SOAPFeaturizer(**SOAP), CURSparsifier(n_points=4), KQEqRegressor())
    model = alone.fit(molecules, dipoles)[-1]
    assert model.layout_.names == ["chi", "atoms"] and not model.layout_.has_dipoles
    assert solutions(alone, molecules[:1])[0].atomic_dipoles is None
    wider = clone(alone).set_params(kqeqregressor__amplitude_dipole=9.0).fit(molecules, dipoles)
    assert_array_equal(wider[-1].coef_, model.coef_)
    # With an amplitude of almost zero, the block has no influence either.
    tiny = make_pipeline(blocks(), KQEqRegressor(amplitude_dipole=1e-9)).fit(molecules, dipoles)
    assert_allclose(tiny.predict(molecules), alone.predict(molecules), atol=1e-7)


def test_blocks_that_a_sparsifier_names_keep_their_names(molecules, bent):
    weights = {"chi": (0.9, 0.1), "reference": (1.0, 0.0)}
    soap = SOAPFeaturizer(**(SOAP | {"r_cut": (2.0, 3.0)}))
    kernels = make_pipeline(soap, CURSparsifier(n_points=3, block_weights=weights))
    both = StructureBlocks([("kernels", kernels), ("dipole", VectorSOAPFeaturizer(**VECTORS))])
    model = make_pipeline(both, KQEqRegressor(response=ChargeFlow())).fit(molecules, bent)
    assert model[:-1].transform(molecules).source.names == ("chi", "reference", "dipole")
    assert model[-1].layout_.names == ["chi", "reference", "dipole", "atoms"]


def test_a_search_of_amplitude_and_weights(molecules, bent):
    grid = {
        "kqeqregressor__amplitude_dipole": [1e-6, 0.3],
        "structureblocks__dipole__r_cut": [2.0, 3.0],
    }
    search = GridSearchCV(pipeline(), grid, cv=GroupKFold(3), error_score="raise")
    search.fit(molecules, bent, groups=np.arange(len(molecules)) // 2)
    scores = search.cv_results_["mean_test_score"]
    assert len(scores) == 4 and np.ptp(scores) > 1e-3


def test_leaving_out_structures_is_exact(molecules, bent):
    """With fixed features, and with a pipeline that is fitted in every fold."""
    X = blocks().fit_transform(molecules)
    for model, data, cv in ((KQEqRegressor(), X, LeaveOneOut()), (pipeline(), molecules, KFold(3))):
        search = KQEqRegressorCV(model, sigmas=[0.02], cv=cv, scoring="rmse").fit(data, bent)
        expected = cross_val_predict(search.best_estimator_, data, bent, cv=cv)
        assert_allclose(search.left_out_["dipole"], expected, atol=1e-6)


def test_the_evidence_and_its_gradient(molecules, bent):
    X = blocks().fit_transform(molecules)
    model = KQEqRegressor(sigma_dipole=0.05, response=ChargeFlow())
    gradient, h = log_evidence(model, X, bent).gradient, 1e-4
    for name in ("amplitude_dipole", "amplitude_chi", "sigma_dipole"):
        ends = [
            log_evidence(clone(model).set_params(**{name: value}), X, bent).value
            for value in getattr(model, name) * np.exp([-h, h])
        ]
        assert_allclose(gradient[name], (ends[1] - ends[0]) / (2 * h), rtol=1e-5, atol=1e-6)


def test_partial_fit_and_refit(fitted, molecules, bent):
    X = fitted[:-1].transform(molecules)
    model = clone(fitted[-1]).partial_fit(X[:7], bent[:7]).partial_fit(X[7:], bent[7:])
    assert_allclose(model.predict(X), fitted.predict(molecules), atol=1e-9)
    wider = model.set_params(amplitude_dipole=0.5).refit()
    other = clone(fitted[-1]).set_params(amplitude_dipole=0.5).fit(X, bent)
    assert_allclose(wider.predict(X), other.predict(X), atol=1e-9)


def test_save_and_load(fitted, molecules, tmp_path):
    skqeq.save(fitted, tmp_path / "dipoles.skqeq")
    loaded = skqeq.load(tmp_path / "dipoles.skqeq")
    assert_array_equal(loaded.predict(molecules), fitted.predict(molecules))
    one, two = (skqeq.predict_std(m, molecules[:2], ["dipole"]) for m in (fitted, loaded))
    assert_array_equal(one["dipole"], two["dipole"])


def test_a_slab_has_a_dipole_along_its_normal(fitted):
    slab = Atoms("OHCH", [[0, 0, 0], [0.2, 0.1, 1.0], [1.5, 1.4, 0.1], [1.6, 1.3, 1.2]])
    slab.set_cell([4.0, 4.0, 12.0])
    slab.pbc = (True, True, False)
    [solution] = solutions(fitted, [slab])
    expected = solution.charges @ (slab.positions - slab.get_center_of_mass())
    expected += solution.atomic_dipoles.sum(axis=0)
    found = fitted.predict([slab])[0]
    assert np.isnan(found[:2]).all()
    assert_allclose(found[2], expected[2], atol=1e-12)


def test_energies_are_refused(fitted, molecules, bent):
    for predict in (skqeq.predict_energy, skqeq.predict_forces):
        with pytest.raises(ValueError, match="atomic dipoles does not predict"):
            predict(fitted, molecules)
    for y in (make_targets(energy=np.zeros(12)), make_targets(energy=np.zeros(12), dipole=bent)):
        with pytest.raises(ValueError, match="leave out the block 'dipole'"):
            pipeline().fit(molecules, y)
    with pytest.raises(ValueError, match="atomic dipoles"):
        _ = solutions(fitted, molecules[:1])[0].energy
    with pytest.raises(ValueError, match="block"):
        make_pipeline(blocks(), GAPKQEqRegressor()).fit(molecules, bent)


def test_features_of_the_wrong_kind(molecules, bent, fitted):
    soap, vectors = SOAPFeaturizer(**SOAP), VectorSOAPFeaturizer(**VECTORS)
    kernels = make_pipeline(soap, CURSparsifier(n_points=3))
    for wrong in ([("chi", kernels), ("dipole", kernels)], [("chi", vectors), ("dipole", vectors)]):
        with pytest.raises(ValueError, match="must be (vectors|numbers)"):
            make_pipeline(StructureBlocks(wrong), KQEqRegressor()).fit(molecules, bent)
    lacking = StructureBlocks([("chi", kernels)]).fit_transform(molecules)
    with pytest.raises(ValueError, match="features"):
        fitted[-1].predict(lacking)
    with pytest.raises(ValueError, match="CURSparsifier takes invariant features"):
        make_pipeline(vectors, CURSparsifier(n_points=3)).fit(molecules)
