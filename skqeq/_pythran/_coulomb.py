"""Coulomb interaction of Gaussian charges, in loops for Pythran; the twin is `_coulomb_numpy`."""

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
                # The next term of the series, r^2 / (6 g^2), is below rounding.
                out[i, j] = math.sqrt(2.0 / math.pi) / g
    return out
