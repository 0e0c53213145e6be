"""Outputs have the format of their ending, and never replace an input."""

import os

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from skqeq import load, save, targets_from_atoms
from skqeq._cli.files import load_model
from skqeq._cli.outputs import WRITERS
from skqeq.cli import main
from skqeq.datasets import open_structures

from .common import SMALL, error_of, labelled, leftovers


@pytest.mark.parametrize("suffix", [*WRITERS, ".XYZ", ".Traj"])
def test_the_ending_decides_the_format(folder, tmp_path, suffix):
    X = labelled(1)[:4]
    X[1].info["charge"] = 1
    forces = np.ones((len(X[2]), 3))
    X[2].calc = SinglePointCalculator(X[2], energy=-3.0, forces=forces, dipole=[0.0, 0.0, 1.0])
    X[3].info["note"] = "from last week"
    write(tmp_path / "in.xyz", X)
    out, plain = tmp_path / f"out{suffix}", tmp_path / "plain.xyz"
    for path in (out, plain):
        argv = ["predict", f"{folder}/model.skqeq", f"{tmp_path}/in.xyz", "-q", "-o", str(path)]
        assert main(argv) == 0
    assert not leftovers(tmp_path)
    packed = suffix.endswith((".gz", ".bz2", ".xz"))
    found = read(out, ":") if packed else open_structures(out)
    for atoms, expected in zip(found, read(plain, ":"), strict=True):
        np.testing.assert_allclose(atoms.positions, expected.positions, atol=1e-7)
        charges = expected.get_initial_charges()
        np.testing.assert_allclose(atoms.get_initial_charges(), charges, atol=1e-7)
        assert atoms.calc.results.keys() == expected.calc.results.keys()
        for name, value in expected.calc.results.items():
            np.testing.assert_allclose(atoms.calc.results[name], value, atol=1e-7)
        assert atoms.info.get("note") == expected.info.get("note")
        assert atoms.info.get("charge") == expected.info.get("charge")
        assert atoms.info["family"] == expected.info["family"]
    assert found[2].get_potential_energy() == -3.0
    # Labels per atom are found in the output of every format.
    labels = targets_from_atoms(found, ["charges"])["charges"]
    for q, atoms in zip(labels, X, strict=True):
        np.testing.assert_allclose(q, atoms.arrays["REF_charges"], atol=1e-7)


@pytest.mark.parametrize("suffix", [".traj", ".db"])
def test_crystals_from_cif_in_all_formats(folder, tmp_path, suffix):
    crystal = bulk("CO", "zincblende", a=5.0)
    write(tmp_path / "in.cif", crystal)
    argv = ["predict", f"{folder}/model.skqeq", f"{tmp_path}/in.cif", "-q"]
    assert main([*argv, "-o", f"{tmp_path}/out{suffix}"]) == 0
    [atoms] = open_structures(tmp_path / f"out{suffix}")
    assert atoms.pbc.all()
    np.testing.assert_allclose(atoms.get_charges().sum(), 0.0, atol=1e-9)


@pytest.mark.parametrize(
    "name", ["out.vasp", "out.cif", "out", "out.traj.gz", "out.json", "out.txt"]
)
def test_predict_refuses_other_endings_before_it_loads_the_model(tmp_path, capsys, name):
    write(tmp_path / "in.xyz", molecule("H2O"))
    message = error_of(capsys, "predict", "no.skqeq", tmp_path / "in.xyz", "-o", tmp_path / name)
    assert f"{name} must end in .xyz, .extxyz, " in message
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["m.xyz", "m", "m.traj", "m.skqeq.bak", "m.npz"])
def test_fit_refuses_names_that_are_no_names_of_models(tmp_path, capsys, name):
    message = error_of(capsys, "fit", "none.xyz", "-o", tmp_path / name, *SMALL)
    assert f"{name} must end in .skqeq, .joblib" in message


