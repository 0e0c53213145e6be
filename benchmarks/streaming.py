"""Time and memory of fits to structures that are read from a file, against their number.

    python benchmarks/streaming.py [--data molecules.xyz] [--sizes 1000 5000 20000]

The molecules of `--data`, or the bundled ones, and rattled copies of them are written to one
extended XYZ file. Molecules with fluorine are left out, because a thousand molecules have too few
fluorine atoms for a thousand sparse points. The models are fitted to dipoles, with double SOAP,
n_max 8, l_max 6, and 1000 points per element. Every size runs in a new process, so that the peak
memory of the process is that of the fit. The floor is the time of the work that cannot be avoided,
as in ``fit_predict.py``. It is measured for a sample of the structures, and does not include
reading them. The column *sustained* is the ratio to another floor, for which the rate of matrix
products is the mean over ten seconds. The sparse set is selected from a limited number of
environments. The table is printed and written to ``results/streaming.csv``.
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
from collections import Counter
from pathlib import Path

import ase.io
import numpy as np
from ase.data import chemical_symbols
from fit_predict import DOUBLE, L_MAX, N_MAX, molecules
from floor import flops, gemm_rate, n_soap_features, soap_seconds, sustained_rate

from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer, targets_from_atoms
from skqeq.datasets import open_structures

RESULTS = Path(__file__).parent / "results"
SAMPLE = 1000
N_POINTS = 1000


def write(path, data, n):
    """Write n molecules and their dipoles to one file."""
    X, D = molecules(data, n)
    without_fluorine = [i for i, atoms in enumerate(X) if 9 not in atoms.numbers]
    X, D = [X[i] for i in without_fluorine], D[without_fluorine]
    for i in range(n):
        atoms = X[i % len(X)].copy()
        atoms.calc = None
        if i >= len(X):
            atoms.rattle(0.05, seed=i)
        dipole = D[i % len(X)]
        atoms.info = {"REF_dipole": dipole}
        atoms.arrays = {name: atoms.arrays[name] for name in ("numbers", "positions")}
        ase.io.write(path, atoms, append=True, format="extxyz")


def fit(path, n, n_jobs):
    """Fit to the first n structures of a file; return the measurements of this process."""
    X = open_structures(path)[:n]
    start = time.perf_counter()
    y = targets_from_atoms(X, ["dipole"])["dipole"]
    labels = time.perf_counter() - start
    soap = SOAPFeaturizer(r_cut=DOUBLE, n_max=N_MAX, l_max=L_MAX)
    sparsifier = CURSparsifier(n_points=N_POINTS)
    start = time.perf_counter()
    features = soap.fit_transform(X)
    sparsifier.fit(features)
    choice = time.perf_counter() - start
    KQEqRegressor(n_jobs=n_jobs).fit(sparsifier.transform(features), y)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    numbers, counts = np.unique(sparsifier.component_numbers_, return_counts=True)
    points = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    figures = {"seconds": seconds, "choice": choice, "labels": labels, "peak GiB": peak}
    return figures | {"points": points}


def floor(path, n, points):
    """Parts of the floor: time of the descriptors, flops, and two rates of matrix products.

    The descriptors are timed for a sample, and the time is scaled to all atoms. The two rates, in
    flops per second, are the highest rate of a few products and the mean rate over ten seconds.
    """
    X = open_structures(path)[:n]
    sample = list(X[np.random.default_rng(0).permutation(n)[:SAMPLE]])
    soap = min(soap_seconds(sample, DOUBLE, N_MAX, L_MAX, r) for r in (False, True, True))
    size = sum(len(atoms) for atoms in X) / sum(len(atoms) for atoms in sample)
    n_features = n_soap_features(len(points), len(DOUBLE), N_MAX, L_MAX)
    atoms = Counter(z for a in X for z in a.numbers.tolist())
    work = flops([_Counted(atoms)], points, n_features, 3 * n)
    return soap * size, sum(work.values()), gemm_rate(), sustained_rate()


class _Counted:
    """An object with the atomic numbers of all structures, for `floor.flops`."""

    def __init__(self, counts):
        self.numbers = np.repeat(list(counts), list(counts.values()))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="extxyz with dipoles, instead of the bundled molecules")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2500, 5000, 10000, 20000])
    parser.add_argument("--n-jobs", type=int, default=None)
    parser.add_argument("--file", type=Path, help="molecules; written if it does not exist")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        warnings.simplefilter("ignore")
        print(json.dumps(fit(args.file, args.case, args.n_jobs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = args.file or Path(folder) / "molecules.xyz"
        if not path.exists():
            write(path, args.data, max(args.sizes))
        rows = []
        for n in args.sizes:
            command = [sys.executable, __file__, "--case", str(n), "--file", str(path)]
            command += [] if args.n_jobs is None else ["--n-jobs", str(args.n_jobs)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            figures = json.loads(output.splitlines()[-1])
            points = {int(z): m for z, m in figures["points"].items()}
            soap, work, rate, sustained = floor(path, n, points)
            lowest = soap + work / rate
            rows.append(
                {
                    "molecules": n,
                    "seconds": f"{figures['seconds']:.1f}",
                    "choice": f"{figures['choice']:.1f}",
                    "floor": f"{lowest:.1f}",
                    "SOAP": f"{soap:.1f}",
                    "ratio": f"{figures['seconds'] / lowest:.2f}",
                    "sustained": f"{figures['seconds'] / (soap + work / sustained):.2f}",
                    "peak GiB": f"{figures['peak GiB']:.2f}",
                    "labels": f"{figures['labels']:.1f}",
                }
            )
            names = {chemical_symbols[z]: m for z, m in points.items()}
            rates = f"{rate / 1e9:.0f} and {sustained / 1e9:.0f} GFlop/s"
            print(rows[-1], rates, names, flush=True)
    columns = ("molecules", "seconds", "choice")
    sizes, seconds, choice = (np.array([float(row[key]) for row in rows]) for key in columns)
    if len(rows) > 1:
        for part, times in (("fit", seconds), ("fit without the sparse set", seconds - choice)):
            exponent = np.polyfit(np.log(sizes), np.log(times), 1)[0]
            print(f"exponent of the time of the {part}: {exponent:.3f}")
    RESULTS.mkdir(exist_ok=True)
    name = "streaming.csv" if args.n_jobs is None else f"streaming_{args.n_jobs}.csv"
    with open(RESULTS / name, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
