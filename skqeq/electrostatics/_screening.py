"""An approximate inverse of the hardness matrix of a large system, for conjugate gradients.

Free charge screens itself: in a uniform medium with ``n = sum_i 1 / d_i`` per volume, where d is
the diagonal of A, ``C = S^T (4 pi k_e / k^2) S`` and the formula of Woodbury give

    (D + S^T (4 pi k_e / k^2) S)^-1 = D^-1 - D^-1 S^T W S D^-1,
    W = 4 pi k_e / (k^2 + kappa^2),    kappa^2 = 4 pi k_e n,

the inverse of a metal with the screening length ``1 / kappa``, an Angstrom or two. Without it the
number of iterations grows with the longest wave of the system, hence with its diameter. (In
self-consistent electronic structure: Kerker, Phys. Rev. B 23, 3082 (1981).)

Real systems are not uniform: they have surfaces, and atoms are not evenly spread. Weights c_i make
up for that,

    M = D^-1 - D^-1 c S^T W S c D^-1,    with    M 1 = 0,

found by iterating ``c <- sqrt(c / (S^T W S D^-1 c))`` as in the balancing of a matrix. The second
term then has row sums of one in units of the first; as W is positive in real space, no eigenvalue
of it exceeds one, and M is positive semidefinite for any structure.
"""

import numpy as np

from ..parameters import COULOMB
from ._levels import Level

# Width of the Gaussians that spread the charges, Angstrom, and cutoff of the waves in its inverse.
SMEARING, CUTOFF = 1.3, 2.5
# A shorter screening length than that of the mean density: densities are larger than their mean.
CONCENTRATION = 1.5
BALANCING_STEPS = 4


class Screening:
    """The approximate inverse M as a function of a vector.

    Parameters
    ----------
    operator : CoulombOperator
        Positions, cells and volume.
    diagonal : ndarray of shape (n_atoms,)
        Diagonal of A of an isolated atom, eV/e^2.
    """

    def __init__(self, operator, diagonal):
        self._inverse = 1.0 / diagonal
        self._transform = None
        if not operator.division.levels:
            return  # a molecule so small that its longest wave does no harm
        level = Level(operator.division.levels[0].cell, SMEARING, CUTOFF / SMEARING)
        # A preconditioner may be rough.
        self._transform = level.transform(operator.positions, 1e-2)
        k2 = sum(k * k for k in self._transform.k)
        kappa2 = 4 * np.pi * COULOMB * CONCENTRATION * self._inverse.sum() / operator.occupied
        weights = np.exp(-0.5 * SMEARING**2 * k2) / (k2 + kappa2) * (k2 <= level.k_max**2)
        self._weights = 4 * np.pi * COULOMB / level.volume * weights
        c = np.ones(len(diagonal))
        for _ in range(BALANCING_STEPS):
            c = np.sqrt(c / self._screen(c * self._inverse))
        self._weighted = c * self._inverse

    def _screen(self, q):
        return self._transform.backward(self._weights * self._transform.forward(q))

    def __call__(self, r):
        """``M r`` for r of shape (n_atoms,)."""
        if self._transform is None:
            return self._inverse * r
        return self._inverse * r - self._weighted * self._screen(self._weighted * r)
