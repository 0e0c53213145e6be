"""Energies of charge equilibration, and forces against their differences."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from numpy.testing import assert_allclose
from sklearn.pipeline import FeatureUnion, make_pipeline

from skqeq import (
    CURSparsifier,
    KQEqRegressor,
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
    model = make_pipeline(soap, CURSparsifier(n_points=12, **options), KQEqRegressor(hardness=1.0))
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
    model = QEqRegressor(sigma_charges=1e9, radius_scale=0.35, hardness=2.0)
    model.fit([atoms], make_targets(charges=[np.zeros(len(atoms))]))
    [q] = predict_charges(model, [atoms])
    A = helpers.hardness_matrix(atoms, helpers.gaussian_widths(atoms), 2.0)
    chi = qeq_electronegativities()[atoms.numbers] - atoms.positions @ [0.3, 0.1, -0.2]
    assert_allclose(predict_energy(model, [atoms]), [chi @ q + q @ A @ q / 2], rtol=1e-9)
    # No other charges of that sum have less energy.
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
    [dense] = predict_forces(model.set_params(kqeqregressor__solver="dense"), [atoms])
    [iterative] = predict_forces(model.set_params(kqeqregressor__solver="iterative"), [atoms])
    assert_allclose(iterative, dense, rtol=0, atol=1e-6)


def test_features_without_derivative():
    X, y = [CASES["molecule"]], make_targets(charges=[[0.8, -0.8]])
    arrays = StructureFeatures.from_arrays(X, [np.eye(2)])
    with pytest.raises(TypeError, match="forces need features of known derivative"):
        KQEqRegressor().fit(arrays, y).predict_forces(arrays)
    union = FeatureUnion([("a", SOAPFeaturizer(r_cut=2.5)), ("b", SOAPFeaturizer(r_cut=3.5))])
    with pytest.raises(TypeError, match="forces need the features of SOAPFeaturizer before CUR"):
        predict_forces(
            make_pipeline(union, CURSparsifier(n_points=1), KQEqRegressor()).fit(X, y), X
        )
