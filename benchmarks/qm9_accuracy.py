"""Accuracy of dipole moments of QM9 molecules: cross-validation, learning curve, several targets.

    python benchmarks/qm9_accuracy.py DATA cv | learning-curve | multitask | settings

DATA is an extended XYZ file of QM9 molecules with ``REF_dipole`` (PBE0, e*Angstrom),
``REF_charges`` (Mulliken), ``REF_dipole_magnitude_b3lyp`` and ``group``. All molecules of a group
are in the same fold. In each fold, the sparse set and the noise are chosen with the training
molecules only. Tables are written to ``benchmarks/results``. The results of finished folds are
stored there, too, and are not computed again.
"""

import argparse
import csv
import json
import time
import warnings
from pathlib import Path

import ase.io
import numpy as np
from ase.neighborlist import natural_cutoffs, neighbor_list
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, GroupShuffleSplit
from sklearn.pipeline import make_pipeline
from tqdm import tqdm

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    KQEqRegressor,
    QEq,
    QEqRegressor,
    SOAPFeaturizer,
    make_targets,
    predict_target,
    targets_from_atoms,
)
from skqeq.metrics import dipole_errors
from skqeq.model_selection import TargetScorer
from skqeq.parameters import DEBYE
from skqeq.plotting import plot_learning_curve

RESULTS = Path(__file__).parent / "results"
PICTURES = Path(__file__).parents[1] / "docs" / "_static"
N_POINTS = 1000
# The best values in the table that the study `settings` writes. That study uses the same molecules.
SPARSIFIER = {"zeta": 1, "block_weights": (0.7, 0.3)}
NARROW = QEq(radius_scale=0.1)
# For each model, the parameters of the sparse set, and the response. The width of the charges was
# chosen by cross-validation for each response.
SETTINGS = {
    "kQEq, defaults": ({}, QEq()),
    "kQEq": (SPARSIFIER, NARROW),
    "ChargeFlow": (SPARSIFIER, ChargeFlow(softness=0.05, range=0.25, radius_scale=0.6)),
    "local charges": (SPARSIFIER, ChargeFlow(softness=0.0, radius_scale=0.6)),
}


def pipeline(n_points=N_POINTS, sparsifier=SPARSIFIER, response=NARROW):
    """The model of all studies: double SOAP, CUR, and kernel charge equilibration."""
    return make_pipeline(
        SOAPFeaturizer(r_cut=(1.7, 3.5), n_max=8, l_max=6),
        CURSparsifier(n_points=n_points, **sparsifier),
        KQEqRegressor(response=response),
    )


def load(path):
    """Read molecules, labels and groups; the two levels of theory are different targets."""
    X = ase.io.read(path, ":")
    y = targets_from_atoms(
        X,
        {
            "dipole": "REF_dipole",
            "charges": "REF_charges",
            "dipole_magnitude": "REF_dipole_magnitude_b3lyp",
        },
    )
    return X, y, np.array([atoms.info["group"] for atoms in X])


def search(model, grid, target):
    """Make a search for the noise with the lowest MAE on one held-out fifth of the groups."""
    scorer = TargetScorer(target, "mae")
    split = GroupShuffleSplit(1, test_size=0.2, random_state=0)
    return GridSearchCV(model, grid, scoring=scorer, cv=split, error_score="raise")


def folds(X, groups, n_splits=10):
    """Folds in which every group is complete."""
    return GroupKFold(n_splits, shuffle=True, random_state=0).split(X, groups=groups)


def take(X, index):
    """The molecules with these indices."""
    return [X[i] for i in index]


class Store:
    """Results of finished folds, written to a file after each fold."""

    def __init__(self, name):
        RESULTS.mkdir(exist_ok=True)
        self.path = RESULTS / f"{name}.json"
        self.data = json.loads(self.path.read_text()) if self.path.exists() else {}

    def get(self, key, compute):
        """Return the result that is stored under `key`; compute and store it if there is none."""
        if key not in self.data:
            self.data[key] = compute()
            self.path.write_text(json.dumps(self.data))
        return self.data[key]


