"""Estimators of charges, and of dipoles, energies and forces that follow from them."""

from ._checks import check_defined, check_weights, with_energy
from ._cv import KQEqRegressorCV
from ._evidence import Evidence, log_evidence
from ._evidence_search import maximize_evidence
from ._functions import (
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
    unwrap,
)
from ._gap import GAPRegressor
from ._gapkqeq import GAPKQEqRegressor
from ._kqeq import KQEqRegressor
from ._posterior import Posterior
from ._qeq import QEqRegressor
from ._structure_solution import Solution

__all__ = [
    "GAPKQEqRegressor",
    "GAPRegressor",
    "KQEqRegressor",
    "KQEqRegressorCV",
    "Posterior",
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
