"""Electrostatics: the hardness matrix of Gaussian charges, and their potential.

- ``_hardness``: the hardness matrix A, as an array (`DenseHardness`) or as an operator.
- ``_direct``, ``_ewald``: elements of A for molecules, and for slabs and crystals.
- ``_operator``, ``_waves``: products with A for large structures, and for large slabs.
- ``_solvers``: charges with a fixed sum, by a Cholesky factor or by conjugate gradients.
- ``_preconditioner``: the preconditioner of the conjugate gradients.
- ``_splitting``: cutoffs of the Ewald sums for a given accuracy, and the gap above a slab.
- ``_dipoles``: induced dipoles.
"""

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
