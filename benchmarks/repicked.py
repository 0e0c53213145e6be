"""Bias of held-out errors if the sparse set was selected from all structures.

    python benchmarks/repicked.py --data molecules.xyz

The data are dipoles of molecules, in five folds by molecule, with double SOAP, n_max 8, l_max 6.
The script compares two held-out errors. For the first, a single sparse set is selected from all
molecules. For the second, a sparse set is selected from the training molecules of each fold. Each
error is the lowest one over all values of the noise. The table has geometric means over three
random subsets of the molecules, and is written to ``results/repicked.csv``.
"""

import argparse
import csv
import warnings
from pathlib import Path

import numpy as np
from fit_predict import DOUBLE, L_MAX, N_MAX, molecules
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, KQEqRegressorCV, SOAPFeaturizer

RESULTS = Path(__file__).parent / "results"
SIGMAS = np.geomspace(1e-3, 1.0, 13)
DRAWS = 3


def errors(X, D, n_points):
    """Lowest error and best noise: for a sparse set from all molecules, and for one per fold."""
    options = {"sigmas": SIGMAS, "cv": KFold(5, shuffle=True, random_state=0), "scoring": "rmse"}
    soap = SOAPFeaturizer(r_cut=DOUBLE, n_max=N_MAX, l_max=L_MAX)
    sparse = CURSparsifier(n_points=n_points)
    of_all = make_pipeline(soap, sparse, KQEqRegressorCV(**options)).fit(X, D)[-1]
    per_fold = KQEqRegressorCV(make_pipeline(soap, sparse, KQEqRegressor()), **options).fit(X, D)
    return [(-cv.best_score_, cv.best_params_["sigma_dipole"]) for cv in (of_all, per_fold)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="extxyz with dipoles; no molecule twice")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    X, D = molecules(args.data, None)
    rows = []
    for n in (250, 1000):
        for n_points in (50, 200, 1000):
            draws = []
            for draw in range(DRAWS):
                subset = np.random.default_rng(draw).permutation(len(X))[:n]
                draws.append(errors([X[i] for i in subset], D[subset], n_points))
            means = np.exp(np.log(draws).mean(axis=0))
            (of_all, sigma_of_all), (per_fold, sigma_per_fold) = means
            rows.append(
                {
                    "molecules": n,
                    "points per element": n_points,
                    "RMSE, set of all": f"{of_all:.4f}",
                    "RMSE, set of each fold": f"{per_fold:.4f}",
                    "too low by": f"{100 * (1 - of_all / per_fold):.1f} %",
                    "noise": f"{sigma_of_all:.3f}",
                    "noise, set of each fold": f"{sigma_per_fold:.3f}",
                }
            )
            print(rows[-1], flush=True)
    with open(RESULTS / "repicked.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
