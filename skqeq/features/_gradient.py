"""The power spectrum from neighbours, and its derivatives with respect to positions and strain.

In DScribe's basis of Gaussian-type orbitals the density coefficients of centre i are

    c[z, n, l, m] = sum_j w_j sum_k B_lkn exp(-a_lk r_ij^2) r_ij^l Y_lm(r_ij),
    a_lk = eta alpha_lk / (eta + alpha_lk),   eta = 1 / (2 sigma^2),
    B_lkn = beta_lnk (pi / (eta + alpha_lk))^(3/2) (eta / (eta + alpha_lk))^l,

over the neighbours j of element z, the atom i itself among them. The weight is that of the element
times ``f(r_ij)`` where the edge is smooth. The features are

    p[z z', l, n n'] = pi sqrt(8 / (2 l + 1)) sum_m c[z, n, l, m] c[z', n', l, m].

Let t be the derivatives of some L with respect to p. One pass over the features gives those with
respect to c, one over the radial functions those with respect to the sums over j, and one over
the neighbours ``g_ij = dL / dr_ij``. Then

    dL / dr_j = sum_i g_ij - sum_i g_ji,      dL / dstrain = sum_ij g_ij r_ij^T.

Nothing is stored for atoms that are no neighbours, and a neighbour counts with whatever image it
is there, so that molecules, slabs and crystals are the same.
"""

from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

from .._pythran import soap_jacobian, soap_pull_back, soap_spectrum
from ..structures._neighbors import gather_pairs, neighbor_pairs
from ._dscribe import dscribe_soap


