import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from skqeq import (
    load,
    predict_charges,
    predict_energy,
    predict_forces,
    predict_stress,
    predict_target,
)
from skqeq._cli import outputs, predict
from skqeq.cli import main
from skqeq.datasets import split_frames

from .common import error_of, labelled, leftovers


def test_predictions_survive_the_file(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict, "BLOCK", 5)
    X = labelled()
    X[3].info["charge"] = 1
    X[4].cell = [9.0, 9.0, 9.0]
    write(tmp_path / "in.xyz", X)
    argv = ["predict", folder / "model.skqeq", tmp_path / "in.xyz", "-o", tmp_path / "out.xyz"]
    assert main([str(a) for a in argv]) == 0
    assert "21 structures" in capsys.readouterr().err
    model = load(folder / "model.skqeq")
    read_in, out = read(tmp_path / "in.xyz", ":"), read(tmp_path / "out.xyz", ":")
    charges = predict_charges(model, read_in)
    dipoles = predict_target(model, read_in, "dipole")
    assert [a.info["number"] for a in out] == list(range(len(X)))
    for atoms, q, mu in zip(out, charges, dipoles, strict=True):
        np.testing.assert_allclose(atoms.get_initial_charges(), q, atol=1e-7)
        np.testing.assert_allclose(atoms.get_charges(), q, atol=1e-7)
        np.testing.assert_allclose(atoms.get_dipole_moment(), mu, atol=1e-7)
    assert out[3].get_charges().sum() == pytest.approx(1.0, abs=1e-6)
    assert out[3].info["charge"] == 1
    np.testing.assert_array_equal(out[4].cell.lengths(), [9.0, 9.0, 9.0])
    np.testing.assert_allclose(out[0].info["REF_dipole"], X[0].info["REF_dipole"], atol=1e-7)


def test_labels_of_the_same_name_are_kept(folder, tmp_path):
    atoms = molecule("H2O")
    q = np.array([-0.6, 0.3, 0.3])
    atoms.calc = SinglePointCalculator(atoms, charges=q, dipole=[0.0, 0.0, 1.0], energy=-3.0)
    write(tmp_path / "in.xyz", [atoms])
    argv = ["predict", f"{folder}/model.skqeq", f"{tmp_path}/in.xyz", "-q", "-o"]
    assert main([*argv, f"{tmp_path}/out.xyz"]) == 0
    out = read(tmp_path / "out.xyz")
    np.testing.assert_allclose(out.arrays["REF_charges"], q)
    np.testing.assert_allclose(out.info["REF_dipole"], [0.0, 0.0, 1.0])
    assert out.get_potential_energy() == -3.0
    assert abs(out.get_dipole_moment()[2] - 1.0) > 1e-3


def test_crystals_have_charges_only(folder, tmp_path):
    crystal = Atoms(molecule("H2O"), cell=[4.0, 4.0, 4.0], pbc=True)
    write(tmp_path / "in.xyz", [crystal, molecule("H2O")])
    argv = ["predict", f"{folder}/model.skqeq", f"{tmp_path}/in.xyz", "-q", "-o"]
    assert main([*argv, f"{tmp_path}/out.xyz"]) == 0
    out = read(tmp_path / "out.xyz", ":")
    assert [sorted(a.calc.results) for a in out] == [["charges"], ["charges", "dipole"]]


def test_energies_are_written_by_models_that_learned_them(energy_folder, tmp_path):
    water = molecule("H2O")
    results = {"energy": -3.0, "free_energy": -3.5, "forces": np.ones((3, 3))}
    water.calc = SinglePointCalculator(water, **results)
    crystal = Atoms(molecule("H2O"), cell=[4.0, 4.0, 4.0], pbc=True)
    write(tmp_path / "in.xyz", [water, crystal])
    argv = ["predict", f"{energy_folder}/model.skqeq", f"{tmp_path}/in.xyz", "-q", "-o"]
    assert main([*argv, f"{tmp_path}/out.xyz"]) == 0
    out = read(tmp_path / "out.xyz", ":")
    of_all = ["charges", "energy", "forces"]
    assert sorted(out[0].calc.results) == sorted([*of_all, "dipole"])
    assert sorted(out[1].calc.results) == sorted([*of_all, "stress"])
    model = load(energy_folder / "model.skqeq")
    energies, forces = predict_energy(model, out), predict_forces(model, out)
    for i, atoms in enumerate(out):
        np.testing.assert_allclose(atoms.get_potential_energy(), energies[i], rtol=1e-7)
        np.testing.assert_allclose(atoms.get_forces(), forces[i], atol=1e-6)
    [stress] = predict_stress(model, out[1:])
    np.testing.assert_allclose(out[1].get_stress(), stress, atol=1e-7)
    assert out[0].info["REF_energy"] == -3.0
    np.testing.assert_array_equal(out[0].arrays["REF_forces"], np.ones((3, 3)))


def test_slabs_have_the_dipole_of_their_open_axis(folder, tmp_path):
    slab = molecule("H2O", cell=[6.0, 6.0, 0.0], pbc=(True, True, False))
    write(tmp_path / "in.xyz", [slab])
    argv = ["predict", f"{folder}/model.skqeq", f"{tmp_path}/in.xyz", "-q", "-o"]
    assert main([*argv, f"{tmp_path}/out.xyz"]) == 0
    dipole = read(tmp_path / "out.xyz").get_dipole_moment()
    assert np.isnan(dipole[:2]).all() and np.isfinite(dipole[2])


