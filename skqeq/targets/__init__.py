"""Targets: what is observed of a structure's charges, and the table of labels y."""

from ._labels import Labels, make_targets, targets_from_atoms
from ._observables import TARGETS, Target

__all__ = ["TARGETS", "Labels", "Target", "make_targets", "targets_from_atoms"]
