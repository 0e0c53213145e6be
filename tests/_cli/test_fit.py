import warnings

import ase.units
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.units import Debye
from numpy.testing import assert_allclose

from skqeq import (
    ChargeFlow,
    GAPKQEqRegressor,
    KQEqRegressor,
    QEq,
    load,
    predict_interval,
    predict_std,
    predict_target,
    targets_from_atoms,
)
from skqeq._cli import fit
from skqeq._cli.options import UNITS, unit
from skqeq.cli import main
from skqeq.metrics import dipole_errors, structure_rmse
from skqeq.models import _checkpoint
from skqeq.response import NoCharges

from .common import SMALL, error_of, labelled, leftovers, with_energies


def test_fit_saves_the_pipeline_that_was_asked_for(folder):
    model = load(folder / "model.skqeq")
    parameters = model.get_params()
    assert parameters["soapfeaturizer__r_cut"] == (3.0,)
    assert parameters["soapfeaturizer__n_max"] == 3
    assert parameters["cursparsifier__n_points"] == 8
    assert parameters["kqeqregressor__verbose"] == parameters["soapfeaturizer__verbose"] == 0
    X = labelled()
    D = np.array([atoms.info["REF_dipole"] for atoms in X])
    assert dipole_errors(D, predict_target(model, X, "dipole"))["mae"] < 0.3
    assert not leftovers(folder)


def test_fit_with_charge_that_flows(tmp_path):
    write(tmp_path / "train.xyz", labelled())
    command = f"fit {tmp_path}/train.xyz -o {tmp_path}/model.skqeq --response flow"
    assert main([*command.split(), "--radius-scale", "0.6", *SMALL]) == 0
    model = load(tmp_path / "model.skqeq")
    assert model[-1].response_.get_params() == ChargeFlow(radius_scale=0.6).get_params()


def test_fit_several_targets_by_other_names_with_a_grouped_search(tmp_path, capsys):
    X = labelled()
    for atoms in X:
        atoms.info["mu"] = atoms.info.pop("REF_dipole")
    write(tmp_path / "train.xyz", X)
    command = f"fit {tmp_path}/train.xyz -o {tmp_path}/model.skqeq --targets dipole charges"
    command += " --key dipole=mu --sigma dipole=0.02 charges=0.1 --search --folds 2 --group number"
    assert main([*command.split(), *SMALL]) == 0
    captured = capsys.readouterr()
    assert "2-fold cross-validation by group" in captured.out
    assert captured.out.count("<- best") == 1
    assert "folds" in captured.err  # a progress bar
    assert "errors on held-out structures, for the best R2\n" in captured.out
    model = load(tmp_path / "model.skqeq")
    assert model[-1].targets_ == ["dipole", "charges"]
    assert model[-1].sigma_dipole in (0.3 * 0.02, 0.02, 3.0 * 0.02)
    assert model[-1].sigma_charges in (0.3 * 0.1, 0.1, 3.0 * 0.1)


def test_fit_energies_and_forces(energy_folder):
    model = load(energy_folder / "model.skqeq")
    assert model[0].cutoff_width == 1.0
    assert model[-1].response_.get_params() == QEq(hardness=7.5, radius_scale=0.25).get_params()
    assert (model[-1].sigma_energy, model[-1].sigma_forces) == (0.005, 0.2)
    assert model[-1].targets_ == ["energy", "forces"]
    X = with_energies(labelled(2))
    y = targets_from_atoms(X, ["energy", "forces"])
    assert model.score(X, y) > 0.6


