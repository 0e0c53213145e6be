"""Charge equilibration: charges that minimise the electrostatic energy at fixed total charge."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..electrostatics import make_hardness
from ..parameters import qeq_electronegativities
from ..structures import check_structures
from ._coulomb import CoulombResponse
from ._equilibrium import Equilibrium

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from .._typing import Array, PerElement, Radii, Solver, StructureLike
    from ..electrostatics import Hardness
    from ..structures import Structure
    from ._dipoles import InducedDipoles, NoDipoles


class QEq(CoulombResponse):
    """Charge equilibration [1]_: charge moves freely between any two atoms.

    This is the default `response` of the charge models.

    Parameters
    ----------
    hardness : float or dict of {str: float}, default=0.0
        Hardness J added to the self-interaction of the Gaussian charges, eV/e^2, for all
        elements or for each.
    radius_scale : float, default=0.2
        Width of the Gaussian charges in units of the atomic radius. The default gave low
        cross-validation errors of dipoles and charges for several data sets. A hyperparameter
        search may find a better value for other data.
    radii : {"qeq", "covalent"} or dict of {str: float}, default="qeq"
        Atomic radii, Angstrom.
    accuracy : float, default=1e-8
        Upper bound on the error of the interactions in periodic or large structures; see
        `skqeq.electrostatics.hardness_matrix`.
    solver : {"auto", "dense", "iterative"}, default="auto"
        "dense" factorises the hardness matrix. "iterative" uses conjugate gradients and does not
        store the matrix. "auto" chooses the one that is estimated to be faster: conjugate
        gradients for more than a few thousand atoms.
    polarizability : float or dict of {str: float}, default=None
        Isotropic polarisability of every atom, or of the atoms of each element, Angstrom^3. The
        charges and the external field then induce a dipole on each atom, so that flat molecules
        polarise out of their plane. Dipoles and charges are solved for together, by factorisation
        for structures of any size. The width of a dipole follows from its polarisability [2]_, so
        that the energy is bounded at all distances. None means no dipoles.

    Attributes
    ----------
    elements_ : ndarray of shape (n_elements,)
        Atomic numbers that the response was prepared for.

    See Also
    --------
    ChargeFlow : Charge flows between neighbouring atoms at an energy cost.

    References
    ----------
    .. [1] Rappé and Goddard, J. Phys. Chem. 95, 3358 (1991).
    .. [2] Mayer, Phys. Rev. B 75, 045407 (2007).

    Examples
    --------
    >>> from skqeq import KQEqRegressor
    >>> from skqeq.response import QEq
    >>> KQEqRegressor(response=QEq(radius_scale=0.3))
    KQEqRegressor(response=QEq(radius_scale=0.3))
    """

    def __init__(
        self,
        hardness: PerElement = 0.0,
        radius_scale: float = 0.2,
        radii: Radii = "qeq",
        accuracy: float = 1e-8,
        solver: Solver = "auto",
        polarizability: PerElement | None = None,
    ) -> None:
        self.hardness = hardness
        self.radius_scale = radius_scale
        self.radii = radii
        self.accuracy = accuracy
        self.solver = solver
        self.polarizability = polarizability

    def equilibrium(
        self, structure: Structure, name: str | None = None, n_solutions: int = 1
    ) -> QEqEquilibrium:
        """The charges of one structure as a function of the electronegativities.

        Parameters
        ----------
        structure : Structure
            Geometry, total charge and external field.
        name : str, default=None
            Name of the structure in error messages; None means its formula.
        n_solutions : int, default=1
            Number of right-hand sides that will be solved, which decides between solvers.

        Returns
        -------
        equilibrium : QEqEquilibrium
            Charges, energy and derivatives as functions of the electronegativities.
        """
        name = name or structure.symbols
        elements = self.element_indices(structure)
        hardness, dipoles = self._interactions(structure, elements, name, n_solutions)
        return QEqEquilibrium(hardness, name, dipoles)

    def start_fields(self, chi: Array, factor: float) -> dict[str, Array]:
        """Values of the electronegativities from which fits to energies start.

        Parameters
        ----------
        chi : ndarray of shape (n,)
            Classical electronegativities of elements or of atoms, V.
        factor : float
            Size of the charges relative to the classical charges; values below one count as one.

        Returns
        -------
        fields : dict of {str: ndarray of shape (n,)}
            A single array, ``chi * max(1, factor)``.
        """
        # If the charges are small, only electronegativities that vary strongly with the geometry
        # can give large forces. From there the fit would be strongly nonlinear.
        return {"chi": chi * max(1.0, factor)}

    def classical_size(self, equilibrium: Equilibrium) -> float:
        """Mean size of the charges for classical electronegativities.

        Parameters
        ----------
        equilibrium : QEqEquilibrium
            The equilibrium of one structure.

        Returns
        -------
        size : float
            Mean of ``|q|``, e, for a neutral structure without an external field.
        """
        chi = qeq_electronegativities()[equilibrium.structure.numbers]
        [charges] = equilibrium.rows(chi[None])["chi"]
        return float(np.abs(charges).mean())


class QEqEquilibrium(Equilibrium):
    """The charges of one structure as an affine function of its electronegativities.

    The charges minimise ``chi . q + q . A q / 2 - field . sum_i q_i r_i`` subject to ``1 . q = Q``,
    where ``field`` is the external field and Q the total charge::

        q = q_0 - P chi,    P = A^-1 - A^-1 1 1^T A^-1 / (1^T A^-1 1),
        q_0 = A^-1 1 Q / (1^T A^-1 1) + P (R field)

    See [1]_, and [2]_ for the external field. P is symmetric and ``P 1 = 0``. A constant added to
    chi, or another origin of R, therefore changes no charge. The potential u is the same for all
    atoms.

    Parameters
    ----------
    hardness : Hardness
        Hardness matrix of the structure. It must be positive definite; for a slab, only for charges
        that sum to zero.
    name : str, default=None
        Name of the structure in error messages; None means its formula.
    dipoles : InducedDipoles or NoDipoles, default=None
        Polarisable atoms, see `Equilibrium`.

    References
    ----------
    .. [1] Rappé and Goddard, J. Phys. Chem. 95, 3358 (1991).
    .. [2] Chen and Martinez, J. Chem. Phys. 131, 044114 (2009).

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from skqeq.electrostatics import DenseHardness
    >>> from skqeq.response import QEqEquilibrium
    >>> equilibrium = QEqEquilibrium(DenseHardness(molecule("H2O")))
    >>> chi = np.array([8.741, 4.528, 4.528])
    >>> q = equilibrium.charges(chi=chi)
    >>> q.round(3)
    array([-0.047,  0.023,  0.023])
    >>> bool(np.ptp(equilibrium.potential(q, chi=chi)) < 1e-9)
    True
    """

    fields = ("chi",)

    def __init__(
        self,
        hardness: Hardness,
        name: str | None = None,
        dipoles: InducedDipoles | NoDipoles | None = None,
    ) -> None:
        super().__init__(hardness, dipoles)
        self._name = name or self.structure.symbols

    @cached_property
    def _solver(self):
        return self.hardness.solver(self._name)

    @property
    def n_iterations(self) -> int:  # type: ignore[override]
        """Number of iterations of the last solution; 0 for a factorisation."""
        return self._solver.n_iterations

    def charges(self, *, start: Array | None = None, **fields: Array) -> Array:
        """Charges for given electronegativities.

        Parameters
        ----------
        start : ndarray of shape (n_atoms,), default=None
            Charges from which iterations start, e; for instance those of a similar geometry.
        **fields : ndarray of shape (n_atoms,)
            ``chi``, the electronegativities, V; zero if not given.

        Returns
        -------
        charges : ndarray of shape (n_atoms,)
            Charges, e; they sum to the total charge.
        """
        return self._solver.minimise(-self._linear(fields), self.structure.charge, start)

    def project(self, V: Array) -> Array:
        """Product with the matrix P, whose negative is the response to electronegativities.

        Parameters
        ----------
        V : ndarray of shape (n_atoms,) or (n_atoms, k)
            Potentials, V.

        Returns
        -------
        charges : ndarray of shape (n_atoms,) or (n_atoms, k)
            ``P V``, e; they sum to zero.
        """
        return self._solver.minimise(V)

    def rows(self, Y: Array, W: Array | None = None) -> dict[str, Array]:
        """Derivatives of ``Y q + W u`` with respect to the electronegativities.

        Parameters
        ----------
        Y, W : ndarray of shape (k, n_atoms)
            Factors that multiply the charges q and the potential u. The rows of W must sum to zero.
            Then ``W u`` is zero, because u is the same for all atoms.

        Returns
        -------
        rows : dict of {str: ndarray of shape (k, n_atoms)}
            A single matrix, ``-Y P`` for ``chi``.
        """
        return {"chi": -self.project(np.ascontiguousarray(Y.T)).T}

    def energy_derivatives(self, charges: Array, **fields: Array) -> dict[str, Array]:
        # The energy is minimal with respect to the charges, so that dE = q . dchi.
        return {"chi": charges}

    def force_factors(
        self, charges: Array, gradients: Mapping[str, tuple[Array, Array]], **fields: Array
    ) -> tuple[Array, Array | None]:
        # W is not needed: du is the same for all atoms, and the rows of W would sum to zero.
        return self._potential_factors(charges, gradients), None

    def directional_factors(
        self,
        charges: Array,
        changes: Mapping[str, Array],
        displacement: Array,
        strain: Array,
        **fields: Array,
    ) -> tuple[Array, Array | None]:
        return self._potential_change(charges, changes, displacement, strain), None


def equilibrate(
    atoms: StructureLike,
    chi: ArrayLike,
    widths: ArrayLike | None = None,
    hardness: PerElement | ArrayLike = 0.0,
    accuracy: float = 1e-8,
    solver: Solver = "auto",
    start: ArrayLike | None = None,
) -> Array:
    """Charges of one structure for given electronegativities.

    The charges minimise ``chi . q + q . A q / 2 - field . sum_i q_i r_i``. They sum to the total
    charge of the structure, ``atoms.info["charge"]``. The vector ``field`` is the external electric
    field, ``atoms.info["external_field"]``.

    Parameters
    ----------
    atoms : ase.Atoms
        A molecule, a slab or a crystal of any size.
    chi : array-like of shape (n_atoms,)
        Electronegativities, V.
    widths : array-like of shape (n_atoms,), default=None
        Widths of the Gaussian charges, Angstrom; None means `skqeq.electrostatics.gaussian_widths`.
    hardness : float, array-like of shape (n_atoms,) or dict, default=0.0
        Values added to the diagonal of the hardness matrix, eV/e^2; a dict has one per element.
    accuracy : float, default=1e-8
        As in `skqeq.electrostatics.hardness_matrix`.
    solver : {"auto", "dense", "iterative"}, default="auto"
        "dense" factorises the hardness matrix. "iterative" uses conjugate gradients and does not
        store the matrix. "auto" chooses the one that is estimated to be faster.
    start : array-like of shape (n_atoms,), default=None
        Charges from which iterations start, e; for instance those of a similar geometry.

    Returns
    -------
    charges : ndarray of shape (n_atoms,)
        Charges, e; they sum to the total charge.

    Raises
    ------
    ValueError
        If the structure or an argument is invalid, or the hardness matrix is not positive definite.
    RuntimeError
        If the iteration does not converge.

    References
    ----------
    .. [1] Rappé and Goddard, J. Phys. Chem. 95, 3358 (1991).

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq.response import equilibrate
    >>> equilibrate(molecule("H2O"), [8.741, 4.528, 4.528]).round(3)
    array([-0.047,  0.023,  0.023])
    """
    [structure] = check_structures([atoms])
    vectors: dict[str, Any] = {"chi": chi} if start is None else {"chi": chi, "start": start}
    for key, value in vectors.items():
        vectors[key] = np.asarray(value, dtype=np.float64)
        if vectors[key].shape != (len(structure),) or not np.isfinite(vectors[key]).all():
            raise ValueError(f"{key} must be {len(structure)} finite numbers, got {value!r}")
    A = make_hardness(structure, widths, hardness, accuracy, solver)
    return QEqEquilibrium(A).charges(**vectors)
