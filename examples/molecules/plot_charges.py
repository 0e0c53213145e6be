"""
Dipoles and charges together
============================

Atomic charges cannot be measured, and they are not unique. But the charges of a population analysis
show where in a molecule the charge is, which the three components of a dipole do not. A model can
learn from both, each with its own noise.
"""

# %%
# Targets
# -------
# ``y`` has two columns. ``predict`` returns the columns that a model was trained on.
# `skqeq.predict_target` returns any other target.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    KQEqRegressor,
    SOAPFeaturizer,
    make_targets,
    predict_charges,
    predict_target,
)
from skqeq.datasets import load_molecules
from skqeq.metrics import dipole_errors, target_mae
from skqeq.plotting import plot_molecule

X, y, groups = load_molecules(return_groups=True)
split = GroupShuffleSplit(n_splits=1, test_size=0.25, random_state=0)
train, test = next(split.split(X, groups=groups))
X_train, X_test = [X[i] for i in train], [X[i] for i in test]
y_train, y_test = y[train], y[test]
print(y.dtype.names)

# %%
# Three models
# ------------
# The models differ only in their labels. ``sigma_dipole`` and ``sigma_charges`` weight the labels
# against each other: the weight of a label is ``1 / sigma**2``.
labels = {
    "dipole": make_targets(dipole=y_train["dipole"]),
    "charges": make_targets(charges=y_train["charges"]),
    "dipole + charges": y_train,
}
models = {}
print(f"{'trained on':18}{'MAE of |mu| (D)':>17}{'MAE of charges (e)':>20}")
for name, y_some in labels.items():
    model = make_pipeline(
        SOAPFeaturizer(n_max=6, l_max=4),
        CURSparsifier(n_points=80),
        KQEqRegressor(sigma_dipole=0.005, sigma_charges=0.02),
    )
    models[name] = model.fit(X_train, y_some)
    D, q = (predict_target(model, X_test, target) for target in ("dipole", "charges"))
    mu, charge = dipole_errors(y_test["dipole"], D)["mae"], target_mae(y_test["charges"], q)
    print(f"{name:18}{mu:17.3f}{charge:20.3f}")


# %%
# One molecule
# ------------
# The figure shows a flat held-out molecule, which is easy to draw in a plane. Among those that
# contain N and O it has the largest dipole. Red is negative and blue is positive. The arrow is the
# dipole moment and points from minus to plus.
def thickness(atoms):
    centred = atoms.positions - atoms.positions.mean(axis=0)
    return np.ptp(centred @ np.linalg.svd(centred)[2][2])


flat = [i for i, a in enumerate(X_test) if {"N", "O"} <= set(a.symbols) and thickness(a) < 1.9]
i = max(flat, key=lambda i: np.linalg.norm(y_test["dipole"][i]))
[q] = predict_charges(models["dipole + charges"], [X_test[i]])
[D] = predict_target(models["dipole + charges"], [X_test[i]], "dipole")

fig, axes = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained")
fig.suptitle(X_test[i].get_chemical_formula())
limit = np.abs([q, y_test["charges"][i]]).max()  # the same colours in both panels
plot_molecule(X_test[i], y_test["charges"][i], y_test["dipole"][i], limit=limit, ax=axes[0])
axes[0].set_title("reference (Mulliken)")
plot_molecule(X_test[i], q, D, limit=limit, ax=axes[1])
axes[1].set_title("predicted")
