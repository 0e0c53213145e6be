"""Electrostatics: the hardness matrix of Gaussian charges, and their potential."""

from ._hardness import (
    SOLVERS,
    HardnessOperator,
    gaussian_widths,
    hardness_for,
    hardness_gradient,
    hardness_matrix,
    potential_matrix,
)

__all__ = [
    "SOLVERS",
    "HardnessOperator",
    "gaussian_widths",
    "hardness_for",
    "hardness_gradient",
    "hardness_matrix",
    "potential_matrix",
]
