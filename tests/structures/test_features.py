"""The lazy container of features of structures with different numbers of atoms."""

import pickle

import numpy as np
import pytest
from ase import Atoms
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.utils import _safe_indexing

from skqeq import CURSparsifier, SOAPFeaturizer, StructureFeatures, check_structures
from skqeq.structures import Block, FeatureSource, NoFeatures, StackedSource

from .. import helpers

NAMES = ["H2O", "NH3", "CH3OH", "HCN", "H2", "HCOOH", "CH4", "H2CO"]


@pytest.fixture(scope="module")
def X():
    return [helpers.rattled(name, seed) for seed, name in enumerate(NAMES)] + [Atoms("F")]


@pytest.fixture(scope="module", params=["arrays", "soap", "sparse"])
def features(request, X):
    if request.param == "arrays":
        rng = np.random.default_rng(0)
        return StructureFeatures.from_arrays(X, [rng.normal(size=(len(a), 5)) for a in X])
    soap = SOAPFeaturizer(r_cut=(2.0, 3.0), n_max=2, l_max=1).fit_transform(X)
    return soap if request.param == "soap" else CURSparsifier(n_points=1).fit_transform(soap)


def rows(features):
    return [features[i] for i in range(len(features))]


def assert_same(features, expected):
    assert len(features) == len(expected)
    for found, reference in zip(rows(features), expected):
        assert_allclose(found, reference, atol=1e-14)


def test_looks_like_an_array(features, X):
    assert features.shape == (len(X), features.n_features)
    assert features.ndim == 2
    assert len(features) == len(X)
    assert np.shape(features) == features.shape
    for atoms, row in zip(X, rows(features)):
        assert row.shape == (len(atoms), features.n_features)
    assert f"{len(X)} structures, {sum(map(len, X))} atoms" in repr(features)


@pytest.mark.parametrize(
    "key",
    [
        slice(None),
        slice(1, 6, 2),
        slice(None, None, -1),
        [3, 0, 3],
        np.array([5, -1]),
        np.arange(9) % 3 == 0,
        [True, False, False, True, False, False, False, False, True],
        [],
        (slice(2, 4), slice(None)),
        (np.array([1, 7]), ...),
    ],
    ids=repr,
)
def test_indexing(features, key):
    order = np.arange(len(features))[key[0] if isinstance(key, tuple) else _index(key)]
    expected = [features[int(i)] for i in order]
    selected = features[key]
    assert isinstance(selected, StructureFeatures)
    assert selected.shape == (len(expected), features.n_features)
    assert_same(selected, expected)


def _index(key):
    return np.array(key, dtype=int) if isinstance(key, list) and not key else key


@pytest.mark.parametrize("key", [0, -1, np.int64(2)])
def test_one_structure_is_dense(features, key):
    assert_array_equal(features[key], rows(features)[key])
    assert_array_equal(features[key, :], rows(features)[key])


@pytest.mark.parametrize(
    "key", [9, [0, 9], np.ones(3, dtype=bool), (slice(None), 0), (0, 1, 2)], ids=repr
)
def test_bad_index(features, key):
    with pytest.raises(IndexError):
        features[key]


def test_scikit_learn_splits_it(features):
    assert_same(_safe_indexing(features, [4, 1]), [features[4], features[1]])
    first, second = train_test_split(features, test_size=3, random_state=0)
    assert (len(first), len(second)) == (6, 3)


def test_concatenation_along_structures(features):
    joined = np.concatenate([features[:2], features[5:], features[[0]]])
    expected = rows(features)
    assert_same(joined, expected[:2] + expected[5:] + expected[:1])


def test_concatenation_along_columns(features):
    for stacked in (np.concatenate([features, features], axis=1), np.hstack([features, features])):
        assert stacked.shape == (len(features), 2 * features.n_features)
        assert_same(stacked, [np.concatenate([row, row], axis=1) for row in rows(features)])
        assert_same(stacked[[2]], [np.concatenate([features[2]] * 2, axis=1)])


def test_stacked_blocks_make_kernels_that_add(X):
    """Two stacked SOAPs are equivalent to the double SOAP."""
    soaps = [SOAPFeaturizer(r_cut=r, n_max=2, l_max=1).fit_transform(X) for r in (2.0, 3.0)]
    double = SOAPFeaturizer(r_cut=(2.0, 3.0), n_max=2, l_max=1).fit_transform(X)
    sparsifier = CURSparsifier(n_points=1, block_weights=(1, 2))
    both = sparsifier.fit_transform(np.hstack(soaps))
    assert_same(both, rows(sparsifier.fit_transform(double)))


