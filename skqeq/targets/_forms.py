"""Advice for labels that are not in a table: which call makes a table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..structures import as_floats

if TYPE_CHECKING:
    from .._typing import Array

# Targets that have arrays of a shape as labels; n is the number of structures or of atoms.
OF_STRUCTURES = {
    "(n,)": ("energy", "dipole_magnitude"),
    "(n, 1)": ("energy", "dipole_magnitude"),
    "(n, 6)": ("quadrupole", "stress"),
    "(n, 3, 3)": ("quadrupole", "stress"),
}
OF_ATOMS = {
    "(n,)": ("charges", "potential"),
    "(n, 3)": ("forces",),
    "(n, 9)": ("born_effective_charges",),
    "(n, 3, 3)": ("born_effective_charges",),
}


def advice_on_labels(y: Any, array: Array) -> str:
    """Describe labels whose target is not known, and name the call that states the target.

    Parameters
    ----------
    y : object
        Labels of the user.
    array : ndarray
        The labels as an array of floats; empty if they are no array.

    Returns
    -------
    advice : str
        The end of an error message, for instance "of shape (5,); use make_targets(energy=y) or
        make_targets(dipole_magnitude=y)".
    """
    if array.size:
        names = OF_STRUCTURES.get(_shape(array), ())
        return f"of shape {array.shape}; {_calls(names)}"
    rows = y if isinstance(y, (list, tuple, np.ndarray)) else []
    shapes = {_shape(as_floats(row)) for row in rows if row is not None}
    if len(shapes) == 1 and (names := OF_ATOMS.get(*shapes)):
        return f"of one array of shape {shapes.pop()} per structure; {_calls(names)}"
    return f"of shape unknown; {_calls(())}"


def _shape(array):
    """The shape as a word, with n as the first length; empty if the array holds no numbers."""
    return str(("n", *array.shape[1:])).replace("'", "") if array.ndim and array.size else ""


def _calls(names):
    """The calls of make_targets for these targets."""
    calls = " or ".join(f"make_targets({name}=y)" for name in names)
    return f"use {calls}" if calls else "the documentation of make_targets lists all targets"
