"""A response in which charge flows between neighbours, starting from reference charges."""

from __future__ import annotations

from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._sklearn import Interval
from ..electrostatics import in_plane
from ..parameters import covalent_radii, per_element
from ._coulomb import CoulombResponse
from ._equilibrium import Equilibrium
from ._flows import Flows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._typing import Array, PerElement, Radii, Solver
    from ..electrostatics import Hardness
    from ..structures import Structure
    from ._dipoles import InducedDipoles, NoDipoles


class ChargeFlow(CoulombResponse):
    """Charge flows between neighbouring atoms at an energy cost, starting from reference charges.

    A response for the parameter `response` of `KQEqRegressor` and `GAPKQEqRegressor`. Every atom
    has a reference charge, a second latent field that is learned from the neighbourhood like the
    electronegativity. Charge ``h_ij`` then flows between the atoms of a pair, at an energy cost of
    ``h_ij^2 / (2 s_ij)``. The softness ``s_ij`` of a pair decays with the distance between the
    atoms, and vanishes beyond a finite distance::

        q_i = q_ref,i + sum_j h_ij,    q_ref,i = r_i + (Q - sum_j r_j) / n,
        s_ij = sqrt(s_i s_j) exp(-x / (1 - x / 10)),    x = (r_ij - R_i - R_j) / range  (below 10),

    Here R are covalent radii, Q is the total charge, and r_i is the learned reference charge, a
    latent field. The flows minimise the electrostatic energy plus their cost. The charges are
    linear in both latent fields, so that models are trained as with `QEq`. Separated fragments keep
    their charges, and an external field polarises a cluster like an insulator. With charge
    equilibration [1]_, in contrast, every structure behaves like a metal. The model is related to
    split charges [2]_ and to ACKS2 [3]_.

    Parameters
    ----------
    softness : float or dict of {str: float}, default=0.05
        ``s_i``, for all elements or for each, e/V: the softness of a pair of equal atoms at the
        distance ``2 R_i``. A large softness leads to charge equilibration within each connected
        fragment. With zero softness the charges are the reference charges, which are local.
    range : float, default=0.25
        The length over which the softness decays with distance, Angstrom.
    amplitude : float, default=0.1
        Prior standard deviation of the learned part of the reference charges, e.
    amplitude_baseline : float, default=1.0
        Prior standard deviation of the constant reference charge of an element, e.
    hardness : float or dict of {str: float}, default=0.0
        Hardness J added to the self-interaction of the Gaussian charges, eV/e^2, for all
        elements or for each.
    radius_scale : float, default=0.2
        Width of the Gaussian charges in units of the atomic radius.
    radii : {"qeq", "covalent"} or dict of {str: float}, default="qeq"
        Atomic radii for the widths, Angstrom.
    accuracy : float, default=1e-8
        Upper bound on the error of the interactions in periodic or large structures; see
        `skqeq.electrostatics.hardness_matrix`.
    solver : {"auto", "dense", "iterative"}, default="auto"
        Factorisation or conjugate gradients, as in `QEq`.
    polarizability : float or dict of {str: float}, default=None
        Isotropic polarisability of the atoms, Angstrom^3, as in `QEq`.

    Attributes
    ----------
    elements_ : ndarray of shape (n_elements,)
        Atomic numbers that the response was prepared for.

    See Also
    --------
    QEq : Charge equilibration.

    References
    ----------
    .. [1] Vondrák, Reuter, Margraf, npj Comput. Mater. (2025), s41524-025-01791-3.
    .. [2] Nistor, Polihronov, Müser, Mosey, J. Chem. Phys. 125, 094108 (2006).
    .. [3] Verstraelen, Ayers, Van Speybroeck, Waroquier, J. Chem. Phys. 138, 074108 (2013).

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer
    >>> from skqeq.datasets import load_molecules
    >>> from skqeq.response import ChargeFlow
    >>> X, y = load_molecules()
    >>> kqeq = KQEqRegressor(response=ChargeFlow(softness=0.05, range=0.25))
    >>> model = make_pipeline(SOAPFeaturizer(), CURSparsifier(n_points=10), kqeq)
    >>> model = model.fit(X[:50], y["dipole"][:50])
    >>> model.predict(X[50:52]).shape
    (2, 3)
    >>> model = model.set_params(kqeqregressor__response__range=0.2)
    """

    fields = ("chi", "reference")
    prior_parameters = {"reference": ("amplitude", "amplitude_baseline")}
    # Measured at 1500 atoms.
    factorisations = 30.0
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "softness": [Interval(Real, 0.0, None, closed="left"), dict],
        "range": [Interval(Real, 0.0, None, closed="neither")],
        "amplitude": [Interval(Real, 0.0, None, closed="left")],
        "amplitude_baseline": [Interval(Real, 0.0, None, closed="left")],
        **CoulombResponse._parameter_constraints,
    }

    def __init__(
        self,
        softness: PerElement = 0.05,
        range: float = 0.25,
        amplitude: float = 0.1,
        amplitude_baseline: float = 1.0,
        hardness: PerElement = 0.0,
        radius_scale: float = 0.2,
        radii: Radii = "qeq",
        accuracy: float = 1e-8,
        solver: Solver = "auto",
        polarizability: PerElement | None = None,
    ) -> None:
        self.softness = softness
        self.range = range
        self.amplitude = amplitude
        self.amplitude_baseline = amplitude_baseline
        self.hardness = hardness
        self.radius_scale = radius_scale
        self.radii = radii
        self.accuracy = accuracy
        self.solver = solver
        self.polarizability = polarizability

    def _prepare(self, lookup):
        self.softness_ = lookup(per_element(self.softness, "softness"), "softness in `softness`")
        self.radii_ = lookup(covalent_radii(), "covalent radius")
        super()._prepare(lookup)

    def equilibrium(
        self, structure: Structure, name: str | None = None, n_solutions: int = 1
    ) -> FlowEquilibrium:
        """The charges of one structure as a function of electronegativities and reference charges.

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
        equilibrium : FlowEquilibrium
            Charges, energy and derivatives as functions of both latent fields.
        """
        name = name or structure.symbols
        elements = self.element_indices(structure)
        hardness, dipoles = self._interactions(structure, elements, name, n_solutions)
        flows = Flows(structure, self.softness_[elements], self.radii_[elements], self.range)
        return FlowEquilibrium(hardness, flows, name, dipoles)

    def parameter_gradient(
        self,
        equilibrium: Equilibrium,
        operator: Array,
        row_gradients: Mapping[str, Array],
        potential_gradient: Array,
    ) -> dict[str, Any]:
        """Derivatives of a function of label rows with respect to log range and log softness.

        Parameters
        ----------
        equilibrium : FlowEquilibrium
            The equilibrium of one structure.
        operator : ndarray of shape (k, n_atoms)
            Factors that multiply the charges q.
        row_gradients : dict of {str: ndarray of shape (k, n_atoms)}
            Derivatives of the function with respect to the rows of each latent field.
        potential_gradient : ndarray of shape (k, n_atoms)
            Each row is a product: the derivative of the function with respect to one element of
            ``operator @ q``, times the potential u of the charges q.

        Returns
        -------
        gradient : dict
            ``range``, a float, and ``softness``, an ndarray of shape (n_elements,).
        """
        assert isinstance(equilibrium, FlowEquilibrium)
        H = equilibrium.softness_gradient(operator, row_gradients, potential_gradient)
        elements = self.element_indices(equilibrium.structure)
        by_range, by_softness = equilibrium.flows.parameter_gradient(
            H, elements, len(self.elements_)
        )
        return {"range": by_range, "softness": by_softness}


