"""
Dissociation of clusters
========================

A local energy ends at its cutoff, but electrostatic interactions do not. In this example six
molecules of water, or five and an ion, are moved apart. GFN2-xTB is the reference. The energies are
accurate where the charges are accurate. The charges also show the main error of charge
equilibration.
"""

# %%
# The benchmark
# -------------
# ``benchmarks/gap_accuracy.py`` trains models on 1500 clusters of three charge states, and stores
# their predictions for these paths. The paths are bundled with the package.
import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, GAPKQEqRegressor, QEq, SOAPFeaturizer, StructureBlocks
from skqeq.datasets import load_water, load_water_curves
from skqeq.plotting import charge_colors, model_colors
from skqeq.validation import dissociation, find_fragments, fragment_charges

STATES = {-1: "with OH⁻", 0: "neutral", 1: "with H₃O⁺"}
COLORS = {"GFN2-xTB": "k"} | model_colors(["GAP", "kQEq", "GAP+kQEq"])
path = Path("../../benchmarks/results/water_curves.csv")  # from the folder of this example
rows = [r for r in csv.DictReader(path.open(encoding="utf-8")) if r["curve"] == "expansion"]

# %%
# Energies
# --------
# The figure shows energies per molecule relative to the compact cluster. A model of local energies
# alone (GAP) has no interaction between atoms beyond its cutoff. It also cannot distinguish the
# three charge states if the molecules look the same. With charges, the energies follow the
# reference at all distances.
fig, axes = plt.subplots(1, 3, figsize=(11.5, 3.8), layout="constrained", sharey=True)
for ax, (state, title) in zip(axes, STATES.items()):
    mine = [r for r in rows if int(r["charge"]) == state]
    factors = np.array([float(r["expansion"]) for r in mine])
    for name, color in COLORS.items():
        energy = np.array([float(r[f"{name} energy"]) for r in mine])
        energy -= energy[np.argmin(np.abs(factors - 1.0))]
        style = "o" if name == "GFN2-xTB" else "-"
        ax.plot(factors, energy / 6, style, markersize=3, color=color, label=name)
    ax.set(title=title, xlabel="expansion")
axes[0].set_ylabel("energy (eV per molecule)")
axes[0].legend(frameon=False)

# %%
# Charges of the molecules
# ------------------------
# The figure shows the charges of the ion (red or blue) and of the five molecules of water (grey).
# In the reference, the elementary charge stays on the ion. With charge equilibration, fractions of
# it are on distant molecules, because all atoms exchange charge at no cost.
X, y = load_water_curves()
fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained", sharex=True)
for ax, state in zip(axes, (-1, 1)):
    mine = [i for i, a in enumerate(X) if a.info["charge"] == state]
    mine = [i for i in mine if X[i].info["curve"] == "expansion" and X[i].info["expansion"] > 0.95]
    fragments = find_fragments(X[mine[-1]])
    factors = [X[i].info["expansion"] for i in mine]
    truth = np.array([fragment_charges(y["charges"][i], fragments) for i in mine])
    by_factor = {float(r["expansion"]): r for r in rows if int(r["charge"]) == state}
    predicted = np.array(
        [np.array(by_factor[f]["GAP+kQEq charges"].split(), dtype=float) for f in factors]
    )
    ion = np.abs(truth[-1]).argmax()
    color_of_ion = charge_colors(1.0)["cmap"](0.0 if state < 0 else 1.0)
    for k in range(6):
        color = color_of_ion if k == ion else "0.5"
        ax.plot(factors, truth[:, k], "o", markersize=3, color=color)
        ax.plot(factors, predicted[:, k], "-", color=color)
    ax.set(title=STATES[state], xlabel="expansion", ylabel="charge of a molecule (e)")
    error = np.sqrt(np.mean((predicted[-1] - truth[-1]) ** 2))
    print(f"{STATES[state]}: fully expanded, error of the charges {error:.3f} e")
axes[0].plot([], [], "ok", markersize=3, label="GFN2-xTB")
axes[0].plot([], [], "-k", label="GAP+kQEq")
axes[0].legend(frameon=False)

# %%
# Test your own model
# -------------------
# `skqeq.validation.dissociation` computes such a path for any fitted model. This model is trained
# on 60 small clusters.
clusters, labels = load_water()
few = [i for i, a in enumerate(clusters) if len(a) < 14][:60]


def part(r_cut, **options):
    soap = SOAPFeaturizer(r_cut=r_cut, cutoff_width=1.5, n_max=4, l_max=3)
    return make_pipeline(soap, CURSparsifier(n_points=50, **options))


model = make_pipeline(
    StructureBlocks([("chi", part(3.5)), ("gap", part((2.5, 4.5), block_weights=(0.8, 0.2)))]),
    GAPKQEqRegressor(
        amplitude_gap=10.0,
        amplitude_chi=3.0,
        response=QEq(hardness=2.7, radius_scale=0.7),
        tol=1e-2,
    ),
)
model.fit([clusters[i] for i in few], labels[["energy", "forces", "dipole"]][few])
compact = next(a for a in X if a.info["charge"] == 1 and a.info["expansion"] == 1.0)
result = dissociation(model, compact, [1.0, 2.0, 3.0, 5.0])
for factor, distance, charges in zip(result.factors, result.distances, result.charges):
    print(f"{factor:.0f}: {distance:5.1f} Angstrom apart, charges {charges.round(2)}")
