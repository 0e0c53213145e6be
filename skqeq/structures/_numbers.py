"""Conversion of numbers from files and users: booleans are no numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

BOOLEAN = (
    "is a boolean, not a number; ASE reads a word without '=' in the comment line of an XYZ file "
    "as True"
)


def holds_booleans(value: Any) -> bool:
    """Whether a value is a boolean, or an array or a nested list that contains one.

    NumPy turns booleans into 0 and 1, so they must be found before a conversion to floats.

    Parameters
    ----------
    value : object
        A value from a file or a user.

    Returns
    -------
    found : bool
    """
    if isinstance(value, np.ndarray):
        return value.dtype == bool or (
            value.dtype == object and any(map(holds_booleans, value.flat))
        )
    if isinstance(value, (list, tuple)):
        return any(map(holds_booleans, value))
    return isinstance(value, (bool, np.bool_))


def as_floats(value: Any) -> np.ndarray:
    """A copy as an array of floats; an empty array if the value is not numeric.

    Parameters
    ----------
    value : object
        A value from a file or a user.

    Returns
    -------
    array : ndarray of float
    """
    if holds_booleans(value) or np.ma.is_masked(value):
        return np.empty(0)
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.empty(0)
