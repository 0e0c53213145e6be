"""Time that `KQEqRegressorCV` takes to choose the noise, relative to a single fit.

    python benchmarks/cv_speed.py [--data molecules.xyz]

There are three searches. The first tries twenty values of the dipole noise and leaves out one
structure at a time. The second tries the same values with five folds by group. The third tries
a grid of four cutoffs and twenty values of the noise, also in five folds by group. The pipelines
run from structures to weights, with double SOAP, n_max 8, l_max 6. Each time is the shorter one of
two runs with an empty cache of descriptors. The script writes ``results/cv_speed.csv``: the time of
a fit with a single value of the noise, and the time of each search divided by it. The time of the
grid is divided by the mean time of single fits with the four cutoffs. The process keeps memory that
it has freed, see `floor.keep_memory`.
"""

import argparse
import csv
import warnings
from pathlib import Path

import numpy as np
from fit_predict import L_MAX, N_MAX, best_of, molecules
from floor import keep_memory
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, KQEqRegressorCV, SOAPFeaturizer

RESULTS = Path(__file__).parent / "results"
SIGMAS = np.geomspace(1e-4, 1e-1, 20)
CUTOFFS = [(1.5, 3.0), (1.7, 3.5), (2.0, 4.0), (2.0, 4.5)]


def pipeline(last, n_points, r_cut=(1.7, 3.5)):
    """Make a pipeline of descriptor, sparse set, and the regressor `last`."""
    soap = SOAPFeaturizer(r_cut=r_cut, n_max=N_MAX, l_max=L_MAX)
    return make_pipeline(soap, CURSparsifier(n_points=n_points), last)


def seconds(function, repeats=2):
    """Shortest time of some runs with an empty cache of descriptors, seconds."""
    return best_of(repeats, function)


def grid(X, D, groups, n_points):
    """The best model on a grid of four cutoffs and twenty values of the noise."""
    best = None
    for r_cut in CUTOFFS:
        search = KQEqRegressorCV(sigmas=SIGMAS, scoring="rmse")
        model = pipeline(search, n_points, r_cut).fit(X, D, kqeqregressorcv__groups=groups)
        if best is None or model[-1].best_score_ > best[-1].best_score_:
            best = model
    return best


def measure(data, n, n_points):
    """A row of the table: the time of one fit, and the time of each search divided by it."""
    X, D = molecules(data, n)
    groups = np.arange(n)
    each = KQEqRegressorCV(sigmas=SIGMAS, scoring="rmse")
    folds = KQEqRegressorCV(sigmas=SIGMAS, cv=GroupKFold(5), scoring="rmse")
    by_group = {"kqeqregressorcv__groups": groups}
    one = seconds(lambda: pipeline(KQEqRegressor(), n_points).fit(X, D))
    searches = {
        "20 noises, each left out": lambda: pipeline(each, n_points).fit(X, D),
        "20 noises, 5 folds": lambda: pipeline(folds, n_points).fit(X, D, **by_group),
    }
    row = {"molecules": n, "points per element": n_points, "one fit / s": f"{one:.2f}"}
    row |= {name: f"{seconds(search) / one:.2f}" for name, search in searches.items()}
    single = [
        seconds(lambda r=r: pipeline(KQEqRegressor(), n_points, r).fit(X, D), 1) for r in CUTOFFS
    ]
    every = seconds(lambda: grid(X, D, groups, n_points), 1)
    return row | {"4 cutoffs, 20 noises": f"{every / np.mean(single):.2f}"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="extxyz with dipoles, instead of the bundled molecules")
    args = parser.parse_args()
    keep_memory()
    warnings.simplefilter("ignore")
    rows = []
    for n, n_points in ((300, 1000), (1000, 200), (1000, 1000)):
        rows.append(measure(args.data, n, n_points))
        print(rows[-1], flush=True)
    with open(RESULTS / "cv_speed.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
