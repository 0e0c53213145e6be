"""Time of fits and predictions relative to the floor, and their peak memory.

    python benchmarks/fit_predict.py [--data molecules.xyz]

The floor is the time of the work that cannot be avoided, see ``floor.py``. Every case runs in a new
process, so that the peak memory of the process is that of the case. Each time is the shortest of
three runs with an empty cache of descriptors. Without `--data` the molecules are the bundled ones
and rattled copies of them. The table is printed and written to
``benchmarks/results/fit_predict.csv``.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import ase.io
import numpy as np
from floor import flops, gemm_rate, n_soap_features, soap_seconds
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer, targets_from_atoms
from skqeq.datasets import load_molecules
from skqeq.features import ROWS
from skqeq.sparsify import SparseKernel

DOUBLE = (1.7, 3.5)
# name: (kind, molecules, sparse points per element, cutoffs, largest ratio that the project allows)
CASES = {
    "fit 300, 1000 per element": ("fit", 300, 1000, DOUBLE, 2.5),
    "fit 1000, 1000 per element": ("fit", 1000, 1000, DOUBLE, 2.0),
    "predict 1000, 1000 per element": ("predict", 1000, 1000, DOUBLE, 1.3),
    "fit 300, 1000 in total": ("small", 300, 250, DOUBLE, 3.0),
    "fit 300, 1000 in total, one cutoff": ("small", 300, 250, (3.5,), 3.0),
}
N_MAX, L_MAX = 8, 6
REPEATS = 3
RESULTS = Path(__file__).parent / "results"


def molecules(path, n):
    """The first n molecules of a file, or n bundled and rattled ones; and their dipoles."""
    if path is not None:
        X = ase.io.read(path, ":")
        order = np.random.default_rng(0).permutation(len(X))
        X = [X[i] for i in order]
        return X[:n], targets_from_atoms(X, ["dipole"])["dipole"][:n]
    base, y = load_molecules()
    X, D = [], []
    for i in range(n):
        atoms = base[i % len(base)].copy()
        if i >= len(base):
            atoms.rattle(0.05, seed=i)
        X.append(atoms)
        D.append(y["dipole"][i % len(base)])
    return X, np.array(D)


def run_case(name, path):
    """Measure one case in this process; return a dict of measurements."""
    kind, n, n_points, r_cut, limit = CASES[name]
    X, D = molecules(path, n)
    soap = SOAPFeaturizer(r_cut=r_cut, n_max=N_MAX, l_max=L_MAX)
    sparsifier = CURSparsifier(n_points=n_points)
    model = make_pipeline(soap, sparsifier, KQEqRegressor())
    seconds = best_of(REPEATS, lambda: model.fit(X, D))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    selection = selection_seconds(model, X)
    if kind == "predict":
        seconds = best_of(REPEATS, lambda: model.predict(X))
    numbers, counts = np.unique(sparsifier.component_numbers_, return_counts=True)
    points = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    n_features = n_soap_features(len(soap.species_), len(r_cut), N_MAX, L_MAX)
    rate = gemm_rate()
    common, restricted = (
        min(soap_seconds(X, r_cut, N_MAX, L_MAX, restricted) for _ in range(REPEATS))
        for restricted in (False, True)
    )
    work = flops(X, points, n_features, 0 if kind == "predict" else 3 * n)
    floor = min(common, restricted) + sum(work.values()) / rate
    ratio = seconds / (common if kind == "small" else floor)
    return {
        "case": name,
        "seconds": seconds,
        "floor": floor,
        "soap": common,
        "soap, own elements": restricted,
        "GFlop/s": rate / 1e9,
        "GFlop": {stage: f / 1e9 for stage, f in work.items()},
        "points": points,
        "ratio": ratio,
        "ratio to": "SOAP" if kind == "small" else "floor",
        "limit": limit,
        "selection share": selection / seconds if kind != "predict" else None,
        "peak GiB": memory,
    }


def best_of(repeats, function):
    """Shortest time of some runs with an empty cache of descriptors, seconds."""
    best = np.inf
    for _ in range(repeats):
        ROWS.clear()
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def selection_seconds(model, X):
    """Time to select the sparse points if all descriptors are in the cache, seconds.

    The time does not include the Cholesky factorisation of ``K_MM``, which the floor includes in
    the time of the kernel.
    """
    features = model[0].transform(X)
    spent = []
    factorize = SparseKernel.factorize

    def timed(self, *args):
        start = time.perf_counter()
        result = factorize(self, *args)
        spent.append(time.perf_counter() - start)
        return result

    SparseKernel.factorize = timed
    try:
        seconds = []
        for _ in range(REPEATS):
            spent.clear()
            start = time.perf_counter()
            model[1].fit(features)
            seconds.append(time.perf_counter() - start - sum(spent))
    finally:
        SparseKernel.factorize = factorize
    return min(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="extxyz with dipoles, instead of the bundled molecules")
    parser.add_argument("--json", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        warnings.simplefilter("ignore")
        args.json.write_text(json.dumps(run_case(args.case, args.data)))
        return
    rows = [measure(case, args.data) for case in CASES]
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / "fit_predict.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def measure(case, data):
    """Run a case in a new process; print and return its row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, __file__, "--case", case, "--json", str(out)]
        subprocess.run(command + (["--data", data] if data else []), check=True)
        figures = json.loads(out.read_text())
    share = figures["selection share"]
    row = {
        "case": case,
        "seconds": f"{figures['seconds']:.2f}",
        "floor": f"{figures['floor']:.2f}",
        "SOAP": f"{figures['soap']:.2f}",
        "ratio": f"{figures['ratio']:.2f}",
        "to": figures["ratio to"],
        "limit": figures["limit"],
        "selection": "" if share is None else f"{share:.0%}",
        "peak GiB": f"{figures['peak GiB']:.2f}",
    }
    work = ", ".join(f"{stage} {amount:.1f}" for stage, amount in figures["GFlop"].items())
    print(f"{row}\n    GFlop: {work}; at {figures['GFlop/s']:.0f} GFlop/s", flush=True)
    return row


if __name__ == "__main__":
    main()
