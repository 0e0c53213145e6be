"""The matrix A of the energy ``chi . q + q . A q / 2`` for Gaussian charges.

A charge ``q_i`` of width ``alpha_i`` has the density
``q_i (2 pi alpha_i^2)^(-3/2) exp(-r^2 / (2 alpha_i^2))``, so that

    C_ij = k_e erf(r_ij / (sqrt(2) gamma_ij)) / r_ij,    gamma_ij^2 = alpha_i^2 + alpha_j^2,
    C_ii = k_e / (sqrt(pi) alpha_i),                     A = C + diag(J)

(Vondrak, Reuter, Margraf, J. Chem. Phys. 159, 054109 (2023), eqs. 9-11). Staacke et al. (2022)
write ``erf(r / sqrt(a_i^2 + a_j^2))``; their ``a`` is ``sqrt(2) alpha``.
"""

import numpy as np

from .._pythran import gaussian_coulomb
from ..parameters import COULOMB, per_element, radii_table
from ..structures import Structure, check_structures
from ._ewald import EwaldSum
from ._splitting import check_accuracy

DEFAULT_RADIUS_SCALE = 0.2


def gaussian_widths(numbers, radii="qeq", radius_scale=DEFAULT_RADIUS_SCALE):
    """Widths ``alpha = radius_scale * R`` of the Gaussian charges.

    Parameters
    ----------
    numbers : ndarray of shape (n_atoms,)
        Atomic numbers.
    radii : {"qeq", "covalent"} or dict, default="qeq"
        See `skqeq.parameters.radii_table`.
    radius_scale : float, default=0.2
        Factor on the radii.

    Returns
    -------
    widths : ndarray of shape (n_atoms,)
        Angstrom.

    Raises
    ------
    ValueError
        If an element has no radius.
    """
    return radius_scale * lookup(radii_table(radii), numbers, "radius")


def lookup(table, numbers, name):
    """Entries of a per-element table, complaining about the first missing element."""
    values = table[numbers]
    missing = np.isnan(values)
    if missing.any():
        from ase.data import chemical_symbols

        raise ValueError(f"no {name} for {chemical_symbols[numbers[missing.argmax()]]}")
    return values


def hardness_matrix(atoms, widths=None, hardness=0.0, accuracy=1e-8):
    """Hardness matrix of one structure: a molecule, a slab or a crystal.

    A charged crystal is neutralised by a uniform background; nothing depends on the choice of the
    cell vectors, nor on the vector that leaves a slab, which may be absent.

    Parameters
    ----------
    atoms : ase.Atoms
        Without periodic axes, with two of them, or with three.
    widths : array-like of shape (n_atoms,), default=None
        Widths of the Gaussian charges, Angstrom; None means `gaussian_widths`.
    hardness : float, array-like of shape (n_atoms,) or dict, default=0.0
        Added to the diagonal, eV/e^2; a dict gives a value per element.
    accuracy : float, default=1e-8
        The error of every element of a periodic A is at most `accuracy` times
        ``k_e / Angstrom = 14.4 eV/e^2``, from 1e-12 to 1e-2. It decides all cutoffs.

    Returns
    -------
    A : ndarray of shape (n_atoms, n_atoms)
        Symmetric, eV/e^2. Positive definite for non-negative hardness; that of a slab only for
        charges that sum to zero.

    Raises
    ------
    ValueError
        If the structure or an argument is unusable.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq.electrostatics import hardness_matrix
    >>> hardness_matrix(molecule("N2")).round(2)
    array([[56.81, 12.74],
           [12.74, 56.81]])
    """
    [structure] = [atoms] if isinstance(atoms, Structure) else check_structures([atoms])
    check_accuracy(accuracy)
    if widths is None:
        widths = gaussian_widths(structure.numbers)
    widths = np.ascontiguousarray(widths, dtype=np.float64)
    if widths.shape != (len(structure),) or not (widths > 0).all():
        raise ValueError(f"widths must be {len(structure)} positive numbers, got {widths!r}")
    if isinstance(hardness, dict):
        hardness = lookup(per_element(hardness, "hardness"), structure.numbers, "hardness")
    if structure.periodic:
        A = EwaldSum(structure, widths, accuracy).matrix()
    else:
        A = gaussian_coulomb(structure.positions, widths, structure.positions, widths)
    A *= COULOMB
    A[np.diag_indices_from(A)] += hardness
    return A


def potential_matrix(points, structure, widths):
    """Potential at points per unit of each Gaussian charge.

    Parameters
    ----------
    points : ndarray of shape (n_points, 3)
        Angstrom.
    structure : Structure
        A molecule.
    widths : ndarray of shape (n_atoms,)
        Widths of the charges, Angstrom.

    Returns
    -------
    V : ndarray of shape (n_points, n_atoms)
        V/e.
    """
    points = np.ascontiguousarray(points, dtype=np.float64)
    return COULOMB * gaussian_coulomb(points, np.zeros(len(points)), structure.positions, widths)
