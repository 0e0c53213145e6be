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

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import check_structures
    >>> from skqeq.response import NoCharges
    >>> [water] = check_structures([molecule("H2O")])
    >>> NoCharges(water).charges(None)
    array([0., 0., 0.])
    """

    n_iterations = 0
    flows = dipoles = None

    def __init__(self, structure: Structure) -> None:
        self.n_atoms = len(structure)

    def reference(self, learned: Array) -> None:
        """There are no charges before anything flows.

        Parameters
        ----------
        learned : ndarray
            Not looked at.
        """

    def charges(
        self, chi: Array, start: Array | None = None, reference: Array | None = None
    ) -> Array:
        """Zeros.

        Parameters
        ----------
        chi, start, reference : ndarray, default=None
            Not looked at.

        Returns
        -------
        charges : ndarray of shape (n_atoms,)
            Zeros.
        """
        return np.zeros(self.n_atoms)

    def potential(self, chi: Array, charges: Array) -> Array:
        """There is no potential.

        Parameters
        ----------
        chi, charges : ndarray
            Not looked at.

        Returns
        -------
        u : ndarray of shape (n_atoms,)
            Zeros.
        """
        return np.zeros(self.n_atoms)

    def energy(self, chi: Array, charges: Array, reference: Array | None = None) -> float:
        """There is no energy of charges.

        Parameters
        ----------
        chi, charges, reference : ndarray, default=None
            Not looked at.

        Returns
        -------
        energy : float
            Zero.
        """
        return 0.0

    def coulomb_gradient(
        self, q: Array, p: Array | None = None, field: Array | None = None
    ) -> tuple[Array, Array]:
        """Nothing depends on the geometry.

        Parameters
        ----------
        q, p, field : ndarray, default=None
            Not looked at.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            Zeros.
        virial : ndarray of shape (3, 3)
            Zeros.
        """
        return np.zeros((self.n_atoms, 3)), np.zeros((3, 3))

    def potential_gradient(self, q: Array, field: Array | None = None) -> tuple[Array, Array]:
        """There is no potential.

        Parameters
        ----------
        q, field : ndarray, default=None
            Not looked at.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3, n_atoms)
            Zeros.
        virial : ndarray of shape (3, 3, n_atoms)
            Zeros.
        """
        n = self.n_atoms
        return np.zeros((n, 3, n)), np.zeros((3, 3, n))

    def project(self, V: Array) -> Array:
        """Nothing answers to potentials.

        Parameters
        ----------
        V : ndarray
            Any.

        Returns
        -------
        charges : ndarray
            Zeros of the same shape.
        """
        return np.zeros_like(V)

    def rows(self, Y: Array, W: Array | None = None) -> tuple[Array, None]:
        """Nothing depends on electronegativities.

        Parameters
        ----------
        Y, W : ndarray, default=None
            As of `Equilibrium.rows`.

        Returns
        -------
        over_chi : ndarray of shape (k, n_atoms)
            Zeros.
        over_reference : None
            There are no reference charges.
        """
        return np.zeros_like(Y), None
