"""
Ions conserve the total charge
==============================

The total charge is a constraint and not a feature. The charges of a cation therefore always sum to
+1.
"""

# %%
# Neutral molecules and ions
# --------------------------
# ``atoms.info["charge"]`` is the total charge in e. The dipole of an ion depends on the origin; in
# skqeq the origin is the centre of mass.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer, predict_charges
from skqeq.datasets import load_ions, load_molecules
from skqeq.metrics import dipole_errors
from skqeq.plotting import plot_molecule, plot_parity

X, y, groups = load_molecules(return_groups=True)
X_ions, y_ions, groups_ions = load_ions(return_groups=True)
split = GroupShuffleSplit(n_splits=1, test_size=0.3, random_state=0)
train, test = next(split.split(X_ions, groups=groups_ions))
X_test, D_test = [X_ions[i] for i in test], y_ions["dipole"][test]
print(f"{len(X)} neutral structures, {len(train)} ions to train on, {len(test)} held out")

# %%
# Two models
# ----------
# The first model is trained on neutral molecules and ions, the second only on neutral molecules.
# Both conserve the charge. Ions have environments that do not occur in neutral molecules, and only
# the first model was trained on some of them.
data = {
    "neutral + ions": (X + [X_ions[i] for i in train], np.concatenate([y, y_ions[train]])),
    "neutral only": (X, y),
}
predictions, models = {}, {}
for name, (X_train, y_train) in data.items():
    model = make_pipeline(
        SOAPFeaturizer(n_max=6, l_max=4),
        CURSparsifier(n_points=80),
        KQEqRegressor(sigma_dipole=0.005),
    )
    models[name] = model.fit(X_train, y_train["dipole"])
    predictions[name] = model.predict(X_test)
    sums = np.array([q.sum() for q in predict_charges(model, X_test)])
    wrong = np.abs(sums - [atoms.info["charge"] for atoms in X_test]).max()
    errors = dipole_errors(D_test, predictions[name])
    print(f"{name}: MAE of |mu| {errors['mae']:.2f} D; largest error of a sum {wrong:.0e} e")

# %%
plot_parity(D_test, predictions).set_title("Held-out ions")

# %%
# One geometry, three charges
# ---------------------------
# These are the charges of one geometry with total charges of -1, 0 and +1. Features and
# electronegativities are the same in all three. The additional charge spreads over the molecule as
# over a conductor of the same shape.
atoms = max((X[i] for i in range(100)), key=lambda atoms: (atoms.symbols == "N").sum())
states = []
for charge in (-1, 0, 1):
    states.append(atoms.copy())
    states[-1].info["charge"] = charge
fig, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
charges = predict_charges(models["neutral + ions"], states)
for ax, state, q in zip(axes, states, charges):
    plot_molecule(state, q, limit=np.abs(charges).max(), ax=ax)
    ax.set_title(f"Q = {state.info['charge']:+d} e".replace("-", "−").replace("+0", "0"))
