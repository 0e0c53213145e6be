"""Charge models of crystals and slabs, among molecules."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from numpy.testing import assert_allclose
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    KQEqRegressor,
    QEq,
    QEqRegressor,
    SOAPFeaturizer,
    check_structures,
    make_targets,
    predict_charges,
)
from skqeq.electrostatics import gaussian_widths, hardness_gradient, hardness_matrix
from skqeq.model_selection import TargetScorer
from skqeq.parameters import qeq_electronegativities

NAN = np.full(3, np.nan)


def rattled(atoms, seed, **info):
    atoms = atoms.copy()
    atoms.rattle(0.05, seed=seed)
    atoms.info |= info
    return atoms


def rocksalt():
    return bulk("NaCl", "rocksalt", a=5.64, cubic=True)


def salt_slab(layers=3):
    """Rock salt with two (001) surfaces; the third cell vector is absent."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (1, 1, layers)
    atoms.pbc = (True, True, False)
    atoms.cell[2] = 0
    return atoms


def qeq_charges(atoms, field=(0, 0, 0), total=0.0):
    """Minimise the energy under the constraint by the bordered linear equations."""
    n, ones = len(atoms), np.ones(len(atoms))
    chi = qeq_electronegativities()[atoms.numbers] - atoms.positions @ np.array(field)
    matrix = np.block([[hardness_matrix(atoms), ones[:, None]], [ones[None], np.zeros((1, 1))]])
    return np.linalg.solve(matrix, np.append(-chi, total))[:n]


@pytest.fixture
def mixed():
    """Molecules, crystals and slabs, with charges of another charge model, and some dipoles."""
    X = [rattled(molecule("NaCl"), i) for i in range(4)]
    X += [rattled(rocksalt(), i) for i in range(3)] + [rattled(salt_slab(1), i) for i in range(3)]
    X[5].info["charge"] = 1.0
    reference = QEqRegressor(response=QEq(radius_scale=0.3))
    charges = [0.8 * q for q in _charges_of(reference, X)]
    dipoles = [
        q @ (a.positions - a.get_center_of_mass()) if not a.pbc.any() else NAN
        for a, q in zip(X, charges)
    ]
    return X, make_targets(dipole=dipoles, charges=charges)


def _charges_of(model, X):
    zero = make_targets(charges=[np.zeros(len(a)) for a in X[:1]])
    return model.set_params(sigma_charges=1e6).fit(X[:1], zero).predict_charges(X)


@pytest.mark.parametrize("make", [rocksalt, salt_slab])
@pytest.mark.parametrize("total", [0.0, 1.0])
def test_charges_of_qeq(make, total):
    atoms = rattled(make(), 1, charge=total)
    labels = make_targets(charges=[np.full(len(atoms), total / len(atoms))])
    model = QEqRegressor(sigma_charges=1e9).fit([atoms], labels)
    [q] = model.predict_charges([atoms])
    assert_allclose(q, qeq_charges(atoms, total=total), atol=1e-8)
    assert_allclose(q.sum(), total, atol=1e-12)


def test_thick_slab_can_be_factorised():
    atoms = fcc111("Al", (1, 1, 40), vacuum=None)
    atoms.pbc = (True, True, False)
    [structure] = check_structures([atoms])
    for scale in (0.1, 0.2, 0.4):
        A = hardness_matrix(atoms, gaussian_widths(structure.numbers, radius_scale=scale))
        equilibrium = QEq(radius_scale=scale).prepare([13]).equilibrium(structure)
        chi = np.cos(np.arange(40.0))
        q = equilibrium.charges(chi=chi)
        potential = A @ q + chi
        assert_allclose(potential, potential.mean(), rtol=0, atol=1e-8)


def test_field_along_the_open_axis():
    atoms = rattled(salt_slab(2), 0, external_field=[0, 0, 0.3])
    labels = make_targets(charges=[np.zeros(len(atoms))])
    model = QEqRegressor(sigma_charges=1e9).fit([atoms], labels)
    [q] = model.predict_charges([atoms])
    assert_allclose(q, qeq_charges(atoms, field=[0, 0, 0.3]), atol=1e-8)
    dipole = model.predict_target([atoms], "dipole")[0]
    assert np.isnan(dipole[:2]).all()
    assert_allclose(dipole[2], q @ (atoms.positions[:, 2] - atoms.get_center_of_mass()[2]))


