"""
Dipoles of QM9 and of longer chains: Staacke et al. 2022
========================================================

The paper [S22]_ introduced kernel charge equilibration. Its models learn electronegativities from
dipole moments alone. The paper describes them as accurate and highly data-efficient, and applies
them to molecules that are longer than any training molecule. The figure on this page has three
panels: errors against the number of training molecules, dipoles of larger molecules, and dipoles of
chains.
"""

# %%
# Published and reproduced results
# --------------------------------
# The molecules and their PBE0/def2-TZVP dipoles are part of the data of the paper. They are split
# so that nearly equal molecules are in the same fold. The paper uses more molecules and other test
# sets.
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, QEqRegressor, SOAPFeaturizer
from skqeq.datasets import load_molecules
from skqeq.metrics import dipole_errors
from skqeq.parameters import DEBYE
from skqeq.plotting import model_colors

sys.path.insert(0, str(Path("../../benchmarks").resolve()))  # from the folder of this example
import reproductions

warnings.filterwarnings("ignore", message="n_points=.* all of them are used")
reproductions.show("S22")


# %%
# Short version
# -------------
# The short version uses the bundled molecules, which have up to eight heavy atoms, with dipoles
# from the same level of theory. First, models are trained on increasing numbers of molecules. Then
# a model that is trained on small molecules predicts larger ones. For comparison, classical QEq has
# electronegativities that depend only on the element.
def models():
    """The models by name."""
    yield "QEq", QEqRegressor()
    yield (
        "kQEq",
        make_pipeline(
            SOAPFeaturizer(r_cut=(1.7, 3.5), n_max=6, l_max=4),
            CURSparsifier(n_points=300),
            KQEqRegressor(),
        ),
    )


def error(model, train, test):
    """Mean absolute error of the norm, and the predicted norms; D."""
    model.fit([X[i] for i in train], D[train])
    predicted = model.predict([X[i] for i in test])
    return dipole_errors(D[test], predicted)["mae"], np.linalg.norm(predicted, axis=1) * DEBYE


X, y, groups = load_molecules(return_groups=True)
D = y["dipole"]
sizes = (50, 100, 200, 400)
curve = {"QEq": [], "kQEq": []}
split = GroupShuffleSplit(3, test_size=0.2, random_state=0)
for size in sizes:
    for name, model in models():
        errors = [
            error(model, train[:size], test)[0] for train, test in split.split(X, groups=groups)
        ]
        curve[name].append(np.mean(errors))
for name, errors in curve.items():
    print(f"{name:5}" + "".join(f"{e:8.3f} D ({size})" for size, e in zip(sizes, errors)))

# %%
# Training molecules have up to five heavy atoms, test molecules six to eight.
heavy = np.array([np.sum(atoms.numbers > 1) for atoms in X])
train, test = np.flatnonzero(heavy <= 5), np.flatnonzero(heavy > 5)
norms = np.linalg.norm(D, axis=1) * DEBYE
larger = {name: error(model, train, test) for name, model in models()}
for name, (mae, _) in larger.items():
    print(f"{name}: {len(train)} small molecules, {len(test)} larger ones, MAE {mae:.3f} D")

# %%
# Pictures
# --------
# In the left panel, filled symbols are QM9 molecules (full study), and open symbols are the bundled
# molecules. Stars are results of [V23]_ for the same kind of data. The dashed line is the result of
# [S22]_ for a few thousand molecules. The middle panel shows molecules that are larger than any
# training molecule. The right panel shows predictions of the full study's model for chains: helices
# and strands of up to twelve alanines, and amino aldehydes with up to twelve double bonds or 24
# methylene groups.
fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13.5, 4.4), layout="constrained")
color = model_colors(["kQEq", "QEq"])
full = reproductions.table("learning_curve")
n, mae, spread = (
    [float(row[key]) for row in full] for key in ("molecules", "mae", "std over folds")
)
left.errorbar(n, mae, spread, fmt="o-", color=color["kQEq"], capsize=3, label="kQEq, QM9")
for name, style in {"kQEq": "o--", "QEq": "s--"}.items():
    label = f"{name}, bundled"
    left.plot(sizes, curve[name], style, color=color[name], fillstyle="none", label=label)
left.plot([3000, 10000], [0.12, 0.10], "*", color="k", markersize=10, label="[V23]")
left.axhline(0.15, color="k", linestyle="--", linewidth=1, label="[S22]")
left.set(xscale="log", yscale="log", xlabel="molecules in training", ylabel="MAE of |μ| (D)")
ticks = [0.1, 0.2, 0.3, 0.5, 0.7]
left.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
left.set_yticks([], minor=True)
left.legend(frameon=False, fontsize="small", ncols=2, loc="upper right")
left.set_ylim(0.09, 1.4)
limit = 1.05 * max(norms[test].max(), *(predicted.max() for _, predicted in larger.values()))
style = {"alpha": 0.5, "markersize": 3.5}
for (name, (_, predicted)), marker in zip(larger.items(), "so"):
    middle.plot(norms[test], predicted, marker, color=color[name], label=name, **style)
middle.plot([0, limit], [0, limit], color="grey", linewidth=1)
middle.set(xlabel="|μ|, PBE0 (D)", ylabel="|μ|, predicted (D)", xlim=(0, limit), ylim=(0, limit))
middle.set_title("six to eight heavy atoms")
middle.legend(frameon=False, loc="upper left")
chains = reproductions.table("flow_chains")
for kind in dict.fromkeys(row["chain"] for row in chains):
    of_kind = [row for row in chains if row["chain"] == kind]
    x, z = ([float(row[key]) for row in of_kind] for key in ("GFN2-xTB", "kQEq"))
    right.plot(x, z, "o-", markersize=3, linewidth=1, label=kind)
right.axline((0, 0), slope=1, color="grey", linewidth=1)
right.set(xlabel="|μ|, GFN2-xTB (D)", ylabel="|μ|, predicted (D)", title="chains")
right.set(xlim=(0, 60), ylim=(0, 40))
_ = right.legend(frameon=False, loc="lower right")

# %%
# QM9 molecules and bundled molecules have the same learning curve, and the published points lie on
# its continuation. For larger molecules, the model that is trained on small molecules is much
# better than electronegativities that depend only on the element. The chains show the limits of
# extrapolation. The predicted dipole of a helix grows too slowly with its length. The predicted
# dipole of saturated chains grows although it should not, because charge moves from end to end at
# no cost (:ref:`sphx_glr_auto_examples_water_plot_charge_flow.py`). The reference of the chains is
# GFN2-xTB. For short chains, its dipoles are 4 to 15 % larger than those of PBE0.
