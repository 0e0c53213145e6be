"""How an Ewald sum is divided between real and reciprocal space, for a given accuracy.

Both truncation errors are bounded rather than estimated. A lattice of cell volume V has at most::

    N(R) = (4 pi / 3) (R + d)^3 / V,    d half the longest diagonal of the cell,

points in any ball of radius R (in the plane, ``pi (R + d)^2 / S``). Summation by parts bounds the
sum of a falling function f beyond the cutoff R by ``N(R + h) f(R) + N(R + 2 h) f(R + h) + ...``.
Only the first term is used: with each step h, f falls by a factor exp(-4) at the loosest accuracy,
and faster at any other. The omitted terms are more than compensated because the bound ignores that
terms of the sum cancel: the errors of 5,600 random cells were all below a tenth of it. In real
space ``f(r) = erfc(r / (sqrt(2) sigma)) / r`` and ``h = sigma``; in reciprocal space
``f(k) = (4 pi / V) exp(-sigma^2 k^2 / 2) / k^2`` and ``h = 1 / sigma``.

The matrix of n atoms takes half of the pairs and half of the wave vectors k, and costs::

    n^2 (t_pair (2 pi / 3) r_c^3 / V + t_wave V k_c^3 / (12 pi^2))

Both parts grow as n^2, so that the best sigma is proportional to V^(1/3) and independent of n.
"""

from dataclasses import dataclass
from numbers import Real

import numpy as np

# Costs in ns, measured: a pair within the cutoff; a wave vector, per element of F F^T.
PAIR_COST = 11.0
WAVE_COST = 0.03
# The smallest and the largest accuracy that can be asked for.
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
        """The cheapest splitting with the required accuracy.

        Parameters
        ----------
        cell : ndarray of shape (3, 3)
            Reduced cell vectors in rows, Angstrom.
        width : float
            Largest ``gamma_ij``, Angstrom: a sigma below it would not shorten the real-space sum.
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
        # Each of the two sums may have half of the error.
        real = real_cutoff(sigmas, width, cell, accuracy / 2)
        reciprocal = wave_cutoff(sigmas, cell, accuracy / 2)
        pairs = 2 * np.pi / 3 * real**3 / volume
        waves = volume * reciprocal**3 / (12 * np.pi**2)
        best = np.argmin(PAIR_COST * pairs + WAVE_COST * waves)
        return cls(float(sigmas[best]), float(real[best]), float(reciprocal[best]))


def real_cutoff(sigma, width, vectors, tolerance):
    """Distance beyond which the pairs add less than the tolerance to any element.

    Parameters
    ----------
    sigma : float or ndarray
        Splitting width, Angstrom.
    width : float
        Largest ``gamma_ij``, Angstrom.
    vectors : ndarray of shape (n_periodic, 3)
        Reduced periodic vectors, Angstrom.
    tolerance : float
        1/Angstrom.

    Returns
    -------
    cutoff : float or ndarray
        Angstrom.
    """
    # A pair adds the difference of two error functions. At the cutoff the narrower one has
    # converged to 1, so that the wider one decides.
    reach = np.maximum(sigma, width)
    points, x = lattice_points(vectors), 6.0
    for _ in range(FIXED_POINT_STEPS):
        x = _gaussian(points((x + 1.0) * reach) * np.sqrt(2 / np.pi) / (x**2 * reach), tolerance)
    return x * reach


def wave_cutoff(sigma, cell, tolerance):
    """Length beyond which the waves add less than the tolerance to any element; 1/Angstrom.

    Parameters
    ----------
    sigma, tolerance
        As in `real_cutoff`.
    cell : ndarray of shape (3, 3)
        Reduced cell of the waves, Angstrom.

    Returns
    -------
    cutoff : float or ndarray
        1/Angstrom.
    """
    volume, reciprocal = abs(np.linalg.det(cell)), 2 * np.pi * np.linalg.inv(cell).T
    points, x = lattice_points(reciprocal), 6.0
    for _ in range(FIXED_POINT_STEPS):
        x = _gaussian(points((x + 1.0) / sigma) * 4 * np.pi * sigma**2 / (volume * x**2), tolerance)
    return x / sigma


def lattice_points(vectors):
    """A function of a radius that bounds the number of lattice points in a ball.

    The cells around these points fit into a ball whose radius is larger by half a diagonal.
    """
    n = len(vectors)
    if n == 0:
        return lambda radius: 1.0
    signs = np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]])[:, :n]
    d = 0.5 * np.linalg.norm(signs @ vectors, axis=1).max()
    density = {2: np.pi, 3: 4 * np.pi / 3}[n] / np.sqrt(np.linalg.det(vectors @ vectors.T))
    return lambda radius: density * (radius + d) ** n


def slab_gap(vectors, width, accuracy):
    """Empty space between slabs beyond which they interact by net charges and dipoles only.

    The wave of in-plane vector k adds at most ``(4 pi / (S k)) exp(-k gap)``. A circle of radius k
    contains no more than ``pi (k + d)^2 S / (4 pi^2)`` waves, where d is half a diagonal of the
    reciprocal cell, and beyond the shortest vector they fall as ``exp(-k gap)``. The gap must also
    be so wide that the Gaussians of two slabs do not overlap.

    Parameters
    ----------
    vectors : ndarray of shape (2, 3)
        Reduced in-plane vectors, Angstrom.
    width : float
        Largest ``gamma_ij``, Angstrom.
    accuracy : float
        Upper bound on the error of an matrix element, 1/Angstrom.

    Returns
    -------
    gap : float
        Angstrom.
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
    """Refuse an accuracy beyond double precision, and one that is too loose to be useful."""
    low, high = ACCURACIES
    if not (isinstance(accuracy, Real) and low <= accuracy <= high):
        raise ValueError(f"accuracy must be between {low:g} and {high:g}, got {accuracy!r}")


def _gaussian(prefactor, tolerance):
    """The x at which ``prefactor exp(-x^2 / 2)`` equals the tolerance, but at least 2."""
    return np.sqrt(np.maximum(4.0, 2 * np.log(prefactor / tolerance)))
