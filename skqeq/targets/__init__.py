"""Targets: observables of structures, and the table y of their labels."""

from ._from_atoms import label_keys, targets_from_atoms
from ._labels import (
    Labels,
    as_table,
    column_names,
    make_targets,
    to_form,
)
from ._lookup import MissingLabelsError, free_energy
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

__all__ = [
    "TARGETS",
    "Labels",
    "Target",
    "make_targets",
    "targets_from_atoms",
]
