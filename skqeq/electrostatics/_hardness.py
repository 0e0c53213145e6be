"""The matrix A of the energy ``chi . q + q . A q / 2`` for Gaussian charges.

A charge ``q_i`` of width ``alpha_i`` has the density
``q_i (2 pi alpha_i^2)^(-3/2) exp(-r^2 / (2 alpha_i^2))``, so that

    C_ij = k_e erf(r_ij / (sqrt(2) gamma_ij)) / r_ij,    gamma_ij^2 = alpha_i^2 + alpha_j^2,
    C_ii = k_e / (sqrt(pi) alpha_i),                     A = C + diag(J)

(Vondrak, Reuter, Margraf, J. Chem. Phys. 159, 054109 (2023), eqs. 9-11). Staacke et al. (2022)
write ``erf(r / sqrt(a_i^2 + a_j^2))``; their ``a`` is ``sqrt(2) alpha``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from .._pythran import gaussian_coulomb
from ..parameters import COULOMB, per_element, radii_table
from ..structures import Structure, check_structures
from ._direct import DirectSum
from ._ewald import EwaldSum
from ._levels import has_finufft
from ._operator import coulomb_operator
from ._screening import Screening
from ._splitting import check_accuracy

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from .._typing import Array, PerElement, Radii, StructureLike


DEFAULT_RADIUS_SCALE = 0.2
SOLVERS = ("auto", "dense", "iterative")
# Measured, ns: a multiply-add of the factorisation; for molecules and for periodic structures an
# element assembled, an atom of the operator, and an atom in one solution.
FACTOR = 0.005
ASSEMBLY, SETUP, SOLUTION = (15.0, 60.0), (100e3, 30e3), (150e3, 50e3)
# Broader Gaussians in a small cell would overlap so many images that the sum takes hours; Angstrom.
MAX_WIDTH = 10.0
# Measured, without and with a period: beyond so many atoms neighbours and waves are faster than all
# pairs, or need much less room.
MAX_DENSE_GRADIENT = 2000, 800
# Three matrices of this size are held at a time.
MAX_DENSE_BYTES = 2**31


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
        Factor on the radii.

    Returns
    -------
    widths : ndarray of shape (n_atoms,)
        Angstrom.

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
    """Entries of a per-element table, complaining about the first missing element."""
    values = table[numbers]
    missing = np.isnan(values)
    if missing.any():
        raise ValueError(f"no {name} for {chemical_symbols[numbers[missing.argmax()]]}")
    return values


def hardness_matrix(
    atoms: StructureLike,
    widths: ArrayLike | None = None,
    hardness: PerElement | ArrayLike = 0.0,
    accuracy: float = 1e-8,
) -> Array:
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
    A = _coulomb_sum(structure, widths, accuracy).matrix()
    A *= COULOMB
    A[np.diag_indices_from(A)] += _check_hardness(hardness, structure)
    return A


def hardness_gradient(
    atoms: StructureLike,
    q: ArrayLike,
    p: ArrayLike,
    widths: ArrayLike | None = None,
    accuracy: float = 1e-8,
) -> tuple[Array, Array]:
    """Derivatives of ``q^T A p`` with respect to the geometry.

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
    >>> gradient[:, 2].round(2)
    array([ 22.55, -22.55])
    """
    structure, widths = _check_arguments(atoms, widths, accuracy)
    if len(structure) > MAX_DENSE_GRADIENT[structure.periodic]:
        return HardnessOperator(structure, widths, accuracy=accuracy).gradient(q, p)
    q, p = (_check_charges(*x, len(structure)) for x in (("q", q), ("p", p)))
    gradient, virial = _coulomb_sum(structure, widths, accuracy).gradient(q, p)
    return COULOMB * gradient, COULOMB * virial


def potential_gradient(
    atoms: StructureLike, q: ArrayLike, widths: ArrayLike | None = None, accuracy: float = 1e-8
) -> tuple[Array, Array]:
    """Derivatives of the potential ``A q`` at fixed charges with respect to the geometry.

    Multiplied with charges y, they are `hardness_gradient` of y and q; as matrices they serve many
    such y, at a few times the cost of `hardness_matrix`. The hardness does not enter.

    Parameters
    ----------
    atoms : ase.Atoms
        As in `hardness_matrix`.
    q : array-like of shape (n_atoms,)
        Charges, e.
    widths : array-like of shape (n_atoms,), default=None
        Widths of the Gaussian charges, Angstrom; None means `gaussian_widths`.
    accuracy : float, default=1e-8
        As in `hardness_matrix`; it decides the same cutoffs.

    Returns
    -------
    gradient : ndarray of shape (n_atoms, 3, n_atoms)
        With respect to the position of atom j, of the potential on atom i, at ``[j, :, i]``;
        V/Angstrom.
    virial : ndarray of shape (3, 3, n_atoms)
        With respect to a symmetric strain of positions and cell, V. For a slab only strains in
        its plane count, and the rest is zero.

    Raises
    ------
    ValueError
        If the structure or an argument is unusable.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq.electrostatics import potential_gradient
    >>> gradient, virial = potential_gradient(molecule("N2"), [1, -1])
    >>> gradient[:, 2].round(2)
    array([[ 11.28, -11.28],
           [-11.28,  11.28]])
    """
    structure, widths = _check_arguments(atoms, widths, accuracy)
    q = COULOMB * _check_charges("q", q, len(structure))
    return _coulomb_sum(structure, widths, accuracy).potential_gradient(q)


class HardnessOperator:
    """The hardness matrix as a linear operator, which stores nothing of its size.

    The part of close pairs is a sparse matrix; the rest acts through sums over waves, by structure
    factors or, where finufft is installed and pays, by non-uniform FFTs, so that the cost of large
    systems is nearly proportional to the number of atoms.

    Parameters
    ----------
    atoms : ase.Atoms
        Without periodic axes, with two of them, or with three.
    widths : array-like of shape (n_atoms,), default=None
        Widths of the Gaussian charges, Angstrom; None means `gaussian_widths`.
    hardness : float, array-like of shape (n_atoms,) or dict, default=0.0
        Added to the diagonal, eV/e^2; a dict gives a value per element.
    accuracy : float, default=1e-8
        As in `hardness_matrix`.

    Attributes
    ----------
    shape : tuple of int
        ``(n_atoms, n_atoms)``
    accuracy : float
        Bound of the error of every element, in units of ``k_e / Angstrom``.
    diagonal : ndarray of shape (n_atoms,)
        Self-interaction of the isolated atoms, ``k_e / (sqrt(pi) alpha) + J``; eV/e^2.

    Raises
    ------
    ValueError
        If the structure or an argument is unusable.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import bulk
    >>> from skqeq.electrostatics import HardnessOperator
    >>> A = HardnessOperator(bulk("NaCl", "rocksalt", a=5.64), widths=[0.3, 0.3])
    >>> (A @ np.array([1.0, -1.0])).round(2)
    array([ 18.16, -18.16])
    """

    def __init__(
        self,
        atoms: StructureLike,
        widths: ArrayLike | None = None,
        hardness: PerElement | ArrayLike = 0.0,
        accuracy: float = 1e-8,
    ) -> None:
        structure, widths = _check_arguments(atoms, widths, accuracy)
        self.shape = (len(structure), len(structure))
        self.accuracy = accuracy
        self.hardness = _check_hardness(hardness, structure)
        self.diagonal = COULOMB / (np.sqrt(np.pi) * widths) + self.hardness
        self._coulomb = coulomb_operator(structure, widths, accuracy)

    def __matmul__(self, q: ArrayLike) -> Array:
        """``A q`` for charges of shape (n_atoms,); V."""
        q = _check_charges("q", q, len(self.diagonal))
        return COULOMB * (self._coulomb @ q) + self.hardness * q

    def gradient(self, q: ArrayLike, p: ArrayLike) -> tuple[Array, Array]:
        """Derivatives of ``q^T A p`` with respect to the geometry.

        Parameters
        ----------
        q, p : array-like of shape (n_atoms,)
            Any two sets of charges, e.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            With respect to the positions, eV/Angstrom.
        virial : ndarray of shape (3, 3)
            With respect to a symmetric strain, eV, see `hardness_gradient`.
        """
        q, p = (_check_charges(*x, len(self.diagonal)) for x in (("q", q), ("p", p)))
        gradient, virial = self._coulomb.gradient(q, p)
        return COULOMB * gradient, COULOMB * virial

    def preconditioner(self) -> Callable[[Array], Array]:
        """An approximate inverse for charges that sum to zero.

        Returns
        -------
        function : callable
            Takes a vector of shape (n_atoms,), V, and returns one, e.
        """
        return Screening(self._coulomb, self.diagonal)


def hardness_for(structure, widths, hardness, accuracy, solver, n_solutions=1, factorisations=1.0):
    """The hardness matrix in the form that a solver takes.

    Parameters
    ----------
    structure : Structure
        A molecule, a slab or a crystal.
    widths, hardness, accuracy
        As in `hardness_matrix`.
    solver : {"auto", "dense", "iterative"}
        "auto" takes what is estimated to be faster.
    n_solutions : int, default=1
        For how many right-hand sides charges are wanted.
    factorisations : float, default=1.0
        How many factorisations a direct solution costs.

    Returns
    -------
    A : ndarray or HardnessOperator
        eV/e^2
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, got {solver!r}")
    if solver == "auto":
        iterative = is_iterative(structure, n_solutions, factorisations)
        solver = "iterative" if iterative else "dense"
    make = HardnessOperator if solver == "iterative" else hardness_matrix
    return make(structure, widths, hardness, accuracy)


