"""QM9: conversion of a package of six molecules, and a part of the real one if it is installed."""

import csv
import hashlib
from importlib.util import find_spec

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer, targets_from_atoms
from skqeq.datasets import _qm9, fetch_qm9, open_structures
from skqeq.datasets._graphs import graph_number, heavy_graph

HEADER = (
    "XYZ_file,Index,SMILES,N_atoms,Elements,XYZ_Ang,Mulliken_pop,Dipole_debye,"
    "Polarizability_bohr3,ZPVE_au,InternalEnergy_0K_au\n"
)
# Methane, ammonia and water of QM9, with less digits, and made-up numbers in other notations.
PARTS = {
    "qm9_part1.csv": """\
"1.xyz",1,"C",5,"['C','H','H','H','H']","[[-0.0127,1.0858,0.008],[0.0022,-.006,0.002],\
[1.0117,1.4638,0.0003],[-0.5408,1.4475,-0.8766],[-0.5238,1.4379,0.9064]]",\
"[-0.535689,0.133921,0.133922,0.133923,0.133923]",0.,13.21,0.044749,-40.47893
"2.xyz",2,"N",4,"['N','H','H','H']","[[-0.0404,1.0241,0.0626],[0.0173,0.0125,-0.0274],\
[0.9158,1.3587,-0.0288],[-0.5203,1.3435,-0.7755]]","[-0.707143,0.235712,0.235712,0.23572]",\
1.6256,9.46,0.034358,-56.525887
""",
    "qm9_part2.csv": """\
"3.xyz",3,"O",3,"['O','H','H']","[[-0.0343604951,0.9775395708,7.6015923*^-3],[.0647664923,\
2.05721989*^-2,1.5346341*^-3],[0.8717903737,1.3007924048,6.931336*^-4]]",\
"[-0.589706,0.294853,0.294853]",1.8511,6.31,0.021375,-76.404702
""",
    "qm9_part3.csv": """\
"14.xyz",14,"CCO",3,"['C','C','O']","[[0.,0.,0.],[1.5,0.,0.],[2.,1.3,0.]]","[.1,.2,-.3]",\
1.5,31.3,0.08,-154.9
"15.xyz",15,"COC",3,"['C','O','C']","[[0.,0.,0.],[1.4,0.,0.],[2.,1.2,0.]]","[.1,-.2,.1]",\
1.3,28.3,0.08,-154.9
"17.xyz",17,"O=CC",3,"['O','C','C']","[[0.,0.,0.],[1.2,0.,0.],[2.,1.2,0.]]","[-.2,.1,.1]",\
2.7,25.,0.06,-153.8
""",
}
SMILES = [
    "CC(=O)N1CC1C#N",
    "C1C2CC1=C2",
    "Fc1cnoc1C",
    "[NH3+]CC([O-])=O",
    "C12C3C4C1N2C34",
    "c1cn[nH]c1",
]
# As in the package, the tensors of ammonia and water are not in the axes of the coordinates.
TENSORS = """\
XYZ_file,A_xx,A_xy,A_yy,A_xz,A_yz,A_zz
"1.xyz",13.211,0.000,13.211,0.000,0.000,13.211
"17.xyz",25.,0.,25.,0.,0.,25.
"2.xyz",10.439,0.000,10.438,0.000,0.000,7.504
"3.xyz",4.492,0.000,8.049,0.000,0.000,6.398
"14.xyz",31.311,0.470,27.036,0.001,0.000,25.265
"15.xyz",32.985,0.1,25.517,0.2,0.3,25.881
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package qm9pack of six molecules, and the folder of its data."""
    folder = tmp_path / "site" / "qm9pack" / "data"
    folder.mkdir(parents=True)
    # The package cannot be imported, and need not be imported.
    (folder.parent / "__init__.py").write_text("import pkg_resources_of_old_setuptools")
    texts = {name: HEADER + text for name, text in PARTS.items()} | {_qm9.TENSORS: TENSORS}
    for name, text in texts.items():
        (folder / name).write_text(text, newline="\n")
        checksum = hashlib.sha256(text.encode()).hexdigest()
        monkeypatch.setitem(_qm9.CHECKSUMS, name, checksum)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def qm9(package, home):
    return fetch_qm9(data_home=home)


