"""Separate weights of the column blocks for every latent field."""

import io

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import (
    ChargeFlow,
    CURSparsifier,
    KQEqRegressor,
    SOAPFeaturizer,
    StructureBlocks,
    predict_forces,
)

WEIGHTS = {"chi": (0.8, 0.2), "reference": (1.0, 0.0)}


def soap():
    return SOAPFeaturizer(r_cut=(2.0, 3.5), n_max=3, l_max=2)


def flow():
    return KQEqRegressor(response=ChargeFlow(radius_scale=0.6))


@pytest.fixture
def fitted(molecules, dipoles):
    model = make_pipeline(soap(), CURSparsifier(n_points=3, block_weights=WEIGHTS), flow())
    return model.fit(molecules, dipoles)


def test_equals_blocks_made_by_hand(fitted, molecules, dipoles):
    parts = [
        (name, make_pipeline(soap(), CURSparsifier(n_points=3, block_weights=weights)))
        for name, weights in WEIGHTS.items()
    ]
    by_hand = make_pipeline(StructureBlocks(parts), flow()).fit(molecules, dipoles)
    assert_allclose(fitted.predict(molecules), by_hand.predict(molecules), atol=1e-8)
    for forces, expected in zip(
        predict_forces(fitted, molecules), predict_forces(by_hand, molecules), strict=True
    ):
        assert_allclose(forces, expected, atol=1e-7)


@pytest.mark.filterwarnings("ignore:n_points=100")
def test_a_field_without_a_cutoff_equals_one_with_the_other_cutoff(molecules, dipoles):
    """With weight zero, the second column block has no influence, and the first is all."""
    both = make_pipeline(
        SOAPFeaturizer(r_cut=(2.0, 3.5), n_max=3, l_max=2),
        CURSparsifier(n_points=100, block_weights=(1.0, 0.0)),
        flow(),
    ).fit(molecules, dipoles)
    one = make_pipeline(
        SOAPFeaturizer(r_cut=2.0, n_max=3, l_max=2), CURSparsifier(n_points=100), flow()
    ).fit(molecules, dipoles)
    # All environments are sparse points, whatever the descriptor is.
    assert_allclose(both.predict(molecules), one.predict(molecules), atol=1e-5)
    for forces, expected in zip(
        predict_forces(both, molecules), predict_forces(one, molecules), strict=True
    ):
        assert_allclose(forces, expected, atol=1e-4)


def test_attributes(fitted):
    sparsifier = fitted[1]
    assert list(sparsifier.kernels_) == list(WEIGHTS)
    assert len(sparsifier.components_) == len(sparsifier.component_indices_) == 9
    assert len(sparsifier.get_feature_names_out()) == 18
    assert set(sparsifier.jitter_) == {1, 6, 8}
    for of_field in zip(*(k.values() for k in sparsifier.kernels_.values()), strict=True):
        assert of_field[0].points is of_field[1].points


def test_files_hold_the_points_once(fitted, molecules, tmp_path):
    expected = fitted.predict(molecules)
    single = make_pipeline(soap(), CURSparsifier(n_points=3), flow())
    single.fit(molecules, expected)
    skqeq.save(fitted, tmp_path / "m.skqeq")
    loaded = skqeq.load(tmp_path / "m.skqeq")
    assert_allclose(loaded.predict(molecules), expected, atol=1e-12)
    sizes = []
    for model in (fitted, single):
        buffer = io.BytesIO()
        joblib.dump(model, buffer)
        sizes.append(len(buffer.getvalue()))
    points = fitted[1].components_.nbytes
    assert sizes[0] < sizes[1] + points / 2


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"chi": (1.0,)}, r"2 non-negative numbers, one per column block, got \(1\.0,\) for chi"),
        ({"chi": (0, 0)}, r"got \(0, 0\) for chi"),
        ({1: (0.5, 0.5)}, "keys of block_weights must be names of fields"),
    ],
)
def test_bad_weights(molecules, weights, message):
    features = soap().fit_transform(molecules)
    with pytest.raises(ValueError, match=message):
        CURSparsifier(n_points=2, block_weights=weights).fit(features)


def test_unknown_field(molecules, dipoles):
    weights = {"chi": (1, 1), "electronegativity": (1, 1)}
    model = make_pipeline(soap(), CURSparsifier(n_points=2, block_weights=weights), flow())
    with pytest.raises(ValueError, match="blocks chi, electronegativity"):
        model.fit(molecules, dipoles)


def test_arrays_have_no_fields():
    X = np.random.default_rng(0).normal(size=(10, 4))
    with pytest.raises(ValueError, match="need features of structures"):
        CURSparsifier(n_points=2, block_weights={"chi": (1.0,)}).fit(X)
