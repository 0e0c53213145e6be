from ._explore import explore
from ._memory import get_memory_budget, set_memory_budget
from ._show_versions import show_versions
from .calculator import KQEqCalculator
from .features import (
    SOAPFeaturizer,
    StructureBlocks,
    TotalChargeFeatures,
    VectorSOAPFeaturizer,
)
from .models import (
    ChargeSearchCV,
    GAPKQEqRegressor,
    GAPRegressor,
    KQEqRegressor,
    KQEqRegressorCV,
    PotentialSearchCV,
    QEqRegressor,
    calibrate,
    partial_fit,
    predict_born_effective_charges,
    predict_charges,
    predict_electronegativities,
    predict_energy,
    predict_forces,
    predict_interval,
    predict_polarizability,
    predict_std,
    predict_stress,
    predict_target,
    predict_targets,
    refit,
)
from .persistence import load, save
from .response import ChargeFlow, QEq
from .sparsify import CURSparsifier
from .structures import StructureFeatures, check_structures, strip, with_total_charges
from .targets import check_labels, make_targets, targets_from_atoms

__version__: str

__all__ = [
    "CURSparsifier",
    "ChargeFlow",
    "ChargeSearchCV",
    "GAPKQEqRegressor",
    "GAPRegressor",
    "KQEqCalculator",
    "KQEqRegressor",
    "KQEqRegressorCV",
    "PotentialSearchCV",
    "QEq",
    "QEqRegressor",
    "SOAPFeaturizer",
    "StructureBlocks",
    "StructureFeatures",
    "TotalChargeFeatures",
    "VectorSOAPFeaturizer",
    "calibrate",
    "check_labels",
    "check_structures",
    "explore",
    "get_memory_budget",
    "load",
    "make_targets",
    "partial_fit",
    "predict_born_effective_charges",
    "predict_charges",
    "predict_electronegativities",
    "predict_energy",
    "predict_forces",
    "predict_interval",
    "predict_polarizability",
    "predict_std",
    "predict_stress",
    "predict_target",
    "predict_targets",
    "refit",
    "save",
    "set_memory_budget",
    "show_versions",
    "strip",
    "targets_from_atoms",
    "with_total_charges",
]
