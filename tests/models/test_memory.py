"""Fits and cross-validation in one memory budget: results are the same for any budget."""

import gc

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    GAPKQEqRegressor,
    GAPRegressor,
    KQEqRegressor,
    KQEqRegressorCV,
    SOAPFeaturizer,
    StructureBlocks,
    make_targets,
)
from skqeq._memory import BUDGET
from skqeq.features import ROWS
from skqeq.solvers import Triangle

BUDGETS = [0, 20_000, 2**31]


@pytest.fixture(autouse=True)
def nothing_is_claimed(empty_cache):
    """Remove fits of earlier tests, and check that these tests return all claimed memory."""
    gc.collect()
    before = BUDGET.claimed
    yield
    gc.collect()
    assert BUDGET.claimed == before


def half(r_cut):
    soap = SOAPFeaturizer(r_cut=r_cut, n_max=2, l_max=2)
    return make_pipeline(soap, CURSparsifier(n_points=3))


def local_model(X, energies):
    return make_pipeline(half(3.0), GAPRegressor()).fit(X, energies)[-1]


def joint_model(X, energies):
    features = StructureBlocks([("chi", half(2.0)), ("gap", half(3.0))])
    model = GAPKQEqRegressor(sigma_energy=0.1, sigma_forces=0.5, tol=1e-3)
    return make_pipeline(features, model).fit(X, energies)[-1]


@pytest.mark.parametrize("fit", [local_model, joint_model])
def test_fits_of_forces(fit, molecules, energies, memory_budget, monkeypatch):
    claim, most = BUDGET.claim, []

    def recorded(n_bytes):
        granted = claim(n_bytes)
        most.append(BUDGET.claimed)
        return granted

    monkeypatch.setattr(BUDGET, "claim", recorded)
    coefs = []
    for budget in BUDGETS:
        memory_budget(budget)
        ROWS.clear()
        most.clear()
        model = fit(molecules, energies)
        coefs.append(np.append(model.coef_, model.atomic_energies_))
        assert max(most) <= budget
        assert ROWS.nbytes <= budget
    assert max(most) > 20_000  # The fit with the largest budget used more than 20 kB.
    for coef in coefs[:2]:
        assert_allclose(coef, coefs[2], rtol=0, atol=1e-9 * np.abs(coefs[2]).max())


def test_descriptors_make_room_for_rows(molecules, energies, memory_budget):
    """Both count against the same budget, and a fit may remove cached descriptors."""
    SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2).fit_transform(molecules)[0]
    full = GAPRegressor()
    phi = half(3.0).fit_transform(molecules)
    list(phi)
    descriptors = ROWS.nbytes
    assert descriptors > 0
    memory_budget(descriptors)
    reservation = BUDGET.reservation()
    assert reservation.claim(descriptors // 2)
    assert ROWS.nbytes <= descriptors // 2 + 1
    full.fit(phi, energies)
    assert ROWS.nbytes + BUDGET.claimed <= descriptors


@pytest.mark.parametrize("cv", [None, 3])
def test_cross_validation(cv, molecules, dipoles, charges, memory_budget):
    phi = half(3.0).fit_transform(molecules)
    y = make_targets(dipole=dipoles, charges=charges)
    sigmas = {"sigma_dipole": [0.01, 0.1], "sigma_charges": [0.05]}
    scores, held_out = [], []
    for budget in BUDGETS:
        memory_budget(budget)
        search = KQEqRegressorCV(KQEqRegressor(), sigmas, cv=cv).fit(phi, y)
        scores.append(search.cv_results_["score"])
        held_out.append(search.left_out_["dipole"])
    for i in range(2):
        assert_allclose(scores[i], scores[2], rtol=1e-7)
        assert_allclose(held_out[i], held_out[2], atol=1e-8)


def test_a_failed_fit_gives_its_memory_back(molecules, energies, monkeypatch):
    def fail(self):
        raise MemoryError("too little")

    phi = half(3.0).fit_transform(molecules)
    claimed = BUDGET.claimed
    with monkeypatch.context() as patch:
        patch.setattr(Triangle, "solve", fail)
        with pytest.raises(MemoryError):
            GAPRegressor().fit(phi, energies)
    gc.collect()
    assert BUDGET.claimed == claimed
