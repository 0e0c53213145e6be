"""Accuracy of energies, forces and charges of zinc oxide: cross-validation by group.

    python benchmarks/zno_accuracy.py DATA clusters | bulk [--only FOLD ...]

DATA is an extended XYZ file of ZnO nanoparticles or crystals with ``REF_energy``, ``REF_forces``,
``REF_charges`` (Hirshfeld) and ``group``. The models are trained on energies and forces only. Their
charges are compared with the Hirshfeld charges, which are not used for training. All structures of
a group are in the same fold, and the sparse set is selected from the training structures of each
fold. The predictions of a fold are stored in ``./zno_folds``, and are not computed again. With
``--only``, several processes can compute different folds.
"""

import argparse
import time
from pathlib import Path

import ase.io
import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from tqdm import tqdm

from skqeq import CURSparsifier, KQEqRegressor, QEq, SOAPFeaturizer, strip, targets_from_atoms

RESULTS = Path(__file__).parent / "results"
FOLDS = Path("zno_folds")
PICTURES = Path(__file__).parents[1] / "docs" / "_static"
TARGETS = ("energy", "forces", "charges")


def pipeline():
    """The model; all other parameters have their defaults."""
    return make_pipeline(
        SOAPFeaturizer(r_cut=(3.0, 6.0), cutoff_width=(1.5, 4.0), n_max=6, l_max=4),
        CURSparsifier(n_points=500),
        KQEqRegressor(
            amplitude_chi=20.0,
            sigma_energy=0.0005,
            sigma_forces=0.05,
            response=QEq(radius_scale=0.7071, hardness=27.2),
            verbose=1,
        ),
    )


def run_fold(X, y, train, test, path):
    """Fit to one fold, predict its test structures, and store the predictions."""
    start = time.perf_counter()
    model = pipeline().fit([X[i] for i in train], y[["energy", "forces"]][train])
    seconds = time.perf_counter() - start
    regressor, transformer = model[-1], model[:-1]
    predicted = regressor.predict_targets(transformer.transform([X[i] for i in test]), TARGETS)
    history = [entry["loss"] for entry in regressor.fit_history_]
    np.savez_compressed(
        path,
        test=test,
        seconds=seconds,
        loss=history,
        energy=predicted["energy"],
        forces=np.concatenate(list(predicted["forces"])).astype(np.float32),
        charges=np.concatenate(list(predicted["charges"])).astype(np.float32),
    )


def errors(X, y, folds):
    """Return a table of errors, the atomic numbers, and the labelled and predicted charges."""
    rows, charges = [], []
    pooled = {"energy": [], "baseline": [], "forces": []}
    for k, (train, test) in enumerate(folds):
        predicted = np.load(FOLDS / f"{len(X)}_{k}.npz")
        n_atoms = np.array([len(X[i]) for i in test])
        energy = 1e3 * (predicted["energy"] - y["energy"][test]) / n_atoms
        mean = np.mean([y["energy"][i] / len(X[i]) for i in train])
        labels = {name: np.concatenate([y[name][i] for i in test]) for name in TARGETS[1:]}
        forces = 1e3 * (predicted["forces"] - labels["forces"])
        numbers = np.concatenate([X[i].numbers for i in test])
        charges.append((numbers, labels["charges"], predicted["charges"]))
        pooled["energy"].append(energy)
        pooled["baseline"].append(1e3 * (mean - y["energy"][test] / n_atoms))
        pooled["forces"].append(forces.ravel())
        rows.append((k, len(test), energy, forces))
    rows.append(("all", len(X), np.concatenate(pooled["energy"]), np.concatenate(pooled["forces"])))
    table = [("fold", "structures", "energy RMSE (meV/atom)", "energy MAE", "forces RMSE (meV/A)")]
    for k, n, energy, forces in rows:
        values = rms(energy), np.abs(energy).mean(), rms(forces)
        table.append((k, n, *(f"{value:.2f}" for value in values)))
    baseline = rms(np.concatenate(pooled["baseline"]))
    table.append(("one energy per atom", len(X), f"{baseline:.1f}", "", ""))
    return table, [np.concatenate(column) for column in zip(*charges, strict=True)]


def rms(x):
    """Root mean square."""
    return np.sqrt(np.mean(np.square(x)))


def plot_charges(numbers, labels, predicted, path):
    """Plot predicted charges against Hirshfeld charges."""
    figure, ax = plt.subplots(figsize=(4.8, 4.4), layout="constrained")
    for number, color, name in ((8, "tab:red", "O"), (30, "tab:blue", "Zn")):
        element = numbers == number
        ax.plot(labels[element], predicted[element], ".", ms=2, alpha=0.4, color=color, label=name)
    ends = [min(labels.min(), predicted.min()), max(labels.max(), predicted.max())]
    ax.plot(ends, ends, "k-", lw=0.8)
    ax.set(xlabel="Hirshfeld charge (e)", ylabel="charge of the model of energies and forces (e)")
    ax.legend(markerscale=6)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("study", choices=["clusters", "bulk"])
    parser.add_argument("--only", type=int, nargs="+", metavar="FOLD")
    args = parser.parse_args()
    labelled = ase.io.read(args.data, ":")
    y = targets_from_atoms(labelled, TARGETS)
    groups = np.array([atoms.info["group"] for atoms in labelled])
    X = strip(labelled)
    folds = list(GroupKFold(5, shuffle=True, random_state=0).split(X, groups=groups))
    FOLDS.mkdir(exist_ok=True)
    for k, (train, test) in enumerate(tqdm(folds, desc="folds")):
        path = FOLDS / f"{len(X)}_{k}.npz"
        if not path.exists() and (args.only is None or k in args.only):
            run_fold(X, y, train, test, path)
    if args.only is not None:
        return
    table, charges = errors(X, y, folds)
    for row in table:
        print("  ".join(map(str, row)))
    (RESULTS / f"zno_{args.study}.csv").write_text(
        "".join(",".join(map(str, row)) + "\n" for row in table)
    )
    numbers, label, predicted = charges
    for number, name in ((30, "Zn"), (8, "O")):
        q, hirshfeld = predicted[numbers == number], label[numbers == number]
        print(
            f"{name}: charge {q.mean():+.3f} +- {q.std():.3f} e, "
            f"Hirshfeld {hirshfeld.mean():+.3f} +- {hirshfeld.std():.3f} e, "
            f"correlation {np.corrcoef(hirshfeld, q)[0, 1]:.2f}"
        )
    plot_charges(*charges, PICTURES / f"zno_{args.study}_charges.png")


if __name__ == "__main__":
    main()
