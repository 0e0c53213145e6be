"""Structures from standard input, pipes, and files of many formats."""

import io
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import read, write

from skqeq._cli.files import read_numbered
from skqeq._cli.inputs import DECOMPRESS, entries

from .common import error_of, labelled


def symbols(path):
    return [str(atoms.symbols) for atoms in read_numbered(str(path))[1]]


@pytest.fixture
def X():
    return [molecule(name) for name in ("H2O", "NH3", "CH4", "CO2", "HCl")]


@pytest.mark.parametrize("suffix", [".xyz", ".XYZ", ".extxyz", ".traj", ".TRAJ", ".db", ".json"])
@pytest.mark.parametrize("selection", ["", "@1:3", "@-2:", "@::-2", "@2", "@-1", "@:", "@3:99"])
def test_selections_have_the_indices_of_the_file(X, tmp_path, suffix, selection):
    path = tmp_path / f"in{suffix}"
    form = {".xyz": "extxyz", ".extxyz": "extxyz"}.get(suffix.lower(), suffix[1:].lower())
    write(path, X, format=form)
    expected = range(5)[_slice(selection[1:])]
    found = list(entries(f"{path}{selection}"))
    assert [i for i, _ in found] == list(expected)
    assert [str(read().symbols) for _, read in found] == [str(X[i].symbols) for i in expected]


def _slice(text):
    if not text:
        return slice(None)
    if ":" not in text:
        return slice(int(text), int(text) + 1 or None)
    return slice(*(int(part) if part else None for part in text.split(":")))


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".xz", ".GZ"])
@pytest.mark.parametrize("selection", ["", "@1:3", "@-2:"])
def test_compressed_files_with_blank_lines(X, tmp_path, packed, selection):
    text = ""
    for atoms in X:
        part = io.StringIO()
        write(part, atoms, format="extxyz")
        text += part.getvalue() + "\n"
    path = tmp_path / f"in.xyz{packed}"
    with DECOMPRESS[packed.lower()](path, "wt") as file:
        file.write(text)
    assert symbols(f"{path}{selection}") == [str(a.symbols) for a in X[_slice(selection[1:])]]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="cannot read .*in.xyz"):
        symbols(path)


def test_pipes_and_names_with_an_at(X, tmp_path):
    write(tmp_path / "water@300K.xyz", X)
    assert symbols(tmp_path / "water@300K.xyz") == [str(a.symbols) for a in X]
    assert symbols(f"{tmp_path}/water@300K.xyz@0") == ["OH2"]
    with pytest.raises(ValueError, match="'x:y' is not a slice"):
        symbols(f"{tmp_path}/water@300K.xyz@x:y")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = (tmp_path / "water@300K.xyz").read_text()
    thread = threading.Thread(target=pipe.write_text, args=[text])
    thread.start()
    assert symbols(pipe) == [str(a.symbols) for a in X]
    thread.join()


@pytest.mark.parametrize(
    "name, message",
    [
        ("in.mol2", "ASE knows no format .mol2; .* xyz, extxyz, traj"),
        ("in.foo", "ASE knows no format .foo"),
        ("in.cif", "cannot read .*in.cif"),
        ("in.traj", "cannot read .*in.traj"),
    ],
)
def test_formats_that_cannot_be_read(tmp_path, name, message):
    (tmp_path / name).write_text("@<TRIPOS>MOLECULE\nwater\n 3 2\n")
    with pytest.raises(ValueError, match=message):
        symbols(tmp_path / name)


@pytest.mark.parametrize("form, name", [("cif", "a.cif"), ("vasp", "POSCAR"), ("xsf", "a.xsf")])
def test_formats_of_ase(tmp_path, form, name):
    crystal = bulk("ZnO", "wurtzite", a=3.25, c=5.2)
    write(tmp_path / name, crystal, format=form)
    [atoms] = read_numbered(str(tmp_path / name))[1]
    np.testing.assert_allclose(atoms.get_volume(), crystal.get_volume(), rtol=1e-4)
    assert sorted(atoms.symbols) == sorted(crystal.symbols)


@pytest.mark.once
def test_predictions_between_two_pipes(folder):
    command = [
        sys.executable,
        "-P",
        "-m",
        "skqeq.cli",
        "predict",
        f"{folder}/model.skqeq",
        "-",
        "-q",
    ]
    text = (folder / "train.xyz").read_text()
    done = subprocess.run([*command, "-o", "-"], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = read(io.StringIO(done.stdout), ":", format="extxyz")
    assert [a.info["number"] for a in out] == list(range(len(labelled())))
    assert all("charges" in a.calc.results for a in out)
    assert "wrote 21 structures" in done.stderr


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "- holds no structures"),
        ("data_image0\n", "standard input, line 1: 'data_image0' is not the number of atoms"),
        ("1\n\nQq 0 0 0\n", "structure 0 of standard input: atom 0: 'Qq' is not the symbol"),
        (None, "standard input: it is closed"),
    ],
)
def test_unreadable_standard_input(folder, tmp_path, capsys, monkeypatch, text, message):
    (tmp_path / "in").write_text(text or "")
    with open(tmp_path / "in") as file:
        monkeypatch.setattr(sys, "stdin", None if text is None else file)
        assert message in error_of(capsys, "evaluate", folder / "model.skqeq", "-")