def test_fit_lists_structures_with_far_residuals(energy_folder, tmp_path, capsys):
    X = read(energy_folder / "train.xyz", ":")
    command = f"fit {tmp_path}/train.xyz@1: -o {tmp_path}/model.skqeq --targets energy forces -q"
    command += " --hardness 7.5 --radius-scale 0.25 --cutoff-width 1 --sigma energy=0.005 forces=1"

    def listed():
        write(tmp_path / "train.xyz", X)
        assert main([*command.split(), *SMALL]) == 0
        return capsys.readouterr().out.partition("\nresiduals of more than 10 times the median")[2]

    assert not listed()
    X[3].arrays["REF_forces"] = X[3].arrays["REF_forces"][::-1] + 20.0
    lines = listed().splitlines()
    assert lines[0] == "; check these labels"
    assert lines[1].split() == ["index", "formula", "target", "/", "noise", "/", "median"]
    # The index is that in the file. The wrong labels are too few to be described by the model.
    index, formula, target, of_noise, of_median = lines[2].split()
    assert (index, formula, target) == ("3", X[3].get_chemical_formula(), "forces")
    errors = structure_rmse(
        [atoms.arrays["REF_forces"] for atoms in X[1:]],
        predict_target(load(tmp_path / "model.skqeq"), X[1:], "forces"),
    )
    assert float(of_noise) == pytest.approx(errors[2], abs=0.06)  # the noise is 1 eV/Angstrom
    assert float(of_median) == pytest.approx(errors[2] / np.median(errors), abs=0.6)


def test_search_of_energies_from_results_of_a_calculator(tmp_path, capsys):
    X = with_energies(labelled(2, ("H2O", "CH3OH", "CH4")))
    for atoms in X:
        results = {"energy": atoms.info.pop("REF_energy"), "forces": atoms.arrays.pop("REF_forces")}
        atoms.calc = SinglePointCalculator(atoms, **results)
    write(tmp_path / "train.xyz", X)
    command = f"fit {tmp_path}/train.xyz -o {tmp_path}/model.skqeq --targets energy forces"
    command += " --hardness 8 --search --folds 2 -q --sigma energy=0.02 forces=0.5"
    assert main([*command.split(), *SMALL[:-1], "3"]) == 0
    out = capsys.readouterr().out
    assert out.count("<- best") == 1
    assert "MAE energy per atom (meV/atom)  MAE forces (meV/Angstrom)" in out
    model = load(tmp_path / "model.skqeq")[-1]
    assert any(model.sigma_energy == factor * 0.02 for factor in (0.3, 1.0, 3.0))
    assert any(model.sigma_forces == factor * 0.5 for factor in (0.3, 1.0, 3.0))


def test_search_of_cutoffs_on_a_part_of_a_file(tmp_path, capsys):
    write(tmp_path / "all.xyz", labelled())
    command = f"fit {tmp_path}/all.xyz@:14 -o {tmp_path}/model.skqeq --search-r-cut --folds 2 -q"
    assert main([*command.split(), *SMALL]) == 0
    out = capsys.readouterr().out
    D = np.array([atoms.info["REF_dipole"] for atoms in labelled()[:14]]) / Debye
    median = np.median(np.linalg.norm(D, axis=1))
    assert f"labels, and their median magnitude: |dipole| 14, {median:.3g} D\n" in out
    assert out.count("<- best") == 1
    [best] = [line.split() for line in out.splitlines() if "<- best" in line]
    model = load(tmp_path / "model.skqeq")
    assert [f"{model[-1].sigma_dipole:.3g}", f"{model[0].r_cut[0]:.3g}"] == best[:2]
    assert out.count("  2.4  ") == out.count("  3.75  ") == 3
    assert ("--r-cut" in out) == (model[0].r_cut != (3.0,))
    assert main(["evaluate", f"{tmp_path}/model.skqeq", f"{tmp_path}/all.xyz@14:"]) == 0
    assert "7 structures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("factor", "charges", "lines"),
    [
        (0.5, False, []),
        (1.0, False, ["note: the median dipole is 0.29 e times the length of the molecule"]),
        (1 / Debye, False, ["warning: the median dipole is 1.4 e times the length of"]),
        (
            1 / Debye,
            True,
            [
                "warning: the dipole labels are 4.8 times the values that were computed",
                "warning: the median dipole is 1.4 e times the length of the molecule",
            ],
        ),
    ],
)
def test_fit_tells_of_wrong_units(factor, charges, lines, tmp_path, capsys):
    X = labelled(names=("CH3OH", "CH3CH2OH", "CH3CHO", "CH3COOH"))
    for atoms in X:
        atoms.info["REF_dipole"] = factor * atoms.info["REF_dipole"]
    write(tmp_path / "train.xyz", X)
    argv = ["fit", f"{tmp_path}/train.xyz", "-o", f"{tmp_path}/model.skqeq", "--quiet", *SMALL]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main([*argv, "--targets", "dipole", *["charges"] * charges]) == 0
    out, error = capsys.readouterr()
    told = [line for line in (out + error).splitlines() if "dipole" in line and "labels" in line]
    told = [line for line in told if line.startswith(("note", "warning"))]
    assert len(told) == len(lines)
    assert all(line.startswith(start) for line, start in zip(told, lines, strict=True)), told