def is_iterative(structure, n_solutions, factorisations=1.0):
    """Whether iterations are faster than a factorisation, or that does not fit."""
    n, kind = len(structure), int(structure.periodic)
    dense = ASSEMBLY[kind] * n**2 + FACTOR * n**2 * (factorisations * n + 3 * n_solutions)
    iterative = n * (SETUP[kind] + SOLUTION[kind] * n_solutions)
    if not has_finufft():
        iterative *= 5
    return dense > iterative or 8 * n**2 > MAX_DENSE_BYTES


def _coulomb_sum(structure, widths, accuracy):
    """The sum over all pairs for the boundary conditions of a structure."""
    if structure.periodic:
        return EwaldSum(structure, widths, accuracy)
    return DirectSum(structure, widths)


def _check_hardness(hardness, structure):
    if isinstance(hardness, dict):
        return lookup(per_element(hardness, "hardness"), structure.numbers, "hardness")
    values = np.asarray(hardness)
    shapes = (), (len(structure),)
    if values.dtype.kind not in "fiu" or values.shape not in shapes or np.isnan(values).any():
        raise ValueError(f"hardness must be one number or {len(structure)}, got {hardness!r}")
    return values.astype(np.float64)


def _check_arguments(atoms, widths, accuracy):
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


def _check_charges(name, charges, n_atoms):
    charges = np.ascontiguousarray(charges, dtype=np.float64)
    if charges.shape != (n_atoms,) or not np.isfinite(charges).all():
        raise ValueError(f"{name} must be {n_atoms} finite charges: {charges!r}")
    return charges


def potential_matrix(points: ArrayLike, structure: Structure, widths: Array) -> Array:
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
            f"{structure.symbols} has pbc = {structure.pbc}; the potential is that of molecules"
        )
    points = np.ascontiguousarray(points, dtype=np.float64)
    return COULOMB * gaussian_coulomb(points, np.zeros(len(points)), structure.positions, widths)
