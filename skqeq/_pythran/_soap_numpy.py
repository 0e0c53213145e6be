"""Power spectra and their derivatives, vectorised; the twin of `_soap`."""

from functools import cache
from math import factorial, pi, sqrt

import numpy as np
from scipy.sparse import csr_array

# Number of pairs of a centre and a neighbour that are processed at a time, to limit the memory.
BLOCK = 1000


@cache
def normalizations(l_max):
    return np.array(
        [
            sqrt((2 - (m == 0)) * (2 * l + 1) / (4 * pi) * factorial(l - m) * factorial(l + m))
            for l in range(l_max + 1)
            for m in map(abs, range(-l, l + 1))
        ]
    )


def solid_harmonics(D, l_max):
    """``r^l P_lm exp(i m phi) / (l + m)!`` for the vectors D, see `_soap.solid_harmonics`.

    The real part is stored in column l^2 + l + m, the imaginary part in column l^2 + l - m.
    """
    x, y, z = D.T
    r2 = x * x + y * y + z * z
    R = np.empty(((l_max + 1) ** 2, len(D)))
    R[0] = 1.0
    for l in range(1, l_max + 1):
        here, below = l * l + l, l * l - l
        for m in range(1 - l, l):
            R[here + m] = (2 * l - 1) * z * R[below + m]
            if abs(m) < l - 1:
                R[here + m] -= r2 * R[below - 2 * l + 2 + m]
            R[here + m] /= l * l - m * m
        real, imaginary = R[below + l - 1], R[below - l + 1] if l > 1 else 0.0
        R[here + l] = -(x * real - y * imaginary) / (2 * l)
        R[here - l] = -(y * real + x * imaginary) / (2 * l)
    return R.T


@cache
def harmonic_slopes(l_max):
    """Matrices that turn solid harmonics into their derivatives with respect to x, y, z.

    The formulas are those of `_soap.harmonic_slopes`.
    """
    slopes = np.zeros((3, (l_max + 1) ** 2, (l_max + 1) ** 2))
    for l in range(1, l_max + 1):
        here, below = l * l + l, l * l - l
        for m in range(1 - l, l):
            slopes[2, below + m, here + m] = 1.0
        if l > 1:
            slopes[0, below + 1, here] = slopes[1, below - 1, here] = 1.0
        for m in range(1, l + 1):
            if m < l - 1:
                slopes[0, below + m + 1, here + m] = slopes[0, below - m - 1, here - m] = 0.5
                slopes[1, below - m - 1, here + m] = 0.5
                slopes[1, below + m + 1, here - m] = -0.5
            slopes[0, below + m - 1, here + m] = slopes[1, below + m - 1, here - m] = -0.5
            if m > 1:
                slopes[0, below - m + 1, here - m] = -0.5
                slopes[1, below - m + 1, here + m] = 0.5
    return slopes


class Expansion:
    """Density coefficients ``c`` (n_centers, n_harmonics, n_channels * n_max) of some centres."""

    def __init__(self, pairs, offsets, exponents, contraction):
        self.l_max, self.n_max = len(exponents) - 1, exponents.shape[1]
        self.l = np.repeat(np.arange(self.l_max + 1), 2 * np.arange(self.l_max + 1) + 1)
        self.D, w, dw = pairs[:, :3], pairs[:, 3, None, None], pairs[:, 4, None, None]
        self.R = solid_harmonics(self.D, self.l_max)
        r2 = np.einsum("pa,pa->p", self.D, self.D)
        gaussians = np.exp(-r2[:, None, None] * exponents)
        # The products f of Gaussians and weights, and ``(df / dr) / r``.
        self.G, self.dG = w * gaussians, (dw - 2 * w * exponents) * gaussians
        ends = np.append(offsets[:, :-1].ravel(), offsets[-1, -1])
        ends -= ends[0]
        self._members = csr_array((np.ones(len(pairs)), np.arange(len(pairs)), ends))
        self._n_centers = len(offsets)
        # Shape (n_harmonics, k, n).
        self.contraction = normalizations(self.l_max)[:, None, None] * contraction[self.l]
        self.c = self.coefficients(self.R[:, :, None] * self.G[:, self.l])
        self.groups = np.repeat(np.arange(len(ends) - 1), np.diff(ends))

    def coefficients(self, terms):
        """Sum terms (n_pairs, n_harmonics, k) over the neighbours, and contract them."""
        u = self._members @ terms.reshape(len(terms), len(self.l) * self.n_max)
        u = u.reshape(self._n_centers, -1, len(self.l), self.n_max)
        # Contract after the sum over neighbours, where it is cheaper.
        c = np.einsum("izmk,mkn->imzn", u, self.contraction, optimize=True)
        return c.reshape(self._n_centers, len(self.l), -1)

    def slopes(self):
        """Derivatives (3, n_pairs, n_harmonics) of the harmonics with respect to D."""
        return self.R @ harmonic_slopes(self.l_max)


def _blocks(offsets):
    """Yield ranges of centres with at most `BLOCK` pairs in total, and the ranges of their pairs.

    A centre with more than `BLOCK` pairs forms a range by itself.
    """
    start = 0
    while start < len(offsets):
        stop = np.searchsorted(offsets[:, -1], offsets[start, 0] + BLOCK, side="right")
        stop = max(start + 1, int(stop))
        yield slice(start, stop), slice(offsets[start, 0], offsets[stop - 1, -1])
        start = stop


