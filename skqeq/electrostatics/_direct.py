"""The interaction of the Gaussian charges of a molecule, summed over all pairs of atoms."""

import numpy as np

from .._pythran import gaussian_coulomb, gaussian_coulomb_gradient


class DirectSum:
    """The Coulomb interaction of the Gaussian charges of one molecule.

    It has the methods of `EwaldSum`. There is no accuracy to choose, because the sum has no cutoff.

    Parameters
    ----------
    structure : Structure
        A molecule.
    widths : ndarray of shape (n_atoms,)
        Widths ``alpha`` of the charges, Angstrom.
    """

    def __init__(self, structure, widths):
        self.positions, self.widths = structure.positions, widths

    def matrix(self):
        """C of shape (n_atoms, n_atoms) in 1/Angstrom, without the factor k_e."""
        return gaussian_coulomb(self.positions, self.widths, self.positions, self.widths)

    def gradient(self, q, p):
        """Derivatives of ``q C p`` with respect to the positions and to a strain."""
        U = gaussian_coulomb_gradient(self.positions, self.widths)
        return self._with_virial(q[:, None] * (U @ p) + p[:, None] * (U @ q))

    def potential_gradient(self, q):
        """Derivatives of ``C q`` with respect to the positions and to a strain."""
        U = gaussian_coulomb_gradient(self.positions, self.widths)
        return self._with_virial(contract(U, q))

    def directional(self, q, displacement, strain):
        """Change of ``C q`` at fixed charges if the positions change, and a strain is applied."""
        moved = displacement + (self.positions - self.positions.mean(axis=0)) @ strain.T
        U = gaussian_coulomb_gradient(self.positions, self.widths)
        return pair_change(U, q, moved)

    def _with_virial(self, gradient):
        """Add the derivatives with respect to a strain, which are ``sum_i r_i d / d r_i``.

        The derivatives with respect to the positions sum to zero, so that the origin of the
        positions is arbitrary. The centre of the molecule gives the smallest rounding errors.
        """
        centred = self.positions - self.positions.mean(axis=0)
        return gradient, np.tensordot(centred.T, gradient, axes=1)


def pair_change(U, q, moved):
    """Change of ``C q`` for displacements of the atoms, from the derivatives of C.

    Parameters
    ----------
    U : ndarray of shape (n_atoms, 3, n_atoms)
        ``d C_ij / d r_i`` at ``[i, :, j]``.
    q : ndarray of shape (n_atoms,)
        Charges.
    moved : ndarray of shape (n_atoms, 3)
        Displacements.

    Returns
    -------
    change : ndarray of shape (n_atoms,)
        To first order.
    """
    # C_ij depends on r_i - r_j, so that its derivative with respect to r_j is -U[i, :, j].
    n = len(q)
    of_others = U.reshape(n, 3 * n) @ (q[:, None] * moved).T.ravel()
    return np.einsum("ia,ia->i", U @ q, moved) - of_others


def contract(U, q):
    """Derivatives of ``C q`` from the derivatives of C.

    Parameters
    ----------
    U : ndarray of shape (n_atoms, 3, n_atoms)
        ``d C_ij / d r_i`` at ``[i, :, j]``; overwritten by the result.
    q : ndarray of shape (n_atoms,)
        Charges.

    Returns
    -------
    gradient : ndarray of shape (n_atoms, 3, n_atoms)
        ``d (C q)_i / d r_j`` at ``[j, :, i]``.
    """
    atoms, diagonal = np.arange(len(q)), U @ q
    # For i != j, ``d C_ij / d r_j = d C_ji / d r_j``, which is U[j, :, i]. The derivative of
    # (C q)_i with respect to r_i itself is a sum over all other atoms.
    U *= q[:, None, None]
    U[atoms, :, atoms] += diagonal
    return U
