"""Structures that are read from files when they are indexed."""

import pickle

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    KQEqRegressor,
    QEqRegressor,
    SOAPFeaturizer,
    check_structures,
    make_targets,
    predict_charges,
    targets_from_atoms,
)
from skqeq.datasets import load_molecules, open_structures
from skqeq.structures import _collection
from skqeq.structures._collection import collect


@pytest.fixture(scope="module")
def data():
    X, y, groups = load_molecules(return_groups=True)
    common = [i for i, atoms in enumerate(X) if 9 not in atoms.numbers][:40]
    return [X[i] for i in common], y[common], groups[common]


@pytest.fixture(scope="module")
def path(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "train.xyz"
    ase.io.write(path, data[0])
    return path


def pipeline():
    soap = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2)
    return make_pipeline(soap, CURSparsifier(n_points=4), KQEqRegressor())


def write_database(path, X):
    with ase.db.connect(path) as database:
        for atoms in X:
            database.write(atoms, total_charge=1, data={"REF_dipole": np.ones(3)})


WRITERS = {
    ".xyz": ase.io.write,
    ".extxyz": lambda path, X: ase.io.write(path, X, format="extxyz"),
    ".traj": ase.io.write,
    ".db": write_database,
    ".json": write_database,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_formats(tmp_path, suffix):
    X = [molecule("CH3OH"), bulk("ZnO", "wurtzite", a=3.25, c=5.2), molecule("H2O")]
    X[2].info["external_field"] = [0.0, 0.1, 0.0]
    WRITERS[suffix](tmp_path / f"data{suffix}", X)
    found = open_structures(tmp_path / f"data{suffix}")
    assert len(found) == 3
    for atoms, original in zip(found, X, strict=True):
        assert_array_equal(atoms.numbers, original.numbers)
        assert_allclose(atoms.positions, original.positions, atol=1e-7)
        assert_array_equal(atoms.pbc, original.pbc)
    if suffix in (".db", ".json"):
        assert check_structures(found)[0].charge == 1
        assert_array_equal(targets_from_atoms(found, ["dipole"])["dipole"], np.ones((3, 3)))


def test_selections_and_pickles(data, path):
    X = open_structures(path, path)
    assert len(X) == 80 and X.shape == (80,)
    assert X[-1].info["smiles"] == X[39].info["smiles"] == data[0][39].info["smiles"]
    part = X[np.array([False, True] * 40)][::2][[3, 5]]
    assert [a.info["smiles"] for a in part] == [data[0][i].info["smiles"] for i in (13, 21)]
    assert len(X[[]]) == 0
    small = pickle.dumps(X)
    assert len(small) < 5000
    assert pickle.loads(small)[60].info["smiles"] == data[0][20].info["smiles"]


def test_a_fit_is_that_of_structures_in_memory(data, path):
    X, y, groups = data
    lazy = open_structures(path)
    assert_array_equal(targets_from_atoms(lazy, {"energy": "charge"})["energy"], 0.0)
    expected, found = pipeline().fit(X, y), pipeline().fit(lazy, y)
    # Positions in the file are rounded to 1e-8.
    assert_allclose(found.predict(lazy)["dipole"], expected.predict(X)["dipole"], atol=1e-5)
    assert_allclose(found.score(lazy, y), expected.score(X, y), atol=1e-5)
    scores = [
        cross_val_score(pipeline(), data, y, groups=groups, cv=GroupKFold(2), error_score="raise")
        for data in (X, lazy)
    ]
    assert_allclose(*scores, atol=1e-4)
    charges = predict_charges(QEqRegressor().fit(lazy, y), lazy)
    assert [len(q) for q in charges] == [len(atoms) for atoms in X]


def test_any_sequence_is_read_one_by_one(data, path):
    X, y, _ = data

    class Reader:
        reads = 0

        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            self.reads += 1
            return X[i]

    reader = Reader()
    structures = collect(reader)
    assert structures.lazy and reader.reads == 0
    assert_array_equal(structures.sizes, [len(atoms) for atoms in X])
    part = structures[5:20][[2, 3]]
    assert_array_equal(part.numbers, np.concatenate([X[7].numbers, X[8].numbers]))
    assert reader.reads == len(X)  # A slice takes its metadata from all structures.
    assert part[1].digest == check_structures([X[8]])[0].digest
    expected = pipeline().fit(X, y["dipole"]).predict(X)
    assert_array_equal(pipeline().fit(reader, y["dipole"]).predict(reader), expected)


@pytest.mark.parametrize(("n_kept", "most"), [(10**9, 1), (10, 4), (0, 4)])
def test_few_reads(n_kept, most, data, monkeypatch):
    """A fit to dipoles reads few structures.

    One read is for the metadata, two are for the choice of environments, and the last one is for
    the fit.
    """
    X, y, _ = data
    sizes = [structure.n_bytes for structure in check_structures(X)]
    monkeypatch.setattr(_collection, "STORE_BYTES", sum(sizes[:n_kept]))
    counts = np.zeros(len(X), dtype=int)

    class Counting:
        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            counts[i] += 1
            return X[i]

    fitted = pipeline().fit(Counting(), y["dipole"])
    assert counts.max() <= most
    assert (counts[:n_kept] == 1).all()
    expected = pipeline().fit(X, y["dipole"])
    assert_array_equal(fitted[-1].coef_, expected[-1].coef_)


def test_what_was_read_does_not_travel(path):
    structures = collect(open_structures(path))
    small = len(pickle.dumps(structures))
    assert [structures[i] is structures[i] for i in range(len(structures))] == [True] * 40
    assert structures[3:][0] is structures[3]
    # A pickle contains the metadata, but no structures.
    assert len(pickle.dumps(structures)) - small < 40 * 100


def test_labels_of_atoms_are_checked(data, path):
    y = make_targets(charges=[*data[1]["charges"][:39], np.zeros(2)])
    with pytest.raises(ValueError, match=r"structure 39 \(.*\): charges has 2 values"):
        pipeline().fit(open_structures(path), y)


def test_unreadable_files(tmp_path, path, data):
    lines = path.read_text().splitlines(keepends=True)
    broken = tmp_path / "broken.xyz"
    with pytest.raises(ValueError, match="no such file"):
        open_structures(broken)
    with pytest.raises(ValueError, match="not a file"):
        open_structures(tmp_path)
    with pytest.raises(ValueError, match="needs at least one file"):
        open_structures()
    with pytest.raises(ValueError, match="unpack"):
        open_structures("molecules.xyz.gz")
    broken.write_text("")
    with pytest.raises(ValueError, match="holds no structures"):
        open_structures(broken)
    broken.write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match="ends in structure 39"):
        open_structures(broken)
    broken.write_text("".join(["x\n", *lines]))
    with pytest.raises(ValueError, match="line 1: 'x' is not the number"):
        open_structures(broken)
    for n_atoms in ("-3", "9" * 30):
        broken.write_text("".join([f"{n_atoms}\n", *lines[1:]]))
        with pytest.raises(ValueError, match="line 1: '-3'|ends in structure 0"):
            open_structures(broken)
    for columns in ("4" + "9" * 20, "400000000", "9999999"):
        # ASE would allocate a name for each column, which takes minutes or fills the memory.
        broken.write_text("".join(lines).replace("pos:R:3", f"pos:R:{columns}", 1))
        with pytest.raises(
            ValueError, match=rf"structure 0 .*(R:{columns}|4 of {int(columns) + 1} c)"
        ):
            open_structures(broken)[0]
    for name in ("broken.db", "broken.traj"):
        (tmp_path / name).write_text("nonsense")
        with pytest.raises(ValueError, match=f"cannot read .*{name}"):
            open_structures(tmp_path / name)
    second = 3 + len(data[0][0])  # the comment line of structure 1
    for line, what in (
        ("C nowhere 0 0\n", ""),
        ("C nan 0 0\n", "atom 0 has position x"),
    ):
        changed = list(lines)
        changed[second + 1] = line
        broken.write_text("".join(changed))
        with pytest.raises(ValueError, match=f"structure 1.*{what}"):
            pipeline().fit(open_structures(broken), data[1])
