"""Ewald sums of Gaussian charges in crystals and slabs.

With ``gamma_ij^2 = alpha_i^2 + alpha_j^2``, one splitting width sigma for all pairs, and f the
difference of the potentials of Gaussians of widths gamma and sigma,

    f_ij(r) = (erf(r / (sqrt(2) gamma_ij)) - erf(r / (sqrt(2) sigma))) / r,
    f_ij(0) = sqrt(2 / pi) (1 / gamma_ij - 1 / sigma),

    C_ij / k_e = sum_n f_ij(|r_i - r_j + n|)
               + (4 pi / V) sum_{k != 0} exp(-sigma^2 k^2 / 2) / k^2 cos(k . (r_i - r_j))
               - (2 pi / V) (sigma^2 - gamma_ij^2).

The Fourier transform of f is ``(4 pi / k^2) (exp(-gamma^2 k^2 / 2) - exp(-sigma^2 k^2 / 2))``, and
its value at k = 0, ``2 pi (sigma^2 - gamma^2)``, is what the last line takes away: C is exactly the
sum over k != 0 of the Gaussians, whatever sigma. For a charged cell that is the uniform
neutralising background. (Vondrak, Reuter, Margraf, J. Chem. Phys. 159, 054109 (2023), eqs. 12-20,
have no such term; Gingrich and Wilson, Chem. Phys. Lett. 500, 178 (2010).)

A slab is a crystal of slabs a length L apart, from which the interaction of the slabs is taken away

    A_slab = A_crystal - k_e (2 pi / V) ((z_i - z_j)^2 + gamma_ij^2 + L^2 / 6),    V = S L,

z along the normal. That is exact for the waves normal to the slab: they add up to
``(2 pi / S) (L / 6 - |z| + z^2 / L)`` in a crystal of point charges and to ``-(2 pi / S) |z|`` in a
slab, and a Gaussian turns z^2 into ``z^2 + gamma^2``. The other waves decay as ``exp(-k |z|)``, and
the gap is chosen so that they do not reach the next slab.
"""

import numpy as np
from ase.geometry import minkowski_reduce
from scipy.linalg.blas import dsyrk
from vesin import NeighborList

from .._pythran import ewald_pair_gradient, ewald_pairs, structure_factors
from ._splitting import EwaldCutoffs, slab_gap


