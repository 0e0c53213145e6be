"""Energies of charge equilibration, and forces against finite differences."""

import copy

import numpy as np
import pytest
from ase.build import bulk, molecule
from numpy.testing import assert_allclose
from sklearn.pipeline import FeatureUnion, make_pipeline

import skqeq
from skqeq import (
    CURSparsifier,
    KQEqRegressor,
    QEq,
    QEqRegressor,
    SOAPFeaturizer,
    StructureFeatures,
    make_targets,
    predict_charges,
    predict_energy,
    predict_forces,
)
from skqeq.parameters import qeq_electronegativities

from .. import helpers

HARD = QEq(hardness=1.0)


def rattled(atoms, seed=0, **info):
    atoms = atoms.copy()
    atoms.rattle(0.08, seed=seed)
    atoms.info |= info
    return atoms


def salt(pbc, **info):
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.pbc = pbc
    return rattled(atoms, **info)


CASES = {
    "molecule": rattled(molecule("NaCl")),
    "ion in a field": salt(False, charge=1.0, external_field=[0.1, -0.2, 0.3]),
    "slab in a field": salt((1, 1, 0), external_field=[0.0, 0.0, 0.2]),
    "charged slab": salt((0, 1, 1), charge=-1.0),
    "crystal": salt(True),
    "charged crystal": salt(True, charge=1.0),
}


def pipeline(soap=None, **options):
    X = [rattled(atoms, seed) for seed in range(3) for atoms in CASES.values()]
    rng = np.random.default_rng(0)
    charges = [np.where(a.symbols == "Na", 0.8, -0.8) + 0.2 * rng.normal(size=len(a)) for a in X]
    soap = soap or SOAPFeaturizer(r_cut=(2.5, 3.5), n_max=3, l_max=2)
    model = make_pipeline(soap, CURSparsifier(n_points=12, **options), KQEqRegressor(response=HARD))
    return model.fit(X, make_targets(charges=charges))


@pytest.fixture(scope="module")
def model():
    return pipeline()


def differences(model, atoms, step=1e-4):
    """Fourth-order central differences of the energy for three of the coordinates."""
    for atom, axis in ((0, 0), (1, 2), (len(atoms) - 1, 1)):
        moved = [atoms.copy() for _ in range(4)]
        for n, other in zip((-2, -1, 1, 2), moved):
            other.positions[atom, axis] += n * step
        e = predict_energy(model, moved)
        yield atom, axis, -(8 * (e[2] - e[1]) - (e[3] - e[0])) / (12 * step)


@pytest.mark.parametrize("name", CASES)
def test_forces(name, model):
    atoms = CASES[name]
    [forces] = predict_forces(model, [atoms])
    for atom, axis, expected in differences(model, atoms):
        assert_allclose(forces[atom, axis], expected, rtol=0, atol=1e-6 * np.abs(forces).max())
    field = np.array(atoms.info.get("external_field", np.zeros(3)))
    total = atoms.info.get("charge", 0.0) * field
    assert_allclose(forces.sum(axis=0), total, rtol=0, atol=1e-7 * np.abs(forces).max())


@pytest.mark.parametrize("options", [{"zeta": 1}, {"zeta": 3}, {"per_species": False}])
def test_every_kernel(options):
    model, atoms = pipeline(**options), CASES["slab in a field"]
    [forces] = predict_forces(model, [atoms])
    for atom, axis, expected in differences(model, atoms):
        assert_allclose(forces[atom, axis], expected, rtol=0, atol=1e-6 * np.abs(forces).max())


def test_energy_by_definition():
    atoms = helpers.rattled("CH3OH", 0, charge=1, field=[0.3, 0.1, -0.2])
    model = QEqRegressor(sigma_charges=1e9, response=QEq(hardness=2.0, radius_scale=0.35))
    model.fit([atoms], make_targets(charges=[np.full(6, 1 / 6)]))
    [q] = predict_charges(model, [atoms])
    A = helpers.hardness_matrix(atoms, helpers.gaussian_widths(atoms), 2.0)
    chi = qeq_electronegativities()[atoms.numbers] - atoms.positions @ [0.3, 0.1, -0.2]
    assert_allclose(predict_energy(model, [atoms]), [chi @ q + q @ A @ q / 2], rtol=1e-9)
    # Other charges with the same sum have a higher energy.
    other = q + np.array([1e-2, -1e-2, 0, 0, 0, 0])
    assert chi @ other + other @ A @ other / 2 > predict_energy(model, [atoms])[0]


def test_forces_of_qeq():
    model = QEqRegressor().fit([CASES["crystal"]], make_targets(charges=[np.zeros(8)]))
    for name in ("crystal", "ion in a field"):
        [forces] = predict_forces(model, [CASES[name]])
        for atom, axis, expected in differences(model, CASES[name]):
            assert_allclose(forces[atom, axis], expected, rtol=0, atol=1e-6 * abs(forces).max())


