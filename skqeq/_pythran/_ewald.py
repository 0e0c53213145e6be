"""The two sums of an Ewald summation, in loops for Pythran; the twin is `_ewald_numpy`."""

import math

import numpy as np


# pythran export ewald_pairs(int64[:], int64[:], float64[:], float64[:], float64)
def ewald_pairs(i, j, d, widths, kappa):
    out = np.zeros((widths.shape[0], widths.shape[0]))
    b = kappa / math.sqrt(2.0)
    for pair in range(i.shape[0]):
        wi = widths[i[pair]]
        wj = widths[j[pair]]
        r = d[pair]
        a = r / math.sqrt(2.0 * (wi * wi + wj * wj))
        value = math.erfc(b * r)
        # Beyond 6 the complement is below the rounding of one.
        if a < 6.0:
            value -= math.erfc(a)
        value /= r
        out[i[pair], j[pair]] += value
        out[j[pair], i[pair]] += value
    return out


# pythran export structure_factors(float64[:,:], int64[:,:], float64[:])
def structure_factors(phases, n, weights):
    n_atoms = phases.shape[0]
    n_waves = n.shape[0]
    top = 0
    for k in range(n_waves):
        for axis in range(3):
            top = max(top, abs(n[k, axis]))
    out = np.empty((n_atoms, 2 * n_waves))
    cosines = np.empty((3, 2 * top + 1))
    sines = np.empty((3, 2 * top + 1))
    for atom in range(n_atoms):
        for axis in range(3):
            for m in range(top + 1):
                c = math.cos(m * phases[atom, axis])
                s = math.sin(m * phases[atom, axis])
                cosines[axis, top + m] = c
                cosines[axis, top - m] = c
                sines[axis, top + m] = s
                sines[axis, top - m] = -s
        for k in range(n_waves):
            cx = cosines[0, top + n[k, 0]]
            sx = sines[0, top + n[k, 0]]
            cy = cosines[1, top + n[k, 1]]
            sy = sines[1, top + n[k, 1]]
            cz = cosines[2, top + n[k, 2]]
            sz = sines[2, top + n[k, 2]]
            c = cx * cy - sx * sy
            s = cx * sy + sx * cy
            out[atom, k] = weights[k] * (c * cz - s * sz)
            out[atom, n_waves + k] = weights[k] * (c * sz + s * cz)
    return out