@pytest.mark.parametrize("name", ["m.skqeq", "M.SKQEQ", "m.joblib", "m.pkl", "m.joblib.gz"])
def test_fit_writes_models_under_names_of_models(folder, tmp_path, name):
    argv = ["fit", f"{folder}/train.xyz@:6", "-o", f"{tmp_path}/{name}", *SMALL, "-q"]
    argv += ["--n-points", "4"]
    assert main(argv) == 0
    if name.lower().endswith(".skqeq"):
        load(tmp_path / name)
    else:
        load_model(str(tmp_path / name), allow_pickle=True)


@pytest.mark.parametrize("link", ["same", "relative", "symbolic", "hard", "slice", "of the link"])
@pytest.mark.parametrize("command", ["fit", "predict", "evaluate", "predict the model"])
def test_no_output_replaces_an_input(folder, tmp_path, capsys, monkeypatch, command, link):
    """An input is recognised even if the output names it by another path or by a link."""
    suffix = {"fit": ".skqeq", "evaluate": ".png"}.get(command, ".xyz")
    data, other = tmp_path / f"data{suffix}", tmp_path / f"other{suffix}"
    data.write_text((folder / "train.xyz").read_text())
    before = data.read_bytes()
    {
        "symbolic": lambda: other.symlink_to(data),
        "hard": lambda: os.link(data, other),
        "of the link": lambda: other.symlink_to(data),
    }.get(link, lambda: None)()
    monkeypatch.chdir(tmp_path)
    given = {"slice": f"{data}@:3", "of the link": other}.get(link, data)
    output = {"relative": data.name, "symbolic": other, "hard": other}.get(link, data)
    argv = {
        "fit": ["fit", given, "-o", output],
        "predict": ["predict", f"{folder}/model.skqeq", given, "-o", output],
        "evaluate": ["evaluate", f"{folder}/model.skqeq", given, "--plot", output],
        "predict the model": ["predict", given, f"{folder}/train.xyz", "-o", output],
    }[command]
    if command == "predict the model" and link == "slice":
        pytest.skip("a slice selects structures of a file, and a model has none")
    message = error_of(capsys, *argv, "-q")
    assert f"is the input {given}" in message or f"is the input {data}" in message
    assert data.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == sorted({data, other} & set(tmp_path.iterdir()))


def test_evaluate_refuses_a_figure_that_matplotlib_cannot_write(folder, tmp_path, capsys):
    argv = ["evaluate", folder / "model.skqeq", folder / "train.xyz", "-q", "--plot"]
    assert ".pdf, .pgf, .png" in error_of(capsys, *argv, tmp_path / "parity.xyz")


@pytest.mark.parametrize("target", ["file", "folder", "link"])
def test_read_only_outputs_are_refused_before_anything_runs(tmp_path, capsys, monkeypatch, target):
    output, link = tmp_path / "m.skqeq", tmp_path / "link.skqeq"
    if target != "folder":
        output.write_text("old")
        output.chmod(0o400)
        link.symlink_to(output)
    # The superuser, who often runs these tests in containers, can write to all files.
    protected = tmp_path if target == "folder" else output
    access = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: not os.path.samefile(path, protected) and access(path, mode),
    )
    with pytest.raises(SystemExit) as stop:
        main(["fit", "none.xyz", "-o", str(link if target == "link" else output)])
    assert stop.value.code == 2
    assert "read-only" in capsys.readouterr().err


def test_outputs_beside_inputs_are_written(folder, tmp_path):
    """A file whose name differs from that of an input only in case can be an output."""
    write(tmp_path / "a.xyz", labelled(1)[:2])
    model = load_model(str(folder / "model.skqeq"))
    save(model, tmp_path / "a.skqeq")
    (tmp_path / "A.xyz").write_text("old")
    if (tmp_path / "a.xyz").read_text() == "old":
        pytest.skip("this file system ignores the case of file names")
    argv = ["predict", f"{tmp_path}/a.skqeq", f"{tmp_path}/a.xyz", "-q", "-o", f"{tmp_path}/A.xyz"]
    assert main(argv) == 0
    assert len(read(tmp_path / "A.xyz", ":")) == 2
