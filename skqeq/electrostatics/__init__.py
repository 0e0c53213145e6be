"""Electrostatics: the hardness matrix of Gaussian charges, and their potential."""

from ._arguments import gaussian_widths, lookup
from ._choice import SOLVERS, make_hardness
from ._dipoles import DipoleSum, dipole_widths, radial_derivatives
from ._hardness import DenseHardness, Hardness, HardnessOperator
from ._matrix import hardness_gradient, hardness_matrix, potential_gradient, potential_matrix
from ._splitting import ACCURACIES
from ._strain import in_plane

# Names that are imported above but not listed here are for the other folders of the package.
__all__ = [
    "DenseHardness",
    "Hardness",
    "HardnessOperator",
    "gaussian_widths",
    "hardness_gradient",
    "hardness_matrix",
    "potential_gradient",
    "potential_matrix",
]