def test_structures_are_read_by_index(qm9, home):
    assert len(qm9.X) == 6 and qm9.X[2].get_chemical_symbols() == ["O", "H", "H"]
    # Numbers such as .5 and 7.6*^-3 are read with all digits.
    assert qm9.X[2].positions[:2].tolist() == [
        [-0.0343604951, 0.9775395708, 0.0076015923],
        [0.0647664923, 0.0205721989, 0.0015346341],
    ]
    assert qm9.X[5].info["smiles"] == "O=CC" and qm9.X[5].info["charge"] == 0
    assert [atoms.info["qm9_index"] for atoms in qm9.X] == [1, 2, 3, 14, 15, 17]
    assert qm9.qm9_index.tolist() == [1, 2, 3, 14, 15, 17]
    assert qm9.smiles.tolist() == [atoms.info["smiles"] for atoms in qm9.X]
    assert qm9.groups.tolist() == [atoms.info["group"] for atoms in qm9.X]
    # The converted files are ordinary extended XYZ.
    X = open_structures(*sorted((home / "qm9").glob("*.xyz")))
    assert [a == b for a, b in zip(X, qm9.X)] == [True] * 6


def test_labels_have_the_units_of_skqeq(qm9):
    assert qm9.y.dtype.names == ("dipole_magnitude", "charges", "energy")
    # 1 D = 0.2081943 e*Angstrom, 1 Hartree = 27.211386 eV, 1 Bohr^3 = 0.14818471 Angstrom^3.
    assert qm9.y["dipole_magnitude"][:3] == pytest.approx(
        [0, 1.6256 * 0.2081943, 1.8511 * 0.2081943], abs=1e-6
    )
    # The total energy of methane without the zero-point energy.
    assert qm9.y["energy"][0] == pytest.approx(-40.523679 * 27.211386, abs=1e-4)
    assert qm9.y["charges"][1].tolist() == [-0.707143, 0.235712, 0.235712, 0.23572]
    assert [q.shape for q in qm9.y["charges"]] == [(len(atoms),) for atoms in qm9.X]
    values = qm9.polarizability_eigenvalues
    assert values[2] == pytest.approx(np.array([4.492, 6.398, 8.049]) * 0.14818471, abs=1e-6)
    isotropic = np.array([13.21, 9.46, 6.31, 27.87, 28.13, 25]) * 0.14818471
    assert values.mean(axis=1) == pytest.approx(isotropic, abs=2e-3)


def test_tensors_are_symmetric_and_have_the_eigenvalues(qm9):
    tensors = qm9.polarizability_in_standard_orientation
    expected = np.array([[32.985, 0.1, 0.2], [0.1, 25.517, 0.3], [0.2, 0.3, 25.881]])
    assert tensors[4] == pytest.approx(expected * 0.14818471, abs=1e-6)
    assert np.linalg.eigvalsh(tensors) == pytest.approx(qm9.polarizability_eigenvalues)


def test_labels_are_found_in_the_structures(qm9):
    y = targets_from_atoms(qm9.X, ["dipole_magnitude", "charges", "energy"])
    assert y["energy"] == pytest.approx(qm9.y["energy"], abs=1e-7)
    assert y["dipole_magnitude"] == pytest.approx(qm9.y["dipole_magnitude"], abs=1e-7)
    assert np.concatenate(y["charges"]) == pytest.approx(np.concatenate(qm9.y["charges"]))


def test_model_of_structures_in_files(qm9):
    soap = SOAPFeaturizer(r_cut=2.0, n_max=2, l_max=1)
    model = make_pipeline(soap, CURSparsifier(n_points=1), KQEqRegressor(sigma_charges=1e-4))
    y = qm9.y[["charges"]][:3]
    charges = model.fit(qm9.X[:3], y).predict(qm9.X[:3])["charges"]
    assert np.concatenate(charges) == pytest.approx(np.concatenate(y["charges"]), abs=0.02)