class Surroundings:
    """The neighbours of all atoms of one structure, as a power spectrum sees them.

    Parameters
    ----------
    spectrum : PowerSpectrum
        What the features are.
    structure : Structure
        A molecule, a slab or a crystal.

    Attributes
    ----------
    i, j : ndarray of shape (n_pairs,)
        Centre and neighbour, sorted by centre and channel of density.
    D : ndarray of shape (n_pairs, 3)
        Vectors from i to j, Angstrom.
    """

    def __init__(self, spectrum, structure):
        r_cut, n_max, l_max, sigma, compression = spectrum.options
        self.n_atoms = len(structure)
        reach, exponents, contraction = _radial(r_cut, n_max, l_max, sigma)
        i, j, D = _pairs(structure, reach if spectrum.cutoff_width is None else r_cut)
        element = np.searchsorted(structure.species, structure.numbers)
        weights = np.ones(len(structure.species))
        if spectrum.weighting is not None:
            weights = np.array([spectrum.weighting[z] for z in structure.species])
        channel = element[j]
        n_channels = len(structure.species)
        if compression == "mu2":
            channel, n_channels = np.zeros_like(channel), 1
        elif compression == "mu1nu1":
            # The density of all elements is one more channel.
            channel = np.concatenate([channel, np.full_like(channel, n_channels)])
            i, j, D = np.tile(i, 2), np.tile(j, 2), np.tile(D, (2, 1))
            n_channels += 1
        group = i * n_channels + channel
        order = np.argsort(group, kind="stable")
        self.i, self.j, self.D = i[order], j[order], D[order]
        ends = np.cumsum(np.bincount(group, minlength=n_channels * self.n_atoms))
        offsets = np.empty((self.n_atoms, n_channels + 1), dtype=np.int64)
        offsets[:, 1:] = ends.reshape(self.n_atoms, n_channels)
        offsets[0, 0], offsets[1:, 0] = 0, offsets[:-1, -1]
        factors = _fading(self.D, r_cut, spectrum.cutoff_width) * weights[element[self.j]]
        pairs = np.ascontiguousarray(np.column_stack([self.D, *factors]))
        self._arguments = (pairs, offsets, exponents, contraction)
        self._order = (n_max, l_max, compression, len(structure.species))
        self._runs = _runs(*self._order)

    def rows(self):
        """Power spectrum of every atom, shape (n_atoms, n_columns of its own elements)."""
        return soap_spectrum(*self._arguments, self._runs)

    def pull_back(self, cotangents):
        """Derivatives of a function of the rows with respect to the geometry.

        Parameters
        ----------
        cotangents : ndarray of shape (n_atoms, n_columns)
            Derivatives of the function with respect to `rows`.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            With respect to the positions, 1/Angstrom. It sums to zero.
        virial : ndarray of shape (3, 3)
            With respect to a strain e of positions and cell, ``r -> (1 + e) r``; symmetric.
        """
        return self.collect(self.slopes(cotangents))

    def slopes(self, cotangents):
        """What `pull_back` collects: derivatives (n_pairs, 3) with respect to `D`."""
        cotangents = np.ascontiguousarray(cotangents, dtype=np.float64)
        return soap_pull_back(*self._arguments, self._runs, cotangents)

    def collect(self, g):
        """Gradient (n_atoms, 3) and virial (3, 3) from derivatives with respect to `D`."""
        return gather_pairs(self.i, self.j, self.D, g, self.n_atoms)

    def jacobians(self, max_bytes=2**25):
        """Derivatives of the rows of the centres with respect to `D`, piece by piece.

        A neighbour changes the features of its own element only, and each piece is of one
        element: it holds these columns and no others.

        Parameters
        ----------
        max_bytes : int
            A piece holds at least one centre and at most about this many bytes.

        Yields
        ------
        pairs : ndarray of shape (n,)
            Which pairs.
        columns : ndarray of shape (m,)
            Which columns of the rows; the others have no derivative.
        J : ndarray of shape (n, 3, m)
            ``d row[i[p], columns] / d D[p]`` for the pairs p; 1/Angstrom. Where a pair occurs
            twice (compression "mu1nu1"), the sum of both is meant.
        """
        neighbors, offsets, exponents, contraction = self._arguments
        for channel in range(offsets.shape[1] - 1):
            runs, columns = _restricted(*self._order, channel)
            sizes = np.cumsum(offsets[:, channel + 1] - offsets[:, channel])
            limit = max(1, max_bytes // (24 * len(columns)))
            start = 0
            while start < self.n_atoms:
                before = sizes[start - 1] if start else 0
                stop = max(start + 1, int(np.searchsorted(sizes, before + limit, side="right")))
                some = offsets[start:stop]
                spans = [np.arange(*span) for span in some[:, channel : channel + 2]]
                J = soap_jacobian(neighbors, some, exponents, contraction, runs, channel)
                yield np.concatenate(spans), columns, J
                start = stop

    def jacobian_of(self, i):
        """Derivatives of the row of one centre with respect to the geometry.

        Parameters
        ----------
        i : int
            The centre.

        Returns
        -------
        J : ndarray of shape (3 n_atoms + 9, n_columns)
            With respect to the positions, 1/Angstrom, and to a strain.
        """
        neighbors, offsets, exponents, contraction = self._arguments
        n, some = self.n_atoms, offsets[i : i + 1]
        J = np.zeros((3 * n + 9, self._runs[-1, 3:].sum()))
        for channel in range(offsets.shape[1] - 1):
            runs, columns = _restricted(*self._order, channel)
            dp = soap_jacobian(neighbors, some, exponents, contraction, runs, channel)
            here = slice(*some[0, channel : channel + 2])
            j, D = self.j[here], self.D[here]
            flat = dp.reshape(len(j), 3 * len(columns))
            ends = np.concatenate([j, np.full_like(j, i)]), np.tile(np.arange(len(j)), 2)
            moved = csr_array((np.repeat([1.0, -1.0], len(j)), ends), (n, len(j))) @ flat
            J[: 3 * n, columns] += moved.reshape(3 * n, len(columns))
            stretched = (D.T @ flat).reshape(3, 3, len(columns)).transpose(1, 0, 2)
            J[3 * n :, columns] += stretched.reshape(9, len(columns))
        return J


def _pairs(structure, reach):
    """Centres, neighbours and vectors between them, every atom its own neighbour too."""
    i, j, D = neighbor_pairs(structure, reach)
    own = np.arange(len(structure))
    D = np.concatenate([np.zeros((len(own), 3)), D])
    return np.concatenate([own, i]), np.concatenate([own, j]), D


def _fading(D, r_cut, width):
    """How much neighbours count, and the derivative of that with respect to r, over r."""
    if width is None:
        return np.stack([np.ones(len(D)), np.zeros(len(D))])
    r = np.sqrt(np.einsum("pa,pa->p", D, D))
    y = np.clip((r_cut - r) / width, 0.0, 1.0)
    slope = -30 * y**2 * (1 - y) ** 2 / width
    return np.stack([y**3 * (10 - 15 * y + 6 * y**2), slope / np.where(r > 0, r, 1.0)])


@lru_cache(maxsize=64)
def _radial(r_cut, n_max, l_max, sigma):
    """How far neighbours count, exponents ``a`` and coefficients ``B`` with the factor of p."""
    soap = dscribe_soap((1,), r_cut, n_max, l_max, sigma, "off", None, False)
    alphas, betas = soap.get_basis_gto(r_cut, n_max, l_max)
    eta = 1 / (2 * sigma**2)
    l = np.arange(l_max + 1)[:, None]
    scale = (np.pi / (eta + alphas)) ** 1.5 * (eta / (eta + alphas)) ** l
    scale *= np.sqrt(np.pi * np.sqrt(8 / (2 * l + 1)))
    contraction = betas.transpose(0, 2, 1) * scale[:, :, None]
    reach = r_cut + soap.get_cutoff_padding()
    return reach, eta * alphas / (eta + alphas), np.ascontiguousarray(contraction)


@lru_cache(maxsize=256)
def _runs(n_max, l_max, compression, n_species):
    """The order of the features: products of a column of c with consecutive columns of c.

    Rows are l, the column, the first of the consecutive columns, the first feature, and how many.
    """
    all_species = range(1 if compression == "mu2" else n_species)
    pairs = [(z, other) for z in all_species for other in all_species if other >= z]
    if compression == "crossover":
        pairs = [(z, z) for z in all_species]
    elif compression == "mu1nu1":
        pairs = [(z, n_species) for z in all_species]
    runs, first = [], 0
    for z, other in pairs:
        for l in range(l_max + 1):
            for n in range(n_max):
                skipped = n if z == other else 0
                length = n_max - skipped
                runs.append((l, z * n_max + n, other * n_max + skipped, first, length))
                first += length
    return np.array(runs, dtype=np.int64)


@lru_cache(maxsize=256)
def _restricted(n_max, l_max, compression, n_species, channel):
    """The runs that involve a channel, renumbered, and the features they were."""
    runs = _runs(n_max, l_max, compression, n_species)
    runs = runs[(runs[:, 1:3] // n_max == channel).any(axis=1)]
    columns = np.concatenate([first + np.arange(n) for first, n in runs[:, 3:]])
    renumbered = runs.copy()
    renumbered[:, 3] = np.cumsum(runs[:, 4]) - runs[:, 4]
    return renumbered, columns
