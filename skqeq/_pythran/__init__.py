"""Every compiled loop of the package, each with a vectorised NumPy twin.

`_x.py` holds loops in the part of Python that Pythran compiles to the extension module `_x` in the
same folder, where it takes precedence; `_x_numpy.py` holds functions of the same names and results.
The compiled module is used if there is one, else the twin: as plain Python the loops would be a
hundred times slower. The environment variable ``SKQEQ_KERNELS`` overrides: ``numpy`` takes the
twins, ``compiled`` fails where the compiled modules are missing.

Callers pass C-contiguous float64 arrays (int64 for integers); kernels check nothing and never write
into arguments.

Functions
---------
gaussian_coulomb(ra, wa, rb, wb)
    (na, nb), 1/Angstrom. Interaction ``erf(r / (sqrt(2) g)) / r``, ``g^2 = wa^2 + wb^2``, of unit
    Gaussian charges at `ra` (na, 3) and `rb` (nb, 3), Angstrom, with widths `wa` (na,) and
    `wb` (nb,), Angstrom. A width of zero is a point charge; ``r = 0`` gives the limit
    ``sqrt(2 / pi) / g``, which is infinite for two points.
gaussian_coulomb_gradient(positions, widths)
    (n, 3, n), 1/Angstrom^2. With C the matrix of `gaussian_coulomb` between `positions` and
    themselves, ``d C[i, j] / d positions[i]`` at ``[i, :, j]``; no two may be at one place.
ewald_pair_matrix(fractions, cell, images, widths, cutoff, kappa, smooth)
    (n, n), 1/Angstrom. ``smooth[i] + smooth[j]`` and the sum of
    ``(erf(r / (sqrt(2) g)) - erf(kappa r / sqrt(2))) / r``, ``g^2 = widths[i]^2 + widths[j]^2``,
    over the distances r <= `cutoff`, Angstrom, of atom i from atom j and its images, an atom and
    itself among them. `fractions` (n, 3) are coordinates in [0, 1] of the `cell` (3, 3); along
    each axis the nearest `images` (3,), int64, are looked at.
ewald_matrix_gradient(fractions, cell, images, widths, cutoff, kappa, q)
    (n, 3, n) and (n, 3, 3). With M the sum in `ewald_pair_matrix`, ``d M[i, j] / d r_i`` at
    ``[i, :, j]``, and the derivatives of ``M q`` with respect to a strain.
ewald_pair_gradient(i, j, D, widths, q, p, kappa)
    (n, 3) and (3, 3). With M the sum in `ewald_pair_matrix`, the derivatives of ``q M p`` with
    respect to the positions and to a strain, from half of its pairs `i`, `j` (int64) with the
    vectors `D` from i to j.
ewald_pair_values(i, j, D, widths, kappa)
    (n_pairs,), 1/Angstrom. The summands of `ewald_pair_matrix`, one for each of the pairs.
structure_factors(phases, n, weights)
    (n_atoms, 2 n_waves). ``weights cos(phases . n)``, then ``weights sin(phases . n)``, for
    `phases` (n_atoms, 3) and small integers `n` (n_waves, 3), int64.
soap_spectrum(pairs, offsets, exponents, contraction, runs)
    (n_centers, n_features). SOAP features from sums over neighbours: in `pairs` (n_pairs, 5) are
    the vectors D from centres, Angstrom, weights w, and ``dw / dr / r``, which matters to
    derivatives only. Centre i and channel z own the pairs
    ``offsets[i, z]`` to ``offsets[i, z + 1]`` of `offsets` (n_centers, n_channels + 1), int64.
    ``c[z n, l m] = sum_pairs w sum_k contraction[l, k, n] exp(-exponents[l, k] r^2) r^l Y_lm(D)``
    with real spherical harmonics, and a row (l, a, b, first, length) of `runs` (n_runs, 5),
    int64, makes the features ``p[first + t] = sum_m c[a, l m] c[b + t, l m]``, t < length.
soap_pull_back(pairs, offsets, exponents, contraction, runs, cotangents)
    (n_pairs, 3). Derivatives of ``sum cotangents * p`` with respect to D, for `cotangents`
    (n_centers, n_features).
soap_jacobian(pairs, offsets, exponents, contraction, runs, channel)
    (n, 3, n_features). Derivatives of the features of its centre with respect to D, of every pair
    in one channel.
"""

import os
from importlib import import_module

_choice = os.environ.get("SKQEQ_KERNELS", "auto")
if _choice not in ("auto", "compiled", "numpy"):
    raise ImportError(f"SKQEQ_KERNELS must be 'auto', 'compiled' or 'numpy', got {_choice!r}")


def _is_compiled(module):
    return hasattr(module, "__pythran__")


def _load(name):
    """Return the compiled module `name` or its twin."""
    if _choice != "numpy":
        module = import_module(f".{name}", __name__)
        if _is_compiled(module):
            return module
        if _choice == "compiled":
            raise ImportError(
                f"SKQEQ_KERNELS=compiled, but {module.__file__} is not compiled: install skqeq "
                "where a C++ compiler is found, and do not import it from its source folder"
            )
    return import_module(f".{name}_numpy", __name__)


_coulomb = _load("_coulomb")
_ewald = _load("_ewald")
_soap = _load("_soap")

gaussian_coulomb = _coulomb.gaussian_coulomb
gaussian_coulomb_gradient = _coulomb.gaussian_coulomb_gradient
ewald_pair_matrix = _ewald.ewald_pair_matrix
ewald_matrix_gradient = _ewald.ewald_matrix_gradient
ewald_pair_gradient = _ewald.ewald_pair_gradient
ewald_pair_values = _ewald.ewald_pair_values
structure_factors = _ewald.structure_factors
soap_spectrum = _soap.soap_spectrum
soap_pull_back = _soap.soap_pull_back
soap_jacobian = _soap.soap_jacobian

backend = "pythran" if _is_compiled(_coulomb) else "numpy"
