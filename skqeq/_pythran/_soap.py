"""Power spectra and their derivatives, as loops for Pythran; the twin is `_soap_numpy`.

Arrays of density coefficients, such as `c`, have rows (l, m) and columns (channel, n), so that the
innermost loops run over contiguous memory. The helper functions work on the neighbours of one
centre and return new arrays. If they wrote to their arguments, Pythran would derive types that take
g++ minutes to compile.
"""

import math

import numpy as np


def normalizations(l_max):
    """Factors that turn `solid_harmonics` into r^l times real spherical harmonics."""
    norms = np.empty((l_max + 1) * (l_max + 1))
    for l in range(l_max + 1):
        for m in range(l + 1):
            norm = (2.0 * l + 1.0) / (4.0 * math.pi) * math.gamma(l - m + 1.0)
            norm = math.sqrt(norm * math.gamma(l + m + 1.0) * (1.0 if m == 0 else 2.0))
            norms[l * l + l + m] = norm
            norms[l * l + l - m] = norm
    return norms


def solid_harmonics(pairs, first, last, l_max):
    """``r^l P_lm exp(i m phi) / (l + m)!`` for neighbours `first` to `last`.

    The real part is stored in column l^2 + l + m, the imaginary part in column l^2 + l - m. With
    this scaling, recursions and derivatives have the simplest coefficients: Helgaker, Jorgensen,
    Olsen, Molecular Electronic-Structure Theory (2000), section 6.4.
    """
    R = np.empty((last - first, (l_max + 1) * (l_max + 1)))
    for p in range(last - first):
        x = pairs[first + p, 0]
        y = pairs[first + p, 1]
        z = pairs[first + p, 2]
        r2 = x * x + y * y + z * z
        R[p, 0] = 1.0
        for l in range(1, l_max + 1):
            here = l * l + l
            below = l * l - l
            lowest = l * l - 3 * l + 2
            for m in range(1 - l, l):
                value = (2.0 * l - 1.0) * z * R[p, below + m]
                if abs(m) < l - 1:
                    value -= r2 * R[p, lowest + m]
                R[p, here + m] = value / (l * l - m * m)
            # For l = 1, the harmonic of degree l - 1 has m = 0 and no imaginary part.
            real = R[p, below + l - 1]
            imaginary = R[p, below - l + 1] if l > 1 else 0.0
            R[p, here + l] = -(x * real - y * imaginary) / (2.0 * l)
            R[p, here - l] = -(y * real + x * imaginary) / (2.0 * l)
    return R


def harmonic_slopes(R, l_max):
    """Derivatives (n_neighbors, 3, n_harmonics) of solid harmonics with respect to x, y, z.

    The derivatives of a harmonic of degree l are harmonics of degree l - 1. Let ``R_m`` stand for
    ``r^(l-1) P exp(i m phi) / (l - 1 + m)!``, with ``R_-m = (-1)^m R_m*``. Then
    ``d/dz = R_m``, ``d/dx + i d/dy = R_(m+1)``, ``d/dx - i d/dy = -R_(m-1)``.
    """
    dR = np.zeros((R.shape[0], 3, R.shape[1]))
    for p in range(R.shape[0]):
        for l in range(1, l_max + 1):
            here = l * l + l
            below = l * l - l
            for m in range(1 - l, l):
                dR[p, 2, here + m] = R[p, below + m]
            if l > 1:
                dR[p, 0, here] = R[p, below + 1]
                dR[p, 1, here] = R[p, below - 1]
            for m in range(1, l + 1):
                if m < l - 1:
                    dR[p, 0, here + m] = 0.5 * R[p, below + m + 1]
                    dR[p, 0, here - m] = 0.5 * R[p, below - m - 1]
                    dR[p, 1, here + m] = 0.5 * R[p, below - m - 1]
                    dR[p, 1, here - m] = -0.5 * R[p, below + m + 1]
                dR[p, 0, here + m] -= 0.5 * R[p, below + m - 1]
                dR[p, 1, here - m] -= 0.5 * R[p, below + m - 1]
                if m > 1:
                    dR[p, 0, here - m] -= 0.5 * R[p, below - m + 1]
                    dR[p, 1, here + m] += 0.5 * R[p, below - m + 1]
    return dR


def gaussians(pairs, first, last, exponents):
    """Gaussians of neighbours `first` to `last`, (n_neighbors, l_max + 1, n_max)."""
    G = np.empty((last - first, exponents.shape[0], exponents.shape[1]))
    for p in range(last - first):
        x = pairs[first + p, 0]
        y = pairs[first + p, 1]
        z = pairs[first + p, 2]
        r2 = x * x + y * y + z * z
        for l in range(exponents.shape[0]):
            for k in range(exponents.shape[1]):
                G[p, l, k] = math.exp(-exponents[l, k] * r2)
    return G


