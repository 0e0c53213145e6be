"""SOAP features have DScribe's values, and each row is computed once."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from skqeq import CURSparsifier, SOAPFeaturizer
from skqeq._memory import BUDGET
from skqeq.features import ROWS, _source

from .. import helpers

SPECIES = ["H", "C", "N", "O", "F"]
NAMES = ["H2O", "CH3OH", "HCN", "N2", "HF", "CO2", "CH3NO2"]
WEIGHTING = {"H": 0.5, "C": 1.0, "N": 1.5, "O": 2.0, "F": 3.0}


@pytest.fixture(scope="module")
def X():
    return [helpers.rattled(name, seed) for seed, name in enumerate(NAMES)] + [Atoms("F")]


@pytest.fixture(autouse=True)
def empty_store():
    ROWS.clear()
    yield
    ROWS.clear()


@pytest.fixture
def count(monkeypatch):
    """Record every evaluation of the descriptor."""
    calls = []
    describe = _source.describe

    def counted(spectrum, structure, key, versions=None):
        calls.append(structure.digest)
        return describe(spectrum, structure, key)

    monkeypatch.setattr(_source, "describe", counted)
    return calls


def featurizer(**options):
    return SOAPFeaturizer(**{"r_cut": 3.0, "n_max": 3, "l_max": 2} | options)


def assert_features(features, expected, rtol=1e-12):
    assert len(features) == len(expected)
    for i, reference in enumerate(expected):
        scale = np.abs(reference).max()
        assert_allclose(features[i], reference, rtol=0, atol=rtol * scale)


@pytest.mark.parametrize("weighting", [None, WEIGHTING], ids=["plain", "weighted"])
@pytest.mark.parametrize("compression", ["off", "mu2", "mu1nu1", "crossover"])
@pytest.mark.parametrize("n_max, l_max", [(3, 2), (1, 0), (2, 4)])
def test_own_elements_only_gives_all_columns(X, compression, weighting, n_max, l_max):
    features = featurizer(
        n_max=n_max,
        l_max=l_max,
        species=SPECIES,
        compression=compression,
        species_weighting=weighting,
    ).fit_transform(X)
    expected = helpers.soap(
        X,
        SPECIES,
        3.0,
        n_max,
        l_max,
        compression={"mode": compression, "species_weighting": weighting},
    )
    assert_features(features, expected)
    for spectrum in features.source.spectra:
        spectrum.check_loaded()  # knows the number of columns without DScribe


@pytest.mark.parametrize("compression", ["off", "mu2", "mu1nu1", "crossover"])
def test_periodic_structures(compression):
    rocksalt = bulk("NaCl", "rocksalt", a=5.64) * (1, 1, 2)
    rocksalt.rattle(0.1, seed=0)
    slab = fcc111("Al", (1, 2, 2), vacuum=5.0)
    slab.rattle(0.1, seed=1)
    boxed = Atoms("ClNa", [[0, 0, 0], [0, 0, 2.4]], cell=[3, 3, 3])  # a cell, but not periodic
    small = bulk("Al")  # The cutoff is larger than the cell.
    species = ["Na", "Al", "Cl"]
    X = [rocksalt, slab, boxed, small]
    features = featurizer(r_cut=4.0, compression=compression).fit_transform(X)
    for i, atoms in enumerate(X):
        expected = helpers.soap(
            [atoms],
            species,
            4.0,
            3,
            2,
            periodic=bool(atoms.pbc.any()),
            compression={"mode": compression, "species_weighting": None},
        )
        assert_features(features[i : i + 1], expected)


def test_slab_without_third_cell_vector():
    """ASE's surfaces may lack the third cell vector; the features must not depend on it."""
    bare = fcc111("Al", (1, 2, 2))
    assert not bare.cell[2].any()
    roomy = bare.copy()
    roomy.center(vacuum=10.0, axis=2)
    features = featurizer().fit([bare])
    assert_allclose(features.transform([bare])[0], features.transform([roomy])[0], atol=1e-10)


@pytest.mark.parametrize("shift", [[1, 0, 0], [2, -3, 1]])
def test_atoms_outside_the_cell(shift):
    """Features do not depend on the cell in which an atom is placed."""
    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * 2
    crystal.rattle(0.1, seed=0)
    slab = fcc111("Al", (3, 3, 2), vacuum=5.0)
    for atoms in (crystal, slab):
        moved = atoms.copy()
        moved.positions[::3] += (shift * atoms.pbc) @ atoms.cell
        features = featurizer().fit_transform([atoms, moved])
        assert_allclose(features[1], features[0], rtol=0, atol=1e-10 * features[0].max())


