"""What energies and forces cost, next to the descriptors and the kernel that they need anyway.

    python benchmarks/forces.py

Rattled balls of wurtzite, with models fitted to made-up charges: the cost of a prediction depends
on the number of sparse points and not on what they say. The floor is the walk over the features of
the same structure, descriptors, kernel and whitening, without the store of descriptors. Everything
runs in one thread, and times are the least seconds of the processor in several turns: a long run is
always interrupted on a machine that is shared, a short one is not. The way through DScribe's array
of derivatives is taken once, and its result compared. Peak memory is that of a process which loads
a model and predicts. Tables are printed and written to ``benchmarks/results/forces*.csv``.
"""

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from itertools import product
from pathlib import Path

import joblib
import numpy as np
from ase import units
from ase.calculators.calculator import all_changes
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from sklearn.pipeline import make_pipeline
from systems import zno, zno_ball
from threadpoolctl import threadpool_limits

from skqeq import (
    CURSparsifier,
    KQEqCalculator,
    KQEqRegressor,
    SOAPFeaturizer,
    check_structures,
    make_targets,
)
from skqeq.features import SOAPNeighborhood

SINGLE, DOUBLE = (4.4,), (2.2, 4.4)
# cutoffs, cutoff_width, sparse points per element
CASES = [
    (SINGLE, None, 500),
    (SINGLE, 1.0, 500),
    (DOUBLE, None, 500),
    (DOUBLE, 1.0, 500),
    (SINGLE, None, 1000),
    (SINGLE, 1.0, 1000),
]
N_MAX, L_MAX = 8, 6
N_ATOMS = 168
SYSTEMS = {"crystal": zno, "ball": zno_ball}
SIZES = (200, 500, 1000, 2000, 5000)
DYNAMICS = (64, 192, 1000)
MEMORY_ATOMS = 1000
STEPS = 5
REPEATS = 20
RESULTS = Path(__file__).parent / "results"


