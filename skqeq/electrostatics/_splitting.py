"""How an Ewald sum is divided between real and reciprocal space: one number decides.

Both tails are bounded rather than estimated: a lattice of cell volume V has at most

    N(R) = (4 pi / 3) (R + d)^3 / V,    d half the longest diagonal of the cell,

points in any ball of radius R, and summation by parts bounds a sum of a falling function f beyond
the cutoff R by ``N(R + h) f(R) + N(R + 2 h) f(R + h) + ...``, of which the first term is taken: in
steps of h, f falls by exp(-4) at the loosest accuracy and faster at any other. Neglect of the signs
of the terms makes up for the rest: the errors of 5,600 random cells were all below a tenth of it.
In real space ``f(r) = erfc(r / (sqrt(2) sigma)) / r`` and ``h = sigma``; in reciprocal space
``f(k) = (4 pi / V) exp(-sigma^2 k^2 / 2) / k^2`` and ``h = 1 / sigma``.

The cost of the matrix of n atoms is, for half of the pairs and half of the wave vectors k,

    n^2 (t_pair (2 pi / 3) r_c^3 / V + t_wave V k_c^3 / (12 pi^2)).

Both parts grow as n^2, so the best sigma is proportional to V^(1/3) and independent of n.
"""

from dataclasses import dataclass

import numpy as np

# Measured, ns: a pair found by vesin and added; a wave vector's share of an element of F F^T.
PAIR_COST = 110.0
WAVE_COST = 0.05
ACCURACIES = (1e-12, 1e-2)


@dataclass(frozen=True)
class EwaldCutoffs:
    """Splitting width and cutoffs of an Ewald sum.

    Attributes
    ----------
    sigma : float
        Standard deviation of the splitting Gaussian, Angstrom.
    real : float
        Cutoff of the distance, Angstrom.
    reciprocal : float
        Cutoff of the wave vector, 1/Angstrom.
    """

    sigma: float
    real: float
    reciprocal: float

    @classmethod
    def choose(cls, cell, width, accuracy, sigma=None):
        """The cheapest splitting that keeps the promise.

        Parameters
        ----------
        cell : ndarray of shape (3, 3)
            Reduced cell vectors in rows, Angstrom.
        width : float
            Largest ``gamma_ij``, Angstrom. A smaller sigma would not shorten the real-space sum.
        accuracy : float
            Bound of the sum of both truncation errors of any element, 1/Angstrom.
        sigma : float, default=None
            Splitting width to use instead of the cheapest one.

        Returns
        -------
        cutoffs : EwaldCutoffs
        """
        volume = abs(np.linalg.det(cell))
        sigmas = np.maximum(width, volume ** (1 / 3) * np.geomspace(0.04, 0.5, 64))
        if sigma is not None:
            sigmas = np.array([sigma])
        # Beyond `width` the narrower of the two error functions has nothing to say.
        reach = np.maximum(sigmas, width)
        # Half of the error for either sum; both equations are fixed points of a slow logarithm.
        x, y = np.full((2, len(sigmas)), 6.0)
        for _ in range(30):
            points = lattice_points(cell, (x + 1.0) * reach)
            x = _gaussian(points * np.sqrt(2 / np.pi) / (x**2 * reach), accuracy / 2)
            points = lattice_points(2 * np.pi * np.linalg.inv(cell).T, (y + 1.0) / sigmas)
            y = _gaussian(points * 4 * np.pi * sigmas**2 / (volume * y**2), accuracy / 2)
        real, reciprocal = x * reach, y / sigmas
        pairs = 2 * np.pi / 3 * real**3 / volume
        waves = volume * reciprocal**3 / (12 * np.pi**2)
        best = np.argmin(PAIR_COST * pairs + WAVE_COST * waves)
        return cls(float(sigmas[best]), float(real[best]), float(reciprocal[best]))


def lattice_points(cell, radius):
    """Bound of the number of lattice points in a ball: the cells around them are a larger ball."""
    corners = np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]]) @ cell
    d = 0.5 * np.linalg.norm(corners, axis=1).max()
    return 4 * np.pi / 3 * (radius + d) ** 3 / abs(np.linalg.det(cell))


def check_accuracy(accuracy):
    """Refuse what double precision cannot deliver and what would not be a calculation."""
    low, high = ACCURACIES
    if not low <= accuracy <= high:
        raise ValueError(f"accuracy must be between {low:g} and {high:g}, got {accuracy!r}")


def _gaussian(prefactor, tolerance):
    """Where ``prefactor exp(-x^2 / 2)`` falls to the tolerance, but at least 2."""
    return np.sqrt(np.maximum(4.0, 2 * np.log(prefactor / tolerance)))
