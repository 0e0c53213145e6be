"""
Learn from the norm of the dipole
=================================

Large databases often list ``|mu|`` and not the vector. The norm is not linear in the charges, and
does not change if all charges change sign. The fit is therefore iterative, and its start determines
which of the two mirrored solutions it finds.
"""

# %%
# Fit
# ---
# Without ``init``, the fit starts from dipoles with the length of the label and the direction of
# the classical QEq dipole. This determines the sign. With ``baseline=False`` the
# electronegativities have no prior mean, and both signs have exactly the same loss.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer, make_targets, predict_target
from skqeq.datasets import load_molecules
from skqeq.metrics import dipole_errors

X, y, groups = load_molecules(return_groups=True)
split = GroupShuffleSplit(n_splits=1, test_size=0.25, random_state=0)
train, test = next(split.split(X, groups=groups))
X_train, X_test = [X[i] for i in train], [X[i] for i in test]
D_test = y["dipole"][test]
y_train = make_targets(dipole_magnitude=np.linalg.norm(y["dipole"][train], axis=1))

model = make_pipeline(
    SOAPFeaturizer(n_max=6, l_max=4),
    CURSparsifier(n_points=60),
    KQEqRegressor(sigma_dipole_magnitude=0.01, baseline=False),
)
model.fit(X_train, y_train)
regressor = model[-1]
print(f"{regressor.n_iter_ - 1} steps, loss {regressor.fit_history_[-1]['loss']:.4f}")

# %%
# The mirrored start
# ------------------
# ``init`` takes weights in the form of ``coef_``. The negative of the solution is also a solution
# with the same loss. A start close to it converges to it. A more distant start can converge to
# another minimum, because the loss is not convex.
mirrored = make_pipeline(*model[:-1], KQEqRegressor(**regressor.get_params()))
noise = np.random.default_rng(0).normal(size=len(regressor.coef_))
mirrored.set_params(kqeqregressor__init=0.3 * noise - regressor.coef_)
mirrored.fit(X_train, y_train)
print(f"{mirrored[-1].n_iter_ - 1} steps, loss {mirrored[-1].fit_history_[-1]['loss']:.4f}")
dipoles = {
    "start from QEq": predict_target(model, X_test, "dipole"),
    "mirrored start": predict_target(mirrored, X_test, "dipole"),
}
for name, D in dipoles.items():
    errors = dipole_errors(D_test, D)
    print(f"{name}: MAE of |mu| {errors['mae']:.3f} D, vector RMSE {errors['vector_rmse']:.2f} D")

# %%
# Pictures
# --------
# Left: the expected decrease of the penalised loss, relative to the loss. It falls faster in each
# step (truncated Newton), and the loss never increases. Right: the dipole components of held-out
# molecules. The fit used only norms.
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
for color, (name, fitted) in zip(
    ("C0", "C1"), {"start from QEq": regressor, "mirrored start": mirrored[-1]}.items()
):
    history = fitted.fit_history_
    decrease = [step["decrease"] / step["loss"] for step in history]
    left.semilogy(decrease, "o-", color=color, label=name)
    D = dipoles[name]
    right.plot(D_test.ravel(), D.ravel(), ".", color=color, alpha=0.4, markeredgewidth=0)
left.axhline(regressor.tol, color="grey", linewidth=1, linestyle="--")
left.text(0, 1.3 * regressor.tol, "tol", color="grey")
left.set(xlabel="step", ylabel="expected relative decrease of the loss")
left.legend(frameon=False)
limit = 1.05 * np.abs(D_test).max()
right.plot([-limit, limit], [-limit, limit], color="grey", linewidth=1)
right.plot([-limit, limit], [limit, -limit], color="grey", linewidth=1)
right.set(xlabel="reference component (e·Å)", ylabel="predicted component (e·Å)", aspect="equal")
right.set(xlim=(-limit, limit), ylim=(-limit, limit))
