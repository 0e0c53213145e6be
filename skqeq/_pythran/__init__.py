"""Every compiled loop of the package, each with a vectorised NumPy twin.

`_x.py` holds loops in the subset of Python that Pythran can compile. The result is an extension
module `_x` in the same folder, which Python imports instead of `_x.py`. `_x_numpy.py`, its twin,
holds functions with the same names and results. If a compiled module is missing, the twin is used,
because the loops as plain Python would be a hundred times slower. The environment variable
``SKQEQ_KERNELS`` overrides this choice: ``numpy`` selects the twins, and ``compiled`` raises an
error if a compiled module is missing.

The functions do not check their arguments and never write to them. Callers must pass C-contiguous
arrays of type float64, or int64 where integers are asked for.

Functions
---------
gaussian_coulomb(ra, wa, rb, wb)
    Returns (na, nb), 1/Angstrom: the interaction ``erf(r / (sqrt(2) g)) / r`` of unit Gaussian
    charges, with ``g^2 = wa^2 + wb^2``. The charges are at `ra` (na, 3) and `rb` (nb, 3), Angstrom,
    and have the widths `wa` (na,) and `wb` (nb,), Angstrom. A width of zero makes a point charge.
    At ``r = 0`` the result is the limit ``sqrt(2 / pi) / g``, infinite for two point charges.
gaussian_coulomb_gradient(positions, widths)
    Returns (n, 3, n), 1/Angstrom^2: ``d C[i, j] / d positions[i]`` at ``[i, :, j]``, where C is the
    matrix of `gaussian_coulomb` between all `positions`. No two positions may be equal.
ewald_pair_matrix(fractions, cell, images, widths, cutoff, kappa, smooth)
    Returns (n, n), 1/Angstrom: ``smooth[i] + smooth[j]`` plus the sum of
    ``(erf(r / (sqrt(2) g)) - erf(kappa r / sqrt(2))) / r``, where
    ``g^2 = widths[i]^2 + widths[j]^2``. The sum runs over the distances r <= `cutoff` (Angstrom)
    between atom j and the periodic images of atom i; the case i = j, r = 0 is included.
    `fractions` (n, 3) are fractional coordinates in [0, 1], and `cell` (3, 3) has the cell vectors
    as rows. Along axis a the nearest ``images[a]`` images are considered; `images` (3,) is int64.
ewald_matrix_gradient(fractions, cell, images, widths, cutoff, kappa, q)
    Returns (n, 3, n) and (n, 3, 3): ``d M[i, j] / d r_i`` at ``[i, :, j]``, where M is the sum in
    `ewald_pair_matrix`, and the derivatives of ``M q`` with respect to a strain.
ewald_pair_gradient(i, j, D, widths, q, p, kappa)
    Returns (n, 3) and (3, 3): the derivatives of ``q M p`` with respect to the positions and to a
    strain, where M is the sum in `ewald_pair_matrix`. `i` and `j` (int64) are the atoms of the
    pairs, each pair in one order only, and `D` are the vectors from i to j.
ewald_pair_values(i, j, D, widths, kappa)
    Returns (n_pairs,), 1/Angstrom: the term of the sum in `ewald_pair_matrix` for each pair.
structure_factors(phases, n, weights)
    Returns (n_atoms, 2 n_waves): ``weights cos(phases . n)``, then ``weights sin(phases . n)``.
    A wave is a plane wave with a reciprocal-space vector; `n` (n_waves, 3), int64, holds the small
    integer coefficients of these vectors. `phases` (n_atoms, 3) are ``2 pi`` times the fractional
    coordinates.
kernel_jacobian(i, j, rows, shifts, products, along, cosines, factors, q)
    Returns (n_sets, n_atoms, 3, n_points) and (n_sets, 3, 3, n_points): for each set k, the sum of
    ``q[k, i] dK[p]`` over the pairs p, added for atom j and subtracted for atom i, and the sum of
    ``q[k, i] shift_b dK[p, a]`` at ``[k, a, b]``. The derivative of the kernel of the centre i
    with respect to the vector of a pair is ::

        dK[p, a] = factors[rows[p]] (products[p, a] - along[p, a] cosines[rows[p]])

    `i`, `j` and `rows` (n_pairs,) are int64; `rows` selects the row of the centre in `cosines` and
    `factors` (n_centers, n_points). `products` is (n_pairs, 3, n_points); `along` and `shifts` are
    (n_pairs, 3); `q` is (n_sets, n_atoms).
soap_spectrum(pairs, offsets, exponents, contraction, runs)
    Returns the SOAP features (n_centers, n_features). A pair is a centre and one of its neighbours.
    The columns of `pairs` (n_pairs, 5) are the vector D from the centre to the neighbour, Angstrom,
    the weight w of the neighbour, and ``dw / dr / r``, which only derivatives use. A channel z is
    the density of one element, or of all. The pairs of centre i in channel z are
    ``offsets[i, z]`` to ``offsets[i, z + 1] - 1``; `offsets` (n_centers, n_channels + 1) is int64.
    With real spherical harmonics Y, the density coefficients of a centre are::

        c[z n, l m] =
            sum_pairs w sum_k contraction[l, k, n] exp(-exponents[l, k] r^2) r^l Y_lm(D)

    Every row (l, a, b, first, length) of `runs` (n_runs, 5), int64, defines `length` features:
    ``p[first + t] = sum_m c[a, l m] c[b + t, l m]`` for t < length.
soap_pull_back(pairs, offsets, exponents, contraction, runs, cotangents)
    Returns (n_pairs, 3): the derivatives of ``sum cotangents * p`` with respect to D. A cotangent
    is the derivative of some number with respect to a feature; `cotangents` is
    (n_centers, n_features).
soap_directional(pairs, offsets, exponents, contraction, runs, moved)
    Returns (n_centers, n_features): the change of the features, to first order, if every vector D
    changes by a row of `moved` (n_pairs, 3).
soap_jacobian(pairs, offsets, exponents, contraction, runs, channel)
    Returns (n, 3, n_features): for each of the n pairs in one channel, the derivatives of the
    features of the centre with respect to D.
normalizations(l_max), harmonic_slopes(l_max)
    Return the factors ((l_max + 1)^2,) that turn the solid harmonics of `_soap` into ``r^l Y_lm``,
    and the matrices (3, (l_max + 1)^2, (l_max + 1)^2) that turn solid harmonics into their
    derivatives. They are small, so that they have no compiled version.
soap_coefficients(pairs, offsets, exponents, contraction)
    Returns (n_centers, n_harmonics, n_channels n_max): the density coefficients c of every centre,
    with rows (l, m) and columns (z, n).
soap_coefficient_slopes(pairs, offsets, exponents, contraction)
    Returns (n_pairs, 3, n_harmonics, n_max): for each pair, the derivatives of c with respect to D,
    in the columns of the channel of the pair. The columns of other channels do not depend on it.
"""

