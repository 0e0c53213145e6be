"""An interrupt stops a fit and a search around it; the weights of the last step are kept."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    KQEqRegressor,
    KQEqRegressorCV,
    QEq,
    SOAPFeaturizer,
    get_memory_budget,
)
from skqeq._memory import BUDGET
from skqeq.model_selection import maximize_evidence
from skqeq.response import QEqEquilibrium


class Interrupted(QEq):
    """Charge equilibration during which the user presses Ctrl-C."""

    left = None  # The number of solutions before the interrupt; None means that none comes.
    error = KeyboardInterrupt
    n_solved = 0

    def equilibrium(self, structure, name=None, n_solutions=1):
        equilibrium = super().equilibrium(structure, name, n_solutions)
        equilibrium.__class__ = Counted
        return equilibrium


class Counted(QEqEquilibrium):
    """The charges of one structure; each solution counts."""

    def charges(self, **options):
        Interrupted.n_solved += 1
        if Interrupted.left is not None:
            Interrupted.left -= 1
            if Interrupted.left < 0:
                raise Interrupted.error
        return super().charges(**options)


@pytest.fixture
def interrupt(monkeypatch):
    """Return a function that sets after how many more structures the interrupt comes."""
    monkeypatch.setattr(Interrupted, "n_solved", 0)
    monkeypatch.setattr(Interrupted, "left", None)
    return lambda left: setattr(Interrupted, "left", left)


@pytest.fixture
def features(molecules):
    soap = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2)
    return make_pipeline(soap, CURSparsifier(n_points=3)).fit_transform(molecules)


def model(**options):
    response = Interrupted(hardness=8.0)
    options = {"sigma_energy": 0.1, "sigma_forces": 0.5, "tol": 1e-10} | options
    return KQEqRegressor(response=response, **options)


def test_interrupted_gauss_newton(features, energies, interrupt):
    whole = model().fit(features, energies)
    interrupt(int(0.7 * Interrupted.n_solved))
    claimed = BUDGET.claimed
    fit = model()
    with pytest.raises(KeyboardInterrupt):
        fit.fit(features, energies)
    interrupt(None)
    assert 1 < fit.n_iter_ < whole.n_iter_
    for step, same in zip(fit.fit_history_, whole.fit_history_, strict=False):
        assert step | {"seconds": 0.0} == same | {"seconds": 0.0}
    assert BUDGET.claimed == claimed  # An interrupted fit returns its memory to the budget.
    # The model predicts with the weights of the last step, and another fit can start from them.
    assert np.isfinite(fit.predict(features)["energy"]).all()
    further = model(init=fit.coef_).fit(features, energies)
    assert further.fit_history_[0]["loss"] <= 1.001 * fit.fit_history_[-1]["loss"]
    assert further.fit_history_[-1]["loss"] == pytest.approx(whole.fit_history_[-1]["loss"])


def test_interrupted_before_the_first_step(features, energies, interrupt):
    fit = model().fit(features, energies)
    interrupt(3)
    with pytest.raises(KeyboardInterrupt):
        fit.fit(features, energies)
    # The fit has removed the weights of the earlier fit.
    assert not hasattr(fit, "coef_")


def test_an_error_leaves_no_weights(features, energies, interrupt, monkeypatch):
    """An error, unlike an interrupt, leaves no weights, because the fit is wrong."""
    fit = model().fit(features, energies)
    interrupt(int(0.7 * Interrupted.n_solved))
    monkeypatch.setattr(Interrupted, "error", ValueError)
    with pytest.raises(ValueError):
        fit.fit(features, energies)
    assert fit.n_iter_ > 1  # `n_iter_` belongs to this fit.
    with pytest.raises(NotFittedError):
        fit.predict(features)


def test_a_search_stops(features, energies, interrupt):
    """The search does not score a model whose fit was interrupted."""
    search = GridSearchCV(model(), {"sigma_forces": [0.5, 1.0]}, cv=2)
    interrupt(200)
    with pytest.raises(KeyboardInterrupt):
        search.fit(features, energies)
    assert not hasattr(search, "cv_results_")


def test_interrupted_evidence(features, dipoles, interrupt):
    n_structures = len(features)
    maximize_evidence(model(), features, dipoles, max_iter=1)
    interrupt(3 * n_structures)
    with pytest.raises(KeyboardInterrupt):
        maximize_evidence(model(), features, dipoles)
    interrupt(3 * n_structures)
    with pytest.raises(KeyboardInterrupt):
        KQEqRegressorCV(model(), optimize_noise=True).fit(features, dipoles)


def test_interrupted_cross_validation(features, dipoles, interrupt):
    budget, claimed = get_memory_budget(), BUDGET.claimed
    search = KQEqRegressorCV(model(), sigmas=[0.1])
    interrupt(5)
    with pytest.raises(KeyboardInterrupt):
        search.fit(features, dipoles)
    assert (get_memory_budget(), BUDGET.claimed) == (budget, claimed)
    interrupt(None)
    assert search.fit(features, dipoles).best_params_ == {"sigma_dipole": 0.1}


def test_interrupted_partial_fit(features, dipoles, interrupt):
    fit = model().partial_fit(features[:6], dipoles[:6])
    coef = fit.coef_.copy()
    interrupt(3)
    with pytest.raises(KeyboardInterrupt):
        fit.partial_fit(features[6:], dipoles[6:])
    interrupt(None)
    assert (fit.coef_ == coef).all()
    whole = model().fit(features, dipoles).coef_
    assert np.abs(fit.partial_fit(features[6:], dipoles[6:]).coef_ - whole).max() < 1e-8
