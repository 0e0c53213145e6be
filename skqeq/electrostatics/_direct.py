"""The interaction of the Gaussian charges of a molecule, pair by pair."""

import numpy as np

from .._pythran import gaussian_coulomb, gaussian_coulomb_gradient


class DirectSum:
    """The Coulomb interaction of the Gaussian charges of one molecule.

    Parameters and methods are those of `EwaldSum`, without an accuracy.
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

    def _with_virial(self, gradient):
        """The derivatives with respect to a strain follow from those to the positions."""
        centred = self.positions - self.positions.mean(axis=0)
        return gradient, np.tensordot(centred.T, gradient, axes=1)


def contract(U, q):
    """Derivatives of ``C q``, at ``[j, :, i]`` that of i to ``r_j``, from those of the matrix.

    Parameters
    ----------
    U : ndarray of shape (n_atoms, 3, n_atoms)
        ``d C_ij / d r_i`` at ``[i, :, j]``; overwritten.
    q : ndarray of shape (n_atoms,)
        Charges.
    """
    i, own = np.arange(len(q)), U @ q
    U *= q[:, None, None]
    U[i, :, i] += own
    return U
