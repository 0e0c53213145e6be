"""A model with a response that is not part of the package, and incomplete responses."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import (
    CURSparsifier,
    KQEqRegressor,
    QEqRegressor,
    SOAPFeaturizer,
    make_targets,
)
from skqeq.electrostatics import DenseHardness
from skqeq.response import Equilibrium, Response

from .. import helpers
from ..response.test_toy_response import LocalCharges

NAMES = ["H2O", "CH4", "CO2", "CH3OH", "H2CO", "HCOOH"]
X = [helpers.rattled(name, seed) for seed, name in enumerate(NAMES)]
X[1].info |= {"charge": 1.0, "external_field": [0.1, -0.2, 0.05]}


def dipole(atoms, charges):
    return charges @ (atoms.positions - atoms.get_center_of_mass())


CHARGES = [helpers.invented_charges(atoms) for atoms in X]
LINEAR = make_targets(
    charges=[q if i % 2 else None for i, q in enumerate(CHARGES)],
    dipole=[dipole(atoms, q) for atoms, q in zip(X, CHARGES, strict=True)],
)
RNG = np.random.default_rng(0)
ENERGIES = make_targets(
    energy=RNG.normal(size=len(X)), forces=[RNG.normal(size=(len(a), 3)) for a in X]
)


def pipeline(**options):
    soap = SOAPFeaturizer(r_cut=3.0, cutoff_width=1.0, n_max=2, l_max=2)
    options = {"response": LocalCharges(amplitude=0.3), "store_triangles": True} | options
    return make_pipeline(soap, CURSparsifier(n_points=3, jitter=1e-8), KQEqRegressor(**options))


@pytest.fixture(scope="module")
def linear():
    return pipeline(sigma_charges=0.05, sigma_dipole=0.05).fit(X, LINEAR)


@pytest.fixture(scope="module")
def nonlinear():
    return pipeline(sigma_energy=0.05, sigma_forces=0.5, tol=1e-2).fit(X, ENERGIES)


def test_weights_of_a_naive_fit(linear):
    phi = [np.asarray(rows) for rows in linear[:-1].transform(X)]
    elements = sorted({z for atoms in X for z in atoms.numbers})
    rows, residuals = [], []
    for i, (atoms, features, q) in enumerate(zip(X, phi, CHARGES, strict=True)):
        n, constants = len(atoms), atoms.numbers[:, None] == np.array(elements)
        both = np.concatenate([features, constants], axis=1)
        start = np.full(n, atoms.info.get("charge", 0.0) / n)
        operators = [np.array([dipole(atoms, e) for e in np.eye(n)]).T]
        operators += [np.eye(n)] * (i % 2)
        for T in operators:
            rows.append(T @ (both - both.mean(axis=0)) / 0.05)
            residuals.append(T @ (q - start) / 0.05)
    n_features = phi[0].shape[1]
    amplitudes = np.repeat([0.3, 1.0], [n_features, len(elements)])
    J = np.concatenate(rows) * amplitudes
    v = np.linalg.solve(J.T @ J + np.eye(len(amplitudes)), J.T @ np.concatenate(residuals))
    assert_allclose(linear[-1].coef_, amplitudes * v, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["linear", "nonlinear"])
def test_forces_are_derivatives_of_the_energy(kind, request):
    model, h = request.getfixturevalue(kind), 1e-3
    for i in (1, 3):  # an ion in a field, and a molecule
        [forces] = skqeq.predict_forces(model, [X[i]])
        for atom, axis in ((0, 0), (2, 1)):
            moved = [X[i].copy() for _ in range(4)]
            for step, atoms in zip((-2, -1, 1, 2), moved, strict=True):
                atoms.positions[atom, axis] += step * h
            e = skqeq.predict_energy(model, moved)
            slope = (8 * (e[2] - e[1]) - (e[3] - e[0])) / (12 * h)
            assert_allclose(forces[atom, axis], -slope, rtol=0, atol=1e-6 * np.abs(forces).max())


def test_the_loss_of_energies_and_forces_falls(nonlinear):
    losses = [entry["loss"] for entry in nonlinear[-1].fit_history_]
    assert losses[-1] < 0.9 * losses[0]
    assert (np.diff(losses) <= 1e-12 * losses[0]).all()
    assert np.abs(np.concatenate(skqeq.predict_charges(nonlinear, X))).max() > 1e-3


def test_everything_else_of_a_model(linear, tmp_path):
    """Born charges, standard deviations, refits, searches and classical models."""
    [born] = skqeq.predict_born_effective_charges(linear, [X[1]])
    assert_allclose(born.sum(axis=0), np.eye(3), rtol=0, atol=1e-9)
    std = skqeq.predict_std(linear, X, ["charges", "forces", "energy"])
    assert all((np.array(value) > 0).all() for name in std.dtype.names for value in std[name])
    assert not skqeq.predict_polarizability(linear, X).any()
    other = skqeq.refit(clone(linear).fit(X, LINEAR).set_params(kqeqregressor__sigma_charges=0.1))
    whole = clone(other).fit(X, LINEAR)
    assert_allclose(other[-1].coef_, whole[-1].coef_, rtol=0, atol=1e-9)
    phi, grid = linear[:-1].transform(X), {"response__amplitude": [1e-3, 0.3]}
    search = GridSearchCV(linear[-1], grid, cv=2, error_score="raise").fit(phi, LINEAR[["dipole"]])
    assert search.best_estimator_.response_.amplitude in (1e-3, 0.3)
    classical = QEqRegressor(response=LocalCharges()).fit(X, LINEAR)
    assert classical.coef_.shape == (3,) and classical.score(X, LINEAR) > 0.0
    with pytest.raises(ValueError, match="the model has no electronegativities"):
        skqeq.predict_electronegativities(linear, X)


# ---- incomplete responses -----------------------------------------------------------------------


class WithoutPrior(LocalCharges):
    """A response that does not name the prior width of its field."""

    prior_parameters = {}


class NotAResponse:
    """An object that has fields but is not a `Response`."""

    fields = ("reference",)

    def get_params(self, deep=True):
        return {}


class WithoutRows(Equilibrium):
    """An equilibrium without the method `rows`."""

    def charges(self, *, start=None, **fields):
        return np.zeros(len(self.structure))


class HalfResponse(Response):
    """A response with an incomplete equilibrium."""

    def equilibrium(self, structure, name=None, n_solutions=1):
        return WithoutRows(DenseHardness(structure))


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (WithoutPrior(), "WithoutPrior .* lacks a prior for the latent field 'reference'"),
        (NotAResponse(), "NotAResponse is not a complete response: it lacks .*equilibrium"),
        (HalfResponse(), "WithoutRows .*rows"),
        (LocalCharges, r"must be an instance: use LocalCharges\(\)"),
        ("qeq", "str is not a complete response"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_incomplete_responses_are_refused_at_fit(response, message):
    for model in (QEqRegressor(response=response), pipeline(response=response)):
        with pytest.raises(TypeError, match=message):
            model.fit(X, LINEAR)
