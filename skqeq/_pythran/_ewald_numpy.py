"""The sums of an Ewald summation, vectorised; the twin of `_ewald`."""

import numpy as np
from scipy.special import erf, erfc


def ewald_pair_matrix(fractions, cell, images, widths, cutoff, kappa, smooth):
    n = len(widths)
    shifts = np.indices(images).reshape(3, -1).T @ cell
    i, j = np.tril_indices(n)
    a, b = np.sqrt(0.5) / np.hypot(widths[i], widths[j]), kappa / np.sqrt(2.0)
    values = smooth[i] + smooth[j]
    # A block of pairs of atoms and all of their images stay in the cache.
    step = max(1, 2**15 // len(shifts))
    for start in range(0, len(i), step):
        block = slice(start, start + step)
        f = fractions[i[block]] - fractions[j[block]]
        d = (f - np.floor(f + 0.5 * images)) @ cell
        r2 = sum(np.add.outer(d[:, v], shifts[:, v]) ** 2 for v in range(3))
        pair, image = np.nonzero(r2 <= cutoff**2)
        # Of an atom and itself the limit, to all digits: erf is linear there.
        r = np.sqrt(np.maximum(r2[pair, image], 1e-16))
        f = (erf(a[block][pair] * r) - erf(b * r)) / r
        values[block] += np.bincount(pair, f, minlength=len(d))
    out = np.empty((n, n))
    out[i, j] = out[j, i] = values
    return out


def ewald_pair_gradient(i, j, D, widths, q, p, kappa):
    a, b = np.sqrt(0.5) / np.hypot(widths[i], widths[j]), kappa / np.sqrt(2.0)
    r = np.linalg.norm(D, axis=1)
    value = erfc(b * r) - erfc(a * r)
    slope = a * np.exp(-((a * r) ** 2)) - b * np.exp(-((b * r) ** 2))
    slope = (2.0 / np.sqrt(np.pi) * slope - value / r) / r**2
    step = (slope * (q[i] * p[j] + q[j] * p[i]))[:, None] * D
    gradient = [
        np.bincount(j, s, minlength=len(widths)) - np.bincount(i, s, minlength=len(widths))
        for s in step.T
    ]
    return np.stack(gradient, axis=1), step.T @ D


def structure_factors(phases, n, weights):
    angles = phases @ n.T
    return np.concatenate([weights * np.cos(angles), weights * np.sin(angles)], axis=1)


def ewald_pair_values(i, j, D, widths, kappa):
    d = np.sqrt(np.einsum("pa,pa->p", D, D))
    gamma = np.hypot(widths[i], widths[j])
    return (erfc(kappa * d / np.sqrt(2)) - erfc(d / (np.sqrt(2) * gamma))) / d