def cross_validate(name, model, grid, X, y, groups, train_target, score_target):
    """Predict `score_target` for every molecule by the model that was trained on other folds."""
    store = Store(name)
    predicted = np.full((len(X), 3) if score_target == "dipole" else len(X), np.nan)
    chosen = []
    for k, (train, test) in enumerate(tqdm(list(folds(X, groups)), desc=name)):

        def compute(train=train, test=test):
            labels = make_targets(**{t: y[t][train] for t in train_target})
            searched = search(clone(model), grid, score_target)
            with warnings.catch_warnings():
                # Rare elements have fewer environments than the requested sparse points.
                warnings.filterwarnings("ignore", "n_points")
                start = time.perf_counter()
                searched.fit(take(X, train), labels, groups=groups[train])
            values = predict_target(searched, take(X, test), score_target)
            seconds = time.perf_counter() - start
            return {
                "values": values.tolist(), "best": searched.best_params_, "seconds": seconds,
            }  # fmt: skip

        fold = store.get(str(k), compute)
        predicted[test] = fold["values"]
        chosen.append(fold["best"])
    return predicted, chosen


SIGMAS = {"kqeqregressor__sigma_dipole": [0.00025, 0.0005, 0.001, 0.002]}


def run_settings(X, y, groups):
    """Compare models in which one setting differs from the defaults; three folds, 500 points."""
    start = {"zeta": 2, "block_weights": None, "radius_scale": 0.2, "r_cut": (1.7, 3.5)}
    changes = [
        {}, {"radius_scale": 0.1}, {"radius_scale": 0.35}, {"zeta": 1}, {"zeta": 3},
        {"block_weights": (0.7, 0.3)}, {"r_cut": (1.7, 4.5)}, {"r_cut": 3.5}, {"method": "fps"},
        {"hardness": 10.0}, {"baseline": False}, {"n_points": 1000},
        {"zeta": 1, "block_weights": (0.7, 0.3), "radius_scale": 0.1},
    ]  # fmt: skip
    store, rows = Store("settings"), []
    owners = {"r_cut": "soapfeaturizer", "radius_scale": "kqeqregressor__response",
              "hardness": "kqeqregressor__response", "baseline": "kqeqregressor"}  # fmt: skip
    for change in changes:
        name = ", ".join(f"{k} = {v}" for k, v in change.items()) or "defaults"
        errors = []
        for k, (train, test) in enumerate(list(folds(X, groups))[:3]):

            def compute(train=train, test=test, change=change):
                settings = {**start, **change}
                model = pipeline(500, {}, QEq()).set_params(
                    **{f"{owners.get(k, 'cursparsifier')}__{k}": v for k, v in settings.items()}
                )
                searched = search(model, SIGMAS, "dipole")
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "n_points")
                    searched.fit(take(X, train), y["dipole"][train], groups=groups[train])
                return dipole_errors(y["dipole"][test], searched.predict(take(X, test)))

            errors.append(store.get(f"{name}/{k}", compute))
        rows.append(
            {"setting": name, **{m: np.mean([e[m] for e in errors]) for m in ("mae", "median")}}
        )
        rows[-1]["vector_rmse"] = np.sqrt(np.mean([e["vector_rmse"] ** 2 for e in errors]))
        print(rows[-1], flush=True)
    write("settings", rows)


def run_cv(X, y, groups):
    """Cross-validate every model and classical QEq in ten folds; list the largest errors."""
    rows = []
    for name, (sparsifier, response) in SETTINGS.items():
        model = pipeline(sparsifier=sparsifier, response=response)
        key = "cv_" + name.replace(", ", "_").lower()
        predicted, chosen = cross_validate(key, model, SIGMAS, X, y, groups, ["dipole"], "dipole")
        rows.append({"model": name, **dipole_errors(y["dipole"], predicted)})
        print(name, "sigma per fold:", [c["kqeqregressor__sigma_dipole"] for c in chosen])
        if name in ("kQEq", "ChargeFlow"):
            write(f"{key}_worst", worst(X, y["dipole"], predicted))
    classical = np.zeros((len(X), 3))
    for train, test in folds(X, groups):
        fitted = QEqRegressor().fit(take(X, train), y["dipole"][train])
        classical[test] = fitted.predict(take(X, test))
    rows.append({"model": "classical QEq", **dipole_errors(y["dipole"], classical)})
    write("cv", rows)


def worst(X, truth, predicted, n=10):
    """List the molecules with the largest errors of the dipole vector, and their motifs."""
    error = DEBYE * np.linalg.norm(predicted - truth, axis=1)
    share = error**2 / np.sum(error**2)
    rows = []
    for i in np.argsort(-error)[:n]:
        rows.append(
            {
                "index": int(i),
                "formula": X[i].get_chemical_formula(),
                "mu": DEBYE * np.linalg.norm(truth[i]),
                "predicted": DEBYE * np.linalg.norm(predicted[i]),
                "vector error": error[i],
                "share of squared error": share[i],
                "motif": motif(X[i]),
            }
        )
    return rows