def test_random_selection(package, home):
    everything = fetch_qm9(data_home=home)
    four = fetch_qm9(data_home=home, n_molecules=4)
    two = fetch_qm9(data_home=home, n_molecules=2)
    assert len(set(four.qm9_index.tolist())) == 4
    assert two.smiles.tolist() == four.smiles[:2].tolist()
    for i, number in enumerate(four.qm9_index):
        place = everything.qm9_index.tolist().index(number)
        assert four.X[i] == everything.X[place]
        for key in ("energy", "dipole_magnitude"):
            assert four.y[key][i] == everything.y[key][place]
        assert four.y["charges"][i].tolist() == everything.y["charges"][place].tolist()
        for key in ("groups", "polarizability_eigenvalues"):
            assert np.array_equal(four[key][i], everything[key][place])
    others = [fetch_qm9(data_home=home, n_molecules=4, random_state=i) for i in range(5)]
    assert len({tuple(other.qm9_index.tolist()) for other in others}) > 1
    for n_molecules in (0, 7):
        with pytest.raises(ValueError, match=f"between 1 and 6, got {n_molecules}"):
            fetch_qm9(data_home=home, n_molecules=n_molecules)


def test_converted_files_need_no_package(qm9, home, monkeypatch):
    monkeypatch.setattr(_qm9, "find_spec", lambda name: None)
    assert fetch_qm9(data_home=str(home)).X[0] == qm9.X[0]


