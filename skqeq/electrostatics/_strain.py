"""Strains that a structure can have: a slab can be strained in its plane only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .._typing import Array
    from ..structures import Structure


def in_plane(virial: Array, structure: Structure) -> Array:
    """Keep derivatives with respect to strains that a structure can have; set others to zero.

    A slab has no period normal to its plane, so that a strain along the normal is not defined.

    Parameters
    ----------
    virial : ndarray of shape (3, 3, ...)
        Derivatives with respect to a strain.
    structure : Structure
        A molecule, a slab or a crystal.

    Returns
    -------
    virial : ndarray of shape (3, 3, ...)
        For a slab, zero except for strains in its plane; for a molecule or a crystal, unchanged.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import fcc111
    >>> from skqeq import check_structures
    >>> from skqeq.electrostatics import in_plane
    >>> [slab] = check_structures([fcc111("Al", (1, 1, 2), vacuum=5.0)])
    >>> in_plane(np.ones((3, 3)), slab)
    array([[1., 1., 0.],
           [1., 1., 0.],
           [0., 0., 0.]])
    """
    if not structure.periodic or all(structure.pbc):
        return virial
    return project_strain(virial, structure.cell[structure.pbc.index(False)])


def project_strain(virial, normal):
    """Project derivatives (3, 3, ...) to strains in the plane with this unit normal.

    If the normal is None, any strain is possible, and the derivatives are returned unchanged.
    """
    if normal is None:
        return virial
    plane = np.eye(3) - np.outer(normal, normal)
    return np.einsum("ac,cd...,db->ab...", plane, virial, plane)
