"""The matrix A of the energy ``chi . q + q . A q / 2`` for Gaussian charges.

A charge ``q_i`` of width ``alpha_i`` has the density
``q_i (2 pi alpha_i^2)^(-3/2) exp(-r^2 / (2 alpha_i^2))``, so that

    C_ij = k_e erf(r_ij / (sqrt(2) gamma_ij)) / r_ij,    gamma_ij^2 = alpha_i^2 + alpha_j^2,
    C_ii = k_e / (sqrt(pi) alpha_i),                     A = C + diag(J)

(Vondrak, Reuter, Margraf, J. Chem. Phys. 159, 054109 (2023), eqs. 9-11). Staacke et al. (2022)
write ``erf(r / sqrt(a_i^2 + a_j^2))``; their ``a`` is ``sqrt(2) alpha``.
"""

import numpy as np
from ase.data import chemical_symbols

from .._pythran import ewald_pair_gradient, gaussian_coulomb
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
    structure, widths = _check_arguments(atoms, widths, accuracy)
    if isinstance(hardness, dict):
        hardness = lookup(per_element(hardness, "hardness"), structure.numbers, "hardness")
    if structure.periodic:
        A = EwaldSum(structure, widths, accuracy).matrix()
    else:
        A = gaussian_coulomb(structure.positions, widths, structure.positions, widths)
    A *= COULOMB
    A[np.diag_indices_from(A)] += hardness
    return A


def hardness_gradient(atoms, q, p, widths=None, accuracy=1e-8):
    """Derivatives of ``q^T A p`` with respect to the geometry, without the derivatives of A.

    With ``p = q``, half of it is the derivative of the Coulomb energy at fixed charges.

    Parameters
    ----------
    atoms : ase.Atoms
        As in `hardness_matrix`.
    q, p : array-like of shape (n_atoms,)
        Any two sets of charges, e.
    widths : array-like of shape (n_atoms,), default=None
        Widths of the Gaussian charges, Angstrom; None means `gaussian_widths`.
    accuracy : float, default=1e-8
        As in `hardness_matrix`; it decides the same cutoffs.

    Returns
    -------
    gradient : ndarray of shape (n_atoms, 3)
        With respect to the positions, eV/Angstrom.
    virial : ndarray of shape (3, 3)
        With respect to a symmetric strain of positions and cell, eV. For a slab only strains in
        its plane count, and the rest is zero.

    Raises
    ------
    ValueError
        If the structure or an argument is unusable.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq.electrostatics import hardness_gradient
    >>> gradient, virial = hardness_gradient(molecule("N2"), [1, -1], [1, -1])
    >>> gradient.round(2)
    array([[  0.  ,   0.  ,  22.55],
           [  0.  ,   0.  , -22.55]])
    """
    structure, widths = _check_arguments(atoms, widths, accuracy)
    q, p = np.ascontiguousarray(q, dtype=np.float64), np.ascontiguousarray(p, dtype=np.float64)
    for name, charges in (("q", q), ("p", p)):
        if charges.shape != (len(structure),) or not np.isfinite(charges).all():
            raise ValueError(f"{name} must be {len(structure)} finite charges, got {charges!r}")
    if structure.periodic:
        gradient, virial = EwaldSum(structure, widths, accuracy).gradient(q, p)
    else:
        i, j = np.triu_indices(len(structure), 1)
        D = structure.positions[j] - structure.positions[i]
        # An infinitely wide splitting Gaussian leaves the whole interaction to the pairs.
        gradient, virial = ewald_pair_gradient(i, j, D, widths, q, p, 0.0)
    return COULOMB * gradient, COULOMB * virial


def _check_arguments(atoms, widths, accuracy):
    [structure] = [atoms] if isinstance(atoms, Structure) else check_structures([atoms])
    check_accuracy(accuracy)
    if widths is None:
        widths = gaussian_widths(structure.numbers)
    widths = np.ascontiguousarray(widths, dtype=np.float64)
    if widths.shape != (len(structure),) or not (widths > 0).all():
        raise ValueError(f"widths must be {len(structure)} positive numbers, got {widths!r}")
    return structure, widths


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
    if structure.periodic:
        raise ValueError(
            f"{structure.symbols} has pbc = {structure.pbc}; the potential is that of molecules"
        )
    points = np.ascontiguousarray(points, dtype=np.float64)
    return COULOMB * gaussian_coulomb(points, np.zeros(len(points)), structure.positions, widths)
