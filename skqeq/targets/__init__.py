"""Targets: observables of structures, and the table y of their labels."""

from ._check_labels import check_labels
from ._findings import Report
from ._from_atoms import label_keys, targets_from_atoms
from ._labels import (
    FORMS,
    RAGGED,
    Labels,
    as_table,
    column_names,
    make_targets,
    to_form,
)
from ._lookup import MissingLabelsError, free_energy
from ._names import check_names
from ._observables import (
    ENERGIES,
    GRADIENTS,
    TARGETS,
    VOIGT,
    ChargeTarget,
    DipoleMagnitude,
    Target,
    possibly_undefined,
)
from ._units import UNITS, parse_unit

__all__ = [
    "TARGETS",
    "Labels",
    "Report",
    "Target",
    "check_labels",
    "make_targets",
    "parse_unit",
    "targets_from_atoms",
]
