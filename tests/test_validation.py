"""Physical tests of models on systems with known answers."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from numpy.testing import assert_allclose
from sklearn.model_selection import GridSearchCV

from skqeq import (
    QEq,
    QEqRegressor,
    make_targets,
    predict_charges,
    predict_energy,
    predict_polarizability,
)
from skqeq.validation import (
    dissociation,
    expanded,
    field_response,
    find_fragments,
    fragment_charge_error,
    fragment_charges,
    fragment_distance,
    polarizability_per_fragment,
)


def cluster(n=3, charge=0):
    """Water molecules in a row, 3 Angstrom apart."""
    atoms = Atoms()
    for i in range(n):
        water = molecule("H2O")
        water.rotate(40 * i, "x")
        water.translate([3.0 * i, 0, 0])
        atoms += water
    atoms.info["charge"] = charge
    return atoms


@pytest.fixture(scope="module")
def model():
    y = make_targets(charges=[[-0.7, 0.35, 0.35]])
    return QEqRegressor(response=QEq(radius_scale=0.5)).fit([molecule("H2O")], y)


def reference(X):
    """Put the total charge on the first atom; the energy is that of this charge in the field."""
    charges = []
    for atoms in X:
        charges.append(np.zeros(len(atoms)))
        charges[-1][0] = atoms.info["charge"]
    fields = [atoms.info.get("external_field", np.zeros(3)) for atoms in X]
    energies = [-q[0] * a.positions[0] @ f for q, a, f in zip(charges, X, fields, strict=True)]
    return energies, charges


def test_fragments():
    atoms = cluster()
    fragments = find_fragments(atoms)
    assert fragments.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert fragment_charges(np.arange(9.0), fragments).tolist() == [3.0, 12.0, 21.0]
    # The result is the same for atoms in another order, and holds for a hydronium ion too.
    mixed = atoms[[0, 3, 1, 4, 2, 5]]
    assert find_fragments(mixed).tolist() == [0, 1, 0, 1, 0, 1]
    ion = molecule("H2O") + Atoms("H", [[0.0, 0.0, 1.1]])
    assert find_fragments(ion).tolist() == [0, 0, 0, 0]
    assert fragment_distance(ion, find_fragments(ion)) == np.inf


def test_expansion_moves_rigid_fragments():
    atoms = cluster()
    fragments = find_fragments(atoms)
    wide = expanded(atoms, 2.0)
    assert wide.info == atoms.info and wide is not atoms
    assert_allclose(wide.get_center_of_mass(), atoms.get_center_of_mass(), atol=1e-12)
    for f in range(3):
        before, after = atoms[fragments == f], wide[fragments == f]
        assert_allclose(after.get_all_distances(), before.get_all_distances(), atol=1e-12)
        center = atoms.get_center_of_mass()
        expected = 2.0 * (before.get_center_of_mass() - center)
        assert_allclose(after.get_center_of_mass() - center, expected, atol=1e-12)
    assert_allclose(expanded(atoms, 1.0).positions, atoms.positions, atol=1e-12)


@pytest.mark.parametrize("charge", [-1, 0, 1])
def test_dissociation(charge, model):
    atoms = cluster(charge=charge)
    result = dissociation(model, atoms, [1.0, 3.0, 9.0])
    path = [expanded(atoms, factor) for factor in (1.0, 3.0, 9.0)]
    assert_allclose(result.energies, predict_energy(model, path))
    q = predict_charges(model, path)[2]
    assert_allclose(result.charges[2], [q[:3].sum(), q[3:6].sum(), q[6:].sum()])
    assert_allclose(result.charges.sum(axis=1), charge, atol=1e-9)
    assert (np.diff(result.distances) > 4.0).all()
    # The charge of the ion is spread by charge equilibration, and is on one atom in the reference.
    if charge:
        assert np.abs(result.charges[2] - charge / 3).max() < 0.2
    assert_allclose(dissociation(reference, atoms, [2.0]).charges, [[charge, 0, 0]])


def test_field_response(model):
    atoms = cluster(2)
    atoms.info["external_field"] = [9.0, 9.0, 9.0]
    fields = np.outer([-0.1, 0.0, 0.1], [1.0, 0.0, 0.0])
    result = field_response(model, atoms, fields)
    assert atoms.info["external_field"] == [9.0, 9.0, 9.0]
    [alpha] = predict_polarizability(model, [atoms])
    assert_allclose((result.dipoles[2] - result.dipoles[0]) / 0.2, alpha[:, 0], rtol=1e-8)
    curvature = (result.energies[2] - 2 * result.energies[1] + result.energies[0]) / 0.1**2
    assert_allclose(-curvature, alpha[0, 0], rtol=1e-6)
    assert result.charges.shape == (3, 2)
    # A positive charge moves along the field.
    assert result.charges[2, 1] > result.charges[0, 1]
    ion = cluster(2, charge=1)
    moved = field_response(reference, ion, fields)
    assert_allclose(moved.energies, -fields @ ion.positions[0])


def test_error_of_fragment_charges(model):
    X = [expanded(cluster(charge=1), factor) for factor in (1.0, 4.0, 5.0)]
    charges = reference(X)[1]
    assert fragment_charge_error(reference, X, charges) == 0.0
    predicted = [fragment_charges(q, find_fragments(X[0])) for q in predict_charges(model, X[1:])]
    expected = np.sqrt(np.mean((np.array(predicted) - [1.0, 0.0, 0.0]) ** 2))
    assert fragment_charge_error(model, X, charges) == pytest.approx(expected)
    assert expected > 0.3
    with pytest.raises(ValueError, match="no structure has fragments 6 Angstrom apart"):
        fragment_charge_error(model, X[:1], charges[:1])


def test_polarizability_of_growing_clusters(model):
    """Charge flows along the whole chain, so that the polarisability per molecule grows."""
    per_molecule = polarizability_per_fragment(model, [cluster(n) for n in (1, 2, 4)])
    alpha = predict_polarizability(model, [cluster(4)])[0]
    assert per_molecule[2] == pytest.approx(np.trace(alpha) / 12)
    assert per_molecule[0] < per_molecule[1] < per_molecule[2]


def test_any_fitted_model(model):
    y = make_targets(charges=[[-0.7, 0.35, 0.35]] * 4)
    search = GridSearchCV(QEqRegressor(response=QEq()), {"response__hardness": [0.0, 1.0]}, cv=2)
    X = [molecule("H2O") for _ in range(4)]
    for seed, atoms in enumerate(X):
        atoms.rattle(0.02, seed=seed)
    search.fit(X, y)
    assert dissociation(search, cluster(2), [1.0]).energies.shape == (1,)
    with pytest.raises(TypeError, match="X is a single Atoms object|must be an ase.Atoms"):
        polarizability_per_fragment(model, cluster(2))
