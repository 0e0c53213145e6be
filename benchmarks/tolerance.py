"""Held-out errors and time of iterative fits at different tolerances: the choice of `tol`.

    python benchmarks/tolerance.py water | zno | lih | dipeptides [DATA]

The models have the settings of ``gap_accuracy.py``, with 100 sparse points per element. The data
are 150 bundled water clusters, every fourth cluster of zinc oxide (trained on energies and forces
only), all clusters of lithium hydride (energies and charges), or 40 dipeptides (energies, forces,
dipoles and charges). The errors come from folds by group: five for lithium hydride, three for the
others. The labels of dipeptides do not determine the energies of other molecular formulae. The rows
"dipeptides of one formula" therefore compare energies after the mean error of each formula was
subtracted.

One fit at the smallest tolerance passes through the weights at which fits with larger tolerances
stop, because the iteration depends on the tolerance only in the decision to stop. The script keeps
all of these weights, and the CPU time at which they were reached. Results of a fold are stored in
``./tolerance_folds``, and stored folds are not computed again. The script writes to
``results/tolerance.csv``, and keeps the rows of the other data. For every tolerance, the columns
are:

- the root mean square errors of energies and forces (means over the folds),
- their change in per cent relative to the smallest tolerance, and the largest change of any fold,
- the standard error of the error over the folds, in per cent of the error,
- the CPU time, which includes the descriptors, and the number of steps (means over the folds).
"""

import argparse
import csv
import os
import time
import warnings
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import ase.io
import joblib
import numpy as np
from gap_accuracy import (
    dipeptide_models,
    errors,
    grouped,
    lih_models,
    rms,
    water_models,
    zno_models,
)
from sklearn.base import clone

from skqeq import strip, targets_from_atoms
from skqeq.datasets import load_water
from skqeq.solvers import _gauss_newton

TABLE = Path(__file__).parent / "results/tolerance.csv"
STORED = Path("tolerance_folds")
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
N_POINTS = 100
N_FOLDS = {"water": 3, "zno": 3, "lih": 5, "dipeptides": 3}
STUDIED = {
    "water": water_models,
    "zno": zno_models,
    "lih": lih_models,
    "dipeptides": partial(dipeptide_models, charges=("dipole", "charges")),
}
MODELS = ("kQEq", "GAP+kQEq", "GAP+ChargeFlow")
COLUMNS = ["data", "model", "tol"]
for name in ("energy (meV/atom)", "forces (meV/A)"):
    short = name.split()[0]
    COLUMNS += [name, f"{short} change (%)", f"{short} largest change (%)"]
    COLUMNS += [f"{short} standard error (%)"]
COLUMNS += ["seconds", "steps"]


class Counted(_gauss_newton.Loss):
    """The loss, which counts matrices of normal equations."""

    matrices = 0

    def normal_equations(self, v):
        Counted.matrices += 1
        return super().normal_equations(v)


_gauss_newton.Loss = Counted


def recorded_fit(pipeline, X, y):
    """Fit a model; return what is known before every step of the full problem.

    Returns a list of dicts with the weights (``coef`` and ``atomic_energies``), the CPU time, the
    entry of the history, and whether the matrix of the normal equations is new.
    """
    regressor, begin, steps = pipeline[-1], time.process_time(), []
    state = {"matrices": 0}

    def set_weights(v, history):
        type(regressor).set_weights(regressor, v, history)
        # The last step is reported twice, and smaller problems have no history.
        if len(history) > len(steps):
            new = Counted.matrices > state["matrices"]
            steps.append(
                {
                    "coef": regressor.coef_.copy(),
                    "atomic_energies": regressor.atomic_energies_.copy(),
                    "seconds": time.process_time() - begin,
                    "new": new,
                    **history[-1],
                }
            )
        state["matrices"] = Counted.matrices

    regressor.set_weights = set_weights
    pipeline.fit(X, y)
    del regressor.set_weights
    return steps


def stop(steps, tol):
    """The number of the step at which a fit with tolerance `tol` stops."""
    for k, step in enumerate(steps):
        part = 1.0 if step["new"] else _gauss_newton.REUSED_PART
        if step["decrease"] <= part * tol * step["loss"]:
            return k
    return len(steps) - 1


def data(study, path):
    """Structures, targets, groups, and models with their training targets."""
    if study == "water":
        X, y, groups = load_water(return_groups=True)
        chosen = np.random.default_rng(0).permutation(len(X))[:150]
        X, y, groups = [X[i] for i in chosen], y[chosen], groups[chosen]
        return X, y, groups, STUDIED[study](N_POINTS)
    labelled = ase.io.read(path, ":")
    if study == "zno":
        labelled = labelled[::4]
    if study == "dipeptides":
        chosen = np.random.default_rng(0).permutation(len(labelled))[:40]
        labelled = [labelled[i] for i in chosen]
    names = ["energy", "forces", "charges", "dipole"]
    keys = {**labelled[0].arrays, **labelled[0].info}
    y = targets_from_atoms(labelled, [name for name in names if f"REF_{name}" in keys])
    groups = np.array([atoms.info["group"] for atoms in labelled])
    return strip(labelled), y, groups, STUDIED[study](N_POINTS)


