"""
Learning curve
==============

This example shows how the error decreases with the number of training molecules. It uses
scikit-learn's ``learning_curve`` with folds by molecule.
"""

# %%
# A scorer is a function of a fitted model, structures and labels. A better model must have a larger
# score. This scorer returns the negative mean absolute error of the norm of the dipole, in Debye.
import numpy as np
from sklearn.model_selection import GroupKFold, learning_curve
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, QEqRegressor, SOAPFeaturizer
from skqeq.datasets import load_molecules
from skqeq.metrics import dipole_errors
from skqeq.plotting import plot_learning_curve


def negative_mae(model, X, y):
    return -dipole_errors(y, model.predict(X))["mae"]


# %%
# The curve
# ---------
# The number of sparse points is fixed. Small training sets contain fewer environments of rare
# elements, and the sparse set then contains all of them.
import warnings

warnings.filterwarnings("ignore", message="n_points=.* all of them are used")

X, y, groups = load_molecules(return_groups=True)
models = {
    "kQEq": make_pipeline(
        SOAPFeaturizer(n_max=6, l_max=4),
        CURSparsifier(n_points=100),
        KQEqRegressor(sigma_dipole=0.005),
    ),
    "QEq": QEqRegressor(),
}
errors = {}
for name, model in models.items():
    sizes, _, scores = learning_curve(
        model,
        X,
        y["dipole"],
        groups=groups,
        cv=GroupKFold(5),
        train_sizes=np.geomspace(0.1, 1.0, 5),
        scoring=negative_mae,
        error_score="raise",
    )
    errors[name] = -scores
    print(name, dict(zip(sizes.tolist(), errors[name].mean(axis=1).round(3).tolist())))

# %%
# The line is the mean over the folds, and the band extends from the best fold to the worst.
# Classical charge equilibration does not improve with more data, because few data are enough to
# determine its four or five parameters, one per element.
ax = plot_learning_curve(sizes, errors, unit="D", label="MAE of |μ|")
ax.set_title("Five-fold cross-validation by molecule")
