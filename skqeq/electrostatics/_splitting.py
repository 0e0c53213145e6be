"""How an Ewald sum is divided between real and reciprocal space, for a given accuracy.

The cutoffs follow from upper bounds on both truncation errors, not from estimates. In a lattice
with cell volume V, the number of points in any ball of radius R is at most::

    N(R) = (4 pi / 3) (R + d)^3 / V,    d half the longest diagonal of the cell

In the plane of a slab it is ``pi (R + d)^2 / S``. Let f be a decreasing function. By summation by
parts, the sum of f over lattice points beyond the cutoff R is at most
``N(R + h) f(R) + N(R + 2 h) f(R + h) + ...`` for any h > 0. Only the first term is used. From one
term to the next, f falls to at most exp(-4) of its value. It falls faster if the accuracy is
tighter than the loosest allowed one, see `ACCURACIES`. The omitted terms do not matter, because
terms of the true sum cancel, which the bound ignores. For 5,600 random cells, all errors were below
a tenth of the bound. In real space
``f(r) = erfc(r / (sqrt(2) sigma)) / r`` and ``h = sigma``; in reciprocal space
``f(k) = (4 pi / V) exp(-sigma^2 k^2 / 2) / k^2`` and ``h = 1 / sigma``.

The matrix of n atoms needs half of the pairs and half of the wave vectors k. Its cost is::

    n^2 (t_pair (2 pi / 3) r_c^3 / V + t_wave V k_c^3 / (12 pi^2))

Both parts grow as n^2, so that the best sigma is proportional to V^(1/3) and independent of n.

The division of large systems, which are never stored as a matrix, is in `_levels`.
"""

from dataclasses import dataclass
from numbers import Real

import numpy as np

# Measured times in ns: for a pair within the cutoff, and for a wave vector and an element of F F^T.
PAIR_COST = 11.0
WAVE_COST = 0.03
# The smallest and the largest allowed value of the accuracy.
ACCURACIES = (1e-12, 1e-2)
# The equations of the cutoffs are solved by fixed-point iteration, which converges quickly because
# the right-hand side is the root of a logarithm.
FIXED_POINT_STEPS = 10


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
        """Choose the splitting width with the lowest cost for the required accuracy.

        Parameters
        ----------
        cell : ndarray of shape (3, 3)
            Reduced cell vectors in rows, Angstrom.
        width : float
            Largest ``gamma_ij``, Angstrom. A smaller sigma would not shorten the real-space sum.
        accuracy : float
            Upper bound on the sum of both truncation errors of any matrix element, 1/Angstrom.
        sigma : float, default=None
            Splitting width, Angstrom; None means the width with the lowest cost.

        Returns
        -------
        cutoffs : EwaldCutoffs
        """
        volume = abs(np.linalg.det(cell))
        sigmas = np.maximum(width, volume ** (1 / 3) * np.geomspace(0.04, 0.5, 64))
        if sigma is not None:
            sigmas = np.array([sigma])
        # Each of the two sums is allowed half of the error.
        real = real_cutoff(sigmas, width, cell, accuracy / 2)
        reciprocal = wave_cutoff(sigmas, cell, accuracy / 2)
        pairs = 2 * np.pi / 3 * real**3 / volume
        waves = volume * reciprocal**3 / (12 * np.pi**2)
        best = np.argmin(PAIR_COST * pairs + WAVE_COST * waves)
        return cls(float(sigmas[best]), float(real[best]), float(reciprocal[best]))


def real_cutoff(sigma, width, vectors, tolerance):
    """Distance beyond which all pairs together add less than the tolerance to a matrix element.

    Parameters
    ----------
    sigma : float or ndarray
        Splitting width, Angstrom.
    width : float
        Largest ``gamma_ij``, Angstrom.
    vectors : ndarray of shape (n_periodic, 3)
        Reduced periodic vectors, Angstrom.
    tolerance : float
        Upper bound on the truncation error of any matrix element, 1/Angstrom.

    Returns
    -------
    cutoff : float or ndarray
        Cutoff of the distance, Angstrom.
    """
    # A pair adds the difference of two error functions. At the cutoff, the one with the smaller
    # width has converged to 1, so that the larger width determines the cutoff.
    reach = np.maximum(sigma, width)
    points, x = lattice_points(vectors), 6.0
    for _ in range(FIXED_POINT_STEPS):
        x = _gaussian(points((x + 1.0) * reach) * np.sqrt(2 / np.pi) / (x**2 * reach), tolerance)
    return x * reach


