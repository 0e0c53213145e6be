"""An approximate inverse of the hardness matrix of a large system, for conjugate gradients.

Free charge screens itself: in a uniform medium with ``n = sum_i 1 / d_i`` per volume, where d is
the diagonal of A, the formula of Woodbury gives for ``A = D + C``

    A^-1 = D^-1 - D^-1 W D^-1,    W_k = 4 pi k_e / (k^2 + kappa^2),    kappa^2 = 4 pi k_e n :

the inverse of a metal, in which W is the potential ``k_e exp(-kappa r) / r`` with a screening
length ``1 / kappa`` of an Angstrom or two. Without it the number of iterations grows with the
longest wave of the system, hence with its diameter. (In self-consistent electronic structure:
Kerker, Phys. Rev. B 23, 3082 (1981).)

Real systems are not uniform: they have surfaces, and atoms are not evenly spread. Weights c_i make
up for that,

    M = D^-1 - theta c D^-1 W D^-1 c,    with    c W D^-1 c 1 = 1,

found by iterating ``c <- sqrt(c / (W D^-1 c))`` as in the balancing of a matrix. In units of D^-1
the second term then has row sums theta; as W is positive, no eigenvalue of it exceeds theta, and M
is positive definite for any structure if theta is below one. It must not come close to one in a
small fragment far from others, or charge would hardly be moved between them: no metal screens it
there. Such atoms are told by large weights, which are cut off. W is taken between neighbours only.
"""

import numpy as np
from scipy.sparse import csr_array

from ..parameters import COULOMB

THETA = 0.999
# Inside a dense system c is 1.1 to 1.4, on its surface up to 2.
LARGEST_WEIGHT = 1.5
# Charges are spread so much in W, Angstrom.
SMEARING = 1.0
# A shorter screening length than that of the mean density: densities are larger than their mean.
CONCENTRATION = 1.5
BALANCING_STEPS = 8


class Screening:
    """The approximate inverse M as a function of a vector.

    Parameters
    ----------
    operator : CoulombOperator
        Pairs of neighbours and volume.
    diagonal : ndarray of shape (n_atoms,)
        Diagonal of A of an isolated atom, eV/e^2.
    """

    def __init__(self, operator, diagonal):
        n, self._inverse = operator.n_atoms, 1.0 / diagonal
        kappa2 = 4 * np.pi * COULOMB * CONCENTRATION * self._inverse.sum() / operator.occupied
        i, j, D = operator.pairs
        values = screened(np.einsum("pa,pa->p", D, D), np.sqrt(kappa2))
        self._upper = csr_array((values, (i, j)), shape=(n, n))
        self._own = screened(0.0, np.sqrt(kappa2))
        c = np.ones(n)
        for _ in range(BALANCING_STEPS):
            c = np.sqrt(c / self._screen(c * self._inverse))
        self._weighted = np.minimum(c, LARGEST_WEIGHT) * self._inverse
        row_sums = self._screen(self._weighted) * self._weighted * diagonal
        self._theta = THETA / max(1.0, row_sums.max())

    def _screen(self, q):
        return self._upper @ q + self._upper.T @ q + self._own * q

    def __call__(self, r):
        """``M r`` for r of shape (n_atoms,)."""
        return self._inverse * r - self._theta * self._weighted * self._screen(self._weighted * r)


def screened(r2, kappa):
    """``k_e exp(-kappa rho) / rho`` with ``rho^2 = r^2 + s^2``, s the smearing; eV/e^2."""
    rho = np.sqrt(r2 + SMEARING**2)
    return COULOMB * np.exp(-kappa * rho) / rho
