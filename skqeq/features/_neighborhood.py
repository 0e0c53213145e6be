"""The power spectrum from neighbours, and its derivatives with respect to positions and strain.

In DScribe's basis of Gaussian-type orbitals, the density coefficients of centre i are

    c[z, n, l, m] = sum_j w_j sum_k B_lkn exp(-a_lk r_ij^2) r_ij^l Y_lm(r_ij),
    a_lk = eta alpha_lk / (eta + alpha_lk),   eta = 1 / (2 sigma^2),
    B_lkn = beta_lnk (pi / (eta + alpha_lk))^(3/2) (eta / (eta + alpha_lk))^l,

summed over the neighbours j of element z, including the atom i itself. The factor w_j is the weight
of the element of j, times the cutoff function ``f(r_ij)`` if the cutoff is smooth. The features are

    p[z z', l, n n'] = pi sqrt(8 / (2 l + 1)) sum_m c[z, n, l, m] c[z', n', l, m].

Derivatives of a function L are propagated backwards by the chain rule: from p to c, from c to the
sums over j, and from these sums to the vectors, ``g_ij = dL / dr_ij``. Then

    dL / dr_j = sum_i g_ij - sum_i g_ji,      dL / dstrain = sum_ij g_ij r_ij^T.

Arrays have one entry per pair of neighbours; no array has one entry per pair of atoms. Periodic
images count as neighbours, so that molecules, slabs and crystals are treated by the same code.
"""

from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

from .._pythran import (
    soap_coefficient_slopes,
    soap_coefficients,
    soap_directional,
    soap_jacobian,
    soap_pull_back,
    soap_spectrum,
)
from ..structures import Neighborhood, neighbor_pairs
from ._cutoff import cutoff_factors
from ._dscribe import dscribe_soap, short_cutoffs


