"""Training on energies, forces and stress."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    KQEqRegressor,
    SOAPFeaturizer,
    make_targets,
)
from skqeq.models._energies import EnergyRows
from skqeq.targets import Labels

from .test_forces import CASES


def features(X):
    soap = SOAPFeaturizer(r_cut=(2.5, 3.5), n_max=3, l_max=2)
    return make_pipeline(soap, CURSparsifier(n_points=6, jitter=1e-8)).fit_transform(X)


def labels_of(X, seed=0):
    rng = np.random.default_rng(seed)
    return make_targets(
        energy=rng.normal(size=len(X)),
        forces=[rng.normal(size=(len(atoms), 3)) for atoms in X],
        stress=[rng.normal(size=6) if atoms.pbc.all() else None for atoms in X],
    )


@pytest.fixture(scope="module")
def problem():
    """Rows of all boundary conditions at random weights."""
    X = list(CASES.values())
    phi = features(X)
    model = KQEqRegressor(hardness=1.0, max_iter=1)
    labels = Labels(labels_of(X), phi.structures)
    with pytest.warns(UserWarning, match="gauss_newton stopped"):
        model.fit(phi, labels.table)
    noise = model._noise(phi.structures, labels, np.ones(len(X)))
    rows = EnergyRows(model, phi, labels, noise)
    v = 0.3 * np.random.default_rng(1).normal(size=len(model._scale()))
    return rows, v


def stacked(rows, v, **options):
    jacobians, residuals = zip(*rows.linearize(v, **options))
    return np.concatenate(jacobians), np.concatenate(residuals)


def test_rows_are_derivatives(problem):
    rows, v = problem
    J, residual = stacked(rows, v)
    assert_allclose(rows.loss(v), 0.5 * residual @ residual, rtol=1e-12)
    rng = np.random.default_rng(2)
    for _ in range(3):
        step = 1e-3 * rng.normal(size=len(v))
        values = [stacked(rows, v + n * step)[1] for n in (-2, -1, 1, 2)]
        expected = (8 * (values[2] - values[1]) - (values[3] - values[0])) / 12
        assert_allclose(J @ step, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
