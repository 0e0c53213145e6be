"""Time of energies and forces relative to the descriptors and the kernel that they require.

    python benchmarks/forces.py

The structures are rattled balls and crystals of wurtzite ZnO. The models are fitted to made-up
charges, because the time of a prediction depends on the number of sparse points and not on the
labels. The floor is the time of the work that cannot be avoided: one computation of the features of
the same structure (descriptors, kernel and whitening), with no descriptors in memory. All work is
done in one thread. Each time is the shortest processor time of several short repetitions, because a
long run on a shared machine is always interrupted. The forces are also computed once from DScribe's
array of derivatives, and both results must agree. Peak memory is that of a process that loads a
model and predicts. The tables are printed and written to ``benchmarks/results/forces*.csv``.
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
    QEq,
    SOAPFeaturizer,
    check_structures,
    make_targets,
    set_memory_budget,
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
    """A pipeline with `n_points` sparse points per element, fitted to charges close to +-1."""
    X = [zno_ball(200, seed=1 + seed) for seed in range(n_points // 80)]
    rng = np.random.default_rng(0)
    Q = [np.where(a.symbols == "Zn", 1.0, -1.0) + 0.1 * rng.normal(size=len(a)) for a in X]
    model = make_pipeline(
        SOAPFeaturizer(r_cut, n_max=N_MAX, l_max=L_MAX, cutoff_width=width),
        CURSparsifier(n_points),
        KQEqRegressor(sigma_charges=0.1, response=QEq(hardness=5.0)),
    )
    return model.fit(X, make_targets(charges=Q))


def least(*functions, repeats=REPEATS):
    """Shortest processor time of each function, seconds; they are called in alternation."""
    seconds = np.full(len(functions), np.inf)
    for _ in range(repeats):
        for f, function in enumerate(functions):
            begin = time.process_time()
            function()
            seconds[f] = min(seconds[f], time.process_time() - begin)
    return seconds


def walk(model, atoms):
    """Compute descriptors, kernel and whitening of one structure."""
    for _ in model[:-1].transform([atoms]).blocks():
        pass


def predict(model, atoms):
    """Compute energy and forces, which are all that a time step of dynamics needs."""
    calculator = KQEqCalculator(model)
    calculator.calculate(atoms, ["energy", "forces"], all_changes)
    return calculator.results


def short_range(model, atoms):
    """Electronegativities, and their contribution to the energy gradient if all charges are 1 e."""
    [structure] = check_structures([atoms])
    features = model[:-1].transform([structure])
    dual = features.dual(model[-1].coef_[: features.n_features])
    gradient = features.gradient(structure)
    gradient.field(dual)
    return gradient.field_gradient(np.ones(len(atoms)), dual)[0]


def dense_derivatives(model, atoms):
    """The result of `short_range`, but from DScribe's array of derivatives; sharp cutoff only."""
    [structure] = check_structures([atoms])
    features = model[:-1].transform([structure])
    source = features.source
    dual = features.dual(model[-1].coef_[: features.n_features])
    # The kernel is a sum over cutoffs, so that one array of derivatives at a time is enough.
    gradient = np.zeros((len(atoms), 3))
    for b, spectrum in enumerate(source.parent.spectra):
        soap = spectrum._dscribe(structure.species, structure.periodic)
        dp, p = soap.derivatives(atoms, method="analytical", attach=True)
        norms = np.linalg.norm(p, axis=1, keepdims=True)
        x, cotangents = p / norms, np.zeros_like(p)
        columns = slice(*source.parent.boundaries[b : b + 2])
        for z, kernel in source.kernels.items():
            members, points = structure.numbers == z, kernel.points[:, columns]
            cosines = x[members] @ points.T
            derivative = kernel.block_weights[b] * kernel.zeta * cosines ** (kernel.zeta - 1)
            t = derivative * dual[source.columns[z]] / norms[members]
            projection = np.sum(t * cosines, axis=1)[:, None] * x[members]
            cotangents[members] = t @ points - projection
        gradient += np.einsum("iajf,if->aj", dp, cotangents, optimize=True)
    return gradient


def costs(models, memory):
    """Yield a row per case: ratios for `N_ATOMS` atoms, and peak memory for `MEMORY_ATOMS`."""
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
    """Yield the time of the short-range part per atom, ms; structures of all sizes alternate."""
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
    # The pairs include each atom with itself.
    return len(SOAPNeighborhood(model[0].spectra_[-1], structure).i) / len(atoms) - 1


def dynamics(models):
    """Yield time steps of molecular dynamics per second; structures of all sizes alternate."""
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
    """Name of a cutoff function in the tables."""
    return "DScribe's" if width is None else f"smooth, {width}"


def write(name, rows):
    """Print each row as soon as it is computed, and write the table."""
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
    """Run this script with other arguments in a new process; return its output."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    threadpool_limits(1)
    set_memory_budget(0)
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
        # Memory is measured first, because a new process starts with the peak memory of its parent.
        for number, case in enumerate(CASES):
            models[case] = Path(folder) / f"{number}.joblib"
            run("--fit", number, models[case])
            memory[case] = float(run("--memory", models[case]))
        write("forces.csv", costs(models, memory))
        first_models = {case: models[case] for case in CASES[:2]}
        write("forces_sizes.csv", sizes(first_models))
        write("forces_dynamics.csv", dynamics(first_models))


if __name__ == "__main__":
    main()