def coefficients(i, pairs, offsets, R, G, contraction, norms):
    """Density coefficients c of centre i."""
    n_max = G.shape[2]
    c = np.zeros((R.shape[1], (offsets.shape[1] - 1) * n_max))
    u = np.empty((R.shape[1], n_max))
    for channel in range(offsets.shape[1] - 1):
        u[:] = 0.0
        for p in range(offsets[i, channel], offsets[i, channel + 1]):
            for l in range(G.shape[1]):
                for m in range(l * l, (l + 1) * (l + 1)):
                    value = pairs[p, 3] * R[p - offsets[i, 0], m]
                    for k in range(n_max):
                        u[m, k] += value * G[p - offsets[i, 0], l, k]
        # Contract the Gaussians to orthogonal radial functions here, after the sum over the
        # neighbours: once per channel instead of once per neighbour.
        for l in range(G.shape[1]):
            for m in range(l * l, (l + 1) * (l + 1)):
                for k in range(n_max):
                    value = norms[m] * u[m, k]
                    for n in range(n_max):
                        c[m, channel * n_max + n] += value * contraction[l, k, n]
    return c


def count_features(runs):
    n_features = 0
    for run in range(runs.shape[0]):
        n_features = max(n_features, runs[run, 3] + runs[run, 4])
    return n_features


# pythran export soap_spectrum(float64[:,:], int64[:,:], float64[:,:], float64[:,:,:], int64[:,:])
def soap_spectrum(pairs, offsets, exponents, contraction, runs):
    l_max = exponents.shape[0] - 1
    norms = normalizations(l_max)
    out = np.zeros((offsets.shape[0], count_features(runs)))
    for i in range(offsets.shape[0]):
        first = offsets[i, 0]
        last = offsets[i, offsets.shape[1] - 1]
        R = solid_harmonics(pairs, first, last, l_max)
        G = gaussians(pairs, first, last, exponents)
        c = coefficients(i, pairs, offsets, R, G, contraction, norms)
        for run in range(runs.shape[0]):
            l = runs[run, 0]
            a = runs[run, 1]
            b = runs[run, 2]
            feature = runs[run, 3]
            for m in range(l * l, (l + 1) * (l + 1)):
                for t in range(runs[run, 4]):
                    out[i, feature + t] += c[m, a] * c[m, b + t]
    return out


# pythran export soap_pull_back(float64[:,:], int64[:,:], float64[:,:], float64[:,:,:], int64[:,:],
#                               float64[:,:])
def soap_pull_back(pairs, offsets, exponents, contraction, runs, cotangents):
    l_max = exponents.shape[0] - 1
    n_max = exponents.shape[1]
    norms = normalizations(l_max)
    out = np.zeros((pairs.shape[0], 3))
    width = (offsets.shape[1] - 1) * n_max
    dc = np.empty((norms.shape[0], width))
    du = np.empty((norms.shape[0], n_max))
    # T[l] is the symmetric matrix of the cotangents of degree l. As a product, dc = c T has long
    # innermost loops, which the compiler can vectorise.
    T = np.zeros((l_max + 1, width, width))
    for i in range(offsets.shape[0]):
        first = offsets[i, 0]
        last = offsets[i, offsets.shape[1] - 1]
        R = solid_harmonics(pairs, first, last, l_max)
        dR = harmonic_slopes(R, l_max)
        G = gaussians(pairs, first, last, exponents)
        c = coefficients(i, pairs, offsets, R, G, contraction, norms)
        dc[:] = 0.0
        for run in range(runs.shape[0]):
            l = runs[run, 0]
            a = runs[run, 1]
            b = runs[run, 2]
            feature = runs[run, 3]
            for t in range(runs[run, 4]):
                T[l, a, b + t] = cotangents[i, feature + t]
                T[l, b + t, a] = cotangents[i, feature + t]
            # The feature c[a]^2 has the derivative 2 c[a].
            if a >= b and a < b + runs[run, 4]:
                T[l, a, a] *= 2.0
        for l in range(l_max + 1):
            for m in range(l * l, (l + 1) * (l + 1)):
                for b in range(width):
                    for a in range(width):
                        dc[m, a] += T[l, b, a] * c[m, b]
        for channel in range(offsets.shape[1] - 1):
            for l in range(l_max + 1):
                for m in range(l * l, (l + 1) * (l + 1)):
                    for k in range(n_max):
                        total = 0.0
                        for n in range(n_max):
                            total += contraction[l, k, n] * dc[m, channel * n_max + n]
                        du[m, k] = norms[m] * total
            for p in range(offsets[i, channel], offsets[i, channel + 1]):
                # A vector D changes a neighbour's radial function and its harmonics. `radial` sums
                # the derivatives of radial functions, which have the direction of D.
                radial = 0.0
                for l in range(l_max + 1):
                    for m in range(l * l, (l + 1) * (l + 1)):
                        value = 0.0
                        slope = 0.0
                        for k in range(n_max):
                            term = G[p - first, l, k] * du[m, k]
                            value += term
                            slope += exponents[l, k] * term
                        slope = pairs[p, 4] * value - 2.0 * pairs[p, 3] * slope
                        radial += slope * R[p - first, m]
                        for axis in range(3):
                            out[p, axis] += pairs[p, 3] * value * dR[p - first, axis, m]
                for axis in range(3):
                    out[p, axis] += radial * pairs[p, axis]
    return out


