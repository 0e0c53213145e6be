"""Dynamics of ten water molecules in a strong external field, with two responses and GFN2-xTB.

    python benchmarks/flow_dynamics.py kQEq MODEL | ChargeFlow MODEL | GFN2-xTB [--picoseconds 50]

The script tests with which method the cluster breaks apart. A neutral cluster, elongated along z,
moves at 300 K in an external field of 0.2 V/Angstrom along z, between walls at z = +-30 Angstrom.
There is one run for each seed; the default is three seeds. MODEL is a file with a fitted pipeline,
which ``gap_accuracy.py water`` stores. "GFN2-xTB" is the reference method itself (tblite). The
state of a run is stored in ``./flow_dynamics`` every half picosecond. An interrupted run continues
from the stored state. The script writes two tables:

- ``results/flow_dynamics.csv``: one line per seed, with the largest charge that any molecule
  reached, and the time at which the cluster first split into parts more than 5 Angstrom apart.
- ``results/flow_dynamics_series.csv``: one line per half picosecond.
"""

import argparse
import csv
from pathlib import Path

import joblib
import numpy as np
from ase import units
from ase.calculators.calculator import Calculator, all_changes
from ase.constraints import Hookean
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from skqeq import KQEqCalculator
from skqeq.datasets import load_water
from skqeq.persistence import replacing
from skqeq.validation import find_fragments, fragment_charges

RESULTS = Path(__file__).parent / "results"
STATES = Path("flow_dynamics")
STRENGTH, WALL = 0.2, 30.0  # V/Angstrom, Angstrom
STRETCH = 1.5
SPLIT = 5.0  # distance between atoms of two molecules above which a cluster is split, Angstrom
STEP, PART = 1.0, 500  # time step, fs; number of steps after which the state is stored


class GFN2(Calculator):
    """GFN2-xTB in a uniform external field; the energy refers to the coordinate origin."""

    implemented_properties = ["energy", "forces", "charges"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Energy (eV), forces (eV/Angstrom) and Mulliken charges (e)."""
        from tblite.interface import Calculator as Method

        super().calculate(atoms, properties, system_changes)
        atoms, atomic = self.atoms, units.Hartree / units.Bohr
        method = Method("GFN2-xTB", atoms.numbers, atoms.positions / units.Bohr)
        method.set("verbosity", 0)
        method.add("electric-field", [x / atomic for x in atoms.info["external_field"]])
        result = method.singlepoint()
        self.results = {
            "energy": result["energy"] * units.Hartree,
            "forces": -result["gradient"] * atomic,
            "charges": result["charges"],
        }


def elongated():
    """A bundled cluster of ten molecules with its long axis along z, stretched along z."""
    X, _ = load_water()
    atoms = next(
        a.copy()
        for a in X
        if a.info["n_molecules"] == 10 and a.info["charge"] == 0 and a.info["expansion"] == 1.0
    )
    atoms.info = {"charge": 0, "external_field": [0.0, 0.0, STRENGTH]}
    fragments = find_fragments(atoms)
    assert fragments.max() == 9
    atoms.positions -= atoms.get_center_of_mass()
    axes = np.linalg.eigh(np.cov(atoms.positions.T))[1]
    axes *= np.linalg.det(axes)  # make it a rotation without a reflection
    atoms.positions = atoms.positions @ axes
    for f in range(10):
        members = fragments == f
        center = np.average(atoms.positions[members], axis=0, weights=atoms.get_masses()[members])
        atoms.positions[members, 2] += (STRETCH - 1.0) * center[2]
    return atoms


def observe(atoms, fragments):
    """Largest charge of a molecule, e, and the number of parts more than `SPLIT` apart."""
    charges = fragment_charges(atoms.get_charges(), fragments)
    connected = atoms.get_all_distances() < SPLIT
    return float(np.abs(charges).max()), int(connected_components(connected)[0])


def run(name, calculator, seed, picoseconds):
    """Do one run; return a line for every tenth of a picosecond."""
    STATES.mkdir(exist_ok=True)
    path = STATES / f"{name}_{seed}.joblib"
    atoms = elongated()
    fragments = find_fragments(atoms)
    planes = [(0, 0, sign, -WALL) for sign in (1, -1)]  # beyond them a spring pulls atoms back
    atoms.set_constraint([Hookean(i, plane, 5.0) for i in range(len(atoms)) for plane in planes])
    rng, lines, done = np.random.default_rng(seed), [], 0
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=rng)
    if path.exists():
        positions, momenta, rng, lines, done = joblib.load(path)
        atoms.positions = positions
        atoms.set_momenta(momenta)
    atoms.calc = calculator
    dynamics = Langevin(
        atoms,
        STEP * units.fs,
        temperature_K=300,
        friction=0.005 / units.fs,
        fixcm=False,
        rng=rng,
    )
    total = int(round(1e3 * picoseconds / STEP))
    with tqdm(total=total, initial=done, desc=f"{name}, seed {seed}") as bar:
        while done < total:
            for _ in range(PART // 100):
                dynamics.run(100)
                done += 100
                lines.append((done * STEP / 1e3, *observe(atoms, fragments)))
            bar.update(PART)
            state = atoms.positions, atoms.get_momenta(), rng, lines, done
            with replacing(path) as temporary:
                joblib.dump(state, temporary)
    return np.array(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("model", nargs="?")
    parser.add_argument("--picoseconds", type=float, default=50.0)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    calculator = GFN2()
    if args.model:
        _, _, model = joblib.load(args.model)
        calculator = KQEqCalculator(model)
    for seed in range(args.seeds):
        lines = run(args.name, calculator, seed, args.picoseconds)
        split = np.flatnonzero(lines[:, 2] > 1)
        row = [f"{lines[-1, 0]:g}", f"{lines[:, 1].max():.3f}"]
        row += [f"{lines[split[0], 0]:.1f}" if len(split) else "", f"{lines[:, 2].max():.0f}"]
        print(args.name, seed, row)
        head = ["time (ps)", "largest charge (e)", "split after (ps)", "most parts"]
        replace("flow_dynamics.csv", head, args.name, seed, [row])
        # The largest charge within each half picosecond, and the number of parts at its end.
        halves = lines[: len(lines) // 5 * 5].reshape(-1, 5, 3)
        series = zip(halves[:, -1, 0], halves[:, :, 1].max(axis=1), halves[:, -1, 2], strict=True)
        rows = [[f"{t:.1f}", f"{q:.4f}", f"{n:.0f}"] for t, q, n in series]
        head = ["time (ps)", "largest charge (e)", "parts"]
        replace("flow_dynamics_series.csv", head, args.name, seed, rows)


def replace(name, head, model, seed, rows):
    """Write the rows of a run to a table, and remove earlier rows of the same run."""
    path, table = RESULTS / name, []
    if path.exists():
        with open(path, newline="") as file:
            table = [row for row in csv.reader(file) if row[:2] != [model, str(seed)]][1:]
    table += [[model, str(seed), *row] for row in rows]
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["model", "seed", *head], *table])


if __name__ == "__main__":
    main()
