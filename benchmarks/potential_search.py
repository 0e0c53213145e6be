"""Accuracy of potentials whose settings were chosen by `PotentialSearchCV`.

    python benchmarks/potential_search.py lih | zno | carbon | dipeptides DATA
    python benchmarks/potential_search.py water

In every outer fold, the search and the final fit use the training structures only. The test
structures give the errors, which are compared with those of the settings of ``gap_accuracy.py``,
which were chosen by hand, in the same folds. The models of ``gap_accuracy.py`` also have the labels
of charges that they were made for. DATA is an extended XYZ file as in ``gap_accuracy.py``.

The result of every outer fold is stored in ``./search_folds``, and stored folds are not computed
again. The tables hold the folds that are finished.
"""

import argparse
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import ase.io
import joblib
import numpy as np
from gap_accuracy import (
    RESULTS,
    UNITS,
    carbon_models,
    dipeptide_fold,
    dipeptide_models,
    errors,
    grouped,
    lih_models,
    predicts,
    rms,
    water_models,
    zno_models,
)
from sklearn.model_selection import GroupShuffleSplit, KFold

from skqeq import PotentialSearchCV, predict_targets, strip, targets_from_atoms
from skqeq.datasets import load_water

STORED = Path("search_folds")
AUTOMATIC = "PotentialSearchCV"


class Study(NamedTuple):
    """Outer folds of a data set, labels of the search, and models with settings chosen by hand.

    The folds of the search are of the same kind as the outer folds: by group, or random without
    `groups`.
    """

    folds: list
    groups: np.ndarray | None
    labels: tuple
    by_hand: dict


def water_study(X, groups):
    """One split by trajectory, as in ``gap_accuracy.py``; 500 structures for training."""
    [(train, test)] = GroupShuffleSplit(1, test_size=0.3, random_state=0).split(X, groups=groups)
    fold = np.random.default_rng(0).permutation(train)[:500], test
    models = chosen(water_models(), "GAP", "GAP+kQEq", "GAP+ChargeFlow")
    return Study([fold], groups, ("energy", "forces", "dipole"), models)


def lih_study(X, groups):
    """Five random folds, and energies alone."""
    folds = list(KFold(5, shuffle=True, random_state=0).split(X))
    models = chosen(lih_models(), "GAP with long cutoffs", "GAP+kQEq", "GAP+ChargeFlow")
    models = {name: (model, ("energy",)) for name, (model, _) in models.items()}
    return Study(folds, None, ("energy",), models)


def zno_study(X, groups):
    """Five folds by group; energies and forces."""
    models = chosen(zno_models(), "GAP", "GAP+ChargeFlow", "GAP+local charges")
    return Study(grouped(X, groups), groups, ("energy", "forces"), models)


def carbon_study(X, groups):
    """The first of five folds by group; energies, forces and charges."""
    models = chosen(carbon_models(), "GAP", "GAP+kQEq", "GAP+ChargeFlow")
    return Study(grouped(X, groups)[:1], groups, ("energy", "forces", "charges"), models)


def dipeptide_study(X, groups):
    """200 molecules for training, and another chemical formula for the test."""
    labels = ("energy", "forces", "dipole", "charges")
    models = chosen(dipeptide_models(), "GAP+kQEq", "GAP+ChargeFlow")
    models = {name: (model, labels) for name, (model, _) in models.items()}
    return Study([dipeptide_fold(groups)], groups, labels, models)


STUDIES = {
    "lih": lih_study,
    "zno": zno_study,
    "water": water_study,
    "carbon": carbon_study,
    "dipeptides": dipeptide_study,
}


def chosen(models, *names):
    """Some of the models."""
    return {name: models[name] for name in names}


def stored(path, function, *args):
    """The result of a function, from a file if it was computed before."""
    if not path.exists():
        STORED.mkdir(exist_ok=True)
        result = function(*args)
        joblib.dump(result, path)
    return joblib.load(path)


def outer_fold(model, labels, X, y, groups, train, test):
    """Errors for the test structures by target, CPU seconds, and the search if there is one."""
    start = time.process_time()
    search = isinstance(model, PotentialSearchCV)
    options = {"groups": groups[train]} if search and groups is not None else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="gauss_newton stopped|n_points=")
        model.fit([X[i] for i in train], y[list(labels)][train], **options)
    seconds = time.process_time() - start
    pipeline = model.best_estimator_ if search else model
    names = [name for name in labels if predicts(pipeline, name)]
    predicted = predict_targets(pipeline, [X[i] for i in test], names)
    n_atoms = np.array([len(atoms) for atoms in X])
    choice = (model.best_params_, model.trials_) if search else None
    return errors(predicted, y, test, n_atoms), seconds, choice


def run(name, study, X, y):
    """Compute all folds; after each of them write the tables."""
    search = PotentialSearchCV(verbose=1)
    models = {AUTOMATIC: (search, study.labels), **study.by_hand}
    results = {model: [] for model in models}
    for k, (train, test) in enumerate(study.folds):
        for model, (estimator, labels) in models.items():
            path = STORED / f"{name}_{model}_{k}.joblib".replace(" ", "_")
            data = X, y, study.groups, train, test
            result = stored(path, outer_fold, estimator, labels, *data)
            results[model].append(result)
        write(f"search_{name}.csv", table(results))
        write(f"search_{name}_choices.csv", choices(results[AUTOMATIC]))


def table(results):
    """Errors of all models in the finished folds, and mean CPU time of a fold."""
    targets = [name for name in UNITS if name in results[AUTOMATIC][0][0]]
    lines = [["model", "folds", *(UNITS[name] for name in targets), "CPU time (min)"]]
    for model, folds in results.items():
        line = [model, len(folds)]
        for target in targets:
            parts = [error[target] for error, _, _ in folds if target in error]
            line.append(f"{rms(target, np.concatenate(parts)):.2f}" if parts else "")
        minutes = np.mean([seconds for _, seconds, _ in folds]) / 60
        lines.append([*line, f"{minutes:.1f}"])
    return lines


def choices(folds):
    """Settings that were chosen in every fold."""
    names = dict.fromkeys(name for _, _, (params, _) in folds for name in params)
    # The response is printed with its parameters.
    names = [name for name in names if "response__" not in name]
    short = [name.replace("structureblocks__", "").split("__") for name in names]
    lines = [["fold", "trials", *(" ".join(dict.fromkeys((n[0], n[-1]))) for n in short)]]
    for k, (_, _, (params, trials)) in enumerate(folds):
        lines.append([k, len(trials), *(as_text(params.get(name, "")) for name in names)])
    return lines


def as_text(value):
    """A setting in one line, numbers with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else " ".join(str(value).split())


def write(name, lines):
    """Print a table and write it to a file."""
    quoted = [[f'"{cell}"' if "," in str(cell) else str(cell) for cell in line] for line in lines]
    text = "".join(",".join(line) + "\n" for line in quoted)
    print(text, flush=True)
    (RESULTS / name).write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("data", nargs="?")
    args = parser.parse_args()
    if args.study == "water":
        X, y, groups = load_water(return_groups=True)
    else:
        labelled = ase.io.read(args.data, ":")
        keys = {**labelled[0].arrays, **labelled[0].info}
        y = targets_from_atoms(labelled, [name for name in UNITS if f"REF_{name}" in keys])
        groups = np.array([atoms.info["group"] for atoms in labelled])
        X = strip(labelled)
    run(args.study, STUDIES[args.study](X, groups), X, y)


if __name__ == "__main__":
    main()
