"""Spot checks of the element tables against the published tables."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skqeq import parameters


@pytest.mark.parametrize(
    "number, radius, chi",
    [
        (1, 0.371, 4.528),
        (3, 1.557, 3.006),
        (6, 0.759, 5.343),
        (7, 0.715, 6.899),
        (8, 0.669, 8.741),
        (9, 0.706, 10.874),
        (11, 2.085, 2.843),
        (14, 1.176, 4.168),
        (17, 0.994, 8.564),
        (35, 1.141, 7.790),
        (53, 1.333, 6.822),
    ],
)
def test_qeq_table(number, radius, chi):
    assert_allclose(parameters.qeq_radii()[number], radius, atol=1e-3)
    assert_allclose(parameters.qeq_electronegativities()[number], chi, atol=1e-3)


def test_constants():
    assert_allclose(parameters.COULOMB, 14.3996, atol=1e-4)
    assert_allclose(parameters.DEBYE, 4.80320, atol=1e-5)


def test_table_is_complete_and_protected():
    radii = parameters.qeq_radii()
    assert np.isnan(radii[0])
    assert (radii[1:104] > 0).all()
    with pytest.raises(ValueError, match="read-only"):
        radii[1] = 1.0


def test_per_element():
    assert (parameters.per_element(2.0, "x") == 2.0).all()
    table = parameters.per_element({"H": 1.0, 8: 2.0}, "x")
    assert (table[1], table[8]) == (1.0, 2.0)
    assert np.isnan(table[6])


@pytest.mark.parametrize("key", ["Xx", "X", 0, 300, "h"])
def test_unknown_element(key):
    with pytest.raises(ValueError, match=f"widgets names {key!r}, which is not an element"):
        parameters.per_element({key: 1.0}, "widgets")


def test_no_radius_where_none_was_measured():
    """Elements without measured radius have none; ASE's table of Cordero contains a placeholder."""
    covalent = parameters.radii_table("covalent")
    assert_allclose(covalent[[1, 6, 96]], [0.31, 0.76, 1.69])
    assert np.isnan(covalent[[0, 97, 118]]).all()