def test_fit_shows_warnings_in_one_line(folder, tmp_path, capsys):
    argv = ["fit", f"{folder}/train.xyz", "-o", f"{tmp_path}/m.joblib", "-q", *SMALL[:-1], "10000"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(argv) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: n_points=10000, but there are only ")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--targets", "quadrupole"], "no structure has quadrupole: looked for REF_quadrupole or"),
        (["--key", "dipole=nothing"], "no structure has dipole: looked for nothing"),
        (["--key", "charges=q"], "--key names charges, which is not among --targets"),
        (["--sigma", "charges=1"], "--sigma names charges, which is not among --targets"),
        (["--group", "nothing"], "structure 0 has no info['nothing'], which --group names"),
        (["--sigma", "dipole=-1"], "sigma_dipole"),
        (["--n-points", "0"], "n_points"),
        (["--r-cut", "0.5"], "r_cut"),
        (["--cutoff-width", "-1"], "cutoff_width"),
        (["--hardness", "-1"], "hardness"),
        (["--radius-scale", "0"], "radius_scale"),
    ],
)
def test_fit_explains_what_is_wrong(folder, tmp_path, capsys, options, message):
    output = tmp_path / "m.joblib"
    small = [] if options[0] in SMALL else SMALL
    argv = ["fit", folder / "train.xyz", "-o", output, "-q", *small, *options]
    assert message in error_of(capsys, *argv)
    assert not list(tmp_path.iterdir())


def test_labels_in_other_units_and_standard_deviations(tmp_path, capsys):
    X = labelled()
    for atoms in X:
        atoms.info["mu"] = atoms.info.pop("REF_dipole") / Debye
    write(tmp_path / "train.xyz", X)
    command = f"fit {tmp_path}/train.xyz -o {tmp_path}/model.skqeq --key dipole=mu --std"
    assert main([*command.split(), "--unit", "dipole=Debye", *SMALL]) == 0
    model = load(tmp_path / "model.skqeq")
    for atoms in X:
        atoms.info["REF_dipole"] = atoms.info["mu"] * Debye
    D = targets_from_atoms(X, ["dipole"])["dipole"]
    assert dipole_errors(D, predict_target(model, X, "dipole"))["mae"] < 0.3
    command = f"evaluate {tmp_path}/model.skqeq {tmp_path}/train.xyz --key dipole=mu"
    capsys.readouterr()
    assert main([*command.split(), "--unit", f"dipole={Debye}"]) == 0
    mae = dipole_errors(D, predict_target(model, X, "dipole"))["mae"]
    assert f"{mae:.4f}" in capsys.readouterr().out
    # If the labels were read as e*Angstrom, the errors would be 4.8 times as large.
    for targets in ([], ["--targets", "dipole"]):
        assert main([*command.split(), *targets, "--unit", "dipole=Debye"]) == 0
        assert f"{mae:.4f}" in capsys.readouterr().out
    command = f"predict {tmp_path}/model.skqeq {tmp_path}/train.xyz -o {tmp_path}/out.xyz --std"
    assert main(command.split()) == 0
    assert "standard deviations" in capsys.readouterr().out
    std = predict_std(model, X, ["dipole", "charges"])
    for atoms, row in zip(read(tmp_path / "out.xyz", ":"), std, strict=True):
        assert_allclose(atoms.info["dipole_std"], row["dipole"], rtol=1e-6)
        assert_allclose(atoms.arrays["charges_std"], row["charges"], atol=1e-7)
    command = f"predict {tmp_path}/model.skqeq {tmp_path}/train.xyz -o {tmp_path}/out.xyz"
    assert main([*command.split(), "--interval", "0.8"]) == 0
    assert "and intervals of dipole" in capsys.readouterr().out
    lower, upper = (end["dipole"] for end in predict_interval(model, X, 0.8))
    for i, atoms in enumerate(read(tmp_path / "out.xyz", ":")):
        assert_allclose(atoms.info["dipole_lower"], lower[i], rtol=1e-6, atol=1e-8)
        assert_allclose(atoms.info["dipole_upper"], upper[i], rtol=1e-6, atol=1e-8)
    assert "coverage must be a number" in error_of(capsys, *command.split(), "--interval", "95")
    # A prediction without --std removes earlier standard deviations.
    command = f"predict {tmp_path}/model.skqeq {tmp_path}/out.xyz -o {tmp_path}/again.xyz"
    assert main(command.split()) == 0
    for atoms in read(tmp_path / "again.xyz", ":"):
        names = {"dipole_std", "charges_std", "dipole_lower", "dipole_upper"}
        assert not names & {*atoms.info, *atoms.arrays}


