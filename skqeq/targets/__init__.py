"""Targets: what is observed of a structure's charges, and the table of labels y."""

from ._labels import Labels, make_targets, targets_from_atoms
from ._labels import as_table as as_table
from ._labels import label_keys as label_keys
from ._observables import ENERGIES as ENERGIES
from ._observables import GRADIENTS as GRADIENTS
from ._observables import TARGETS, Target
from ._observables import VOIGT as VOIGT

__all__ = ["TARGETS", "Labels", "Target", "make_targets", "targets_from_atoms"]
