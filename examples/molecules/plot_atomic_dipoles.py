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
    print(
        f"{name:20} mean error {errors[name].mean():.3f} D, median {np.median(errors[name]):.3f} D"
    )

# %%
# Left: part of the molecules whose left-out dipole has at most some error. Right: the errors of
# every molecule with both models. Below the line, dipoles on the atoms help.
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
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

without, beside = errors.values()
limits = (0.01, 1.2 * max(without.max(), beside.max()))
right.plot(limits, limits, color="0.6", lw=1)
right.plot(without, beside, "o", ms=3, alpha=0.6)
right.set(
    xlabel="error with charges (D)",
    ylabel="error with charges and dipoles (D)",
    xscale="log",
    yscale="log",
    xlim=limits,
    ylim=limits,
    aspect="equal",
)
right.set_title(f"smaller for {np.mean(beside < without):.0%} of the molecules")
plt.show()

# %%
# The dipoles of one molecule
# ---------------------------
# A solution of a structure has the charges and the dipoles of its atoms. Their sum is the dipole
# of the molecule. It does not determine how much of it is due to charges and how much to dipoles:
# the model divides it as the priors demand.
model = models["charges and dipoles"].fit(X, D)
atoms = X[0]
[solution] = model[-1].solutions(model[:-1].transform([atoms]), ["dipole"])
for symbol, charge, dipole in zip(atoms.symbols, solution.charges, solution.atomic_dipoles):
    print(f"{symbol:2} {charge:6.2f} e   {(DEBYE * dipole).round(2)} D")
total = solution.charges @ atoms.positions + solution.atomic_dipoles.sum(axis=0)
print(f"{atoms.get_chemical_formula()}: {(DEBYE * total).round(3)} D")