def test_no_package(home, monkeypatch):
    monkeypatch.setattr(_qm9, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps qm9pack==1.0.3"):
        fetch_qm9(data_home=home)
    assert not home.exists()


@pytest.mark.parametrize("name", ["qm9_part2.csv", "qm9_polarizability.csv"])
def test_another_version_is_refused(package, home, name):
    text = (package / name).read_text()
    (package / name).write_text(text.replace("6.398", "6.399").replace("1.8511", "1.8512"))
    with pytest.raises(ValueError, match=rf"{name} is not the file of qm9pack 1\.0\.3"):
        fetch_qm9(data_home=home)
    (package / name).unlink()
    with pytest.raises(ValueError, match=rf"{name} is not the file of qm9pack 1\.0\.3"):
        fetch_qm9(data_home=home)
    assert not home.exists()


def test_an_interrupted_conversion_continues(package, home, monkeypatch):
    frames, make_frame = [], _qm9._frame

    def interrupted(columns):
        if len(frames) == 4:
            raise KeyboardInterrupt
        frames.append(columns["qm9_index"])
        return make_frame(columns)

    monkeypatch.setattr(_qm9, "_frame", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_qm9(data_home=home)
    complete = ["qm9_part1.npz", "qm9_part1.xyz", "qm9_part2.npz", "qm9_part2.xyz"]
    assert sorted(path.name for path in (home / "qm9").iterdir()) == complete
    frames[:] = []
    assert fetch_qm9(data_home=home).qm9_index.tolist() == [1, 2, 3, 14, 15, 17]
    assert frames == [14, 15, 17]


def test_a_changed_file_is_noticed(qm9, home):
    path = home / "qm9" / "qm9_part2.xyz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"qm9_part2\.xyz was changed: delete the folder"):
        fetch_qm9(data_home=home)
    path.unlink()
    with pytest.raises(ValueError, match=r"qm9_part2\.xyz was changed: delete the folder"):
        fetch_qm9(data_home=home)


def test_files_of_another_format_are_converted_again(qm9, home, monkeypatch):
    monkeypatch.setattr(_qm9, "FORMAT", _qm9.FORMAT + 1)
    monkeypatch.setattr(_qm9, "DEBYE", 1.0)
    assert fetch_qm9(data_home=home).y["dipole_magnitude"][2] == 1.8511


def test_progress_bar(package, home, capfd):
    fetch_qm9(data_home=home, verbose=1)
    assert "QM9" in capfd.readouterr().err
    fetch_qm9(data_home=home / "other")
    assert not capfd.readouterr().err


def test_heavy_graphs():
    assert heavy_graph("C1C2CC1=C2[NH3+]") == (
        list("CCCCCN"),
        [[1, 3], [0, 2, 4], [1, 3], [2, 0, 4], [3, 1, 5], [4]],
    )
    assert heavy_graph("C%12C(N)(F)c%12") == (
        list("CCNFC"),
        [[1, 4], [0, 2, 3, 4], [1], [1], [1, 0]],
    )
    assert heavy_graph("[H]OC.[13CH3]Cl") == (["O", "C", "C", "Cl"], [[1], [0], [3], [2]])


@pytest.mark.parametrize("smiles", ["", "C(", "C)", "C1CC", "C?", "C*"])
def test_unreadable_smiles(smiles):
    with pytest.raises(ValueError, match=r"SMILES|cannot be read|branch"):
        heavy_graph(smiles)


def test_groups_are_heavy_atom_graphs(qm9):
    ethanol, ether, ethanal = qm9.groups[3:]
    assert ethanol == ethanal != ether and len(set(qm9.groups.tolist())) == 5
    same = [("OC(=O)C1CN1", "C1C([NH2+]1)C(O)[O-]"), ("c1cnoc1", "C1CNOC1"), ("N#CC", "CC=N")]
    for a, b in same:
        assert graph_number(a) == graph_number(b)
    other = [("CCCO", "CC(O)C"), ("C1CCC1C", "CC1CC1C"), ("CCN", "CCO"), ("CCCN", "CCNC")]
    for a, b in other:
        assert graph_number(a) != graph_number(b)
    # The number is stored in files, so that it must not change.
    assert graph_number("CCO") == ethanol == 53784274404691


def test_groups_agree_with_rdkit():
    Chem = pytest.importorskip("rdkit.Chem")
    for smiles in SMILES:
        molecule, expected = Chem.MolFromSmiles(smiles), graph_number(smiles)
        numbers = {
            graph_number(Chem.MolToSmiles(molecule, doRandom=True, kekuleSmiles=bool(i % 2)))
            for i in range(20)
        }
        assert numbers == {expected}
        elements, neighbors = heavy_graph(smiles)
        assert elements == [atom.GetSymbol() for atom in molecule.GetAtoms()]
        for atom, near in zip(molecule.GetAtoms(), neighbors):
            assert sorted(near) == sorted(other.GetIdx() for other in atom.GetNeighbors())


@pytest.mark.skipif(find_spec("qm9pack") is None, reason="qm9pack is not installed")
def test_the_real_package():
    folder = _qm9._package_folder()
    for name, checksum in _qm9.CHECKSUMS.items():
        _qm9._check_file(folder / name, checksum)
    tensors = _qm9._read_tensors(folder)
    assert len(tensors) == 130831
    for name in _qm9.PARTS:
        with open(folder / name, newline="") as file:
            for _, row in zip(range(300), csv.DictReader(file)):
                columns = _qm9._columns(row, tensors)
                assert len(columns["charges"]) == len(columns["symbols"]) == int(row["N_atoms"])
                assert abs(columns["charges"].sum()) < 1e-5
                isotropic = float(row["Polarizability_bohr3"]) * 0.14818471
                assert abs(columns["polarizability_eigenvalues"].mean() - isotropic) < 1e-3
                # Energies of the atoms in QM9's file atomref.txt, Hartree.
                energies = [-0.500273, -37.846772, -54.583861, -75.064579, -99.718730]
                atoms = dict(zip("HCNOF", energies))
                binding = 27.211386 * sum(atoms[s] for s in columns["symbols"]) - columns["energy"]
                assert 2 < binding / len(columns["symbols"]) < 8
