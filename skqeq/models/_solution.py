"""What a charge model says of one structure."""

from functools import cached_property

import numpy as np


class Solution:
    """The charges of one structure, and the energy with its derivatives that go with them.

    The energy is a minimum in the charges, so that their derivatives drop out::

        E = chi . q + q . A q / 2 - field . sum_i q_i r_i + sum_i e(Z_i)
        F_j = -q . dchi/dr_j - q . dA/dr_j q / 2 + q_j field

    Parameters
    ----------
    structure : Structure
        Geometry, total charge and field.
    widths : ndarray of shape (n_atoms,)
        Of the Gaussian charges, Angstrom.
    equilibrium : Equilibrium
        The charge response.
    chi, charges : ndarray of shape (n_atoms,)
        V and e.
    offset : float
        Energies of the atoms, eV.
    near, dual
        Gradient of the features and dual weights of chi; None where no derivatives are wanted.
    """

    def __init__(self, structure, widths, equilibrium, chi, charges, offset, near, dual):
        self.structure = structure
        self.widths = widths
        self.equilibrium = equilibrium
        self.chi = chi
        self.charges = charges
        self.offset = offset
        self.near = near
        self.dual = dual

    @cached_property
    def energy(self):
        """Total energy, eV."""
        return self.equilibrium.energy(self.chi, self.charges) + self.offset

    @cached_property
    def _derivatives(self):
        """Of the energy, with respect to the positions and to a strain."""
        q = self.charges
        gradient, virial = self.near.field_gradient(q, self.dual)
        coulomb, strain = self.equilibrium.coulomb_gradient(q)
        gradient += 0.5 * coulomb - np.multiply.outer(q, self.structure.field)
        return gradient, in_plane(self.structure, virial + 0.5 * strain)

    @property
    def forces(self):
        """Shape (n_atoms, 3), eV/Angstrom."""
        return -self._derivatives[0]

    @property
    def virial(self):
        """Derivatives of the energy with respect to a strain, shape (3, 3), eV."""
        return self._derivatives[1]

    def potential_gradient(self):
        """Derivatives of ``u = chi + A q - field . r`` at fixed charges.

        Their products with ``dq/dw`` are what the response of the charges adds to the derivatives
        of forces and virial with respect to the weights.

        Returns
        -------
        gradient : ndarray of shape (3 n_atoms, n_atoms)
            ``d u_i / d r_ja``, V/Angstrom.
        virial : ndarray of shape (9, n_atoms)
            With respect to a strain, V.
        """
        n = len(self.charges)
        gradient, virial = self.equilibrium.potential_gradient(self.charges)
        own = np.arange(n)
        gradient[own, :, own] -= self.structure.field
        for near, slopes in self.near.slopes(self.dual):
            for a in range(3):
                for ends, sign in ((near.j, 1.0), (near.i, -1.0)):
                    flat = np.bincount(ends * n + near.i, sign * slopes[:, a], n * n)
                    gradient[:, a] += flat.reshape(n, n)
                for b in range(3):
                    virial[a, b] += np.bincount(near.i, slopes[:, a] * near.D[:, b], n)
        virial = in_plane(self.structure, virial.transpose(2, 0, 1)).transpose(1, 2, 0)
        return gradient.reshape(3 * n, n), virial.reshape(9, n)


def in_plane(structure, virial):
    """The virial of strains that a structure can have: those of a slab lie in its plane."""
    if not structure.periodic or all(structure.pbc):
        return virial
    normal = structure.cell[structure.pbc.index(False)]
    plane = np.eye(3) - np.outer(normal, normal)
    return plane @ virial @ plane