# pythran export soap_directional(float64[:,:], int64[:,:], float64[:,:], float64[:,:,:],
#                                 int64[:,:], float64[:,:])
def soap_directional(pairs, offsets, exponents, contraction, runs, moved):
    l_max = exponents.shape[0] - 1
    n_max = exponents.shape[1]
    norms = normalizations(l_max)
    out = np.zeros((offsets.shape[0], count_features(runs)))
    du = np.empty((norms.shape[0], n_max))
    for i in range(offsets.shape[0]):
        first = offsets[i, 0]
        last = offsets[i, offsets.shape[1] - 1]
        R = solid_harmonics(pairs, first, last, l_max)
        dR = harmonic_slopes(R, l_max)
        G = gaussians(pairs, first, last, exponents)
        c = coefficients(i, pairs, offsets, R, G, contraction, norms)
        dc = np.zeros((norms.shape[0], (offsets.shape[1] - 1) * n_max))
        for channel in range(offsets.shape[1] - 1):
            du[:] = 0.0
            for p in range(offsets[i, channel], offsets[i, channel + 1]):
                x = moved[p, 0]
                y = moved[p, 1]
                z = moved[p, 2]
                along = pairs[p, 0] * x + pairs[p, 1] * y + pairs[p, 2] * z
                for l in range(l_max + 1):
                    for m in range(l * l, (l + 1) * (l + 1)):
                        # The change of the harmonic, and of the radial function without the part
                        # that depends on the exponent.
                        turned = dR[p - first, 0, m] * x + dR[p - first, 1, m] * y
                        turned = pairs[p, 3] * (turned + dR[p - first, 2, m] * z)
                        turned += pairs[p, 4] * along * R[p - first, m]
                        stretched = 2.0 * pairs[p, 3] * along * R[p - first, m]
                        for k in range(n_max):
                            factor = turned - exponents[l, k] * stretched
                            du[m, k] += factor * G[p - first, l, k]
            for l in range(l_max + 1):
                for m in range(l * l, (l + 1) * (l + 1)):
                    for k in range(n_max):
                        value = norms[m] * du[m, k]
                        for n in range(n_max):
                            dc[m, channel * n_max + n] += value * contraction[l, k, n]
        for run in range(runs.shape[0]):
            l = runs[run, 0]
            a = runs[run, 1]
            b = runs[run, 2]
            feature = runs[run, 3]
            for m in range(l * l, (l + 1) * (l + 1)):
                for t in range(runs[run, 4]):
                    out[i, feature + t] += dc[m, a] * c[m, b + t] + c[m, a] * dc[m, b + t]
    return out


def radial_functions(pairs, p, G, exponents, contraction):
    """Radial functions f of neighbour p, and ``(df / dr) / r``.

    G are the Gaussians of the neighbour.
    """
    f = np.zeros((2, G.shape[0], G.shape[1]))
    for l in range(G.shape[0]):
        for k in range(G.shape[1]):
            value = pairs[p, 3] * G[l, k]
            slope = (pairs[p, 4] - 2.0 * pairs[p, 3] * exponents[l, k]) * G[l, k]
            for n in range(G.shape[1]):
                f[0, l, n] += value * contraction[l, k, n]
                f[1, l, n] += slope * contraction[l, k, n]
    return f


