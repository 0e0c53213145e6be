"""The matrix A of the energy ``chi . q + q . A q / 2`` for Gaussian charges.

A charge ``q_i`` of width ``alpha_i`` has the density
``q_i (2 pi alpha_i^2)^(-3/2) exp(-r^2 / (2 alpha_i^2))``, so that

    C_ij = k_e erf(r_ij / (sqrt(2) gamma_ij)) / r_ij,    gamma_ij^2 = alpha_i^2 + alpha_j^2,
    C_ii = k_e / (sqrt(pi) alpha_i),                     A = C + diag(J)

(Vondrak, Reuter, Margraf, J. Chem. Phys. 159, 054109 (2023), eqs. 9-11). Staacke et al. (2022)
write ``erf(r / sqrt(a_i^2 + a_j^2))``; their ``a`` is ``sqrt(2) alpha``.

The matrix ``A`` has two forms with the same methods. `DenseHardness` stores the matrix and
factorises it. `HardnessOperator` only computes products with it. The code that uses ``A`` need not
know which form it has.

The sums are in `_direct` for molecules and in `_ewald` for crystals and slabs, as matrices, and in
`_operator` for all of them as operators.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..parameters import COULOMB
from ._arguments import check_arguments, check_charges, check_hardness
from ._direct import DirectSum
from ._ewald import EwaldSum
from ._operator import coulomb_operator
from ._preconditioner import Screening
from ._solvers import Cholesky, ConjugateGradients, FlowCholesky, FlowConjugateGradients

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike
    from scipy.sparse import csr_array

    from .._typing import Array, PerElement, StructureLike


# Numbers of atoms, for molecules and for periodic structures, above which gradients are computed
# with the operator. Measurements showed that it is then faster than the sum over all pairs, or
# needs much less memory.
MAX_DENSE_GRADIENT = 2000, 800


class Hardness(ABC):
    """The hardness matrix A of one structure: a molecule, a slab or a crystal.

    Both forms of A compute products from both sides (``A @ q`` and ``rows @ A``), compute
    derivatives with respect to the geometry, and make solvers that minimise
    ``q . A q / 2 - V . q``. The sum over pairs or the Ewald sum is set up once, when it is first
    needed.

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
    structure : Structure
        The structure, with its total charge and external field.
    widths : ndarray of shape (n_atoms,)
        Widths of the Gaussian charges, Angstrom.
    hardness : ndarray of shape () or (n_atoms,)
        Values added to the diagonal, eV/e^2.
    accuracy : float
        Upper bound on the error of every matrix element, in units of ``k_e / Angstrom``.

    See Also
    --------
    DenseHardness : Stores the matrix.
    HardnessOperator : Computes products with the matrix, without storing it.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq.electrostatics import DenseHardness, HardnessOperator
    >>> for form in (DenseHardness, HardnessOperator):
    ...     A = form(molecule("N2"))
    ...     print(A.shape, (A @ [1.0, -1.0]).round(2), ([[1.0, 1.0]] @ A).round(2))
    (2, 2) [ 44.07 -44.07] [[69.56 69.56]]
    (2, 2) [ 44.07 -44.07] [[69.56 69.56]]
    """

    # Makes NumPy call `__rmatmul__` for ``rows @ A``, instead of treating A as an array.
    __array_ufunc__ = None

    def __init__(
        self,
        atoms: StructureLike,
        widths: ArrayLike | None = None,
        hardness: PerElement | ArrayLike = 0.0,
        accuracy: float = 1e-8,
    ) -> None:
        self.structure, self.widths = check_arguments(atoms, widths, accuracy)
        self.hardness = check_hardness(hardness, self.structure)
        self.accuracy = accuracy

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_atoms, n_atoms)``."""
        return len(self.widths), len(self.widths)

    @cached_property
    def diagonal(self) -> Array:
        """Self-interaction of the isolated atoms, ``k_e / (sqrt(pi) alpha) + J``; eV/e^2."""
        return COULOMB / (np.sqrt(np.pi) * self.widths) + self.hardness

    @abstractmethod
    def __matmul__(self, q: ArrayLike) -> Array:
        """``A q`` for charges of shape (n_atoms,); V."""

    @abstractmethod
    def __rmatmul__(self, rows: ArrayLike) -> Array:
        """``rows A`` for rows of shape (k, n_atoms)."""

    @abstractmethod
    def gradient(self, q: ArrayLike, p: ArrayLike) -> tuple[Array, Array]:
        """Derivatives of ``q^T A p`` with respect to the geometry.

        Parameters
        ----------
        q, p : array-like of shape (n_atoms,)
            Any two sets of charges, e.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            Derivatives with respect to the positions, eV/Angstrom.
        virial : ndarray of shape (3, 3)
            Derivatives with respect to a symmetric strain, eV, see `hardness_gradient`.
        """

    def potential_gradient(self, q: ArrayLike) -> tuple[Array, Array]:
        """Derivatives of the potential ``A q`` at fixed charges with respect to the geometry.

        Parameters
        ----------
        q : array-like of shape (n_atoms,)
            Charges, e.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3, n_atoms)
            At ``[j, :, i]``, the derivative of the potential on atom i with respect to the position
            of atom j; V/Angstrom. This is a new array, which the caller may change.
        virial : ndarray of shape (3, 3, n_atoms)
            Derivatives with respect to a symmetric strain, V; see the function
            `skqeq.electrostatics.potential_gradient`.
        """
        q = check_charges("q", q, len(self.widths))
        return self._sum.potential_gradient(COULOMB * q)

    def directional(self, q: ArrayLike, displacement: ArrayLike, strain: ArrayLike) -> Array:
        """Change of the potential ``A q`` at fixed charges along one direction.

        It is the product of `potential_gradient` with the direction, at a lower cost.

        Parameters
        ----------
        q : array-like of shape (n_atoms,)
            Charges, e.
        displacement : array-like of shape (n_atoms, 3)
            Displacements of the atoms, Angstrom.
        strain : array-like of shape (3, 3)
            Strain of positions and cell, symmetric; in the plane for a slab.

        Returns
        -------
        change : ndarray of shape (n_atoms,)
            To first order, V.
        """
        q = check_charges("q", q, len(self.widths))
        return self._sum.directional(COULOMB * q, np.asarray(displacement), np.asarray(strain))

    @abstractmethod
    def solver(self, name: str) -> Any:
        """A solver that minimises ``q . A q / 2 - V . q`` over charges of a given sum.

        Parameters
        ----------
        name : str
            Name of the structure in error messages.

        Returns
        -------
        solver : object
            ``minimise(V, total=0.0, start=None)`` returns the charges, e, for V of shape
            (n_atoms,) or (n_atoms, k). ``n_iterations`` is the number of products with A in the
            last call.
        """

    @abstractmethod
    def flow_solver(self, laplacian: csr_array, name: str) -> Any:
        """A solver for charges that flow at an energy cost, see `skqeq.response.FlowEquilibrium`.

        Parameters
        ----------
        laplacian : sparse array of shape (n_atoms, n_atoms)
            ``X = F F^T``, the Laplacian of the softness, e/V.
        name : str
            Name of the structure in error messages.

        Returns
        -------
        solver : object
            ``project(V, start=None)`` returns ``F (1 + F^T A F)^-1 F^T V``, e. ``n_iterations`` is
            the number of products with A in the last call.
        """

    def screened(self, screening: Array) -> Hardness:
        """Subtract the screening by polarisable atoms from the hardness matrix.

        Parameters
        ----------
        screening : ndarray of shape (n_atoms, n_atoms)
            The interaction of charges through induced dipoles, to be subtracted from A; eV/e^2.

        Returns
        -------
        hardness : Hardness
            The matrix ``A - screening`` for products and solvers. The derivatives with respect to
            the geometry remain those of A.

        Raises
        ------
        TypeError
            If this form of the hardness matrix does not store it.
        """
        raise TypeError(f"{type(self).__name__} stores no matrix from which to subtract another")

    @cached_property
    def _sum(self):
        """The direct sum of a molecule, or the Ewald sum of a periodic structure; without k_e."""
        if self.structure.periodic:
            return EwaldSum(self.structure, self.widths, self.accuracy)
        return DirectSum(self.structure, self.widths)


