"""Charge that flows between neighbours, from reference charges."""

from __future__ import annotations

from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator

from .._sklearn import Interval
from ..electrostatics import HardnessOperator
from ..parameters import covalent_radii, per_element
from ..structures._neighbors import gather_pairs, neighbor_pairs, spread_pairs
from ._dipoles import polarizability_table
from ._qeq import Equilibrium, QEq
from ._solvers import FlowCholesky, FlowConjugateGradients

if TYPE_CHECKING:
    from .._typing import Array, Lookup, PerElement
    from ..structures import Structure


# Softness vanishes so many ranges beyond contact.
REACH = 10.0


class ChargeFlow(BaseEstimator):
    """Charge flows between neighbours only, at a cost, and atoms have charges to begin with.

    A response for the parameter `response` of `KQEqRegressor` and `GAPKQEqRegressor`. An atom has a
    reference charge, which is learned like its electronegativity, from its surroundings. From it
    charge ``p_ij`` flows along pairs of atoms and costs ``p_ij^2 / (2 s_ij)``; the softness of a
    pair falls with its distance beyond contact and vanishes at a finite one::

        q_i = q_ref,i + sum_j p_ij,    q_ref,i = r_i + (Q - sum_j r_j) / n,
        s_ij = sqrt(s_i s_j) exp(-x / (1 - x / 10)),    x = (r_ij - R_i - R_j) / range  (below 10),

    with covalent radii R. All energies, with that of the flows, are minimised together, and the
    charges are linear in both fields, so that training is as for `QEq`. Separated fragments keep
    their charge, and a field polarises a cluster like an insulator, where charge equilibration
    [1]_ makes a metal of everything. It is related to split charges [2]_ and to ACKS2 [3]_.

    Parameters
    ----------
    softness : float or dict of {str: float}, default=0.05
        ``s_i``: the softness of a pair in contact, of all elements or of each, e/V. Large ones lead
        to charge equilibration of each connected fragment; with zero charges are those of the
        reference, and local.
    range : float, default=0.25
        The length on which softness falls with the distance, Angstrom.
    amplitude : float, default=0.1
        Prior standard deviation of the learned part of the reference charges, e.
    amplitude_baseline : float, default=1.0
        That of the reference charge of an element, e.
    polarizability : float or dict of {str: float}, default=None
        Of the atoms, Angstrom^3, as of `QEq`.

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

    learns_reference = True
    factorisations = 30.0  # measured at 1500 atoms

    _parameter_constraints = {
        "softness": [Interval(Real, 0.0, None, closed="left"), dict],
        "range": [Interval(Real, 0.0, None, closed="neither")],
        "amplitude": [Interval(Real, 0.0, None, closed="left")],
        "amplitude_baseline": [Interval(Real, 0.0, None, closed="left")],
        **QEq._parameter_constraints,
    }

    def __init__(
        self,
        softness: PerElement = 0.05,
        range: float = 0.25,
        amplitude: float = 0.1,
        amplitude_baseline: float = 1.0,
        polarizability: PerElement | None = None,
    ) -> None:
        self.softness = softness
        self.range = range
        self.amplitude = amplitude
        self.amplitude_baseline = amplitude_baseline
        self.polarizability = polarizability

    @property
    def amplitudes(self) -> tuple[float, float]:
        """Prior standard deviations of the weights and of the elements' reference charges, e."""
        return self.amplitude, self.amplitude_baseline

    def tables(self, lookup: Lookup) -> tuple[Array, ...]:
        """Softness, e/V, radius, Angstrom, and polarisability, Angstrom^3, of every element.

        Parameters
        ----------
        lookup : callable
            As of `QEq.tables`.

        Returns
        -------
        tables : tuple of ndarray of shape (n_elements,)
            Two, or three with polarisabilities.
        """
        softness = lookup(per_element(self.softness, "softness"), "softness in `softness`")
        radii = lookup(covalent_radii(), "covalent radius")
        return softness, radii, *polarizability_table(self.polarizability, lookup)

    def equilibrium(
        self,
        structure: Structure,
        A: Array | HardnessOperator,
        name: str | None,
        widths: Array,
        accuracy: float,
        softness: Array,
        radii: Array,
        *polarizability: Array,
    ) -> FlowEquilibrium:
        """The response of one structure.

        Parameters
        ----------
        structure : Structure
            Geometry, total charge and field.
        A : ndarray of shape (n_atoms, n_atoms) or HardnessOperator
            Hardness matrix, eV/e^2.
        name : str or None
            What error messages call the structure.
        widths : ndarray of shape (n_atoms,)
            Of the Gaussian charges, Angstrom.
        accuracy : float
            As in `skqeq.electrostatics.hardness_matrix`.
        softness, radii : ndarray of shape (n_atoms,)
            From `tables`, for every atom.
        *polarizability : ndarray of shape (n_atoms,)
            Likewise.

        Returns
        -------
        equilibrium : FlowEquilibrium
            The charges as a function of electronegativities and reference charges.
        """
        flows = Flows(structure, softness, radii, self.range)
        return FlowEquilibrium(structure, A, flows, name, widths, accuracy, *polarizability)


