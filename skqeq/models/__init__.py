"""Estimators of charges and what follows from them."""

from ._dispatch import (
    predict_charges,
    predict_electronegativities,
    predict_energy,
    predict_forces,
    predict_stress,
    predict_target,
    predict_targets,
)
from ._kqeq import KQEqRegressor
from ._qeq import QEqRegressor

__all__ = [
    "KQEqRegressor",
    "QEqRegressor",
    "predict_charges",
    "predict_electronegativities",
    "predict_energy",
    "predict_forces",
    "predict_stress",
    "predict_target",
    "predict_targets",
]
