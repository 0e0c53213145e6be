"""Energies and forces of a local model against ``gap_fit``.

quippy-ase is in the extra `oracles`. The radial basis functions of the two programs differ, so the
models agree only where both of them are accurate.
"""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT

from .. import helpers

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def labelled(seed):
    """A molecule of methanol with displaced atoms, and labels of a simple potential."""
    atoms = helpers.rattled("CH3OH", seed, amplitude=0.05)
    calculated = atoms.copy()
    calculated.calc = EMT()
    atoms.info["REF_energy"] = calculated.get_potential_energy()
    atoms.arrays["REF_forces"] = calculated.get_forces()
    return atoms


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Training and test structures of the benchmark."""
    pytest.importorskip("quippy")
    monkeypatch.syspath_prepend(BENCHMARKS)
    potentials = import_module("potentials")
    X = [labelled(seed) for seed in range(50)]
    potentials.write_structures(tmp_path / "train.xyz", X[:40])
    potentials.write_structures(tmp_path / "test.xyz", X[40:])
    return tmp_path


def test_gap_fit(folder):
    potentials = import_module("potentials")
    predicted = {}
    for name in ("gap_fit", "GAP"):
        seconds, memory = potentials.run("water", name, folder, n_points=40)
        assert seconds > 0.1 and 0.05 < memory < 4.0
        energy, forces = potentials.errors(folder, name)
        assert energy < 0.1 * potentials.errors(folder, None)[0]
        assert forces < 0.1 * potentials.errors(folder, None)[1]
        predicted[name] = np.load(folder / f"{name}.npz")["forces"].ravel()
    assert np.corrcoef(predicted["gap_fit"], predicted["GAP"])[0, 1] > 0.99


def test_missing_labels_are_found(folder):
    potentials = import_module("potentials")
    X, _ = potentials.read_structures(folder / "train.xyz")
    for atoms in X:
        atoms.calc, atoms.cell = None, None
    potentials.ase.io.write(folder / "train.xyz", X, format="extxyz")
    with pytest.raises(RuntimeError, match="did not read all 40 energies"):
        potentials.run("water", "gap_fit", folder, n_points=40)
