"""Coulomb interaction of Gaussian charges, as loops for Pythran; the twin is `_coulomb_numpy`."""

import math

import numpy as np


# pythran export gaussian_coulomb(float64[:,:], float64[:], float64[:,:], float64[:])
def gaussian_coulomb(ra, wa, rb, wb):
    out = np.empty((ra.shape[0], rb.shape[0]))
    for i in range(ra.shape[0]):
        for j in range(rb.shape[0]):
            x = ra[i, 0] - rb[j, 0]
            y = ra[i, 1] - rb[j, 1]
            z = ra[i, 2] - rb[j, 2]
            r = math.sqrt(x * x + y * y + z * z)
            g = math.sqrt(wa[i] * wa[i] + wb[j] * wb[j])
            if g == 0.0:
                out[i, j] = 1.0 / r if r > 0.0 else np.inf
            elif r > 1e-8 * g:
                out[i, j] = math.erf(r / (math.sqrt(2.0) * g)) / r
            else:
                # The limit r = 0: the next term of the series, relative size r^2 / (6 g^2), is
                # below machine precision.
                out[i, j] = math.sqrt(2.0 / math.pi) / g
    return out


# pythran export gaussian_coulomb_gradient(float64[:,:], float64[:])
def gaussian_coulomb_gradient(positions, widths):
    n = widths.shape[0]
    out = np.zeros((n, 3, n))
    # Each pair once: the derivatives with respect to its two atoms differ in sign only.
    for i in range(n):
        for j in range(i):
            x = positions[i, 0] - positions[j, 0]
            y = positions[i, 1] - positions[j, 1]
            z = positions[i, 2] - positions[j, 2]
            r = math.sqrt(x * x + y * y + z * z)
            a = 1.0 / math.sqrt(2.0 * (widths[i] * widths[i] + widths[j] * widths[j]))
            slope = -1.0 / (r * r * r)
            # For a r >= 6 Gaussian charges interact like point charges, to machine precision.
            if a * r < 6.0:
                gaussian = 2.0 / math.sqrt(math.pi) * a * math.exp(-a * a * r * r)
                slope = (gaussian - math.erf(a * r) / r) / (r * r)
            out[i, 0, j] = slope * x
            out[i, 1, j] = slope * y
            out[i, 2, j] = slope * z
            out[j, 0, i] = -slope * x
            out[j, 1, i] = -slope * y
            out[j, 2, i] = -slope * z
    return out
