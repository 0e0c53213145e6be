"""The sums of an Ewald summation, vectorised; the twin of `_ewald`."""

import numpy as np
from scipy.special import erfc


def ewald_pairs(i, j, d, widths, kappa):
    n = len(widths)
    gamma = np.hypot(widths[i], widths[j])
    values = (erfc(kappa / np.sqrt(2.0) * d) - erfc(d / (np.sqrt(2.0) * gamma))) / d
    half = np.bincount(i * n + j, values, minlength=n * n).reshape(n, n)
    return half + half.T


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
