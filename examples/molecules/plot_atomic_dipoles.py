"""
Dipoles on the atoms, beside the charges
========================================

The electrons of a lone pair are not centred on the nucleus of their atom. Charges on the nuclei
cannot describe this shift. A model can therefore also learn a dipole for every atom, from features
that are vectors. This example compares the dipoles of left-out molecules with and without them.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    KQEqRegressor,
    SOAPFeaturizer,
    StructureBlocks,
    VectorSOAPFeaturizer,
)
from skqeq.datasets import load_molecules
from skqeq.parameters import DEBYE

X, y, groups = load_molecules(return_groups=True)
D = y["dipole"]

# %%
# Two models
# ----------
# Both have the same charges. The features of the atomic dipoles are a block with the name
# ``"dipole"``; a model without this block has none.
soap = SOAPFeaturizer(r_cut=(1.7, 3.5), n_max=6, l_max=4)
charges = make_pipeline(soap, CURSparsifier(n_points=100, block_weights=(0.9, 0.1)))
vectors = VectorSOAPFeaturizer(r_cut=2.0, n_channels=8)
settings = {"sigma_dipole": 0.005, "response": ChargeFlow(radius_scale=0.6, amplitude=0.3)}
models = {
    "charges": make_pipeline(StructureBlocks([("chi", charges)]), KQEqRegressor(**settings)),
    "charges and dipoles": make_pipeline(
        StructureBlocks([("chi", charges), ("dipole", vectors)]),
        KQEqRegressor(amplitude_dipole=0.1, **settings),
    ),
}

# %%
# Left-out molecules
# ------------------
# Both geometries of a molecule are left out together.
errors = {}
for name, model in models.items():
    left_out = cross_val_predict(model, X, D, groups=groups, cv=GroupKFold(3))
    errors[name] = DEBYE * np.linalg.norm(left_out - D, axis=1)
    print(f"{name:20} mean error {errors[name].mean():.3f} D, median {np.median(errors[name]):.3f} D")

# %%
# The dipoles of one molecule
# ---------------------------
# A solution of a structure has the charges and the dipoles of its atoms. The molecule is drawn in
# the plane of its two longest principal axes.
model = models["charges and dipoles"].fit(X, D)
flat = [i for i, a in enumerate(X) if {"N", "O"} <= set(a.symbols) and len(a) < 12]
thickness = [np.linalg.svd(X[i].positions - X[i].positions.mean(0))[1][2] for i in flat]
atoms = X[flat[int(np.argmin(thickness))]]
[solution] = model[-1].solutions(model[:-1].transform([atoms]), ["dipole"])
print(f"{atoms.get_chemical_formula()}: dipole {DEBYE * model.predict([atoms])[0].round(3)} D")
print(f"of the atoms alone: {DEBYE * solution.atomic_dipoles.sum(axis=0).round(3)} D")

# %%
# Left: part of the molecules whose left-out dipole has at most some error. Right: charges and
# dipoles of the atoms; the dipoles point from negative to positive charge.
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
for name, error in errors.items():
    parts = np.linspace(0, 1, len(error))
    left.plot(np.sort(error), parts, label=f"{name}: {error.mean():.3f} D")
left.set(
    xlabel="error of the dipole vector (D)",
    ylabel="part of the left-out molecules",
    xscale="log",
    xlim=(0.01, None),
    ylim=(0, 1),
)
left.legend(title="mean error")

centred = atoms.positions - atoms.positions.mean(axis=0)
plane = np.linalg.svd(centred)[2][:2]
x, d = centred @ plane.T, DEBYE * solution.atomic_dipoles @ plane.T
limit = np.abs(solution.charges).max()
for i, j in np.argwhere(np.triu(atoms.get_all_distances() < 1.65, 1)):
    right.plot(*x[[i, j]].T, color="0.7", lw=3, zorder=0)
disks = right.scatter(
    *x.T, s=500, c=solution.charges, cmap="RdBu", vmin=-limit, vmax=limit, edgecolors="0.4"
)
for symbol, position in zip(atoms.symbols, x, strict=True):
    right.annotate(symbol, position, ha="center", va="center", color="0.3")
arrows = right.quiver(*x.T, *d.T, angles="xy", scale_units="xy", scale=0.5, width=0.008, zorder=3)
right.quiverkey(arrows, 0.12, 0.05, 0.5, "0.5 D", labelpos="E")
fig.colorbar(disks, ax=right, label="charge (e)", shrink=0.8)
right.set(aspect="equal", title=atoms.get_chemical_formula())
right.margins(0.2)
right.axis("off")
plt.show()
