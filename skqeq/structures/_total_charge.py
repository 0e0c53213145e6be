"""The total charge of a structure, and the keys under which files store it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from ._numbers import BOOLEAN, holds_booleans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


# Keys of `Atoms.info` for the total charge; if both are present, they must agree.
CHARGE_KEYS = ("charge", "total_charge")
# Two total charges that differ by less agree, e; programs write rounded numbers.
CHARGE_TOLERANCE = 1e-6
# The `charge_key` that stands for the sum of the initial charges.
INITIAL_CHARGES = "initial_charges"
# Rounded initial charges sum to a whole number within this tolerance, e.
SUM_TOLERANCE = 0.01
# Other keys that mean the total charge, in lower case and without separators and punctuation.
WORDS = (
    "(total|tot|net|overall|whole|full|sum|sys|system|cell|mol|molecule|molecular|cluster|ion|ionic"
    "|formal|state|dft|ref|reference|structure)*"
)
OTHER_KEY = re.compile(f"{WORDS}(charge|chrg|chg|q){WORDS}")


def total_charge(info: dict[str, Any], fail: Callable[[str], None]) -> float:
    """Total charge of a structure.

    Parameters
    ----------
    info : dict
        `Atoms.info`.
    fail : callable
        Raises an error with a message.

    Returns
    -------
    charge : float
        Total charge, e; 0 without a key.
    """
    charges = {key: as_charge(key, info[key], fail) for key in CHARGE_KEYS if key in info}
    if not charges:
        return 0.0
    if max(charges.values()) - min(charges.values()) > CHARGE_TOLERANCE:
        values = ", ".join(f"info[{k!r}] = {v:g}" for k, v in charges.items())
        fail(f"disagreeing charges: {values}")
    return next(iter(charges.values()))


def as_charge(key: str, value: Any, fail: Callable[[str], None]) -> float:
    """A finite number; arrays with one element are numbers as well.

    Parameters
    ----------
    key : str
        Key of the value in `Atoms.info`, for the message.
    value : object
        Value of the key.
    fail : callable
        Raises an error with a message.

    Returns
    -------
    charge : float
        Total charge, e.
    """
    if holds_booleans(value):
        fail(f"info[{key!r}] = {value!r} {BOOLEAN}: write {key}=-1, for example")
    charge = _scalar(value)
    if charge is None:
        fail(f"info[{key!r}] = {value!r} is not a number")
    if not np.isfinite(charge):
        fail(f"info[{key!r}] = {value!r} is not finite")
    return charge


def with_total_charges(X: Iterable[Atoms], charge_key: str) -> list[Atoms]:
    """Copy structures, and set their total charge from another key of ``info``.

    Models read the total charge from ``info["charge"]`` or ``info["total_charge"]``. Use this
    function if your file has another name for it.

    Parameters
    ----------
    X : iterable of ase.Atoms
        Structures.
    charge_key : str
        Key of ``info`` that holds the total charge (e) of every structure. ``"initial_charges"``
        means the sum of the initial charges, which must be a whole number.

    Returns
    -------
    structures : list of ase.Atoms
        Copies with the total charge in ``info["charge"]``. They share the calculators of X, and
        with them the labels.

    Raises
    ------
    ValueError
        If a structure does not have the key, or its value is not a number.

    Examples
    --------
    >>> from ase import Atoms
    >>> from skqeq import with_total_charges
    >>> hydroxide = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], info={"net_charge": -1})
    >>> with_total_charges([hydroxide], "net_charge")[0].info["charge"]
    -1.0
    """
    if isinstance(X, Atoms):
        raise TypeError("X is a single Atoms object; pass a list of structures: [atoms]")
    return [with_total_charge(atoms, charge_key, f"structure {i}") for i, atoms in enumerate(X)]


def with_total_charge(atoms: Atoms, charge_key: str, name: str) -> Atoms:
    """Copy one structure; see `with_total_charges`.

    Parameters
    ----------
    atoms : ase.Atoms
        Structure.
    charge_key : str
        See `with_total_charges`.
    name : str
        Name of the structure in messages.

    Returns
    -------
    copy : ase.Atoms
        Structure with ``info["charge"]``.
    """

    def fail(message):
        raise ValueError(f"{name} ({atoms.symbols}): {message}")

    if charge_key == INITIAL_CHARGES:
        total = atoms.get_initial_charges().sum()
        charge = float(round(total)) if np.isfinite(total) else total
        if not abs(total - charge) <= SUM_TOLERANCE:
            fail(f"initial charges sum to {total:g}, which is not a whole number")
    elif charge_key in atoms.info:
        charge = as_charge(charge_key, atoms.info[charge_key], fail)
    else:
        fail(f"has no info[{charge_key!r}], which charge_key names")
    copy = atoms.copy()
    copy.calc = atoms.calc
    for key in CHARGE_KEYS:
        copy.info.pop(key, None)
    copy.info["charge"] = charge
    return copy


def other_total_charge(atoms: Atoms, charge: float) -> tuple[str, str]:
    """Look for a total charge that is stored elsewhere and differs from the one that models use.

    Parameters
    ----------
    atoms : ase.Atoms
        Structure.
    charge : float
        Total charge that models use, e.

    Returns
    -------
    key, value : str
        The `charge_key`, and the value in words; both are empty if there is no such total charge.
    """
    for key in atoms.info:
        if _means_total_charge(key):
            value = atoms.info[key]
            if holds_booleans(value):
                return key, f"info[{key!r}] = {value}, a word of a comment line without '='"
            number = _scalar(value)
            if number is None or not np.isfinite(number):
                continue
            if key in ("q", "Q") and number != round(number):
                continue  # another quantity
            if abs(number - charge) > CHARGE_TOLERANCE:
                return key, f"info[{key!r}] = {number:g}"
    if INITIAL_CHARGES in atoms.arrays and atoms.info.keys().isdisjoint(CHARGE_KEYS):
        total = atoms.arrays[INITIAL_CHARGES].sum()
        if 0.5 < abs(total) < np.inf and abs(total - round(total)) <= SUM_TOLERANCE:
            return INITIAL_CHARGES, f"initial charges that sum to {round(total)}"
    return "", ""


@lru_cache(1024)
def _means_total_charge(key):
    """Whether a key of `Atoms.info` that models do not read probably means the total charge."""
    if key in CHARGE_KEYS or not isinstance(key, str):
        return False
    return OTHER_KEY.fullmatch(re.sub(r"[\s_.:;,-]", "", key).lower()) is not None


def _scalar(value):
    """The value as a number; None if it is none. Arrays with one element are numbers."""
    if np.ma.is_masked(value):  # its data are 0 or anything
        return None
    one = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    try:
        return float(one)
    except (TypeError, ValueError, OverflowError):
        return None
