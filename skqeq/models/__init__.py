"""Estimators of charges, and of dipoles, energies and forces that follow from them.

- ``_kqeq``, ``_gap``, ``_gapkqeq``, ``_qeq``: the estimators; ``_base``: their common `fit`.
- ``_problem``, ``_derivative_rows``: rows of a fit to charges and dipoles, and to energies, forces
  and stress; ``_jacobian``: the equations of these derivatives.
- ``_minimise``, ``_start``: the iteration for energies, and its first weights.
- ``_posterior``, ``_prediction_rows``: variances behind `predict_std`.
- ``_jackknife``, ``_calibration``, ``_intervals``, ``_calibrate``: left-out errors, and standard
  deviations and intervals that fit them.
- ``_predictions``, ``_functions``: `predict_energy` and the like, of a model and of a pipeline.
- ``_cv`` and ``_cv_*``: cross-validation; ``_evidence*``: the marginal likelihood;
  ``_charge_*``: the settings of a model of charges; ``_potential_*``: those of a potential.
"""

from ._calibrate import calibrate
from ._calibration import Calibration
from ._charge_search import ChargeSearchCV, default_charge_model
from ._checks import check_defined, check_weights, labels_of_predictions, unfitted_energies
from ._cv import KQEqRegressorCV
from ._evidence import Evidence, log_evidence
from ._evidence_search import maximize_evidence
from ._functions import (
    partial_fit,
    predict_born_effective_charges,
    predict_charges,
    predict_electronegativities,
    predict_energy,
    predict_for_scores,
    predict_forces,
    predict_interval,
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
from ._grid import at_end
from ._kqeq import KQEqRegressor
from ._posterior import Posterior
from ._potential_search import PotentialSearchCV, default_potential
from ._qeq import QEqRegressor
from ._structure_solution import Solution

__all__ = [
    "Calibration",
    "ChargeSearchCV",
    "GAPKQEqRegressor",
    "GAPRegressor",
    "KQEqRegressor",
    "KQEqRegressorCV",
    "Posterior",
    "PotentialSearchCV",
    "QEqRegressor",
    "Solution",
    "calibrate",
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
]
