"""Metrics against numbers that were calculated by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import r2_score

from skqeq.metrics import (
    dipole_errors,
    structure_rmse,
    target_mae,
    target_r2,
    target_rmse,
)

D = 4.80320  # Debye per e*Angstrom


def test_dipole_errors_by_hand():
    # Norms 3 and 0.5 D, predicted as 4 and 0.3 D in the same direction; one label is missing.
    truth = np.array([[0, 0, 3], [0.5, 0, 0], [np.nan] * 3]) / D
    predicted = np.array([[0, 0, 4], [0.3, 0, 0], [9, 9, 9]]) / D
    errors = dipole_errors(truth, predicted)
    assert_allclose(errors["mae"], 0.6, rtol=1e-5)
    assert_allclose(errors["median"], 0.6, rtol=1e-5)
    assert_allclose(errors["rmse"], np.sqrt((1 + 0.04) / 2), rtol=1e-5)
    # Below 1 D errors are relative to 1 D.
    assert_allclose(errors["rrmse"], np.sqrt((1 / 9 + 0.04) / 2), rtol=1e-5)
    assert_allclose(errors["vector_rmse"], np.sqrt((1 + 0.04) / 2), rtol=1e-5)
    assert_allclose(errors["vector_mae"], (1 + 0.2) / 2, rtol=1e-5)


def test_errors_of_structures():
    truth = [np.array([[3.0, np.nan], [1.0, 2.0]]), None, np.zeros(1), np.full(2, np.nan)]
    predicted = [np.array([[0.0, 9.0], [1.0, 5.0]]), np.ones(2), np.array([-2.0]), np.ones(2)]
    assert_allclose(structure_rmse(truth, predicted), [np.sqrt(6.0), np.nan, 2.0, np.nan])
    assert_allclose(structure_rmse(np.array([1.0, np.nan]), np.array([-1.0, 0.0])), [2.0, np.nan])
    with pytest.raises(ValueError, match="2 labels for 1 prediction$"):
        structure_rmse([1.0, 2.0], [1.0])


def test_vector_error_sees_the_direction():
    errors = dipole_errors([[1.0, 0, 0], [0, 1.0, 0]], [[0, 1.0, 0], [0, 0, 1.0]])
    assert_allclose(errors["vector_rmse"], np.sqrt(2) * D, rtol=1e-5)
    assert errors["mae"] < 1e-12


def test_errors_of_norms():
    errors = dipole_errors([1.0, 2.0, np.nan], [1.5, 2.0, 0.0])
    assert_allclose(errors["mae"], 0.25 * D, rtol=1e-5)
    assert "vector_rmse" not in errors


@pytest.mark.parametrize(
    "truth, predicted", [([[0.0] * 3], [[0.0] * 3] * 2), ([np.nan], [1.0]), ([1.0], [[1.0, 2.0]])]
)
def test_bad_dipoles(truth, predicted):
    with pytest.raises(ValueError, match="dipole"):
        dipole_errors(truth, predicted)


def test_mae_and_rmse_by_hand():
    truth = [[0.0, 1.0], None, [2.0]]
    predicted = [[1.0, 1.0], [5.0], [4.0]]
    assert target_mae(truth, predicted) == 1.0
    assert_allclose(target_rmse(truth, predicted), np.sqrt(5 / 3))
    weights = np.array([1.0, 7.0, 2.0])
    assert_allclose(target_mae(truth, predicted, weights), (1 + 0 + 2 * 2) / 4)
    assert_allclose(target_rmse(truth, predicted, weights), np.sqrt((1 + 2 * 4) / 4))


def test_missing_components():
    truth = np.array([[0.0, np.nan, 2.0], [1.0, 1.0, 1.0]])
    predicted = np.ones((2, 3))
    assert_allclose(target_mae(truth, predicted), 2 / 5)
    assert_allclose(target_rmse(truth, predicted), np.sqrt(2 / 5))


def test_r2_of_vectors():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(20, 3)) * [1, 2, 5] + [0, 10, 0]
    predicted = truth + 0.3 * rng.normal(size=(20, 3))
    weights = rng.uniform(size=20)
    expected = r2_score(truth, predicted, sample_weight=weights, multioutput="variance_weighted")
    assert_allclose(target_r2(truth, predicted, weights), expected)
    # A structure of weight zero has no influence, like a structure without a label.
    weights[0] = 0
    truth_without = truth.copy()
    truth_without[0] = np.nan
    assert_allclose(
        target_r2(truth_without, predicted, weights), target_r2(truth, predicted, weights)
    )


def test_r2_of_charges():
    truth = np.empty(3, dtype=object)
    truth[:] = [np.array([0.0, 1.0]), None, np.array([2.0, 3.0, 4.0])]
    predicted = [np.array([0.0, 1.5]), np.array([9.0]), np.array([2.0, 3.0, 4.5])]
    assert_allclose(target_r2(truth, predicted), 1 - 0.5 / 10)


@pytest.mark.parametrize("truth", [[None, None], [[1.0], None], [np.nan, 1.0]])
def test_r2_needs_two(truth):
    with pytest.warns(UndefinedMetricWarning, match="two labelled structures"):
        assert np.isnan(target_r2(truth, [[1.0], [1.0]]))


def test_r2_of_constant_labels():
    assert target_r2(np.ones((3, 1)), np.ones((3, 1))) == 1.0
    assert target_r2(np.ones((3, 1)), np.zeros((3, 1))) == 0.0


def test_lengths_must_match():
    with pytest.raises(ValueError, match="2 labels for 1 prediction"):
        target_mae([[1.0], [2.0]], [[1.0]])