def test_solvers_agree(model):
    atoms = CASES["charged slab"]
    forces = []
    for solver in ("dense", "iterative"):
        other = copy.deepcopy(model)
        # Predictions use the fitted `response_`, and not parameters that are set after the fit.
        other[-1].response_.set_params(solver=solver)
        forces += predict_forces(other, [atoms])
    dense, iterative = forces
    assert_allclose(iterative, dense, rtol=0, atol=1e-6)


def test_features_without_derivative():
    X, y = [CASES["molecule"]], make_targets(charges=[[0.8, -0.8]])
    arrays = StructureFeatures.from_arrays(X, [np.eye(2)])
    with pytest.raises(TypeError, match="need features whose derivatives are known"):
        KQEqRegressor().fit(arrays, y).predict_forces(arrays)
    arrays = StructureFeatures.from_arrays(X, [np.array([[1.0, 2.0], [2.0, 1.0]])])
    model = make_pipeline(CURSparsifier(n_points=1), KQEqRegressor()).fit(arrays, y)
    with pytest.raises(TypeError, match="such as those of SOAPFeaturizer followed by CUR"):
        predict_forces(model, arrays)


def test_unions():
    """Forces are right for a union of descriptors before a sparse set, and of two sparse sets."""
    soaps = [SOAPFeaturizer(r_cut=r, n_max=3, l_max=2, cutoff_width=1.0) for r in (2.5, 3.5)]
    both = pipeline(SOAPFeaturizer(r_cut=(2.5, 3.5), n_max=3, l_max=2, cutoff_width=1.0))
    union = pipeline(FeatureUnion([("a", soaps[0]), ("b", soaps[1])]))
    atoms = CASES["charged crystal"]
    expected = predict_forces(both, [atoms])[0]
    assert_allclose(predict_forces(union, [atoms])[0], expected, rtol=0, atol=1e-8)
    halves = [make_pipeline(soap, CURSparsifier(n_points=8)) for soap in soaps]
    model = make_pipeline(
        FeatureUnion([("near", halves[0]), ("far", halves[1])]),
        KQEqRegressor(response=HARD, sigma_forces=0.1, max_iter=4, tol=0.5),
    )
    X = [rattled(atoms, seed) for seed in range(3) for atoms in CASES.values()]
    rng = np.random.default_rng(0)
    model.fit(X, make_targets(forces=[rng.normal(size=(len(a), 3)) for a in X]))
    [forces] = predict_forces(model, [atoms])
    for atom, axis, expected in differences(model, atoms):
        assert_allclose(forces[atom, axis], expected, rtol=0, atol=1e-6 * np.abs(forces).max())
    features = model[:-1].transform([atoms])
    gradient = features.gradient(features.structures[0])
    w, q = rng.normal(size=features.n_features), rng.normal(size=len(atoms))
    pulled = gradient.pull_back(np.multiply.outer(q, w))
    rows = [part @ w for part in gradient.jacobian(q)]
    for found in (gradient.field_gradient(q, features.dual(w)), rows):
        for one, other in zip(found, pulled, strict=True):
            assert_allclose(np.ravel(one), np.ravel(other), rtol=0, atol=1e-9)
    assert_allclose(gradient.contract(q[None]), q[None] @ features[0], rtol=0, atol=1e-9)


def test_derivatives_must_be_asked_for(model):
    [solution] = model[-1].solutions(model[:-1].transform([CASES["molecule"]]))
    assert np.isfinite(solution.energy)
    for name in ("forces", "virial", "born_effective_charges", "field_gradients"):
        with pytest.raises(ValueError, match="ask for derivatives first"):
            getattr(solution, name)


@pytest.mark.parametrize("cutoff_width", [None, 1.0])
@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False), (False, True, True)])
def test_vectors_that_are_long_and_askew(pbc, cutoff_width):
    """Long, skewed vectors of the same lattice change neither the results nor time and memory."""
    X = [bulk("NaCl", "rocksalt", a=5.6, cubic=True) for _ in range(3)]
    for seed, atoms in enumerate(X):
        atoms.rattle(0.05, seed=seed)
        atoms.pbc = pbc
    soap = SOAPFeaturizer(r_cut=3.5, n_max=2, l_max=2, cutoff_width=cutoff_width)
    model = make_pipeline(soap, CURSparsifier(n_points=3), KQEqRegressor(response=HARD))
    charges = [np.where(a.symbols == "Na", 0.8, -0.8) for a in X]
    model.fit(X, make_targets(charges=charges))
    skewed = X[0].copy()
    first, second = np.flatnonzero(pbc)[:2]
    skewed.cell[first] += 20_000 * skewed.cell[second]
    names = ["charges", "energy", "forces"]
    plain, other = skqeq.predict_targets(model, [X[0], skewed], names)
    for name in names:
        assert_allclose(other[name], plain[name], rtol=0, atol=1e-6)