class Flows:
    """The pairs of atoms of one structure between which charge flows.

    Parameters
    ----------
    structure : Structure
        A molecule, a slab or a crystal.
    softness, radii : ndarray of shape (n_atoms,)
        Of every atom, e/V and Angstrom.
    range : float
        Angstrom.

    Attributes
    ----------
    i, j : ndarray of shape (n_pairs,)
        Ordered pairs, each twice.
    D : ndarray of shape (n_pairs, 3)
        Vectors from i to j, Angstrom.
    softness : ndarray of shape (n_pairs,)
        ``s_ij``, e/V.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from skqeq import check_structures
    >>> from skqeq.parameters import covalent_radii
    >>> from skqeq.response import Flows
    >>> [water] = check_structures([molecule("H2O")])
    >>> flows = Flows(water, np.full(3, 0.05), covalent_radii()[water.numbers], 0.25)
    >>> flows.laplacian.toarray().round(3)
    array([[ 0.101, -0.05 , -0.05 ],
           [-0.05 ,  0.05 , -0.   ],
           [-0.05 , -0.   ,  0.05 ]])
    """

    def __init__(self, structure: Structure, softness: Array, radii: Array, range: float) -> None:
        self.n_atoms, self.range = len(structure), range
        reach = 2 * radii.max() + REACH * range
        if not structure.periodic:
            # No pair is further apart than the corners of the box around all atoms.
            reach = min(reach, 1.0 + np.linalg.norm(np.ptp(structure.positions, axis=0)))
        i, j, D = neighbor_pairs(structure, reach)
        # Between an atom and its own images nothing flows.
        distances = np.sqrt(np.einsum("pa,pa->p", D, D))
        x = (distances - radii[i] - radii[j]) / range
        near = (x < REACH) & (i != j) & (softness[i] * softness[j] > 0)
        self.i, self.j, self.D = i[near], j[near], D[near]
        self._distances, self._x = distances[near], x[near]
        decay = np.exp(-self._x / (1 - self._x / REACH))
        self.softness = np.sqrt(softness[self.i] * softness[self.j]) * decay

    @cached_property
    def laplacian(self) -> csr_array:
        """X, the sparse matrix of ``(X u)_i = sum_j s_ij (u_i - u_j)``; e/V."""
        shape = (self.n_atoms, self.n_atoms)
        own = np.arange(self.n_atoms)
        degrees = np.bincount(self.i, self.softness, self.n_atoms)
        values = np.concatenate([-self.softness, degrees])
        ends = np.concatenate([self.i, own]), np.concatenate([self.j, own])
        return csr_array((values, ends), shape)

    @cached_property
    def _slopes(self):
        """Derivatives of the softness with respect to D, shape (n_pairs, 3)."""
        slope = -self.softness / (self.range * (1 - self._x / REACH) ** 2)
        return (slope / self._distances)[:, None] * self.D

    def gradient(self, u: Array, v: Array) -> tuple[Array, Array]:
        """Derivatives of ``u . X v`` with respect to positions and strain.

        Parameters
        ----------
        u, v : ndarray of shape (n_atoms,)
            Potentials, V.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            With respect to the positions, eV/Angstrom.
        virial : ndarray of shape (3, 3)
            With respect to a strain, eV.
        """
        across = 0.5 * (u[self.i] - u[self.j]) * (v[self.i] - v[self.j])
        return gather_pairs(self.i, self.j, self.D, across[:, None] * self._slopes, self.n_atoms)

    def derivatives(self, H: Array, numbers: Array, n_elements: int) -> tuple[float, Array]:
        """Derivatives of ``-tr(H X)`` with respect to the logarithms of range and softness.

        Parameters
        ----------
        H : ndarray of shape (n_atoms, n_atoms)
            Any matrix.
        numbers : ndarray of shape (n_atoms,)
            The element, from 0, of every atom.
        n_elements : int
            Their number.

        Returns
        -------
        range : float
            The derivative with respect to the logarithm of the range.
        softness : ndarray of shape (n_elements,)
            Those with respect to the logarithms of the softness of the elements.
        """
        i, j = self.i, self.j
        # Every pair stands twice.
        of_pairs = -0.5 * self.softness * (H[i, i] + H[j, j] - H[i, j] - H[j, i])
        by_range = of_pairs @ (self._x / (1 - self._x / REACH) ** 2)
        ends = np.concatenate([numbers[i], numbers[j]])
        by_element = np.bincount(ends, np.tile(0.5 * of_pairs, 2), n_elements)
        return float(by_range), by_element

    def charge_gradient(self, u: Array) -> tuple[Array, Array]:
        """Derivatives of ``X u`` with respect to positions and strain.

        Parameters
        ----------
        u : ndarray of shape (n_atoms,)
            Potentials, V.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3, n_atoms)
            With respect to the positions, e/Angstrom.
        virial : ndarray of shape (3, 3, n_atoms)
            With respect to a strain, e.
        """
        g = (u[self.i] - u[self.j])[:, None] * self._slopes
        return spread_pairs(self.i, self.j, self.D, g, self.n_atoms)


