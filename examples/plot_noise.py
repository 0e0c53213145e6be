"""
Choosing the noise, and knowing the error
=========================================

`KQEqRegressorCV` leaves molecules out for many values of the noise, at hardly more cost than one
fit. The scores are exact: fits without them, one for every fold and noise, give the same. Below,
these errors are compared with that of molecules which nothing was fitted to, and with what the
model expects of its own error.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, KQEqRegressorCV, SOAPFeaturizer
from skqeq.datasets import load_molecules
from skqeq.model_selection import TargetScorer

X, y, groups = load_molecules(return_groups=True)
D = y["dipole"]
# Both copies of a molecule on the same side.
train, test = next(GroupKFold(3, shuffle=True, random_state=0).split(X, D, groups))
X_train, X_test = [X[i] for i in train], [X[i] for i in test]
soap = SOAPFeaturizer(r_cut=(1.7, 3.5), n_max=6, l_max=4)

# %%
# The noise
# ---------
# Twelve noises, five folds by molecule: once by the shortcut, once by brute force with the same
# features.

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
    f"largest difference to brute force: "
    f"{np.abs(-brute.cv_results_['mean_test_score'] - left_out[::4]).max():.1e} e Angstrom"
)

# %%
# The molecules that are left out helped to pick the sparse set. How much that flatters shows a
# search around the pipeline, which picks it anew in every fold, once for all noises.

pipeline = make_pipeline(soap, CURSparsifier(n_points=100), KQEqRegressor())
picked_anew = KQEqRegressorCV(pipeline, sigmas=sigmas, cv=folds, scoring="rmse")
picked_anew.fit(X_train, D[train], groups=groups[train])

phi_test, refitted = model[:-1].transform(X_test), search.best_estimator_
unseen = []
for sigma in sigmas:
    refitted.set_params(sigma_dipole=sigma).refit()  # from the triangle, not from the data
    unseen.append(np.sqrt(np.mean((refitted.predict(phi_test) - D[test]) ** 2)))
refitted.set_params(**search.best_params_).refit()

# %%
# The error of a prediction
# -------------------------
# Its standard deviation has two parts, what labels leave open of the weights, and what the sparse
# set cannot see. `calibration_` scales it by the errors of what was left out, and `noise_` is what
# comes on top of labels.

predicted, std = model.predict(X_test, return_std=True)
expected = np.sqrt(std**2 + search.noise_["dipole"] ** 2).ravel()
errors = np.abs(predicted - D[test]).ravel()
order = np.argsort(expected)
bins = np.array_split(order, 8)

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
left.loglog(sigmas, left_out, "-", label="left out, shortcut")
left.loglog(sigmas[::4], -brute.cv_results_["mean_test_score"], "o", label="left out, brute force")
left.loglog(sigmas, picked_anew.cv_results_["rmse_dipole"], ":", label="sparse set picked anew")
left.loglog(sigmas, unseen, "--", label="molecules not trained on")
left.axvline(search.best_params_["sigma_dipole"], color="0.7", lw=1)
left.set(xlabel="noise of the dipole / e Å", ylabel="RMSE of a component / e Å")
left.legend(frameon=False)
right.loglog(expected, errors, ".", ms=2, color="0.7")
right.loglog(
    [np.sqrt(np.mean(expected[b] ** 2)) for b in bins],
    [np.sqrt(np.mean(errors[b] ** 2)) for b in bins],
    "o-",
    label="RMSE of an eighth",
)
ends = np.array([expected.min(), expected.max()])
right.loglog(ends, ends, "k:", lw=1, label="as expected")
right.set(xlabel="expected error / e Å", ylabel="error / e Å", ylim=(1e-4, None))
right.legend(frameon=False)
plt.show()