def test_predict_takes_slices_compresses_and_keeps_links(folder, tmp_path):
    path, link = tmp_path / "out.xyz.gz", tmp_path / "link.xyz.gz"
    write(tmp_path / "in.xyz.gz", labelled(1))
    path.write_text("old")
    link.symlink_to(path)
    argv = ["predict", f"{folder}/model.skqeq", f"{tmp_path}/in.xyz.gz@:4", "-q"]
    assert main([*argv, "-o", str(link)]) == 0
    assert link.is_symlink()
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    assert len(read(path, ":")) == 4


def test_bad_structures_are_skipped_on_request(folder, tmp_path, monkeypatch, capsys):
    """Of seven structures, three fail: when read, when checked, and when predicted."""
    monkeypatch.setattr(predict, "BLOCK", 3)
    X = labelled(1)[:4]
    write(tmp_path / "in.xyz", [*X, molecule("SiH4"), *X[:2]])
    with open(tmp_path / "in.xyz", "rb") as file:
        frames = [frame for _, frame in split_frames(file, "in.xyz")]
    frames[1] = frames[1].replace(b"\nC ", b"\nXx ")
    frames[2] = frames[2].replace(b"\nC ", b"\nC nan ")
    (tmp_path / "in.xyz").write_bytes(b"\n".join(frames))
    argv = ["predict", f"{folder}/model.skqeq", f"{tmp_path}/in.xyz", "-q"]
    argv += ["-o", f"{tmp_path}/out.xyz"]
    assert "structure 1 of" in error_of(capsys, *argv)
    assert not (tmp_path / "out.xyz").exists()
    assert main([*argv, "--skip-errors"]) == 1
    printed = capsys.readouterr()
    lines = printed.err.strip().splitlines()
    assert [line.split("structure ")[1][0] for line in lines] == ["1", "2", "4"]
    assert "'Xx' is not the symbol of an element" in lines[0]
    assert "wrote 4 structures" in printed.out and "skipped 3 with errors" in printed.out
    out = read(tmp_path / "out.xyz", ":")
    assert [atoms.info["number"] for atoms in out] == [0, 3, 0, 1]
    charges = predict_charges(load(folder / "model.skqeq"), out)
    for atoms, q in zip(out, charges, strict=True):
        np.testing.assert_allclose(atoms.get_charges(), q, atol=1e-7)


@pytest.mark.parametrize("end", ["count", "truncated"])
def test_structures_before_damage_are_predicted_on_request(folder, tmp_path, capsys, end):
    write(tmp_path / "in.xyz", labelled(1)[:3])
    text = (tmp_path / "in.xyz").read_text()
    damaged = text + "x\n" + text if end == "count" else text[: text.rindex("\nH")]
    (tmp_path / "in.xyz").write_text(damaged)
    argv = ["predict", f"{folder}/model.skqeq", f"{tmp_path}/in.xyz", "-q"]
    assert main([*argv, "--skip-errors", "-o", f"{tmp_path}/out.xyz"]) == 1
    assert f"skipped: {tmp_path}/in.xyz" in capsys.readouterr().err
    assert len(read(tmp_path / "out.xyz", ":")) == (3 if end == "count" else 2)


def test_a_file_of_which_nothing_works_gives_no_output(folder, tmp_path, capsys):
    write(tmp_path / "in.xyz", [molecule("SiH4")])
    (tmp_path / "out.xyz").write_text("precious")
    argv = ["predict", f"{folder}/model.skqeq", f"{tmp_path}/in.xyz", "-q", "--skip-errors"]
    assert main([*argv, "-o", f"{tmp_path}/out.xyz"]) == 2
    assert "holds only structures with errors" in capsys.readouterr().err
    assert (tmp_path / "out.xyz").read_text() == "precious"


def test_predict_names_the_structure_by_its_place_in_the_file(
    folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(predict, "BLOCK", 3)
    write(tmp_path / "in.xyz", [*labelled(1)[:4], molecule("SiH4")])
    output = tmp_path / "out.xyz"
    output.write_text("precious")
    argv = ["predict", folder / "model.skqeq", tmp_path / "in.xyz", "-q", "-o", output]
    message = error_of(capsys, *argv)
    assert "structure 4" in message
    assert "Si" in message
    assert output.read_text() == "precious"
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("end", ["the write", "Ctrl-C"])
def test_nothing_half_written_stays(folder, tmp_path, monkeypatch, capsys, end):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt if end == "Ctrl-C" else OSError("no space left on device")

    monkeypatch.setattr(outputs, "write", stop)
    argv = ["predict", f"{folder}/model.skqeq", f"{folder}/train.xyz", "-q"]
    code = main([*argv, "-o", f"{tmp_path}/out.xyz"])
    assert code == (130 if end == "Ctrl-C" else 2)
    assert not list(tmp_path.iterdir())
    assert ("interrupted" if end == "Ctrl-C" else "no space left") in capsys.readouterr().err


@pytest.mark.filterwarnings("always")
def test_unknown_elements(energy_folder, tmp_path, capsys):
    write(tmp_path / "in.xyz", [molecule("H2O"), molecule("CH3Cl"), molecule("CH4")])
    files = [energy_folder / "model.skqeq", tmp_path / "in.xyz", "-o", tmp_path / "out.xyz"]
    capsys.readouterr()
    message = error_of(capsys, "predict", *files, "--quiet")
    assert "structure 1 (CClH3) holds Cl; known elements: H, C, O" in message
    assert main(["predict", *map(str, files), "--handle-unknown", "prior"]) == 0
    assert capsys.readouterr().err.count("warning: structure 1 (CClH3) holds Cl") == 1
    out = read(tmp_path / "out.xyz", ":")
    assert max(abs(atoms.get_charges().sum()) for atoms in out) < 1e-6
    assert ["energy" in atoms.calc.results for atoms in out] == [True, False, True]