class FlowEquilibrium(Equilibrium):
    """The charges of one structure as an affine function of electronegativities and references.

    The flows h minimise the sum of the electrostatic energy and their cost,
    ``chi . q + q . A q / 2 - field . sum_i q_i r_i + sum_ij h_ij^2 / (2 s_ij)``, where ``field`` is
    the external field. Let X be the Laplacian of the softness, with ``F F^T = X``. The charges are
    then::

        q = q_ref - P (chi + A q_ref - field . r),    P = F (1 + F^T A F)^-1 F^T,
        q = q_ref - X u,                              u = chi + A q - field . r.

    P is symmetric and ``P 1 = 0``. If the softness of a connected graph grows, P approaches the P
    of `QEqEquilibrium`, and q_ref no longer matters. The cost of the flows is ``u . X u / 2``.

    Parameters
    ----------
    hardness : Hardness
        Hardness matrix of the structure, as for `QEqEquilibrium`.
    flows : Flows
        The pairs of atoms between which charge flows, and their softness.
    name : str, default=None
        Name of the structure in error messages; None means its formula.
    dipoles : InducedDipoles or NoDipoles, default=None
        Polarisable atoms, see `Equilibrium`.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from skqeq import check_structures
    >>> from skqeq.electrostatics import DenseHardness
    >>> from skqeq.parameters import covalent_radii
    >>> from skqeq.response import FlowEquilibrium, Flows
    >>> [water] = check_structures([molecule("H2O")])
    >>> flows = Flows(water, np.full(3, 0.05), covalent_radii()[water.numbers], 0.25)
    >>> equilibrium = FlowEquilibrium(DenseHardness(water), flows)
    >>> q = equilibrium.charges(chi=np.array([8.741, 4.528, 4.528]))
    >>> bool(q[0] < 0 < q[1]), bool(abs(q.sum()) < 1e-12)
    (True, True)
    """

    fields = ("chi", "reference")

    def __init__(
        self,
        hardness: Hardness,
        flows: Flows,
        name: str | None = None,
        dipoles: InducedDipoles | NoDipoles | None = None,
    ) -> None:
        super().__init__(hardness, dipoles)
        self.flows = flows
        self._name = name or self.structure.symbols

    @cached_property
    def _solver(self):
        return self.hardness.flow_solver(self.flows.laplacian, self._name)

    @property
    def n_iterations(self) -> int:  # type: ignore[override]
        """Number of iterations of the last solution; 0 for a factorisation."""
        return self._solver.n_iterations

    def charges(self, *, start: Array | None = None, **fields: Array) -> Array:
        """Charges for given electronegativities and reference charges.

        Parameters
        ----------
        start : ndarray of shape (n_atoms,), default=None
            Charges from which iterations start, e; for instance those of a similar geometry.
        **fields : ndarray of shape (n_atoms,)
            The latent fields: ``chi``, the electronegativities, V, and ``reference``, the learned
            reference charges, e, which may have any sum. A latent field that is not given is zero.

        Returns
        -------
        charges : ndarray of shape (n_atoms,)
            Charges, e; they sum to the total charge.
        """
        reference = self.reference_charges(**fields)
        if start is not None:
            # Iterations start from a potential, see `FlowConjugateGradients`.
            start = self.potential(start, **fields)
        return reference - self._solver.project(self.potential(reference, **fields), start)

    def reference_charges(self, **fields: Array) -> Array:
        """Reference charges: the learned ones, shifted so that they sum to the total charge.

        Parameters
        ----------
        **fields : ndarray of shape (n_atoms,)
            As in `charges`.

        Returns
        -------
        reference : ndarray of shape (n_atoms,)
            Charges, e; they sum to the total charge.
        """
        learned = np.asarray(fields.get("reference", np.zeros(len(self.structure))))
        return learned + (self.structure.charge - learned.sum()) / len(learned)

    def energy(self, charges: Array, **fields: Array) -> float:
        """Electrostatic energy plus the cost of the flows.

        In an external field, the energy of a charged structure refers to the coordinate origin. The
        cost is computed as ``u . (q_ref - q) - u . X u / 2``. With this form, small errors of the
        charges change the energy to second order only.

        Parameters
        ----------
        charges : ndarray of shape (n_atoms,)
            Charges, e.
        **fields : ndarray of shape (n_atoms,)
            As in `charges`.

        Returns
        -------
        energy : float
            ``chi . q + q . A q / 2 - field . sum_i q_i r_i`` plus the cost, eV.
        """
        u = self.potential(charges, **fields)
        moved = self.reference_charges(**fields) - charges
        cost = float(u @ moved - 0.5 * u @ (self.flows.laplacian @ u))
        return super().energy(charges, **fields) + cost

    def energy_derivatives(self, charges: Array, **fields: Array) -> dict[str, Array]:
        # The reference charges are shifted to a fixed sum, so that the mean of u has no effect.
        u = self.potential(charges, **fields)
        return {"chi": charges, "reference": u - u.mean()}

    def energy_gradient(self, charges: Array, **fields: Array) -> tuple[Array, Array]:
        # The softness depends on the distances. At fixed charges this changes the cost by
        # -u . dX u / 2.
        gradient, virial = super().energy_gradient(charges, **fields)
        u = self.potential(charges, **fields)
        moved, strained = self.flows.gradient(u, u)
        return gradient - 0.5 * moved, virial - 0.5 * in_plane(strained, self.structure)

    def force_factors(
        self, charges: Array, gradients: Mapping[str, tuple[Array, Array]], **fields: Array
    ) -> tuple[Array, Array | None]:
        # The charges are q_ref - X u. W holds their derivatives at fixed u, which come from X and
        # from the learned reference charges.
        changes = self.flows.charge_gradient(self.potential(charges, **fields))
        for change in changes:
            np.negative(change, out=change)
        for change, of_field in zip(changes, gradients.get("reference", ())):
            change += of_field
        W = self._stacked(*changes)
        # The sum of the charges cannot change: flows conserve charge, and the reference charges are
        # shifted to a fixed sum.
        W -= W.mean(axis=1, keepdims=True)
        return self._potential_factors(charges, gradients), W

    def directional_factors(
        self,
        charges: Array,
        changes: Mapping[str, Array],
        displacement: Array,
        strain: Array,
        **fields: Array,
    ) -> tuple[Array, Array | None]:
        u = self.potential(charges, **fields)
        z = changes.get("reference", 0.0) - self.flows.directional(u, displacement, strain)
        y = self._potential_change(charges, changes, displacement, strain)
        return y, z - z.mean()

    def dipole_gradient(self, charges: Array, **fields: Array) -> Array:
        # The charges change by -P du/dr, as in the base class, and also by -(1 - P A) dX/dr u. The
        # product of R with 1 - P A is the matrix `dipole_rows` of the reference charges.
        born = super().dipole_gradient(charges, **fields)
        u = self.potential(charges, **fields)
        for a, row in enumerate(self.dipole_rows["reference"]):
            born[:, a] -= self.flows.gradient(row, u)[0]
        return born

    def dipole_gradient_factors(self) -> tuple[Array, Array | None]:
        Y, _ = super().dipole_gradient_factors()
        moved = [-self.flows.charge_gradient(row)[0] for row in self.dipole_rows["reference"]]
        return Y, np.stack(moved, axis=1).reshape(Y.shape)

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
        return self._solver.project(V)

    def rows(self, Y: Array, W: Array | None = None) -> dict[str, Array]:
        """Derivatives of ``Y q + W u`` with respect to both latent fields.

        With ``U = Y + W A``::

            d(Y q + W u) = (W - U P) dchi + (U - U P A) dq_ref,    dq_ref = N dr,

        where ``N = 1 - 1 1^T / n`` subtracts the mean, so that the sum of q_ref does not change.

        Parameters
        ----------
        Y, W : ndarray of shape (k, n_atoms)
            Factors that multiply the charges q and the potential u; None for W means zeros.

        Returns
        -------
        rows : dict of {str: ndarray of shape (k, n_atoms)}
            The matrices for ``chi`` and for ``reference``, the learned reference charges r.
        """
        V, reference = self._propagate(self._charge_factors(Y, W))
        # Multiplication by N subtracts the mean of every row.
        reference -= reference.mean(axis=1, keepdims=True)
        return {"chi": -V if W is None else W - V, "reference": reference}

    def softness_gradient(
        self, operator: Array, row_gradients: Mapping[str, Array], potential_gradient: Array
    ) -> Array:
        """The matrix H such that ``-tr(H dX)`` is the change of a function of `rows`.

        It follows from ``dP = T dX T^T``, where ``T = 1 - P A``.

        Parameters
        ----------
        operator : ndarray of shape (k, n_atoms)
            Factors U that multiply the charges q.
        row_gradients : dict of {str: ndarray of shape (k, n_atoms)}
            Derivatives of the function with respect to ``rows(U)``.
        potential_gradient : ndarray of shape (k, n_atoms)
            Each row is a product: the derivative of the function with respect to one element of
            ``U q``, times the potential u of the charges q.

        Returns
        -------
        H : ndarray of shape (n_atoms, n_atoms)
            The matrix H.
        """
        reference = row_gradients["reference"]
        reference = reference - reference.mean(axis=1, keepdims=True)
        combined = row_gradients["chi"] + reference @ self.hardness
        left = self._propagate(combined)[1] + potential_gradient
        return left.T @ self._propagate(operator)[1]

    def _propagate(self, U):
        """``U P`` and ``U T = U - U P A`` for rows U that multiply the charges, (k, n_atoms)."""
        V = np.ascontiguousarray(self.project(np.ascontiguousarray(U.T)).T)
        return V, U - V @ self.hardness
