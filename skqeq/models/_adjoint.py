"""Products of the transposed Jacobian of one structure with a vector, without the Jacobian.

Let rho be factors of the energy E, the forces F and the stress S of one structure. The sum
``L = rho_E E + rho_F . F + rho_S . S`` contains the derivatives of E with respect to the geometry
along a single direction: the displacements ``-rho_F`` and the strain ``rho_S / V``. Let D stand for
the derivative along this direction. In the notation of `_jacobian`, the weights w of a field f
change L by

    dL / dw = phi^T (rho_E dE/df + y G_f + z dU_f) + (D phi)^T dE/df,

where ``y = D u`` at fixed charges, and ``z = D q`` at fixed u. One pass over the neighbours of
every atom gives D phi, and one solution for the charges gives the products with G_f.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..electrostatics import in_plane
from ..targets import TARGETS
from ._jacobian import VOIGT_ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._typing import Array
    from ..fields import FieldLayout
    from ._structure_solution import Solution


def pull_back(
    layout: FieldLayout, solution: Solution, names: Sequence[str], factors: Array
) -> Array:
    """Derivatives of a weighted sum of targets of one structure with respect to the weights.

    Parameters
    ----------
    layout : FieldLayout
        The fields and their weights.
    solution : Solution
        Charges and gradients of the structure.
    names : sequence of str
        Any of energy, forces and stress.
    factors : ndarray of shape (n_rows,)
        Factors of the components of the targets, in the order of the names.

    Returns
    -------
    gradient : ndarray of shape (n_columns,)
        The product of the transposed Jacobian, see `TargetJacobian`, with the factors.
    """
    of_energy, displacement, strain = _direction(solution, names, factors)
    derivatives, fields = solution.energy_derivatives, solution.field_gradients
    made = {id(f.features): f.features for f in fields}
    directional = {
        key: features.directional(displacement, strain) for key, features in made.items()
    }
    changes: dict[str, Array] = {}
    for field in fields:
        if field.enters != "energy":
            change = directional[id(field.features)].field(field.dual)
            changes[field.enters] = changes.get(field.enters, 0.0) + change
    y, z = solution.equilibrium.directional_factors(
        solution.charges, changes, displacement, strain, **solution.fields
    )
    rows = solution.equilibrium.rows(y[None], None if z is None else z[None])
    gradient, onehot = np.zeros(layout.n_columns), layout.onehot(solution.structure.numbers)
    for field in fields:
        of_features, of_constants = layout.columns[field.number]
        derivative = derivatives[field.enters]
        values = of_energy * derivative
        if field.enters in rows:
            values = values + rows[field.enters][0]
        gradient[of_features] += field.features.contract(values[None])[0]
        gradient[of_features] += directional[id(field.features)].contract(derivative[None])[0]
        if of_constants.stop > of_constants.start:
            gradient[of_constants] = values @ onehot
    return gradient


def _direction(solution, names, factors):
    """Factor of the energy, and the direction of the derivative: displacements and strain."""
    structure, start = solution.structure, 0
    of_energy, displacement, strain = 0.0, np.zeros((len(structure), 3)), np.zeros(9)
    for name in names:
        part = factors[start : start + TARGETS[name].size(structure)]
        start += len(part)
        if name == "energy":
            of_energy = float(part[0])
        elif name == "forces":
            displacement = -part.reshape(-1, 3)
        elif name == "stress":
            strain[VOIGT_ROWS] = part / structure.volume
    strain = strain.reshape(3, 3)
    # The derivatives with respect to a strain are symmetric.
    return of_energy, displacement, in_plane(0.5 * (strain + strain.T), structure)
