"""A new field needs one short file: the toy model below has a second local energy."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, GAPKQEqRegressor, SOAPFeaturizer, StructureBlocks, make_targets
from skqeq.fields import Field

from .. import helpers


class TwoGapsRegressor(GAPKQEqRegressor):
    """A model with a second local energy, which has its own features and prior."""

    def __init__(
        self, amplitude_far=0.5, amplitude_gap=1.0, sigma_energy=0.01, sigma_forces=0.2, tol=1e-7
    ):
        noise = {"sigma_energy": sigma_energy, "sigma_forces": sigma_forces}
        super().__init__(amplitude_gap, tol=tol, store_triangles=True, **noise)
        self.amplitude_far = amplitude_far

    def _fields(self, response):
        far = Field("far", enters="energy", blocks=("far",), amplitude=self.amplitude_far)
        return [*super()._fields(response), far]


X = [helpers.rattled("H2O", seed) for seed in range(6)]
RNG = np.random.default_rng(0)
Y = make_targets(energy=RNG.normal(size=6), forces=RNG.normal(size=(6, 3, 3)))


def blocks(**cutoffs):
    parts = []
    for name, r_cut in cutoffs.items():
        soap = SOAPFeaturizer(r_cut=r_cut, cutoff_width=1.0, n_max=2, l_max=2)
        parts.append((name, make_pipeline(soap, CURSparsifier(n_points=3, jitter=1e-8))))
    return StructureBlocks(parts)


@pytest.fixture(scope="module")
def model():
    steps = blocks(chi=2.5, gap=2.5, far=3.5), TwoGapsRegressor(tol=1e-3)
    return make_pipeline(*steps).fit(X, Y)


def test_length_of_this_file():
    assert len(Path(__file__).read_text().splitlines()) < 80


def test_fit_and_clone(model):
    assert model.score(X, Y) > 0.0
    assert model[-1].layout_.names == ["chi", "gap", "far", "atoms"]
    assert np.abs(model[-1].coef_[-6:]).max() > 1e-3  # the weights of the toy field
    other = clone(model).set_params(twogapsregressor__amplitude_far=1e-9).fit(X, Y)
    assert np.abs(other[-1].coef_[-6:]).max() < 1e-9


def test_forces(model):
    [forces], h = model[-1].predict_forces(model[:-1].transform(X[:1])), 1e-4
    moved = [X[0].copy() for _ in range(2)]
    moved[0].positions[1, 2] -= h
    moved[1].positions[1, 2] += h
    low, high = model.predict(moved)["energy"]
    assert_allclose(forces[1, 2], (low - high) / (2 * h), rtol=1e-5)


def test_two_fields_of_equal_features_are_one_with_a_wider_prior():
    phi = blocks(chi=2.5, gap=3.0, far=3.0).fit_transform(X)
    two = TwoGapsRegressor(0.8, 0.6).fit(phi, Y)
    one = clone(two).set_params(amplitude_far=1e-9, amplitude_gap=1.0).fit(phi, Y)
    for method in ("predict_targets", "predict_std"):
        first, second = (getattr(m, method)(phi, ["energy", "forces"]) for m in (two, one))
        assert_allclose(first["energy"], second["energy"], atol=1e-5)
        assert_allclose(np.stack(first["forces"]), np.stack(second["forces"]), atol=1e-5)
