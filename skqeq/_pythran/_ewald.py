"""The sums of an Ewald summation, in loops for Pythran; the twin is `_ewald_numpy`."""

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


# pythran export ewald_pair_gradient(int64[:], int64[:], float64[:,:], float64[:], float64[:],
#                                    float64[:], float64)
def ewald_pair_gradient(i, j, D, widths, q, p, kappa):
    gradient = np.zeros((widths.shape[0], 3))
    virial = np.zeros((3, 3))
    b = kappa / math.sqrt(2.0)
    for pair in range(i.shape[0]):
        ip = i[pair]
        jp = j[pair]
        x = D[pair, 0]
        y = D[pair, 1]
        z = D[pair, 2]
        r2 = x * x + y * y + z * z
        r = math.sqrt(r2)
        a = 1.0 / math.sqrt(2.0 * (widths[ip] * widths[ip] + widths[jp] * widths[jp]))
        value = math.erfc(b * r)
        slope = -b * math.exp(-b * b * r2)
        if a * r < 6.0:
            value -= math.erfc(a * r)
            slope += a * math.exp(-a * a * r2)
        # The derivative of the pair's value / r with respect to r, over r.
        slope = (2.0 / math.sqrt(math.pi) * slope - value / r) / r2
        slope *= q[ip] * p[jp] + q[jp] * p[ip]
        for u in range(3):
            step = slope * D[pair, u]
            gradient[ip, u] -= step
            gradient[jp, u] += step
            for v in range(3):
                virial[u, v] += step * D[pair, v]
    return gradient, virial


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


# pythran export ewald_pair_values(int64[:], int64[:], float64[:,:], float64[:], float64)
def ewald_pair_values(i, j, D, widths, kappa):
    out = np.empty(i.shape[0])
    b = kappa / math.sqrt(2.0)
    for pair in range(i.shape[0]):
        wi = widths[i[pair]]
        wj = widths[j[pair]]
        r = math.sqrt(D[pair, 0] ** 2 + D[pair, 1] ** 2 + D[pair, 2] ** 2)
        a = r / math.sqrt(2.0 * (wi * wi + wj * wj))
        value = math.erfc(b * r)
        if a < 6.0:
            value -= math.erfc(a)
        out[pair] = value / r
    return out
