"""
Water clusters in a field
=========================

A model can predict structures in fields even if its training data contain no fields. This example
compares energies in a field, and the charge that the field moves between molecules, with GFN2-xTB.
"""

# %%
# The benchmark
# -------------
# ``benchmarks/gap_accuracy.py`` trains two models. In the training set of the first model a quarter
# of the clusters are in a field; the training set of the second contains no fields. A table stores
# the predictions of both, and the reference values, for clusters of six molecules in fields along
# x, y and z.
import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from skqeq.plotting import model_colors

STATES = {-1: "with OH⁻", 0: "neutral", 1: "with H₃O⁺"}
MODELS = {"GAP+kQEq": "-", "without fields": "--"}
COLORS = model_colors(MODELS)
path = Path("../../benchmarks/results/water_curves.csv")  # from the folder of this example
rows = [r for r in csv.DictReader(path.open(encoding="utf-8")) if r["curve"] == "field"]


def curve(state, axis, name):
    """Fields along an axis, with energies and charges of the molecules."""
    mine = [r for r in rows if int(r["charge"]) == state]
    mine = [r for r in mine if all(float(r[b]) == 0.0 for b in "xyz" if b != axis)]
    # The table contains the field of zero once for each axis.
    by_field = {float(r[axis]): r for r in mine}
    fields = np.array(sorted(by_field))
    energies = np.array([float(by_field[f][f"{name} energy"]) for f in fields])
    charges = [np.array(by_field[f][f"{name} charges"].split(), dtype=float) for f in fields]
    return fields, energies, np.array(charges)


# %%
# Energy
# ------
# The first derivative of the energy with respect to the field is the negative dipole, and the
# second is the negative polarisability. The energy of an ion also depends on its position in the
# field. The polarisability depends only on the geometry and on the widths and the hardness of the
# charges. Labels in fields cannot change it, so the curves of both models coincide.
fig, axes = plt.subplots(1, 3, figsize=(11.5, 3.8), layout="constrained", sharey=True)
for ax, (state, title) in zip(axes, STATES.items()):
    for axis, marker in zip("xyz", "os^"):
        fields, energy, _ = curve(state, axis, "GFN2-xTB")
        label = f"GFN2-xTB, field along {axis}"
        ax.plot(fields, energy - energy[4], marker, color="k", markersize=4, label=label)
        for name, style in MODELS.items():
            fields, predicted, _ = curve(state, axis, name)
            label = name if axis == "z" else None
            ax.plot(fields, predicted - predicted[4], style, color=COLORS[name], label=label)
    ax.set(title=title, xlabel="field (V/Å)")
axes[0].set_ylabel("energy in the field (eV)")
axes[0].legend(frameon=False, fontsize="small")

# %%
# Charge moved by the field
# -------------------------
# The figure shows the change of the charge of each molecule between zero field and 0.2 V/Å. In the
# reference, molecules polarise but exchange almost no charge. In charge equilibration, charge flows
# from one end of the cluster to the other, as through a piece of metal.
fig, ax = plt.subplots(figsize=(4.8, 4.4), layout="constrained")
for name, marker in zip(MODELS, ("o", ".")):
    truth, predicted = [], []
    for state in STATES:
        for axis in "xyz":
            for model, changes in (("GFN2-xTB", truth), (name, predicted)):
                charges = curve(state, axis, model)[2]
                changes.append(charges[-1] - charges[4])
    truth, predicted = np.concatenate(truth), np.concatenate(predicted)
    ax.plot(truth, predicted, marker, color=COLORS[name], fillstyle="none", label=name)
    ratio = truth @ predicted / (truth @ truth)
    print(
        f"{name}: charge moved {np.abs(predicted).mean():.3f} e per molecule, GFN2-xTB "
        f"{np.abs(truth).mean():.3f} e, ratio {ratio:.1f}"
    )
ends = np.array(ax.get_xlim())
ax.plot(ends, ends, "k-", linewidth=0.8)
ax.set_xticks([-0.005, 0.0, 0.005])
ax.set(xlabel="GFN2-xTB: change of charge (e)", ylabel="model: change of charge (e)")
ax.legend(frameon=False)

# %%
# Polarisability
# --------------
# The polarisability per molecule follows from the second derivative of the energy, averaged over
# the axes. GFN2-xTB underestimates it: a molecule of water has 1.4 Å³. Charge equilibration
# overestimates it, and the error grows with the size of the cluster.
for state, title in STATES.items():
    for name in ("GFN2-xTB", *MODELS):
        curvature = []
        for axis in "xyz":
            fields, energy, _ = curve(state, axis, name)
            curvature.append(-2 * np.polyfit(fields, energy, 2)[0])
        print(f"{title}, {name}: {14.4 * np.mean(curvature) / 6:.2f} Å³ per molecule")
