"""Units of labels: a number, or a text such as ``"hartree/bohr"``."""

from __future__ import annotations

import math
import re
from numbers import Real
from typing import Any

import ase.units

# Not all names of ase.units are allowed: there, for example, A is the ampere.
UNITS = (
    "e", "Debye", "Bohr", "Ang", "Angstrom", "nm", "m", "eV", "meV", "Hartree", "Ha", "Rydberg",
    "Ry", "kcal", "kJ", "mol", "V", "GPa", "kbar", "C",
)  # fmt: skip
OWN = {"e": 1.0, "V": 1.0, "meV": 1e-3, "kbar": 0.1 * ase.units.GPa}
SIZES = {name.lower(): OWN.get(name) or getattr(ase.units, name) for name in UNITS}
SIZES |= {"d": ase.units.Debye, "a": 1.0, "å": 1.0}
# A name or a number with an optional power, after a product or division sign.
FACTOR = re.compile(r"([*/]?)([^*/^]+)(?:\^(\d))?")


def parse_unit(target: str, unit: Any) -> float:
    """Express the unit of labels in e, eV and Angstrom.

    Parameters
    ----------
    target : str
        The target, for messages.
    unit : float or str
        A number other than zero, or a product or quotient of numbers and names of units, such as
        ``"debye"``, ``"hartree/bohr"`` or ``"eV/Angstrom^3"``. Case does not matter. A unit is
        negative if labels have the opposite sign: forces from gradients have ``"-hartree/bohr"``.

    Returns
    -------
    size : float
        By which labels are multiplied.

    Raises
    ------
    ValueError
        If the unit is zero, infinite, not a real number, or if a name in it is unknown.

    Examples
    --------
    >>> from skqeq.targets import parse_unit
    >>> round(parse_unit("forces", "-hartree/bohr"), 3)
    -51.422
    """
    if isinstance(unit, bool) or not isinstance(unit, (str, Real)):
        raise ValueError(f"the unit of {target} must be a number or a text, got {unit!r}")
    size = _size(target, unit) if isinstance(unit, str) else float(unit)
    if not math.isfinite(size) or size == 0.0:
        raise ValueError(f"the unit of {target} must be a finite number other than 0, got {unit!r}")
    return size


def _size(target, text):
    compact = "".join(text.split())
    body = compact.removeprefix("-")
    factors = list(FACTOR.finditer(body))
    if not body or "".join(factor[0] for factor in factors) != body or factors[0][1]:
        raise ValueError(f"the unit of {target}, {text!r}, is not a product or quotient of units")
    size = -1.0 if compact != body else 1.0
    for sign, name, power in (factor.groups() for factor in factors):
        value = _factor(target, name) ** int(power or 1)
        if sign == "/" and value == 0.0:
            raise ValueError(f"the unit of {target}, {text!r}, divides by zero")
        size = size / value if sign == "/" else size * value
    return size


def _factor(target, name):
    if name.lower() in SIZES:
        return SIZES[name.lower()]
    try:
        return float(name)
    except ValueError:
        raise ValueError(
            f"{name!r} in the unit of {target} is neither a number nor one of {', '.join(UNITS)}"
        ) from None
