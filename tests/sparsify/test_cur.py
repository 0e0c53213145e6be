"""Sparse sets and the whitened kernel to them."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from skqeq import CURSparsifier, SOAPFeaturizer, StructureFeatures
from skqeq.sparsify._environments import Environments

from .. import helpers

METHODS = ["cur", "fps"]
NAMES = ["H2O", "NH3", "CH3OH", "HCN", "CH3CN", "HCOOH", "CH4", "H2CO"]


@pytest.fixture(scope="module")
def X():
    return [helpers.rattled(name, seed) for seed, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def features(X):
    return SOAPFeaturizer(r_cut=(2.0, 3.0), n_max=3, l_max=2).fit_transform(X)


def dense(features):
    return np.concatenate([features[i] for i in range(len(features))])


def numbers_of(X):
    return np.concatenate([atoms.numbers for atoms in X])


def naive_kernel(P, Q, edges, weights, zeta):
    K = np.zeros((len(P), len(Q)))
    for start, stop, weight in zip(edges[:-1], edges[1:], weights):
        for i, p in enumerate(P[:, start:stop]):
            for j, q in enumerate(Q[:, start:stop]):
                cosine = p @ q / np.sqrt((p @ p) * (q @ q))
                K[i, j] += weight / np.sum(weights) * cosine**zeta
    return K


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("per_species", [True, False])
@pytest.mark.parametrize("zeta, weights", [(1, (1, 1)), (2, (3, 1)), (4, (0, 1))])
def test_whitened_features_make_the_nystroem_kernel(
    X, features, method, per_species, zeta, weights
):
    sparsifier = CURSparsifier(
        n_points=3, method=method, per_species=per_species, zeta=zeta, block_weights=weights
    )
    phi = dense(sparsifier.fit_transform(features))
    rows, numbers = dense(features), numbers_of(X)
    firsts = np.cumsum([0] + [len(atoms) for atoms in X])
    chosen = [firsts[s] + a for s, a in sparsifier.component_indices_]
    edges = (0, features.n_features // 2, features.n_features)
    K = naive_kernel(rows, rows, edges, weights, zeta)
    if per_species:
        K *= numbers[:, None] == numbers
        assert_array_equal(sparsifier.component_numbers_, numbers[chosen])
        assert (phi[:, sparsifier.component_numbers_ == 6][numbers != 6] == 0).all()
    K_nM, K_MM = K[:, chosen], K[np.ix_(chosen, chosen)]
    jittered = K_MM + 1e-10 * np.eye(len(chosen))
    assert_allclose(phi @ phi.T, K_nM @ np.linalg.solve(jittered, K_nM.T), atol=1e-6)
    norms = np.sum(phi**2, axis=1)
    assert norms.max() <= 1 + 1e-9
    # The kernel among the sparse points themselves is reproduced exactly.
    assert_allclose(norms[chosen], 1, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_points", [1, 4, 5])
def test_exactly_so_many_points_of_every_element(X, n_points, method):
    X = X + [helpers.rattled(name, 50 + seed) for seed, name in enumerate(NAMES)]
    soap = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2)
    sparsifier = CURSparsifier(n_points=n_points, method=method)
    out = sparsifier.fit_transform(soap.fit_transform(X))
    points = [tuple(p) for p in sparsifier.component_indices_]
    assert len(set(points)) == len(points) == 4 * n_points == out.n_features
    found = [X[s].numbers[a] for s, a in points]
    assert sorted(found) == sorted([1, 6, 7, 8] * n_points)
    assert sparsifier.components_.shape == (4 * n_points, sparsifier.n_features_in_)
    assert len(sparsifier.get_feature_names_out()) == 4 * n_points


def test_mixed_elements(features):
    sparsifier = CURSparsifier(n_points=7, per_species=False).fit(features)
    assert len({tuple(p) for p in sparsifier.component_indices_}) == 7
    assert_array_equal(sparsifier.component_numbers_, 0)


@pytest.mark.parametrize("method", METHODS)
def test_seed(features, method):
    def points(seed):
        sparsifier = CURSparsifier(n_points=3, method=method, random_state=seed)
        return sparsifier.fit(features).component_indices_.tolist()

    assert points(0) == points(0)
    assert points(np.random.RandomState(4)) == points(np.random.RandomState(4))
    assert len({str(points(seed)) for seed in range(8)}) > 1


def test_components_are_normalised_rows(X, features):
    sparsifier = CURSparsifier(n_points=2).fit(features)
    half = features.n_features // 2
    for component, (s, a) in zip(sparsifier.components_, sparsifier.component_indices_):
        row = features[s][a]
        for block in (slice(0, half), slice(half, None)):
            assert_allclose(component[block], row[block] / np.linalg.norm(row[block]), atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_too_many_points_are_all_points_with_one_warning(X, features, method):
    with pytest.warns(UserWarning, match="n_points=1000, but there are only") as caught:
        sparsifier = CURSparsifier(n_points=1000, jitter=1e-8, method=method).fit(features)
    assert len(caught) == 1
    for word in ("H", "C", "N", "O"):
        assert f" of {word}" in str(caught[0].message)
    assert len(sparsifier.component_indices_) == sum(len(atoms) for atoms in X)


def test_as_many_points_as_there_are_need_no_warning(X, features):
    n = sum(len(atoms) for atoms in X)
    sparsifier = CURSparsifier(n_points=n, per_species=False, jitter=1e-8).fit(features)
    assert len(sparsifier.component_indices_) == n


def test_only_some_environments_are_looked_at(X, features):
    sparsifier = CURSparsifier(n_points=4, max_environments=5, per_species=False)
    assert len(sparsifier.fit(features).component_indices_) == 4
    everything = CURSparsifier(n_points=4, max_environments=10**6, per_species=False)
    same = CURSparsifier(n_points=4, per_species=False).fit(features)
    assert_array_equal(everything.fit(features).component_indices_, same.component_indices_)


def test_the_environments_looked_at_are_those_of_few_structures():
    X = [helpers.rattled("CH3OH", seed) for seed in range(50)]
    features = SOAPFeaturizer(n_max=2, l_max=1).fit_transform(X)
    index = CURSparsifier(n_points=3, max_environments=8).fit(features).component_indices_
    # The candidates are eight C, eight O and some H atoms, all from the same eight molecules.
    assert len(set(index[:, 0].tolist())) <= 8


def test_what_is_looked_at_is_spread_and_reaches_rare_elements(monkeypatch):
    """The subset contains atoms of frequent elements from all structures, and all rare elements."""
    X = [helpers.rattled("CH3OH", seed) for seed in range(40)]
    rare = [7, 31]
    for i in rare:
        X[i].symbols[X[i].symbols == "O"] = "N"
    features = SOAPFeaturizer(n_max=2, l_max=1).fit_transform(X)
    looked = []
    sketch = Environments.sketch
    monkeypatch.setattr(
        Environments,
        "sketch",
        lambda environments, index, *args: (
            looked.append(environments.locate(index)) or sketch(environments, index, *args)
        ),
    )
    CURSparsifier(n_points=1, max_environments=10).fit(features)
    [looked] = looked
    numbers = np.array([X[i].numbers[a] for i, a in looked])
    counts = {z: int((numbers == z).sum()) for z in (1, 6, 7, 8)}
    assert counts == {1: 10, 6: 10, 7: 2, 8: 10}
    few = set(looked[numbers == 6, 0])
    assert len(few) == 10
    hydrogens = looked[numbers == 1, 0]
    # With four hydrogens per molecule, three molecules would have ten.
    assert set(hydrogens) <= few and len(set(hydrogens)) > 4
    assert set(looked[numbers == 7, 0]) == set(rare)


@pytest.mark.parametrize("jitter, warns", [(0.0, True), (1e-8, False)])
def test_singular_kernel_raises_jitter(jitter, warns):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(8, 3))  # the squares of products of three columns have the rank 6
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sparsifier = CURSparsifier(n_points=8, jitter=jitter).fit(rows)
    [used] = sparsifier.jitter_.values()
    if warns:
        [warning] = caught
        assert issubclass(warning.category, ConvergenceWarning)
        assert "jitter was raised from 0e+00 to" in str(warning.message)
        assert 0 < used < 1e-10
    else:
        assert not caught
        assert used == jitter
    phi = sparsifier.transform(rows)
    assert_allclose(phi @ phi.T, naive_kernel(rows, rows, (0, 3), [1], 2), atol=1e-6)


# Rows of an array are equivalent to structures of one atom each.
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lengths", [(1, 1), (1, 100)], ids=["unit rows", "rows of any length"])
@pytest.mark.parametrize("max_environments", [50_000, 20])
def test_array_and_ragged_input_are_the_same(method, lengths, max_environments):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 40)) + 0.5
    rows *= rng.uniform(*lengths, size=30)[:, None] / np.linalg.norm(rows, axis=1)[:, None]
    X = [Atoms("H", [[i, 0, 0]]) for i in range(30)]
    ragged = StructureFeatures.from_arrays(X, rows[:, None])
    sparsifier = CURSparsifier(n_points=6, method=method, max_environments=max_environments)
    array_path = clone(sparsifier).fit(rows)
    ragged_path = clone(sparsifier).fit(ragged)
    structure, _ = ragged_path.component_indices_.T
    assert_array_equal(structure, array_path.component_indices_)
    assert_allclose(dense(ragged_path.transform(ragged)), array_path.transform(rows), atol=1e-12)


def test_blocks_of_any_size_give_the_same_points(monkeypatch, features):
    from skqeq.structures import _features

    whole = CURSparsifier(n_points=3).fit(features)
    monkeypatch.setattr(_features.StructureFeatures.blocks, "__defaults__", (1, False, ""))
    split = CURSparsifier(n_points=3).fit(features)
    assert_array_equal(split.component_indices_, whole.component_indices_)
    assert_allclose(split.components_, whole.components_, atol=1e-15)


def test_elements_without_points_have_no_features(X):
    soap = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=1, species=["H", "C", "N", "O"]).fit(X)
    water = CURSparsifier(n_points=1).fit(soap.transform(X[:1]))
    ammonia = water.transform(soap.transform(X[1:2]))[0]
    assert (ammonia[0] == 0).all()  # The features of nitrogen are zero.
    assert (np.abs(ammonia[1:]).max(axis=1) > 0).all()


def test_an_environment_without_neighbours_is_harmless():
    """An all-zero row has no direction, and its kernel with all others is zero."""
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    sparsifier = CURSparsifier(n_points=2).fit(rows[:2])
    phi = sparsifier.transform(rows)
    assert_allclose(np.abs(phi[2]), 0, atol=1e-15)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n_points", [1, 3, 10])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_undefined_features_are_refused(value, n_points):
    """Without an error, the search for a jitter would never end."""
    array = np.ones((3, 2))
    array[1, 1] = value
    with pytest.raises(ValueError):
        features = StructureFeatures.from_arrays([helpers.rattled("H2O", 0)], [array])
        CURSparsifier(n_points=n_points, per_species=False).fit(features)


@pytest.mark.parametrize(
    "weights", [(1.0,), (1.0, -1.0), (0.0, 0.0), (1.0, np.nan), (1.0, 1.0, 1.0)]
)
def test_bad_block_weights(features, weights):
    with pytest.raises(ValueError, match="block_weights must be 2 non-negative numbers"):
        CURSparsifier(n_points=2, block_weights=weights).fit(features)


@pytest.mark.parametrize("per_species", [True, False])
def test_an_array_after_a_fit_to_structures(features, per_species):
    """An array is refused, even with the right number of columns.

    It does not tell which rows belong to which element.
    """
    sparsifier = CURSparsifier(n_points=2, per_species=per_species).fit(features)
    message = "fitted with the features of structures, but X is a ndarray of shape"
    with pytest.raises(TypeError, match=message):
        sparsifier.transform(features[0])
    with pytest.raises(TypeError, match="but X is a list; pass the result of SOAPFeat"):
        sparsifier.transform(features[0].tolist())


def test_structures_after_a_fit_to_an_array(features):
    rows = dense(features)
    sparsifier = CURSparsifier(n_points=2).fit(rows)
    with pytest.raises(TypeError, match="with an array of rows, but X are the features of 8 struc"):
        sparsifier.transform(features)
    # A new fit may be to an array.
    assert len(sparsifier.fit(features).transform(features)) == 8
    assert sparsifier.fit(rows).transform(rows).shape == (len(rows), 2)


def test_a_sparse_set_that_is_extended(features):
    """With more sparse points, the kernel is exact for the new points and no worse for others."""

    def represented(source):
        phi = StructureFeatures(features.structures, source)
        return [np.sum(phi[i] ** 2, axis=1) for i in range(len(phi))]

    source = CURSparsifier(n_points=1).fit_transform(features).source
    structure = features.structures[1]
    larger = source.with_environments(structure)
    assert larger.boundaries[-1] == source.boundaries[-1] + len(structure)
    before, after = represented(source), represented(larger)
    assert before[1].min() < 0.995
    assert_allclose(after[1], 1, atol=1e-6)
    for old, new in zip(before, after):
        assert (new > old - 1e-6).all()


def test_a_sketch_keeps_the_geometry(X, features):
    source = CURSparsifier(n_points=1).fit_transform(features).source
    rows = dense(features)
    half = features.n_features // 2
    unit = np.concatenate(
        [b / np.linalg.norm(b, axis=1)[:, None] for b in (rows[:, :half], rows[:, half:])], axis=1
    )
    sketch = source.sketch(features.structures, np.random.default_rng(0), width=200)
    assert sketch.shape == (len(rows), min(200, features.n_features))
    exact, found = unit @ unit.T, sketch @ sketch.T
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.9
    whole = source.sketch(features.structures, np.random.default_rng(0), width=10**6)
    assert_allclose(whole @ whole.T, exact, atol=1e-12)


# ---- copies -------------------------------------------------------------------------------------


def copied(X, how):
    """The structures, followed by copies of them in a few forms."""
    rng = np.random.default_rng(0)
    if how == "repeated":
        return X + X[::-1] + [X[2]] * 20
    if how == "rotated":
        copies = [atoms.copy() for atoms in X]
        for atoms in copies:
            atoms.rotate(rng.uniform(0, 360), rng.normal(size=3))
            atoms.positions += rng.normal(size=3)
        return X + copies
    if how == "renumbered":
        return X + [atoms[rng.permutation(len(atoms))] for atoms in X]
    copies = [atoms.copy() for atoms in X]
    for atoms in copies:
        atoms.positions = atoms.positions.round(7)
    return X + copies


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("per_species", [True, False])
@pytest.mark.parametrize("how", ["repeated", "rotated", "renumbered", "rounded"])
def test_copies_change_nothing(X, how, per_species, method):
    soap = SOAPFeaturizer(r_cut=(2.0, 3.0), n_max=3, l_max=2).fit(X)
    sparsifier = CURSparsifier(n_points=3, method=method, per_species=per_species)
    once = clone(sparsifier).fit(soap.transform(X))
    often = clone(sparsifier).fit(soap.transform(copied(X, how)))
    assert_array_equal(often.component_indices_, once.component_indices_)
    assert_array_equal(often.components_, once.components_)
    assert often.jitter_ == once.jitter_


def test_copies_change_nothing_if_there_are_more_structures_than_candidates(X):
    soap = SOAPFeaturizer(n_max=3, l_max=2).fit(X)
    sparsifier = CURSparsifier(n_points=2, max_environments=4, per_species=False)
    once = clone(sparsifier).fit(soap.transform(X))
    often = clone(sparsifier).fit(soap.transform(X + X))
    assert_array_equal(often.component_indices_, once.component_indices_)


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_an_array_that_occur_twice_count_once(method):
    rows = np.random.default_rng(0).normal(size=(30, 5))
    once = CURSparsifier(n_points=6, method=method).fit(rows)
    often = CURSparsifier(n_points=6, method=method).fit(np.concatenate([rows, rows[::-1]]))
    assert_array_equal(often.component_indices_, once.component_indices_)


@pytest.mark.parametrize("name, counts", [("CH4", {"H": 1, "C": 1}), ("C2H6", {"H": 1, "C": 1})])
def test_equivalent_atoms_are_copies(name, counts):
    atoms = molecule(name)
    features = SOAPFeaturizer(n_max=3, l_max=2).fit_transform([atoms] * 3)
    with pytest.warns(UserWarning, match="only 1 of H, 1 of C, not counting copies"):
        sparsifier = CURSparsifier(n_points=2).fit(features)
    assert len(sparsifier.component_indices_) == sum(counts.values())
    assert set(sparsifier.jitter_.values()) == {1e-10}
    assert_allclose(np.linalg.norm(sparsifier.transform(features)[0], axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("displacement", [1e-3, 1e-2])
def test_small_displacements_are_not_copies(displacement):
    """Environments that differ by the step of a finite difference are not duplicates."""
    X = [molecule("H2O") for _ in range(2)]
    X[1].positions[1, 1] += displacement
    features = SOAPFeaturizer(n_max=3, l_max=2).fit_transform(X)
    points = CURSparsifier(n_points=3, per_species=False).fit(features).component_indices_
    assert len(points) == 3
