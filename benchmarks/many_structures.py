"""Time and memory of fits to energies and forces, against the number of structures.

    python benchmarks/many_structures.py [--sizes 200 600 1800] [--budget 100000000] [--jobs]

The model is GAP+kQEq with 100 sparse points per element. The structures are the bundled clusters of
water without a field. Every fit is a new process in which each Python process has one thread.
*peak memory* is that of the process of the fit. The memory budget (SKQEQ_MEMORY) is so small that
the arrays of 200 clusters fill it; what it has no room for is computed again in every step. Without
``--jobs``, one process fits all sizes with this budget. With ``--jobs``, one and two processes fit
the largest size with the default budget, and the weights are compared. The tables are printed and
written to ``results/many_structures.csv`` and ``results/many_structures_jobs.csv``.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, GAPKQEqRegressor, QEq, SOAPFeaturizer, StructureBlocks
from skqeq.datasets import load_water

RESULTS = Path(__file__).parent / "results"


def part():
    """Features of one field."""
    soap = SOAPFeaturizer(r_cut=3.5, cutoff_width=1.5, n_max=4, l_max=3)
    return make_pipeline(soap, CURSparsifier(n_points=100))


def fit(n, n_jobs):
    """Fit to n clusters in this process, and print the figures as JSON."""
    X, y = load_water()
    without_field = [i for i, atoms in enumerate(X) if "external_field" not in atoms.info]
    index = np.random.default_rng(0).permutation(without_field)[:n]
    X, y = [X[i] for i in index], y[["energy", "forces"]][index]
    blocks = StructureBlocks([("chi", part()), ("gap", part())])
    features = blocks.fit_transform(X)
    model = GAPKQEqRegressor(
        amplitude_gap=10.0,
        amplitude_chi=3.0,
        response=QEq(hardness=30.0, radius_scale=1.3),
        n_jobs=n_jobs,
    )
    warnings.simplefilter("ignore")
    wall, cpu = time.perf_counter(), time.process_time()
    model.fit(features, y)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    figures = {"structures": len(X), "atoms": sum(map(len, X)), "processes": n_jobs}
    figures |= {"seconds": wall, "CPU seconds": cpu, "steps": len(model.fit_history_)}
    print(json.dumps(figures | {"peak memory (GiB)": peak, "weights": model.coef_.tolist()}))


def measured(n, n_jobs, budget):
    """Figures of a fit in a new process."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = os.environ | threads | ({"SKQEQ_MEMORY": str(budget)} if budget else {})
    command = [sys.executable, __file__, "--fit", str(n), str(n_jobs)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    figures = json.loads(output.stdout)
    weights = np.array(figures.pop("weights"))
    print(figures, flush=True)
    return figures, weights


def write(path, rows):
    """Write a table."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            texts = {name: f"{x:.2f}" for name, x in row.items() if isinstance(x, float)}
            writer.writerow(row | texts)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 600, 1800])
    parser.add_argument("--budget", type=int, default=10**8, help="for stored arrays, bytes")
    parser.add_argument("--jobs", action="store_true", help="compare one and two processes")
    parser.add_argument("--fit", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fit:
        return fit(*args.fit)
    if not args.jobs:
        rows = [measured(n, 1, args.budget)[0] for n in args.sizes]
        return write(RESULTS / "many_structures.csv", rows)
    runs = [measured(max(args.sizes), n_jobs, None) for n_jobs in (1, 2)]
    (one, weights), (two, others) = runs
    difference = np.abs(others - weights).max() / np.abs(weights).max()
    print(
        f"{one['seconds'] / two['seconds']:.2f} times as fast; weights differ by {difference:.1e}"
    )
    write(RESULTS / "many_structures_jobs.csv", [one, two])


if __name__ == "__main__":
    main()
