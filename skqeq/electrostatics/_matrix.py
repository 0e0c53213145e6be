"""The hardness matrix, its derivatives and the potential of charges as plain functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._pythran import gaussian_coulomb
from ..parameters import COULOMB
from ._hardness import DenseHardness

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .._typing import Array, PerElement, StructureLike
    from ..structures import Structure


def hardness_matrix(
    atoms: StructureLike,
    widths: ArrayLike | None = None,
    hardness: PerElement | ArrayLike = 0.0,
    accuracy: float = 1e-8,
) -> Array:
    """Hardness matrix of one structure: a molecule, a slab or a crystal.

    A uniform background neutralises a charged crystal. The result depends only on the lattice and
    not on the choice of its cell vectors. For a slab, the cell vector out of the plane is ignored
    and may be zero.

    Parameters
    ----------
    atoms : ase.Atoms
        Without periodic axes, with two of them, or with three.
    widths : array-like of shape (n_atoms,), default=None
        Widths of the Gaussian charges, Angstrom; None means `gaussian_widths`.
    hardness : float, array-like of shape (n_atoms,) or dict, default=0.0
        Added to the diagonal, eV/e^2; a dict gives a value per element.
    accuracy : float, default=1e-8
        Upper bound on the error of every element of a periodic matrix A, in units of
        ``k_e / Angstrom = 14.4 eV/e^2``; from 1e-12 to 1e-2. It determines all cutoffs.

    Returns
    -------
    A : ndarray of shape (n_atoms, n_atoms)
        The symmetric hardness matrix, eV/e^2. With non-negative hardness it is positive definite;
        for a slab, only for charges that sum to zero.

    Raises
    ------
    ValueError
        If the structure or an argument is invalid.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq.electrostatics import hardness_matrix
    >>> hardness_matrix(molecule("N2")).round(2)
    array([[56.81, 12.74],
           [12.74, 56.81]])
    """
    return DenseHardness(atoms, widths, hardness, accuracy).matrix


def hardness_gradient(
    atoms: StructureLike,
    q: ArrayLike,
    p: ArrayLike,
    widths: ArrayLike | None = None,
    accuracy: float = 1e-8,
) -> tuple[Array, Array]:
    """Derivatives of ``q^T A p`` with respect to the geometry.

    With ``p = q``, half of the result is the derivative of the Coulomb energy at fixed charges.

    Parameters
    ----------
    atoms : ase.Atoms
        As in `hardness_matrix`.
    q, p : array-like of shape (n_atoms,)
        Any two sets of charges, e.
    widths : array-like of shape (n_atoms,), default=None
        Widths of the Gaussian charges, Angstrom; None means `gaussian_widths`.
    accuracy : float, default=1e-8
        As in `hardness_matrix`, with the same cutoffs.

    Returns
    -------
    gradient : ndarray of shape (n_atoms, 3)
        Derivatives with respect to the positions, eV/Angstrom.
    virial : ndarray of shape (3, 3)
        Derivatives with respect to a symmetric strain of positions and cell, eV. A slab has strains
        in its plane only; all other components are zero.

    Raises
    ------
    ValueError
        If the structure or an argument is invalid.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq.electrostatics import hardness_gradient
    >>> gradient, virial = hardness_gradient(molecule("N2"), [1, -1], [1, -1])
    >>> gradient[:, 2].round(2)
    array([ 22.55, -22.55])
    """
    return DenseHardness(atoms, widths, accuracy=accuracy).gradient(q, p)


def potential_gradient(
    atoms: StructureLike, q: ArrayLike, widths: ArrayLike | None = None, accuracy: float = 1e-8
) -> tuple[Array, Array]:
    """Derivatives of the potential ``A q`` at fixed charges with respect to the geometry.

    The product of these derivatives with charges y is the `hardness_gradient` of y and q. The
    returned arrays can be used for any number of such y. They cost a few times as much as
    `hardness_matrix`. They do not depend on the hardness.

    Parameters
    ----------
    atoms : ase.Atoms
        As in `hardness_matrix`.
    q : array-like of shape (n_atoms,)
        Charges, e.
    widths : array-like of shape (n_atoms,), default=None
        Widths of the Gaussian charges, Angstrom; None means `gaussian_widths`.
    accuracy : float, default=1e-8
        As in `hardness_matrix`, with the same cutoffs.

    Returns
    -------
    gradient : ndarray of shape (n_atoms, 3, n_atoms)
        At ``[j, :, i]``, the derivative of the potential on atom i with respect to the position of
        atom j; V/Angstrom.
    virial : ndarray of shape (3, 3, n_atoms)
        Derivatives with respect to a symmetric strain of positions and cell, V. A slab has strains
        in its plane only; all other components are zero.

    Raises
    ------
    ValueError
        If the structure or an argument is invalid.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq.electrostatics import potential_gradient
    >>> gradient, virial = potential_gradient(molecule("N2"), [1, -1])
    >>> gradient[:, 2].round(2)
    array([[ 11.28, -11.28],
           [-11.28,  11.28]])
    """
    return DenseHardness(atoms, widths, accuracy=accuracy).potential_gradient(q)


def potential_matrix(points: ArrayLike, structure: Structure, widths: Array) -> Array:
    """Electrostatic potential at points, per unit of each Gaussian charge.

    Parameters
    ----------
    points : ndarray of shape (n_points, 3)
        Positions of the points, Angstrom.
    structure : Structure
        A molecule.
    widths : ndarray of shape (n_atoms,)
        Widths of the charges, Angstrom.

    Returns
    -------
    V : ndarray of shape (n_points, n_atoms)
        Potential of a unit charge on each atom, V/e.

    Raises
    ------
    ValueError
        If the structure is periodic.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import check_structures
    >>> from skqeq.electrostatics import gaussian_widths, potential_matrix
    >>> [water] = check_structures([molecule("H2O")])
    >>> V = potential_matrix([[0.0, 0.0, 5.0]], water, gaussian_widths(water.numbers))
    >>> V.round(2)
    array([[2.95, 2.6 , 2.6 ]])
    """
    if structure.periodic:
        raise ValueError(
            f"{structure.symbols} has pbc = {structure.pbc}; the potential at points is defined "
            "for molecules only"
        )
    points = np.ascontiguousarray(points, dtype=np.float64)
    return COULOMB * gaussian_coulomb(points, np.zeros(len(points)), structure.positions, widths)
