"""Advice for labels that are not in a table: which call makes a table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..structures import as_floats

if TYPE_CHECKING:
    from .._typing import Array
    from ..structures import Structures

# Charges of a structure sum to the total charge within this tolerance, e.
SUM_TOLERANCE = 1e-6
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


def check_no_charges(dipoles: Array, structures: Structures) -> None:
    """Refuse an array of dipoles whose rows are probably the charges of three atoms each.

    Parameters
    ----------
    dipoles : ndarray of shape (n, 3)
        A plain array of labels. Rows without NaN must sum to the total charges for a refusal. Rows
        of zeros, which are dipoles of symmetric molecules, say nothing.
    structures : Structures
        The structures.

    Raises
    ------
    ValueError
        The message names the calls for charges and for dipoles.
    """
    index = np.flatnonzero(np.isfinite(dipoles).all(axis=1) & dipoles.any(axis=1))
    sums = dipoles[index].sum(axis=1)
    # Structures are read last, because they may be in a file.
    if (
        len(index) > 1
        and np.allclose(sums, sums.round(), rtol=0.0, atol=SUM_TOLERANCE)
        and (structures.sizes == 3).all()
        and all(abs(structures[i].charge - q) < SUM_TOLERANCE for i, q in zip(index, sums))
    ):
        raise ValueError(
            f"y has the shape {dipoles.shape} of dipoles, but all structures have three atoms, and "
            "the rows sum to the total charges: use make_targets(charges=y) for charges, or "
            "make_targets(dipole=y) for dipoles"
        )


def _shape(array):
    """The shape as a word, with n as the first length; empty if the array holds no numbers."""
    return str(("n", *array.shape[1:])).replace("'", "") if array.ndim and array.size else ""


def _calls(names):
    """The calls of make_targets for these targets."""
    calls = " or ".join(f"make_targets({name}=y)" for name in names)
    return f"use {calls}" if calls else "the documentation of make_targets lists all targets"
