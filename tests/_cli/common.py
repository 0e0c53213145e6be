"""Labelled structures and helpers for the tests of all commands."""

import numpy as np
from ase.build import molecule

from skqeq import QEq, QEqRegressor
from skqeq.cli import main

NAMES = ("H2O", "CH3OH", "CH4", "CH3CH2OH", "CH3CHO", "C2H6", "H2CO")
SMALL = ["--r-cut", "3.0", "--n-max", "3", "--l-max", "2", "--n-points", "8"]
PULL = {"H": 0.0, "C": 0.2, "O": 0.8}


def labelled(n_copies=3, names=NAMES):
    """Rattled molecules with invented charges and dipoles under REF_ names."""
    rng = np.random.default_rng(0)
    X = []
    for group, name in enumerate(names * n_copies):
        atoms = molecule(name)
        atoms.rattle(0.05, rng=rng)
        pull = np.array([PULL[s] for s in atoms.symbols])
        charges = pull.mean() - pull
        atoms.set_array("REF_charges", charges)
        atoms.info["REF_dipole"] = charges @ (atoms.positions - atoms.get_center_of_mass())
        atoms.info["family"] = name
        atoms.info["number"] = group
        X.append(atoms)
    return X


def with_energies(X):
    """Add energies and forces from a classical QEq model with small charges."""
    D = np.array([atoms.info["REF_dipole"] for atoms in X])
    model = QEqRegressor(response=QEq(hardness=8.0)).fit(X, D)
    model.atomic_energies_ = np.array([-13.0, -1030.0, -2040.0])
    for atoms, energy, forces in zip(X, model.predict_energy(X), model.predict_forces(X)):
        atoms.info["REF_energy"] = energy
        atoms.set_array("REF_forces", forces)
    return X


def error_of(capsys, *argv):
    """Run a command that fails, and return the line that it prints."""
    assert main([str(a) for a in argv]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "Traceback" not in lines[0]
    return lines[0]


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]