def test_cutoffs_stand_side_by_side(X):
    features = featurizer(r_cut=(2.0, 3.0), sigma_atom=(0.3, 0.5)).fit_transform(X)
    parts = [
        helpers.soap(X, SPECIES, r_cut, 3, 2, sigma) for r_cut, sigma in ((2.0, 0.3), (3.0, 0.5))
    ]
    assert_features(features, [np.concatenate(pair, axis=1) for pair in zip(*parts)])
    one = featurizer(r_cut=(2.0, 3.0), sigma_atom=0.4).fit_transform(X)
    parts = [helpers.soap(X, SPECIES, r_cut, 3, 2, 0.4) for r_cut in (2.0, 3.0)]
    assert_features(one, [np.concatenate(pair, axis=1) for pair in zip(*parts)])


def test_default_width_follows_the_cutoff(X):
    assert_features(
        featurizer(r_cut=[2.4]).fit_transform(X), helpers.soap(X, SPECIES, 2.4, 3, 2, 0.3)
    )


def test_smooth_edge_beyond_all_neighbors(X):
    """If the cutoff function is one at all neighbours, the rows are those of DScribe."""
    features = featurizer(r_cut=6.0, cutoff_width=2.0).fit_transform(X)
    assert_features(features, helpers.soap(X, SPECIES, 6.0, 3, 2), rtol=1e-10)


def test_one_smooth_edge_of_two(X):
    features = featurizer(r_cut=(2.0, 3.0), cutoff_width=(0.5, None)).fit_transform(X)
    faded = featurizer(r_cut=2.0, cutoff_width=0.5).fit_transform(X)
    sharp = featurizer(r_cut=3.0).fit_transform(X)
    for i in range(len(X)):
        assert_array_equal(features[i], np.concatenate([faded[i], sharp[i]], axis=1))
    assert not np.allclose(faded[1], featurizer(r_cut=2.0).fit_transform(X)[1])


def test_species(X):
    learned = featurizer().fit(X)
    assert_array_equal(learned.species_, [1, 6, 7, 8, 9])
    given = featurizer(species=["O", 1, "C"]).fit(X[:1])
    assert_array_equal(given.species_, [1, 6, 8])
    with pytest.raises(ValueError, match=r"structure 1 \(CHN\) holds N; known elements: H, C, O"):
        CURSparsifier().fit(given.transform([X[0], X[2]]))
    with pytest.raises(ValueError, match="'Zz', which is not an element"):
        featurizer(species=["Zz"]).fit(X)


@pytest.mark.parametrize("weighting", [{"H": 1.0}, {"H": 1.0, "Zz": 2.0}])
def test_weights_must_cover_the_elements(X, weighting):
    with pytest.raises(ValueError, match="species_weighting"):
        featurizer(species_weighting=weighting).fit(X)


# ---- the store of rows --------------------------------------------------------------------------


def walk(features):
    return [block.toarray() for _, block in features.blocks()]


def test_each_structure_once_per_cutoff(X, count):
    soap = featurizer(r_cut=(2.0, 3.0))
    features = soap.fit_transform(X + X[:3])
    assert not count  # Featurizers compute no row before it is read.
    walk(features)
    assert len(count) == 2 * len(X)
    walk(features)
    walk(features[::-1])
    walk(clone(soap).fit_transform(X))
    # No row is computed again for some of the structures, for other charges or labels, or for one
    # of the two cutoffs.
    charged = X[0].copy()
    charged.info.update(charge=1, label=3)
    walk(clone(soap).fit_transform([charged]))
    walk(featurizer(r_cut=3.0).fit_transform(X))
    assert len(count) == 2 * len(X)


@pytest.mark.parametrize(
    "options",
    [
        {"r_cut": 3.1},
        {"n_max": 4},
        {"l_max": 3},
        {"sigma_atom": 0.5},
        {"compression": "mu1nu1"},
        {"species_weighting": WEIGHTING},
        {"cutoff_width": 1.0},
    ],
    ids=repr,
)
def test_other_options_are_other_rows(X, count, options):
    walk(featurizer().fit_transform(X))
    before = len(count)
    other = featurizer(**options).fit_transform(X)
    walk(other)
    assert len(count) == before + len(X)
    ROWS.clear()
    assert_features(other, [featurizer(**options).fit_transform(X)[i] for i in range(len(X))])


def test_geometry_decides(X, count):
    walk(featurizer().fit_transform(X[:1]))
    moved = X[0].copy()
    moved.positions[0, 0] += 1e-9
    crystal = X[0].copy()
    crystal.cell, crystal.pbc = [9, 9, 9], True
    other_cell = crystal.copy()
    other_cell.cell = [8, 8, 8]
    walk(featurizer().fit_transform([moved, crystal, other_cell]))
    assert len(count) == 4


