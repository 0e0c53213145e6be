"""Kernels with most of their products in single precision."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, QEq, SOAPFeaturizer
from skqeq.datasets import load_molecules
from skqeq.sparsify._mixed import RANK, MixedProducts, products


@pytest.fixture(scope="module")
def points():
    """Similar rows of norm one in two blocks, of which the smaller one has low rank."""
    rng = np.random.default_rng(0)
    rows = rng.random((1, 400)) + 0.2 * rng.random((60, 400))
    rows[:, 300:] = rng.random((60, 3)) @ rng.random((3, 100))
    for block in (rows[:, :300], rows[:, 300:]):
        block /= np.linalg.norm(block, axis=1)[:, None]
    return rows


@pytest.mark.parametrize(
    "b, runs",
    [
        (0, [slice(0, 300)]),
        (0, [slice(10, 40), slice(200, 290)]),
        (0, [slice(7, 8)]),  # The block has fewer columns than RANK.
        (1, [slice(300, 400)]),
        (1, [slice(310, 320), slice(350, 355)]),
    ],
)
def test_products_are_far_better_than_single_precision(points, b, runs):
    mixed = MixedProducts(points, (0, 300, 400))
    rng = np.random.default_rng(1)
    rows = (points[rng.permutation(60)[:20]] + points[:20]) * rng.uniform(0.1, 1e3, (20, 1))
    values = np.concatenate([rows[:, run] for run in runs], axis=1)
    exact = products(values, runs, points)
    assert_allclose(exact, sum(rows[:, run] @ points[:, run].T for run in runs), rtol=1e-12)
    scale = np.linalg.norm(values, axis=1)[:, None]
    single = products(values.astype(np.float32), runs, points.astype(np.float32))
    error = np.abs(mixed(b, values, runs) - exact) / scale
    assert error.max() < 5e-9
    if sum(run.stop - run.start for run in runs) > RANK:
        assert np.square(error).sum() < 1e-3 * np.square((single - exact) / scale).sum()
    # The second call reuses the computed properties of the columns.
    assert_allclose(mixed(b, values, runs), exact, atol=1e-8 * scale.max())


@pytest.fixture(scope="module")
def fitted():
    X, y = load_molecules()
    X, D = X[::2], y["dipole"][::2]

    def fit(dtype):
        model = make_pipeline(
            SOAPFeaturizer(n_max=4, l_max=3),
            CURSparsifier(n_points=60, dtype=dtype),
            KQEqRegressor(response=QEq(hardness=1.0)),
        )
        return model.fit(X, D)

    return X, fit("float64"), fit("float32")


def test_predictions_change_by_less_than_a_ten_thousandth(fitted):
    X, double, single = fitted
    expected, found = double.predict(X), single.predict(X)
    change = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 0 < change < 1e-5  # The documentation promises 1e-4.


def test_forces_are_derivatives_of_the_energy(fitted):
    X, _, model = fitted
    atoms = next(a for a in X if len(a) > 8).copy()
    features, last = model[:-1], model[-1]
    forces = last.predict_forces(features.transform([atoms]))[0]
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[3, 1] += sign * 1e-3
        energies.append(last.predict_energy(features.transform([moved]))[0])
    # Energies have errors below 1e-5 eV; derivatives are in double precision.
    assert forces[3, 1] == pytest.approx(-(energies[0] - energies[1]) / 2e-3, abs=1e-2)


def test_the_copy_in_single_precision_is_not_saved(fitted):
    X, double, single = fitted
    stored = pickle.dumps(single)
    assert len(stored) < 1.01 * len(pickle.dumps(double))
    assert_allclose(pickle.loads(stored).predict(X), single.predict(X), atol=1e-12)


def test_unknown_precisions_are_refused(fitted):
    with pytest.raises(ValueError, match="dtype"):
        CURSparsifier(dtype="float16").fit(np.ones((3, 2)))