def test_bad_concatenation(features):
    with pytest.raises(TypeError, match="with each other only"):
        np.concatenate([features, np.zeros((1, features.n_features))])
    with pytest.raises(ValueError, match="different structures"):
        np.hstack([features, features[::-1]])
    with pytest.raises(ValueError, match="two axes"):
        np.concatenate([features, features], axis=2)
    with pytest.raises(TypeError):
        np.vstack([features, features])


def test_different_transformers_do_not_mix(X):
    soaps = [SOAPFeaturizer(r_cut=r, n_max=2, l_max=1).fit_transform(X) for r in (2.0, 3.0)]
    with pytest.raises(ValueError, match="different transformers"):
        np.concatenate(soaps)


def test_no_silent_array(features):
    with pytest.raises(TypeError, match="cannot be converted to an array"):
        np.asarray(features)


@pytest.mark.parametrize("max_bytes", [1, 2_000, 20_000, 2**30])
def test_blocks_of_any_size(features, X, max_bytes):
    expected = np.concatenate(rows(features))
    weights = np.random.default_rng(0).normal(size=features.n_features)
    found, products, starts, numbers = [], [], [], []
    for start, block in features.blocks(max_bytes):
        starts.append(start)
        assert len(block.structures) == 1 or block.n_atoms * 8 * block.n_features <= max_bytes
        assert block.offsets[-1] == block.n_atoms == sum(len(s) for s in block.structures)
        found.append(block.toarray())
        own = [block.rows_of(s) for s in range(len(block.structures))]
        assert_array_equal(np.concatenate(own), found[-1])
        products.append(block.dot(weights))
        numbers.append(block.numbers)
        cotangents = np.random.default_rng(start).normal(size=(3, block.n_atoms))
        assert_allclose(block.contract(cotangents), cotangents @ found[-1], atol=1e-12)
    assert_allclose(np.concatenate(found), expected, atol=1e-14)
    assert_allclose(np.concatenate(products), expected @ weights, atol=1e-12)
    assert_array_equal(np.concatenate(numbers), np.concatenate([a.numbers for a in X]))
    assert starts[0] == 0
    if max_bytes == 1:
        assert starts == list(range(len(X)))
    if max_bytes == 2**30:
        assert starts == [0]


def test_nothing_is_computed_before_it_is_asked_for():
    class Source(FeatureSource):
        boundaries, row_bytes = (0, 1), 8

        def tiles(self, structures):
            raise AssertionError("computed")

    features = StructureFeatures(check_structures([Atoms("H")] * 3), Source())
    assert np.hstack([features, features])[::2].shape == (2, 2)
    assert np.concatenate([features, features]).shape == (6, 1)
    blocks = features.blocks()
    with pytest.raises(AssertionError, match="computed"):
        next(blocks)


def test_pickle(features):
    assert_same(pickle.loads(pickle.dumps(features)), rows(features))


def test_empty_selection_has_no_blocks(features):
    assert list(features[[]].blocks()) == []


@pytest.mark.parametrize(
    "arrays, message",
    [
        ([np.zeros((3, 2))], "1 array for 2 structures"),
        ([np.zeros((3, 2)), np.zeros((3, 2))], r"structure 1 \(H3N\).*for 4 atoms"),
        ([np.zeros(3), np.zeros((4, 2))], r"structure 0 \(H2O\).*\(3,\)"),
        ([np.zeros((3, 2)), np.zeros((4, 3))], r"different numbers of columns: \[2, 3\]"),
    ],
)
def test_bad_arrays(X, arrays, message):
    with pytest.raises(ValueError, match=message):
        StructureFeatures.from_arrays(X[:2], arrays)


def test_arrays_of_one_geometry_do_not_get_mixed_up(X):
    """Features may depend on more than the geometry, such as the charge."""
    ion = X[0].copy()
    ion.info["charge"] = 1
    arrays = [np.zeros((3, 1)), np.ones((3, 1))]
    try:
        features = StructureFeatures.from_arrays([X[0], ion], arrays)
    except ValueError as error:
        assert "1" in str(error)
    else:
        assert_same(features, arrays)


def test_arrays_are_taken_as_they_were(X):
    array = np.ones((3, 1))
    features = StructureFeatures.from_arrays(X[:1], [array])
    array[:] = 7.0
    assert_array_equal(features[0], 1.0)


