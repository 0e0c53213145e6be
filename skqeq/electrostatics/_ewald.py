"""Ewald sums of Gaussian charges in crystals and slabs.

The interaction is split by one width sigma for all pairs. With
``gamma_ij^2 = alpha_i^2 + alpha_j^2``, let f be the difference between the potentials of Gaussians
of widths gamma and sigma,

    f_ij(r) = (erf(r / (sqrt(2) gamma_ij)) - erf(r / (sqrt(2) sigma))) / r,
    f_ij(0) = sqrt(2 / pi) (1 / gamma_ij - 1 / sigma),

    C_ij / k_e = sum_n f_ij(|r_i - r_j + n|)
               + (4 pi / V) sum_{k != 0} exp(-sigma^2 k^2 / 2) / k^2 cos(k . (r_i - r_j))
               - (2 pi / V) (sigma^2 - gamma_ij^2).

The first sum runs over the lattice vectors n, and the second sum over plane waves with the
reciprocal-space vectors k; the comments call these vectors waves.

The Fourier transform of f is ``(4 pi / k^2) (exp(-gamma^2 k^2 / 2) - exp(-sigma^2 k^2 / 2))``. Its
value at k = 0 is ``2 pi (sigma^2 - gamma^2)``. The last line subtracts this value. For any sigma, C
is then exactly the sum over k != 0 for Gaussians of width gamma. In a charged cell this is the
interaction with a uniform neutralising background. (Vondrak, Reuter, Margraf, J. Chem. Phys. 159,
054109 (2023), eqs. 12-20, have no such term; see Gingrich and Wilson, Chem. Phys. Lett. 500, 178
(2010).)

A slab is computed as a crystal of slabs with a period L. The interaction between the slabs is then
subtracted::

    A_slab = A_crystal - k_e (2 pi / V) ((z_i - z_j)^2 + gamma_ij^2 + L^2 / 6),    V = S L,

Here z is the coordinate along the normal, and S is the area of the cell. The subtraction is exact
for waves normal to the slab. For point charges these waves add up to
``(2 pi / S) (L / 6 - |z| + z^2 / L)`` in a crystal of slabs, and to ``-(2 pi / S) |z|`` in a single
slab. Gaussian charges replace z^2 by ``z^2 + gamma^2``. The potential of all other waves decays as
``exp(-k |z|)``; the gap between the slabs is so wide that it is negligible at the next slab.
"""

from functools import cached_property

import numpy as np

from .._pythran import ewald_matrix_gradient, ewald_pair_matrix, structure_factors
from ..structures import reduced_cell
from ._direct import contract, pair_change
from ._splitting import EwaldCutoffs, slab_gap
from ._strain import project_strain
from ._waves import half_sphere


