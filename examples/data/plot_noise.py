"""
Choose the noise and estimate errors
====================================

`KQEqRegressorCV` cross-validates many values of the noise at little more than the cost of one fit.
Its scores are exact: they equal the scores of separate fits for each fold and each value. This
example compares the cross-validated errors with the errors on new molecules, and with the errors
that the model itself predicts.
"""

from copy import deepcopy

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, KQEqRegressorCV, SOAPFeaturizer
from skqeq.datasets import load_molecules
from skqeq.model_selection import TargetScorer

X, y, groups = load_molecules(return_groups=True)
D = y["dipole"]
# Both geometries of a molecule are either in the training set or in the test set.
train, test = next(GroupKFold(3, shuffle=True, random_state=0).split(X, D, groups))
X_train, X_test = [X[i] for i in train], [X[i] for i in test]
soap = SOAPFeaturizer(r_cut=(1.7, 3.5), n_max=6, l_max=4)

# %%
# The noise
# ---------
# `KQEqRegressorCV` tries twelve values of the noise in five folds by molecule. `GridSearchCV` does
# the same with separate fits, for every fourth value and with the same features.

sigmas = np.geomspace(3e-4, 1.0, 12)
folds = GroupKFold(5)
search = KQEqRegressorCV(
    KQEqRegressor(store_triangles=True), sigmas=sigmas, cv=folds, scoring="rmse"
)
model = make_pipeline(soap, CURSparsifier(n_points=100), search)
model.fit(X_train, D[train], kqeqregressorcv__groups=groups[train])
search = model[-1]
left_out = search.cv_results_["rmse_dipole"]

features = model[:-1].transform(X_train)
brute = GridSearchCV(
    KQEqRegressor(), {"sigma_dipole": sigmas[::4]}, cv=folds, scoring=TargetScorer("dipole")
).fit(features, D[train], groups=groups[train])
print(
    f"largest difference from separate fits: "
    f"{np.abs(-brute.cv_results_['mean_test_score'] - left_out[::4]).max():.1e} e Angstrom"
)

# %%
# The sparse set above was selected from all molecules, including the left-out ones. To see how this
# affects the scores, put the search around the pipeline. It then selects a new sparse set in each
# fold, once for all values of the noise.

pipeline = make_pipeline(soap, CURSparsifier(n_points=100), KQEqRegressor())
refined = KQEqRegressorCV(pipeline, sigmas=sigmas, cv=folds, scoring="rmse")
refined.fit(X_train, D[train], groups=groups[train])

phi_test, refitted = model[:-1].transform(X_test), deepcopy(search.best_estimator_)
unseen = []
for sigma in sigmas:
    refitted.set_params(sigma_dipole=sigma).refit()  # from the triangle, not from the data
    unseen.append(np.sqrt(np.mean((refitted.predict(phi_test) - D[test]) ** 2)))

# %%
# The error of a prediction
# -------------------------
# The standard deviation of a prediction has two parts: the uncertainty of the weights given the
# labels, and the part of the environments that the sparse set cannot describe. `calibration_`
# scales it to match the errors of left-out molecules. `noise_` is the additional noise of a label.

predicted, std = model.predict(X_test, return_std=True)
expected = np.sqrt(std**2 + search.noise_["dipole"] ** 2).ravel()
errors = np.abs(predicted - D[test]).ravel()
order = np.argsort(expected)
bins = np.array_split(order, 8)

# %%
# Left: errors as a function of the noise; the grey line is the chosen value. Right: the errors on
# new molecules against the predicted errors. Each bin contains an eighth of the components.
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
left.loglog(sigmas, left_out, "-", label="cross-validation, KQEqRegressorCV")
left.loglog(sigmas[::4], -brute.cv_results_["mean_test_score"], "o", label="separate fits")
left.loglog(sigmas, refined.cv_results_["rmse_dipole"], ":", label="new sparse set in each fold")
left.loglog(sigmas, unseen, "--", label="new molecules")
left.axvline(search.best_params_["sigma_dipole"], color="0.7", lw=1)
left.set(xlabel="noise of the dipole (e·Å)", ylabel="RMSE of a component (e·Å)")
left.set_ylim(top=0.4)  # room for the legend
left.legend(frameon=False, loc="upper left")
right.loglog(expected, errors, ".", ms=2, color="0.7")
right.loglog(
    [np.sqrt(np.mean(expected[b] ** 2)) for b in bins],
    [np.sqrt(np.mean(errors[b] ** 2)) for b in bins],
    "o-",
    label="RMSE in bins",
)
ends = np.array([expected.min(), expected.max()])
right.loglog(ends, ends, "k:", lw=1, label="error = predicted error")
right.set(xlabel="predicted error (e·Å)", ylabel="error (e·Å)", ylim=(1e-4, None))
right.legend(frameon=False)
plt.show()
