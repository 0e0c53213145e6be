"""The response of a model without charges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .._typing import Array
    from ..structures import Structure


class NoCharges:
    """No charges, whatever the electronegativities: the energy is that of the atoms.

    It stands where `Equilibrium` does, and its charges are zeros.

    Parameters
    ----------
    structure : Structure
        Its total charge and field are not looked at.
    """

    n_iterations = 0
    flows = dipoles = None

    def __init__(self, structure: Structure) -> None:
        self.n_atoms = len(structure)

    def reference(self, learned: Array) -> None:
        """None."""

    def charges(
        self, chi: Array, start: Array | None = None, reference: Array | None = None
    ) -> Array:
        """Zeros."""
        return np.zeros(self.n_atoms)

    def potential(self, chi: Array, charges: Array) -> Array:
        """There is no potential."""
        return np.zeros(self.n_atoms)

    def energy(self, chi: Array, charges: Array, reference: Array | None = None) -> float:
        """Nothing."""
        return 0.0

    def coulomb_gradient(
        self, q: Array, p: Array | None = None, field: Array | None = None
    ) -> tuple[Array, Array]:
        """Nothing moves."""
        return np.zeros((self.n_atoms, 3)), np.zeros((3, 3))

    def potential_gradient(self, q: Array, field: Array | None = None) -> tuple[Array, Array]:
        """There is no potential."""
        n = self.n_atoms
        return np.zeros((n, 3, n)), np.zeros((3, 3, n))

    def project(self, V: Array) -> Array:
        """Nothing answers to it."""
        return np.zeros_like(V)

    def rows(self, Y: Array, W: Array | None = None) -> tuple[Array, None]:
        """Nothing depends on electronegativities."""
        return np.zeros_like(Y), None
