"""The sums of an Ewald summation, as loops for Pythran; the twin is `_ewald_numpy`."""

import math

import numpy as np


def complement_table():
    """Taylor coefficients of erfc about the multiples of 1/32 from 0 to 6.

    The differential equation ``y'' = -2 x y'`` gives each coefficient from the two before it.
    """
    table = np.empty((193, 8))
    for m in range(193):
        x = m / 32.0
        table[m, 0] = math.erfc(x)
        table[m, 1] = -2.0 / math.sqrt(math.pi) * math.exp(-x * x)
        for k in range(2, 8):
            before = (k - 2.0) / (k - 1.0) * table[m, k - 2]
            table[m, k] = -2.0 / k * (x * table[m, k - 1] + before)
    return table


def complement(table, x):
    """``erfc(x)`` with an error of 3e-16, in a quarter of the time of `math.erfc`."""
    # For x >= 6, erfc(x) is below machine precision.
    if x >= 6.0:
        return 0.0
    m = int(32.0 * x + 0.5)
    t = x - m / 32.0
    value = table[m, 7]
    for k in range(6, -1, -1):
        value = value * t + table[m, k]
    return value


def pair_slope(table, r2, a, b):
    """``(df / dr) / r`` for the function ``f = (erfc(b r) - erfc(a r)) / r``."""
    r = math.sqrt(r2)
    value = complement(table, b * r) - complement(table, a * r)
    slope = -b * math.exp(-b * b * r2)
    # For ``a * r >= 6`` the Gaussian is below machine precision.
    if a * r < 6.0:
        slope += a * math.exp(-a * a * r2)
    return (2.0 / math.sqrt(math.pi) * slope - value / r) / r2


def image_shifts(cell, images):
    """Vectors (3, n_images) from the first image of an atom, see `lowest_image`, to its others."""
    shifts = np.empty((3, images[0] * images[1] * images[2]))
    for m in range(shifts.shape[1]):
        for v in range(3):
            shifts[v, m] = (
                m // (images[1] * images[2]) * cell[0, v]
                + m // images[2] % images[1] * cell[1, v]
                + m % images[2] * cell[2, v]
            )
    return shifts


def lowest_step(f, images):
    """Shift the fraction f by an integer to the interval [-images / 2, 1 - images / 2)."""
    # The argument of int is positive because f > -1; int therefore rounds down.
    return f - (int(f + 0.5 * images + 1.0) - 1)


def lowest_image(fractions, cell, images, i, j):
    """Vector from atom j to the first of the images of atom i that are considered.

    Along each axis this image has the lowest cell index of all that are considered.
    """
    u = lowest_step(fractions[i, 0] - fractions[j, 0], images[0])
    v = lowest_step(fractions[i, 1] - fractions[j, 1], images[1])
    w = lowest_step(fractions[i, 2] - fractions[j, 2], images[2])
    return (
        u * cell[0, 0] + v * cell[1, 0] + w * cell[2, 0],
        u * cell[0, 1] + v * cell[1, 1] + w * cell[2, 1],
        u * cell[0, 2] + v * cell[1, 2] + w * cell[2, 2],
    )


# pythran export ewald_pair_matrix(float64[:,:], float64[:,:], int64[:], float64[:], float64,
#                                  float64, float64[:])
def ewald_pair_matrix(fractions, cell, images, widths, cutoff, kappa, smooth):
    n = widths.shape[0]
    shifts = image_shifts(cell, images)
    n_images = shifts.shape[1]
    table = complement_table()
    b = kappa / math.sqrt(2.0)
    r2 = np.empty(n_images)
    near = np.empty(n_images)
    out = np.empty((n, n))
    # The matrix is filled eight columns j at a time. The elements out[j, i] of the upper triangle
    # then fill eight rows from left to right, and not one column with a long stride.
    for first in range(0, n, 8):
        for i in range(first, n):
            for j in range(first, min(first + 8, i + 1)):
                dx, dy, dz = lowest_image(fractions, cell, images, i, j)
                for m in range(n_images):
                    x = dx + shifts[0, m]
                    y = dy + shifts[1, m]
                    z = dz + shifts[2, m]
                    r2[m] = x * x + y * y + z * z
                # A branch would often be mispredicted. The loop therefore stores every image. If an
                # image is beyond the cutoff, the next image overwrites it.
                n_near = 0
                for m in range(n_images):
                    near[n_near] = r2[m]
                    n_near += r2[m] <= cutoff * cutoff
                a = 1.0 / math.sqrt(2.0 * (widths[i] * widths[i] + widths[j] * widths[j]))
                total = smooth[i] + smooth[j]
                for m in range(n_near):
                    # The limit r = 0 belongs to an atom and itself.
                    if near[m] > 1e-16:
                        r = math.sqrt(near[m])
                        total += (complement(table, b * r) - complement(table, a * r)) / r
                    else:
                        total += 2.0 / math.sqrt(math.pi) * (a - b)
                out[i, j] = total
                out[j, i] = total
    return out


