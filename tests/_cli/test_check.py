"""``skqeq check`` on right and on wrong labels."""

import pytest
from ase.build import molecule
from ase.io import write
from ase.units import Debye

from skqeq.cli import main

from .common import error_of, labelled, with_energies


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("", 0, "dipole of charges         ok               21         1 times"),
        ("--unit dipole=debye", 1, "perhaps the unit Debye was given"),
        ("--unit dipole=-1 --targets dipole charges", 1, "a unit of -1 reverses their sign"),
        ("--unit charges=-1", 1, "sign of charges           warning"),
        ("--targets dipole --key dipole=debye --unit dipole=DEBYE", 0, "size of dipoles"),
        ("--targets dipole charges --key dipole=debye", 1, "use the unit dipole=debye"),
    ],
)
def test_units_of_dipoles(tmp_path, capsys, options, code, message):
    X = labelled()
    for atoms in X:
        atoms.info["debye"] = atoms.info["REF_dipole"] / Debye
    write(tmp_path / "train.xyz", X)
    assert main(["check", f"{tmp_path}/train.xyz", *options.split()]) == code
    out = capsys.readouterr().out
    assert message in out or message in " ".join(out.split())


@pytest.mark.parametrize(("unit", "code"), [("eV/Angstrom", 0), ("-1", 1), ("Hartree/bohr", 1)])
def test_units_of_forces(tmp_path, capsys, unit, code):
    write(tmp_path / "train.xyz", with_energies(labelled(12, ("H2O", "CH4"))))
    argv = ["check", f"{tmp_path}/train.xyz", "--targets", "energy", "forces"]
    assert main([*argv, "--unit", f"forces={unit}"]) == code
    assert ("forces and energies       warning" in capsys.readouterr().out) == bool(code)


def test_files_without_labels(tmp_path, capsys):
    write(tmp_path / "bare.xyz", [molecule("C6H6"), molecule("C6H6")[:6]])
    assert main(["check", f"{tmp_path}/bare.xyz@0"]) == 0
    out, error = capsys.readouterr()
    assert out.startswith("1 structure of ")
    assert "no labels: no structure has labels" in out and not error
    assert main(["check", f"{tmp_path}/bare.xyz"]) == 1
    out, error = capsys.readouterr()
    assert "hydrogen atoms            warning           1      1" in out and not error
    message = error_of(capsys, "check", tmp_path / "bare.xyz", "--unit", "dipole=debye")
    assert "no structure has labels" in message


def test_total_charge_under_another_key(tmp_path, capsys):
    X = labelled()
    for atoms in X:
        atoms.info["net_charge"] = 1
        atoms.arrays["REF_charges"] += 1.0 / len(atoms)
    write(tmp_path / "ions.xyz", X)
    argv = ["check", f"{tmp_path}/ions.xyz", "--targets", "charges"]
    assert main(argv) == 1
    out = capsys.readouterr().out
    assert "total charge              warning" in out and "sum of charges            warning" in out
    assert main([*argv, "--charge-key", "net_charge"]) == 0


def test_gradients_are_learned_as_forces(tmp_path, capsys):
    X = with_energies(labelled(8, ("H2O", "CH4")))
    write(tmp_path / "forces.xyz", X)
    for atoms in X:
        atoms.arrays["gradient"] = -atoms.arrays.pop("REF_forces") * 2.0
    write(tmp_path / "gradients.xyz", X)
    outputs = []
    for name, extra in (("forces", ""), ("gradients", "--key forces=gradient --unit forces=-0.5")):
        assert main(["check", f"{tmp_path}/{name}.xyz", *extra.split()]) == 0
        lines = capsys.readouterr().out.splitlines()
        outputs.append([line for line in lines if line.startswith(("labels", "forces and"))])
    assert outputs[0] == outputs[1]
    assert outputs[0][1].startswith("forces and energies       ok")
