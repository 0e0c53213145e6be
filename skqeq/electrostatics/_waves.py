"""Sums over plane waves at the positions of atoms, directly or by a non-uniform FFT.

A smooth function of the distance that is periodic with the cell vectors ``a`` is a sum over plane
waves, ``g(r) = sum_k g_k exp(i k . r)``, where ``k = 2 pi n a^-1`` with integer n. The weights
``g_k`` are real and even. The potential ``phi`` of charges needs two transforms, which are linear
maps between the atoms and the waves::

    S_k = sum_j q_j exp(-i k . r_j),    phi_j = sum_k c_k exp(i k . r_j),    c_k = g_k S_k

`DirectTransform` needs ``n_atoms x n_waves`` operations. `FastTransform` uses finufft (Barnett,
Magland, af Klinteberg, SIAM J. Sci. Comput. 41, C479 (2019)), and needs a number of operations that
is nearly proportional to ``n_atoms + n_waves``.
"""

import numpy as np

from .._pythran import structure_factors

# Structure factors are stored if they need no more memory than this. Otherwise they are computed
# again for every transform, for blocks of atoms of BLOCK_BYTES each.
KEEP_BYTES = 2**28
BLOCK_BYTES = 2**24
# If the number of atoms plus waves is smaller, one thread is as fast as several.
SMALL_TRANSFORM = 50_000


def wave_indices(cell, k_max):
    """Largest integer n of waves below a cutoff, for each of the cell vectors."""
    # n_a = k . a / (2 pi) is at most k_max |a| / (2 pi).
    return (k_max * np.linalg.norm(cell, axis=1) / (2 * np.pi)).astype(int)


def half_sphere(cell, k_max):
    """List the waves below a cutoff: one of each pair n and -n, and the constant wave first.

    Parameters
    ----------
    cell : ndarray of shape (3, 3)
        Cell vectors in rows, Angstrom.
    k_max : float
        Cutoff of the wave vectors, 1/Angstrom.

    Returns
    -------
    n : ndarray of shape (n_waves, 3)
        Integer coefficients of the waves; the first one that is not zero is positive.
    k : ndarray of shape (n_waves, 3)
        Wave vectors, 1/Angstrom.
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
        Cartesian components of the wave vectors, which broadcast to the shape of ``S``; 1/Angstrom.
    """

    def __init__(self, fractions, cell, k_max):
        n, k = half_sphere(cell, k_max)
        self.k = tuple(k.T)
        # Each wave in the list stands also for the wave -k, except the constant one.
        self._n, self._multiplicity = n, np.where(n.any(axis=1), 2.0, 1.0)
        phases = 2 * np.pi * fractions
        # A wave and an atom need two floats, 16 bytes.
        n_blocks = -(-16 * len(n) * len(phases) // BLOCK_BYTES)
        self._phases = np.array_split(phases, min(n_blocks, len(phases)))
        self._stored = None
        if 16 * len(n) * len(phases) <= KEEP_BYTES:
            self._stored = [self._factors(block) for block in self._phases]

    def _factors(self, phases):
        return structure_factors(phases, self._n, np.ones(len(self._n)))

    def _blocks(self):
        """Yield structure factors (cosines, then sines) for one block of atoms at a time."""
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
        # In a rectangular cell each component of k depends on one integer only. Without the terms
        # that are zero, the component stays a one-dimensional array, which saves memory.
        nonzero = np.abs(reciprocal) > 1e-14 * np.abs(reciprocal).max()
        self.k = tuple(
            sum(n[a] * reciprocal[a, b] for a in range(3) if nonzero[a, b]) for b in range(3)
        )
        # Small transforms are not faster with threads. Fine oversampling is needed only for
        # tolerances below about 4e-10.
        small = len(fractions) + np.prod(self._shape) < SMALL_TRANSFORM
        options = {"nthreads": 1 if small else 0, "upsampfac": 1.25 if tolerance > 4e-10 else 2.0}
        points = np.ascontiguousarray(2 * np.pi * (fractions.T - np.floor(fractions.T)))
        self._plans = []
        for kind, sign in ((1, -1), (2, 1)):
            plan = finufft.Plan(kind, self._shape, 1, max(tolerance, 1e-14), sign, **options)
            plan.setpts(*points)
            self._plans.append(plan)

    def __reduce__(self):
        # A finufft plan is a pointer, which cannot be pickled. A copy makes new plans.
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
