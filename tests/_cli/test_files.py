from pathlib import Path

import joblib
import numpy as np
import pytest
from ase.io import iread, read, write
from sklearn.linear_model import Ridge

from skqeq import KQEqRegressor, load, predict_charges, save
from skqeq._cli import files
from skqeq.cli import main

from .. import helpers
from .common import SMALL, error_of, labelled


def test_interrupted_save_keeps_the_old_model(tmp_path, monkeypatch):
    path = tmp_path / "model.joblib"
    path.write_text("old")

    def dump(model, target):
        target.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(joblib, "dump", dump)
    with pytest.raises(KeyboardInterrupt):
        files.save_model(KQEqRegressor(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.joblib"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize(
    "model, structures, message",
    [
        ("nothing.skqeq", "train.xyz", "cannot read {0}/nothing.skqeq: No such file"),
        (
            "train.xyz",
            "train.xyz",
            "train.xyz is not a model file of skqeq.save; if",
        ),
        ("ridge.skqeq", "train.xyz", "holds no fitted charge model: Ridge is"),
        ("model.skqeq", "nothing.xyz", "cannot read {0}/nothing.xyz: no such file"),
        ("model.skqeq", "text.xyz", "{0}/text.xyz, line 1: 'this is' is not the number"),
        ("model.skqeq", "empty.xyz", "{0}/empty.xyz"),
        ("model.skqeq", "cut.xyz", "{0}/cut.xyz ends in structure 1"),
        ("model.skqeq", "cut.xyz@:", "{0}/cut.xyz ends in structure 1"),
    ],
)
def test_bad_files(folder, tmp_path, capsys, command, model, structures, message):
    save(Ridge().fit([[0.0]], [0.0]), folder / "ridge.skqeq")
    (folder / "text.xyz").write_text("this is\nno structure\n")
    (folder / "empty.xyz").write_text("")
    whole = (folder / "train.xyz").read_text().splitlines()
    (folder / "cut.xyz").write_text("\n".join(whole[:8]) + "\n")
    argv = [command, folder / model, folder / structures, "-q"]
    argv += ["-o", tmp_path / "out.xyz"] if command == "predict" else []
    assert message.format(folder) in error_of(capsys, *argv)
    assert not list(tmp_path.iterdir())


class Canary:
    """Creates a file when it is loaded from a pickle."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["m.skqeq", "M.SKQEQ", "m.joblib", "m", "m.joblib.gz"])
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_pickles_are_not_loaded_without_permission(folder, tmp_path, capsys, name, command):
    joblib.dump(Canary(tmp_path / "executed"), tmp_path / name, compress=name.endswith("gz"))
    argv = [command, tmp_path / name, folder / "train.xyz", "-q"]
    argv += ["-o", tmp_path / "out.xyz"] if command == "predict" else []
    assert "use --allow-pickle, but only if you trust it" in error_of(capsys, *argv)
    assert not (tmp_path / "executed").exists()
    assert "holds no fitted charge model" in error_of(capsys, *argv, "--allow-pickle")
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["m.joblib", "M.SKQEQ", "m"])
def test_the_content_of_a_model_file_decides_how_it_is_loaded(folder, tmp_path, capsys, name):
    (tmp_path / name).write_bytes((folder / "model.skqeq").read_bytes())
    assert main(["evaluate", str(tmp_path / name), f"{folder}/train.xyz@:3"]) == 0
    (tmp_path / name).write_bytes((folder / "model.skqeq").read_bytes()[:-100])
    message = error_of(capsys, "evaluate", tmp_path / name, folder / "train.xyz", "--allow-pickle")
    assert "was not written by skqeq.save, or is damaged" in message


def test_pickles_are_loaded_with_permission(folder, tmp_path):
    joblib.dump(load(folder / "model.skqeq"), tmp_path / "m.skqeq")
    argv = ["evaluate", f"{tmp_path}/m.skqeq", f"{folder}/train.xyz@:3"]
    assert main([*argv, "--allow-pickle"]) == 0
    (tmp_path / "m.skqeq").write_bytes((tmp_path / "m.skqeq").read_bytes()[:-100])
    assert main([*argv, "--allow-pickle"]) == 2


@pytest.fixture
def ions(tmp_path):
    """Labelled cations, whose total charge has a name that models do not read."""
    X = labelled(1)
    for atoms in X:
        atoms.info["net_charge"] = 1
        atoms.arrays["REF_charges"] += 1.0 / len(atoms)
    write(tmp_path / "ions.xyz", X)
    return tmp_path / "ions.xyz"


def test_charge_key(ions, tmp_path, capsys):
    model, out = str(tmp_path / "model.skqeq"), tmp_path / "out.xyz"
    targets = ["--targets", "charges"]
    key = ["--charge-key", "net_charge"]
    assert main(["fit", str(ions), "-o", model, "-q", *targets, *SMALL[:-1], "2", *key]) == 0
    assert main(["evaluate", model, str(ions), "-q", *targets, *key]) == 0
    assert main(["predict", model, str(ions), "-o", str(out), "-q", *key]) == 0
    assert "net_charge" not in capsys.readouterr().err
    for atoms in read(out, ":"):
        assert atoms.info["charge"] == 1
        assert atoms.get_charges().sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.filterwarnings("default")
def test_total_charges_under_another_key_are_noticed(folder, ions, tmp_path, capsys):
    argv = ["predict", folder / "model.skqeq", ions, "-o", tmp_path / "out.xyz", "-q"]
    assert main([str(a) for a in argv]) == 0
    warning = capsys.readouterr().err
    assert "structure 0 (H2O), and 6 other structures: info['net_charge'] = 1" in warning
    assert warning.count("--charge-key net_charge") == 1


def test_charge_key_that_is_missing(folder, ions, capsys):
    argv = ["evaluate", folder / "model.skqeq", ions, "--charge-key", "Qtot", "-q"]
    assert "structure 0 (OH2): has no info['Qtot']" in error_of(capsys, *argv)


SALT = "Na1 Na 0 0 0 0.9\nCl1 Cl 0.5 0 0 -0.9"


@pytest.mark.parametrize("name", ["salt.cif", "salt.CIF"])
@pytest.mark.parametrize("key", [[], ["--key", "charges=_atom_site_charge"]])
def test_charges_in_cif(tmp_path, capsys, name, key):
    (tmp_path / name).write_text(helpers.cif(SALT, group="F m -3 m", column="charge"))
    model, path = str(tmp_path / "model.skqeq"), str(tmp_path / name)
    targets = ["--targets", "charges", *key, "-q"]
    assert main(["fit", path, "-o", model, *targets, *SMALL[:-1], "1"]) == 0
    assert main(["evaluate", model, path, *targets]) == 0
    errors = capsys.readouterr().out.splitlines()
    assert any("charges" in line for line in errors)
    [charges] = predict_charges(load(model), list(iread(path)))
    assert charges == pytest.approx([0.9] * 4 + [-0.9] * 4, abs=1e-2)


def test_labels_that_evaluate_cannot_read_are_no_missing_labels(folder, tmp_path, capsys):
    X = labelled(1)
    X[2].info["REF_dipole"] = np.array([0.1, 0.2])
    write(tmp_path / "x.xyz", X)
    message = error_of(capsys, "evaluate", folder / "model.skqeq", tmp_path / "x.xyz", "-q")
    assert "structure 2: dipole must be shape (3,), got shape (2,)" in message