def motif(atoms):
    """Name the motifs of a molecule: several fragments, nitro groups, formally charged groups."""
    first, second = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.15))
    bonds = [second[first == i] for i in range(len(atoms))]
    graph = csr_matrix((np.ones(len(first)), (first, second)), shape=(len(atoms),) * 2)
    n_fragments = connected_components(graph)[0]
    motifs = [f"{n_fragments} fragments"] if n_fragments > 1 else []
    for i, symbol in enumerate(atoms.symbols):
        single_oxygens = sum(atoms.symbols[j] == "O" and len(bonds[j]) == 1 for j in bonds[i])
        if symbol == "N" and len(bonds[i]) == 4:
            motifs.append("ammonium")
        if symbol in "CN" and single_oxygens == 2 and len(bonds[i]) == 3:
            motifs.append("carboxylate" if symbol == "C" else "nitro")
    return " + ".join(sorted(set(motifs)))


def run_learning_curve(X, y, groups):
    """Compute the MAE for several numbers of training molecules, in five of ten folds."""
    rows, curve = [], []
    store = Store("learning_curve")
    for n in (100, 200, 400, 800, None):
        errors = []
        for k, (train, test) in enumerate(list(folds(X, groups))[:5]):

            def compute(train=train, test=test, n=n):
                train = np.random.default_rng(0).permutation(train)[:n]
                model = pipeline().set_params(kqeqregressor__sigma_dipole=0.0005)
                species = sorted({z for atoms in X for z in atoms.symbols} - {"F"})
                keep = [i for i in test if "F" not in X[i].symbols]
                train = [i for i in train if "F" not in X[i].symbols]
                model.set_params(soapfeaturizer__species=species)
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "n_points")
                    model.fit(take(X, train), y["dipole"][train])
                predicted = model.predict(take(X, keep))
                return dipole_errors(y["dipole"][keep], predicted)["mae"]

            errors.append(store.get(f"{n}/{k}", compute))
        size = n or round(0.9 * len(X))
        curve.append((size, errors))
        rows.append({"molecules": size, "mae": np.mean(errors), "std over folds": np.std(errors)})
        print(rows[-1], flush=True)
    write("learning_curve", rows)
    ax = plot_learning_curve(*zip(*curve, strict=True), label="MAE of |μ| (D)")
    ax.figure.savefig(PICTURES / "qm9_learning_curve.png", dpi=150, bbox_inches="tight")


def run_multitask(X, y, groups):
    """Train on dipole norms, with and without charges, and on dipole vectors, in the same folds."""
    magnitude = {"kqeqregressor__sigma_dipole_magnitude": [0.0005, 0.002]}
    charges = {"kqeqregressor__sigma_charges": [0.01, 0.03]}
    both = {"kqeqregressor__sigma_dipole_magnitude": [0.001], **charges}
    studies = {
        "dipole_magnitude": (["dipole_magnitude"], magnitude, "dipole_magnitude"),
        "dipole_magnitude + charges": (["dipole_magnitude", "charges"], both, "dipole_magnitude"),
        "dipole (PBE0)": (["dipole"], {"kqeqregressor__sigma_dipole": [0.0005, 0.002]}, "dipole"),
        "dipole (PBE0) + charges": (
            ["dipole", "charges"],
            {"kqeqregressor__sigma_dipole": [0.001], **charges},
            "dipole",
        ),
    }
    model = pipeline(n_points=500)
    rows = []
    for name, (targets, grid, scored) in studies.items():
        key = "multitask_" + "_".join(targets)
        predicted, chosen = cross_validate(key, model, grid, X, y, groups, targets, scored)
        rows.append({"trained on": name, **dipole_errors(y[scored], predicted)})
        print(name, chosen[0], rows[-1], flush=True)
    write("multitask", rows)


def write(name, rows):
    """Write a table as CSV, and print it."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    with open(RESULTS / f"{name}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            row = {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow(row)
            print(row)


def main():
    studies = {
        "settings": run_settings,
        "cv": run_cv,
        "learning-curve": run_learning_curve,
        "multitask": run_multitask,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("study", choices=studies)
    args = parser.parse_args()
    studies[args.study](*load(args.data))


if __name__ == "__main__":
    main()