def test_standard_deviations_need_a_fit_that_kept_them(folder, capsys):
    command = f"predict {folder}/model.skqeq {folder}/train.xyz -o {folder}/std.xyz --std"
    assert main(command.split()) == 2
    assert "skqeq fit --std" in capsys.readouterr().err
    command = command.replace("--std", "--interval 0.9")
    assert "skqeq fit --std" in error_of(capsys, *command.split())
    assert not (folder / "std.xyz").exists()


@pytest.mark.parametrize("name", ["Debey", "0", "nan", "Hartree/0", "kJ/", "ampere"])
def test_unknown_units_are_refused(folder, name, capsys):
    command = f"fit {folder}/train.xyz -o {folder}/other.skqeq --unit dipole={name}"
    with pytest.raises(SystemExit):
        main(command.split())
    assert "argument --unit: " in (error := capsys.readouterr().err) and "unit of dipole" in error


def test_units_are_those_of_ase():
    for name in set(UNITS) - {"e", "V", "meV", "kbar"}:
        assert unit(f"energy={name.upper()}") == ("energy", getattr(ase.units, name))
    assert unit("energy=10*kbar") == ("energy", ase.units.GPa)
    assert unit("forces=Hartree/Bohr") == ("forces", ase.units.Hartree / ase.units.Bohr)


def test_keys_that_could_be_labels_are_named(folder, capsys):
    command = f"fit {folder}/train.xyz -o {folder}/other.skqeq --key dipole=mu"
    assert main(command.split()) == 2
    message = capsys.readouterr().err
    assert (
        "the first structure has" in message
        and "REF_dipole" in message
        and "--key dipole=KEY" in message
    )


def test_local_energies(tmp_path, capsys):
    write(tmp_path / "train.xyz", with_energies(labelled(8, ("H2O", "CH4"))))
    command = f"fit {tmp_path}/train.xyz -o {tmp_path}/model.skqeq -q --gap --std"
    command += " --cutoff-width 1 --targets energy forces --sigma energy=0.05 forces=0.5"
    assert main([*command.split(), *SMALL]) == 0
    out = capsys.readouterr().out
    assert "fitted 48 sparse points" in out and "without the part that the composition" in out
    model = load(tmp_path / "model.skqeq")
    assert isinstance(model[-1], GAPKQEqRegressor) and model[-1].response_.hardness == 2.7
    assert model[-1].sigma_forces == 0.5 and model[-1].store_triangles
    assert main(["evaluate", f"{tmp_path}/model.skqeq", f"{tmp_path}/train.xyz"]) == 0
    capsys.readouterr()
    refused = error_of(capsys, *command.split("--targets")[0].split(), *SMALL)
    assert "--gap needs one of energy, forces, stress" in refused


def test_charge_flow_parameters(folder, tmp_path, capsys):
    command = f"fit {folder}/train.xyz -o {tmp_path}/model.skqeq -q --softness 0.1 --range 0.2"
    assert "--response qeq has no --softness" in error_of(capsys, *command.split(), *SMALL)
    assert main([*command.split(), "--response", "flow", *SMALL]) == 0
    response = load(tmp_path / "model.skqeq")[-1].response_
    assert (response.softness, response.range) == (0.1, 0.2)


