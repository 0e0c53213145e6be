"""
How fast a fit converges
========================

Energies and forces are not linear in the weights of the electronegativities, so the fit is
iterative. This page reads the loss and the time of each step from ``fit_history_``, and compares
the iteration with that of an earlier version of skqeq. :doc:`/guide/iteration` explains the
iteration.
"""

# %%
# Fits
# ----
# The models are those of :ref:`another example <sphx_glr_auto_examples_water_plot_charge_flow.py>`,
# with more sparse points. They are fitted to the energies and forces of 100 clusters of water, a
# third of them anions and a third cations. For the figure, ``tol`` is smaller than usual.
import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    QEq,
    SOAPFeaturizer,
    StructureBlocks,
)
from skqeq.datasets import load_water
from skqeq.plotting import model_colors

X, y = load_water()
few = [i for i, a in enumerate(X) if a.info["n_molecules"] <= 5]
few = [i for i in few if "external_field" not in X[i].info]
few = few[:: len(few) // 100][:100]


def part(r_cut, **options):
    soap = SOAPFeaturizer(r_cut=r_cut, cutoff_width=1.5, n_max=4, l_max=3)
    return make_pipeline(soap, CURSparsifier(n_points=100, **options))


blocks = [("chi", part(3.5)), ("gap", part((2.5, 4.5), block_weights=(0.8, 0.2)))]
features = StructureBlocks(blocks).fit_transform([X[i] for i in few])
responses = {
    "GAP+kQEq": QEq(hardness=2.7, radius_scale=0.7),
    "GAP+ChargeFlow": ChargeFlow(softness=0.1, range=0.15, radius_scale=1.0),
}
models = {}
for name, response in responses.items():
    models[name] = GAPKQEqRegressor(
        amplitude_gap=10.0, amplitude_chi=3.0, response=response, tol=1e-7
    ).fit(features, y[["energy", "forces"]][few])

# %%
# The history
# -----------
# Each entry of ``fit_history_`` is a dict. Before its first entry, the fit solves a problem with
# fewer sparse points and a part of the clusters.
history = models["GAP+ChargeFlow"].fit_history_
print(f"{'step':>4} {'seconds':>8} {'loss':>10} {'expected decrease':>18} {'length':>7}")
for n, entry in enumerate(history):
    print(f"{n:>4} {entry['seconds']:>8.2f} {entry['loss']:>10.3f}", end=" ")
    print(f"{entry['decrease']:>18.2e} {entry['step']:>7.2f}")

# %%
# Loss against time
# -----------------
# The earlier version (commit a787a7f) took one Gauss-Newton step after another, in all weights at
# once. The script ``benchmarks/iteration.py`` measured its loss and its CPU time, and those of the
# present version on the same machine. The figure has the seconds of that machine: the times of the
# fits above are multiplied by one number, so that they end at the measured time of the present
# version. Both versions reach the same minimum. The default ``tol`` ends a fit near the dashed
# line.
table = Path("../../benchmarks/results/iteration.csv")  # from the folder of this example
rows = list(csv.DictReader(table.open(encoding="utf-8")))


def measured(model, algorithm):
    """Times and losses of the table."""
    mine = [r for r in rows if (r["model"], r["algorithm"]) == (model, algorithm)]
    return np.array([(float(r["seconds"]), float(r["loss"])) for r in mine]).T


colors = model_colors(models)
fig, axes = plt.subplots(1, 2, figsize=(8.0, 3.8), layout="constrained", sharey=True)
for ax, (name, model) in zip(axes, models.items()):
    seconds, loss = np.array([(e["seconds"], e["loss"]) for e in model.fit_history_]).T
    earlier, present = measured(name, "a787a7f"), measured(name, "present")
    seconds *= present[0, -1] / seconds[-1]
    best = min(loss.min(), earlier[1].min(), present[1].min())
    for times, losses, style, text in (
        (*earlier, ":s", "earlier version"),
        (seconds, loss, "-o", "present version"),
    ):
        above = losses > (1 + 1e-8) * best
        excess = losses[above] / best - 1
        ax.semilogy(times[above], excess, style, color=colors[name], markersize=4, label=text)
    ax.axhline(1e-5, color="0.4", linewidth=0.8, linestyle="--", label="default tol")
    ax.set(title=name, xlabel="CPU time (s)", xlim=(0, None), ylim=(1e-8, 3e3))
    ax.legend(frameon=False)
    print(f"{name}: {seconds[-1]:.1f} s, with the earlier version {earlier[0, -1]:.1f} s")
axes[0].set_ylabel("(loss − minimum) / minimum")
