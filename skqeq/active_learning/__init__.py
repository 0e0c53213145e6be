"""Active learning: the model explores structures, and a reference calculation labels new ones."""

from ._exploration import LangevinDynamics, ModelBreakdownError
from ._learner import ActiveLearner
from ._selection import select_novel, select_uncertain, uncertainty

__all__ = [
    "ActiveLearner",
    "LangevinDynamics",
    "ModelBreakdownError",
    "select_novel",
    "select_uncertain",
    "uncertainty",
]