def test_search_of_local_energies(tmp_path, capsys, monkeypatch):
    write(tmp_path / "train.xyz", with_energies(labelled(8, ("H2O", "CH4"))))
    command = f"fit {tmp_path}/train.xyz -o {tmp_path}/model.skqeq -q --gap --search --folds 2"
    command += " --targets energy --cutoff-width 1 --sigma energy=0.05"
    monkeypatch.setattr("skqeq.models._potential_trials.CUTOFFS", (2.0, 3.0))
    monkeypatch.setattr("skqeq.models._potential_trials.RESPONSES", (NoCharges(), QEq()))
    monkeypatch.setattr("skqeq.models._potential_trials.MAX_STEPS", 1)
    assert main([*command.split(), *SMALL[:-1], "4"]) == 0
    out = capsys.readouterr().out
    assert "search of a potential: 2-fold cross-validation of small models" in out
    assert out.count("<- better") >= 1 and "chosen" in out
    lines = [line for line in out.splitlines() if line.startswith("  ") and " = " in line]
    chosen = dict(line.split(" = ", 1) for line in lines)
    assert {"gap__soapfeaturizer__r_cut", "sigma_energy"} <= {name.strip() for name in chosen}
    model = load(tmp_path / "model.skqeq")
    for name, text in chosen.items():
        params = model.get_params()
        [found] = [params[full] for full in params if full.partition("__")[2] == name.strip()]
        assert str(found) == text


def test_fits_worse_than_the_mean_are_told(tmp_path, capsys):
    X = with_energies(labelled(8, ("H2O", "CH4")))
    for seed, atoms in enumerate(X):
        atoms.arrays["REF_forces"] = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    write(tmp_path / "train.xyz", X)
    command = f"fit {tmp_path}/train.xyz -o {tmp_path}/model.skqeq -q --targets energy forces"
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main([*command.split(), *SMALL, "--hardness", "8", "--sigma", "energy=0.0001"]) == 0
    error = capsys.readouterr().err
    assert "warning: on the training structures R2 is -" in error and "--gap" in error


def test_a_closed_pipe_does_not_lose_the_model(folder, tmp_path, monkeypatch):
    def stop(*args):
        raise BrokenPipeError

    monkeypatch.setattr(fit, "print_errors", stop)
    argv = ["fit", f"{folder}/train.xyz", "-o", f"{tmp_path}/m.skqeq", *SMALL, "-q"]
    assert main(argv) == 141
    assert isinstance(load(tmp_path / "m.skqeq")[-1], KQEqRegressor)


def test_fit_continues_from_a_checkpoint(energy_folder, tmp_path, monkeypatch, capsys):
    command = f"fit {energy_folder}/train.xyz -o {tmp_path}/model.skqeq --targets energy forces -q"
    command += " --hardness 7.5 --radius-scale 0.25 --cutoff-width 1"
    command += f" --sigma energy=0.005 forces=0.2 --checkpoint {tmp_path}/progress"
    store = _checkpoint.Checkpoint.store

    def stop(self, progress):
        store(self, progress)
        raise KeyboardInterrupt

    monkeypatch.setattr(_checkpoint.Checkpoint, "store", stop)
    assert main([*command.split(), *SMALL]) == 130
    assert len([*(tmp_path / "progress").iterdir()]) == 1
    capsys.readouterr()
    monkeypatch.setattr(_checkpoint.Checkpoint, "store", store)
    other = command.replace("forces=0.2", "forces=0.3")
    assert main([*other.split(), *SMALL]) == 2
    assert "belongs to another fit, whose sigma_forces" in capsys.readouterr().err
    assert main([*command.split(), *SMALL]) == 0
    assert not [*(tmp_path / "progress").iterdir()]
    coef, expected = (load(f / "model.skqeq")[-1].coef_ for f in (tmp_path, energy_folder))
    assert np.abs(coef - expected).max() < 1e-5 * np.abs(expected).max()