def test_energy_gradient_of_equilibrated_charges():
    """At the minimum, only ``q A q / 2`` contributes, with fixed charges."""
    atoms = rattled(salt_slab(1), 3)
    chi = qeq_electronegativities()[atoms.numbers]

    def energy(other):
        q = qeq_charges(other)
        return chi @ q + 0.5 * q @ hardness_matrix(other) @ q

    q = qeq_charges(atoms)
    gradient = 0.5 * hardness_gradient(atoms, q, q)[0]
    for axis in range(3):
        up, down = atoms.copy(), atoms.copy()
        up.positions[2, axis] += 1e-3
        down.positions[2, axis] -= 1e-3
        assert_allclose((energy(up) - energy(down)) / 2e-3, gradient[2, axis], atol=1e-5)


def test_mixed_training(mixed):
    X, y = mixed
    soap = SOAPFeaturizer(r_cut=3.5, n_max=3, l_max=2)
    model = make_pipeline(soap, CURSparsifier(n_points=6), KQEqRegressor(sigma_charges=1e-3))
    predicted = model.fit(X, y).predict(X)
    error = np.concatenate(predicted["charges"]) - np.concatenate(y["charges"])
    assert np.abs(error).max() < 0.1
    assert not np.isnan(predicted["dipole"][:4]).any()
    assert np.isnan(predicted["dipole"][4:7]).all()
    # A slab has a dipole along its open axis.
    assert (np.isnan(predicted["dipole"][7:]) == [True, True, False]).all()
    assert model.score(X, y) > 0.5
    for q, atoms in zip(predict_charges(model, X), X):
        assert_allclose(q.sum(), atoms.info.get("charge", 0.0), atol=1e-12)


def test_search_over_mixed_structures(mixed):
    X, y = mixed
    search = GridSearchCV(
        QEqRegressor(),
        {"response__radius_scale": [0.2, 0.3]},
        scoring={name: TargetScorer(name) for name in ("charges", "dipole")},
        refit="charges",
        cv=KFold(2, shuffle=True, random_state=0),
        error_score="raise",
    )
    assert np.isfinite(search.fit(X, y).best_score_)


def test_dipole_of_a_slab_as_label(mixed):
    X, y = mixed
    y["dipole"][7] = [np.nan, np.nan, 0.1]
    QEqRegressor().fit(X, y)
    y["dipole"][7] = [np.nan, 0.1, 0.1]
    with pytest.raises(ValueError, match=r"^structure 7 \(Cl4Na4\) has pbc = .* dipole undefined"):
        QEqRegressor().fit(X, y)


def test_score_where_crystals_have_no_label(mixed):
    """Dipoles are the only labels, and X contains crystals, as a fold of a search may."""
    X, y = mixed
    dipoles = make_targets(dipole=list(y["dipole"]))
    model = QEqRegressor().fit(X, dipoles)
    assert model.score(X, dipoles) == pytest.approx(model.score(X[:4], dipoles[:4]))
    assert TargetScorer("dipole")(model, X, y) == TargetScorer("dipole")(model, X[:4], y[:4])


@pytest.mark.parametrize("name", ["dipole", "quadrupole", "dipole_magnitude", "potential"])
def test_undefined_targets(name, mixed):
    X, y = mixed
    X[4].info["potential_points"] = [[0.0, 0.0, 0.0]]
    value = {"dipole": [0.0] * 3, "quadrupole": [0.0] * 6, "dipole_magnitude": 0.1}.get(name, [0.0])
    labels = make_targets(**{name: [None] * 4 + [value] + [None] * 5, "charges": y["charges"]})
    with pytest.raises(ValueError, match=rf"^structure 4 \(Cl4Na4\) .* {name} undefined"):
        QEqRegressor().fit(X, labels)
    model = QEqRegressor().fit(X, y)
    with pytest.raises(ValueError, match=rf"^structure 1 \(Cl4Na4\) .* {name} undefined"):
        model.predict_target([X[0], X[4]], name)


def test_translation_and_supercell(mixed):
    X, y = mixed
    model = QEqRegressor().fit(X, y)
    crystal = rattled(rocksalt(), 9)
    moved = Atoms(crystal)
    moved.positions += [1.0, 2.0, 3.0]
    moved.wrap()
    one, other, large = model.predict_charges([crystal, moved, crystal * (1, 2, 1)])
    assert_allclose(other, one, atol=1e-7)
    assert_allclose(large, np.tile(one, 2), atol=1e-7)
