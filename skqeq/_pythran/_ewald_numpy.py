"""The sums of an Ewald summation, vectorised; the twin of `_ewald`."""

import numpy as np
from scipy.special import erf, erfc


def ewald_pair_matrix(fractions, cell, images, widths, cutoff, kappa, smooth):
    n = len(widths)
    i, j = np.tril_indices(n)
    a, b = np.sqrt(0.5) / np.hypot(widths[i], widths[j]), kappa / np.sqrt(2.0)
    values = smooth[i] + smooth[j]
    for block, pair, D in near_pairs(fractions, cell, images, cutoff):
        # For an atom with itself this is the limit r = 0, exact to machine precision, because erf
        # is linear at so small r.
        r = np.maximum(np.linalg.norm(D, axis=1), 1e-8)
        f = (erf(a[block][pair] * r) - erf(b * r)) / r
        values[block] += np.bincount(pair, f, minlength=len(values[block]))
    out = np.empty((n, n))
    out[i, j] = out[j, i] = values
    return out


def near_pairs(fractions, cell, images, cutoff):
    """Yield the pairs of atoms i >= j in blocks, with the images of i within the cutoff from j.

    A block is a slice of the pairs of atoms. With it come two arrays with one entry per image: the
    index of its pair in the block, and the vector from j to the image.
    """
    shifts = np.indices(images).reshape(3, -1).T @ cell
    i, j = np.tril_indices(len(fractions))
    # The arrays of one block, with an entry for every pair and image, fit into the CPU cache.
    step = max(1, 2**15 // len(shifts))
    for start in range(0, len(i), step):
        block = slice(start, start + step)
        f = fractions[i[block]] - fractions[j[block]]
        d = (f - np.floor(f + 0.5 * images)) @ cell
        r2 = sum(np.add.outer(d[:, v], shifts[:, v]) ** 2 for v in range(3))
        pair, image = np.nonzero(r2 <= cutoff**2)
        yield block, pair, d[pair] + shifts[image]


def ewald_matrix_gradient(fractions, cell, images, widths, cutoff, kappa, q):
    n = len(widths)
    i, j = np.tril_indices(n)
    a, b = np.sqrt(0.5) / np.hypot(widths[i], widths[j]), kappa / np.sqrt(2.0)
    gradient, virial = np.empty((n, 3, n)), np.zeros((n, 3, 3))
    for block, pair, D in near_pairs(fractions, cell, images, cutoff):
        r = np.linalg.norm(D, axis=1)
        # The distance of an atom from itself is always zero and has no derivative.
        pair, D, r = (x[r > 1e-8] for x in (pair, D, r))
        at, to = i[block], j[block]
        step = pair_slope(r, a[block][pair], b) * D.T
        for u in range(3):
            total = np.bincount(pair, step[u], minlength=len(at))
            gradient[at, u, to], gradient[to, u, at] = total, -total
            for v in range(3):
                total = np.bincount(pair, step[u] * D[:, v], minlength=len(at))
                virial[:, u, v] += np.bincount(at, q[to] * total, minlength=n)
                virial[:, u, v] += np.bincount(to, (at != to) * q[at] * total, minlength=n)
    return gradient, virial


def pair_slope(r, a, b):
    """``(df / dr) / r`` for the function ``f = (erfc(b r) - erfc(a r)) / r``."""
    # Larger exponents would underflow.
    of_a, of_b = (np.exp(-np.minimum((x * r) ** 2, 300.0)) for x in (a, b))
    slope = a * of_a - b * of_b
    return (2.0 / np.sqrt(np.pi) * slope - (erfc(b * r) - erfc(a * r)) / r) / r**2


def ewald_pair_gradient(i, j, D, widths, q, p, kappa):
    a, b = np.sqrt(0.5) / np.hypot(widths[i], widths[j]), kappa / np.sqrt(2.0)
    slope = pair_slope(np.linalg.norm(D, axis=1), a, b)
    step = (slope * (q[i] * p[j] + q[j] * p[i]))[:, None] * D
    gradient = [
        np.bincount(j, s, minlength=len(widths)) - np.bincount(i, s, minlength=len(widths))
        for s in step.T
    ]
    # Without any pairs, bincount returns integers.
    return np.stack(gradient, axis=1).astype(np.float64), step.T @ D


def structure_factors(phases, n, weights):
    angles = phases @ n.T
    return np.concatenate([weights * np.cos(angles), weights * np.sin(angles)], axis=1)


def ewald_pair_values(i, j, D, widths, kappa):
    d = np.sqrt(np.einsum("pa,pa->p", D, D))
    gamma = np.hypot(widths[i], widths[j])
    return (erfc(kappa * d / np.sqrt(2)) - erfc(d / (np.sqrt(2) * gamma))) / d
