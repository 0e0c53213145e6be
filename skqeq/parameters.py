"""Element tables and physical constants, each with its source.

The units of the package are eV, Angstrom, e and V/Angstrom; dipoles are in e*Angstrom.
Hardnesses are not tabulated: they are the parameter `hardness` of the response, such as
`skqeq.QEq`.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from ase.data import covalent_radii as ase_covalent_radii
from ase.units import Bohr, Debye, Hartree

if TYPE_CHECKING:
    from ._typing import Array, PerElement, Radii


__all__ = [
    "COULOMB",
    "DEBYE",
    "covalent_radii",
    "per_element",
    "qeq_electronegativities",
    "qeq_radii",
    "radii_table",
]

# Coulomb constant 1 / (4 pi eps_0) in eV*Angstrom/e^2, from the CODATA constants in ASE.
COULOMB = Hartree * Bohr
# 1 e*Angstrom in Debye: 4.80320...
DEBYE = 1.0 / Debye
MAX_ATOMIC_NUMBER = len(chemical_symbols) - 1


@cache
def _qeq_table():
    """Radius (Angstrom) and chi (eV), indexed by atomic number; NaN for elements without entry."""
    path = files("skqeq") / "_data" / "qeq_parameters.csv"
    with path.open(encoding="utf-8") as lines:
        rows = np.loadtxt(lines, delimiter=",", skiprows=3, usecols=(0, 2, 3))
    table = np.full((MAX_ATOMIC_NUMBER + 1, 2), np.nan)
    table[rows[:, 0].astype(int)] = rows[:, 1:]
    table.setflags(write=False)
    return table


def qeq_radii() -> Array:
    """Atomic radii of QEq.

    Returns
    -------
    radii : ndarray of shape (119,)
        Radii indexed by atomic number, Angstrom; NaN for elements without a radius.

    References
    ----------
    Rappe and Goddard, J. Phys. Chem. 95, 3358 (1991); Rappe et al. (UFF),
    J. Am. Chem. Soc. 114, 10024 (1992), table 1.

    Examples
    --------
    >>> from skqeq.parameters import qeq_radii
    >>> qeq_radii()[[1, 6, 8]]
    array([0.371, 0.759, 0.669])
    """
    return _qeq_table()[:, 0]


def qeq_electronegativities() -> Array:
    """QEq electronegativities (GMP scale), from the same source as `qeq_radii`.

    Returns
    -------
    electronegativities : ndarray of shape (119,)
        Indexed by atomic number, V (eV per elementary charge); NaN for elements without a value.

    Examples
    --------
    >>> from skqeq.parameters import qeq_electronegativities
    >>> qeq_electronegativities()[[1, 6, 8]]
    array([4.528, 5.343, 8.741])
    """
    return _qeq_table()[:, 1]


def covalent_radii() -> Array:
    """Covalent radii of Cordero et al., from ASE.

    Returns
    -------
    radii : ndarray of shape (119,)
        Radii indexed by atomic number, Angstrom; NaN for elements without a radius.

    References
    ----------
    Cordero et al., Dalton Trans. 2832 (2008).

    Examples
    --------
    >>> from skqeq.parameters import covalent_radii
    >>> covalent_radii()[[1, 6, 8]]
    array([0.31, 0.76, 0.66])
    """
    radii = ase_covalent_radii.copy()
    # The published table ends at curium; ASE gives all heavier elements a default.
    radii[0] = radii[97:] = np.nan
    return radii


def per_element(values: PerElement, name: str, lowest: float = 0.0) -> Array:
    """Make a table indexed by atomic number from one number, or from a dict of elements.

    Parameters
    ----------
    values : float or dict of {str or int: float}
        One number for all elements, or a dict from symbols or atomic numbers to numbers.
    name : str
        Name of the values in error messages.
    lowest : float, default=0.0
        Smallest allowed value.

    Returns
    -------
    table : ndarray of shape (119,)
        Values indexed by atomic number; NaN for elements that are not in the dict.

    Raises
    ------
    ValueError
        If a key is not an element, or if a value is not finite or is too small. The message names
        the element.

    Examples
    --------
    >>> from skqeq.parameters import per_element
    >>> per_element({"H": 1.0, 8: 2.0}, "hardness")[[1, 6, 8]]
    array([ 1., nan,  2.])
    """
    if not isinstance(values, dict):
        return np.full(MAX_ATOMIC_NUMBER + 1, float(values))
    table = np.full(MAX_ATOMIC_NUMBER + 1, np.nan)
    for key, value in values.items():
        number = atomic_numbers.get(key) if isinstance(key, str) else key
        if number is None or not 1 <= number <= MAX_ATOMIC_NUMBER:
            raise ValueError(f"{name} names {key!r}, which is not an element")
        value = float(value)
        if not (np.isfinite(value) and value >= lowest):
            kind = "non-negative" if lowest == 0.0 else "finite"
            raise ValueError(f"{name} of {key!r} is {value!r}, which is not a {kind} number")
        table[number] = value
    return table


def radii_table(radii: Radii) -> Array:
    """Atomic radii of every element.

    Parameters
    ----------
    radii : {"qeq", "covalent"} or dict of {str or int: float}
        Name of a table (`qeq_radii` or `covalent_radii`), or a dict from elements to radii in
        Angstrom.

    Returns
    -------
    radii : ndarray of shape (119,)
        Radii indexed by atomic number, Angstrom; NaN for elements without a radius.

    Raises
    ------
    ValueError
        If `radii` is neither the name of a table nor a dict of non-negative numbers.

    Examples
    --------
    >>> from skqeq.parameters import radii_table
    >>> radii_table("covalent")[[1, 8]], radii_table({"O": 0.7})[[1, 8]]
    (array([0.31, 0.66]), array([nan, 0.7]))
    """
    if isinstance(radii, str):
        tables = {"qeq": qeq_radii, "covalent": covalent_radii}
        if radii not in tables:
            raise ValueError(f"radii must be 'qeq', 'covalent' or a dict, got {radii!r}")
        table = np.full(MAX_ATOMIC_NUMBER + 1, np.nan)
        values = tables[radii]()
        table[: len(values)] = values
        return table
    return per_element(radii, "radii")
