"""
Let a search choose all settings
================================

A model of dipoles has some ten settings that depend on each other: cutoffs, their weights, the
amplitudes of two latent fields, the noise, and the parameters of the response. `ChargeSearchCV`
chooses all of them from the training molecules alone. This example compares its choice with the
default settings, on new molecules.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline

from skqeq import ChargeSearchCV, CURSparsifier, KQEqRegressor, SOAPFeaturizer
from skqeq.datasets import load_molecules
from skqeq.parameters import DEBYE

X, y, groups = load_molecules(return_groups=True)
D = y["dipole"]
# Both geometries of a molecule are either in the training set or in the test set.
train, test = next(GroupKFold(3, shuffle=True, random_state=0).split(X, D, groups))
X_train, X_test = [X[i] for i in train], [X[i] for i in test]

default = make_pipeline(
    SOAPFeaturizer(r_cut=(1.7, 3.5), n_max=6, l_max=4),
    CURSparsifier(n_points=100),
    KQEqRegressor(),
)

# %%
# The search
# ----------
# Each setting is compared on 200 molecules. For each of them, the search optimises the amplitudes
# and the noise by the gradient of the error of left-out molecules.

search = ChargeSearchCV(default, trial_rows=600, final_rows=1200, trial_points=100)
search.fit(X_train, D[train], groups=groups[train])
for name, value in search.best_params_.items():
    print(f"{name.partition('__')[2]:>20} = {value}")

# %%
# Left: all trials in their order. Each point is the mean length of the errors of left-out dipoles,
# for molecules that are left out one by one, and for classes of molecules of similar size that are
# left out together. The line follows the best score so far. Right: errors for new molecules.

trials = search.trials_[:-1]
steps = np.arange(len(trials))
best = np.minimum.accumulate([trial.score for trial in trials])
kept = [i for i in steps if i == 0 or best[i] < best[i - 1] - search.min_gain]
default.fit(X_train, D[train])
errors = {
    name: DEBYE * np.linalg.norm(model.predict(X_test) - D[test], axis=1)
    for name, model in {"default": default, "search": search}.items()
}

fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
for attribute, label in (("errors", "one by one"), ("errors_by_size", "by size")):
    values = [DEBYE * getattr(trial, attribute)["dipole"] for trial in trials]
    [points] = left.plot(steps, values, "o", ms=4, label=f"left out {label}")
    left.step(kept, [values[i] for i in kept], where="post", color=points.get_color(), lw=1)
left.set(xlabel="trial", ylabel="mean error of the dipole vector (D)", ylim=(0, None))
left.legend()
for name, error in errors.items():
    right.plot(np.sort(error), np.linspace(0, 1, len(error)), label=f"{name}: {error.mean():.3f} D")
right.set(
    xlabel="error of the dipole vector (D)",
    ylabel="part of the new molecules",
    xscale="log",
    xlim=(0.02, None),
    ylim=(0, 1),
)
right.legend(title="mean error")
plt.show()