class DenseHardness(Hardness):
    """The hardness matrix as an array, which solvers factorise.

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

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from skqeq.electrostatics import DenseHardness
    >>> A = DenseHardness(molecule("N2"))
    >>> q = A.solver("N2").minimise(np.array([1.0, -1.0]))
    >>> (A @ q).round(2)
    array([ 1., -1.])
    """

    @cached_property
    def matrix(self) -> Array:
        """A of shape (n_atoms, n_atoms), eV/e^2; computed when it is first read."""
        A = self._sum.matrix()
        A *= COULOMB
        A.flat[:: len(A) + 1] += self.hardness
        return A

    def screened(self, screening: Array) -> DenseHardness:
        hardness = copy(self)
        hardness.__dict__["matrix"] = self.matrix - screening
        return hardness

    def __matmul__(self, q: ArrayLike) -> Array:
        return self.matrix @ np.asarray(q)

    def __rmatmul__(self, rows: ArrayLike) -> Array:
        return np.asarray(rows) @ self.matrix

    def gradient(self, q: ArrayLike, p: ArrayLike) -> tuple[Array, Array]:
        n = len(self.widths)
        if n > MAX_DENSE_GRADIENT[self.structure.periodic]:
            return self._operator.gradient(q, p)
        q, p = check_charges("q", q, n), check_charges("p", p, n)
        gradient, virial = self._sum.gradient(q, p)
        return COULOMB * gradient, COULOMB * virial

    def solver(self, name: str) -> Cholesky:
        A, pbc = self.matrix, self.structure.pbc
        if any(pbc) and not all(pbc):
            # The potential of a charged sheet decreases without limit with the distance, so that A
            # of a slab may be indefinite. A constant c added to all elements of A adds c Q^2 / 2 to
            # the energy. It changes no charges, because Q is fixed. With this c, every element is
            # at least as large as the largest one of A was.
            A = A + (np.abs(A).max() - min(A.min(), 0.0))
        return Cholesky(A, name)

    def flow_solver(self, laplacian: csr_array, name: str) -> FlowCholesky:
        return FlowCholesky(self.matrix, laplacian.toarray(), name)

    @cached_property
    def _operator(self):
        """A as an operator, for the gradient of a large structure."""
        return HardnessOperator(self.structure, self.widths, accuracy=self.accuracy)