def fitted(r_cut, width, n_points):
    """A pipeline with so many sparse points per element, fitted to charges near +-1."""
    X = [zno_ball(200, seed=1 + seed) for seed in range(n_points // 80)]
    rng = np.random.default_rng(0)
    Q = [np.where(a.symbols == "Zn", 1.0, -1.0) + 0.1 * rng.normal(size=len(a)) for a in X]
    model = make_pipeline(
        SOAPFeaturizer(r_cut, n_max=N_MAX, l_max=L_MAX, cutoff_width=width),
        CURSparsifier(n_points),
        KQEqRegressor(hardness=5.0, sigma_charges=0.1),
    )
    return model.fit(X, make_targets(charges=Q))


def least(*functions, repeats=REPEATS):
    """Least seconds of every function, called in turns."""
    seconds = np.full(len(functions), np.inf)
    for _ in range(repeats):
        for f, function in enumerate(functions):
            begin = time.process_time()
            function()
            seconds[f] = min(seconds[f], time.process_time() - begin)
    return seconds


def walk(model, atoms):
    """Descriptors, kernel and whitening of one structure, and nothing else."""
    for _ in model[:-1].transform([atoms]).blocks():
        pass


def predict(model, atoms):
    """Energy and forces, all that a step of dynamics asks for."""
    calculator = KQEqCalculator(model)
    calculator.calculate(atoms, ["energy", "forces"], all_changes)
    return calculator.results


def short_range(model, atoms):
    """The electronegativities and the derivatives of what they contribute, without charges."""
    [structure] = check_structures([atoms])
    features = model[:-1].transform([structure])
    dual = features.dual(model[-1].coef_[: features.n_features])
    near = features.gradient(structure)
    near.field(dual)
    return near.field_gradient(np.ones(len(atoms)), dual)[0]


def dense_derivatives(model, atoms):
    """`short_range` through DScribe's array of derivatives, for its own edge."""
    [structure] = check_structures([atoms])
    features = model[:-1].transform([structure])
    source = features.source
    dual = features.dual(model[-1].coef_[: features.n_features])
    # The kernel is a sum over cutoffs, and so is its derivative: one array at a time.
    gradient = np.zeros((len(atoms), 3))
    for b, spectrum in enumerate(source.parent.spectra):
        soap = spectrum._dscribe(structure.species, structure.periodic)
        dp, p = soap.derivatives(atoms, method="analytical", attach=True)
        norms = np.linalg.norm(p, axis=1, keepdims=True)
        x, given = p / norms, np.zeros_like(p)
        columns = slice(*source.parent.boundaries[b : b + 2])
        for z, kernel in source.kernels.items():
            own, points = structure.numbers == z, kernel.points[:, columns]
            cosines = x[own] @ points.T
            slope = kernel.block_weights[b] * kernel.zeta * cosines ** (kernel.zeta - 1)
            t = slope * dual[source.columns[z]] / norms[own]
            given[own] = t @ points - np.sum(t * cosines, axis=1)[:, None] * x[own]
        gradient += np.einsum("iajf,if->aj", dp, given, optimize=True)
    return gradient


def costs(models, memory):
    """The table of cases: ratios for `N_ATOMS` atoms, peak memory for `MEMORY_ATOMS`."""
    atoms = zno_ball(N_ATOMS)
    dense = {}
    for (r_cut, width, n_points), path in models.items():
        model = joblib.load(path)
        floor, seconds, short = least(
            *(partial(function, model, atoms) for function in (walk, predict, short_range))
        )
        if width is None and r_cut not in dense:
            exact = short_range(model, atoms)
            begin = time.process_time()
            difference = dense_derivatives(model, atoms) - exact
            dense[r_cut] = time.process_time() - begin
            assert np.abs(difference).max() < 1e-7 * np.abs(exact).max()
        yield {
            "r_cut": ", ".join(map(str, r_cut)),
            "edge": edge(width),
            "points": 2 * n_points,
            "floor, ms": f"{1e3 * floor:.0f}",
            "short range / floor": f"{short / floor:.2f}",
            "energy and forces / floor": f"{seconds / floor:.2f}",
            "DScribe's derivatives / energy and forces": f"{dense[r_cut] / seconds:.0f}",
            f"peak memory of {MEMORY_ATOMS} atoms, GiB": f"{memory[r_cut, width, n_points]:.2f}",
        }


def sizes(models):
    """Milliseconds per atom of the short-range part, all sizes in turns."""
    for (system, make), (case, path) in product(SYSTEMS.items(), models.items()):
        model = joblib.load(path)
        structures = [make(n) for n in SIZES]
        tasks = [partial(short_range, model, atoms) for atoms in structures]
        seconds = least(*tasks, repeats=6) / [len(atoms) for atoms in structures]
        first, last = (neighbors(model, structures[i]) for i in (0, -1))
        yield {
            "system": system,
            "edge": edge(case[1]),
            "neighbours": f"{first:.0f} - {last:.0f}",
            **{f"{n} atoms": f"{1e3 * s:.2f}" for n, s in zip(SIZES, seconds, strict=True)},
            "slowest / fastest": f"{seconds.max() / seconds.min():.2f}",
        }


def neighbors(model, atoms):
    """Mean number of neighbours within the longest cutoff."""
    [structure] = check_structures([atoms])
    return len(SOAPNeighborhood(model[0].spectra_[-1], structure).i) / len(atoms) - 1


def dynamics(models):
    """Steps per second of molecular dynamics, all sizes in turns."""
    for case, path in models.items():
        model, runs = joblib.load(path), []
        for n_atoms in DYNAMICS:
            atoms = zno_ball(n_atoms)
            atoms.calc = KQEqCalculator(model)
            MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
            runs.append(VelocityVerlet(atoms, 0.5 * units.fs))
            runs[-1].run(1)
        seconds = least(*(partial(run.run, STEPS) for run in runs), repeats=3) / STEPS
        yield {
            "edge": edge(case[1]),
            **{f"{n} atoms": f"{1 / s:.1f}" for n, s in zip(DYNAMICS, seconds, strict=True)},
        }


def edge(width):
    return "DScribe's" if width is None else f"smooth, {width}"


def write(name, rows):
    """Print rows as they come, and write them."""
    table = []
    for row in rows:
        table.append(row)
        print(row, flush=True)
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / name, "w", newline="") as file:
        writer = csv.DictWriter(file, table[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def run(*arguments):
    """What this script prints with other arguments, in a process of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    threadpool_limits(1)
    if args.fit:
        number, path = args.fit
        joblib.dump(fitted(*CASES[int(number)]), path)
        return
    if args.memory:
        predict(joblib.load(args.memory), zno_ball(MEMORY_ATOMS))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
        return
    with tempfile.TemporaryDirectory() as folder:
        models, memory = {}, {}
        # Before anything else: the peak of a new process is at least that of the one it is from.
        for number, case in enumerate(CASES):
            models[case] = Path(folder) / f"{number}.joblib"
            run("--fit", number, models[case])
            memory[case] = float(run("--memory", models[case]))
        write("forces.csv", costs(models, memory))
        some = {case: models[case] for case in CASES[:2]}
        write("forces_sizes.csv", sizes(some))
        write("forces_dynamics.csv", dynamics(some))


if __name__ == "__main__":
    main()
