"""Energy conservation of trained models in ten picoseconds of dynamics of a zinc oxide particle.

    python benchmarks/zno_dynamics.py [--picoseconds 10]

Two models are trained on energies and forces of clusters of 20 to 60 atoms. The labels come from a
potential of rigid ions. The models differ in the cutoff of the descriptor. With DScribe's sharp
cutoff the weight of a neighbour jumps to zero; with ``cutoff_width`` it decreases smoothly. With
each model, a particle of 200 atoms then moves at constant energy, starting at 300 K. The runs are
written to ``benchmarks/results/zno_dynamics.csv``. The energy drifts, and the errors of energies
and forces, are written to ``zno_dynamics_drift.csv``.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.fd import calculate_numerical_forces
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet
from ase.optimize import LBFGS
from sklearn.pipeline import make_pipeline
from tqdm import tqdm

from skqeq import (
    CURSparsifier,
    KQEqCalculator,
    KQEqRegressor,
    QEq,
    SOAPFeaturizer,
    make_targets,
    predict_targets,
)
from skqeq.calculator import ProgressBar
from skqeq.parameters import COULOMB

EDGES = {"DScribe's edge": None, "smooth edge": 1.5}  # name: cutoff_width, Angstrom
# Number of pairs of ions, and length of the cluster along the c axis relative to its width.
SHAPES = [(10, 1.0), (12, 1.5), (15, 0.7), (18, 1.0), (22, 1.5), (26, 0.7), (30, 1.0)]
SAMPLES = 6  # snapshots of every shape
# Charge labels with a small weight. They determine which element is positive, and a fit that starts
# from them takes few steps.
BIAS = {"Zn": 1.0, "O": -1.0}  # e
STEP = 2.0  # fs
RESULTS = Path(__file__).parent / "results"


class RigidIons(Calculator):
    """Charges of 1 e and -1 e, and an exponential repulsion of Zn-O and O-O pairs.

    The energy is ``E = sum_(i<j) k_e q_i q_j / r + A exp(-r / rho)``, for structures without a
    cell. The parameters are made up. They give bonds of 2 Angstrom, as in zinc oxide. In relaxed
    clusters most ions have three or four neighbours, as in wurtzite and at its surface.
    """

    implemented_properties = ["energy", "forces"]
    rho = 0.25  # Angstrom
    zn_o, o_o = 900.0, 20_000.0  # A, eV

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Energy (eV) and forces (eV/Angstrom)."""
        super().calculate(atoms, properties, system_changes)
        vectors = self.atoms.positions[:, None] - self.atoms.positions
        r = np.linalg.norm(vectors, axis=2)
        np.fill_diagonal(r, np.inf)
        oxygen = 1 * (self.atoms.symbols == "O")
        A = np.array([0.0, self.zn_o, self.o_o])[oxygen[:, None] + oxygen]
        coulomb = COULOMB * np.outer(1 - 2 * oxygen, 1 - 2 * oxygen) / r
        repulsion = A * np.exp(-r / self.rho)
        force_per_length = (coulomb / r + repulsion / self.rho) / r
        self.results = {
            "energy": (coulomb + repulsion).sum() / 2,
            "forces": np.einsum("ij,ija->ia", force_per_length, vectors),
        }


def cluster(n_pairs, elongation):
    """The pairs of ions in wurtzite that are closest to a point, relaxed in the potential.

    A pair consists of a zinc and an oxygen ion that are bonded along c, so that every cluster is
    neutral.
    """
    crystal = bulk("ZnO", "wurtzite", a=3.25, c=5.21, u=0.382) * (12, 12, 8)
    first = crystal.positions[crystal.symbols == "Zn"]
    pairs = np.stack([first, first + [0.0, 0.0, 0.382 * 5.21]], axis=1)
    pairs -= pairs.mean(axis=(0, 1))
    distance = np.linalg.norm(pairs.mean(axis=1) / [1.0, 1.0, elongation], axis=1)
    nearest = np.argsort(distance, kind="stable")[:n_pairs]
    atoms = Atoms("ZnO" * n_pairs, pairs[nearest].reshape(-1, 3))
    atoms.calc = RigidIons()
    with LBFGS(atoms, logfile=None) as relaxation:
        relaxation.run(fmax=0.02, steps=1000)
    return atoms


def thermostat(atoms, temperature, seed):
    """Langevin dynamics at a temperature (K)."""
    noise = np.random.default_rng(seed)
    options = {"temperature_K": temperature, "friction": 0.02 / units.fs, "fixcm": False}
    return Langevin(atoms, STEP * units.fs, rng=noise, **options)