def test_a_source_that_stands_twice_is_computed_once(X):
    """The features of a source that is stacked twice occur twice, and share their derivatives."""
    soap = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=1, cutoff_width=1.0).fit_transform(X[:4])
    source = CURSparsifier(n_points=1).fit_transform(soap).source
    calls = []

    class Counted(FeatureSource):
        boundaries, row_bytes, gradient = source.boundaries, source.row_bytes, source.gradient

        def tiles(self, structures):
            calls.append(len(structures))
            return source.tiles(structures)

    counted = Counted()
    stacked = StackedSource([counted, NoFeatures(), counted])
    both = StructureFeatures(check_structures(X[:4]), stacked)
    [(_, block)] = both.blocks()
    assert calls == [4]
    n = source.boundaries[-1]
    assert stacked.sizes == (n, 0, n) and stacked.n_distinct == n and both.n_features == 2 * n
    assert_array_equal(block.toarray()[:, :n], block.toarray()[:, n:])
    first, nothing, third = both.gradient(both.structures[0]).parts
    assert first is third and first is not nothing


def test_sources_with_the_same_meaning_are_computed_once(X):
    """Two fits to the same structures give one source, but other points or kernels do not."""
    soap = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=1)
    sparsifiers = [CURSparsifier(n_points=1, **k) for k in ({}, {}, {"zeta": 3}, {"jitter": 1e-3})]
    # The kernel of one point is one, whatever the point is.
    chosen = [X[:4]] * 4 + [X[4:8]]
    sources = [
        make_pipeline(soap, sparsifier).fit_transform(part).source
        for sparsifier, part in zip([*sparsifiers, sparsifiers[0]], chosen)
    ]
    first, second, *others = StackedSource(sources).sources
    assert first is second
    assert len({id(source) for source in (first, *others)}) == 4


def test_tiles_of_some_atoms(features):
    """Tiles for some atoms contain the rows of these atoms; all other rows are zero."""
    for i, structure in enumerate(features.structures):
        atoms = np.arange(len(structure))[::2]
        block = Block([structure], features.source.tiles_of(structure, atoms), features.n_features)
        expected = np.zeros_like(features[i])
        expected[atoms] = features[i][atoms]
        assert_allclose(block.toarray(), expected, atol=1e-14)


@pytest.mark.parametrize("cutoff_width", [None, 1.0])
def test_tiles_of_some_atoms_are_computed_alone(X, cutoff_width, memory_budget, monkeypatch):
    """If rows are not stored, only the requested atoms of a structure get rows."""
    soap = SOAPFeaturizer(r_cut=(2.0, 3.0), n_max=2, l_max=1, cutoff_width=cutoff_width)
    features = soap.fit_transform(X)
    expected = features[2]
    memory_budget(0)
    monkeypatch.setattr("skqeq.features._source.describe", lambda *_: pytest.fail("all atoms"))
    for source in (features.source, StackedSource([features.source])):
        tiles = source.tiles_of(features.structures[2], np.array([1, 3]))
        block = Block([features.structures[2]], tiles, features.n_features)
        assert_allclose(block.toarray()[[1, 3]], expected[[1, 3]], atol=1e-12)
        assert not block.toarray()[[0, 2]].any()


def test_no_features():
    """For a field without features, all results are empty or zero."""
    [structure] = check_structures([helpers.rattled("H2O", 0)])
    features = StructureFeatures([structure], NoFeatures())
    [(_, block)] = features.blocks()
    assert block.toarray().shape == (3, 0) and features.shape == (1, 0)
    gradient = features.gradient(structure)
    assert_array_equal(gradient.field(features.dual(np.zeros(0))), np.zeros(3))
    for g, virial in (
        gradient.pull_back(np.zeros((3, 0))),
        gradient.field_gradient(np.ones(3), np.zeros(0)),
    ):
        assert_array_equal(g, np.zeros((3, 3)))
        assert_array_equal(virial, np.zeros((3, 3)))
    assert gradient.contract(np.ones((2, 3))).shape == (2, 0)
    assert [J.shape for J in gradient.jacobian(np.ones((4, 3)))] == [(4, 9, 0), (4, 9, 0)]
    assert not any(part.any() for part in gradient.residual_variances())


def test_incomplete_sources_are_refused():
    class Incomplete(FeatureSource):
        boundaries, row_bytes = (0, 1), 8

    with pytest.raises(TypeError, match="abstract method '?tiles"):
        Incomplete()
