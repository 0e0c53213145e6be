"""Derivatives of energies, forces, stress and Born charges with respect to the weights.

A field ``f = phi w`` contributes to the derivative of a target in two ways. Its values f on the
atoms change the target, both directly and through the charges; and its features phi depend on the
geometry. With ``u = chi + A q - field . r`` and the response ``dq = sum_f G_f df``,

    dE / dw = (dE/df) phi,
    d(dE/dr) / dw = (Y G_f + W dU_f) phi + (dE/df) dphi/dr,
    dZ_a / dw = (Y_a G_f + W_a dU_f) phi + (dmu_a/df) dphi/dr,

where (Y, W) are the `force_factors` or `dipole_gradient_factors` of the response, and Z are the
Born charges. For charge equilibration, ``dE/dchi = q``, ``G = -P`` and ``dmu/dchi = -P R``.

The fixed-point iteration of Vondrák et al. (J. Chem. Phys. 159, 054109 (2023)) neglects the
response of the charges to the weights: the first term of the second line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..targets import TARGETS, VOIGT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._typing import Array
    from ..fields import FieldLayout
    from ._structure_solution import Solution

# Indices of the six components of a stress in a flattened 3 x 3 strain.
VOIGT_ROWS = [3 * a + b for a, b in VOIGT]


class TargetJacobian:
    """Derivatives of some targets of one structure with respect to the weights.

    Parameters
    ----------
    layout : FieldLayout
        The fields and their weights.
    solution : Solution
        Charges and gradients of the structure.
    names : sequence of str
        Any of energy, forces, stress and born_effective_charges. The rows of the Jacobian are in
        the order of the names.
    response : bool, default=True
        Whether the charges respond to the weights.

    Attributes
    ----------
    rows : dict of {str: ndarray of shape (n_rows, n_atoms)}
        For every quantity to which fields contribute (a field of the response, or ``"energy"``):
        derivatives of the targets with respect to its values on the atoms, at fixed features.
    """

    def __init__(
        self,
        layout: FieldLayout,
        solution: Solution,
        names: Sequence[str],
        response: bool = True,
    ) -> None:
        self.layout, self.solution, self.names = layout, solution, list(names)
        self.structure = solution.structure
        self.sizes = [TARGETS[name].size(self.structure) for name in names]
        self.rows = self._rows(response)

    def _rows(self, response):
        """Derivatives of the targets with respect to the values of the fields on the atoms."""
        n, equilibrium = len(self.structure), self.solution.equilibrium
        places = {*equilibrium.fields, "energy", *(c.enters for c in self.layout.components)}
        zeros = {place: np.zeros((sum(self.sizes), n)) for place in places}
        for name, part in zip(self.names, self._parts(), strict=True):
            if name == "energy":
                by_place = {
                    place: derivative[None]
                    for place, derivative in self.solution.energy_derivatives.items()
                }
            elif name == "born_effective_charges":
                by_place = equilibrium.rows(*equilibrium.dipole_gradient_factors())
            else:
                by_place = self._force_rows(name) if response else {}
            for place, rows in by_place.items():
                zeros[place][part] = rows
        return zeros

    def _force_rows(self, name):
        """Rows of forces or stress that are due to the response of the charges."""
        by_place = self._change_of_gradient
        if name == "forces":
            return {place: -rows[:-9] for place, rows in by_place.items()}
        volume = self.structure.volume
        return {place: rows[-9:][VOIGT_ROWS] / volume for place, rows in by_place.items()}

    @property
    def _change_of_gradient(self):
        """Derivatives of ``(dE/dr, dE/dstrain)`` with respect to the values of the fields.

        They are computed once, and forces and stress use them.
        """
        if not hasattr(self, "_gradient_rows"):
            factors = self.solution.force_factors()
            self._gradient_rows = self.solution.equilibrium.rows(*factors)
        return self._gradient_rows

    def _parts(self):
        """Slice of the rows of each target."""
        ends = np.cumsum(self.sizes)
        return [slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True)]

    def columns(self, fields: Sequence[int]) -> list[Array]:
        """Columns of the Jacobian for some fields.

        Parameters
        ----------
        fields : sequence of int
            Indices of fields in the layout.

        Returns
        -------
        columns : list of ndarray of shape (n_rows, n_columns of the field)
            Derivatives of the targets with respect to the weights of each field.
        """
        onehot = self.layout.onehot(self.structure.numbers)
        by_field = dict(zip(fields, self._feature_columns(fields), strict=True))
        constants = {f: np.zeros((sum(self.sizes), 0)) for f in fields}
        for field in self.solution.field_gradients:
            f, rows = field.number, self.rows[field.enters]
            if f in by_field:
                by_field[f] += field.features.contract(rows)
                if self.layout.n_constants[f]:
                    constants[f] = rows @ onehot
        return [np.concatenate([by_field[f], constants[f]], axis=1) for f in fields]

    def _feature_columns(self, fields):
        """The contribution of the derivatives of the features to the columns."""
        result = [np.zeros((sum(self.sizes), self.layout.sizes[f])) for f in fields]
        if set(self.names) == {"energy"}:
            return result
        # The pass over the neighbours is expensive; fields with the same features share it.
        by_features, places = {}, {f: k for k, f in enumerate(fields)}
        for field in self.solution.field_gradients:
            if field.number in places:
                _, members = by_features.setdefault(id(field.features), (field.features, []))
                members.append((places[field.number], field.enters))
        for features, members in by_features.values():
            sets, owners = [], []
            for k, enters in members:
                for name, factors in self._feature_factors(enters).items():
                    used = [a for a, row in enumerate(factors) if row.any()]
                    sets += [factors[a] for a in used]
                    owners += [(k, name, a) for a in used]
            if not sets:
                continue
            moved, strained = features.jacobian(np.stack(sets))
            for (k, name, a), of_positions, of_strain in zip(owners, moved, strained, strict=True):
                self._add_feature_rows(result[k], name, a, of_positions, of_strain)
        return result

    def _feature_factors(self, place):
        """Factors by which the derivatives of a field on each atom are multiplied, (k, n_atoms).

        The targets are sums of these products over the atoms: the key ``"energy"`` is for forces
        and stress, the key ``"dipole"`` for Born charges.
        """
        factors = {}
        if "forces" in self.names or "stress" in self.names:
            factors["energy"] = self.solution.energy_derivatives[place][None]
        if "born_effective_charges" in self.names and place != "energy":
            factors["dipole"] = self.solution.dipole_rows[place]
        return factors

    def _add_feature_rows(self, columns, kind, a, of_positions, of_strain):
        """Add the Jacobian of the features for one set of factors."""
        for name, part in zip(self.names, self._parts(), strict=True):
            if kind == "energy" and name == "forces":
                columns[part] -= of_positions
            elif kind == "energy" and name == "stress":
                columns[part] += of_strain[VOIGT_ROWS] / self.structure.volume
            elif kind == "dipole" and name == "born_effective_charges":
                # Rows are ordered as [j, a, b].
                n = len(self.structure)
                born = columns[part].reshape(n, 3, 3, columns.shape[1])
                born[:, a] += of_positions.reshape(n, 3, -1)

    def residual_variances(self) -> Array:
        """Variances that are due to the part of the fields that the features do not describe.

        Let g be this part, the remainder of a field; it is independent for every atom. It changes a
        target by ``sum_j (o_j g_j + c_j dg_j/dr)``, where o are the `rows` of the field, and c are
        the factors of its derivatives.

        Returns
        -------
        variances : ndarray of shape (n_rows,)
            Variances of forces, stress and Born charges.
        """
        coordinates = self._coordinates()
        total, by_features = np.zeros(len(coordinates)), {}
        for field in self.solution.field_gradients:
            amplitude = self.layout.amplitudes[field.number]
            if amplitude == 0.0:
                continue
            if id(field.features) not in by_features:
                by_features[id(field.features)] = field.features.residual_variances()
            variance, covariances, variances = by_features[id(field.features)]
            o, c = self.rows[field.enters], self._derivative_factors(field.enters)
            part = o**2 @ variance
            part += np.einsum("rj,jr->r", 2.0 * o * c, covariances[:, coordinates])
            part += np.einsum("rj,jr->r", c**2, variances[:, coordinates])
            total += amplitude**2 * part
        return np.maximum(total, 0.0)

    def _coordinates(self):
        """Index of the coordinate or strain component of the derivative in each row."""
        n = len(self.structure)
        born = np.broadcast_to(3 * np.arange(n)[:, None, None] + np.arange(3), (n, 3, 3))
        coordinates = {
            "forces": np.arange(3 * n),
            "stress": 3 * n + np.array(VOIGT_ROWS),
            "born_effective_charges": born.ravel(),
        }
        return np.concatenate([coordinates[name] for name in self.names])

    def _derivative_factors(self, place):
        """Factors of the derivative of a field on each atom in every row, (n_rows, n_atoms)."""
        n, parts = len(self.structure), []
        for name, size in zip(self.names, self.sizes, strict=True):
            if name == "forces":
                parts.append(np.tile(-self.solution.energy_derivatives[place], (size, 1)))
            elif name == "stress":
                derivative = self.solution.energy_derivatives[place] / self.structure.volume
                parts.append(np.tile(derivative, (size, 1)))
            elif place == "energy":
                parts.append(np.zeros((size, n)))
            else:
                of_dipole = self.solution.dipole_rows[place]
                parts.append(np.tile(np.repeat(of_dipole, 3, axis=0), (n, 1)))
        return np.concatenate(parts)
