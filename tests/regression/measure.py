"""Fit a case, gather its numbers, and compare them with stored ones."""

from pathlib import Path

import numpy as np
from sklearn.base import clone

from skqeq import (
    predict_electronegativities,
    predict_polarizability,
    predict_std,
    predict_targets,
)

from .cases import flat, prefixed

HERE = Path(__file__).resolve().parent
NUMBERS = HERE / "numbers.npz"


def fit(case):
    """Return the fitted model of a case."""
    return clone(case.model).fit(case.X, case.y, **case.fit_params)


def regressor(fitted):
    """Return the charge model inside pipelines and searches."""
    while not hasattr(fitted, "coef_"):
        fitted = fitted.best_estimator_ if hasattr(fitted, "best_estimator_") else fitted[-1]
    return fitted


def predictions(fitted, case):
    """Predicted numbers, all of which depend on the fit only through its weights."""
    numbers = flat(predict_targets(fitted, case.new, case.targets))
    if "charges" in case.targets:
        chi = predict_electronegativities(fitted, case.new)
        numbers["electronegativities"] = np.concatenate(chi)
    if case.has_polarizability:
        numbers["polarizability"] = predict_polarizability(fitted, case.new).ravel()
    return prefixed("predict", numbers)


def measure(case, fitted):
    """All numbers of a fitted case by name; the function may change the fitted model."""
    model = regressor(fitted)
    numbers = {
        "coef": model.coef_.copy(),
        "atomic_energies": model.atomic_energies_.copy(),
        "loss": np.array([model.fit_history_[-1]["loss"]]),
        "score": np.array([fitted.score(case.X, case.y)]),
    }
    numbers |= predictions(fitted, case)
    # Only two structures, because standard deviations of forces are slow.
    names = case.targets if case.std_targets is None else case.std_targets
    numbers |= prefixed("std", flat(predict_std(fitted, case.new[:2], names)))
    if case.extra:
        numbers |= case.extra(fitted, case)
    return numbers


def with_weights(fitted, numbers):
    """Replace the weights of a fitted model by the stored ones, and return it."""
    model = regressor(fitted)
    model.coef_ = numbers["coef"].copy()
    model.atomic_energies_ = numbers["atomic_energies"].copy()
    return fitted


def deviation(found, stored):
    """Largest difference relative to the largest stored number.

    The deviation is infinite if shapes or places of NaN differ.
    """
    found, stored = np.asarray(found), np.asarray(stored)
    if found.shape != stored.shape or (np.isnan(found) != np.isnan(stored)).any():
        return np.inf
    known = ~np.isnan(stored)
    if not known.any():
        return 0.0
    scale = np.abs(stored[known]).max()
    largest = np.abs(found[known] - stored[known]).max()
    return float(largest / scale) if scale > 0 else float(largest)
