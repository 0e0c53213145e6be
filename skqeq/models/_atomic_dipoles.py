"""Learned dipoles of the atoms: a vector field beside those of the response.

The dipoles ``d_i = v_i u`` are linear in the weights u, see `skqeq.VectorSOAPFeaturizer`. They do
not act on the charges, and charges and external fields do not act on them. Observables of the
charges therefore stay linear in all weights, for instance the dipole moment
``mu = sum_i q_i r_i + sum_i d_i``. A model with atomic dipoles has no energy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..fields import Field, components_of
from ..targets import ENERGIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._typing import Array
    from ..response import Equilibrium

# Name of the field, of its block of features, and of the quantity to which it contributes.
DIPOLE = "dipole"


def dipole_field(amplitude: float) -> Field:
    """The field of the atomic dipoles, which a model has if there is a block of its features.

    Parameters
    ----------
    amplitude : float
        Prior standard deviation of the weights, e*Angstrom.

    Returns
    -------
    field : Field
    """
    return Field(DIPOLE, DIPOLE, (DIPOLE,), amplitude, optional=True)


def take_dipoles(fields: dict[str, Array]) -> Array | None:
    """Remove the components of the atomic dipoles from the values of all fields.

    Parameters
    ----------
    fields : dict of {str: ndarray of shape (n_atoms,)}
        Values of the fields; modified in place.

    Returns
    -------
    dipoles : ndarray of shape (n_atoms, 3) or None
        The dipoles, e*Angstrom; None if the model has none.
    """
    names = components_of(DIPOLE)
    if names[0] not in fields:
        return None
    return np.stack([fields.pop(name) for name in names], axis=1)


def dipole_rows(equilibrium: Equilibrium, target: Any) -> dict[str, Array]:
    """Derivatives of a target with respect to the components of the atomic dipoles.

    Parameters
    ----------
    equilibrium : Equilibrium
        The response of the structure.
    target : ChargeTarget
        An observable of charges and dipoles.

    Returns
    -------
    rows : dict of {str: ndarray of shape (k, n_atoms)}
        The keys are the components.
    """
    operator = equilibrium.dipole_operator(target)
    return {name: operator[:, :, a] for a, name in enumerate(components_of(DIPOLE))}


def check_energies(names: Sequence[str], estimator: str) -> None:
    """Refuse targets that need the energy of a model with atomic dipoles.

    Parameters
    ----------
    names : sequence of str
        Names of targets.
    estimator : str
        Name of the model.

    Raises
    ------
    ValueError
        For energy, forces and stress.
    """
    of_energy = [name for name in names if name in ENERGIES]
    if of_energy:
        raise ValueError(
            f"{estimator} with atomic dipoles does not predict {of_energy[0]}, because the dipoles "
            "do not interact with the charges; leave out the block 'dipole' of the features"
        )
