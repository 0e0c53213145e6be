"""
Zinc oxide from charge equilibration alone: Vondrák et al. 2023
===============================================================

The paper of q-pac [V23]_ makes kernel charge equilibration a potential: energies of molecules,
particles and crystals, sparse models, sums over images. Its test is zinc oxide, in which the
electrostatic energy has to do for all interactions, and in which it compares the charges that
energies bring about with those of a partition of the density (figure 6).
"""

# %%
# Published and found
# -------------------
# The particles are from the data of the paper, but not its selection by active learning: every one
# is predicted by a model that has not seen any like it. [V23]_ also report 4.1 meV/atom for
# crystals of zinc oxide and peroxide, of which there are too few structures here to compare with.
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk
from ase.neighborlist import neighbor_list
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer, predict_targets
from skqeq.electrostatics import hardness_matrix
from skqeq.parameters import COULOMB

sys.path.insert(0, str(Path("../../benchmarks").resolve()))  # from the folder of this example
import reproductions
import zno_dynamics as zno

reproductions.show("V23")

# %%
# In a minute
# -----------
# Instead of PBE the reference is a potential of rigid ions: charges of exactly ±1 e, and
# exponential repulsion. The model has the widths and the hardness of the paper
# (``radius_scale=0.7071``, ``hardness=27.2``), and is trained on energies and forces of clusters of
# 20 to 52 atoms at 600 K; those of 60 atoms are the test. It has no local energy: repulsion must
# come out of charges and electronegativities, too. It is never told a charge; which element is
# positive follows from the start, the electronegativities of QEq.
X, y = zno.samples(disable=True)
largest = max(len(atoms) for atoms in X)
train = [i for i, atoms in enumerate(X) if len(atoms) < largest]
test = [i for i, atoms in enumerate(X) if len(atoms) == largest]
model = make_pipeline(
    SOAPFeaturizer(r_cut=4.4, cutoff_width=1.5, n_max=6, l_max=4),
    CURSparsifier(n_points=200),
    KQEqRegressor(hardness=27.2, radius_scale=0.7071, tol=1e-4),
)
model.fit([X[i] for i in train], y[train])

found = {
    "train": predict_targets(model, [X[i] for i in train], ["energy", "forces", "charges"]),
    "test": predict_targets(model, [X[i] for i in test], ["energy", "forces", "charges"]),
}
atoms_of = {"train": [X[i] for i in train], "test": [X[i] for i in test]}
labels = {"train": y[train], "test": y[test]}
n_atoms = {name: np.array([len(atoms) for atoms in part]) for name, part in atoms_of.items()}
per_atom = {name: labels[name]["energy"] / n_atoms[name] for name in labels}


def rmse(errors):
    return 1e3 * np.sqrt(np.mean(np.square(errors)))


for name, part in found.items():
    energy = part["energy"] / n_atoms[name] - per_atom[name]
    forces = np.concatenate(list(part["forces"])) - np.concatenate(list(labels[name]["forces"]))
    print(f"{name}: {len(energy)} clusters", end=", ")
    print(f"energies {rmse(energy):.1f} meV/atom, forces {rmse(forces):.0f} meV/A")
constant = rmse(per_atom["test"] - per_atom["train"].mean())
print(f"one energy per atom: {constant:.0f} meV/atom")


# %%
# From clusters to the crystal
# ----------------------------
# The same model on the crystal, which it has not seen: wurtzite, stretched and compressed. Its
# reference energy is an Ewald sum of the rigid ions, from the matrix of narrow Gaussians, and the
# repulsion of neighbours.
def wurtzite(scale):
    return bulk("ZnO", "wurtzite", a=3.25 * scale, c=5.21 * scale, u=0.382)


def rigid_ions(crystal):
    """Energy of the potential of rigid ions in a crystal, eV per atom."""
    q = np.where(crystal.symbols == "Zn", 1.0, -1.0)
    width = 0.2
    C = hardness_matrix(crystal, np.full(len(crystal), width))
    coulomb = q @ C @ q / 2 - COULOMB * (q @ q) / (2 * np.sqrt(np.pi) * width)
    i, j, r = neighbor_list("ijd", crystal, 8.0)
    oxygen = 1 * (crystal.symbols == "O")
    A = np.array([0.0, zno.RigidIons.zn_o, zno.RigidIons.o_o])[oxygen[i] + oxygen[j]]
    return (coulomb + np.sum(A * np.exp(-r / zno.RigidIons.rho)) / 2) / len(crystal)


scales = np.linspace(0.96, 1.06, 11)
crystals = [wurtzite(scale) for scale in scales]
truth = np.array([rigid_ions(crystal) for crystal in crystals])
predicted = predict_targets(model, crystals, ["energy", "charges"])
in_crystal = predicted["energy"] / [len(crystal) for crystal in crystals]
print(f"crystal: energies {rmse(in_crystal - truth):.0f} meV/atom", end=", ")
print(f"charge of zinc {predicted['charges'][0][0]:+.2f} e")

# %%
# Pictures
# --------
# Left: energies. Middle: charges in the clusters that were left out. Right: energy of the crystal.
fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13.5, 4.2), layout="constrained")
for name, color in {"train": "tab:grey", "test": "tab:blue"}.items():
    left.plot(per_atom[name], found[name]["energy"] / n_atoms[name], "o", color=color, label=name)
left.axline((-4.6, -4.6), slope=1, color="grey", linewidth=1, zorder=0)
left.set(xlabel="energy (eV per atom)", ylabel="predicted energy (eV per atom)")
left.legend(frameon=False)
charges = np.concatenate(list(found["test"]["charges"]))
symbols = np.concatenate([atoms.symbols for atoms in atoms_of["test"]])
for symbol, color, truth_q in (("Zn", "tab:purple", 1.0), ("O", "tab:red", -1.0)):
    mine = charges[symbols == symbol]
    middle.hist(mine, bins=np.arange(-1.3, 1.3, 0.01), color=color, alpha=0.7, label=symbol)
    middle.axvline(truth_q, color=color, linestyle="--", linewidth=1)
    print(
        f"{symbol}: charge {mine.mean():+.3f} ± {mine.std():.3f} e, in the reference {truth_q:+.0f}"
    )
middle.set(xlabel="predicted charge (e)", ylabel="atoms")
middle.legend(frameon=False, loc="upper center", title="dashed: reference")
right.plot(3.25 * scales, truth, "ok", markersize=4, label="rigid ions, Ewald sum")
right.plot(3.25 * scales, in_crystal, color="tab:blue", label="model of clusters")
right.set(xlabel="lattice constant a (Å)", ylabel="energy of the crystal (eV per atom)")
_ = right.legend(frameon=False)

# %%
# As with PBE, charge equilibration alone gives energies of unseen, larger clusters to 1 or 2
# meV/atom, and charges that are alike for all atoms of an element. They are 13 % too large, with a
# spread of 0.02 e; with PBE they are larger than Hirshfeld's by a quarter (:doc:`/accuracy`).
# Energies ask for an interaction, and wide charges have it with other values than points. The
# crystal is 20 meV/atom too low in energy, its lattice constant right within 1 %: sums over images
# carry a model of clusters to the crystal.