class SOAPNeighborhood(Neighborhood):
    """The neighbours of all atoms of one structure, and the power spectrum that they make.

    Pairs are sorted by centre, and for each centre by channel. A channel is the density of one
    element. The compression "mu2" has a single channel, the density of all elements; "mu1nu1" has
    this channel in addition to those of the elements.

    Parameters
    ----------
    spectrum : PowerSpectrum
        The power spectrum.
    structure : Structure
        A molecule, a slab or a crystal.
    """

    def __init__(self, spectrum, structure):
        r_cut, n_max, l_max, sigma, compression = spectrum.options
        self.n_atoms = len(structure)
        self.columns = spectrum.columns(structure.species)
        _, exponents, contraction = radial(r_cut, n_max, l_max, sigma)
        i, j, D = _pairs(structure, spectrum.reach)
        element = np.searchsorted(structure.species, structure.numbers)
        channel, n_channels = element[j], len(structure.species)
        if compression == "mu2":
            channel, n_channels = np.zeros_like(channel), 1
        elif compression == "mu1nu1":
            # Every pair also belongs to the channel of all elements.
            channel = np.concatenate([channel, np.full_like(channel, n_channels)])
            i, j, D = np.tile(i, 2), np.tile(j, 2), np.tile(D, (2, 1))
            n_channels += 1
        group = i * n_channels + channel
        # A stable sort keeps the order of the neighbours, so that rounding errors do not vary.
        order = np.argsort(group, kind="stable")
        self.i, self.j, self.D = i[order], j[order], D[order]
        # offsets[i, z]:offsets[i, z + 1] are the pairs of centre i and channel z.
        ends = np.cumsum(np.bincount(group, minlength=n_channels * self.n_atoms))
        offsets = np.empty((self.n_atoms, n_channels + 1), dtype=np.int64)
        offsets[:, 1:] = ends.reshape(self.n_atoms, n_channels)
        offsets[0, 0], offsets[1:, 0] = 0, offsets[:-1, -1]
        weights = spectrum.element_weights(structure.species)
        factors = cutoff_factors(self.D, r_cut, spectrum.cutoff_width) * weights[element[self.j]]
        # The compiled loops accept C-contiguous arrays only.
        pairs = np.ascontiguousarray(np.column_stack([self.D, *factors]))
        self._arguments = (pairs, offsets, exponents, contraction)
        self._order = (n_max, l_max, compression, len(structure.species))
        self._runs = _runs(*self._order)

    def rows(self):
        """Power spectrum of every atom; columns of elements that do not occur are left out."""
        return soap_spectrum(*self._arguments, self._runs)

    def coefficients(self):
        """Density coefficients c of every atom, (n_atoms, n_harmonics, n_channels n_max)."""
        return soap_coefficients(*self._arguments)

    def coefficient_gradients(self, factors, max_pairs=2**10):
        """Derivatives of a function of the density coefficients with respect to `D`.

        Parameters
        ----------
        factors : ndarray of shape (n_atoms, n_harmonics, n_channels n_max)
            Derivatives of the function with respect to the coefficients.

        Returns
        -------
        g : ndarray of shape (n_pairs, 3)
            1/Angstrom.
        """
        g = np.empty_like(self.D)
        for pairs, channels, slopes in self.coefficient_slopes(max_pairs):
            own = factors.reshape(*factors.shape[:2], -1, slopes.shape[-1])
            own = own[self.i[pairs], :, channels].reshape(len(slopes), -1)
            flat = slopes.reshape(len(slopes), 3, -1)
            g[pairs] = (flat @ own[:, :, None])[:, :, 0]
        return g

    def coefficient_slopes(self, max_pairs=2**10):
        """Derivatives of the density coefficients with respect to `D`, piece by piece.

        Parameters
        ----------
        max_pairs : int
            Number of pairs of a piece; each contains at least one centre.

        Yields
        ------
        pairs : slice
            Some pairs.
        channels : ndarray of shape (n,)
            The channel of each of these pairs.
        slopes : ndarray of shape (n, 3, n_harmonics, n_max)
            Derivatives of the coefficients of the centre in this channel, 1/Angstrom. The
            coefficients in other channels do not depend on the pair.
        """
        neighbors, offsets, exponents, contraction = self._arguments
        start = 0
        while start < len(offsets):
            first = offsets[start, 0]
            stop = int(np.searchsorted(offsets[:, -1], first + max_pairs, side="right"))
            stop = max(start + 1, stop)
            part, pairs = offsets[start:stop] - first, slice(first, offsets[stop - 1, -1])
            channels = np.tile(np.arange(offsets.shape[1] - 1), len(part))
            channels = np.repeat(channels, np.diff(part, axis=1).ravel())
            slopes = soap_coefficient_slopes(neighbors[pairs], part, exponents, contraction)
            yield pairs, channels, slopes
            start = stop

    def pull_back(self, cotangents):
        """Derivatives of a function of the rows with respect to `D`, see `Neighborhood`."""
        cotangents = np.ascontiguousarray(cotangents, dtype=np.float64)
        return soap_pull_back(*self._arguments, self._runs, cotangents)

    def directional(self, moved):
        """Derivatives of the rows along one direction, see `Neighborhood`."""
        return soap_directional(*self._arguments, self._runs, np.ascontiguousarray(moved))

    def jacobians(self, centers=None, max_bytes=2**22):
        """Derivatives of the rows with respect to `D`, see `Neighborhood`.

        The features that depend on a neighbour are those of the neighbour's channel. Every piece
        belongs to one channel, and contains only the columns of that channel.

        Parameters
        ----------
        centers : ndarray of int, default=None
            Atoms whose rows are differentiated; None means all.
        max_bytes : int
            Approximate size of a piece; each contains at least one centre.
        """
        neighbors, offsets, exponents, contraction = self._arguments
        order = np.arange(len(self.i))
        if centers is not None:
            # The pairs of these centres, without gaps between them.
            spans = [np.arange(first[0], first[-1]) for first in offsets[centers]]
            order = np.concatenate([order[:0], *spans])
            before = np.cumsum([0, *map(len, spans)])[:-1]
            offsets = offsets[centers] - offsets[centers][:, :1] + before[:, None]
            neighbors = np.ascontiguousarray(neighbors[order])
        for channel in range(offsets.shape[1] - 1):
            runs, columns = _channel_runs(*self._order, channel)
            sizes = np.cumsum(offsets[:, channel + 1] - offsets[:, channel])
            max_pairs = max(1, max_bytes // (24 * len(columns)))
            start = 0
            while start < len(offsets):
                before = sizes[start - 1] if start else 0
                stop = int(np.searchsorted(sizes, before + max_pairs, side="right"))
                stop = max(start + 1, stop)
                part = offsets[start:stop]
                pairs = [np.arange(*span) for span in part[:, channel : channel + 2]]
                J = soap_jacobian(neighbors, part, exponents, contraction, runs, channel)
                yield order[np.concatenate(pairs)], columns, J
                start = stop

    def jacobian_of(self, i):
        """Derivatives of the row of atom i with respect to the geometry, see `Neighborhood`."""
        neighbors, offsets, exponents, contraction = self._arguments
        n, part = self.n_atoms, offsets[i : i + 1]
        J = np.zeros((3 * n + 9, self._runs[-1, 3:].sum()))
        for channel in range(offsets.shape[1] - 1):
            runs, columns = _channel_runs(*self._order, channel)
            dp = soap_jacobian(neighbors, part, exponents, contraction, runs, channel)
            pairs = slice(*part[0, channel : channel + 2])
            j, D = self.j[pairs], self.D[pairs]
            dp = dp.reshape(len(j), 3 * len(columns))
            # The sum over pairs for all columns, as in gather_pairs: each pair counts +1 for the
            # neighbour and -1 for the centre.
            atoms = np.concatenate([j, np.full_like(j, i)])
            ends = atoms, np.tile(np.arange(len(j)), 2)
            gradient = csr_array((np.repeat([1.0, -1.0], len(j)), ends), (n, len(j))) @ dp
            J[: 3 * n, columns] += gradient.reshape(3 * n, len(columns))
            virial = (D.T @ dp).reshape(3, 3, len(columns)).transpose(1, 0, 2)
            J[3 * n :, columns] += virial.reshape(9, len(columns))
        return J


def _pairs(structure, reach):
    """Centres, neighbours, and the vectors between them; every atom is also its own neighbour."""
    # As in DScribe, the density around an atom includes the atom itself.
    i, j, D = neighbor_pairs(structure, reach)
    atoms = np.arange(len(structure))
    D = np.concatenate([np.zeros((len(atoms), 3)), D])
    return np.concatenate([atoms, i]), np.concatenate([atoms, j]), D


@lru_cache(maxsize=64)
def radial(r_cut, n_max, l_max, sigma):
    """The radius up to which DScribe counts neighbours, the exponents ``a``, and ``B``.

    ``B`` includes the square root of the prefactor of p, because p is a product of two c.
    """
    soap = dscribe_soap((1,), r_cut, n_max, l_max, sigma, "off", None, False)
    with short_cutoffs():
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
    """The pairs of coefficients whose products are the features, in DScribe's order.

    A row (l, a, b, first, length) defines the features ``first + t`` for t < length. Feature
    ``first + t`` is the product of the coefficients a and ``b + t`` of degree l, summed over m.
    Here a is the index of (z, n), and b is the index of the first pair (z', n') of the row. If
    z = z', the first n' is n, because only features with n' >= n are stored. Otherwise it is 0.
    """
    elements = range(1 if compression == "mu2" else n_species)
    pairs = [(z, other) for z in elements for other in elements if other >= z]
    if compression == "crossover":
        pairs = [(z, z) for z in elements]
    elif compression == "mu1nu1":
        pairs = [(z, n_species) for z in elements]
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
def _channel_runs(n_max, l_max, compression, n_species, channel):
    """The rows of `_runs` with features of one channel, and the columns of these features.

    In `_runs`, ``first`` is an index among all features. In the rows that are returned, it is an
    index among the features of the channel. The columns map this index to the index among all.
    """
    runs = _runs(n_max, l_max, compression, n_species)
    runs = runs[(runs[:, 1:3] // n_max == channel).any(axis=1)]
    columns = np.concatenate([first + np.arange(n) for first, n in runs[:, 3:]])
    renumbered = runs.copy()
    renumbered[:, 3] = np.cumsum(runs[:, 4]) - runs[:, 4]
    return renumbered, columns
