"""How much a sparse set that knows the structures which are left out flatters their errors.

    python benchmarks/repicked.py --data molecules.xyz

Dipoles of molecules, five folds by molecule, double SOAP n_max 8, l_max 6. The error of what is
left out with the noise that is best for it, once with a sparse set that was picked from all
molecules, once with one that every fold picks anew; geometric means over three draws of the
molecules. Writes ``results/repicked.csv``.
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
    """Least errors with a sparse set of all structures, and with one of each fold; their noise."""
    options = {"sigmas": SIGMAS, "cv": KFold(5, shuffle=True, random_state=0), "scoring": "rmse"}
    soap = SOAPFeaturizer(r_cut=DOUBLE, n_max=N_MAX, l_max=L_MAX)
    sparse = CURSparsifier(n_points=n_points)
    given = make_pipeline(soap, sparse, KQEqRegressorCV(**options)).fit(X, D)[-1]
    anew = KQEqRegressorCV(make_pipeline(soap, sparse, KQEqRegressor()), **options).fit(X, D)
    return [(-search.best_score_, search.best_params_["sigma_dipole"]) for search in (given, anew)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="extxyz with dipoles, no molecule twice")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    X, D = molecules(args.data, None)
    rows = []
    for n in (250, 1000):
        for n_points in (50, 200, 1000):
            found = []
            for draw in range(DRAWS):
                some = np.random.default_rng(draw).permutation(len(X))[:n]
                found.append(errors([X[i] for i in some], D[some], n_points))
            (given, sigma), (anew, other) = np.exp(np.log(found).mean(axis=0))
            rows.append(
                {
                    "molecules": n,
                    "points per element": n_points,
                    "RMSE, set of all": f"{given:.4f}",
                    "RMSE, set of each fold": f"{anew:.4f}",
                    "flattered by": f"{100 * (1 - given / anew):.1f} %",
                    "noise": f"{sigma:.3f}",
                    "noise, set of each fold": f"{other:.3f}",
                }
            )
            print(rows[-1], flush=True)
    with open(RESULTS / "repicked.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