def samples(disable=False):
    """Snapshots of clusters of all shapes at 600 K, every 200 fs, with energies and forces."""
    X = []
    for seed, shape in enumerate(tqdm(SHAPES, desc="clusters", disable=disable)):
        atoms = cluster(*shape)
        with thermostat(atoms, 600, seed) as run:
            for _ in range(SAMPLES):
                run.run(100)
                X.append(atoms.copy())
                X[-1].calc = RigidIons()
    y = make_targets(
        energy=[atoms.get_potential_energy() for atoms in X],
        forces=[atoms.get_forces() for atoms in X],
    )
    return X, y


def particle():
    """A particle of 200 atoms with momenta, after 2 ps at 300 K."""
    atoms = cluster(100, 1.0)
    with thermostat(atoms, 300, seed=0) as run:
        run.run(1000)
    Stationary(atoms)
    ZeroRotation(atoms)
    return atoms


def trained(X, y, cutoff_width):
    """A model that is fitted to energies and forces."""
    return make_pipeline(
        SOAPFeaturizer(r_cut=4.4, cutoff_width=cutoff_width, n_max=6, l_max=4),
        CURSparsifier(n_points=200),
        KQEqRegressor(
            sigma_charges=0.5,
            charge_bias=BIAS,
            tol=1e-4,
            response=QEq(radius_scale=0.7071, hardness=27.2),
        ),
    ).fit(X, y)


def errors(model, X, y):
    """Root mean squared errors: energy per atom (meV), forces (meV/Angstrom)."""
    predicted = predict_targets(model, X, ["energy", "forces"])
    energy = (predicted["energy"] - y["energy"]) / [len(atoms) for atoms in X]
    forces = np.concatenate(predicted["forces"]) - np.concatenate(y["forces"])
    return [1e3 * np.sqrt(np.mean(error**2)) for error in (energy, forces)]


def dynamics(model, atoms, picoseconds, disable=False):
    """Run dynamics at constant energy, and return records every 10 fs.

    The columns are time (ps), change of the total energy (meV/atom), and temperature (K).
    """
    atoms = atoms.copy()
    atoms.calc = KQEqCalculator(model)
    n_steps = round(1000 * picoseconds / STEP)
    records = []

    def record():
        energy = 1e3 * atoms.get_total_energy() / len(atoms)
        records.append((run.get_time() / (1000 * units.fs), energy, atoms.get_temperature()))

    with (
        VelocityVerlet(atoms, STEP * units.fs) as run,
        ProgressBar(run, n_steps, disable=disable),
    ):
        run.attach(record, interval=round(10 / STEP))
        run.run(n_steps)
    return np.array(records) - [0.0, records[0][1], 0.0]


def drift(records):
    """Energy drift over a run, from a linear fit, and scatter of the energy; meV/atom."""
    time, energy = records[:, 0], records[:, 1]
    line = np.polyfit(time, energy, 1)
    return line[0] * np.ptp(time), np.std(energy - np.polyval(line, time))


def write(path, rows):
    """Write rows to a table."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read():
    """Read the recorded runs: for each cutoff, the array that `dynamics` returned."""
    with open(RESULTS / "zno_dynamics.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {
        edge: np.array([row[1:] for row in rows if row[0] == edge], dtype=float) for edge in EDGES
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picoseconds", type=float, default=10.0)
    picoseconds = parser.parse_args().picoseconds
    X, y = samples()
    numerical = calculate_numerical_forces(X[0], eps=1e-4)
    assert np.allclose(y["forces"][0], numerical, rtol=0, atol=1e-5)
    test = np.arange(len(X)) % SAMPLES == SAMPLES - 1
    start = particle()
    run, summary = [], []
    for edge, width in EDGES.items():
        begin = time.perf_counter()
        # The last snapshot of every shape is not used for training; it gives the errors.
        model = trained([X[i] for i in np.flatnonzero(~test)], y[~test], width)
        energy, forces = errors(model, [X[i] for i in np.flatnonzero(test)], y[test])
        print(f"{edge}: trained in {time.perf_counter() - begin:.0f} s", flush=True)
        records = dynamics(model, start, picoseconds)
        change, scatter = drift(records)
        for t, total, temperature in records:
            run.append(
                {
                    "edge": edge,
                    "time, ps": f"{t:.2f}",
                    "energy, meV/atom": f"{total:.4f}",
                    "temperature, K": f"{temperature:.1f}",
                }
            )
        summary.append(
            {
                "edge": edge,
                "RMSE, meV/atom": f"{energy:.2f}",
                "RMSE, meV/A": f"{forces:.0f}",
                "time, ps": f"{picoseconds:g}",
                "drift, meV/atom": f"{change:+.3f}",
                "scatter, meV/atom": f"{scatter:.3f}",
                "temperature, K": f"{records[:, 2].mean():.0f}",
            }
        )
        print(summary[-1], flush=True)
    write(RESULTS / "zno_dynamics.csv", run)
    write(RESULTS / "zno_dynamics_drift.csv", summary)


if __name__ == "__main__":
    main()
