"""Equivariant vectors from density coefficients: products of two degrees of spherical harmonics.

The density coefficients c of an atom, see `_neighborhood`, turn with the structure like spherical
harmonics. Those of degree l + 1 and those of degree l can be combined to vectors,

    p_a[l, A, B] = sum_mm' T_a[l, m, m'] c[l + 1, m, A] c[l, m', B],      a = x, y, z,

where A and B are channels: pairs of an element and a radial function. The coefficients T are those
by which the derivatives of solid harmonics of degree l + 1 are solid harmonics of degree l. They
are, up to a factor, the Clebsch-Gordan coefficients of (l + 1) x l -> 1. With the sum over all m
and m' of ``T_a T_b`` normalised to one for a = b, no table is needed.

Before the products, the channels are compressed: ``c[l, m] U[l]`` has Q columns. The features are
``v = f p / |c|^2`` with a factor f for each element; |c|^2 is that of the coefficients before the
compression. (A division by |p| would not be continuous, because p vanishes in symmetric
surroundings.)
"""

from functools import cache, cached_property

import numpy as np

from .._pythran import harmonic_slopes, normalizations


@cache
def coupling(l):
    """The coefficients T of degree l, shape (3, 2 l + 3, 2 l + 1)."""
    low, high = slice(l**2, (l + 1) ** 2), slice((l + 1) ** 2, (l + 2) ** 2)
    norms = normalizations(l + 1)
    T = harmonic_slopes(l + 1)[:, low, high].transpose(0, 2, 1)
    T = T * norms[high, None] / norms[low]
    T /= np.linalg.norm(T[0])
    T.setflags(write=False)
    return T


def degrees(l_max):
    """For every degree, the slice of its harmonics."""
    return [slice(l**2, (l + 1) ** 2) for l in range(l_max + 1)]


class VectorProducts:
    """The vector features of atoms of one element, and their derivatives.

    Parameters
    ----------
    c : ndarray of shape (n_atoms, n_harmonics, n_channels)
        Density coefficients.
    U : ndarray of shape (l_max + 1, n_channels, Q)
        The compression of every degree.
    factor : float
        The features are multiplied by it.
    """

    def __init__(self, c, U, factor):
        self.c, self.U, self.factor = c, U, factor
        flat = c.reshape(len(c), -1)
        self.norms = np.einsum("ik,ik->i", flat, flat)
        self._C = [c[:, m] @ U[l] for l, m in enumerate(degrees(len(U) - 1))]

    @property
    def n_bytes(self):
        """Size of the coefficients and of the features, bytes."""
        return self.c.nbytes + 24 * len(self.c) * (len(self.U) - 1) * self.U.shape[2] ** 2

    def _turned(self, l, axis):
        """``T c`` of degree l for one axis, or for all three: (n_atoms, [3,] 2 l + 3, Q)."""
        C = self._C[l]
        return coupling(l)[axis] @ (C if isinstance(axis, int) else C[:, None])

    @cached_property
    def values(self):
        """The features, shape (n_atoms, 3, l_max Q^2)."""
        n, L, Q = len(self.c), len(self.U) - 1, self.U.shape[2]
        values = np.empty((n, 3, L, Q, Q))
        scale = (self.factor / self.norms)[:, None, None]
        for l in range(L):
            high = (scale * self._C[l + 1]).transpose(0, 2, 1)
            np.matmul(high[:, None], self._turned(l, slice(None)), out=values[:, :, l])
        return values.reshape(n, 3, -1)

    def pull_back(self, axis, cotangents):
        """Derivatives of a function of the features along one axis with respect to c.

        Parameters
        ----------
        axis : int
            The axis.
        cotangents : ndarray of shape (n_atoms, n_features)
            Derivatives of the function with respect to the features.

        Returns
        -------
        dc : ndarray of shape (n_atoms, n_harmonics, n_channels)
        """
        n, Q = len(self.c), self.U.shape[2]
        dp = (self.factor / self.norms)[:, None] * cotangents
        dp = dp.reshape(n, len(self.U) - 1, Q, Q)
        dC = [np.zeros_like(C) for C in self._C]
        for l in range(len(self.U) - 1):
            dC[l + 1] += self._turned(l, axis) @ dp[:, l].transpose(0, 2, 1)
            dC[l] += coupling(l)[axis].T @ (self._C[l + 1] @ dp[:, l])
        dc = np.concatenate([C @ U.T for C, U in zip(dC, self.U, strict=True)], axis=1)
        of_norms = np.einsum("if,if->i", cotangents, self.values[:, axis]) / self.norms
        return dc - 2.0 * of_norms[:, None, None] * self.c

    def jacobian(self, axis, rows, dc, channels):
        """Derivatives of the features along one axis for given derivatives of c.

        Parameters
        ----------
        axis : int
            The axis.
        rows : ndarray of shape (n,)
            Index of the atom of each derivative.
        dc : ndarray of shape (n, 3, n_harmonics, k)
            Derivatives of c in some channels; those in the other channels are zero.
        channels : ndarray of shape (n, k)
            These channels.

        Returns
        -------
        dv : ndarray of shape (n, 3, n_features)
        """
        dC = [
            dc[:, :, m] @ self.U[l][channels][:, None]
            for l, m in enumerate(degrees(len(self.U) - 1))
        ]
        parts = []
        for l in range(len(self.U) - 1):
            dp = dC[l + 1].transpose(0, 1, 3, 2) @ self._turned(l, axis)[rows][:, None]
            turned = coupling(l)[axis] @ dC[l]
            dp += self._C[l + 1].transpose(0, 2, 1)[rows][:, None] @ turned
            parts.append(dp.reshape(*dp.shape[:2], -1))
        own = np.take_along_axis(self.c[rows], channels[:, None], axis=2)
        of_norms = 2.0 * np.einsum("pamk,pmk->pa", dc, own)
        norms = self.norms[rows][:, None, None]
        dv = self.factor * np.concatenate(parts, axis=2)
        return (dv - of_norms[:, :, None] * self.values[rows, axis][:, None]) / norms
