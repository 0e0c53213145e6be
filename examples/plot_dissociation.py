"""
Clusters that come apart
========================

A local energy ends at its cutoff, electrostatics does not. Six molecules of water, neutral or with
one ion, are moved apart; GFN2-xTB is the reference. Energies are right where the charges are; and
the charges show what is wrong with charge equilibration.
"""

# %%
# The benchmark
# -------------
# ``benchmarks/gap_accuracy.py`` trains on 1500 clusters of three charge states and keeps what its
# models say of these paths. The paths themselves are bundled.
import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, GAPKQEqRegressor, SOAPFeaturizer, StructureBlocks
from skqeq.datasets import load_water, load_water_curves
from skqeq.validation import dissociation, find_fragments, fragment_charges

STATES = {-1: "with OH⁻", 0: "neutral", 1: "with H₃O⁺"}
MODELS = {"GFN2-xTB": "k", "GAP": "tab:green", "kQEq": "tab:orange", "GAP+kQEq": "tab:blue"}
path = Path("../benchmarks/results/water_curves.csv")  # from the folder of the examples
rows = [r for r in csv.DictReader(path.open(encoding="utf-8")) if r["curve"] == "expansion"]

# %%
# Energies
# --------
# Relative to the compact cluster, per molecule. The local energy alone ends at its cutoff, and has
# to serve three charge states in which molecules look the same. With charges the energies follow
# the reference all the way.
fig, axes = plt.subplots(1, 3, figsize=(11.5, 3.8), layout="constrained")
for ax, (state, title) in zip(axes, STATES.items()):
    mine = [r for r in rows if int(r["charge"]) == state]
    factors = np.array([float(r["expansion"]) for r in mine])
    for name, color in MODELS.items():
        energy = np.array([float(r[f"{name} energy"]) for r in mine])
        energy -= energy[np.argmin(np.abs(factors - 1.0))]
        style = "o" if name == "GFN2-xTB" else "-"
        ax.plot(factors, energy / 6, style, markersize=3, color=color, label=name)
    ax.set(title=title, xlabel="expansion", ylabel="energy (eV per molecule)")
axes[0].legend(frameon=False)

# %%
# Charges of the molecules
# ------------------------
# The charge of the ion, and those of the five molecules of water, as they move apart. The reference
# leaves one elementary charge on the ion. Charge equilibration lets it leak: fractions of it stay
# on molecules that are far away, because an atom may exchange charge with any other at no cost.
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
    for k in range(6):
        color = "tab:red" if k == ion else "tab:blue"
        ax.plot(factors, truth[:, k], "o", markersize=3, color=color)
        ax.plot(factors, predicted[:, k], "-", color=color)
    ax.set(title=STATES[state], xlabel="expansion", ylabel="charge of a molecule (e)")
    error = np.sqrt(np.mean((predicted[-1] - truth[-1]) ** 2))
    print(f"{STATES[state]}: fully expanded, error of the charges {error:.3f} e")
axes[0].plot([], [], "ok", markersize=3, label="GFN2-xTB")
axes[0].plot([], [], "-k", label="GAP+kQEq")
axes[0].legend(frameon=False)

# %%
# The same, in a minute
# ---------------------
# `skqeq.validation.dissociation` does this for any fitted model: here for one of 60 small clusters.
clusters, labels = load_water()
few = [i for i, a in enumerate(clusters) if len(a) < 14][:60]


def half(r_cut, **options):
    soap = SOAPFeaturizer(r_cut=r_cut, cutoff_width=1.5, n_max=4, l_max=3)
    return make_pipeline(soap, CURSparsifier(n_points=50, **options))


model = make_pipeline(
    StructureBlocks([("chi", half(3.5)), ("gap", half((2.5, 4.5), block_weights=(0.8, 0.2)))]),
    GAPKQEqRegressor(amplitude_gap=10.0, amplitude_chi=3.0, radius_scale=0.7, tol=1e-2),
)
model.fit([clusters[i] for i in few], labels[["energy", "forces", "dipole"]][few])
compact = next(a for a in X if a.info["charge"] == 1 and a.info["expansion"] == 1.0)
result = dissociation(model, compact, [1.0, 2.0, 3.0, 5.0])
for factor, distance, charges in zip(result.factors, result.distances, result.charges):
    print(f"{factor:.0f}: {distance:5.1f} Angstrom apart, charges {charges.round(2)}")
