import re
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write

from skqeq import load, make_targets, predict_stress, predict_target, targets_from_atoms
from skqeq._cli.evaluate import parity_panels
from skqeq.cli import main
from skqeq.metrics import dipole_errors

from .common import error_of, labelled, leftovers


def test_evaluate_prints_the_errors_of_every_labelled_target(folder, capsys):
    argv = ["evaluate", f"{folder}/model.skqeq", f"{folder}/train.xyz", "--worst", "2"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    X = labelled()
    D = np.array([atoms.info["REF_dipole"] for atoms in X])
    predicted = predict_target(load(folder / "model.skqeq"), X, "dipole")
    errors = dipole_errors(D, predicted)
    row = next(line for line in out.splitlines() if line.startswith("|dipole|")).split()
    assert row[1:3] == ["D", str(len(X))]
    expected = [errors["mae"], errors["median"], errors["rmse"]]
    np.testing.assert_allclose([float(v) for v in row[3:6]], expected, atol=1e-4)
    assert "\ncharges " in out
    worst = int(np.linalg.norm(predicted - D, axis=1).argmax())
    listed = out.split("2 largest errors of dipole (D)")[1].splitlines()[2]
    assert listed.split()[:2] == [str(worst), X[worst].get_chemical_formula()]
    assert "atom " in out.split("2 largest errors of charges (e)")[1]


def test_evaluate_all_kinds_of_labels(folder, tmp_path, capsys):
    [atoms] = labelled(1, ("CH3OH",))
    atoms.info["potential_points"] = np.array([[0.0, 0.0, 5.0], [0.0, 5.0, 0.0]])
    atoms.info["quadrupole"] = np.arange(6.0)
    atoms.info["potential"] = np.array([0.1, 0.2])
    atoms.info["size"] = 0.3
    write(tmp_path / "test.xyz", [atoms, molecule("H2O")])
    argv = ["evaluate", f"{folder}/model.skqeq", f"{tmp_path}/test.xyz"]
    assert main([*argv, "--key", "dipole_magnitude=size"]) == 0
    out = capsys.readouterr().out
    for name in ("charges", "quadrupole", "potential", "dipole_magnitude"):
        assert f"\n{name} " in out
        assert f"1 largest error of {name} " in out
    assert main([*argv, "--targets", "quadrupole", "--worst", "0"]) == 0
    out = capsys.readouterr().out
    assert "charges" not in out
    assert "worst" not in out


@pytest.mark.parametrize("target", ["dipole", "charges"])
def test_evaluate_draws(folder, tmp_path, capsys, target):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "parity.png"
    argv = ["evaluate", f"{folder}/model.skqeq", f"{folder}/train.xyz", "--targets", target]
    assert main([*argv, "--plot", str(plot)]) == 0
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert not leftovers(tmp_path)


def test_evaluate_without_labels(folder, tmp_path, capsys):
    write(tmp_path / "bare.xyz", molecule("H2O"))
    message = error_of(capsys, "evaluate", folder / "model.skqeq", tmp_path / "bare.xyz")
    assert "no structure has labels; looked for dipole, charges" in message
    argv = ["evaluate", folder / "model.skqeq", tmp_path / "bare.xyz", "--targets", "dipole"]
    assert "no structure has dipole" in error_of(capsys, *argv)
    argv[-2:] = ["--key", "dipole=mu"]
    assert "no structure has dipole: looked for mu" in error_of(capsys, *argv)
    argv = ["evaluate", folder / "model.skqeq", folder / "train.xyz", "--unit", "potential=2"]
    assert "--unit names potential, but there are no such labels" in error_of(capsys, *argv)


def test_energies_of_a_model_of_dipoles_are_not_compared(folder, energy_folder, capsys):
    """Before, the table showed errors of thousands of eV."""
    argv = ["evaluate", folder / "model.skqeq", energy_folder / "train.xyz"]
    message = error_of(capsys, *argv, "--targets", "dipole", "forces", "energy")
    assert "dipole, and not to energies: its predictions of forces and energy are" in message
    assert main([str(a) for a in argv]) == 0
    assert "energy" not in capsys.readouterr().out


def test_evaluate_tells_of_wrong_units(folder, tmp_path, capsys):
    X = labelled(names=("CH3OH", "CH3CH2OH", "CH3CHO", "CH3COOH"))
    write(tmp_path / "test.xyz", X)
    argv = ["evaluate", f"{folder}/model.skqeq", f"{tmp_path}/test.xyz", "--targets", "dipole"]
    assert main([*argv, "--unit", "dipole=0.3"]) == 0
    assert "note" not in capsys.readouterr().out
    assert main(argv) == 0
    assert "\nnote: the median dipole is 0.29 e times the length" in capsys.readouterr().out


def test_missing_matplotlib_is_said_first(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    argv = ["evaluate", folder / "model.skqeq", folder / "train.xyz", "--plot", tmp_path / "a.png"]
    assert 'pip install "skqeq[plots]"' in error_of(capsys, *argv)


def test_crystals_among_molecules(folder, tmp_path, capsys):
    """The dipole of a crystal is undefined, but the other labels in the file are compared."""
    X = labelled(1)
    crystal = X[0].copy()
    crystal.set_cell([6.0, 6.0, 6.0])
    crystal.pbc = True
    del crystal.info["REF_dipole"]
    write(tmp_path / "mixed.xyz", [*X, crystal])
    for targets in ([], ["--targets", "dipole"]):
        argv = ["evaluate", f"{folder}/model.skqeq", f"{tmp_path}/mixed.xyz", *targets]
        assert main(argv) == 0
        output = capsys.readouterr().out
        assert "8 structures" in output and "nan" not in output


def test_energies_are_compared_per_atom(energy_folder, capsys):
    argv = ["evaluate", f"{energy_folder}/model.skqeq", f"{energy_folder}/train.xyz"]
    assert main([*argv, "--worst", "1"]) == 0
    out = capsys.readouterr().out
    X = read(energy_folder / "train.xyz", ":")
    y = targets_from_atoms(X, ["energy", "forces"])
    predicted = load(energy_folder / "model.skqeq").predict(X)
    n_atoms = np.array([len(atoms) for atoms in X])
    truth, energies = y["energy"] / n_atoms, predicted["energy"] / n_atoms
    row = next(line for line in out.splitlines() if line.startswith("energy per atom")).split()
    assert row[3:5] == ["meV/atom", str(len(X))]
    error = np.abs(energies - truth)
    # Before R2 is computed, a sum of atomic energies is fitted and subtracted.
    counts = np.array([[(a.numbers == z).sum() for z in (1, 6, 8)] for a in X])
    part = counts @ np.linalg.lstsq(counts, y["energy"], rcond=None)[0] / n_atoms
    spread = truth - part
    r2 = 1.0 - np.sum(error**2) / np.sum((spread - spread.mean()) ** 2)
    assert "without the part that the composition explains" in out
    np.testing.assert_allclose(float(row[5]), 1e3 * error.mean(), atol=1e-4)
    np.testing.assert_allclose(float(row[8]), r2, atol=1e-4)
    worst = int(error.argmax())
    listed = out.split("1 largest error of energy (meV/atom)")[1].splitlines()[2].split()
    assert listed[:2] == [str(worst), X[worst].get_chemical_formula()]
    shown = [1e3 * error[worst], 1e3 * truth[worst], 1e3 * energies[worst]]
    np.testing.assert_allclose([float(v) for v in listed[2:]], shown, atol=1e-3)

    errors = [np.abs(p - t) for p, t in zip(predicted["forces"], y["forces"], strict=True)]
    row = next(line for line in out.splitlines() if line.startswith("forces")).split()
    assert row[1:3] == ["meV/Angstrom", str(len(X))]
    mean = np.concatenate([e.ravel() for e in errors]).mean()
    np.testing.assert_allclose(float(row[3]), 1e3 * mean, atol=1e-4)
    worst = int(np.argmax([e.max() for e in errors]))
    atom, axis = np.unravel_index(errors[worst].argmax(), errors[worst].shape)
    listed = out.split("1 largest error of forces (meV/Angstrom)")[1].splitlines()[2]
    assert listed.endswith(f"atom {atom} ({X[worst].symbols[atom]}), {'xyz'[axis]}")
    np.testing.assert_allclose(float(listed.split()[2]), 1e3 * errors[worst].max(), atol=1e-3)


def test_labels_that_structures_cannot_have_are_not_compared(energy_folder, tmp_path, capsys):
    """A molecule has no stress, and a slab has only the in-plane components.

    Files may have all six.
    """
    crystal = Atoms(molecule("H2O"), cell=[4.0, 4.0, 4.0], pbc=True)
    slab = Atoms(molecule("H2O"), cell=[5.0, 5.0, 20.0], pbc=(True, True, False))
    X = [crystal, slab, molecule("H2O")]
    for atoms in X:
        atoms.info["REF_stress"] = np.full(6, 0.01)
    write(tmp_path / "test.xyz", X)
    argv = ["evaluate", f"{energy_folder}/model.skqeq", f"{tmp_path}/test.xyz"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("stress")).split()
    assert row[1:3] == ["meV/Angstrom^3", "2"]
    stress = predict_stress(load(energy_folder / "model.skqeq"), X[:2])
    np.testing.assert_allclose(float(row[3]), 1e3 * np.nanmean(np.abs(stress - 0.01)), atol=1e-4)
    worst = out.split("2 largest errors of stress")[1].splitlines()[2]
    assert worst.split()[-1] in ("xx", "yy", "zz", "yz", "xz", "xy")
    write(tmp_path / "molecule.xyz", X[2:])
    argv[-1] = f"{tmp_path}/molecule.xyz"
    assert "stress: undefined for all structures with labels" in error_of(capsys, *argv)


def test_indices_are_those_of_the_file(folder, capsys):
    listed = {}
    for part in ("", "@5:", "@5::2", "@-4:", "@::-1", "@3"):
        argv = ["evaluate", f"{folder}/model.skqeq", f"{folder}/train.xyz{part}"]
        assert main([*argv, "--targets", "dipole", "--worst", "100"]) == 0
        rows = capsys.readouterr().out.split("of dipole (D)")[1].splitlines()[2:]
        listed[part] = {row.split()[0]: row.split()[1:] for row in rows}
    assert set(listed["@5:"]) == {str(i) for i in range(5, 21)}
    assert set(listed["@3"]) == {"3"} and set(listed["@5::2"]) == {str(i) for i in range(5, 21, 2)}
    assert set(listed["@-4:"]) == {"17", "18", "19", "20"}
    for rows in listed.values():
        assert all(listed[""][index] == row for index, row in rows.items())


def test_every_target_is_drawn_by_components():
    rng = np.random.default_rng(0)
    X = labelled(2)
    y = targets_from_atoms(X, ["dipole", "charges"])
    energies = rng.normal(size=len(X)) + 1000.0 * np.array([len(atoms) for atoms in X])
    y = make_targets(dipole=y["dipole"], charges=list(y["charges"]), energy=energies)
    reversed_ = make_targets(dipole=-y["dipole"], charges=list(y["charges"]), energy=energies)
    panels = parity_panels(y, reversed_, X)
    labels = [options["label"] for _, _, options in panels]
    assert labels == ["dipole components", "charges", "energy - composition"]
    truth, predicted = panels[0][1]
    np.testing.assert_allclose(np.array(predicted), -np.array(truth))
    assert np.abs(panels[2][1][0]).max() < 2e3  # meV per atom


def test_indices_of_a_file_whose_name_holds_an_at(folder, tmp_path, capsys):
    path = tmp_path / "at@300K.xyz"
    path.write_text((folder / "train.xyz").read_text())
    for selection, index in (("", 20), ("@-3:-2", 18), ("@7", 7), ("@4::50", 4)):
        argv = ["evaluate", f"{folder}/model.skqeq", f"{path}{selection}", "--worst", "30"]
        assert main([*argv, "--targets", "dipole"]) == 0
        out = capsys.readouterr().out
        assert re.search(rf"^ *{index} ", out, re.MULTILINE), out
