"""
Intervals that contain the labels
=================================

Which fraction of new labels is within the error that a model predicts? This example compares the
standard deviations of a fit with standard deviations and intervals that are calibrated: they follow
from the errors of left-out molecules.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    KQEqRegressor,
    SOAPFeaturizer,
    calibrate,
    predict_interval,
)
from skqeq.datasets import load_molecules

X, y, groups = load_molecules(return_groups=True)
D = y["dipole"]
[(train, test)] = GroupShuffleSplit(1, test_size=0.4, random_state=0).split(X, groups=groups)
X_train, X_test = [X[i] for i in train], [X[i] for i in test]

model = make_pipeline(
    SOAPFeaturizer(r_cut=3.5, n_max=4, l_max=3),
    CURSparsifier(n_points=80),
    KQEqRegressor(
        sigma_dipole=0.005, response=ChargeFlow(), store_triangles=True, handle_unknown="prior"
    ),
)
model.fit(X_train, D[train])

# %%
# Before the calibration
# ----------------------
# If errors were normally distributed with the standard deviations of the fit, an interval of
# 1.96 standard deviations would contain 95 % of the labels.

coverages = np.linspace(0.05, 0.95, 19)
predicted, std = model.predict(X_test, return_std=True)
errors = np.abs(D[test] - predicted)
noise = model[-1].sigma_dipole
before = [np.mean(errors < norm.ppf((1 + c) / 2) * np.hypot(std, noise)) for c in coverages]

# %%
# After the calibration
# ---------------------
# `calibrate` predicts every training molecule by the fit that leaves out its group. It needs no
# further fit.

calibrate(model, X_train, D[train], groups=groups[train])
after = []
for coverage in coverages:
    lower, upper = predict_interval(model, X_test, coverage)
    after.append(np.mean((lower <= D[test]) & (D[test] <= upper)))
std = model.predict(X_test, return_std=True)[1]
normal = [np.mean(errors < norm.ppf((1 + c) / 2) * std) for c in coverages]

# %%
# The largest errors are larger than those of a normal distribution. The intervals therefore use
# quantiles of the left-out errors.
#
# Left: fraction of the labels in the intervals; the ideal is the diagonal. Right: the half length
# of the 95 % interval of each component, and its error. Points above the line are outside of their
# interval.
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
left.plot([0, 1], [0, 1], ":", color="0.5")
left.plot(coverages, before, "o-", ms=4, label="standard deviations of the fit")
left.plot(coverages, normal, "s-", ms=4, label="calibrated standard deviations")
left.plot(coverages, after, "^-", ms=4, label="intervals")
left.set(xlabel="coverage asked for", ylabel="fraction of new labels inside", aspect="equal")
left.legend(frameon=False, loc="upper left")
half = (upper - lower) / 2
inside = errors <= half
for some, label in ((inside, "inside"), (~inside, "outside")):
    right.loglog(half[some], np.maximum(errors[some], 1e-4), ".", ms=4, label=label)
ends = np.array([half.min(), half.max()])
right.loglog(ends, ends, "k-", lw=1)
right.set(xlabel="half length of the 95 % interval (e·Å)", ylabel="error (e·Å)")
right.legend(frameon=False, loc="lower right")
plt.show()