import os
from importlib import import_module

from . import _soap_numpy

_choice = os.environ.get("SKQEQ_KERNELS", "auto")
if _choice not in ("auto", "compiled", "numpy"):
    raise ImportError(f"SKQEQ_KERNELS must be 'auto', 'compiled' or 'numpy', got {_choice!r}")


def _is_compiled(module):
    return hasattr(module, "__pythran__")


def _load(name):
    """Return the compiled module `name`, or its twin if the module is not compiled."""
    if _choice != "numpy":
        module = import_module(f".{name}", __name__)
        if _is_compiled(module):
            return module
        if _choice == "compiled":
            raise ImportError(
                f"SKQEQ_KERNELS=compiled, but {module.__file__} is not compiled: install skqeq "
                "on a machine with a C++ compiler, and do not import it from its source folder"
            )
    return import_module(f".{name}_numpy", __name__)


_coulomb = _load("_coulomb")
_ewald = _load("_ewald")
_kernel = _load("_kernel")
_soap = _load("_soap")

gaussian_coulomb = _coulomb.gaussian_coulomb
gaussian_coulomb_gradient = _coulomb.gaussian_coulomb_gradient
ewald_pair_matrix = _ewald.ewald_pair_matrix
ewald_matrix_gradient = _ewald.ewald_matrix_gradient
ewald_pair_gradient = _ewald.ewald_pair_gradient
ewald_pair_values = _ewald.ewald_pair_values
structure_factors = _ewald.structure_factors
kernel_jacobian = _kernel.kernel_jacobian
soap_spectrum = _soap.soap_spectrum
soap_pull_back = _soap.soap_pull_back
soap_directional = _soap.soap_directional
soap_jacobian = _soap.soap_jacobian
soap_coefficients = _soap.soap_coefficients
soap_coefficient_slopes = _soap.soap_coefficient_slopes

normalizations = _soap_numpy.normalizations
harmonic_slopes = _soap_numpy.harmonic_slopes

backend = "pythran" if _is_compiled(_coulomb) else "numpy"