def overlaps(c, R, norms, l_max):
    """``sum_m c * R`` with the harmonics R of one neighbour, for every l and column of c."""
    out = np.zeros((l_max + 1, c.shape[1]))
    for l in range(l_max + 1):
        for m in range(l * l, (l + 1) * (l + 1)):
            value = norms[m] * R[m]
            for b in range(c.shape[1]):
                out[l, b] += value * c[m, b]
    return out


# pythran export soap_jacobian(float64[:,:], int64[:,:], float64[:,:], float64[:,:,:], int64[:,:],
#                              int64)
def soap_jacobian(pairs, offsets, exponents, contraction, runs, channel):
    l_max = exponents.shape[0] - 1
    n_max = exponents.shape[1]
    norms = normalizations(l_max)
    own = channel * n_max
    n_pairs = 0
    for i in range(offsets.shape[0]):
        n_pairs += offsets[i, channel + 1] - offsets[i, channel]
    out = np.zeros((3 * n_pairs, count_features(runs)))
    row = 0
    for i in range(offsets.shape[0]):
        first = offsets[i, 0]
        last = offsets[i, offsets.shape[1] - 1]
        R = solid_harmonics(pairs, first, last, l_max)
        dR = harmonic_slopes(R, l_max)
        G = gaussians(pairs, first, last, exponents)
        c = coefficients(i, pairs, offsets, R, G, contraction, norms)
        for p in range(offsets[i, channel], offsets[i, channel + 1]):
            # The derivative of c is a product of a radial function and a harmonic. The sum over m
            # concerns the harmonic only, and is done once for all radial functions.
            f = radial_functions(pairs, p, G[p - first], exponents, contraction)
            cR = overlaps(c, R[p - first], norms, l_max)
            for axis in range(3):
                cdR = overlaps(c, dR[p - first, axis], norms, l_max)
                for run in range(runs.shape[0]):
                    l = runs[run, 0]
                    a = runs[run, 1]
                    b = runs[run, 2]
                    feature = runs[run, 3]
                    # Product rule: the neighbour changes the factor a of a feature, the factor b,
                    # or both.
                    if own <= a and a < own + n_max:
                        value = f[0, l, a - own]
                        slope = f[1, l, a - own] * pairs[p, axis]
                        for t in range(runs[run, 4]):
                            out[row, feature + t] += value * cdR[l, b + t] + slope * cR[l, b + t]
                    if own <= b and b < own + n_max:
                        value = cdR[l, a]
                        slope = cR[l, a] * pairs[p, axis]
                        for t in range(runs[run, 4]):
                            n = b - own + t
                            out[row, feature + t] += value * f[0, l, n] + slope * f[1, l, n]
                row += 1
    return out.reshape((n_pairs, 3, out.shape[1]))


# pythran export soap_coefficients(float64[:,:], int64[:,:], float64[:,:], float64[:,:,:])
def soap_coefficients(pairs, offsets, exponents, contraction):
    l_max = exponents.shape[0] - 1
    norms = normalizations(l_max)
    width = (offsets.shape[1] - 1) * exponents.shape[1]
    out = np.empty((offsets.shape[0], norms.shape[0], width))
    for i in range(offsets.shape[0]):
        first = offsets[i, 0]
        last = offsets[i, offsets.shape[1] - 1]
        R = solid_harmonics(pairs, first, last, l_max)
        G = gaussians(pairs, first, last, exponents)
        out[i] = coefficients(i, pairs, offsets, R, G, contraction, norms)
    return out


# pythran export soap_coefficient_slopes(float64[:,:], int64[:,:], float64[:,:], float64[:,:,:])
def soap_coefficient_slopes(pairs, offsets, exponents, contraction):
    l_max = exponents.shape[0] - 1
    n_max = exponents.shape[1]
    norms = normalizations(l_max)
    out = np.empty((pairs.shape[0], 3, norms.shape[0], n_max))
    for i in range(offsets.shape[0]):
        first = offsets[i, 0]
        last = offsets[i, offsets.shape[1] - 1]
        R = solid_harmonics(pairs, first, last, l_max)
        dR = harmonic_slopes(R, l_max)
        G = gaussians(pairs, first, last, exponents)
        for p in range(first, last):
            f = radial_functions(pairs, p, G[p - first], exponents, contraction)
            for axis in range(3):
                for l in range(l_max + 1):
                    for m in range(l * l, (l + 1) * (l + 1)):
                        angular = norms[m] * dR[p - first, axis, m]
                        radial = norms[m] * R[p - first, m] * pairs[p, axis]
                        for n in range(n_max):
                            out[p, axis, m, n] = angular * f[0, l, n] + radial * f[1, l, n]
    return out
