import os
import sys

import numpy as np
import pytest
from ase import Atoms

from skqeq import (
    datasets,
    make_targets,
)
from skqeq._cli import demo
from skqeq.cli import main

from .common import error_of, labelled


@pytest.fixture
def small_data(monkeypatch):
    X = labelled(6)
    groups = np.arange(len(X)) // 4
    y = make_targets(dipole=[atoms.info.pop("REF_dipole") for atoms in X])
    ion = Atoms("OH", [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]], info={"charge": -1})
    monkeypatch.setattr(datasets, "load_molecules", lambda return_groups: (X, y, groups))
    monkeypatch.setattr(datasets, "load_ions", lambda: ([ion], None))


@pytest.mark.parametrize("figures", [True, False])
def test_demo(small_data, tmp_path, monkeypatch, capsys, figures):
    if figures:
        pytest.importorskip("matplotlib")
    else:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(demo, "FRACTIONS", (0.5, 1.0))
    monkeypatch.setattr(demo, "N_POINTS", 8)
    assert main(["demo", "--output", str(tmp_path / "new" / "demo")]) == 0
    captured = capsys.readouterr()
    assert "9/9" in captured.err
    assert "add up to their total charge within" in captured.out
    rows = {line[:6].strip(): line.split()[-3:] for line in captured.out.splitlines()}
    assert float(rows["kQEq"][0]) < float(rows["QEq,"][0])
    written = {p.name for p in (tmp_path / "new" / "demo").iterdir()}
    drawn = {"parity.png", "learning_curve.png", "molecule.png"}
    assert written == {"model.skqeq", "held_out.xyz"} | (drawn if figures else set())
    assert ('pip install "skqeq[plots]"' in captured.out) == (not figures)
    [next_command] = [line for line in captured.out.splitlines() if "skqeq evaluate" in line]
    assert main(next_command.split()[1:]) == 0


@pytest.mark.parametrize("sign", [-1, 1])
def test_negative_atoms_are_red(tmp_path, monkeypatch, sign):
    read = pytest.importorskip("matplotlib.image").imread
    X = labelled(3)
    D = np.array([atoms.info["REF_dipole"] for atoms in X])
    charges = [np.full(len(atoms), 0.3 * sign) for atoms in X]
    monkeypatch.setattr(demo, "predict_charges", lambda model, some: charges[: len(some)])
    monkeypatch.setattr(demo, "plot_learning_curve", lambda *errors, ax, **options: ax)
    paths = demo.draw(tmp_path, None, X[:1], D[:1], {"kQEq": D[:1]}, ([], []))
    pixels = read(paths[-1])
    molecule = pixels[:, : int(0.75 * pixels.shape[1])]  # without the bar of colours
    redder = molecule[..., 0] - molecule[..., 2]
    assert np.sum(-sign * redder > 0.2) > 1000
    assert np.sum(sign * redder > 0.2) == 0


def test_demo_says_when_it_cannot_write(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "File exists" in error_of(capsys, "demo", "-o", tmp_path / "file")
    if os.geteuid():
        tmp_path.chmod(0o500)
        assert "Permission denied" in error_of(capsys, "demo", "-o", tmp_path / "new")
