"""What a charge model says of one structure."""

from functools import cached_property

import numpy as np


class Solution:
    """The charges of one structure, and the energy with its derivatives that go with them.

    The energy is a minimum in the charges, so that their derivatives drop out::

        E = chi . q + q . A q / 2 - field . sum_i q_i r_i + sum_i e_i
        F_j = -q . dchi/dr_j - q . dA/dr_j q / 2 + q_j field - sum_i de_i/dr_j

    Parameters
    ----------
    structure : Structure
        Geometry, total charge and field.
    widths : ndarray of shape (n_atoms,)
        Of the Gaussian charges, Angstrom.
    equilibrium : Equilibrium
        The charge response.
    chi, energies, charges : ndarray of shape (n_atoms,)
        Electronegativities, V, energies of the atoms, eV, and charges, e.
    slopes : pair of (gradient, dual)
        Of chi and of the energies of the atoms, the gradient of the features and the dual weights;
        None where no derivatives are wanted.
    """

    def __init__(self, structure, widths, equilibrium, chi, energies, charges, slopes=None):
        self.structure = structure
        self.widths = widths
        self.equilibrium = equilibrium
        self.chi = chi
        self.energies = energies
        self.charges = charges
        self.slopes = slopes

    @cached_property
    def energy(self):
        """Total energy, eV."""
        return self.equilibrium.energy(self.chi, self.charges) + float(self.energies.sum())

    @cached_property
    def _derivatives(self):
        """Of the energy, with respect to the positions and to a strain."""
        q = self.charges
        gradient, virial = (0.5 * part for part in self.equilibrium.coulomb_gradient(q))
        gradient = gradient - np.multiply.outer(q, self.structure.field)
        # What a change of the electronegativity and of the energy of an atom does to the energy.
        for (near, dual), factors in zip(self.slopes, (q, np.ones_like(q)), strict=True):
            moved, strained = near.field_gradient(factors, dual)
            gradient, virial = gradient + moved, virial + strained
        return gradient, in_plane(self.structure, virial)

    @property
    def forces(self):
        """Shape (n_atoms, 3), eV/Angstrom."""
        return -self._derivatives[0]

    @property
    def virial(self):
        """Derivatives of the energy with respect to a strain, shape (3, 3), eV."""
        return self._derivatives[1]

    @cached_property
    def polarizability(self):
        """``R^T P R``: what a field does to the dipole; shape (3, 3), e^2 Angstrom^2 / eV."""
        R = self.structure.positions
        return R.T @ self.dipole_response

    @cached_property
    def dipole_response(self):
        """``P R``: the charges that a field moves, shape (n_atoms, 3), e*Angstrom/V."""
        return self.equilibrium.project(np.ascontiguousarray(self.structure.positions))

    @cached_property
    def born_effective_charges(self):
        """Derivatives ``d mu_a / d r_jb`` of the dipole: shape (n_atoms, 3, 3), e.

        The charges ``q = q_0 - P u`` change by ``-P du/dr``, with ``u = chi + A q - field . r`` at
        fixed charges, and of P the dipole sees ``V = P R``:
        ``Z*_jab = q_j delta_ab - sum_i V_ia du_i/dr_jb``.
        """
        q, V = self.charges, self.dipole_response
        born = np.multiply.outer(q, np.eye(3)) + V[:, :, None] * self.structure.field
        features, dual = self.slopes[0]
        for near, slopes in features.slopes(dual):
            for a in range(3):
                born[:, a] -= near.collect(V[near.i, a, None] * slopes)[0]
        for a in range(3):
            born[:, a] -= self.equilibrium.coulomb_gradient(np.ascontiguousarray(V[:, a]), q)[0]
        return born

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
        features, dual = self.slopes[0]
        for near, slopes in features.slopes(dual):
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
