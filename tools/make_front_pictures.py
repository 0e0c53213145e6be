"""Draw the pictures at the top of the README and of the documentation.

    python tools/make_front_pictures.py

They are docs/_static/front_charges.png, front_dipoles.png and front_chains.png: learned charges,
errors of dipoles, and dipoles of long chains. They are separate so that they stack on narrow
screens. The model is trained on dipole moments of the bundled molecules, as in ``skqeq demo``. The
dipoles of the chains are read from the results of ``benchmarks/flow_chains.py``.
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
from skqeq.plotting import model_colors, plot_molecule, plot_parity

ROOT = Path(__file__).parents[1]
STYLES = {"GFN2-xTB": "o", "kQEq": "-", "ChargeFlow": "-"}


def dipoles(charges, parity):
    """Draw a held-out molecule with its charges, and the dipoles of all held-out molecules."""
    X, y, groups = load_molecules(return_groups=True)
    D = y["dipole"]
    train, test = next(GroupShuffleSplit(1, test_size=0.2, random_state=0).split(X, D, groups))
    X_train, D_train, X_test = [X[i] for i in train], D[train], [X[i] for i in test]
    soap = SOAPFeaturizer(r_cut=(1.7, 3.5), n_max=6, l_max=4)
    model = make_pipeline(soap, CURSparsifier(n_points=100), KQEqRegressor(sigma_dipole=0.003))
    predicted = {
        "kQEq": model.fit(X_train, D_train).predict(X_test),
        "QEq": QEqRegressor().fit(X_train, D_train).predict(X_test),
    }
    # The molecule with the largest dipole among those with at least ten atoms.
    size = np.array([len(atoms) for atoms in X_test])
    i = np.argmax(np.linalg.norm(D[test], axis=1) * (size > 9))
    plot_molecule(X_test[i], predict_charges(model, X_test)[i], predicted["kQEq"][i], ax=charges)
    formula = X_test[i].get_chemical_formula()
    charges.set_title(f"{formula}: charges learned from dipoles")
    plot_parity(D[test], predicted, ax=parity).set_title("dipoles of held-out molecules")


def chains(ax):
    """Draw dipoles of amino aldehydes against the number of methylene groups between the ends."""
    with (ROOT / "benchmarks" / "results" / "flow_chains.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["chain"] == "saturated"]
    rows = rows[::2]  # the dipoles of both ends add in odd chains and subtract in even chains
    units = [int(row["units"]) for row in rows]
    colors = model_colors(["kQEq", "ChargeFlow"]) | {"GFN2-xTB": "k"}
    for name, style in STYLES.items():
        dipole = [float(row[name]) for row in rows]
        ax.plot(units, dipole, style, markersize=4, color=colors[name], label=name)
    ax.set(
        title="extrapolation to long chains",
        xlabel="CH₂ groups between the ends",
        ylabel="|μ| (D)",
        ylim=(0, 6.5),
    )
    ax.legend(frameon=False, loc="lower left")


def main():
    warnings.filterwarnings("ignore", message="n_points=")
    names = ("charges", "dipoles", "chains")
    axes = [plt.subplots(figsize=(4.4, 4.0), layout="constrained")[1] for _ in names]
    dipoles(*axes[:2])
    chains(axes[2])
    for name, ax in zip(names, axes, strict=True):
        ax.figure.savefig(ROOT / "docs" / "_static" / f"front_{name}.png", dpi=150)


if __name__ == "__main__":
    main()
