"""Every compiled loop of the package, each with a vectorised NumPy twin.

`_x.py` holds loops in the part of Python that Pythran compiles to the extension module `_x` in the
same folder, where it takes precedence; `_x_numpy.py` holds functions of the same names and results.
The compiled module is used if there is one, else the twin: as plain Python the loops would be a
hundred times slower. The environment variable ``SKQEQ_KERNELS`` overrides: ``numpy`` takes the
twins, ``compiled`` fails where the compiled modules are missing.

Callers pass C-contiguous float64 arrays; kernels check nothing and never write into arguments.

Functions
---------
gaussian_coulomb(ra, wa, rb, wb)
    (na, nb), 1/Angstrom. Interaction ``erf(r / (sqrt(2) g)) / r``, ``g^2 = wa^2 + wb^2``, of unit
    Gaussian charges at `ra` (na, 3) and `rb` (nb, 3), Angstrom, with widths `wa` (na,) and
    `wb` (nb,), Angstrom. A width of zero is a point charge; ``r = 0`` gives the limit
    ``sqrt(2 / pi) / g``, which is infinite for two points.
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

gaussian_coulomb = _coulomb.gaussian_coulomb

backend = "pythran" if _is_compiled(_coulomb) else "numpy"
