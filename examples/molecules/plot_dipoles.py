"""
Dipole moments from start to finish
===================================

This example goes from a list of ``ase.Atoms`` to a tuned model of dipole moments. The model
predicts the electronegativity of each atom. Charge equilibration turns electronegativities into
charges, and the charges give the dipole moment.
"""

# %%
# Data
# ----
# ``X`` is a list of ``ase.Atoms``, and ``y`` is a structured array with one row per structure. The
# groups tell which structures are geometries of the same molecule. A quarter of the *molecules* is
# held out and used only in the last step.
from sklearn.model_selection import GridSearchCV, GroupKFold, GroupShuffleSplit
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, QEqRegressor, SOAPFeaturizer
from skqeq.datasets import load_molecules
from skqeq.metrics import dipole_errors
from skqeq.model_selection import TargetScorer
from skqeq.plotting import plot_parity

X, y, groups = load_molecules(return_groups=True)
split = GroupShuffleSplit(n_splits=1, test_size=0.25, random_state=0)
train, test = next(split.split(X, groups=groups))
X_train, X_test = [X[i] for i in train], [X[i] for i in test]
D_train, D_test = y["dipole"][train], y["dipole"][test]
print(f"{len(train)} structures to train on, {len(test)} held out")

# %%
# Model
# -----
# The model is a pipeline of three steps. The featurizer describes the neighbourhood of each atom by
# SOAP. The sparsifier selects the environments with which the Gaussian process compares. The
# regressor fits the electronegativities to the dipoles (e*Angstrom). A parameter is set by the name
# of its step and its name.
model = make_pipeline(SOAPFeaturizer(n_max=6, l_max=4), CURSparsifier(), KQEqRegressor())
model.set_params(cursparsifier__n_points=80)

# %%
# Search
# ------
# A search can vary any parameter of any step. A cache computes the descriptor of a structure once
# per cutoff, so that additional values of ``sigma_dipole`` cost little.
search = GridSearchCV(
    model,
    {
        "soapfeaturizer__r_cut": [3.5, (1.7, 3.5)],
        "kqeqregressor__sigma_dipole": [0.001, 0.003, 0.01],
    },
    cv=GroupKFold(3),
    scoring=TargetScorer("dipole", "mae"),
    error_score="raise",
)
search.fit(X_train, D_train, groups=groups[train])

results = search.cv_results_
print("r_cut (A)     sigma (e*A)   MAE of a component (e*A)")
for (sigma, cutoff), score in zip(map(dict.values, results["params"]), results["mean_test_score"]):
    chosen = "  <-" if score == search.best_score_ else ""
    print(f"{cutoff!s:14}{sigma:<14}{-score:.4f}{chosen}")

# %%
# Held-out molecules
# ------------------
# Compare the model with classical charge equilibration, which has one electronegativity per
# element, fitted to the same dipoles. It takes structures and needs no featurizer.
classical = QEqRegressor().fit(X_train, D_train)
predictions = {"kQEq": search.predict(X_test), "QEq": classical.predict(X_test)}
for name, D in predictions.items():
    errors = dipole_errors(D_test, D)
    print(f"{name:5} MAE of |mu| {errors['mae']:.3f} D, vector RMSE {errors['vector_rmse']:.3f} D")

# %%
ax = plot_parity(D_test, predictions)
ax.set_title("Held-out molecules")