def fold_rows(pipeline, X, y, train, test, names, groups):
    """Fit to one fold; return its errors by tolerance, and all steps."""
    y_train = y[list(names)][train]
    steps = recorded_fit(pipeline, [X[i] for i in train], y_train)
    return held_out(pipeline, steps, X, y, test, groups), steps


def held_out(pipeline, steps, X, y, test, groups):
    """Errors for the test structures, by tolerance.

    Returns an array of shape (n_tolerances, 5): the errors of energies and of forces, the CPU time,
    the number of steps, and the error of energies relative to the mean error of their group.
    """
    regressor, X_test = pipeline[-1], pipeline[:-1].transform([X[i] for i in test])
    n_atoms = np.array([len(atoms) for atoms in X])
    targets = [name for name in ("energy", "forces") if name in y.dtype.names]
    _, group = np.unique(groups[test], return_inverse=True)
    rows = []
    for tol in TOLERANCES:
        k = stop(steps, tol)
        regressor.coef_ = steps[k]["coef"]
        regressor.atomic_energies_ = steps[k]["atomic_energies"]
        error = errors(regressor.predict_targets(X_test, targets), y, test, n_atoms)
        energy, forces = error["energy"], error.get("forces", np.nan)
        relative = energy - (np.bincount(group, energy) / np.bincount(group))[group]
        values = rms("energy", energy), rms("forces", forces)
        rows.append([*values, steps[k]["seconds"], k, rms("energy", relative)])
    return np.array(rows)


def summary(study, name, folds):
    """Rows of the table of one model, from an array (n_folds, n_tolerances, 5)."""
    mean = folds.mean(axis=0)
    for i, tol in enumerate(TOLERANCES):
        row = {"data": study, "model": name, "tol": f"{tol:.0e}"}
        for k, target in enumerate(("energy (meV/atom)", "forces (meV/A)")):
            if np.isnan(mean[i, k]):
                continue
            changes = 100 * (folds[:, i, k] / folds[:, -1, k] - 1)
            error = np.std(folds[:, -1, k], ddof=1) / np.sqrt(len(folds))
            short = target.split()[0]
            row[target] = f"{mean[i, k]:.3f}"
            row[f"{short} change (%)"] = f"{100 * (mean[i, k] / mean[-1, k] - 1):+.2f}"
            row[f"{short} largest change (%)"] = f"{changes[np.argmax(abs(changes))]:+.2f}"
            row[f"{short} standard error (%)"] = f"{100 * error / mean[-1, k]:.1f}"
        row["seconds"], row["steps"] = f"{mean[i, 2]:.1f}", f"{mean[i, 3]:.1f}"
        yield row


def write(rows):
    """Write rows to the table, in place of older rows of the same data and model."""
    new = {(row["data"], row["model"]) for row in rows}
    kept = []
    if TABLE.exists():
        with TABLE.open() as file:
            kept = [r for r in csv.DictReader(file) if (r["data"], r["model"]) not in new]
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=["water", "zno", "lih", "dipeptides"])
    parser.add_argument("data", nargs="?")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="gauss_newton stopped|n_points=")
    X, y, groups, studied = data(args.study, args.data)
    for name in MODELS:
        pipeline, names = studied[name]
        if args.study == "zno":
            names = ("energy", "forces")
        folds = []
        for k, (train, test) in enumerate(grouped(X, groups, N_FOLDS[args.study])):
            path = STORED / f"{args.study}_{name}_{k}.joblib"
            if not path.exists():
                STORED.mkdir(exist_ok=True)
                model = clone(pipeline)
                model[-1].set_params(tol=TOLERANCES[-1], max_iter=50)
                joblib.dump(fold_rows(model, X, y, train, test, names, groups), path)
            rows, steps = joblib.load(path)
            folds.append(rows)
            last = steps[-1]
            print(
                f"{args.study} {name}: {last['seconds']:.0f} s, {len(steps)} steps, "
                f"{sum(s['new'] for s in steps)} matrices, loss {last['loss']:.5g}, shortest step "
                f"{min((s['step'] for s in steps[1:]), default=1.0):.2g}",
                flush=True,
            )
        folds = np.array(folds)
        rows = list(summary(args.study, name, folds))
        if args.study == "dipeptides":
            folds[:, :, 0], folds[:, :, 1] = folds[:, :, 4], np.nan
            rows += summary("dipeptides of one formula", name, folds)
        for row in rows:
            print("  ".join(row.values()), flush=True)
        write(rows)


if __name__ == "__main__":
    main()
