"""Draw docs/_static/readme.png: what a model learns, how well, and what it does far away.

    python tools/make_readme_picture.py

Trains on dipole moments of the bundled molecules, as ``skqeq demo``; the chains are those of
``benchmarks/flow_chains.py``, whose results are committed.
"""

import csv
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, QEqRegressor, SOAPFeaturizer, predict_charges
from skqeq.datasets import load_molecules
from skqeq.plotting import plot_molecule, plot_parity

ROOT = Path(__file__).parents[1]
LINES = {
    "GFN2-xTB": ("ok", "GFN2-xTB"),
    "kQEq": ("tab:orange", "kQEq: charge moves over any distance"),
    "ChargeFlow": ("tab:blue", "ChargeFlow: between neighbours"),
}


def dipoles(left, middle):
    """A molecule that the model does not know, and the dipoles of all of these."""
    X, y, groups = load_molecules(return_groups=True)
    D = y["dipole"]
    train, test = next(GroupShuffleSplit(1, test_size=0.2, random_state=0).split(X, D, groups))
    known, D_known, unknown = [X[i] for i in train], D[train], [X[i] for i in test]
    soap = SOAPFeaturizer(r_cut=(1.7, 3.5), n_max=6, l_max=4)
    model = make_pipeline(soap, CURSparsifier(n_points=100), KQEqRegressor(sigma_dipole=0.003))
    predicted = {
        "kQEq": model.fit(known, D_known).predict(unknown),
        "QEq": QEqRegressor().fit(known, D_known).predict(unknown),
    }
    # The largest dipole among molecules of ten atoms and more.
    size = np.array([len(atoms) for atoms in unknown])
    i = np.argmax(np.linalg.norm(D[test], axis=1) * (size > 9))
    plot_molecule(unknown[i], predict_charges(model, unknown)[i], predicted["kQEq"][i], ax=left)
    formula = unknown[i].get_chemical_formula()
    left.set_title(f"{formula}: charges learned from dipoles")
    plot_parity(D[test], predicted, ax=middle).set_title("dipoles of molecules that were held out")


def chains(ax):
    """Dipoles of aldehydes and amines at the ends of chains of methylene."""
    with (ROOT / "benchmarks" / "results" / "flow_chains.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["chain"] == "saturated"]
    rows = rows[::2]  # the two dipoles add in odd chains, and subtract in even ones
    units = [int(row["units"]) for row in rows]
    for name, (style, label) in LINES.items():
        ax.plot(units, [float(row[name]) for row in rows], style, markersize=4, label=label)
    ax.set(
        title="long chains, learned from short ones",
        xlabel="CH₂ groups between the ends",
        ylabel="|μ| (D)",
        ylim=(0, 6.5),
    )
    ax.legend(frameon=False, loc="lower left")


def main():
    warnings.filterwarnings("ignore", message="n_points=")
    fig, axes = plt.subplots(1, 3, figsize=(13.0, 4.0), layout="constrained")
    dipoles(*axes[:2])
    chains(axes[2])
    fig.savefig(ROOT / "docs" / "_static" / "readme.png", dpi=110)


if __name__ == "__main__":
    main()
