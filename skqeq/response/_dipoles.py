"""Dipoles that the charges and an external electric field induce on the atoms."""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ..electrostatics import DipoleSum, dipole_widths
from ..parameters import COULOMB


class InducedDipoles:
    """The dipoles of polarisable atoms at given charges.

    Let f be the external field, and ``E f`` this field repeated on every atom. The energy of the
    dipoles d at given charges q is ``q T d + d D d / 2 - d . E f``. Its minimum is at::

        d = M (E f - T^T q),    M = D^-1.

    With these dipoles the energy depends on the charges only. In this energy ``A' = A - T M T^T``
    replaces A, ``R' = R - T M E`` replaces the positions R, and ``-f . (E^T M E) f / 2`` is added.

    Parameters
    ----------
    structure : Structure
        A molecule, a slab or a crystal.
    widths : ndarray of shape (n_atoms,)
        Widths of the charges, Angstrom.
    polarizability : ndarray of shape (n_atoms,)
        Isotropic polarisabilities, Angstrom^3; an atom with zero has no dipole.
    accuracy : float
        As in `skqeq.electrostatics.hardness_matrix`.

    Attributes
    ----------
    dipole_shift : ndarray of shape (n_atoms, 3)
        ``T M E``, the difference ``R - R'``; Angstrom.
    polarizability : ndarray of shape (3, 3)
        Polarisability ``E^T M E`` of the atoms at fixed charges, e*Angstrom^2/V.
    polarizable : ndarray of bool of shape (n_atoms,)
        Which atoms can have an induced dipole.
    widths : ndarray of shape (n_atoms,)
        Widths of the dipoles, Angstrom.
    """

    def __init__(self, structure, widths, polarizability, accuracy):
        n = len(structure)
        self.polarizable = polarizable = polarizability > 0
        self.widths = np.ones(n)
        self.widths[polarizable] = dipole_widths(polarizability[polarizable] / COULOMB)
        self._sum = DipoleSum(structure, widths, self.widths, accuracy)
        # For atoms without a dipole, set their elements of T and E to zero, and their part of D to
        # the unit matrix, so that D stays invertible and these dipoles are zero.
        components = np.repeat(polarizable, 3)
        self._T = self._sum.coupling.reshape(n, 3 * n) * components
        D = self._sum.dipolar.reshape(3 * n, 3 * n) * np.logical_and.outer(components, components)
        D[~components, ~components] = 1.0
        self._E = np.tile(np.eye(3), (n, 1)) * components[:, None]
        # D is positive definite because it is the energy of charge densities.
        factor = cho_factor(D, lower=True)
        # M itself is never needed, only its products with T^T and E.
        self._MT, self._ME = cho_solve(factor, self._T.T), cho_solve(factor, self._E)
        self._MT.setflags(write=False)
        self.dipole_shift = self._T @ self._ME
        self.polarizability = self._E.T @ self._ME

    def screen(self, hardness):
        """Return the hardness matrix with ``A' = A - T M T^T`` instead of A."""
        return hardness.screened(self._T @ self._MT)

    def induced(self, q, field):
        """Dipoles (n_atoms, 3), e*Angstrom, for charges q in the external field `field` (3,)."""
        return (self._ME @ field - self._MT @ q).reshape(-1, 3)

    def gradient(self, q, p, q_field, p_field):
        """Derivatives of the interaction between two sets of charges and their induced dipoles.

        The set q with its dipoles interacts with the set p with its dipoles. The direct interaction
        of q with p is left out. The dipoles are held fixed.

        Parameters
        ----------
        q, p : ndarray of shape (n_atoms,)
            Two sets of charges, e.
        q_field, p_field : ndarray of shape (3,)
            External fields, V/Angstrom. The charges q and `q_field` together induce the dipoles of
            the set q; p and `p_field` induce those of the set p.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            Derivatives with respect to the positions, eV/Angstrom.
        virial : ndarray of shape (3, 3)
            Derivatives with respect to a strain, eV.
        """
        return self._sum.gradient(q, self.induced(q, q_field), p, self.induced(p, p_field))

    def add_potential_gradient(self, gradient, virial, q, field):
        """Add the derivatives of the potential ``T d`` of the induced dipoles d, in place.

        The dipoles are induced by the charges q and an external field. They change with the
        geometry by ``dd = -M dg``, where g is the negative of the total electric field on them.

        Parameters
        ----------
        gradient, virial : ndarray of shape (n_atoms, 3, n_atoms) and (3, 3, n_atoms)
            Derivatives of the potential ``A q``, see `Equilibrium.potential_gradient`.
        q : ndarray of shape (n_atoms,)
            Charges, e.
        field : ndarray of shape (3,)
            External field, V/Angstrom.
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

    def directional(self, q, field, displacement, strain):
        """Change of the potential ``T d`` of the induced dipoles along one direction.

        Parameters
        ----------
        q, field
            As in `add_potential_gradient`.
        displacement : ndarray of shape (n_atoms, 3)
            Displacements of the atoms, Angstrom.
        strain : ndarray of shape (3, 3)
            Strain of positions and cell.

        Returns
        -------
        change : ndarray of shape (n_atoms,)
            To first order, V.
        """
        n = len(q)
        gradient, virial = np.zeros((n, 3, n)), np.zeros((3, 3, n))
        self.add_potential_gradient(gradient, virial, q, field)
        return np.tensordot(displacement, gradient) + np.tensordot(strain, virial)

    def observable(self, target, structure, operator):
        """Express a target by the charges alone, with the induced dipoles eliminated.

        Parameters
        ----------
        target : Target
            Observable of charges and dipoles.
        structure : Structure
            The structure, which holds the external field.
        operator : ndarray of shape (k, n_atoms)
            Derivatives of the target with respect to the charges, at fixed dipoles.

        Returns
        -------
        operator : ndarray of shape (k, n_atoms)
            Derivatives of the target with respect to the charges; the dipoles follow the charges.
        constant : ndarray of shape (k,)
            Value of the target for the dipoles that the external field induces at zero charges.
        """
        of_dipoles = target.dipole_operator(structure, self.widths)
        of_dipoles = of_dipoles.reshape(len(of_dipoles), -1)
        return operator - of_dipoles @ self._MT, of_dipoles @ self._ME @ structure.field


class NoDipoles:
    """Atoms that are not polarisable: it has the methods of `InducedDipoles`, without effect."""

    polarizable, widths = False, 1.0
    dipole_shift = 0.0
    polarizability = np.zeros((3, 3))
    polarizability.setflags(write=False)

    def screen(self, hardness):
        """Return the hardness matrix unchanged."""
        return hardness

    def induced(self, q, field):
        """Return None, because there are no dipoles."""

    def gradient(self, q, p, q_field, p_field):
        """Return zeros."""
        return 0.0, 0.0

    def add_potential_gradient(self, gradient, virial, q, field):
        """Add nothing, because there are no dipoles."""

    def directional(self, q, field, displacement, strain):
        """Return zero."""
        return 0.0

    def observable(self, target, structure, operator):
        """Return the operator unchanged, and zeros for the constant."""
        return operator, np.zeros(len(operator))
