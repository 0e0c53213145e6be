"""Dipoles that charges and a field induce on the atoms."""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ..electrostatics import DipoleSum, dipole_widths
from ..parameters import COULOMB


class InducedDipoles:
    """The dipoles of polarisable atoms at given charges.

    Minimising ``q T d + d D d / 2 - d . field`` over the dipoles d, where E f is the field f on
    every atom, gives::

        d = M (E f - T^T q),    M = D^-1.

    Inserting d leaves an energy of the charges alone, in which ``A' = A - T M T^T`` replaces A,
    ``R' = R - T M E`` replaces the positions, and ``-f . (E^T M E) f / 2`` is added.

    Parameters
    ----------
    structure : Structure
        A molecule, a slab or a crystal.
    widths : ndarray of shape (n_atoms,)
        Widths of the charges, Angstrom.
    polarizability : ndarray of shape (n_atoms,)
        Isotropic, Angstrom^3; atoms with zero have no dipole.
    accuracy : float
        As in `skqeq.electrostatics.hardness_matrix`.

    Attributes
    ----------
    dipole_shift : ndarray of shape (n_atoms, 3)
        ``T M E``, the difference between the positions and R'; Angstrom.
    polarizability : ndarray of shape (3, 3)
        ``E^T M E``, of the dipoles at fixed charges, e*Angstrom^2/V.
    widths : ndarray of shape (n_atoms,)
        Widths of the dipoles, Angstrom.
    """

    def __init__(self, structure, widths, polarizability, accuracy):
        n = len(structure)
        polarizable = polarizability > 0
        self.widths = np.ones(n)
        self.widths[polarizable] = dipole_widths(polarizability[polarizable] / COULOMB)
        self._sum = DipoleSum(structure, widths, self.widths, accuracy)
        # Atoms without a dipole: zero their rows of T and E, and give them a block of one in D.
        components = np.repeat(polarizable, 3)
        self._T = self._sum.coupling.reshape(n, 3 * n) * components
        D = self._sum.dipolar.reshape(3 * n, 3 * n) * np.logical_and.outer(components, components)
        D[~components, ~components] = 1.0
        self._E = np.tile(np.eye(3), (n, 1)) * components[:, None]
        # D is positive definite because it is the energy of charge densities.
        factor = cho_factor(D, lower=True)
        self._MT, self._ME = cho_solve(factor, self._T.T), cho_solve(factor, self._E)
        self._MT.setflags(write=False)
        self.dipole_shift = self._T @ self._ME
        self.polarizability = self._E.T @ self._ME

    def screen(self, hardness):
        """The hardness matrix with ``A' = A - T M T^T`` in the place of A."""
        return hardness.screened(self._T @ self._MT)

    def induced(self, q, field):
        """Dipoles of shape (n_atoms, 3) for charges q in a field (3,); e*Angstrom."""
        return (self._ME @ field - self._MT @ q).reshape(-1, 3)

    def gradient(self, q, p, q_field, p_field):
        """Derivatives of the interaction of q and its dipoles with p and its dipoles.

        The interaction of q with p itself is left out, and the dipoles are fixed.

        Parameters
        ----------
        q, p : ndarray of shape (n_atoms,)
            Two sets of charges, e.
        q_field, p_field : ndarray of shape (3,)
            The fields that induce the dipoles of each, V/Angstrom.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            Derivatives with respect to the positions, eV/Angstrom.
        virial : ndarray of shape (3, 3)
            Derivatives with respect to a strain, eV.
        """
        return self._sum.gradient(q, self.induced(q, q_field), p, self.induced(p, p_field))

    def add_potential_gradient(self, gradient, virial, q, field):
        """Add the derivatives of ``T d``, where d are the dipoles of q in a field, in place.

        The dipoles respond to the geometry: ``dd = -M dg``, where g is the negative field on them.

        Parameters
        ----------
        gradient, virial : ndarray of shape (n_atoms, 3, n_atoms) and (3, 3, n_atoms)
            Derivatives of the potential ``A q``, see `Equilibrium.potential_gradient`.
        q : ndarray of shape (n_atoms,)
            Charges, e.
        field : ndarray of shape (3,)
            V/Angstrom
        """
        potential, negative_field, *strains = self._sum.potential_gradient(
            q, self.induced(q, field)
        )
        for total, direct, field_change in (
            (gradient, potential, negative_field),
            (virial, *strains),
        ):
            total += direct
            total -= field_change.reshape(*field_change.shape[:2], -1) @ self._MT

    def observable(self, target, structure, operator):
        """The operator of a target on the charges alone, and the part that the field induces.

        Parameters
        ----------
        target : Target
            Observable of charges and dipoles.
        structure : Structure
            Its structure, with the field.
        operator : ndarray of shape (k, n_atoms)
            Operator of the target on the charges at fixed dipoles.

        Returns
        -------
        operator : ndarray of shape (k, n_atoms)
            With the dipoles that the charges induce.
        constant : ndarray of shape (k,)
            The observable of the dipoles that the field induces.
        """
        of_dipoles = target.dipole_operator(structure, self.widths)
        of_dipoles = of_dipoles.reshape(len(of_dipoles), -1)
        return operator - of_dipoles @ self._MT, of_dipoles @ self._ME @ structure.field


class NoDipoles:
    """Atoms that are not polarisable: the methods of `InducedDipoles` without any effect."""

    dipole_shift = 0.0
    polarizability = np.zeros((3, 3))
    polarizability.setflags(write=False)

    def screen(self, hardness):
        """The hardness matrix, unchanged."""
        return hardness

    def induced(self, q, field):
        """None: there are no dipoles."""

    def gradient(self, q, p, q_field, p_field):
        """Zeros."""
        return 0.0, 0.0

    def add_potential_gradient(self, gradient, virial, q, field):
        """Do nothing: there is nothing to add."""

    def observable(self, target, structure, operator):
        """The operator, and a constant of zeros."""
        return operator, np.zeros(len(operator))