class EwaldSum:
    """The Coulomb interaction of the Gaussian charges of one periodic structure.

    Parameters
    ----------
    structure : Structure
        A crystal or a slab.
    widths : ndarray of shape (n_atoms,)
        Widths ``alpha`` of the charges, Angstrom.
    accuracy : float
        Bound of the error of every element of the matrix, 1/Angstrom.
    sigma : float, default=None
        Splitting width, Angstrom; None takes the cheapest. The result does not depend on it.

    Attributes
    ----------
    cell : ndarray of shape (3, 3)
        Reduced cell of the crystal, or of the crystal of slabs; Angstrom.
    normal : ndarray of shape (3,) or None
        Unit vector normal to a slab.
    cutoffs : EwaldCutoffs
        Splitting and cutoffs.
    """

    def __init__(self, structure, widths, accuracy, sigma=None):
        self.widths, self.normal = widths, None
        width = np.sqrt(2.0) * widths.max()
        self.cell = structure.cell
        if not all(structure.pbc):
            vectors = self.cell[np.array(structure.pbc)]
            cross = np.cross(*vectors)
            self.normal = cross / np.linalg.norm(cross)
            self.heights = structure.positions @ self.normal
            gap = slab_gap(vectors, width, accuracy / 2)
            accuracy = accuracy / 2
            self.cell = np.stack([*vectors, (np.ptp(self.heights) + gap) * self.normal])
        self.cell = minkowski_reduce(self.cell, [True, True, self.normal is None])[0]
        self.volume = abs(np.linalg.det(self.cell))
        self.cutoffs = EwaldCutoffs.choose(self.cell, width, accuracy, sigma)
        # The interaction is periodic, so atoms may be moved into the cell.
        self.fractions = structure.positions @ np.linalg.inv(self.cell) % 1.0

    def matrix(self):
        """C of shape (n_atoms, n_atoms) in 1/Angstrom, without the factor k_e."""
        sigma = self.cutoffs.sigma
        C = dsyrk(1.0, self._waves()[0].T, trans=1, lower=0)
        # Fortran's upper triangle is the lower one of the C-ordered transpose.
        C = np.tril(C.T) + np.tril(C.T, -1).T
        i, j, d = self._neighbors("ijd")
        C += ewald_pairs(i, j, d, self.widths, 1.0 / sigma)
        gamma2 = np.add.outer(self.widths**2, self.widths**2)
        C -= (2 * np.pi / self.volume) * (sigma**2 - gamma2)
        C[np.diag_indices_from(C)] += (
            1 / (np.sqrt(np.pi) * self.widths) - np.sqrt(2 / np.pi) / sigma
        )
        if self.normal is not None:
            C -= (2 * np.pi / self.volume) * self._slab_moments(gamma2)
        return C

    def gradient(self, q, p):
        """Derivatives of ``q C p`` with respect to the positions and to a strain.

        A strain e moves ``r -> (1 + e) r``, hence k by ``-e k`` and V by ``V trace(e)``, and leaves
        the phases ``k . r`` alone.

        Parameters
        ----------
        q, p : ndarray of shape (n_atoms,)
            Any two sets of charges.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            e^2/Angstrom^2 if q and p are in e.
        virial : ndarray of shape (3, 3)
            Symmetric, e^2/Angstrom; for a slab zero outside the plane.
        """
        sigma = self.cutoffs.sigma
        i, j, D = self._neighbors("ijD")
        gradient, virial = ewald_pair_gradient(i, j, D, self.widths, q, p, 1.0 / sigma)

        F, k, _ = self._waves()
        n_waves = len(k)
        cosines, sines = F[:, :n_waves], F[:, n_waves:]
        (cos_q, sin_q), (cos_p, sin_p) = (q @ F).reshape(2, -1), (p @ F).reshape(2, -1)
        for own, c, s in ((q, cos_p, sin_p), (p, cos_q, sin_q)):
            gradient += own[:, None] * (cosines @ (s[:, None] * k) - sines @ (c[:, None] * k))
        energies = cos_q * cos_p + sin_q * sin_p
        k2 = np.einsum("ka,ka->k", k, k)
        virial += (k.T * (energies * (sigma**2 + 2 / k2))) @ k - energies.sum() * np.eye(3)

        # The last line of C, and what makes a slab of the crystal: all in proportion to 1 / V.
        Q, P, w2 = q.sum(), p.sum(), self.widths**2
        spread = P * (q @ w2) + Q * (p @ w2)
        smooth = spread - Q * P * sigma**2
        if self.normal is not None:
            z = self.heights - self.heights.mean()
            length = np.linalg.norm(self.cell[2])
            smooth -= P * (q @ z**2) + Q * (p @ z**2) - 2 * (q @ z) * (p @ z)
            smooth -= spread + Q * P * length**2 / 6
            slope = q * (P * z - p @ z) + p * (Q * z - q @ z)
            gradient -= (4 * np.pi / self.volume) * np.outer(slope, self.normal)
        virial -= (2 * np.pi / self.volume) * smooth * np.eye(3)
        if self.normal is not None:
            # The distance of the slabs is ours and does not take part in the strain.
            plane = np.eye(3) - np.outer(self.normal, self.normal)
            virial = plane @ virial @ plane
        return gradient, virial

    def _neighbors(self, quantities):
        """Half of all pairs within the cutoff, the images of an atom itself among them."""
        neighbors = NeighborList(cutoff=self.cutoffs.real, full_list=False, n_threads=1)
        found = neighbors.compute(self.fractions @ self.cell, self.cell, True, quantities)
        return [x.astype(np.int64) if name in "ij" else x for name, x in zip(quantities, found)]

    def _waves(self):
        """``F`` with ``F F^T`` the sum over waves, the wave vectors and their weights.

        Returns
        -------
        F : ndarray of shape (n_atoms, 2 * n_waves)
            ``sqrt(g) cos(k . r)`` in the first half of the columns, ``sqrt(g) sin(k . r)`` after.
        k : ndarray of shape (n_waves, 3)
            One of each pair k, -k; 1/Angstrom.
        g : ndarray of shape (n_waves,)
            ``(8 pi / V) exp(-sigma^2 k^2 / 2) / k^2``, for k and -k together; 1/Angstrom.
        """
        sigma, k_max = self.cutoffs.sigma, self.cutoffs.reciprocal
        # An index n_a is k . a / (2 pi), which the cutoff bounds.
        a, b, c = (k_max * np.linalg.norm(self.cell, axis=1) / (2 * np.pi)).astype(int)
        n = np.stack(
            np.meshgrid(np.arange(a + 1), np.arange(-b, b + 1), np.arange(-c, c + 1), indexing="ij")
        ).reshape(3, -1)
        # Of k and -k the one whose first index that is not zero is positive.
        n = n[:, (n[0] > 0) | ((n[0] == 0) & ((n[1] > 0) | ((n[1] == 0) & (n[2] > 0))))].T
        k = 2 * np.pi * n @ np.linalg.inv(self.cell).T
        k2 = np.einsum("ka,ka->k", k, k)
        near = k2 <= k_max**2
        n, k, k2 = np.ascontiguousarray(n[near]), k[near], k2[near]
        g = (8 * np.pi / self.volume) * np.exp(-0.5 * sigma**2 * k2) / k2
        return structure_factors(2 * np.pi * self.fractions, n, np.sqrt(g)), k, g

    def _slab_moments(self, gamma2):
        z = self.heights
        length = np.linalg.norm(self.cell[2])
        return np.subtract.outer(z, z) ** 2 + gamma2 + length**2 / 6
