"""Time, iterations and memory of the iterative solver for the charges of large systems.

    python benchmarks/large.py [--largest 100000]

The systems are periodic water, periodic rattled zinc oxide, and a drop of water without a cell.
Every case runs in a new process, so that the peak memory of the process is that of the case. The
time includes all steps from the structure to the charges; the shorter time of two runs counts. The
floor is the time of the work that cannot be avoided, here the time of the Fourier transforms.
For each product with the matrix there are two complex FFTs on the grid of plane waves. They are
timed with SciPy on all cores, with every edge of the grid rounded up to a size for which FFTs are
fast. For up to 3,000 atoms, the charges are compared with those from a factorisation of the matrix.
The tables are printed and written to ``benchmarks/results/large.csv`` and ``large_slopes.csv``; the
figure is written to ``docs/_static/large_systems.png``.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import scipy.fft
from systems import SYSTEMS

from skqeq.electrostatics import DenseHardness, HardnessOperator
from skqeq.parameters import qeq_electronegativities
from skqeq.response import QEqEquilibrium
from skqeq.structures import check_structures

NAMES = {"water": "water", "zno": "zinc oxide", "droplet": "drop of water"}
SIZES = (1000, 3000, 10_000, 30_000, 100_000)
LARGEST_DENSE = 3200
ROOT = Path(__file__).parents[1]


def case(name, n_atoms):
    """Measure one system; return a dict of measurements."""
    [structure] = check_structures([SYSTEMS[name](n_atoms)])
    chi = qeq_electronegativities()[structure.numbers]
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        operator = HardnessOperator(structure)
        equilibrium = QEqEquilibrium(operator)
        charges = equilibrium.charges(chi=chi)
        seconds.append(time.perf_counter() - begin)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    n_products = equilibrium.n_iterations + 1
    transforms = sum(fft_seconds(g.shape) for _, _, g in operator._coulomb._waves)
    difference = None
    if len(structure) <= LARGEST_DENSE:
        dense = QEqEquilibrium(DenseHardness(structure)).charges(chi=chi)
        difference = float(np.abs(charges - dense).max())
    return {
        "atoms": len(structure),
        "seconds": min(seconds),
        "iterations": equilibrium.n_iterations,
        "memory": memory,
        "ffts": 2 * n_products * transforms,
        "difference": difference,
    }


def fft_seconds(shape):
    """Shortest time of a complex FFT on a grid, seconds; zero if the waves are not on a grid."""
    if len(shape) != 3:
        return 0.0
    grid = np.ones([scipy.fft.next_fast_len(n) for n in shape], complex)
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        scipy.fft.fftn(grid, workers=os.cpu_count())
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def row(name, figures):
    """One line of the table."""
    ratio = figures["seconds"] / figures["ffts"] if figures["ffts"] else None
    difference = figures["difference"]
    return {
        "system": NAMES[name],
        "atoms": figures["atoms"],
        "seconds": f"{figures['seconds']:.2f}",
        "iterations": figures["iterations"],
        "peak memory, GiB": f"{figures['memory']:.2f}",
        "time / FFTs": "" if ratio is None else f"{ratio:.1f}",
        "difference, e": "" if difference is None else f"{difference:.0e}",
    }


def exponent(figures):
    """Exponent b of a least-squares fit of the time by ``a n_atoms^b``."""
    atoms, seconds = (np.log([f[key] for f in figures]) for key in ("atoms", "seconds"))
    return np.polyfit(atoms, seconds, 1)[0]


def picture(results, path):
    """Plot time and memory against the number of atoms."""
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, figures in results.items():
        atoms = [f["atoms"] for f in figures]
        label = f"{NAMES[name]}, exponent {exponent(figures):.2f}"
        left.loglog(atoms, [f["seconds"] for f in figures], "o-", label=label)
        right.loglog(atoms, [f["memory"] for f in figures], "o-", label=NAMES[name])
    left.set(xlabel="atoms", ylabel="time (s)")
    right.set(xlabel="atoms", ylabel="peak memory (GiB)")
    for axes in (left, right):
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    fig.savefig(path, dpi=120)


def write(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="number of atoms")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(case(args.case[0], int(args.case[1]))))
        return
    results, table = {}, []
    for name in NAMES:
        results[name] = []
        for n_atoms in (n for n in SIZES if n <= args.largest):
            command = [sys.executable, __file__, "--case", name, str(n_atoms)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[name].append(json.loads(output))
            table.append(row(name, results[name][-1]))
            print(table[-1], flush=True)
    exponents = [
        {"system": NAMES[name], "exponent of the time": f"{exponent(figures):.2f}"}
        for name, figures in results.items()
    ]
    print(exponents)
    write(ROOT / "benchmarks/results/large.csv", table)
    write(ROOT / "benchmarks/results/large_slopes.csv", exponents)
    picture(results, ROOT / "docs/_static/large_systems.png")


if __name__ == "__main__":
    main()
