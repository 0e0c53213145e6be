"""
Active learning: the model selects its training data
====================================================

In each round of active learning, the model runs dynamics, its most uncertain structures are
labelled, and a new model is fitted. This run starts from three structures.
"""

# %%
# The reference
# -------------
# The reference is an ASE calculator, or a function that returns a dict of labels. Usually it calls
# an electronic-structure program. This example uses a cheap potential of ions.
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
    """Point charges of ±1 e with the repulsion 1300 eV exp(-r / 0.32 Angstrom)."""

    implemented_properties = ["energy", "forces", "charges"]

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        q = np.where(atoms.symbols == "Na", 1.0, -1.0)
        d = atoms.positions[:, None] - atoms.positions
        r = np.linalg.norm(d, axis=2) + 1e9 * np.eye(len(atoms))
        coulomb, repulsion = COULOMB * np.outer(q, q) / r, 1300.0 * np.exp(-r / 0.32)
        forces = np.einsum("ij,ijk->ik", (coulomb / r + repulsion / 0.32) / r, d)
        self.results = {"energy": (coulomb + repulsion).sum() / 2, "forces": forces, "charges": q}


# %%
# The test set contains hot clusters of four formula units, from dynamics with the reference. With
# an expensive reference such a test set is not available.
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
# The run stores all its data in a directory. The model is an unfitted pipeline.
directory = Path(tempfile.mkdtemp())
X = []
for seed in range(3):
    X.append(cube.copy())
    X[-1].rattle(0.03, seed=seed)
model = make_pipeline(
    SOAPFeaturizer(r_cut=5.0, n_max=5, l_max=4),
    CURSparsifier(n_points=100),
    KQEqRegressor(sigma_charges=0.2, amplitude_chi=3.0, response=QEq(hardness=20.0), tol=1e-4),
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
# The same call continues a run, whether the last call finished or was killed.
learner = run(n_rounds=7)
print(f"{len(learner.data_)} structures after 7 rounds")
print(*sorted(path.name for path in (directory / "round_001").iterdir()))

# %%
# Results
# -------
# A trajectory ends early if the uncertainty exceeds ``max_uncertainty``. The first trajectories are
# short; after a few rounds all of them have the full length.
errors, explored, lengths = [], [], []
for r in range(8):
    F = predict_forces(learner.load_model(r), X_test)
    errors.append([np.sqrt(np.mean((np.array(F) - F_test) ** 2))])
    for path in sorted((directory / f"round_{r:03}").glob("trajectory_*.xyz")):
        frames = read(path, "1:")  # without the start
        explored += [(r, atoms.info["uncertainty"]) for atoms in frames]
        lengths.append((r, 20.0 * len(frames)))
selected = [(atoms.info["round"], atoms.info["uncertainty"]) for atoms in learner.data_[len(X) :]]
sizes = [sum(atoms.info["round"] <= r for atoms in learner.data_) for r in range(8)]

fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
plot_learning_curve(sizes, errors, unit="eV/Å", label="RMSE of the forces", ax=left)
middle.plot(*np.transpose(explored), "_", label="explored")
middle.plot(*np.transpose(selected), "o", mfc="none", label="selected")
middle.axhline(0.05, ls=":", color="0.5", label="max_uncertainty")
middle.set(xlabel="round", ylabel="uncertainty (amplitude_chi)")
middle.legend(frameon=False)
right.plot(*np.transpose(lengths), "o")
right.set(xlabel="round", ylabel="length of the trajectories (fs)", ylim=(0, None))

# %%
# The uncertainty of a structure is the prior standard deviation of its most uncertain atom that the
# sparse set leaves unexplained. The selected structures are not simply the most uncertain ones:
# after a structure is selected, similar structures count as described and are not selected too.
