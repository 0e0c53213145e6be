"""
Elements that the model has not seen
====================================

A model refuses structures with an element that its training data lack. With
``handle_unknown="prior"`` it predicts them from its prior, and its error bars say so.
"""

# %%
# Train without fluorine
# ----------------------
# The test set has molecules with and without fluorine.
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer
from skqeq.datasets import load_molecules
from skqeq.parameters import DEBYE

X, y = load_molecules()
fluorine = np.array(["F" in atoms.symbols for atoms in X])
without, with_fluorine = np.flatnonzero(~fluorine), np.flatnonzero(fluorine)
train = without[:300]
tests = {"H, C, N, O": without[300:360], "with F": with_fluorine[:60]}
model = make_pipeline(
    SOAPFeaturizer(n_max=4, l_max=3),
    CURSparsifier(n_points=80),
    KQEqRegressor(sigma_dipole=0.06, store_triangles=True),
)
model.fit([X[i] for i in train], y["dipole"][train])
try:
    model.predict([X[i] for i in tests["with F"]])
except ValueError as error:
    print(error)

# %%
# Predict from the prior
# ----------------------
# The electronegativity of fluorine is now that of classical charge equilibration, with the standard
# deviation of the prior. Atoms with a fluorine atom inside the cutoff lose their features and keep
# the fitted constant of their element. A warning names the first structure. The noise of the labels
# is not part of a standard deviation; it is added here, for the comparison with labels.
model.set_params(kqeqregressor__handle_unknown="prior")
results = {}
for name, test in tests.items():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predicted, std = model.predict([X[i] for i in test], return_std=True)
    for warning in caught:
        print(warning.message)
    std = np.sqrt(std**2 + model[-1].sigma_dipole ** 2)
    truth = y["dipole"][test]
    results[name] = [DEBYE * values.ravel() for values in (truth, predicted, std)]
    errors = predicted - truth
    print(
        f"{name}: RMS error {DEBYE * np.sqrt(np.mean(errors**2)):.2f} D, "
        f"expected {DEBYE * np.sqrt(np.mean(std**2)):.2f} D"
    )

# %%
# The error bars
# --------------
# Each point is a component of a dipole, with one expected error. The errors of molecules with
# fluorine are much larger than those of the others, and the model expects this.
fig, axes = plt.subplots(1, 2, figsize=(9.5, 4.8), sharex=True, sharey=True, layout="constrained")
for ax, (name, (truth, predicted, std)) in zip(axes, results.items(), strict=True):
    ax.errorbar(truth, predicted, std, fmt="o", ms=3.5, lw=0.8, alpha=0.7)
    ax.axline((0, 0), slope=1, color="#595959", lw=1)
    ax.set_title(name)
    ax.set_xlabel("reference dipole component (D)")
axes[0].set_ylabel("predicted dipole component (D)")