# pythran export ewald_matrix_gradient(float64[:,:], float64[:,:], int64[:], float64[:], float64,
#                                      float64, float64[:])
def ewald_matrix_gradient(fractions, cell, images, widths, cutoff, kappa, q):
    n = widths.shape[0]
    shifts = image_shifts(cell, images)
    n_images = shifts.shape[1]
    table = complement_table()
    b = kappa / math.sqrt(2.0)
    r2 = np.empty(n_images)
    near = np.empty(n_images, dtype=np.int64)
    gradient = np.empty((n, 3, n))
    virial = np.zeros((n, 3, 3))
    step = np.empty(3)
    strain = np.empty((3, 3))
    # The loops fill eight columns at a time, and find images within the cutoff without a branch.
    # The reasons are the same as in `ewald_pair_matrix`.
    for first in range(0, n, 8):
        for i in range(first, n):
            for j in range(first, min(first + 8, i + 1)):
                dx, dy, dz = lowest_image(fractions, cell, images, i, j)
                for m in range(n_images):
                    x = dx + shifts[0, m]
                    y = dy + shifts[1, m]
                    z = dz + shifts[2, m]
                    r2[m] = x * x + y * y + z * z
                n_near = 0
                for m in range(n_images):
                    near[n_near] = m
                    n_near += r2[m] <= cutoff * cutoff
                a = 1.0 / math.sqrt(2.0 * (widths[i] * widths[i] + widths[j] * widths[j]))
                step[:] = 0.0
                strain[:] = 0.0
                for k in range(n_near):
                    m = near[k]
                    # The distance of an atom from itself is always zero and has no derivative.
                    if r2[m] > 1e-16:
                        slope = pair_slope(table, r2[m], a, b)
                        x = dx + shifts[0, m]
                        y = dy + shifts[1, m]
                        z = dz + shifts[2, m]
                        step[0] += slope * x
                        step[1] += slope * y
                        step[2] += slope * z
                        strain[0, 0] += slope * x * x
                        strain[1, 0] += slope * y * x
                        strain[1, 1] += slope * y * y
                        strain[2, 0] += slope * z * x
                        strain[2, 1] += slope * z * y
                        strain[2, 2] += slope * z * z
                for u in range(3):
                    gradient[i, u, j] = step[u]
                    gradient[j, u, i] = -step[u]
                    for v in range(u + 1):
                        virial[i, u, v] += q[j] * strain[u, v]
                        if i != j:
                            virial[j, u, v] += q[i] * strain[u, v]
    # The derivatives with respect to a strain are symmetric; only the lower triangle was summed.
    for i in range(n):
        for u in range(3):
            for v in range(u):
                virial[i, v, u] = virial[i, u, v]
    return gradient, virial


# pythran export ewald_pair_gradient(int64[:], int64[:], float64[:,:], float64[:], float64[:],
#                                    float64[:], float64)
def ewald_pair_gradient(i, j, D, widths, q, p, kappa):
    gradient = np.zeros((widths.shape[0], 3))
    virial = np.zeros((3, 3))
    table = complement_table()
    b = kappa / math.sqrt(2.0)
    # Each pair stands for (i, j) and (j, i), hence the factor q_i p_j + q_j p_i.
    for pair in range(i.shape[0]):
        ip = i[pair]
        jp = j[pair]
        x = D[pair, 0]
        y = D[pair, 1]
        z = D[pair, 2]
        a = 1.0 / math.sqrt(2.0 * (widths[ip] * widths[ip] + widths[jp] * widths[jp]))
        slope = pair_slope(table, x * x + y * y + z * z, a, b)
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
    # A phase factor is a product of one factor per axis. Tables of these factors replace a cosine
    # and a sine per wave by a few multiplications.
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
    table = complement_table()
    b = kappa / math.sqrt(2.0)
    for pair in range(i.shape[0]):
        wi = widths[i[pair]]
        wj = widths[j[pair]]
        x = D[pair, 0]
        y = D[pair, 1]
        z = D[pair, 2]
        r = math.sqrt(x * x + y * y + z * z)
        a = 1.0 / math.sqrt(2.0 * (wi * wi + wj * wj))
        out[pair] = (complement(table, b * r) - complement(table, a * r)) / r
    return out
