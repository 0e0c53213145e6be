"""
Molecular dynamics
==================

A model that was trained on energies and forces drives molecular dynamics through ASE. The total
energy tells whether its forces are the derivatives of its energies, and whether these are smooth.
"""

# %%
# Reference energies
# ------------------
# Clusters of rock salt with the energies of rigid ions: charges of ±1 e and an exponential
# repulsion between all of them. Its parameters are made up, of the size that alkali halides have.
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    KQEqCalculator,
    KQEqRegressor,
    SOAPFeaturizer,
    make_targets,
    predict_targets,
)
from skqeq.calculator import ProgressBar
from skqeq.parameters import COULOMB

rng = np.random.default_rng(0)
crystal = bulk("NaCl", "rocksalt", a=5.4, cubic=True) * 2


def reference(atoms):
    """Energy (eV) and forces (eV/Angstrom)."""
    vectors = atoms.positions[:, None] - atoms.positions
    r = np.linalg.norm(vectors, axis=2) + np.diag(np.full(len(atoms), np.inf))
    charges = np.where(atoms.symbols == "Na", 1.0, -1.0)
    coulomb = COULOMB * np.outer(charges, charges) / r
    repulsion = 1200.0 * np.exp(-r / 0.31)
    forces = np.einsum("ij,ija->ia", (coulomb / r + repulsion / 0.31) / r, vectors)
    return (coulomb + repulsion).sum() / 2, forces


def cluster(*shape):
    """A block of the crystal."""
    atoms = crystal[(crystal.positions < np.array(shape) * 2.7 - 0.1).all(axis=1)]
    return Atoms(atoms.symbols, atoms.positions)


def rattled(shape):
    atoms = cluster(*shape)
    atoms.positions *= rng.uniform(0.95, 1.1)
    atoms.positions += rng.normal(scale=0.15, size=atoms.positions.shape)
    return atoms


shapes = [(2, 2, 1), (4, 2, 1), (2, 2, 2), (3, 2, 2), (4, 2, 2)]
X = [rattled(shape) for shape in shapes for _ in range(6)]
X_test = [rattled(shape) for shape in shapes for _ in range(4)]
y, y_test = (
    make_targets(energy=energies, forces=forces)
    for energies, forces in (zip(*map(reference, some)) for some in (X, X_test))
)

# %%
# Two models
# ----------
# They differ in how the view of an atom ends: DScribe's edge is a small jump, with ``cutoff_width``
# neighbours fade out.
edges = {
    "DScribe's edge": {"r_cut": 4.0},
    "smooth edge": {"r_cut": 5.0, "cutoff_width": 1.5},
}
models = {}
for name, edge in edges.items():
    model = models[name] = make_pipeline(
        SOAPFeaturizer(n_max=6, l_max=3, **edge),
        CURSparsifier(n_points=60),
        KQEqRegressor(hardness=8.0, radius_scale=0.35, sigma_energy=0.002, tol=1e-4),
    ).fit(X, y)
    predicted = predict_targets(model, X_test, ["energy", "forces"])
    energy = (predicted["energy"] - y_test["energy"]) / [len(atoms) for atoms in X_test]
    forces = np.concatenate(predicted["forces"]) - np.concatenate(y_test["forces"])
    energy, forces = (1e3 * np.sqrt(np.mean(error**2)) for error in (energy, forces))
    print(f"{name}: RMSE {energy:.1f} meV/atom, {forces:.0f} meV/Å")

# %%
# Constant energy
# ---------------
# A cluster is relaxed and heated, then left alone for two picoseconds. The bar shows how far the
# run is; on this page it would be in the way, and is silent.
n_steps = 1000
total, charges = {}, {}
for name, model in models.items():
    atoms = cluster(4, 2, 2)
    atoms.calc = KQEqCalculator(model)
    with BFGS(atoms, logfile=None) as relaxation:
        relaxation.run(fmax=0.05, steps=100)
    spread = np.sqrt(units.kB * 600 * atoms.get_masses())[:, None]
    atoms.set_momenta(spread * np.random.default_rng(1).normal(size=(len(atoms), 3)))
    total[name], charges[name] = [], []

    def observe(atoms=atoms, energies=total[name], of_atoms=charges[name]):
        energies.append(atoms.get_total_energy() / len(atoms))
        of_atoms.append(atoms.get_charges())

    with VelocityVerlet(atoms, 2 * units.fs) as run, ProgressBar(run, n_steps, disable=True):
        run.attach(observe)
        run.run(n_steps)
    total[name] = 1e3 * (np.array(total[name]) - np.mean(total[name]))
    time = 0.002 * np.arange(n_steps + 1)
    drift = np.polyfit(time, total[name], 1)[0]
    print(f"{name}: drift {drift:+.3f} meV/atom/ps, scatter {total[name].std():.3f} meV/atom")

# %%
# Pictures
# --------
# Left: with DScribe's edge the total energy jumps whenever an atom crosses it. With the smooth one
# what is left is the error of the time step. Right: charges of the sodium ions. The model has seen
# no charges: that they are close to 1 e it has from energies and forces.
fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
for name, color in {"DScribe's edge": "C1", "smooth edge": "C0"}.items():
    left.plot(time, total[name], color=color, linewidth=1, label=name)
left.set(xlabel="time (ps)", ylabel="total energy − mean (meV/atom)")
left.margins(y=0.2)
left.legend(frameon=False, loc="upper center", ncols=2)
charges = np.array(charges["smooth edge"])
n_bonds = (cluster(4, 2, 2).get_all_distances() < 2.8).sum(axis=1) - 1
for number, color in {3: "C2", 4: "C4"}.items():
    some = np.flatnonzero((n_bonds == number) & (atoms.symbols == "Na"))
    lines = right.plot(time, charges[:, some], color=color, linewidth=0.7)
    lines[0].set_label(f"Na with {number} neighbours")
right.set(xlabel="time (ps)", ylabel="charge (e)")
right.margins(y=0.2)
right.legend(frameon=False, loc="upper center", ncols=2)
