"""Estimators of charges and what follows from them."""

from ._cv import KQEqRegressorCV
from ._dispatch import (
    partial_fit,
    predict_born_effective_charges,
    predict_charges,
    predict_electronegativities,
    predict_energy,
    predict_forces,
    predict_polarizability,
    predict_std,
    predict_stress,
    predict_target,
    predict_targets,
    refit,
)
from ._gap import GAPRegressor
from ._gapkqeq import GAPKQEqRegressor
from ._kqeq import KQEqRegressor
from ._qeq import QEqRegressor
from ._solution import Solution

__all__ = [
    "GAPKQEqRegressor",
    "GAPRegressor",
    "KQEqRegressor",
    "KQEqRegressorCV",
    "QEqRegressor",
    "Solution",
    "partial_fit",
    "predict_born_effective_charges",
    "predict_charges",
    "predict_electronegativities",
    "predict_energy",
    "predict_forces",
    "predict_polarizability",
    "predict_std",
    "predict_stress",
    "predict_target",
    "predict_targets",
    "refit",
]
