"""Sums over plane waves at the positions of atoms: directly, or by a non-uniform FFT.

A smooth kernel that is periodic in a cell of vectors ``a`` is a sum over waves
``k = 2 pi n a^-1`` with integer n, ``g(r) = sum_k g_k exp(i k . r)`` and ``g_k`` real and even. Its
sum over charges needs two transforms, each a linear map between the atoms and the waves::

    S_k = sum_j q_j exp(-i k . r_j),    phi_j = sum_k c_k exp(i k . r_j),    c_k = g_k S_k

`DirectTransform` does them with ``n_atoms x n_waves`` operations, `FastTransform` by finufft
(Barnett, Magland, af Klinteberg, SIAM J. Sci. Comput. 41, C479 (2019)) with a number of operations
nearly proportional to ``n_atoms + n_waves``.
"""

import numpy as np

from .._pythran import structure_factors

# Structure factors up to this size are stored; larger ones are computed for every transform.
KEEP_BYTES = 2**28
BLOCK_BYTES = 2**24
# With fewer atoms plus waves than this, one thread is as fast as several.
SMALL_TRANSFORM = 50_000


def wave_indices(cell, k_max):
    """Largest index of the waves below a cutoff, for each of the cell vectors."""
    # An index n_a is k . a / (2 pi), which the cutoff bounds.
    return (k_max * np.linalg.norm(cell, axis=1) / (2 * np.pi)).astype(int)


def half_sphere(cell, k_max):
    """Waves below a cutoff, one of each pair n and -n, the constant wave first.

    Parameters
    ----------
    cell : ndarray of shape (3, 3)
        Cell vectors in rows, Angstrom.
    k_max : float
        Cutoff, 1/Angstrom.

    Returns
    -------
    n : ndarray of shape (n_waves, 3)
        Integers; the first index that is not zero is positive.
    k : ndarray of shape (n_waves, 3)
        1/Angstrom.
    """
    a, b, c = wave_indices(cell, k_max)
    n = np.stack(
        np.meshgrid(np.arange(a + 1), np.arange(-b, b + 1), np.arange(-c, c + 1), indexing="ij")
    ).reshape(3, -1)
    n = n[:, (n[0] > 0) | ((n[0] == 0) & ((n[1] > 0) | ((n[1] == 0) & (n[2] >= 0))))].T
    k = 2 * np.pi * n @ np.linalg.inv(cell).T
    within = np.einsum("ka,ka->k", k, k) <= k_max**2
    return np.ascontiguousarray(n[within]), k[within]


class DirectTransform:
    """Transforms by structure factors.

    Parameters
    ----------
    fractions : ndarray of shape (n_atoms, 3)
        Positions in units of the cell vectors.
    cell : ndarray of shape (3, 3)
        Cell vectors in rows, Angstrom.
    k_max : float
        Cutoff of the waves, 1/Angstrom.

    Attributes
    ----------
    k : tuple of three ndarray
        Cartesian components of the waves, which broadcast to the shape of ``S``; 1/Angstrom.
    """

    def __init__(self, fractions, cell, k_max):
        n, k = half_sphere(cell, k_max)
        self.k = tuple(k.T)
        # Each wave also stands for its negative, except the constant one.
        self._n, self._multiplicity = n, np.where(n.any(axis=1), 2.0, 1.0)
        phases = 2 * np.pi * fractions
        n_blocks = -(-16 * len(n) * len(phases) // BLOCK_BYTES)
        self._phases = np.array_split(phases, min(n_blocks, len(phases)))
        self._stored = None
        if 16 * len(n) * len(phases) <= KEEP_BYTES:
            self._stored = [self._factors(block) for block in self._phases]

    def _factors(self, phases):
        return structure_factors(phases, self._n, np.ones(len(self._n)))

    def _blocks(self):
        """Structure factors, cosines and then sines, for a part of the atoms at a time."""
        return self._stored or map(self._factors, self._phases)

    def forward(self, q):
        """``S_k`` for charges q of shape (n_atoms,)."""
        total, start = 0.0, 0
        for F in self._blocks():
            total = total + q[start : start + len(F)] @ F
            start += len(F)
        cosines, sines = np.split(total, 2)
        return cosines - 1j * sines

    def backward(self, c):
        """``phi_j`` of shape (n_atoms,) for coefficients with ``c_-k`` conjugate to ``c_k``."""
        c = self._multiplicity * c
        c = np.concatenate([c.real, -c.imag])
        return np.concatenate([F @ c for F in self._blocks()])

    def total(self, values):
        """Sum of a real even function over all waves."""
        return (self._multiplicity * values).sum()


class FastTransform:
    """Transforms by finufft; parameters and methods as in `DirectTransform`.

    Parameters
    ----------
    tolerance : float
        Relative error of the transforms.
    """

    def __init__(self, fractions, cell, k_max, tolerance):
        import finufft

        self._arguments = (fractions, cell, k_max, tolerance)
        top = wave_indices(cell, k_max)
        self._shape = tuple(2 * top + 1)
        n = np.ogrid[tuple(slice(-t, t + 1) for t in top)]
        reciprocal = 2 * np.pi * np.linalg.inv(cell).T
        # In a rectangular cell each component of k depends on one index only, and stays a
        # one-dimensional array if the zero terms are left out.
        nonzero = np.abs(reciprocal) > 1e-14 * np.abs(reciprocal).max()
        self.k = tuple(
            sum(n[a] * reciprocal[a, b] for a in range(3) if nonzero[a, b]) for b in range(3)
        )
        # Small transforms gain nothing from threads, and nine digits need no fine oversampling.
        small = len(fractions) + np.prod(self._shape) < SMALL_TRANSFORM
        options = {"nthreads": 1 if small else 0, "upsampfac": 1.25 if tolerance > 4e-10 else 2.0}
        points = np.ascontiguousarray(2 * np.pi * (fractions.T - np.floor(fractions.T)))
        self._plans = []
        for kind, sign in ((1, -1), (2, 1)):
            plan = finufft.Plan(kind, self._shape, 1, max(tolerance, 1e-14), sign, **options)
            plan.setpts(*points)
            self._plans.append(plan)

    def __reduce__(self):
        # A plan of finufft is a pointer, which cannot be pickled.
        return FastTransform, self._arguments

    def forward(self, q):
        """``S_k`` for charges q of shape (n_atoms,)."""
        return self._plans[0].execute(q.astype(np.complex128))

    def backward(self, c):
        """``phi_j`` of shape (n_atoms,) for coefficients with ``c_-k`` conjugate to ``c_k``."""
        return self._plans[1].execute(c.astype(np.complex128)).real

    def total(self, values):
        """Sum of a real even function over all waves."""
        return values.sum()
