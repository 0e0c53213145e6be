"""How many labels are in their intervals: by target, number of atoms and element, and on chains.

    python benchmarks/intervals.py folds MOLECULES [ENERGIES] [--n-folds N] [--models M ...]
    python benchmarks/intervals.py chains MOLECULES CHAINS

MOLECULES is the file of ``qm9_accuracy.py``, with dipoles and charges. ENERGIES is an extended XYZ
file of molecules with ``REF_energy`` and ``group``. CHAINS is the file that
``tools/make_chains.py`` writes.

``folds`` predicts intervals for the molecules in N of five folds by group, by default all. The
sparse set, the fit and the calibration use the training molecules of each fold only. It writes
``results/intervals.csv``. ``chains`` trains on all molecules, and writes
``results/intervals_chains.csv``. Predictions are stored, so that finished parts are not computed
again.
"""

import argparse
import warnings

import ase.io
import numpy as np
from qm9_accuracy import RESULTS, SETTINGS, Store, folds, load, take, write
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from tqdm import tqdm

from skqeq import (
    CURSparsifier,
    GAPRegressor,
    KQEqRegressor,
    SOAPFeaturizer,
    calibrate,
    make_targets,
    predict_interval,
    predict_std,
    predict_targets,
    strip,
)

COVERAGES = (0.5, 0.8, 0.95)
N_POINTS = 300


def charge_model(name, n_points=N_POINTS, **noise):
    """A model of ``qm9_accuracy.py`` with fewer sparse points, which stores its posterior."""
    sparsifier, response = SETTINGS[name]
    return make_pipeline(
        SOAPFeaturizer(r_cut=(1.7, 3.5), n_max=8, l_max=6),
        CURSparsifier(n_points=n_points, **sparsifier),
        KQEqRegressor(response=response, store_triangles=True, **noise),
    )


def energy_model():
    """Local energies, fitted to total energies."""
    return make_pipeline(
        SOAPFeaturizer(r_cut=(2.0, 4.0), cutoff_width=1.0, n_max=6, l_max=4),
        CURSparsifier(n_points=150, zeta=2),
        GAPRegressor(amplitude_gap=3.0, sigma_energy=0.003, store_triangles=True),
    )


STUDIES = {
    "dipole, kQEq": ("dipole", lambda: charge_model("kQEq", sigma_dipole=0.0005)),
    "dipole, ChargeFlow": ("dipole", lambda: charge_model("ChargeFlow", sigma_dipole=0.002)),
    "charges, ChargeFlow": (
        "charges",
        lambda: charge_model("ChargeFlow", 100, sigma_charges=0.02),
    ),
    "energy, GAP": ("energy", energy_model),
}


def predicted(model, X, name):
    """Predictions, standard deviations, and half lengths of the intervals, as flat lists."""
    values, std = predict_targets(model, X, [name])[name], predict_std(model, X, [name])[name]
    columns = {"value": values, "std": std}
    for coverage in COVERAGES:
        lower, upper = (table[name] for table in predict_interval(model, X, coverage, [name]))
        columns[str(coverage)] = [(b - a) / 2 for a, b in zip(lower, upper, strict=True)]
    return {key: np.concatenate([np.ravel(v) for v in c]).tolist() for key, c in columns.items()}


def fitted(model, X, y, groups, name):
    """Fit and calibrate a model."""
    labels = make_targets(**{name: list(y[name])})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_points")
        model = clone(model).fit(X, labels)
    return calibrate(model, X, labels, groups=groups)


