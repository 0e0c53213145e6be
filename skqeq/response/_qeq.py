"""Charge equilibration: charges that minimise the electrostatic energy at fixed sum."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator

from .._sklearn import Interval
from ..electrostatics import HardnessOperator, hardness_gradient, potential_gradient
from ..electrostatics._hardness import hardness_for
from ..structures import check_structures
from ._dipoles import InducedDipoles, polarizability_table
from ._solvers import Cholesky, ConjugateGradients

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .._typing import Array, Lookup, PerElement, Solver, StructureLike
    from ..structures import Structure
    from ..targets._observables import ChargeTarget
    from ._flow import Flows


class QEq(BaseEstimator):
    """Charge equilibration: any atom exchanges charge with any other at no cost.

    The default `response` of the charge models [1]_.

    Parameters
    ----------
    polarizability : float or dict of {str: float}, default=None
        Isotropic polarisability of every atom, or of those of each element, Angstrom^3: charges
        and the field induce a dipole on each atom, solved for together with the charges, so that
        flat molecules polarise out of their plane. Dipoles are as wide as their polarisability
        asks for [2]_, and the energy has a minimum whatever the distances. None means no dipoles.
        Structures are then solved by factorisation, whatever their size.

    Attributes
    ----------
    learns_reference : bool
        Whether atoms have reference charges, which are learned: False.
    amplitudes : tuple of float
        Prior standard deviations of their weights.
    factorisations : float
        What a direct solution costs, in Cholesky factorisations of the hardness matrix.

    See Also
    --------
    ChargeFlow : Charge flows between neighbours only, and at a cost.

    References
    ----------
    .. [1] Rappé and Goddard, J. Phys. Chem. 95, 3358 (1991).
    .. [2] Mayer, Phys. Rev. B 75, 045407 (2007).

    Examples
    --------
    >>> from skqeq import KQEqRegressor
    >>> from skqeq.response import QEq
    >>> KQEqRegressor(response=QEq())
    KQEqRegressor(response=QEq())
    """

    learns_reference = False
    amplitudes = 0.0, 0.0
    factorisations = 1.0
    _parameter_constraints = {
        "polarizability": [Interval(Real, 0.0, None, closed="left"), dict, None]
    }

    def __init__(self, polarizability: PerElement | None = None) -> None:
        self.polarizability = polarizability

    def tables(self, lookup: Lookup) -> tuple[Array, ...]:
        """Numbers of every element that `equilibrium` wants of every atom.

        Parameters
        ----------
        lookup : callable
            ``lookup(table, name)`` picks the elements out of a table by atomic number, and refuses
            those that are missing.

        Returns
        -------
        tables : tuple of ndarray of shape (n_elements,)
            The polarisabilities, Angstrom^3, or nothing without them.
        """
        return polarizability_table(self.polarizability, lookup)

    def equilibrium(
        self,
        structure: Structure,
        A: Array | HardnessOperator,
        name: str | None,
        widths: Array,
        accuracy: float,
        *polarizability: Array,
    ) -> Equilibrium:
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
        *polarizability : ndarray of shape (n_atoms,)
            From `tables`, for every atom.

        Returns
        -------
        equilibrium : Equilibrium
            The charges as a function of electronegativities.
        """
        return Equilibrium(structure, A, name, widths, accuracy, *polarizability)


