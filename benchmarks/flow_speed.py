"""Time of `ChargeFlow` relative to charge equilibration.

    python benchmarks/flow_speed.py

The cases are fits to dipoles, fits to energies and forces, and time steps of molecular dynamics
(energy and forces) for a cluster, boxes of water and a crystal. The two responses alternate, and
the shortest time of a few repetitions counts. Fits to energies take the same number of Gauss-Newton
steps with both responses. The script writes ``results/flow_speed.csv`` with the times and their
ratio.
"""

import csv
import time
import warnings
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    KQEqCalculator,
    KQEqRegressor,
    QEq,
    SOAPFeaturizer,
    StructureBlocks,
    get_memory_budget,
    make_targets,
    set_memory_budget,
)
from skqeq.datasets import load_molecules, load_water

RESULTS = Path(__file__).parent / "results"
DEFAULT_BUDGET = get_memory_budget()


def responses(**parameters):
    """Both responses, by name."""
    return {
        "QEq": QEq(**parameters),
        "ChargeFlow": ChargeFlow(softness=0.05, range=0.25, **parameters),
    }


def fastest(functions, repeat):
    """Shortest time of each function, seconds; the functions are called in alternation."""
    seconds = dict.fromkeys(functions, np.inf)
    for _ in range(repeat):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def dipoles(n_points):
    """Functions that compute features of all bundled molecules and fit models to their dipoles."""
    set_memory_budget(0)  # every fit computes the descriptors
    X, y = load_molecules()
    soap = SOAPFeaturizer(r_cut=(1.7, 3.5), n_max=8, l_max=6)
    models = {
        name: make_pipeline(soap, CURSparsifier(n_points=n_points), KQEqRegressor(response=r))
        for name, r in responses().items()
    }
    return {name: lambda m=m: m.fit(X, y["dipole"]) for name, m in models.items()}, 2


def half(r_cut, n_points, **options):
    """Descriptor and sparse set of one latent field."""
    soap = SOAPFeaturizer(r_cut=r_cut, cutoff_width=1.5, n_max=6, l_max=4)
    return make_pipeline(soap, CURSparsifier(n_points=n_points, **options))


def blocks(n_points):
    """Features of the latent fields of the charges, and features of the local energy."""
    gap = half((3.0, 6.0), n_points, block_weights=(0.8, 0.2))
    return StructureBlocks([("chi", half((3.0, 6.0), n_points)), ("gap", gap)])


def energies(n_structures, n_points):
    """Functions that do two Gauss-Newton steps for energies, forces and dipoles of clusters."""
    X, y = load_water()
    sample = np.random.default_rng(0).permutation(len(X))[:n_structures]
    X, y = [X[i] for i in sample], y[["energy", "forces", "dipole"]][sample]
    options = {"amplitude_gap": 10.0, "amplitude_chi": 3.0, "max_iter": 2, "tol": 1e-9}
    models = {
        name: make_pipeline(blocks(n_points), GAPKQEqRegressor(response=r, **options))
        for name, r in responses(hardness=2.7).items()
    }
    return {name: lambda m=m: m.fit(X, y) for name, m in models.items()}, 2


def step(atoms, local=True):
    """Functions that move atoms and compute energy and forces, with models fitted to charges."""
    X = [atoms.copy() for _ in range(1 if len(atoms) > 100 else 6)]
    for seed, copy in enumerate(X):
        copy.rattle(0.03, seed=seed)
    rng = np.random.default_rng(0)
    labels = make_targets(charges=[0.3 * rng.normal(size=len(atoms)) for _ in X])
    moves = {}
    kind = GAPKQEqRegressor if local else KQEqRegressor
    hardness = 2.7 if local else 0.0
    for name, response in responses(radius_scale=0.35, hardness=hardness).items():
        features = blocks(500) if local else half((3.0, 6.0), 500)
        model = make_pipeline(features, kind(response=response)).fit(X, labels)
        moving = atoms.copy()
        moving.calc = KQEqCalculator(model)

        def move(moving=moving, rng=rng):
            moving.positions += rng.normal(scale=0.01, size=moving.positions.shape)
            moving.get_forces()

        move()
        moves[name] = move
    return moves, 10


def water(n):
    """A box of n^3 molecules."""
    rng = np.random.default_rng(0)
    atoms = Atoms(cell=[3.1 * n] * 3, pbc=True)
    for place in np.ndindex(n, n, n):
        one = molecule("H2O")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3), center="COM")
        one.translate(3.1 * np.array(place))
        atoms += one
    return atoms


def main():
    cluster, drop = water(2), water(8)
    cluster.pbc = drop.pbc = False
    studies = {
        "fit, dipoles of 507 molecules, 500 points": lambda: dipoles(500),
        "fit, dipoles of 507 molecules, 1000 points": lambda: dipoles(1000),
        "fit, energies and forces of 100 clusters, 200 points": lambda: energies(100, 200),
        "fit, energies and forces of 100 clusters, 500 points": lambda: energies(100, 500),
        "step, 24 atoms": lambda: step(cluster),
        "step, box of 192 atoms": lambda: step(water(4)),
        "step, drop of 1536 atoms": lambda: step(drop),
        "step, box of 3000 atoms": lambda: step(water(10)),
        "step, crystal of 216 atoms": lambda: step(
            bulk("NaCl", "rocksalt", a=5.64, cubic=True) * 3
        ),
    }
    rows = [("case", "QEq (s)", "ChargeFlow (s)", "ratio")]
    for name, make in studies.items():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "n_points|gauss_newton stopped")
            set_memory_budget(DEFAULT_BUDGET)
            seconds = fastest(*make())
        ratio = seconds["ChargeFlow"] / seconds["QEq"]
        rows.append((name, *(f"{s:.3g}" for s in seconds.values()), f"{ratio:.2f}"))
        print(*rows[-1], sep="  ", flush=True)
        with open(RESULTS / "flow_speed.csv", "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main()
