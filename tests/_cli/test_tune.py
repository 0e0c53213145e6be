"""``skqeq fit --tune``."""

import numpy as np
import pytest
from ase.io import write
from sklearn.pipeline import Pipeline

from skqeq import ChargeFlow, GAPKQEqRegressor, QEq, load
from skqeq.cli import main
from skqeq.models import _charge_trials, _potential_trials
from skqeq.response import NoCharges

from .common import SMALL, error_of, labelled, with_energies

FEW = ["--n-max", "3", "--l-max", "2", "--n-points", "8"]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Few trials."""
    for module in (_charge_trials, _potential_trials):
        monkeypatch.setattr(module, "CUTOFFS", ((2.0, 3.0),))
        monkeypatch.setattr(module, "EXPONENTS", (1,))
        monkeypatch.setattr(module, "MAX_STEPS", 1)
    monkeypatch.setattr(_potential_trials, "RESOLUTIONS", ())
    monkeypatch.setattr(_potential_trials, "GAUSSIANS", ())
    monkeypatch.setattr(_potential_trials, "RESPONSES", (QEq(hardness=20.0, radius_scale=1.0),))


def fit(folder, *options, X=None, minutes="5"):
    write(folder / "train.xyz", labelled() if X is None else X)
    argv = ["fit", f"{folder}/train.xyz", "-o", f"{folder}/model.skqeq", "-q", "--tune", minutes]
    return [*argv, *options]


def test_settings_of_charges(tmp_path, capsys):
    command = fit(tmp_path, "--targets", "dipole", "charges", "--group", "family", *FEW)
    assert main(command) == 0
    output = capsys.readouterr().out
    table, chosen = output.split("search of a model of charges: ")[1].split("\nchosen\n")
    assert table.startswith("mean errors of left-out groups, and of structures of other sizes")
    assert "dipole (D)" in table and "charges, other sizes (e)" in table
    assert table.count("<- better") >= 2
    model = load(tmp_path / "model.skqeq")
    assert model[1].n_points == 8 and model[0].n_max == 3
    lines = [line for line in chosen.splitlines() if line.startswith("  ")]
    lines = dict(line.strip().split(": ", 1) for line in lines)
    response = model[-1].response
    assert lines["response"].startswith(type(response).__name__)
    assert f"radius_scale={response.radius_scale:.3g}" in lines["response"]
    assert lines["noise of charges"] == f"{model[-1].sigma_charges:.3g} e"
    assert f"amplitude {model[-1].amplitude_chi:.3g} V" in lines["chi"]
    assert lines["cutoffs"].startswith(" ".join(f"{r:.3g}" for r in np.atleast_1d(model[0].r_cut)))
    assert lines["errors"].startswith("dipole (D) ")
    assert "the search took " in output and "errors on the training structures" in output
    assert "the time was over" not in output


def test_given_response_and_cutoffs_are_kept(tmp_path, capsys):
    command = fit(tmp_path, "--response", "qeq", *SMALL, "--cutoff-width", "1", "--std")
    assert main(command) == 0
    model = load(tmp_path / "model.skqeq")
    assert isinstance(model[-1].response, QEq)
    assert (model[0].r_cut, model[0].cutoff_width) == ((3.0,), 1.0)
    assert model[-1].store_triangles
    assert "\ncutoffs " not in capsys.readouterr().out


def test_settings_of_a_potential(tmp_path, capsys):
    X = with_energies(labelled(8, ("H2O", "CH4")))
    options = ["--targets", "energy", "dipole", "--folds", "2", "--n-points", "4"]
    assert main(fit(tmp_path, *options, X=X)) == 0
    output = capsys.readouterr().out
    assert "search of a potential: 2-fold cross-validation of small models" in output
    assert "energy (meV/atom)" in output and "the search took " in output
    model = load(tmp_path / "model.skqeq")
    assert isinstance(model[-1], GAPKQEqRegressor)
    assert not isinstance(model[-1].response, NoCharges)  # dipoles need charges
    assert all(block[1].n_points == 4 for _, block in model[0].transformer_list)


def test_a_given_response_of_a_potential_is_kept(tmp_path, capsys):
    """Even if the search has no time, and if energies alone are labelled."""
    X = with_energies(labelled(8, ("H2O", "CH4")))
    options = ["--targets", "energy", "--response", "flow", "--r-cut", "2.5", "--n-points", "4"]
    assert main(fit(tmp_path, *options, X=X, minutes="1e-9")) == 0
    model = load(tmp_path / "model.skqeq")
    assert isinstance(model[-1].response, ChargeFlow)
    assert {block[0].r_cut for _, block in model[0].transformer_list} == {(2.5,)}
    assert {block[0].cutoff_width for _, block in model[0].transformer_list} == {(1.25,)}
    assert "2 trials" in capsys.readouterr().out


def test_the_time_is_short(tmp_path, capsys):
    assert main(fit(tmp_path, *SMALL, minutes="1e-9")) == 0
    output = capsys.readouterr().out
    assert "2 trials" in output and "the time was over before all settings were tried" in output


def test_an_interrupt_leaves_the_old_model(folder, tmp_path, monkeypatch, capsys):
    command = fit(tmp_path, *SMALL)
    (tmp_path / "model.skqeq").write_bytes((folder / "model.skqeq").read_bytes())
    optimise = _charge_trials.optimise
    calls = []

    def interrupted(*args):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return optimise(*args)

    monkeypatch.setattr(_charge_trials, "optimise", interrupted)
    assert main(command) == 130
    assert capsys.readouterr().err == "\nskqeq: interrupted\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.skqeq", "train.xyz"]
    assert isinstance(load(tmp_path / "model.skqeq"), Pipeline)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--search"], "--tune and --search are different searches: use one of them"),
        (["--search-r-cut"], "--tune and --search-r-cut are different searches"),
        (["--sigma", "dipole=0.1"], "--tune chooses what --sigma sets: use one of them"),
        (["--radius-scale", "0.3"], "--tune chooses what --radius-scale sets"),
        (["--cutoff-width", "1"], "add --r-cut"),
        (["--folds", "3"], "--tune needs no --folds for these targets"),
        (["--gap"], "--gap needs one of energy, forces, stress among --targets"),
        (["--targets", "dipole_magnitude"], "for dipole_magnitude without energies: use --search"),
        (["--targets", "energy", "--n-max", "3"], "--tune chooses what --n-max sets"),
    ],
)
def test_options_that_contradict_it_are_refused(tmp_path, capsys, options, message):
    assert message in error_of(capsys, *fit(tmp_path, *options))
    assert not (tmp_path / "model.skqeq").exists()


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "ten"])
def test_minutes_are_a_positive_number(tmp_path, capsys, minutes):
    with pytest.raises(SystemExit):
        main(fit(tmp_path, minutes=minutes))
    assert f"{minutes!r} is not a time in minutes, such as 10" in capsys.readouterr().err


def test_one_group_is_refused(tmp_path, capsys):
    X = labelled()
    for atoms in X:
        atoms.info["family"] = "all"
    message = "a search leaves out groups of structures, but there is only one group"
    assert message in error_of(capsys, *fit(tmp_path, "--group", "family", *SMALL, X=X))
    options = ["--targets", "energy", "--group", "family"]
    message = "all structures have the same info['family'], which --group names"
    assert message in error_of(capsys, *fit(tmp_path, *options, X=with_energies(X)))


def test_few_groups_are_fewer_folds(tmp_path, capsys):
    X = with_energies(labelled(6, ("CH3OH", "CH3CHO")))
    options = ["--targets", "energy", "--group", "family", "--n-points", "4"]
    assert main(fit(tmp_path, *options, X=X, minutes="1e-9")) == 0
    assert ": 2-fold cross-validation by group of small models, 1 trial" in capsys.readouterr().out
