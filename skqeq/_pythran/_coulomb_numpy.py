"""Coulomb interaction of Gaussian charges, vectorised; the twin of `_coulomb`."""

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import erf


def gaussian_coulomb(ra, wa, rb, wb):
    r = cdist(ra, rb)
    g = np.hypot.outer(wa, wb)
    # A division by zero gives the right limits: erf(r / 0) = 1 for two point charges, and
    # 1 / 0 = inf for two point charges at the same place.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(r > 1e-8 * g, erf(r / (np.sqrt(2.0) * g)) / r, np.sqrt(2.0 / np.pi) / g)


def gaussian_coulomb_gradient(positions, widths):
    r = cdist(positions, positions)
    # The distance of an atom from itself may be any positive number: it is multiplied by a vector
    # of zero.
    np.fill_diagonal(r, 1.0)
    a = np.sqrt(0.5) / np.hypot.outer(widths, widths)
    # Larger exponents would underflow.
    decay = np.exp(-np.minimum((a * r) ** 2, 300.0))
    slope = (2.0 / np.sqrt(np.pi) * a * decay - erf(a * r) / r) / r**2
    return slope[:, None] * (positions[:, :, None] - positions.T)
