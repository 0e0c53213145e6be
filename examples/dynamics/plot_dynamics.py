"""
Molecular dynamics
==================

In this example a model that was trained on energies and forces runs molecular dynamics through ASE.
The total energy is conserved only if the forces are the derivatives of the energy, and if the
energy is smooth.
"""

# %%
# Reference energies
# ------------------
# The training structures are clusters of rock salt. The reference is a potential of rigid ions with
# charges of ±1 e and an exponential repulsion. Its parameters are made up, but of a size that is
# typical of alkali halides.
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
    QEq,
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
# The models differ in the cutoff of the descriptor. At DScribe's sharp cutoff the features jump
# slightly. With ``cutoff_width`` neighbours fade out smoothly.
cutoffs = {
    "sharp cutoff": {"r_cut": 4.0},
    "smooth cutoff": {"r_cut": 5.0, "cutoff_width": 1.5},
}
models = {}
for name, cutoff in cutoffs.items():
    model = models[name] = make_pipeline(
        SOAPFeaturizer(n_max=6, l_max=3, **cutoff),
        CURSparsifier(n_points=60),
        KQEqRegressor(response=QEq(hardness=8.0, radius_scale=0.35), sigma_energy=0.002, tol=1e-4),
    ).fit(X, y)
    predicted = predict_targets(model, X_test, ["energy", "forces"])
    energy = (predicted["energy"] - y_test["energy"]) / [len(atoms) for atoms in X_test]
    forces = np.concatenate(predicted["forces"]) - np.concatenate(y_test["forces"])
    energy, forces = (1e3 * np.sqrt(np.mean(error**2)) for error in (energy, forces))
    print(f"{name}: RMSE {energy:.1f} meV/atom, {forces:.0f} meV/Å")

# %%
# Constant energy
# ---------------
# Relax and heat a cluster, then simulate it at constant energy for two picoseconds. `ProgressBar`
# shows the progress of a run; ``disable=True`` hides it on this page.
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
# Left: with the sharp cutoff, the total energy jumps when an atom crosses it. With the smooth
# cutoff, only the error of the time step remains. Right: the charges of the sodium ions. The
# training set contained no charges: the model inferred from energies and forces that they are close
# to 1 e.
fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
for name, color in {"sharp cutoff": "C1", "smooth cutoff": "C0"}.items():
    left.plot(time, total[name], color=color, linewidth=1, label=name)
left.set(xlabel="time (ps)", ylabel="total energy − mean (meV/atom)")
left.margins(y=0.2)
left.legend(frameon=False, loc="upper center", ncols=2)
charges = np.array(charges["smooth cutoff"])
n_bonds = (cluster(4, 2, 2).get_all_distances() < 2.8).sum(axis=1) - 1
for number, color in {3: "C2", 4: "C4"}.items():
    some = np.flatnonzero((n_bonds == number) & (atoms.symbols == "Na"))
    lines = right.plot(time, charges[:, some], color=color, linewidth=0.7)
    lines[0].set_label(f"Na with {number} neighbours")
right.set(xlabel="time (ps)", ylabel="charge (e)")
right.margins(y=0.2)
right.legend(frameon=False, loc="upper center", ncols=2)