def test_store_is_bounded(X, memory_budget):
    limit = 20_000
    soap = featurizer(n_max=2).fit(X)
    many = [helpers.rattled("CH3OH", seed) for seed in range(30)]
    memory_budget(0)
    expected = walk(soap.transform(many))
    assert len(ROWS) == 0
    memory_budget(limit)
    for _ in range(2):
        for found, reference in zip(walk(soap.transform(many)), expected):
            assert_allclose(found, reference, atol=1e-12)
        assert 0.5 * limit < ROWS.nbytes <= limit
    memory_budget(limit // 4)
    assert 0.5 * limit // 4 < ROWS.nbytes <= limit // 4
    walk(soap.transform(X))
    assert ROWS.nbytes <= limit // 4


def test_stored_rows_cannot_be_spoiled(X):
    features = featurizer().fit_transform(X)
    for block in walk(features):
        block[:] = 7.0
    features[0][:] = 7.0
    for _, block in features.blocks():
        for tile in block.tiles:
            if tile.values.flags.writeable:
                tile.values[:] = 7.0
    assert_features(features, helpers.soap(X, SPECIES, 3.0, 3, 2))


@pytest.mark.parametrize("cutoff_width", [None, 1.0])
def test_rows_on_disk(X, count, tmp_path, cutoff_width, memory_budget):
    """Rows are computed once, even if the charge or other irrelevant data change."""
    memory_budget(0)
    walk(featurizer(memory=str(tmp_path), cutoff_width=0.5).fit_transform(X))
    expected = list(featurizer(cutoff_width=cutoff_width).fit_transform(X))
    count.clear()
    soap = featurizer(memory=str(tmp_path), cutoff_width=cutoff_width)
    assert_features(soap.fit_transform(X), expected)
    evaluated = len(count)
    assert evaluated == len(X)
    assert_features(soap.fit_transform(X), expected)
    charged = X[0].copy()
    charged.info["charge"] = 1
    assert_features(clone(soap).fit(X).transform([charged]), expected[:1])
    assert len(count) == evaluated


@pytest.mark.parametrize("package", ["skqeq", "dscribe", "numpy", "vesin"])
def test_rows_on_disk_belong_to_versions(package, X, count, tmp_path, monkeypatch, memory_budget):
    """If the version of a package that computes rows changes, old rows are not read."""
    memory_budget(0)
    soap = featurizer(memory=str(tmp_path))
    walk(soap.fit_transform(X))
    evaluated = len(count)
    walk(soap.fit_transform(X))
    assert len(count) == evaluated
    versions = dict(_source._versions())
    assert versions.pop(package)
    monkeypatch.setattr(_source, "_versions", lambda: ((package, "99.0"), *versions.items()))
    walk(soap.fit_transform(X))
    assert len(count) == 2 * evaluated


def test_claimed_memory_is_taken_from_the_store(X, memory_budget):
    """A fit may take memory from cached descriptors, because these can be computed again."""
    memory_budget(BUDGET.claimed + 100_000)
    features = featurizer().fit_transform(X)
    expected = walk(features)
    held = ROWS.nbytes
    assert 0 < held <= 100_000
    reservation = BUDGET.reservation()
    assert reservation.claim(100_000 - held // 2)
    assert 0 < ROWS.nbytes <= held // 2
    for block, reference in zip(walk(features), expected):
        assert_array_equal(block, reference)
    assert ROWS.nbytes <= held // 2
    reservation.release()
    walk(features)
    assert ROWS.nbytes == held


@pytest.mark.parametrize("cutoff_width", [None, 1.0])
def test_processes_give_the_same(X, cutoff_width, memory_budget):
    memory_budget(0)
    many = X + [helpers.rattled("CH3OH", seed) for seed in range(5)]
    soap = featurizer(cutoff_width=cutoff_width)
    parallel = walk(clone(soap).set_params(n_jobs=2).fit_transform(many))
    for found, expected in zip(parallel, walk(soap.fit_transform(many))):
        assert_array_equal(found, expected)


def test_invariance():
    """Features do not change under rotation, translation and reordering of the atoms."""
    atoms = helpers.rattled("CH3NO2", 5)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    order = np.random.default_rng(1).permutation(len(atoms))
    moved = atoms[order]
    moved.positions = moved.positions @ rotation.T + [5.0, -3.0, 100.0]
    features = featurizer(r_cut=3.5, n_max=6, l_max=5).fit_transform([atoms, moved])
    assert_allclose(features[1], features[0][order], atol=1e-9 * np.abs(features[0]).max())


def test_atoms_are_left_alone():
    atoms = molecule("H2O")
    atoms.info["charge"] = 1
    before = atoms.copy()
    walk(featurizer().fit_transform([atoms]))
    assert atoms == before
    assert atoms.info == before.info
