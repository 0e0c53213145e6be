"""An approximate inverse of the hardness matrix of a large system, for conjugate gradients.

Charge that moves freely screens other charges. Let ``A = D + C`` with the diagonal D of A, whose
elements are d_i, and let n be ``sum_i 1 / d_i`` per volume. In a uniform medium, the Woodbury
formula gives::

    A^-1 = D^-1 - D^-1 W D^-1,    W_k = 4 pi k_e / (k^2 + kappa^2),    kappa^2 = 4 pi k_e n

This is the inverse for a metal. W is the screened potential ``k_e exp(-kappa r) / r``, with a
screening length ``1 / kappa`` of one or two Angstrom. Without this preconditioner, the number of
iterations grows with the longest wavelength in the system, and thus with its diameter.
(Self-consistent electronic structure has the same problem and remedy: Kerker, Phys. Rev. B 23, 3082
(1981).)

Real systems are not uniform: they have surfaces, and the density of atoms varies. Weights c_i
correct for this::

    M = D^-1 - theta c D^-1 W D^-1 c,    with    c W D^-1 c 1 = 1

The weights are found by iterating ``c <- sqrt(c / (W D^-1 c))``, as in the balancing of a matrix.
In units of D^-1, the row sums of the second term are then theta. All elements of this term are
positive, so that its eigenvalues do not exceed theta. If theta is below one, M is positive definite
for any structure. For small fragments far from others, the screening must be weaker. Otherwise
hardly any charge would move between fragments, although there is no metal between them. Atoms of
such fragments have large weights, which are therefore limited to a maximum. W is computed for
pairs of neighbours only.
"""

import numpy as np
from scipy.sparse import csr_array

from ..parameters import COULOMB

THETA = 0.999
# Maximum of the weights c. They are typically 1.1 to 1.4 inside a dense system, and up to 2 on its
# surface.
LARGEST_WEIGHT = 1.5
# Length s by which W is smeared at short distances, see `screened`; Angstrom.
SMEARING = 1.0
# Factor that multiplies kappa^2: the density around atoms is larger than the mean density.
CONCENTRATION = 1.5
BALANCING_STEPS = 8


class Screening:
    """The approximate inverse M, a function of a vector.

    Parameters
    ----------
    operator : CoulombOperator
        Provides the pairs of neighbours and the occupied volume.
    diagonal : ndarray of shape (n_atoms,)
        Diagonal elements of A for isolated atoms, eV/e^2.
    """

    def __init__(self, operator, diagonal):
        n, self._inverse = operator.n_atoms, 1.0 / diagonal
        kappa2 = 4 * np.pi * COULOMB * CONCENTRATION * self._inverse.sum() / operator.occupied
        i, j, D = operator.pairs
        values = screened(np.einsum("pa,pa->p", D, D), np.sqrt(kappa2))
        self._upper = csr_array((values, (i, j)), shape=(n, n))
        self._diagonal = screened(0.0, np.sqrt(kappa2))
        c = np.ones(n)
        for _ in range(BALANCING_STEPS):
            c = np.sqrt(c / self._screen(c * self._inverse))
        self._weighted = np.minimum(c, LARGEST_WEIGHT) * self._inverse
        # The weights make the row sums one, except where LARGEST_WEIGHT limits them. Then theta
        # keeps the row sums below one.
        row_sums = self._screen(self._weighted) * self._weighted * diagonal
        self._theta = THETA / max(1.0, row_sums.max())

    def _screen(self, q):
        return self._upper @ q + self._upper.T @ q + self._diagonal * q

    def __call__(self, r):
        """``M r`` for r of shape (n_atoms,)."""
        return self._inverse * r - self._theta * self._weighted * self._screen(self._weighted * r)


def screened(r2, kappa):
    """``k_e exp(-kappa rho) / rho``, where ``rho^2 = r^2 + s^2`` with the smearing s; eV/e^2."""
    rho = np.sqrt(r2 + SMEARING**2)
    return COULOMB * np.exp(-kappa * rho) / rho
