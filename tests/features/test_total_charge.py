"""Features that depend on the total charge."""

import numpy as np
import pytest
from ase.build import molecule
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import (
    CURSparsifier,
    KQEqRegressor,
    SOAPFeaturizer,
    StructureBlocks,
    TotalChargeFeatures,
    make_targets,
    predict_energy,
    predict_forces,
    predict_std,
)

from .. import helpers

NAMES = ["CH3OH", "H2CO", "HCOOH", "CH3CHO"]
CHARGES = [-1.0, 0.0, 1.0, 2.0]


def head(*last):
    soap = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2, cutoff_width=1.0)
    return make_pipeline(soap, CURSparsifier(n_points=3), *last)


def ions(charges=CHARGES):
    """Every molecule in every charge state."""
    return [helpers.rattled(name, i, charge=q) for q in charges for i, name in enumerate(NAMES)]


def dipoles(X):
    """Dipoles that no electronegativity without the total charge can describe."""
    rng = np.random.default_rng(0)
    return np.array([0.3 * rng.normal(size=3) + 0.2 * atoms.info["charge"] for atoms in X])


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_kernel_is_multiplied_by_the_correlation_of_the_charge_states(weight):
    X = ions()
    plain, charged = head().fit(X), head(TotalChargeFeatures(weight)).fit(X)
    before, after = plain.transform(X), charged.transform(X)
    assert after.n_features == 2 * before.n_features
    for i, j in [(0, 1), (0, 4), (1, 9), (3, 15), (5, 5)]:
        q, p = X[i].info["charge"], X[j].info["charge"]
        norms = np.sqrt((1 + (weight * q) ** 2) * (1 + (weight * p) ** 2))
        correlation = (1 + weight**2 * q * p) / norms
        assert_allclose(after[i] @ after[j].T, correlation * before[i] @ before[j].T, atol=1e-12)


@pytest.mark.parametrize("weight, q, p, expected", [(1.0, 1, -1, 0.0), (1.0, 0, 1, np.sqrt(0.5))])
def test_correlations_of_the_docstring(weight, q, p, expected):
    X = [molecule("H2O"), molecule("H2O")]
    X[0].info["charge"], X[1].info["charge"] = q, p
    with pytest.warns(UserWarning, match="not counting copies"):
        phi = head(TotalChargeFeatures(weight)).fit_transform(X)
    assert_allclose((phi[0] @ phi[1].T)[0, 0], expected, atol=1e-6)


def test_a_weight_of_zero_has_no_influence():
    X = ions()
    plain = head(KQEqRegressor()).fit(X, dipoles(X))
    charged = head(TotalChargeFeatures(0.0), KQEqRegressor()).fit(X, dipoles(X))
    assert_allclose(charged.predict(X), plain.predict(X), atol=1e-9)


def test_cations_and_anions_are_fitted_separately():
    X = ions([1.0, -1.0])
    D, n = dipoles(X), len(NAMES)

    def model():
        return KQEqRegressor(baseline=False, sigma_dipole=0.05)

    together = head(TotalChargeFeatures(), model()).fit(X, D)
    for part in (slice(None, n), slice(n, None)):
        alone = head(model()).fit(X[part], D[part])
        assert_allclose(together.predict(X[part]), alone.predict(X[part]), atol=1e-9)
    # Without the total charge, both halves of the data share their electronegativities.
    mixed = head(model()).fit(X, D)
    assert together.score(X, D) > mixed.score(X, D) + 0.1


def test_forces_are_derivatives_of_the_energy():
    X = ions([-1.0, 1.0])
    energies = np.random.default_rng(1).normal(size=len(X))
    y = make_targets(energy=energies, dipole=dipoles(X))
    model = head(TotalChargeFeatures(0.7), KQEqRegressor(store_triangles=True, tol=1e-4)).fit(X, y)
    atoms, step = X[5], 1e-4
    [forces] = predict_forces(model, [atoms])
    for atom, axis in [(0, 0), (2, 1), (3, 2)]:
        moved = [atoms.copy(), atoms.copy()]
        moved[0].positions[atom, axis] += step
        moved[1].positions[atom, axis] -= step
        above, below = predict_energy(model, moved)
        assert_allclose(forces[atom, axis], -(above - below) / (2 * step), atol=1e-6)
    [std] = predict_std(model, [atoms], ["forces"])["forces"]
    assert (std > 0).all()


def test_blocks():
    X = ions()
    blocks = StructureBlocks([("chi", head(TotalChargeFeatures())), ("gap", head())])
    sizes = blocks.fit_transform(X).source.sizes
    assert sizes[0] == 2 * sizes[1]
    with pytest.raises(ValueError, match="inside every block of StructureBlocks"):
        TotalChargeFeatures().fit(blocks.transform(X))


def test_wrong_places_in_a_pipeline():
    X = ions([0.0])
    with pytest.raises(ValueError, match="must follow CURSparsifier"):
        make_pipeline(SOAPFeaturizer(n_max=2, l_max=1), TotalChargeFeatures()).fit_transform(X)
    with pytest.raises(TypeError, match="takes the features of CURSparsifier, got list"):
        TotalChargeFeatures().transform(X)
    with pytest.raises(ValueError, match="'weight' parameter"):
        head(TotalChargeFeatures(-1.0)).fit(X)


def test_model_files(tmp_path):
    X = ions()
    model = head(TotalChargeFeatures(0.5), KQEqRegressor()).fit(X, dipoles(X))
    skqeq.save(model, tmp_path / "model.skqeq")
    assert_array_equal(skqeq.load(tmp_path / "model.skqeq").predict(X), model.predict(X))
    other = head(TotalChargeFeatures(0.6)).fit(X)
    with pytest.raises(ValueError, match="with a different meaning"):
        model[-1].predict(other.transform(X))
