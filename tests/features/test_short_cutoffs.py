"""Cutoffs at which the radial functions are nearly linearly dependent."""

import warnings

import numpy as np
import pytest
from ase.build import molecule
from numpy.testing import assert_allclose

from skqeq import SOAPFeaturizer


def rows(X, **options):
    features = SOAPFeaturizer(**options).fit_transform(X)
    return [features.source.neighborhoods(s)[0].rows() for s in features.structures]


def test_features_of_short_cutoffs_are_accurate():
    """They do not change with the orientation, and change in proportion to small displacements."""
    ethanol = molecule("CH3CH2OH")
    turned = ethanol.copy()
    turned.rotate(37, [1, 2, 3])
    shift = 1e-6 * np.random.default_rng(0).normal(size=ethanol.positions.shape)
    once, twice = ethanol.copy(), ethanol.copy()
    once.positions += shift
    twice.positions += 2 * shift
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        A, B, C, D = rows([ethanol, turned, once, twice], r_cut=1.36, n_max=8, l_max=6)
    assert_allclose(B, A, atol=1e-8 * np.abs(A).max())
    assert_allclose(D - A, 2 * (C - A), atol=1e-7 * np.abs(A).max())


def test_too_many_radial_functions():
    with pytest.raises(ValueError, match="n_max=8 radial functions are too many for .* r_cut=1.05"):
        SOAPFeaturizer(r_cut=1.05, n_max=8, l_max=6).fit([molecule("H2O")])
