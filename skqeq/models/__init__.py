"""Estimators of charges and what follows from them."""

from ._base import check_defined as check_defined
from ._base import check_weights as check_weights
from ._base import with_energy as with_energy
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
from ._dispatch import unwrap as unwrap
from ._evidence import Evidence as Evidence
from ._evidence import log_evidence as log_evidence
from ._evidence import maximize_evidence as maximize_evidence
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
