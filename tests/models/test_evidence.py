"""Compare the evidence with a dense normal density, and its gradient with finite differences."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    KQEqRegressor,
    QEqRegressor,
    SOAPFeaturizer,
    make_targets,
)
from skqeq.model_selection import log_evidence, maximize_evidence

FLOW = ChargeFlow(softness={"H": 0.03, "C": 0.05, "O": 0.06}, range=0.3)


@pytest.fixture
def features(molecules):
    soap = SOAPFeaturizer(r_cut=(2.0, 3.0), n_max=2, l_max=2)
    return make_pipeline(soap, CURSparsifier(n_points=5)).fit_transform(molecules)


@pytest.mark.parametrize("response", [None, FLOW], ids=["qeq", "flow"])
def test_it_is_the_density_of_a_normal_distribution(response, features, table):
    """The evidence is the density of the labels.

    The test computes their mean and covariance from predictions for one weight after the other.
    """
    model = KQEqRegressor(response=response, sigma_dipole=0.05, sigma_charges=0.1)
    fitted = clone(model).fit(features, table)
    truth = np.concatenate([table["dipole"].ravel(), *filter(_known, table["charges"])])
    known = ~np.isnan(truth)

    def observed(coef):
        fitted.coef_ = coef
        found = fitted.predict_targets(features, ["dipole", "charges"])
        charges = [q for q, label in zip(found["charges"], table["charges"]) if _known(label)]
        return np.concatenate([found["dipole"].ravel(), *charges])[known]

    scale = fitted.layout_.scale[: len(fitted.coef_)]
    mean = observed(np.zeros_like(scale))
    J = np.stack([observed(e) - mean for e in np.diag(scale)], axis=1)
    n_dipoles = (~np.isnan(table["dipole"])).sum()
    noise = np.where(np.arange(len(mean)) < n_dipoles, 0.05, 0.1)
    covariance = J @ J.T + np.diag(noise**2)
    expected = multivariate_normal(mean, covariance).logpdf(truth[known])
    assert_allclose(log_evidence(model, features, table).value, expected, rtol=1e-9)


def _known(charges):
    return charges is not None and not np.isnan(charges).all()


@pytest.mark.parametrize("response", [None, FLOW], ids=["qeq", "flow"])
def test_derivatives(response, features, table):
    model = KQEqRegressor(response=response, sigma_dipole=0.05, amplitude_chi=0.7)
    weights = np.arange(12.0)
    gradient = log_evidence(model, features, table, weights).gradient
    assert len(gradient) == (8 if response else 4)

    def difference(change):
        values = [
            log_evidence(change(clone(model), np.exp(h)), features, table, weights).value
            for h in (1e-4, -1e-4)
        ]
        return (values[0] - values[1]) / 2e-4

    for name, derivative in gradient.items():
        if name == "response__softness":
            for symbol, by_element in derivative.items():

                def change(model, factor, symbol=symbol):
                    softness = dict(FLOW.softness)
                    softness[symbol] *= factor
                    return model.set_params(response__softness=softness)

                assert_allclose(by_element, difference(change), rtol=1e-5, atol=1e-5)
        else:

            def change(model, factor, name=name):
                return model.set_params(**{name: factor * model.get_params()[name]})

            assert_allclose(derivative, difference(change), rtol=1e-5, atol=1e-5)


def test_the_search_finds_a_maximum(features, table):
    """The search finds a maximum, and changes neither other parameters nor the given model."""
    model = KQEqRegressor(response=ChargeFlow(softness=0.05), sigma_charges=1.0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the best response__softness")
        better, history = maximize_evidence(model, features, table, max_iter=40)
    assert model.response.softness == 0.05 and model.sigma_charges == 1.0
    evidence = log_evidence(better, features, table)
    assert evidence.value == pytest.approx(max(step["evidence"] for step in history))
    assert evidence.value > history[0]["evidence"] + 10.0
    assert set(better.response.softness) == {"H", "C", "O"}
    changed = {"sigma_dipole", "sigma_charges", "response", "response__softness"}
    for name, value in better.get_params().items():
        assert name in changed or value == model.get_params()[name]
    gradient = [evidence.gradient["sigma_dipole"], evidence.gradient["sigma_charges"]]
    assert np.abs(gradient).max() < 0.1
    assert not hasattr(better, "coef_")


def test_pipelines(molecules, table):
    soap = SOAPFeaturizer(r_cut=(2.0, 3.0), n_max=2, l_max=2)
    model = make_pipeline(soap, CURSparsifier(n_points=5), KQEqRegressor())
    better, _ = maximize_evidence(model, molecules, table, ["sigma_charges"], max_iter=5)
    found = better.get_params()["kqeqregressor__sigma_charges"]
    assert found != 0.02
    assert better.get_params()["kqeqregressor__sigma_dipole"] == 0.002
    before, after = (log_evidence(m, molecules, table).value for m in (model, better))
    assert after > before
    classical, _ = maximize_evidence(QEqRegressor(), molecules, table, max_iter=3)
    assert classical.sigma_dipole > 0.004


def test_labels_and_parameters_without_evidence_are_refused(features, table, energies, molecules):
    y = make_targets(dipole=table["dipole"], energy=np.zeros(12))
    with pytest.raises(ValueError, match="linear in the charges.* got dipole, energy"):
        log_evidence(KQEqRegressor(), features, y)
    with pytest.raises(ValueError, match="linear in the charges.* got dipole_magnitude"):
        log_evidence(KQEqRegressor(), features, make_targets(dipole_magnitude=np.ones(12)))
    with pytest.raises(ValueError, match="without charge_bias"):
        log_evidence(KQEqRegressor(charge_bias={"H": 0, "C": 0, "O": 0}), features, table)
    with pytest.raises(
        ValueError, match="no derivative for response__softness; it has one for sigma"
    ):
        maximize_evidence(KQEqRegressor(), features, table, ["response__softness"])
    with pytest.raises(ValueError, match="is zero; only positive parameters can be optimised"):
        flow = KQEqRegressor(response=ChargeFlow(0.0))
        maximize_evidence(flow, features, table, ["response__softness"])


def test_softness_of_elements(features, table):
    """Keys may be symbols or numbers; the search keeps the values of absent elements and zeros."""
    softness = {1: 0.0, "C": 0.05, 8: 0.05, "S": 0.7}
    model = KQEqRegressor(response=ChargeFlow(softness), sigma_dipole=0.01)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the best response__softness")
        better, history = maximize_evidence(
            model, features, table, "response__softness", max_iter=3
        )  # fmt: skip
    found = better.response.softness
    assert set(found) == {"H", "C", "O", "S"} and found["H"] == 0.0 and found["S"] == 0.7
    assert found["C"] != 0.05 and len(history) > 1
    # The order of the names does not matter.
    model = KQEqRegressor(response=ChargeFlow(0.05))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the best response__softness")
        for names in (
            ["sigma_dipole", "response__softness"],
            ["response__softness", "sigma_dipole"],
        ):
            both, _ = maximize_evidence(model, features, table, names, max_iter=1)
            assert set(both.response.softness) == {"H", "C", "O"}
            assert both.sigma_dipole != model.sigma_dipole
    # The first step is short.
    steps = [step["response__softness"]["C"] for step in history]
    assert 0.5 < steps[1] / steps[0] < 3.0


def test_a_parameter_at_the_end_of_its_range_is_warned_of(features, table):
    model = KQEqRegressor(sigma_charges=1e-7)
    with pytest.warns(ConvergenceWarning, match="best sigma_charges is at the end of the range"):
        maximize_evidence(model, features, table[["charges"]], ["sigma_charges"])