def cross_validated(study, X, y, groups, n_folds):
    """Predictions for the molecules of some folds, each by the model of the other folds."""
    name, make = STUDIES[study]
    store, parts = Store(f"intervals_{study.replace(', ', '_')}"), []
    for k, (train, test) in enumerate(tqdm(list(folds(X, groups, 5))[:n_folds], desc=study)):

        def compute(train=train, test=test):
            model = fitted(make(), take(X, train), y[train], groups[train], name)
            return predicted(model, take(X, test), name)

        part = {key: np.array(x) for key, x in store.get(str(k), compute).items()}
        labels = [np.ravel(y[name][i]) for i in test]
        part["label"] = np.concatenate(labels)
        part["structure"] = np.repeat(test, [len(label) for label in labels])
        parts.append(part)
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def line(study, group, rows, some):
    """One line of the table."""
    error = np.abs(rows["label"] - rows["value"])[some]
    result = {"model": study, "labels": group, "number": int(some.sum())}
    for coverage in COVERAGES:
        inside = error <= rows[str(coverage)][some]
        result[f"in {100 * coverage:.0f} % intervals"] = 100 * inside.mean()
    result["rank correlation"] = spearmanr(error, rows["std"][some])[0]
    return result


def of_structures(rows):
    """Norms of the errors and of the standard deviations of every structure."""
    index = np.unique(rows["structure"], return_inverse=True)[1]
    squares = [(rows["label"] - rows["value"]) ** 2, rows["std"] ** 2]
    return [np.sqrt(np.bincount(index, x)) for x in squares]


def table(study, X, rows):
    """Coverage of all labels, by number of atoms, and by element."""
    n_labels = len(rows["label"])
    everything = line(study, "all", rows, np.ones(n_labels, bool))
    everything["rank correlation, structures"] = spearmanr(*of_structures(rows))[0]
    lines = [everything]
    sizes = np.array([len(X[i]) for i in rows["structure"]])
    edges = np.quantile(sizes, [0.0, 0.25, 0.5, 0.75, 1.0]).astype(int)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        last = high + (high == edges[-1])
        some = (sizes >= low) & (sizes < last)
        lines.append(line(study, f"{low} to {last - 1} atoms", rows, some))
    first = np.sort(np.unique(rows["structure"], return_index=True)[1])
    symbols = np.concatenate([list(X[i].symbols) for i in rows["structure"][first]])
    for symbol in ("H", "C", "N", "O", "F"):
        if STUDIES[study][0] == "charges":
            some = symbols == symbol
        else:
            some = np.array([symbol in X[i].symbols for i in rows["structure"]])
        if some.sum() > 20:
            lines.append(line(study, symbol, rows, some))
    return lines


def run_folds(args):
    """Intervals in folds by group."""
    lines = []
    X, y, groups = load(args.molecules)
    data = {s: (X, y, groups) for s in args.models if s != "energy, GAP"}
    if args.other is not None and "energy, GAP" in args.models:
        X = ase.io.read(args.other, ":")
        y = make_targets(energy=[atoms.info["REF_energy"] for atoms in X])
        data["energy, GAP"] = X, y, np.array([atoms.info["group"] for atoms in X])
    for study, (X, y, groups) in data.items():
        rows = cross_validated(study, strip(X), y, groups, args.n_folds)
        lines += table(study, X, rows)
        write("intervals", lines)


def run_chains(args):
    """Intervals for chains that are longer than all training molecules."""
    X, y, groups = load(args.molecules)
    chains = ase.io.read(args.other, ":")
    truth = np.array([atoms.info["REF_dipole_gfn2"] for atoms in chains])
    kinds = np.array([atoms.info["chain"] for atoms in chains])
    store, lines = Store("intervals_chains"), []
    for study in ("dipole, kQEq", "dipole, ChargeFlow"):

        def compute(study=study):
            model = fitted(STUDIES[study][1](), strip(X), y, groups, "dipole")
            return predicted(model, strip(chains), "dipole")

        rows = {key: np.array(x) for key, x in store.get(study, compute).items()}
        rows["label"] = truth.ravel()
        for kind in [*dict.fromkeys(kinds), "all"]:
            some = np.repeat((kinds == kind) | (kind == "all"), 3)
            lines.append(line(study, kind, rows, some))
    write("intervals_chains", lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=["folds", "chains"])
    parser.add_argument("molecules")
    parser.add_argument("other", nargs="?", help="ENERGIES or CHAINS")
    parser.add_argument("--n-folds", type=int, default=5, metavar="N")
    parser.add_argument("--models", nargs="+", choices=STUDIES, default=list(STUDIES))
    args = parser.parse_args()
    {"folds": run_folds, "chains": run_chains}[args.study](args)
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
