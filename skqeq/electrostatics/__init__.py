"""Electrostatics: the hardness matrix of Gaussian charges, and their potential."""

from ._arguments import gaussian_widths
from ._hardness import DenseHardness, Hardness, HardnessOperator
from ._matrix import hardness_gradient, hardness_matrix, potential_gradient, potential_matrix

# isort: split
# Not public: for the other folders of the package.
from ._arguments import lookup as lookup
from ._choice import SOLVERS as SOLVERS
from ._choice import make_hardness as make_hardness
from ._dipoles import DipoleSum as DipoleSum
from ._dipoles import dipole_widths as dipole_widths
from ._dipoles import radial_derivatives as radial_derivatives
from ._plane import in_plane as in_plane
from ._splitting import ACCURACIES as ACCURACIES

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
