"""
Active learning: the model finds its own training data
======================================================

A model runs dynamics, the structures that it knows least about are labelled, and it is fitted
again. Three structures are enough to begin with.
"""

# %%
# The reference
# -------------
# Anything that labels a structure: an ASE calculator, or a function that returns a dict. Here it is
# a potential of ions that costs nothing; usually it is a program for electronic structure.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.io import read
from ase.md.langevin import Langevin
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, QEq, SOAPFeaturizer, predict_forces
from skqeq.active_learning import ActiveLearner, LangevinDynamics
from skqeq.parameters import COULOMB
from skqeq.plotting import plot_learning_curve


class Ions(Calculator):
    """Point charges of one e that repel each other by 1300 eV exp(-r / 0.32 Angstrom)."""

    implemented_properties = ["energy", "forces", "charges"]

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        q = np.where(atoms.symbols == "Na", 1.0, -1.0)
        d = atoms.positions[:, None] - atoms.positions
        r = np.linalg.norm(d, axis=2) + 1e9 * np.eye(len(atoms))
        coulomb, repulsion = COULOMB * np.outer(q, q) / r, 1300.0 * np.exp(-r / 0.32)
        slope = (coulomb / r + repulsion / 0.32) / r
        forces = np.einsum("ij,ijk->ik", slope, d)
        self.results = {"energy": (coulomb + repulsion).sum() / 2, "forces": forces, "charges": q}


# %%
# Where we want the model to be good: hot clusters of four formula units, from dynamics on the
# reference. Without a reference that is cheap, nobody has such a test set.
cube = Atoms("NaClNaClClNaClNa", 2.55 * np.array([*np.ndindex(2, 2, 2)])[[0, 1, 3, 2, 4, 5, 7, 6]])
rng = np.random.default_rng(0)
hot = cube.copy()
hot.calc = Ions()
dynamics = Langevin(
    hot, 2 * units.fs, temperature_K=800, friction=0.01 / units.fs, fixcm=False, rng=rng
)
X_test, F_test = [], []
for _ in range(40):
    dynamics.run(50)
    X_test.append(hot.copy())
    F_test.append(hot.get_forces())

# %%
# The run
# -------
# Everything is kept in a directory. The model is a pipeline that was not fitted.
directory = Path(tempfile.mkdtemp())
X = []
for seed in range(3):
    X.append(cube.copy())
    X[-1].rattle(0.03, seed=seed)
model = make_pipeline(
    SOAPFeaturizer(r_cut=5.0, n_max=5, l_max=4),
    CURSparsifier(n_points=100),
    KQEqRegressor(sigma_charges=0.2, amplitude_chi=3.0, tol=1e-4, response=QEq(hardness=20.0)),
)


def run(n_rounds):
    learner = ActiveLearner(
        model,
        Ions(),
        directory,
        targets=["energy", "forces", "charges"],
        explore=LangevinDynamics(temperature=800, timestep=2.0, n_steps=200, interval=10),
        n_select=4,
        n_trajectories=2,
        max_uncertainty=0.05,
        verbose=0,
    )
    return learner.run(X, n_rounds)


import warnings

warnings.filterwarnings("ignore", message="n_points=.* all of them are used")
learner = run(n_rounds=3)
print(f"{len(learner.data_)} structures after 3 rounds")

# %%
# The same call goes on where the last one ended, whether that had finished or was killed.
learner = run(n_rounds=7)
print(f"{len(learner.data_)} structures after 7 rounds")
print(*sorted(path.name for path in (directory / "round_001").iterdir()))

# %%
# What was learned
# ----------------
# A trajectory ends where the model would have to guess. The first ones are short; soon all of them
# have their full length.
errors, seen, fs = [], [], []
for r in range(8):
    F = predict_forces(learner.load_model(r), X_test)
    errors.append([np.sqrt(np.mean((np.array(F) - F_test) ** 2))])
    for path in sorted((directory / f"round_{r:03}").glob("trajectory_*.xyz")):
        frames = read(path, "1:")  # behind the start
        seen += [(r, atoms.info["uncertainty"]) for atoms in frames]
        fs.append((r, 20.0 * len(frames)))
picked = [(atoms.info["round"], atoms.info["uncertainty"]) for atoms in learner.data_[len(X) :]]
sizes = [sum(atoms.info["round"] <= r for atoms in learner.data_) for r in range(8)]

fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
plot_learning_curve(sizes, errors, unit="eV/Å", label="RMSE of the forces", ax=left)
middle.plot(*np.transpose(seen), "_", label="seen")
middle.plot(*np.transpose(picked), "o", mfc="none", label="picked")
middle.axhline(0.05, ls=":", color="0.5", label="limit")
middle.set(xlabel="round", ylabel="uncertainty (amplitude_chi)")
middle.legend(frameon=False)
right.plot(*np.transpose(fs), "o")
right.set(xlabel="round", ylabel="length of the trajectories (fs)", ylim=(0, None))

# %%
# The uncertainty is what the sparse set cannot explain of the worst atom. Structures are picked
# together: one that resembles another that was picked is not worth a calculation any more, which is
# why they are not simply the uppermost.