class EwaldSum:
    """The Coulomb interaction of the Gaussian charges of one periodic structure.

    Parameters
    ----------
    structure : Structure
        A crystal or a slab.
    widths : ndarray of shape (n_atoms,)
        Widths ``alpha`` of the charges, Angstrom.
    accuracy : float
        Upper bound on the error of every matrix element, 1/Angstrom.
    sigma : float, default=None
        Splitting width, Angstrom; None means the width with the lowest cost. The result does not
        depend on it.

    Attributes
    ----------
    cell : ndarray of shape (3, 3)
        Reduced cell of the crystal, or of the crystal of slabs; Angstrom.
    normal : ndarray of shape (3,) or None
        Unit vector normal to a slab.
    cutoffs : EwaldCutoffs
        Splitting width and cutoffs.
    """

    def __init__(self, structure, widths, accuracy, sigma=None):
        self.widths, self.normal = widths, None
        width = np.sqrt(2.0) * widths.max()
        self.cell, _ = reduced_cell(structure)
        if not all(structure.pbc):
            # The other half of the error is for the waves that reach the next slab.
            accuracy = accuracy / 2
            self.normal = self.cell[2].copy()
            heights = structure.positions @ self.normal
            self.z = heights - heights.mean()
            gap = slab_gap(self.cell[:2], width, accuracy)
            self.cell[2] *= np.ptp(heights) + gap
        self.volume = abs(np.linalg.det(self.cell))
        self.cutoffs = EwaldCutoffs.choose(self.cell, width, accuracy, sigma)
        # The interaction is periodic, so atoms may be moved into the cell.
        self.fractions = structure.positions @ np.linalg.inv(self.cell) % 1.0
        # Two terms have no cutoff: the last line of C, and the subtraction for a slab. They are
        # sums s_i + s_j. `matrix` adds the product z_i z_j, the only other part.
        smooth = widths**2 - self.cutoffs.sigma**2 / 2
        if self.normal is not None:
            smooth -= widths**2 + self.z**2 + np.linalg.norm(self.cell[2]) ** 2 / 12
        self.smooth = 2 * np.pi / self.volume * smooth

    def matrix(self):
        """C of shape (n_atoms, n_atoms) in 1/Angstrom, without the factor k_e."""
        C = ewald_pair_matrix(*self._pairs(), self.smooth)
        F, _ = self._make_waves()
        # NumPy recognises a matrix times its transpose, and computes half of it.
        C += F @ F.T
        if self.normal is not None:
            C += 4 * np.pi / self.volume * np.outer(self.z, self.z)
        return C

    def gradient(self, q, p):
        """Derivatives of ``q C p`` with respect to the positions and to a strain.

        Parameters
        ----------
        q, p : ndarray of shape (n_atoms,)
            Any two sets of charges, e.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            Derivatives with respect to the positions, e^2/Angstrom^2.
        virial : ndarray of shape (3, 3)
            Derivatives with respect to a strain, symmetric, e^2/Angstrom.
        """
        U, strained = ewald_matrix_gradient(*self._pairs(), p)
        F, k = self._waves
        gradient = 0.0
        for charges, sources in ((q, p), (p, q)):
            # The gradient, at every atom, of the potential that the sources make. As a product with
            # charges, the sum over waves needs no matrix of size n_atoms^2.
            cosines, sines = np.split(sources @ F, 2)
            at_atoms = U @ sources + F @ np.concatenate([sines * k.T, -cosines * k.T], axis=1).T
            if self.normal is not None:
                z = 4 * np.pi / self.volume * (self.z @ sources - self.z * sources.sum())
                at_atoms += np.outer(z, self.normal)
            gradient += charges[:, None] * at_atoms
        return gradient, self._virial(strained, F, k, p) @ q

    def potential_gradient(self, q):
        """Derivatives of ``C q`` with respect to the positions and to a strain.

        Parameters
        ----------
        q : ndarray of shape (n_atoms,)
            Charges, e.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3, n_atoms)
            ``d (C q)_i / d r_j`` at ``[j, :, i]``, e/Angstrom^2.
        virial : ndarray of shape (3, 3, n_atoms)
            Derivatives with respect to a strain, symmetric, e/Angstrom.
        """
        U, strained = self._matrix_gradient(q)
        return contract(U, q), self._virial(strained, *self._waves, q)

    def directional(self, q, displacement, strain):
        """Change of ``C q`` at fixed charges if the positions change, and a strain is applied.

        Parameters
        ----------
        q : ndarray of shape (n_atoms,)
            Charges, e.
        displacement : ndarray of shape (n_atoms, 3)
            Displacements of the atoms, Angstrom.
        strain : ndarray of shape (3, 3)
            Strain of positions and cell, symmetric.

        Returns
        -------
        change : ndarray of shape (n_atoms,)
            To first order, e/Angstrom.
        """
        U, strained = self._matrix_gradient(q)
        change = pair_change(U, q, displacement)
        if strain.any():
            change += np.tensordot(strain, self._virial(strained, *self._waves, q))
        return change

    def _matrix_gradient(self, q):
        """``d C_ij / d r_i`` at ``[i, :, j]``, and the part of the pairs in `_virial`."""
        U, strained = ewald_matrix_gradient(*self._pairs(), q)
        F, k = self._waves
        cosines, sines = np.split(F, 2, axis=1)
        for a, k_a in enumerate(k.T):
            # The derivative of a wave is -k_a sin(k . (r_i - r_j)). It is the difference of two
            # matrix products. One is the transpose of the other, so that only one is computed.
            half = (k_a * cosines) @ sines.T
            U[:, a] += half - half.T
        if self.normal is not None:
            z = 4 * np.pi / self.volume * (self.z - self.z[:, None])
            U += z[:, None] * self.normal[:, None]
        return U, strained

    def _virial(self, pairs, F, k, q):
        """Derivatives of ``C q`` with respect to a strain, (3, 3, n_atoms).

        A strain e changes the volume, and it changes k by ``-e k``, but it does not change the
        phases ``k . r``. The period L of the slabs is not a property of the structure, and is not
        strained.

        Parameters
        ----------
        pairs : ndarray of shape (n_atoms, 3, 3)
            The derivatives of the sum over pairs.
        F, k : ndarray of shape (n_atoms, 2 n_waves) and (n_waves, 3)
            See `_make_waves`.
        q : ndarray of shape (n_atoms,)
            Charges.
        """
        # The logarithmic derivative of the weight of a wave, exp(-sigma^2 k^2 / 2) / (V k^2).
        strain = self.cutoffs.sigma**2 + 2 / np.einsum("ka,ka->k", k, k)
        strain = strain * k.T[:, None] * k.T - np.eye(3)[:, :, None]
        virial = pairs.T + (np.tile(strain, 2) * (q @ F)) @ F.T
        mean = self.smooth * q.sum() + self.smooth @ q
        if self.normal is not None:
            mean += 4 * np.pi / self.volume * self.z * (self.z @ q)
        # The terms without a cutoff are proportional to 1 / V.
        virial -= np.multiply.outer(np.eye(3), mean)
        return project_strain(virial, self.normal)

    def _pairs(self):
        """The arguments that all kernels for the sum over pairs share."""
        cutoff = self.cutoffs.real
        # With this number of nearest images along each axis, none within the cutoff is missed.
        spacings = 1 / np.linalg.norm(np.linalg.inv(self.cell), axis=0)
        images = np.ceil(2 * cutoff / spacings).astype(np.int64)
        return self.fractions, self.cell, images, self.widths, cutoff, 1 / self.cutoffs.sigma

    @cached_property
    def _waves(self):
        """The waves, stored for derivatives, which are often computed for several sets of charges.

        `matrix` is computed once and does not store the waves. For a small cell they need more
        memory than the matrix, and predictions hold many structures in memory.
        """
        return self._make_waves()

    def _make_waves(self):
        """The matrix F (n_atoms, 2 * n_waves) such that F F^T is the sum over waves, and the k."""
        n, k = half_sphere(self.cell, self.cutoffs.reciprocal)
        n, k = n[1:], k[1:]
        k2 = np.einsum("ka,ka->k", k, k)
        # Only one of k and -k is in the list, so that its weight counts twice.
        g = (8 * np.pi / self.volume) * np.exp(-0.5 * self.cutoffs.sigma**2 * k2) / k2
        return structure_factors(2 * np.pi * self.fractions, n, np.sqrt(g)), k
