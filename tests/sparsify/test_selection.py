"""Leverage scores and farthest points against slow, exact methods."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skqeq.sparsify._selection import (
    leverage_scores,
    select_by_leverage,
    select_farthest,
    sketch_matrix,
)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 12)) * np.geomspace(1, 1e-3, 12) @ rng.normal(size=(12, 12))


@pytest.mark.parametrize("rank", [1, 5, 12])
def test_leverage_is_that_of_the_svd(rows, rank):
    left, _, _ = np.linalg.svd(rows, full_matrices=False)
    scores = leverage_scores(rows, rank)
    assert_allclose(scores, np.sum(left[:, :rank] ** 2, axis=1), atol=1e-9)
    assert_allclose(scores.sum(), rank)


def test_leverage_of_deficient_rows(rows):
    """The scores are right for repeated rows, for fewer rows than columns, and for zeros."""
    twice = np.concatenate([rows[:5], rows[:5]])
    assert_allclose(leverage_scores(twice, 9), 0.5, atol=1e-9)
    assert_allclose(leverage_scores(rows[:5], 9), 1.0, atol=1e-9)
    assert_array_equal(leverage_scores(np.zeros((4, 3)), 2), 0)


def test_leverage_survives_sketching():
    """With random projections, the one outlying row keeps its score."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 2000))
    rows[17] += 10 * rng.normal(size=2000)
    omega = sketch_matrix(2000, 100, rng)
    assert omega.shape == (2000, 100)
    exact = leverage_scores(rows, 4)
    sketched = leverage_scores(rows @ omega, 4)
    assert np.argmax(sketched) == np.argmax(exact) == 17
    assert_allclose(sketched, exact, atol=0.02)


def test_narrow_data_are_not_sketched(rows):
    omega = sketch_matrix(12, 40, np.random.default_rng(0))
    assert_array_equal(rows @ omega, rows)


def test_high_leverage_is_drawn_more_often(rows):
    """Rows of high leverage are drawn more often; published code prefers low leverage."""
    scores = leverage_scores(rows, 5)
    counts = np.zeros(len(rows))
    for seed in range(300):
        drawn = select_by_leverage(rows, 10, np.random.default_rng(seed))
        assert len(set(drawn.tolist())) == 10
        counts[drawn] += 1
    order = np.argsort(scores)
    assert counts[order[-15:]].mean() > 2 * counts[order[:15]].mean()
    assert np.corrcoef(counts, scores)[0, 1] > 0.8


@pytest.mark.parametrize("n", [1, 7, 60])
def test_farthest_points_of_a_naive_loop(rows, n):
    chosen = select_farthest(rows, n, np.random.default_rng(3))
    naive = [int(chosen[0])]
    while len(naive) < n:
        distances = [
            -1 if i in naive else min(np.linalg.norm(row - rows[j]) for j in naive)
            for i, row in enumerate(rows)
        ]
        naive.append(int(np.argmax(distances)))
    assert chosen.tolist() == naive


def test_farthest_points_never_repeat():
    chosen = select_farthest(np.ones((8, 2)), 8, np.random.default_rng(0))
    assert sorted(chosen.tolist()) == list(range(8))
