"""Fits to energies and forces, side by side with the program ``gap_fit``.

    python benchmarks/potentials.py [ZNO] [--repeats 3]

The models are a local energy (GAP) fitted by ``gap_fit`` and by skqeq, and the models of skqeq
with charges. All models have the same training structures, labels, cutoff, number of sparse points,
noise and energies of free atoms. The structures are the bundled clusters of water without a field,
with one split by trajectory. ZNO is an extended XYZ file of zinc oxide clusters with
``REF_energy``, ``REF_forces`` and ``group``: every fourth cluster is in the training set, and
clusters of other groups are predicted.

Every fit is a new process with one thread. Its processor time and its peak memory include the start
of the process and the imports. The time is the shortest of all repetitions, in which the models
alternate, because other programs slow down a shared machine. ``gap_fit`` is part of quippy-ase, in
the extra ``oracles``. The table is printed and written to ``benchmarks/results/potentials.csv``.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import ase.io
import joblib
import numpy as np
from ase.data import chemical_symbols
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    GAPRegressor,
    KQEqRegressor,
    QEq,
    SOAPFeaturizer,
    StructureBlocks,
    predict_targets,
    targets_from_atoms,
)
from skqeq.datasets import load_water

RESULTS = Path(__file__).parent / "results"
N_POINTS = 500
R_CUT, CUTOFF_WIDTH, SIGMA_ATOM, N_MAX, L_MAX, ZETA = 4.0, 0.5, 0.5, 6, 5, 2
NOISE = {"sigma_energy": 0.01, "sigma_forces": 0.1}  # eV for one atom, eV/Angstrom
AMPLITUDES = {"amplitude_gap": 10.0, "amplitude_chi": 3.0}
# The values of `gap_accuracy.py`, and those of [V23] for zinc oxide.
RESPONSES = {
    "water": (
        QEq(radius_scale=1.3, hardness=30.0),
        ChargeFlow(softness=0.1, range=0.15, radius_scale=1.0),
    ),
    "zinc oxide": (
        QEq(radius_scale=0.71, hardness=27.2),
        ChargeFlow(radius_scale=0.71, hardness=27.2),
    ),
}
GAP_FIT = "gap_fit"
NAMES = (GAP_FIT, "GAP", "kQEq", "GAP+kQEq", "GAP+ChargeFlow")


# ---- data ---------------------------------------------------------------------------------------


def water(n_train=500, n_test=200):
    """Labelled clusters of water without a field, from different trajectories."""
    X, y, groups = load_water(return_groups=True)
    [split] = GroupShuffleSplit(1, test_size=0.3, random_state=0).split(X, groups=groups)
    for i, atoms in enumerate(X):
        atoms.info = {"charge": atoms.info["charge"], "field": "external_field" in atoms.info}
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = y["energy"][i], y["forces"][i]
    train, test = ([X[i] for i in part if not X[i].info["field"]] for part in split)
    return train[:n_train], test[:n_test]


def zinc_oxide(path):
    """Every fourth cluster, and the clusters of all groups that are not among these."""
    X = ase.io.read(path, ":")
    groups = {atoms.info["group"] for atoms in X[::4]}
    return X[::4], [atoms for atoms in X if atoms.info["group"] not in groups]


def write_structures(path, X):
    """Write labelled clusters in boxes: ``gap_fit`` skips the energy of a structure without one."""
    X = [atoms.copy() for atoms in X]
    for atoms in X:
        atoms.center(vacuum=10.0)
    ase.io.write(path, X, format="extxyz")


def read_structures(path):
    X = ase.io.read(path, ":")
    return X, targets_from_atoms(X, ["energy", "forces"])


def atomic_energies(X, y):
    """Energies of free atoms by symbol, from a least-squares fit to the energies."""
    counts = np.array([np.bincount(atoms.numbers, minlength=119) for atoms in X])
    energies = np.linalg.lstsq(counts, y["energy"], rcond=None)[0]
    return {chemical_symbols[z]: float(energies[z]) for z in np.flatnonzero(counts.any(axis=0))}


# ---- models -------------------------------------------------------------------------------------


def model(study, name, free_atoms, n_points=N_POINTS):
    """An unfitted pipeline."""
    features = make_pipeline(
        SOAPFeaturizer(R_CUT, N_MAX, L_MAX, sigma_atom=SIGMA_ATOM, cutoff_width=CUTOFF_WIDTH),
        CURSparsifier(n_points=n_points, zeta=ZETA),
    )
    # The noise of the energy in `gap_fit` also grows as the root of the number of atoms.
    options = NOISE | {"energy_noise": "sqrt_n", "atomic_energies": free_atoms}
    qeq, flow = RESPONSES[study]
    if name == "GAP":
        regressor = GAPRegressor(**options, amplitude_gap=AMPLITUDES["amplitude_gap"])
        return make_pipeline(features, regressor)
    if name == "kQEq":
        options["amplitude_chi"] = AMPLITUDES["amplitude_chi"]
        return make_pipeline(features, KQEqRegressor(**options, response=qeq))
    response = {"GAP+kQEq": qeq, "GAP+ChargeFlow": flow}[name]
    blocks = StructureBlocks([("chi", features), ("gap", features)])
    return make_pipeline(blocks, GAPKQEqRegressor(**options, **AMPLITUDES, response=response))


def gap_fit_command(free_atoms, n_points=N_POINTS):
    """Command line of ``gap_fit`` with the settings of `model`."""
    noise = " ".join(str(NOISE[name]) for name in ("sigma_energy", "sigma_forces"))
    e0 = ":".join(f"{symbol}:{energy!r}" for symbol, energy in free_atoms.items())
    soap = f"soap cutoff={R_CUT} cutoff_transition_width={CUTOFF_WIDTH} atom_sigma={SIGMA_ATOM} "
    soap += f"n_max={N_MAX} l_max={L_MAX} covariance_type=dot_product zeta={ZETA} "
    soap += f"delta={AMPLITUDES['amplitude_gap']} n_sparse={n_points} sparse_method=cur_points"
    return [
        *(sys.executable, "-c", "from quippy.cli import gap_fit; gap_fit()"),
        *("atoms_filename=train.xyz", "gap_file=gap_fit.xml", "do_copy_atoms_file=F", "rnd_seed=1"),
        *("energy_parameter_name=REF_energy", "force_parameter_name=REF_forces", f"e0={{{e0}}}"),
        f"default_kernel_regularisation={{{noise} 0 0}}",
        f"gap={{{soap}}}",
    ]


# ---- processes ----------------------------------------------------------------------------------


def fit(study, name, n_points):
    """Fit one model in this process, with the files in the current folder."""
    X, y = read_structures("train.xyz")
    fitted = model(study, name, atomic_energies(X, y), int(n_points)).fit(X, y)
    joblib.dump(fitted, f"{name}.joblib")


def predict(name):
    """Predict energies and forces of the test structures in this process."""
    X, _ = read_structures("test.xyz")
    if name == GAP_FIT:
        from quippy.potential import Potential

        X = [atoms.copy() for atoms in X]
        calculator = Potential(param_filename="gap_fit.xml")
        for atoms in X:
            atoms.calc = calculator
        energies = np.array([atoms.get_potential_energy() for atoms in X])
        forces = [atoms.get_forces() for atoms in X]
    else:
        predicted = predict_targets(joblib.load(f"{name}.joblib"), X, ["energy", "forces"])
        energies, forces = predicted["energy"], predicted["forces"]
    np.savez(f"{name}.npz", energy=energies, forces=np.concatenate(list(forces)))


def fit_command(study, name, folder, n_points=N_POINTS):
    """The command that fits a model to ``train.xyz`` in a folder."""
    if name == GAP_FIT:
        free_atoms = atomic_energies(*read_structures(folder / "train.xyz"))
        return gap_fit_command(free_atoms, n_points)
    return [sys.executable, __file__, "--fit", study, name, str(n_points)]


def measured(command, folder):
    """Run a command in one thread; return its processor time in seconds and peak memory in GiB."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | threads, stdout=log, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} failed:\n{(folder / 'log').read_text()}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def run(study, name, folder, n_points=N_POINTS):
    """Fit one model and predict the test structures; return time and memory of the fit."""
    figures = measured(fit_command(study, name, folder, n_points), folder)
    if name == GAP_FIT:
        check_labels_read((folder / "log").read_text(), folder)
    measured([sys.executable, __file__, "--predict", name], folder)
    return figures


