"""Checks of the arguments that the functions and classes of this folder share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from ..parameters import per_element, radii_table
from ..structures import Structure, check_structures
from ._splitting import check_accuracy

if TYPE_CHECKING:
    from .._typing import Array, Radii


DEFAULT_RADIUS_SCALE = 0.2
# Largest width in a periodic structure, Angstrom. Wider Gaussians in a small cell overlap with so
# many images that the sum would take hours.
MAX_WIDTH = 10.0


def gaussian_widths(
    numbers: Array, radii: Radii = "qeq", radius_scale: float = DEFAULT_RADIUS_SCALE
) -> Array:
    """Widths ``alpha = radius_scale * R`` of the Gaussian charges.

    Parameters
    ----------
    numbers : ndarray of shape (n_atoms,)
        Atomic numbers.
    radii : {"qeq", "covalent"} or dict, default="qeq"
        See `skqeq.parameters.radii_table`.
    radius_scale : float, default=0.2
        Factor that multiplies the radii.

    Returns
    -------
    widths : ndarray of shape (n_atoms,)
        Widths of the Gaussian charges, Angstrom.

    Raises
    ------
    ValueError
        If an element has no radius.

    Examples
    --------
    >>> from skqeq.electrostatics import gaussian_widths
    >>> gaussian_widths([8, 1, 1]).round(4)
    array([0.1338, 0.0742, 0.0742])
    """
    return radius_scale * lookup(radii_table(radii), numbers, "radius")


def lookup(table, numbers, name):
    """Look up the values of elements in a table; the error for a missing value names the element.

    Parameters
    ----------
    table : ndarray of shape (119,)
        Values indexed by atomic number; NaN means that an element has no value.
    numbers : ndarray of shape (n,)
        Atomic numbers.
    name : str
        Name of the quantity in the error message.

    Returns
    -------
    values : ndarray of shape (n,)
        The values of the elements in `numbers`.
    """
    values = table[numbers]
    missing = np.isnan(values)
    if missing.any():
        raise ValueError(f"no {name} for {chemical_symbols[numbers[missing.argmax()]]}")
    return values


def check_arguments(atoms, widths, accuracy):
    """Check a structure, its widths and an accuracy; return the structure and the widths."""
    [structure] = [atoms] if isinstance(atoms, Structure) else check_structures([atoms])
    check_accuracy(accuracy)
    if widths is None:
        widths = gaussian_widths(structure.numbers)
    widths = np.ascontiguousarray(widths, dtype=np.float64)
    usable = np.isfinite(widths) & (widths > 0)
    if widths.shape != (len(structure),) or not usable.all():
        raise ValueError(f"widths must be {len(structure)} positive numbers, got {widths!r}")
    if structure.periodic and widths.max() > MAX_WIDTH:
        raise ValueError(
            f"widths of a periodic structure must be at most {MAX_WIDTH:g} Angstrom, got "
            f"{widths.max():g}"
        )
    return structure, widths


def check_hardness(hardness, structure):
    """Return hardness as one number or one number per atom, eV/e^2.

    It may be given as a number, an array, or a dict with element symbols as keys.
    """
    if isinstance(hardness, dict):
        return lookup(per_element(hardness, "hardness"), structure.numbers, "hardness")
    values = np.asarray(hardness)
    shapes = (), (len(structure),)
    if values.dtype.kind not in "fiu" or values.shape not in shapes or np.isnan(values).any():
        raise ValueError(f"hardness must be one number or {len(structure)}, got {hardness!r}")
    return values.astype(np.float64)


def check_charges(name, charges, n_atoms):
    """Return charges as a contiguous array; raise an error unless all atoms have a finite one."""
    charges = np.ascontiguousarray(charges, dtype=np.float64)
    if charges.shape != (n_atoms,) or not np.isfinite(charges).all():
        raise ValueError(f"{name} must be {n_atoms} finite charges: {charges!r}")
    return charges
