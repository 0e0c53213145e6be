"""
Gauss-Newton and the fixed point
================================

The energy is not linear in the weights, so its fit is iterative. The published iteration solves for
the weights at fixed charges, computes the charges of this solution, and repeats [Vondrák, Reuter,
Margraf, J. Chem. Phys. 159, 054109 (2023)]. For energies it converges to the minimum of the loss,
like Gauss-Newton. For forces it converges to another point.
"""

# %%
# Labels
# ------
# The training structures are clusters of rock salt. The reference is a potential of rigid ions with
# charges of ±1 e and an exponential repulsion.
import warnings

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.build import bulk
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, QEq, SOAPFeaturizer, make_targets
from skqeq.parameters import COULOMB

rng = np.random.default_rng(0)


def reference(atoms):
    """Energy (eV) and forces (eV/Angstrom)."""
    vectors = atoms.positions[:, None] - atoms.positions
    r = np.linalg.norm(vectors, axis=2) + np.diag(np.full(len(atoms), np.inf))
    charges = np.where(atoms.symbols == "Na", 1.0, -1.0)
    coulomb = COULOMB * np.outer(charges, charges) / r
    repulsion = 1200.0 * np.exp(-r / 0.31)
    forces = np.einsum("ij,ija->ia", (coulomb / r + repulsion / 0.31) / r, vectors)
    return (coulomb + repulsion).sum() / 2, forces


def rattled(*shape):
    """A block of the crystal with displaced atoms."""
    crystal = bulk("NaCl", "rocksalt", a=5.4, cubic=True) * 2
    atoms = crystal[(crystal.positions < np.array(shape) * 2.7 - 0.1).all(axis=1)]
    positions = atoms.positions * rng.uniform(0.95, 1.1)
    return Atoms(atoms.symbols, positions + rng.normal(scale=0.15, size=positions.shape))


shapes = [(2, 2, 1), (4, 2, 1), (2, 2, 2), (3, 2, 2)]
X = [rattled(*shape) for shape in shapes for _ in range(8)]
energies, forces = zip(*map(reference, X))
y = {
    "energies": make_targets(energy=energies),
    "energies and forces": make_targets(energy=energies, forces=forces),
}
soap = SOAPFeaturizer(r_cut=5.0, cutoff_width=1.5, n_max=6, l_max=3)
features = make_pipeline(soap, CURSparsifier(n_points=40)).fit_transform(X)

# %%
# Fits
# ----
# Both algorithms start from the same weights, a fit to charges of ±1 e, and use the atomic energies
# of a first fit. The fixed point does not monitor the loss. It takes each step in full and may not
# converge. After ``max_iter`` steps it stops with a warning, which the code below turns into a word
# of the output.
options = {"response": QEq(hardness=8.0, radius_scale=0.35), "max_iter": 20}
ions = make_targets(charges=[np.where(atoms.symbols == "Na", 1.0, -1.0) for atoms in X])
start = KQEqRegressor(**options).fit(features, ions).coef_
first = KQEqRegressor(**options).fit(features, y["energies"])
options["atomic_energies"] = dict(zip(("Na", "Cl"), first.atomic_energies_))
models = {}
for labels, table in y.items():
    for algorithm in ("gauss_newton", "fixed_point"):
        model = KQEqRegressor(**options, algorithm=algorithm, init=start)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            models[labels, algorithm] = model.fit(features, table)
        end = "did not converge" if caught else "converged"
        n_steps, loss = model.n_iter_ - 1, model.fit_history_[-1]["loss"]
        print(f"{labels}, {algorithm}: {end} in {n_steps} steps, loss {loss:.1f}")

# %%
# Pictures
# --------
# The figure shows the difference between the loss and its minimum. Left: with energies only, both
# algorithms find the minimum, because the derivatives of energies at fixed charges are right.
# Right: forces depend on how the charges respond to the weights, which the fixed point neglects. It
# converges to a loss above the minimum. The loss of Gauss-Newton never increases, and most of its
# steps cost much less than a step of the fixed point, which assembles all rows.
fig, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), sharex=True, sharey=True, layout="constrained")
styles = {"gauss_newton": ("C0", "o-", "Gauss-Newton"), "fixed_point": ("C1", "x--", "fixed point")}
for ax, labels in zip(axes, y):
    losses = {a: np.array([e["loss"] for e in models[labels, a].fit_history_]) for a in styles}
    least = min(map(np.min, losses.values()))
    for algorithm, (color, style, name) in styles.items():
        excess = losses[algorithm] - least
        excess[excess < 1e-10 * least] = np.nan  # rounding
        ax.semilogy(excess, style, color=color, fillstyle="none", markersize=7, label=name)
    ax.set(xlabel="step", title=labels)
    ax.xaxis.get_major_locator().set_params(integer=True)
axes[0].set_ylabel("loss − least loss")
axes[0].legend(frameon=False)
