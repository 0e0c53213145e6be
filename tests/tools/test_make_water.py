"""``tools/make_water.py``: the physics of its labels, and continuation of interrupted runs."""

import gc
import warnings
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

pytestmark = pytest.mark.once

pytest.importorskip("tblite")
pytest.importorskip("pyscf")


@pytest.fixture(scope="module")
def maker():
    path = Path(__file__).parents[2] / "tools" / "make_water.py"
    spec = spec_from_file_location("make_water", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pyscf_files():
    """Close the temporary files that PySCF leaves open, without a warning."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def cluster(maker, n_molecules, charge):
    atoms = maker.packed(n_molecules, charge, np.random.default_rng(0))
    atoms.info = {"charge": charge, "external_field": np.array([0.08, -0.1, 0.05])}
    return atoms


@pytest.mark.parametrize("charge", [-1, 0, 1])
def test_labels_of_gfn2(maker, charge):
    errors = maker.check(maker.gfn2, cluster(maker, 3, charge))
    assert max(errors.values()) < 5e-4, errors


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_labels_of_pbe0(maker, monkeypatch, pyscf_files):
    # Errors in the terms of the field would appear in any basis; this one is fast.
    monkeypatch.setattr(maker, "BASIS", "STO-3G")
    maker.free_atoms.cache_clear()
    errors = maker.check(maker.pbe0, cluster(maker, 1, -1))
    maker.free_atoms.cache_clear()
    assert errors.pop("sum of forces (eV/A)") < 5e-3
    assert max(errors.values()) < 2e-3, errors


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_free_atoms_are_spherical_and_neutral(maker, monkeypatch, pyscf_files):
    monkeypatch.setattr(maker, "BASIS", "def2-SVP")
    for symbol, electrons in (("H", 1), ("O", 8)):
        molecule, density = maker.free_atom(symbol)
        assert abs(np.sum(density * molecule.intor("int1e_ovlp")) - electrons) < 1e-6
        values = molecule.eval_gto("GTOval_sph", 1.3 * np.vstack([np.eye(3), [[0.6, 0.0, 0.8]]]))
        rho = np.einsum("pi,ij,pj->p", values, density, values)
        assert np.ptp(rho) < 1e-10 * rho.max()


def test_expansion_moves_rigid_molecules(maker):
    atoms = maker.packed(5, 1, np.random.default_rng(1))
    molecule = maker.molecules(atoms)
    copy, factor = maker.expanded(atoms, molecule, np.random.default_rng(1))
    assert 0.9 <= factor <= 5 and factor != 1
    same = molecule[:, None] == molecule
    before, after = atoms.get_all_distances(), copy.get_all_distances()
    assert np.allclose(before[same], after[same])
    np.testing.assert_allclose(copy.get_center_of_mass(), atoms.get_center_of_mass(), atol=1e-12)
    centres = [
        [a[molecule == i].get_center_of_mass() - a.get_center_of_mass() for i in range(5)]
        for a in (atoms, copy)
    ]
    np.testing.assert_allclose(centres[1], factor * np.array(centres[0]))


def test_interrupted_run_continues_and_writes_the_same_bytes(maker, tmp_path, monkeypatch):
    monkeypatch.setattr(maker, "WARM_UP", 2)
    monkeypatch.setattr(maker, "SNAPSHOTS", 3)
    monkeypatch.setattr(maker, "SPACING", 1)
    todo = [maker.Job(i, 3, charge, 0) for i, charge in enumerate([0, 1])]
    journal = tmp_path / "journal.jsonl"
    maker.run(todo[:1], journal, maker.SETTINGS, maker.calculate)
    with journal.open("a") as file:
        file.write('\n{"job": [1, 3')
    maker.run(todo, journal, maker.SETTINGS, maker.calculate)
    entries = maker.read_journal(journal, maker.SETTINGS)
    assert list(entries) == todo
    assert maker.read_journal(journal, [*maker.SETTINGS, "other"]) == {}
    for name in ("once", "twice"):
        maker.write_gzip(tmp_path / f"{name}.xyz.gz", maker.images(todo, entries))
    content = [(tmp_path / f"{name}.xyz.gz").read_bytes() for name in ("once", "twice")]
    assert content[0] == content[1]
    written = read(tmp_path / "once.xyz.gz", index=":")
    assert len(written) >= 6 and all("REF_forces" in atoms.arrays for atoms in written)
