"""What a charge model says of one structure."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .._threads import blas_threads_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._typing import Array
    from ..response import Equilibrium
    from ..structures import Structure


class Solution:
    """The charges of one structure, and the energy with its derivatives that go with them.

    What ``model.solutions(X)`` yields. The energy is a minimum in the charges, so that their
    derivatives drop out. With the potential ``u = chi + A q - field . r``, and reference charges
    where there are any::

        E = chi . q + q . A q / 2 - field . sum_i q_i r_i + u . (q_ref - q) / 2 + sum_i e_i
        F_j = -q . dchi/dr_j - q . dA/dr_j q / 2 + q_j field - sum_i de_i/dr_j
              - u . dq_ref/dr_j + u . dX/dr_j u / 2

    The last terms are those of charge that flows, see `skqeq.response.FlowEquilibrium`; without
    reference charges u is the same for all atoms.

    Parameters
    ----------
    structure : Structure
        Geometry, total charge and field.
    widths : ndarray of shape (n_atoms,)
        Of the Gaussian charges, Angstrom.
    equilibrium : Equilibrium
        The charge response.
    fields : tuple of ndarray of shape (n_atoms,)
        Electronegativities, V, reference charges, e, or None, and energies of the atoms, eV.
    charges : ndarray of shape (n_atoms,)
        Those of least energy, e.
    slopes : list of (gradient, dual)
        Of each field, the gradient of the features and the dual weights; None where no derivatives
        are wanted, and those of the energy, of the dipole and of the potential are not known.

    Attributes
    ----------
    chi, reference, energies : ndarray of shape (n_atoms,)
        The fields.

    See Also
    --------
    KQEqRegressor.solutions : Makes them.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor, make_targets
    >>> X = [molecule("H2O"), molecule("NH3")]
    >>> y = make_targets(charges=[[-0.7, 0.35, 0.35], [-0.9, 0.3, 0.3, 0.3]])
    >>> model = QEqRegressor().fit(X, y)
    >>> for solution in model.solutions(X, ["forces"]):
    ...     print(solution.structure.symbols, solution.chi.shape, solution.forces.shape)
    H2O (3,) (3, 3)
    H3N (4,) (4, 3)
    """

    def __init__(
        self,
        structure: Structure,
        widths: Array,
        equilibrium: Equilibrium,
        fields: tuple[Array, Array | None, Array],
        charges: Array,
        slopes: Sequence[Any] | None = None,
    ) -> None:
        self.structure = structure
        self.widths = widths
        self.equilibrium = equilibrium
        self.chi, self.reference, self.energies = fields
        self.charges = charges
        self._slopes = slopes

    @property
    def slopes(self) -> Sequence[Any]:
        """Of each field, the gradient of the features and the dual weights."""
        if self._slopes is None:
            raise ValueError("ask for derivatives first: model.solutions(X, ['forces'])")
        return self._slopes

    @cached_property
    def energy(self) -> float:
        """Total energy, eV."""
        electrostatic = self.equilibrium.energy(self.chi, self.charges, self.reference)
        return electrostatic + float(self.energies.sum())

    @cached_property
    def potential(self) -> Array:
        """``u = chi + A q - field . r``, shape (n_atoms,), V."""
        return self.equilibrium.potential(self.chi, self.charges)

    @cached_property
    def drive(self) -> Array:
        """What a learned reference charge does to the energy, ``u - mean(u)``; (n_atoms,), V."""
        return self.potential - self.potential.mean()

    @cached_property
    def _derivatives(self):
        """Of the energy, with respect to the positions and to a strain."""
        with blas_threads_for(self.structure):
            gradient, virial = self._energy_gradient()
        return gradient, in_plane(self.structure, virial)

    def _energy_gradient(self):
        q = self.charges
        gradient, virial = (0.5 * part for part in self.equilibrium.coulomb_gradient(q))
        gradient = gradient - np.multiply.outer(q, self.structure.field)
        parts = []
        if self.equilibrium.flows is not None:
            moved, strained = self.equilibrium.flows.gradient(self.potential, self.potential)
            parts.append((-0.5 * moved, -0.5 * strained))
        # What a change of each field does to the energy; those of the same features at once.
        shared = {}
        for (near, dual), factors in zip(self.slopes, (q, self.drive, np.ones_like(q))):
            shared.setdefault(id(near), []).append((near, dual, factors))
        for fields in shared.values():
            (near, *_), duals, factors = zip(*fields, strict=True)
            parts.append(near.field_gradient(np.stack(factors), np.stack(duals)))
        for moved, strained in parts:
            gradient, virial = gradient + moved, virial + strained
        return gradient, virial

    @property
    def forces(self) -> Array:
        """Negative derivatives of the energy, shape (n_atoms, 3), eV/Angstrom."""
        return -self._derivatives[0]

    @property
    def virial(self) -> Array:
        """Derivatives of the energy with respect to a strain, shape (3, 3), eV."""
        return self._derivatives[1]

    @cached_property
    def polarizability(self) -> Array:
        """``R^T P R``: what a field does to the dipole; shape (3, 3), e^2 Angstrom^2 / eV."""
        dipoles = self.equilibrium.dipoles
        of_atoms = 0.0 if dipoles is None else dipoles.polarizability
        return self.equilibrium.lever.T @ self.dipole_response + of_atoms

    @property
    def induced_dipoles(self) -> Array | None:
        """Dipoles of the atoms, shape (n_atoms, 3), e*Angstrom; None where there are none."""
        return self.equilibrium.induced(self.charges)

    @cached_property
    def dipole_response(self) -> Array:
        """``V = P R``: the charges that a field moves, shape (n_atoms, 3), e*Angstrom/V."""
        return self.equilibrium.project(np.ascontiguousarray(self.equilibrium.lever))

    @cached_property
    def reference_response(self) -> Array | None:
        """``R - A V``: what reference charges do to the dipole, shape (n_atoms, 3), Angstrom.

        Up to a constant, which does not matter as their sum is given.
        """
        over_reference = self.equilibrium.rows(np.ascontiguousarray(self.equilibrium.lever.T))[1]
        return None if over_reference is None else over_reference.T

    @cached_property
    def born_effective_charges(self) -> Array:
        """Derivatives ``d mu_a / d r_jb`` of the dipole: shape (n_atoms, 3, 3), e.

        The charges change by ``-P du/dr``, u at fixed charges, and of P the dipole sees
        ``V = P R``: ``Z*_jab = q_j delta_ab - sum_i V_ia du_i/dr_jb``. Where charge flows, it also
        follows ``dq_ref/dr - dX/dr u``, of which the dipole sees ``R - A V``.
        """
        q, V = self.charges, self.dipole_response
        born = np.multiply.outer(q, np.eye(3)) + V[:, :, None] * self.structure.field
        responses: list[Any] = [-V, self.reference_response]
        for (features, dual), factors in zip(self.slopes, responses):
            for neighborhood, g in features.pair_gradients(dual):
                for a in range(3):
                    born[:, a] += neighborhood.gather(factors[neighborhood.i, a, None] * g)[0]
        flows = self.equilibrium.flows
        for a in range(3):
            moved, along = np.ascontiguousarray(V[:, a]), np.eye(3)[a]
            born[:, a] -= self.equilibrium.coulomb_gradient(moved, q, along)[0]
            if flows is not None:
                born[:, a] -= flows.gradient(responses[1][:, a], self.potential)[0]
        return born

    def potential_gradient(self) -> tuple[Array, Array]:
        """Derivatives of ``u = chi + A q - field . r`` at fixed charges.

        Their products with ``dq/dw`` are what the response of the charges adds to the derivatives
        of forces and virial with respect to the weights.

        Returns
        -------
        gradient : ndarray of shape (3 n_atoms, n_atoms)
            ``d u_i / d r_ja``, V/Angstrom.
        virial : ndarray of shape (9, n_atoms)
            With respect to a strain, V.
        """
        gradient, virial = self.equilibrium.potential_gradient(self.charges)
        own = np.arange(len(self.charges))
        gradient[own, :, own] -= self.structure.field
        return self._completed(gradient, virial, *self.slopes[0])

    def reference_gradient(self) -> tuple[Array, Array] | None:
        """Derivatives of ``q_ref - X u`` at fixed u, in the form of `potential_gradient`.

        Returns
        -------
        gradient, virial : ndarray or None
            In e/Angstrom and e; None where no charge flows.
        """
        flows = self.equilibrium.flows
        if flows is None:
            return None
        gradient, virial = (-part for part in flows.charge_gradient(self.potential))
        gradient, virial = self._completed(gradient, virial, *self.slopes[1])
        # Flows keep their sum; the sum of the reference charges is kept by all alike.
        return tuple(part - part.mean(axis=1, keepdims=True) for part in (gradient, virial))

    def _completed(self, gradient, virial, features, dual):
        """Add the derivatives of a field of every atom, and flatten both."""
        n = len(self.charges)
        for neighborhood, g in features.pair_gradients(dual):
            moved, strained = neighborhood.gather_by_center(g)
            gradient += moved
            virial += strained
        virial = in_plane(self.structure, virial.transpose(2, 0, 1)).transpose(1, 2, 0)
        return gradient.reshape(3 * n, n), virial.reshape(9, n)


def in_plane(structure, virial):
    """The virial of strains that a structure can have: those of a slab lie in its plane."""
    if not structure.periodic or all(structure.pbc):
        return virial
    normal = structure.cell[structure.pbc.index(False)]
    plane = np.eye(3) - np.outer(normal, normal)
    return plane @ virial @ plane
