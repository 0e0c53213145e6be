"""Coulomb interaction of Gaussian charges, vectorised; the twin of `_coulomb`."""

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import erf


def gaussian_coulomb(ra, wa, rb, wb):
    r = cdist(ra, rb)
    g = np.hypot.outer(wa, wb)
    # IEEE arithmetic gives the limits: erf(r / 0) = 1 is a pair of points, 1 / 0 two at one place.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(r > 1e-8 * g, erf(r / (np.sqrt(2.0) * g)) / r, np.sqrt(2.0 / np.pi) / g)


def gaussian_coulomb_gradient(positions, widths):
    r = cdist(positions, positions)
    # Of an atom and itself the vector is zero, and so is the result.
    np.fill_diagonal(r, 1.0)
    a = np.sqrt(0.5) / np.hypot.outer(widths, widths)
    slope = (2.0 / np.sqrt(np.pi) * a * np.exp(-((a * r) ** 2)) - erf(a * r) / r) / r**2
    return slope[:, None] * (positions[:, :, None] - positions.T)