def check_labels_read(log, folder):
    """Raise an error if ``gap_fit`` did not find all labels, which its log only counts."""
    X, _ = read_structures(folder / "train.xyz")
    for label, n in (("energies", len(X)), ("forces", 3 * sum(map(len, X)))):
        [line] = (line for line in log.splitlines() if f"Number of target {label} " in line)
        if int(line.split()[-1]) != n:
            raise RuntimeError(f"gap_fit did not read all {n} {label}: {line}")


# ---- table --------------------------------------------------------------------------------------


def rms(values):
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def errors(folder, name):
    """RMSE of the energies in meV/atom, and of the forces in meV/Angstrom.

    Without a name, the energies are those of free atoms, and the forces are zero.
    """
    X, y = read_structures(folder / "test.xyz")
    labels = {"energy": y["energy"], "forces": np.concatenate(list(y["forces"]))}
    if name is None:
        free_atoms = atomic_energies(*read_structures(folder / "train.xyz"))
        energies = np.array([sum(free_atoms[s] for s in atoms.symbols) for atoms in X])
        predicted = {"energy": energies, "forces": 0.0}
    else:
        predicted = np.load(folder / f"{name}.npz")
    energy = (predicted["energy"] - labels["energy"]) / [len(atoms) for atoms in X]
    return 1e3 * rms(energy), 1e3 * rms(predicted["forces"] - labels["forces"])


def compare(study, train, test, folder, repeats):
    """Yield a row for each model."""
    write_structures(folder / "train.xyz", train)
    write_structures(folder / "test.xyz", test)
    best = np.full((len(NAMES), 2), np.inf)
    for _ in range(repeats):
        for i, name in enumerate(NAMES):
            best[i] = np.minimum(best[i], run(study, name, folder))
            print(study, name, *best[i], *errors(folder, name), flush=True)
    figures = {name: (f"{s:.1f}", f"{g:.2f}") for name, (s, g) in zip(NAMES, best, strict=True)}
    for name in (*NAMES, None):
        seconds, memory = figures.get(name, ("", ""))
        energy, forces = errors(folder, name)
        yield {
            "data": study,
            "model": name or "one energy per element",
            "CPU seconds": seconds,
            "peak memory (GiB)": memory,
            "energy (meV/atom)": f"{energy:.2f}",
            "forces (meV/A)": f"{forces:.1f}",
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("zno", nargs="?", help="extended XYZ file of zinc oxide clusters")
    parser.add_argument("--repeats", type=int, default=1, help="fits of every model")
    parser.add_argument("--fit", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--predict", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fit:
        return fit(*args.fit)
    if args.predict:
        return predict(args.predict)
    studies = {"water": water()}
    if args.zno:
        studies["zinc oxide"] = zinc_oxide(args.zno)
    rows = []
    for study, data in studies.items():
        with tempfile.TemporaryDirectory() as folder:
            rows += compare(study, *data, Path(folder), args.repeats)
    with open(RESULTS / "potentials.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(*row.values(), sep="  ")


if __name__ == "__main__":
    main()