def wave_cutoff(sigma, cell, tolerance):
    """Length of k beyond which plane waves add less than the tolerance to any matrix element.

    Parameters
    ----------
    sigma, tolerance
        As in `real_cutoff`.
    cell : ndarray of shape (3, 3)
        Reduced cell of the waves, Angstrom.

    Returns
    -------
    cutoff : float or ndarray
        Cutoff of the wave vectors, 1/Angstrom.
    """
    volume, reciprocal = abs(np.linalg.det(cell)), 2 * np.pi * np.linalg.inv(cell).T
    points, x = lattice_points(reciprocal), 6.0
    for _ in range(FIXED_POINT_STEPS):
        x = _gaussian(points((x + 1.0) / sigma) * 4 * np.pi * sigma**2 / (volume * x**2), tolerance)
    return x / sigma


def lattice_points(vectors):
    """Return the function N(R), an upper bound on the number of lattice points in a ball.

    The cells around the points in a ball of radius R all fit into a ball of radius R + d, where d
    is half the longest diagonal of the cell.
    """
    n = len(vectors)
    if n == 0:
        return lambda radius: 1.0
    signs = np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]])[:, :n]
    d = 0.5 * np.linalg.norm(signs @ vectors, axis=1).max()
    density = {2: np.pi, 3: 4 * np.pi / 3}[n] / np.sqrt(np.linalg.det(vectors @ vectors.T))
    return lambda radius: density * (radius + d) ** n


def slab_gap(vectors, width, accuracy):
    """Smallest gap between slabs for which they interact by net charges and dipoles only.

    A plane wave with the in-plane vector k adds at most ``(4 pi / (S k)) exp(-k gap)``. A circle of
    radius k contains at most ``pi (k + d)^2 S / (4 pi^2)`` wave vectors, where d is half a diagonal
    of the reciprocal cell. Waves with vectors longer than the shortest one decay as
    ``exp(-k gap)``. The gap must also be so wide that Gaussians of neighbouring slabs do not
    overlap.

    Parameters
    ----------
    vectors : ndarray of shape (2, 3)
        Reduced in-plane vectors, Angstrom.
    width : float
        Largest ``gamma_ij``, Angstrom.
    accuracy : float
        Upper bound on the error of a matrix element, 1/Angstrom.

    Returns
    -------
    gap : float
        Width of the empty space, Angstrom.
    """
    area = np.linalg.norm(np.cross(*vectors))
    k = 2 * np.pi * np.linalg.pinv(vectors).T
    # Half the diagonal of a reduced cell is at most its longer side.
    d = np.linalg.norm(k, axis=1).max()
    k_min = min(np.linalg.norm(x) for x in (k[0], k[1], k[0] + k[1], k[0] - k[1]))
    gap = 10.0 / k_min
    for _ in range(20):
        waves = area / (4 * np.pi) * (k_min + 2.0 / gap + d) ** 2
        gap = max(1.0, np.log(4 * waves * 4 * np.pi / (area * k_min) / accuracy)) / k_min
    overlap = np.sqrt(2 * max(1.0, np.log(8 * np.pi * width / area / accuracy)))
    return max(gap, overlap * width)


def check_accuracy(accuracy):
    """Raise an error for an accuracy beyond double precision, or too loose to be useful."""
    low, high = ACCURACIES
    if not (isinstance(accuracy, Real) and low <= accuracy <= high):
        raise ValueError(f"accuracy must be between {low:g} and {high:g}, got {accuracy!r}")


def _gaussian(prefactor, tolerance):
    """The x at which ``prefactor exp(-x^2 / 2)`` equals the tolerance, but at least 2."""
    return np.sqrt(np.maximum(4.0, 2 * np.log(prefactor / tolerance)))