class HardnessOperator(Hardness):
    """The hardness matrix as a linear operator, without storing an array of its size.

    The interaction of close pairs is a sparse matrix. The rest is a sum over plane waves, computed
    by structure factors, or by non-uniform FFTs if finufft is installed and faster. For large
    systems the cost is therefore nearly proportional to the number of atoms.

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
    accuracy : float
        Upper bound on the error of every matrix element, in units of ``k_e / Angstrom``.

    Raises
    ------
    ValueError
        If the structure or an argument is invalid.

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
        super().__init__(atoms, widths, hardness, accuracy)
        self._coulomb = coulomb_operator(self.structure, self.widths, accuracy)

    def __matmul__(self, q: ArrayLike) -> Array:
        q = check_charges("q", q, len(self.widths))
        return COULOMB * (self._coulomb @ q) + self.hardness * q

    def __rmatmul__(self, rows: ArrayLike) -> Array:
        # Products from the left and from the right are equal because A is symmetric.
        return np.stack([self @ row for row in np.asarray(rows)])

    def gradient(self, q: ArrayLike, p: ArrayLike) -> tuple[Array, Array]:
        n = len(self.widths)
        q, p = check_charges("q", q, n), check_charges("p", p, n)
        gradient, virial = self._coulomb.gradient(q, p)
        return COULOMB * gradient, COULOMB * virial

    def preconditioner(self) -> Callable[[Array], Array]:
        """An approximate inverse for charges that sum to zero.

        Returns
        -------
        function : callable
            Takes a vector of shape (n_atoms,), V, and returns a vector of the same shape, e.
        """
        return Screening(self._coulomb, self.diagonal)

    def solver(self, name: str) -> ConjugateGradients:
        return ConjugateGradients(self, name)

    def flow_solver(self, laplacian: csr_array, name: str) -> FlowConjugateGradients:
        return FlowConjugateGradients(self, laplacian, name)