class Equilibrium:
    """The charges of one structure as an affine function of its electronegativities.

    Minimising ``chi . q + q . A q / 2 - field . sum_i q_i r_i`` subject to ``1 . q = Q`` gives::

        q = q_0 - P chi,    P = A^-1 - A^-1 1 1^T A^-1 / (1^T A^-1 1),
        q_0 = A^-1 1 Q / (1^T A^-1 1) + P (R field)

    ([1]_, and [2]_ for the field). P is symmetric and ``P 1 = 0``: a constant added to chi, or
    another origin of R, changes nothing.

    Parameters
    ----------
    structure : Structure
        Geometry, total charge and field.
    A : ndarray of shape (n_atoms, n_atoms) or HardnessOperator
        Hardness matrix, eV/e^2; positive definite, that of a slab for charges of sum zero. A matrix
        is factorised, with an operator the charges come from conjugate gradients.
    name : str, default=None
        What error messages call the structure; None means its formula.
    widths : ndarray of shape (n_atoms,), default=None
        Of the Gaussian charges, Angstrom; for observables and derivatives of A.
    accuracy : float, default=1e-8
        Of A, for its derivatives.
    polarizability : ndarray of shape (n_atoms,), default=None
        Of the atoms, Angstrom^3; the dipoles that charges and field induce are then part of A and
        of the energy, see `InducedDipoles`.

    Attributes
    ----------
    structure : Structure
        What it is the response of.
    lever : ndarray of shape (n_atoms, 3)
        What a charge does to the dipole: the positions, less what it induces.
    dipoles : InducedDipoles or None

    Raises
    ------
    ValueError
        If A is not positive definite.

    References
    ----------
    .. [1] Rappé and Goddard, J. Phys. Chem. 95, 3358 (1991).
    .. [2] Chen and Martinez, J. Chem. Phys. 131, 044114 (2009).

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from skqeq import check_structures
    >>> from skqeq.electrostatics import hardness_matrix
    >>> from skqeq.response import Equilibrium
    >>> [water] = check_structures([molecule("H2O")])
    >>> response = Equilibrium(water, hardness_matrix(water))
    >>> chi = np.array([8.741, 4.528, 4.528])
    >>> q = response.charges(chi)
    >>> q.round(3)
    array([-0.047,  0.023,  0.023])
    >>> bool(np.ptp(response.potential(chi, q)) < 1e-9)
    True
    """

    # The graph along which charge flows: none, it goes anywhere.
    flows: Flows | None = None

    def __init__(
        self,
        structure: Structure,
        A: Array | HardnessOperator,
        name: str | None = None,
        widths: Array | None = None,
        accuracy: float = 1e-8,
        polarizability: Array | None = None,
    ) -> None:
        self.structure, self._A, self._widths, self._accuracy = structure, A, widths, accuracy
        name = name or structure.symbols
        self.lever, self.dipoles = structure.positions, None
        if polarizability is not None:
            if isinstance(A, HardnessOperator):
                raise ValueError(
                    f"{name}: induced dipoles are solved for by factorisation: use solver='dense'"
                )
            self.dipoles = InducedDipoles(structure, widths, polarizability, accuracy)
            self._A = A - self.dipoles.screening
            self.lever = self.lever - self.dipoles.lever
        self._external = self.lever @ structure.field
        self._solver = self._make_solver(name)

    def _make_solver(self, name):
        structure, A = self.structure, self._A
        if isinstance(A, HardnessOperator):
            return ConjugateGradients(A, name)
        if structure.periodic and not all(structure.pbc):
            # Between the charged sheets of a slab the potential falls without end. A constant adds
            # c Q^2 / 2 to the energy and nothing to the charges; this one leaves no element below
            # the largest that there was.
            A = A + (np.abs(A).max() - min(A.min(), 0.0))
        return Cholesky(A, name)

    def reference(self, learned: Array) -> Array | None:
        """Charges before anything flows: nothing depends on them.

        Parameters
        ----------
        learned : ndarray of shape (n_atoms,)
            Not looked at.
        """

    def charges(
        self, chi: Array, start: Array | None = None, reference: Array | None = None
    ) -> Array:
        """Charges for electronegativities.

        Parameters
        ----------
        chi : ndarray of shape (n_atoms,)
            Electronegativities, V.
        start : ndarray of shape (n_atoms,), default=None
            Charges of a similar problem, e; they save iterations.
        reference : ndarray of shape (n_atoms,), default=None
            Not looked at, see `FlowEquilibrium.charges`.

        Returns
        -------
        charges : ndarray of shape (n_atoms,)
            Charges, e; they sum to the total charge.
        """
        return self._solver.minimise(self._external - chi, self.structure.charge, start)

    @property
    def n_iterations(self) -> int:
        """Iterations of the last solution; 0 for a factorisation."""
        return self._solver.n_iterations

    def potential(self, chi: Array, charges: Array) -> Array:
        """What a charge of every atom costs, the same for all atoms in equilibrium.

        Parameters
        ----------
        chi : ndarray of shape (n_atoms,)
            Electronegativities, V.
        charges : ndarray of shape (n_atoms,)
            Charges, e.

        Returns
        -------
        u : ndarray of shape (n_atoms,)
            ``chi + A q - field . r``, V.
        """
        return chi - self._external + self._A @ charges

    def energy(self, chi: Array, charges: Array, reference: Array | None = None) -> float:
        """Energy of the charges, in a field about the coordinate origin.

        Parameters
        ----------
        chi : ndarray of shape (n_atoms,)
            Electronegativities, V.
        charges : ndarray of shape (n_atoms,)
            Charges, e.
        reference : ndarray of shape (n_atoms,), default=None
            Not looked at, see `FlowEquilibrium.energy`.

        Returns
        -------
        energy : float
            ``chi . q + q . A q / 2 - field . sum_i q_i r_i``, eV.
        """
        energy = float(charges @ (chi - self._external + 0.5 * (self._A @ charges)))
        if self.dipoles is not None:
            field = self.structure.field
            energy -= 0.5 * float(field @ self.dipoles.polarizability @ field)
        return energy

    def induced(self, charges: Array, field: Array | None = None) -> Array | None:
        """Dipoles of the atoms at charges in a field.

        Parameters
        ----------
        charges : ndarray of shape (n_atoms,)
            Charges, e.
        field : ndarray of shape (3,), default=None
            Field, V/Angstrom; None means that of the structure.

        Returns
        -------
        dipoles : ndarray of shape (n_atoms, 3) or None
            Dipoles, e*Angstrom; None without `dipoles`.
        """
        if self.dipoles is None:
            return None
        return self.dipoles.induced(charges, self.structure.field if field is None else field)

    def coulomb_gradient(
        self, q: Array, p: Array | None = None, field: Array | None = None
    ) -> tuple[Array, Array]:
        """Derivatives of ``q . A p`` at fixed charges with respect to positions and strain.

        Where there are dipoles, those of q in `field`, and of p in that of the structure, interact
        too, and are fixed.

        Parameters
        ----------
        q : ndarray of shape (n_atoms,)
            Charges, e.
        p : ndarray of shape (n_atoms,), default=None
            Others; None means q.
        field : ndarray of shape (3,), default=None
            Field, V/Angstrom; None means that of the structure.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            With respect to the positions, eV/Angstrom.
        virial : ndarray of shape (3, 3)
            With respect to a strain, eV, see `skqeq.electrostatics.hardness_gradient`.
        """
        charges = q if p is None else p
        if isinstance(self._A, HardnessOperator):
            return self._A.gradient(q, charges)
        found = hardness_gradient(self.structure, q, charges, self._widths, self._accuracy)
        if self.dipoles is None:
            return found
        d, e = self.induced(q, field), self.induced(charges)
        more = self.dipoles.gradient(q, d, charges, e)
        return found[0] + more[0], found[1] + more[1]

    def potential_gradient(self, q: Array, field: Array | None = None) -> tuple[Array, Array]:
        """Derivatives of ``A q`` at fixed q with respect to positions and strain.

        Where there are dipoles, those of q in `field` are part of it, and follow.

        Parameters
        ----------
        q : ndarray of shape (n_atoms,)
            Charges, e.
        field : ndarray of shape (3,), default=None
            Field, V/Angstrom; None means that of the structure.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3, n_atoms)
            With respect to the positions, V/Angstrom.
        virial : ndarray of shape (3, 3, n_atoms)
            With respect to a strain, V, see `skqeq.electrostatics.potential_gradient`.
        """
        gradient, virial = potential_gradient(self.structure, q, self._widths, self._accuracy)
        if self.dipoles is not None:
            more = self.dipoles.potential_gradient(q, self.induced(q, field))
            gradient, virial = gradient + more[0], virial + more[1]
        return gradient, virial

    def observable(self, target: ChargeTarget) -> tuple[Array, Array]:
        """What a target is of the charges: ``T q`` and a constant.

        Parameters
        ----------
        target : Target
            An observable of the charges.

        Returns
        -------
        operator : ndarray of shape (k, n_atoms)
            The matrix T.
        constant : ndarray of shape (k,)
            What the field induces.
        """
        operator = target.operator(self.structure, self._widths)
        if self.dipoles is None:
            return operator, np.zeros(len(operator))
        of_dipoles = target.dipole_operator(self.structure, self.dipoles.widths)
        operator, by_field = self.dipoles.observed(operator, of_dipoles)
        return operator, by_field @ self.structure.field

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
        return self._solver.minimise(V)

    def rows(self, Y: Array, W: Array | None = None) -> tuple[Array, Array | None]:
        """What a change of the electronegativities does to ``Y q + W u``.

        Parameters
        ----------
        Y, W : ndarray of shape (k, n_atoms)
            Factors of the charges and of the potential u; W of rows that sum to zero, None for
            zeros.

        Returns
        -------
        over_chi : ndarray of shape (k, n_atoms)
            ``-Y P``: u changes by the same number everywhere.
        over_reference : None
            See `FlowEquilibrium.rows`.
        """
        return -self.project(np.ascontiguousarray(Y.T)).T, None


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

    They minimise ``chi . q + q . A q / 2 - field . sum_i q_i r_i`` at the total charge of the
    structure, ``atoms.info["charge"]``, in the field ``atoms.info["external_field"]``.

    Parameters
    ----------
    atoms : ase.Atoms
        A molecule, a slab or a crystal of any size.
    chi : array-like of shape (n_atoms,)
        Electronegativities, V.
    widths : array-like of shape (n_atoms,), default=None
        Widths of the Gaussian charges, Angstrom; None means `skqeq.electrostatics.gaussian_widths`.
    hardness : float, array-like of shape (n_atoms,) or dict, default=0.0
        Added to the diagonal of the hardness matrix, eV/e^2; a dict gives a value per element.
    accuracy : float, default=1e-8
        As in `skqeq.electrostatics.hardness_matrix`.
    solver : {"auto", "dense", "iterative"}, default="auto"
        Factorisation of the hardness matrix, or conjugate gradients without storing it; by default
        the faster one.
    start : array-like of shape (n_atoms,), default=None
        Charges to start iterations from, such as those of a similar geometry; e.

    Returns
    -------
    charges : ndarray of shape (n_atoms,)
        Charges, e; they sum to the total charge.

    Raises
    ------
    ValueError
        If the structure or an argument is unusable, or the hardness matrix not positive definite.
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
    A = hardness_for(structure, widths, hardness, accuracy, solver)
    return Equilibrium(structure, A).charges(**vectors)
