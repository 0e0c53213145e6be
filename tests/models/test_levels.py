"""Smaller problems from which fits to energies start."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, QEq, SOAPFeaturizer, make_targets
from skqeq.models import _levels
from skqeq.models._levels import coarse_problems

from .. import helpers

N = 24


@pytest.fixture(scope="module")
def features():
    X = [helpers.rattled("CH3OH", seed) for seed in range(N)]
    soap = SOAPFeaturizer(r_cut=3.0, cutoff_width=1.0, n_max=3, l_max=2)
    return make_pipeline(soap, CURSparsifier(n_points=12)).fit_transform(X)


def labels(labelled):
    rng = np.random.default_rng(0)
    energy = np.where(np.isin(np.arange(N), labelled), rng.normal(scale=0.1, size=N), np.nan)
    return make_targets(energy=energy)


@pytest.fixture
def small_levels(monkeypatch):
    monkeypatch.setattr(_levels, "LEVELS", ((6, 2), (2, 3)))
    monkeypatch.setattr(_levels, "MIN_STRUCTURES", 4)


def model(**options):
    return KQEqRegressor(sigma_energy=0.01, response=QEq(hardness=8.0), **options)


def test_levels_are_parts_of_the_problem(features, small_levels):
    problem = model().problem(features, labels(range(N)))
    levels = coarse_problems(problem)
    sizes = [sum(coarse.features.source.sizes) for coarse, _ in levels]
    assert sizes == sorted(sizes) and sizes[-1] < sum(problem.features.source.sizes)
    assert [np.count_nonzero(coarse.weights) for coarse, _ in levels] == [N // 3, N // 2]
    # The functions and their prior do not change on the way to the full problem.
    coarse, _ = levels[0]
    v = np.random.default_rng(1).normal(size=coarse.layout.n_columns)
    fine = v
    for _, prolong in levels:
        fine = prolong(fine)
    assert fine.shape == (problem.layout.n_columns,)
    assert np.linalg.norm(fine) == pytest.approx(np.linalg.norm(v), rel=1e-6)
    solutions = [
        next(p.forward.solutions(p.features[:1], p.layout.scale * w))[2][0]
        for p, w in ((coarse, v), (problem, fine))
    ]
    assert_allclose(solutions[0].chi, solutions[1].chi, rtol=0, atol=1e-5)


@pytest.mark.parametrize("period", [2, 3, 4])
def test_levels_contain_all_kinds_of_structures(features, small_levels, period):
    """Data sets often repeat kinds of structures, such as charge states, in a fixed order."""
    problem = model().problem(features, labels(range(N)))
    kinds = np.arange(N) % period
    for coarse, _ in coarse_problems(problem):
        assert set(kinds[coarse.weights > 0]) == set(kinds)


@pytest.mark.parametrize("labelled", [range(N), [1, 2, 5], [N - 1]])
def test_the_minimum_does_not_depend_on_levels(features, small_levels, labelled, monkeypatch):
    """Few labels must not be left out of the smaller problems."""
    y = labels(labelled)
    with_levels = model(tol=1e-14).fit(features, y)
    monkeypatch.setattr(_levels, "LEVELS", ())
    without = model(tol=1e-14).fit(features, y)
    losses = [m.fit_history_[-1]["loss"] for m in (with_levels, without)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