class FlowEquilibrium(Equilibrium):
    """The charges of one structure as an affine function of electronegativity and reference.

    Minimising ``chi . q + q . A q / 2 - field . sum_i q_i r_i + sum_ij p_ij^2 / (2 s_ij)`` over the
    flows p gives, with the Laplacian X of the softness and ``F F^T = X``::

        q = q_ref - P (chi + A q_ref - field . r),    P = F (1 + F^T A F)^-1 F^T,
        q = q_ref - X u,                              u = chi + A q - field . r.

    P is symmetric and ``P 1 = 0``. On a connected graph P becomes that of `Equilibrium` as the
    softness grows, and q_ref drops out. The flows cost ``u . X u / 2``.

    Parameters
    ----------
    structure : Structure
        Geometry, total charge and field.
    A : ndarray of shape (n_atoms, n_atoms) or HardnessOperator
        Hardness matrix, eV/e^2, as of `Equilibrium`.
    flows : Flows
        Between which atoms charge flows, and how easily.
    name : str, default=None
        What error messages call the structure; None means its formula.
    widths : ndarray of shape (n_atoms,), default=None
        Of the Gaussian charges, Angstrom; for observables and derivatives of A.
    accuracy : float, default=1e-8
        Of A, for its derivatives.
    polarizability : ndarray of shape (n_atoms,), default=None
        Of the atoms, Angstrom^3, as of `Equilibrium`.

    Raises
    ------
    ValueError
        If A is so far from positive definite that no charges have the least energy.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from skqeq import check_structures
    >>> from skqeq.electrostatics import hardness_matrix
    >>> from skqeq.parameters import covalent_radii
    >>> from skqeq.response import FlowEquilibrium, Flows
    >>> [water] = check_structures([molecule("H2O")])
    >>> flows = Flows(water, np.full(3, 0.05), covalent_radii()[water.numbers], 0.25)
    >>> response = FlowEquilibrium(water, hardness_matrix(water), flows)
    >>> q = response.charges(np.array([8.741, 4.528, 4.528]))
    >>> bool(q[0] < 0 < q[1]), bool(abs(q.sum()) < 1e-12)
    (True, True)
    """

    flows: Flows

    def __init__(
        self,
        structure: Structure,
        A: Array | HardnessOperator,
        flows: Flows,
        name: str | None = None,
        widths: Array | None = None,
        accuracy: float = 1e-8,
        polarizability: Array | None = None,
    ) -> None:
        self.flows = flows
        super().__init__(structure, A, name, widths, accuracy, polarizability)

    def _make_solver(self, name):
        if isinstance(self._A, HardnessOperator):
            return FlowConjugateGradients(self._A, self.flows.laplacian, name)
        return FlowCholesky(self._A, self.flows.laplacian.toarray(), name)

    def reference(self, learned: Array) -> Array:
        """Reference charges of the right sum from those that are learned.

        Parameters
        ----------
        learned : ndarray of shape (n_atoms,)
            Charges, e, of any sum.

        Returns
        -------
        reference : ndarray of shape (n_atoms,)
            Charges, e, that sum to the total charge.
        """
        return learned + (self.structure.charge - learned.sum()) / len(learned)

    def charges(
        self, chi: Array, start: Array | None = None, reference: Array | None = None
    ) -> Array:
        """Charges for electronegativities and reference charges.

        Parameters
        ----------
        chi : ndarray of shape (n_atoms,)
            Electronegativities, V.
        start : ndarray of shape (n_atoms,), default=None
            Charges of a similar problem, e; they save iterations.
        reference : ndarray of shape (n_atoms,), default=None
            From `reference`, e; None means equal ones.

        Returns
        -------
        charges : ndarray of shape (n_atoms,)
            Charges, e; they sum to the total charge.
        """
        if reference is None:
            reference = self.reference(np.zeros(len(chi)))
        if start is not None:
            start = self.potential(chi, start)
        return reference - self._solver.project(self.potential(chi, reference), start)

    def energy(self, chi: Array, charges: Array, reference: Array | None = None) -> float:
        """Energy of the charges, in a field about the coordinate origin, and cost of the flows.

        That is taken as ``u . (q_ref - q) - u . X u / 2``: errors of the charges enter to second
        order only.

        Parameters
        ----------
        chi : ndarray of shape (n_atoms,)
            Electronegativities, V.
        charges : ndarray of shape (n_atoms,)
            Charges, e.
        reference : ndarray of shape (n_atoms,), default=None
            From `reference`, e; None means equal ones.

        Returns
        -------
        energy : float
            ``chi . q + q . A q / 2 - field . sum_i q_i r_i`` and the cost, eV.
        """
        if reference is None:
            reference = self.reference(np.zeros(len(chi)))
        u = self.potential(chi, charges)
        flows = float(u @ (reference - charges) - 0.5 * u @ (self.flows.laplacian @ u))
        return super().energy(chi, charges) + flows

    def project(self, V: Array) -> Array:
        """Charges that answer to potentials, times -1.

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

    def rows(self, Y: Array, W: Array | None = None) -> tuple[Array, Array]:
        """What a change of both fields does to ``Y q + W u``, whatever their sum.

        With ``U = Y + W A``::

            d(Y q + W u) = (W - U P) dchi + (U - U P A) dq_ref,    dq_ref = N dr,

        where ``N = 1 - 1 1^T / n`` keeps the sum.

        Parameters
        ----------
        Y, W : ndarray of shape (k, n_atoms)
            Factors of the charges and of the potential u; None for zeros.

        Returns
        -------
        over_chi, over_reference : ndarray of shape (k, n_atoms)
            Over the electronegativities and the learned reference charges r.
        """
        U = Y if W is None else Y + self._times_hardness(W)
        V, reference = self.through(U)
        reference -= reference.mean(axis=1, keepdims=True)
        return -V if W is None else W - V, reference

    def through(self, U: Array) -> tuple[Array, Array]:
        """What electronegativities and reference charges do to ``U q``.

        Parameters
        ----------
        U : ndarray of shape (k, n_atoms)
            Factors of the charges.

        Returns
        -------
        over_chi : ndarray of shape (k, n_atoms)
            ``U P``; its negative is the derivative with respect to the electronegativities.
        over_reference : ndarray of shape (k, n_atoms)
            ``U T = U - U P A``, the derivative with respect to the reference charges.
        """
        V = np.ascontiguousarray(self.project(np.ascontiguousarray(U.T)).T)
        return V, U - self._times_hardness(V)

    def softness_response(
        self, U: Array, over_chi: Array, over_reference: Array, u: Array
    ) -> Array:
        """The matrix H of what a change of the softness does to a function of ``U q``.

        By ``dP = T dX T^T`` with ``T = 1 - P A``, a function of ``U q`` and of what both fields do
        to it, see `rows`, changes by ``-tr(H dX)``.

        Parameters
        ----------
        U : ndarray of shape (k, n_atoms)
            Factors of the charges.
        over_chi, over_reference : ndarray of shape (k, n_atoms)
            Derivatives of the function with respect to what `rows` returns.
        u : ndarray of shape (k, n_atoms)
            Its derivatives with respect to ``U q``, each times the potential that goes with q.

        Returns
        -------
        H : ndarray of shape (n_atoms, n_atoms)
            As in ``-tr(H dX)``.
        """
        reference = over_reference - over_reference.mean(axis=1, keepdims=True)
        both = self.through(over_chi + self._times_hardness(reference))[1] + u
        return both.T @ self.through(U)[1]

    def _times_hardness(self, rows):
        """Rows of shape (k, n_atoms) times A."""
        if isinstance(self._A, HardnessOperator):
            return np.stack([self._A @ row for row in rows])
        return rows @ self._A
