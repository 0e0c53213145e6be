"""Dipoles that charges and a field induce on the atoms."""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ..electrostatics._dipoles import DipoleSum, dipole_widths
from ..parameters import COULOMB, per_element


class InducedDipoles:
    """Atoms that are polarisable, solved for at given charges.

    Minimising ``q T d + d D d / 2 - d . field`` over the dipoles d, with the field E f on every
    atom, gives::

        d = M (E f - T^T q),    M = D^-1,

    and what is left is an energy of the charges, with ``A' = A - T M T^T`` in the place of A,
    ``R' = R - T M E`` in that of the positions, and ``-f . (E^T M E) f / 2``.

    Parameters
    ----------
    structure : Structure
        A molecule, a slab or a crystal.
    widths : ndarray of shape (n_atoms,)
        Of the charges, Angstrom.
    polarizability : ndarray of shape (n_atoms,)
        Isotropic, Angstrom^3; atoms with zero have no dipole.
    accuracy : float
        As of `skqeq.electrostatics.hardness_matrix`.

    Attributes
    ----------
    screening : ndarray of shape (n_atoms, n_atoms)
        ``T M T^T``, what A loses; eV/e^2.
    lever : ndarray of shape (n_atoms, 3)
        ``T M E``, what R loses; Angstrom.
    polarizability : ndarray of shape (3, 3)
        ``E^T M E``, that of the dipoles alone, e*Angstrom^2/V.
    widths : ndarray of shape (n_atoms,)
        Of the dipoles, Angstrom.
    """

    def __init__(self, structure, widths, polarizability, accuracy):
        n = len(structure)
        alive = polarizability > 0
        self.widths = np.ones(n)
        self.widths[alive] = dipole_widths(polarizability[alive] / COULOMB)
        self._sum = DipoleSum(structure, widths, self.widths, accuracy)
        # Atoms without a dipole see nothing and are seen by nothing.
        seen = np.repeat(alive, 3)
        self._T = self._sum.coupling.reshape(n, 3 * n) * seen
        D = self._sum.dipolar.reshape(3 * n, 3 * n) * np.logical_and.outer(seen, seen)
        D[~seen, ~seen] = 1.0
        self._E = np.tile(np.eye(3), (n, 1)) * seen[:, None]
        # Positive definite, as an energy of densities.
        factor = cho_factor(D, lower=True)
        self._MT, self._ME = cho_solve(factor, self._T.T), cho_solve(factor, self._E)
        self._MT.setflags(write=False)
        self.screening = self._T @ self._MT
        self.lever = self._T @ self._ME
        self.polarizability = self._E.T @ self._ME

    def induced(self, q, field):
        """Dipoles (n_atoms, 3) by charges q in a field; e*Angstrom."""
        return (self._ME @ field - self._MT @ q).reshape(-1, 3)

    def gradient(self, q, d, p, e):
        """Derivatives of the interaction of (q, d) with (p, e) but for that of charges."""
        return self._sum.gradient(q, d, p, e)

    def potential_gradient(self, q, d):
        """Derivatives of ``T d`` with d the dipoles at q, but for that of charges.

        Dipoles follow: with the negative field g on them, ``dd = -M dg``.
        """
        found = self._sum.potential_gradient(q, d)
        n = len(q)
        for potential, field in (found[:2], found[2:]):
            potential -= field.reshape(*field.shape[:2], 3 * n) @ self._MT
        return found[0], found[2]

    def observed(self, operator, of_dipoles):
        """What an observable is of the charges alone: its operator, and what a field adds.

        Parameters
        ----------
        operator : ndarray of shape (k, n_atoms)
            Of the charges.
        of_dipoles : ndarray of shape (k, n_atoms, 3)
            Of the dipoles.

        Returns
        -------
        operator : ndarray of shape (k, n_atoms)
        by_field : ndarray of shape (k, 3)
        """
        flat = of_dipoles.reshape(len(of_dipoles), -1)
        return operator - flat @ self._MT, flat @ self._ME


def polarizability_table(polarizability, lookup):
    """Polarisabilities of the elements for the `tables` of a response: one table, or none."""
    if polarizability is None:
        return ()
    table = per_element(polarizability, "polarizability")
    return (lookup(table, "polarisability in `polarizability`"),)
