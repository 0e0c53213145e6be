"""The charges of one structure, its energy, and their derivatives."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from .._threads import blas_threads_for
from ..electrostatics import in_plane
from ..targets import TARGETS
from ._atomic_dipoles import check_energies, dipole_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .._typing import Array
    from ..response import Equilibrium
    from ..structures import FeatureGradient, Neighborhood, Structure


class Evaluation(NamedTuple):
    """The values of a field of one structure, and their derivatives.

    Attributes
    ----------
    values : ndarray of shape (n_atoms,)
        The part of the field that the features describe.
    pairs : list of (Neighborhood, ndarray of shape (n_pairs, 3))
        Pairs of neighbours, and the derivatives of the field of the centre with respect to the
        vector of each pair, see `FeatureGradient.pair_gradients`.
    """

    values: Array
    pairs: list[tuple[Neighborhood, Array]]

    @classmethod
    def of(cls, features: FeatureGradient, dual: Array) -> Self:
        """Evaluate a field with given dual weights."""
        if not dual.any():
            return cls(np.zeros(features.n_atoms), [])
        return cls(features.field(dual), list(features.pair_gradients(dual)))

    @classmethod
    def combined(cls, terms: Sequence[tuple[float, Self]]) -> Self:
        """The evaluation at a linear combination of weights, from those at each of them."""
        values = np.sum([c * evaluation.values for c, evaluation in terms], axis=0)
        # Where the dual weights are zero, there are no pairs.
        of_terms = [(c, evaluation.pairs) for c, evaluation in terms if evaluation.pairs]
        pairs = []
        for k, (neighborhood, _) in enumerate(of_terms[0][1] if of_terms else []):
            gradients = np.sum([c * blocks[k][1] for c, blocks in of_terms], axis=0)
            pairs.append((neighborhood, gradients))
        return cls(values, pairs)

    @property
    def n_bytes(self) -> int:
        """Size of the arrays, bytes; the neighbourhoods belong to the features."""
        return self.values.nbytes + sum(gradients.nbytes for _, gradients in self.pairs)


class FieldGradient(NamedTuple):
    """Derivatives of one component of a field of one structure with respect to the geometry.

    Parameters
    ----------
    number : int
        Index of the field in the layout.
    enters : str
        The quantity to which the component contributes, see `skqeq.fields.Component`.
    features : FeatureGradient
        Gradient of the features of the structure.
    dual : ndarray
        Dual weights of the field, see `StructureFeatures.dual`.
    evaluation : Evaluation, default=None
        Values and derivatives of the field; None if they are not known.
    """

    number: int
    enters: str
    features: FeatureGradient
    dual: Array
    evaluation: Evaluation | None = None

    @property
    def values(self) -> Array:
        """The part of the field that the features describe, shape (n_atoms,)."""
        known = self.evaluation
        return self.features.field(self.dual) if known is None else known.values

    def pair_gradients(self) -> Iterable[tuple[Neighborhood, Array]]:
        """See `FeatureGradient.pair_gradients`."""
        known = self.evaluation
        return self.features.pair_gradients(self.dual) if known is None else known.pairs


class Solution:
    """The charges that minimise the energy of one structure, the energy, and its derivatives.

    ``model.solutions(X)`` yields a solution for each structure. The energy E is the energy of the
    charges, which depends on the fields f of the response, plus the local energies of the atoms::

        E = E_charges(q, f, r) + sum_i e_i

    E is minimal with respect to the charges, so the forces contain no derivatives of the charges::

        F_j = -dE_charges/dr_j - sum_f sum_i (dE_charges/df_i) df_i/dr_j - sum_i de_i/dr_j

    The terms of E_charges are documented at `skqeq.response.QEq` and `skqeq.response.ChargeFlow`.

    Parameters
    ----------
    structure : Structure
        Geometry, total charge and external electric field.
    equilibrium : Equilibrium
        The response of the charges.
    fields : dict of {str: ndarray of shape (n_atoms,)}
        Values of the fields of the response, such as ``"chi"`` in V.
    energies : ndarray of shape (n_atoms,)
        Local energies, eV.
    charges : ndarray of shape (n_atoms,)
        Charges that minimise the energy, e.
    field_gradients : list of FieldGradient, default=None
        Derivatives of each field of the model with respect to the geometry, one entry per
        component. None disables forces, stress and Born charges, which then raise an error.
    atomic_dipoles : ndarray of shape (n_atoms, 3), default=None
        Learned dipoles of the atoms, e*Angstrom, which do not act on the charges. None means that
        the model has none.

    See Also
    --------
    KQEqRegressor.solutions : Yields solutions.

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
        equilibrium: Equilibrium,
        fields: dict[str, Array],
        energies: Array,
        charges: Array,
        field_gradients: Sequence[FieldGradient] | None = None,
        atomic_dipoles: Array | None = None,
    ) -> None:
        self.structure = structure
        self.equilibrium = equilibrium
        self.fields = fields
        self.energies = energies
        self.charges = charges
        self._field_gradients = field_gradients
        self.atomic_dipoles = atomic_dipoles

    @property
    def chi(self) -> Array:
        """Electronegativities, shape (n_atoms,), V."""
        if "chi" not in self.fields:
            raise ValueError("the model has no electronegativities")
        return self.fields["chi"]

    @property
    def field_gradients(self) -> Sequence[FieldGradient]:
        """Derivatives of each field of the model with respect to the geometry."""
        if self._field_gradients is None:
            raise ValueError("ask for derivatives first: model.solutions(X, ['forces'])")
        return self._field_gradients

    def _check_energies(self):
        if self.atomic_dipoles is not None:
            check_energies(["energy"], "a model")

    @cached_property
    def energy(self) -> float:
        """Total energy, eV."""
        self._check_energies()
        electrostatic = self.equilibrium.energy(self.charges, **self.fields)
        return electrostatic + float(self.energies.sum())

    @cached_property
    def potential(self) -> Array:
        """``u = chi + A q - field . r``, shape (n_atoms,), V."""
        return self.equilibrium.potential(self.charges, **self.fields)

    @cached_property
    def energy_derivatives(self) -> dict[str, Array]:
        """Derivatives ``dE / df_i`` for every quantity to which fields contribute, (n_atoms,)."""
        of_charges = self.equilibrium.energy_derivatives(self.charges, **self.fields)
        return {**of_charges, "energy": np.ones(len(self.structure))}

    @cached_property
    def _energy_gradient(self):
        """Derivatives of the energy with respect to the positions and to a strain."""
        self._check_energies()
        with blas_threads_for(self.structure):
            gradient, virial = self.equilibrium.energy_gradient(self.charges, **self.fields)
            # The pass over the neighbours is expensive; fields with the same features share it.
            by_features = {}
            for field in self.field_gradients:
                factors = self.energy_derivatives[field.enters]
                if field.evaluation is None:
                    by_features.setdefault(id(field.features), []).append(field)
                    continue
                for neighborhood, g in field.pair_gradients():
                    moved, strained = neighborhood.gather(factors[neighborhood.i, None] * g)
                    gradient, virial = gradient + moved, virial + strained
            for fields in by_features.values():
                factors = np.stack([self.energy_derivatives[field.enters] for field in fields])
                duals = np.stack([field.dual for field in fields])
                moved, strained = fields[0].features.field_gradient(factors, duals)
                gradient, virial = gradient + moved, virial + strained
        return gradient, in_plane(virial, self.structure)

    @property
    def forces(self) -> Array:
        """Negative derivatives of the energy by position, shape (n_atoms, 3), eV/Angstrom."""
        return -self._energy_gradient[0]

    @property
    def virial(self) -> Array:
        """Derivatives of the energy with respect to a strain, shape (3, 3), eV."""
        return self._energy_gradient[1]

    @property
    def polarizability(self) -> Array:
        """Derivatives of the dipole with respect to a field, (3, 3), e^2 Angstrom^2 / eV."""
        return self.equilibrium.polarizability

    @property
    def induced_dipoles(self) -> Array | None:
        """Induced dipoles, shape (n_atoms, 3), e*Angstrom; None without polarizabilities."""
        return self.equilibrium.induced_dipoles(self.charges)

    @cached_property
    def born_effective_charges(self) -> Array:
        """Derivatives ``d mu_a / d r_jb`` of the dipole: shape (n_atoms, 3, 3), e.

        ``Z*_jab`` is the derivative at fixed fields plus ``sum_i (d mu_a / d f_i) df_i / dr_jb``
        for every field f of the response, and for the atomic dipoles.
        """
        born = self.equilibrium.dipole_gradient(self.charges, **self.fields)
        by_field = self.dipole_rows
        for field in self.field_gradients:
            if field.enters not in by_field:
                continue
            for neighborhood, pair_gradients in field.pair_gradients():
                for a, factors in enumerate(by_field[field.enters]):
                    if factors.any():
                        g = factors[neighborhood.i, None] * pair_gradients
                        born[:, a] += neighborhood.gather(g)[0]
        return born

    @property
    def dipole_rows(self) -> dict[str, Array]:
        """For every quantity to which fields contribute, derivatives (3, n_atoms) of the dipole."""
        rows = self.equilibrium.dipole_rows
        if self.atomic_dipoles is None:
            return rows
        return rows | dipole_rows(self.equilibrium, TARGETS["dipole"])

    def force_factors(self) -> tuple[Array, Array | None]:
        """Derivatives of the energy gradient with respect to charges and potential.

        Returns
        -------
        Y, W : ndarray of shape (3 n_atoms + 9, n_atoms), W may be None
            The change of ``(dE/dr, dE/dstrain)`` at fixed features is ``Y dq + W du``, see
            `skqeq.response.Equilibrium.force_factors`.
        """
        gradients = {place: self._value_gradient(place) for place in self.equilibrium.fields}
        return self.equilibrium.force_factors(self.charges, gradients, **self.fields)

    def _value_gradient(self, place):
        """Derivatives of a field of the response with respect to positions and strain."""
        n = len(self.structure)
        gradient, virial = np.zeros((n, 3, n)), np.zeros((3, 3, n))
        for field in self.field_gradients:
            if field.enters == place:
                for neighborhood, pair_gradients in field.pair_gradients():
                    moved, strained = neighborhood.gather_by_center(pair_gradients)
                    gradient += moved
                    virial += strained
        return gradient, in_plane(virial, self.structure)