def _features(runs):
    """For every l, yield its features, and the two columns of c whose product each feature is."""
    length = runs[:, 4]
    t = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    l, a, b, first = np.repeat(runs[:, :4], length, axis=0).T
    for value in np.unique(l):
        own = l == value
        yield slice(value**2, (value + 1) ** 2), (first + t)[own], a[own], (b + t)[own]


def soap_spectrum(pairs, offsets, exponents, contraction, runs):
    out = np.zeros((len(offsets), (runs[:, 3] + runs[:, 4]).max(initial=0)))
    for centers, near in _blocks(offsets):
        c = Expansion(pairs[near], offsets[centers], exponents, contraction).c
        for l, features, a, b in _features(runs):
            c_l = c[:, l]
            out[centers, features] = (c_l.transpose(0, 2, 1) @ c_l)[:, a, b]
    return out


def soap_pull_back(pairs, offsets, exponents, contraction, runs, cotangents):
    out = np.empty((len(pairs), 3))
    for centers, near in _blocks(offsets):
        e = Expansion(pairs[near], offsets[centers], exponents, contraction)
        dc = np.zeros_like(e.c)
        for l, features, a, b in _features(runs):
            T = np.zeros((len(dc), dc.shape[2], dc.shape[2]))
            T[:, a, b] = cotangents[centers, features]
            # T + T^T, because a feature depends on both coefficients of the product.
            dc[:, l] = e.c[:, l] @ (T + T.transpose(0, 2, 1))
        dc = dc.reshape(len(dc), len(e.l), -1, e.n_max)
        du = np.einsum("imzn,mkn->izmk", dc, e.contraction, optimize=True)
        du = du.reshape(-1, len(e.l), e.n_max)[e.groups]
        radial = np.einsum("pmk,pmk,pm->p", du, e.dG[:, e.l], e.R)
        angular = np.einsum("pmk,pmk->pm", du, e.G[:, e.l])
        out[near] = np.einsum("pm,apm->pa", angular, e.slopes()) + radial[:, None] * e.D
    return out


def soap_directional(pairs, offsets, exponents, contraction, runs, moved):
    out = np.zeros((len(offsets), (runs[:, 3] + runs[:, 4]).max(initial=0)))
    for centers, near in _blocks(offsets):
        e = Expansion(pairs[near], offsets[centers], exponents, contraction)
        turned = np.einsum("pa,apm->pm", moved[near], e.slopes())
        along = np.einsum("pa,pa->p", moved[near], e.D)[:, None] * e.R
        dc = e.coefficients(turned[:, :, None] * e.G[:, e.l] + along[:, :, None] * e.dG[:, e.l])
        for l, features, a, b in _features(runs):
            product = dc[:, l].transpose(0, 2, 1) @ e.c[:, l]
            out[centers, features] = product[:, a, b] + product[:, b, a]
    return out


def soap_jacobian(pairs, offsets, exponents, contraction, runs, channel):
    blocks = []
    for centers, near in _blocks(offsets):
        e = Expansion(pairs[near], offsets[centers], exponents, contraction)
        n_channels = offsets.shape[1] - 1
        own = np.flatnonzero(e.groups % n_channels == channel)
        center, G, dG = e.groups[own] // n_channels, e.G[own][:, e.l], e.dG[own][:, e.l]
        dc = np.zeros((len(own), 3, *e.c.shape[1:]))
        columns = slice(channel * e.n_max, (channel + 1) * e.n_max)
        angular = np.einsum("pmk,mkn->pmn", G, e.contraction, optimize=True)
        radial = np.einsum("pmk,mkn->pmn", dG, e.contraction, optimize=True)
        dc[..., columns] = np.einsum("pmn,apm->pamn", angular, e.slopes()[:, own])
        dc[..., columns] += np.einsum("pmn,pm,pa->pamn", radial, e.R[own], e.D[own])
        out = np.zeros((len(own), 3, (runs[:, 3] + runs[:, 4]).max(initial=0)))
        for l, features, a, b in _features(runs):
            product = dc[:, :, l].transpose(0, 1, 3, 2) @ e.c[center][:, None, l]
            out[:, :, features] = product[:, :, a, b] + product[:, :, b, a]
        blocks.append(out)
    return np.concatenate(blocks)


def soap_coefficients(pairs, offsets, exponents, contraction):
    blocks = [
        Expansion(pairs[near], offsets[centers], exponents, contraction).c
        for centers, near in _blocks(offsets)
    ]
    return np.concatenate(blocks)


def soap_coefficient_slopes(pairs, offsets, exponents, contraction):
    blocks = []
    for centers, near in _blocks(offsets):
        e = Expansion(pairs[near], offsets[centers], exponents, contraction)
        angular = np.einsum("pmk,mkn->pmn", e.G[:, e.l], e.contraction, optimize=True)
        radial = np.einsum("pmk,mkn->pmn", e.dG[:, e.l], e.contraction, optimize=True)
        slopes = np.einsum("pmn,apm->pamn", angular, e.slopes())
        blocks.append(slopes + np.einsum("pmn,pm,pa->pamn", radial, e.R, e.D))
    return np.concatenate(blocks)
