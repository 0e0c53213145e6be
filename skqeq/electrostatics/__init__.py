"""Electrostatics: the hardness matrix of Gaussian charges, and their potential."""

from ._hardness import (
    HardnessOperator,
    gaussian_widths,
    hardness_gradient,
    hardness_matrix,
    potential_gradient,
    potential_matrix,
)

__all__ = [
    "HardnessOperator",
    "gaussian_widths",
    "hardness_gradient",
    "hardness_matrix",
    "potential_gradient",
    "potential_matrix",
]
