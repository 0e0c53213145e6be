"""The response of a model without charges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._dipoles import NoDipoles
from ._equilibrium import Equilibrium
from ._response import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._typing import Array
    from ..structures import Structure
    from ._equilibrium import Observable


class NoCharges(Response):
    """No charges: the energy is a sum of local energies, and all electrostatic terms are zero.

    This is the response of `GAPRegressor`. It has no latent fields, and ignores the total charge
    and the external field of a structure.

    See Also
    --------
    QEq : Charge equilibration.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import check_structures
    >>> from skqeq.response import NoCharges
    >>> [water] = check_structures([molecule("H2O")])
    >>> NoCharges().prepare([1, 8]).equilibrium(water).charges()
    array([0., 0., 0.])
    """

    fields = ()

    def equilibrium(
        self, structure: Structure, name: str | None = None, n_solutions: int = 1
    ) -> NoChargesEquilibrium:
        """The charges of one structure, which are zero.

        Parameters
        ----------
        structure : Structure
            A structure, of which only the number of atoms matters.
        name : str, default=None
            Ignored, because nothing can fail.
        n_solutions : int, default=1
            Ignored, because nothing is solved.

        Returns
        -------
        equilibrium : NoChargesEquilibrium
            Its methods return zeros.
        """
        return NoChargesEquilibrium(structure)


class NoChargesEquilibrium(Equilibrium):
    """A structure without charges: all methods of `Equilibrium` return zeros.

    Parameters
    ----------
    structure : Structure
        A structure, of which only the number of atoms matters.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import check_structures
    >>> from skqeq.response import NoChargesEquilibrium
    >>> [water] = check_structures([molecule("H2O")])
    >>> equilibrium = NoChargesEquilibrium(water)
    >>> equilibrium.energy(equilibrium.charges()), equilibrium.polarizability.any()
    (0.0, np.False_)
    """

    fields = ()

    def __init__(self, structure: Structure) -> None:
        # The constructor of the base class is not called, because there is no hardness matrix.
        self.structure, self.dipoles = structure, NoDipoles()
        self.widths = np.ones(len(structure))
        self.dipole_factors = np.zeros((len(structure), 3))

    def charges(self, *, start: Array | None = None, **fields: Array) -> Array:
        """Zeros of shape (n_atoms,)."""
        return np.zeros(len(self.structure))

    def rows(self, Y: Array, W: Array | None = None) -> dict[str, Array]:
        """An empty dict, because there are no latent fields."""
        return {}

    def potential(self, charges: Array, **fields: Array) -> Array:
        """Zeros of shape (n_atoms,)."""
        return np.zeros(len(self.structure))

    def energy(self, charges: Array, **fields: Array) -> float:
        """Zero."""
        return 0.0

    def coulomb_gradient(
        self, q: Array, p: Array, field: Array | None = None
    ) -> tuple[Array, Array]:
        """Zeros of shape (n_atoms, 3) and (3, 3)."""
        return np.zeros((len(self.structure), 3)), np.zeros((3, 3))

    def potential_gradient(self, q: Array, field: Array | None = None) -> tuple[Array, Array]:
        """Zeros of shape (n_atoms, 3, n_atoms) and (3, 3, n_atoms)."""
        n = len(self.structure)
        return np.zeros((n, 3, n)), np.zeros((3, 3, n))

    def force_factors(
        self, charges: Array, gradients: Mapping[str, tuple[Array, Array]], **fields: Array
    ) -> tuple[Array, Array | None]:
        """Zeros of shape (3 n_atoms + 9, n_atoms), and None."""
        n = len(self.structure)
        return np.zeros((3 * n + 9, n)), None

    def directional_factors(
        self,
        charges: Array,
        changes: Mapping[str, Array],
        displacement: Array,
        strain: Array,
        **fields: Array,
    ) -> tuple[Array, Array | None]:
        """Zeros of shape (n_atoms,), and None."""
        return np.zeros(len(self.structure)), None

    def observable(self, target: Observable) -> tuple[Array, Array]:
        """The operator of a target for the charges, which are zero, and zeros as the constant."""
        operator = target.operator(self.structure, self.widths)
        return operator, np.zeros(len(operator))
