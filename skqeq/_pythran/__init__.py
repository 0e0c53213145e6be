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
ewald_pairs(i, j, d, widths, kappa)
    (n, n), 1/Angstrom. Sum of ``(erf(d / (sqrt(2) g)) - erf(kappa d / sqrt(2))) / d``,
    ``g^2 = widths[i]^2 + widths[j]^2``, over half the pairs `i`, `j` (int64) at distances `d`,
    Angstrom; symmetric, so that a pair of an atom with its own image counts twice.
ewald_pair_gradient(i, j, D, widths, q, p, kappa)
    (n, 3) and (3, 3). With M the matrix of `ewald_pairs`, the derivatives of ``q M p`` with
    respect to the positions and to a strain, for pairs with the vectors `D` from i to j.
structure_factors(phases, n, weights)
    (n_atoms, 2 n_waves). ``weights cos(phases . n)``, then ``weights sin(phases . n)``, for
    `phases` (n_atoms, 3) and small integers `n` (n_waves, 3), int64.
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

gaussian_coulomb = _coulomb.gaussian_coulomb
ewald_pairs = _ewald.ewald_pairs
ewald_pair_gradient = _ewald.ewald_pair_gradient
ewald_pair_values = _ewald.ewald_pair_values
structure_factors = _ewald.structure_factors

backend = "pythran" if _is_compiled(_coulomb) else "numpy"
