"""The labels of a fit as rows of a least-squares problem.

This module makes the rows of observables of the charges, such as dipoles. `_derivative_rows` makes
the rows of energies, forces, stress and Born charges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..fields import AtomRows
from ..solvers import NonlinearRows
from ..targets import TARGETS, ChargeTarget
from ._atomic_dipoles import dipole_rows, take_dipoles
from ._forward import ForwardModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._typing import Array
    from ..fields import FieldLayout
    from ..response import Equilibrium
    from ..solvers import Triangle
    from ..structures import Block, Structure, StructureFeatures
    from ..targets import Labels
    from ._training_r2 import RowSample

# How the noise of an energy grows with the number of atoms n.
ENERGY_NOISE: dict[str, Any] = {
    "per_atom": lambda n: n,
    "sqrt_n": np.sqrt,
    "per_structure": np.ones_like,
}


class LabelRows(NamedTuple):
    """Rows of the labels of one target in one block of structures.

    The noise of the labels is divided by the parameter ``sigma_<target>``, so that the rows do not
    depend on this parameter.

    Attributes
    ----------
    name : str
        The target.
    J : ndarray of shape (n, n_weights)
        Derivatives with respect to the weights; the weights are not in units of their prior.
    residual : ndarray of shape (n,)
        Labels minus the predictions of the prior mean.
    inverse_noise : ndarray of shape (n,)
        One over the relative noise; `J` and `residual` are already multiplied by it.
    structures : ndarray of shape (n,)
        Number of the structure of each row, in ascending order.
    block : int
        Number of the first structure of the block. All rows of a structure are in one block.
    """

    name: str
    J: np.ndarray
    residual: np.ndarray
    inverse_noise: np.ndarray
    structures: np.ndarray
    block: int


class ChargeLabel(NamedTuple):
    """One label of an observable of the charges.

    Attributes
    ----------
    number : int
        Number of the structure.
    first_atom : int
        Index of the first atom of the structure in its block.
    name : str
        The target.
    value : ndarray of shape (k,)
        The label; NaN for missing components.
    equilibrium : Equilibrium
        Response of the structure.
    prior_charges : ndarray of shape (n_atoms,)
        Charges if all weights are zero, e.
    """

    number: int
    first_atom: int
    name: str
    value: np.ndarray
    equilibrium: Equilibrium
    prior_charges: np.ndarray


@dataclass
class Problem:
    """The labels of consecutive structures, and the model that is fitted to them.

    Parameters
    ----------
    forward : ForwardModel
        Fields and response.
    features : StructureFeatures
        Features of the structures of this problem, which may be a part of all structures.
    labels : Labels
        Labels of all structures of the fit.
    weights : ndarray of shape (n_all,)
        Weights of all structures of the fit.
    sigmas : dict of {str: float}
        The noise of each target.
    energy_noise : {"per_atom", "per_structure", "sqrt_n"}
        How the noise of an energy grows with the number of atoms.
    bias : ndarray of shape (n_elements,), default=None
        The `charge_bias` of the model: charges toward which the predicted charges are pulled in
        structures without labels of charges, e.
    fits_offsets : bool, default=False
        Whether the energies of the free atoms are fitted.
    n_jobs : int, default=None
        Number of worker processes.
    first : int, default=0
        Number of the first structure of this problem among all structures of the fit.
    """

    forward: ForwardModel
    features: StructureFeatures
    labels: Labels
    weights: Array
    sigmas: dict[str, float]
    energy_noise: str = "per_atom"
    bias: Array | None = None
    fits_offsets: bool = False
    n_jobs: int | None = None
    first: int = 0

    @property
    def layout(self) -> FieldLayout:
        """Fields and their weights."""
        return self.forward.layout

    @property
    def is_linear(self) -> bool:
        """Whether all labels are linear in the charges, and the model has no `charge_bias`."""
        targets = [TARGETS[name] for name in self.labels.names]
        return self.bias is None and all(isinstance(t, ChargeTarget) and t.linear for t in targets)

    def check_linear(self, purpose: str) -> None:
        """Refuse labels that are not linear in the charges.

        Parameters
        ----------
        purpose : str
            Name of the method that needs linear labels, for the message.

        Raises
        ------
        ValueError
            If a label is not linear in the charges, or if the model has a `charge_bias`.
        """
        if not self.is_linear:
            raise ValueError(
                f"{purpose} is for labels that are linear in the charges: dipole, charges, "
                f"quadrupole and potential, without charge_bias; got {', '.join(self.labels.names)}"
            )

    @property
    def charge_targets(self) -> list[str]:
        """Observables of the charges that have labels; charges also if there is a `charge_bias`."""
        names = [name for name in self.labels.names if isinstance(TARGETS[name], ChargeTarget)]
        return names + ["charges"] * (self.bias is not None and "charges" not in names)

    def without_structures(self) -> Problem:
        """The same problem without structures and progress bars; it is sent to each worker once."""
        forward = ForwardModel(self.forward.layout, self.forward.response)
        return replace(self, forward=forward, features=self.features[:0])

    def part(self, features: StructureFeatures, first: int) -> Problem:
        """The same problem for some consecutive structures.

        Parameters
        ----------
        features : StructureFeatures
            Features of these structures.
        first : int
            Number of the first of these structures among all structures of the fit.

        Returns
        -------
        part : Problem
        """
        return replace(self, features=features, first=first)

    def noise(self) -> dict[str, Array]:
        """Standard deviation of the noise of every label.

        Returns
        -------
        noise : dict of {str: ndarray of shape (n_structures,)}
            The keys are the targets. The noise is infinite for structures of weight zero.
        """
        sizes = self.features.structures.sizes
        part = slice(self.first, self.first + len(sizes))
        with np.errstate(divide="ignore"):
            relative = 1.0 / np.sqrt(self.weights[part])
        noise = {
            name: self.sigmas[name] * self.labels.relative_sigma(name)[part] * relative
            for name in dict.fromkeys([*self.labels.names, *self.charge_targets])
        }
        if "energy" in noise:
            noise["energy"] *= ENERGY_NOISE[self.energy_noise](sizes.astype(float))
        return noise

    def charge_values(self, number: int, structure: Structure) -> dict[str, Array]:
        """Labels of the observables of the charges of one structure.

        A structure without labels of charges gets the charges of `charge_bias` as labels.

        Parameters
        ----------
        number : int
            Number of the structure.
        structure : Structure
            The structure.

        Returns
        -------
        values : dict of {str: ndarray of shape (k,)}
            The keys are the targets; missing components are NaN.
        """
        if self.weights[number] == 0.0:
            return {}
        values = {
            name: self.labels.values(name, number)
            for name in self.charge_targets
            if name in self.labels.names
        }
        values = {name: value for name, value in values.items() if value is not None}
        if self.bias is not None and "charges" not in values:
            values["charges"] = self.layout.onehot(structure.numbers) @ self.bias
        return values

    def charge_labels(self, block: Block, begin: int) -> Iterator[ChargeLabel]:
        """Yield the labels of observables of the charges for the structures of a block.

        Parameters
        ----------
        block : Block
            Some structures of this problem.
        begin : int
            Index of the first structure of the block in this problem.

        Yields
        ------
        label : ChargeLabel
        """
        for s, structure in enumerate(block.structures):
            number = self.first + begin + s
            values = self.charge_values(number, structure)
            if not values:
                continue
            n_rows = sum(TARGETS[name].size(structure) for name in values)
            equilibrium = self.forward.equilibrium(structure, number, n_rows + 1)
            fields = self.layout.prior_values(structure.numbers)
            fields.pop("energy", None)
            take_dipoles(fields)  # their prior mean is zero
            charges = equilibrium.charges(**fields)
            for name, value in values.items():
                yield ChargeLabel(number, block.offsets[s], name, value, equilibrium, charges)

    def reduce_charge_rows(
        self, triangle: Triangle, sample: RowSample | None = None
    ) -> dict[str, NonlinearRows]:
        """Add the rows of all targets that are linear in the charges to a triangle.

        Parameters
        ----------
        triangle : Triangle
            For the weights in units of their prior; modified in place.
        sample : RowSample, default=None
            Keeps some of the rows.

        Returns
        -------
        nonlinear : dict of {str: NonlinearRows}
            Rows of observables that are not linear in the charges, such as norms of dipoles.
        """
        noise, names = self.noise(), self.charge_targets
        nonlinear = {n: NonlinearRows(TARGETS[n]) for n in names if not TARGETS[n].linear}
        for begin, block in self.features.blocks(verbose=self.forward.verbose, desc="fit"):
            linear_rows, pending = AtomRows(), {name: AtomRows() for name in nonlinear}
            for label in self.charge_labels(block, begin):
                sigma = noise[label.name][label.number - self.first]
                equilibrium = label.equilibrium
                if label.name in nonlinear:
                    operator, constant = equilibrium.observable(TARGETS[label.name])
                    prior = operator @ label.prior_charges + constant
                    classical = self.forward.response.classical_charges(equilibrium)
                    start = operator @ classical + constant
                    rows = observable_rows(self.layout, equilibrium, label.name, operator)
                    pending[label.name].add(rows, prior, label.first_atom)
                    nonlinear[label.name].add(prior, label.value, sigma, start)
                else:
                    weighted = weighted_label(label, sigma)
                    if sample is not None:
                        sample.expect(label, weighted.inverse_noise)
                    factors = weighted.rows(self.layout)
                    linear_rows.add(factors, weighted.residual, label.first_atom)
            for J, residual in self.layout.design(block, linear_rows):
                triangle.update(J, residual)
                if sample is not None:
                    sample.take(J, residual)
            for name, rows in pending.items():
                nonlinear[name].jacobians += [J for J, _ in self.layout.design(block, rows)]
        return nonlinear

    def linear_rows(self) -> Iterator[LabelRows]:
        """Yield the rows of labels that are linear in the charges, with relative noise.

        Yields
        ------
        rows : LabelRows
            Rows of one target in one block of structures.
        """
        with np.errstate(divide="ignore"):
            of_weights = 1.0 / np.sqrt(self.weights)
        names = self.labels.names
        noise = {name: self.labels.relative_sigma(name) * of_weights for name in names}
        for begin, block in self.features.blocks(verbose=self.forward.verbose, desc="fit"):
            rows = {name: AtomRows() for name in names}
            inverse_noise: dict[str, list[Array]] = {name: [] for name in names}
            structures: dict[str, list[Array]] = {name: [] for name in names}
            for label in self.charge_labels(block, begin):
                name = label.name
                weighted = weighted_label(label, noise[name][label.number])
                rows[name].add(weighted.rows(self.layout), weighted.residual, label.first_atom)
                inverse_noise[name].append(weighted.inverse_noise)
                structures[name].append(np.full(len(weighted.residual), label.number))
            for name in names:
                if not rows[name]:
                    continue
                weight, number = map(np.concatenate, (inverse_noise[name], structures[name]))
                start = 0
                for J, residual in self.layout.design(block, rows[name], scaled=False):
                    part = slice(start, start + len(J))
                    start = part.stop
                    yield LabelRows(
                        name, J, residual, weight[part], number[part], self.first + begin
                    )


def observable_rows(
    layout: FieldLayout, equilibrium: Equilibrium, name: str, operator: Array
) -> dict[str, Array]:
    """Derivatives of an observable of the charges with respect to the fields on the atoms.

    Parameters
    ----------
    layout : FieldLayout
        The fields.
    equilibrium : Equilibrium
        The response of the structure.
    name : str
        The target.
    operator : ndarray of shape (k, n_atoms)
        Derivatives with respect to the charges.

    Returns
    -------
    rows : dict of {str: ndarray of shape (k, n_atoms)}
        The keys are the quantities to which fields contribute.
    """
    rows = equilibrium.rows(operator)
    return rows | dipole_rows(equilibrium, TARGETS[name]) if layout.has_dipoles else rows


class WeightedLabel(NamedTuple):
    """The known components of a label that is linear in the charges, divided by their noise.

    Attributes
    ----------
    label : ChargeLabel
        The label.
    known : ndarray of bool of shape (k,)
        Which components are known.
    operator : ndarray of shape (n_known, n_atoms)
        Derivatives with respect to the charges, divided by the noise.
    residual : ndarray of shape (n_known,)
        Label minus the prediction of the prior mean, divided by the noise.
    inverse_noise : ndarray of shape (n_known,)
        One over the noise of each component.
    """

    label: ChargeLabel
    known: np.ndarray
    operator: np.ndarray
    residual: np.ndarray
    inverse_noise: np.ndarray

    def rows(self, layout: FieldLayout) -> dict[str, Array]:
        """Derivatives with respect to the fields on the atoms, divided by the noise.

        Parameters
        ----------
        layout : FieldLayout
            The fields.

        Returns
        -------
        rows : dict of {str: ndarray of shape (n_known, n_atoms)}
            The keys are the quantities to which fields contribute.
        """
        equilibrium = self.label.equilibrium
        rows = equilibrium.rows(self.operator)
        if layout.has_dipoles:
            of_dipoles = dipole_rows(equilibrium, TARGETS[self.label.name])
            for place, factors in of_dipoles.items():
                rows[place] = self.inverse_noise[:, None] * factors[self.known]
        return rows


def weighted_label(label: ChargeLabel, sigma: float) -> WeightedLabel:
    """Divide a label that is linear in the charges by its noise.

    Parameters
    ----------
    label : ChargeLabel
        The label.
    sigma : float
        Noise of the label, in the unit of the target.

    Returns
    -------
    weighted : WeightedLabel
    """
    target = TARGETS[label.name]
    operator, constant = label.equilibrium.observable(target)
    known = ~np.isnan(label.value)
    inverse_noise = np.broadcast_to(target.weights / sigma, label.value.shape)[known]
    residual = (label.value - operator @ label.prior_charges - constant)[known]
    return WeightedLabel(
        label,
        known,
        inverse_noise[:, None] * operator[known],
        inverse_noise * residual,
        inverse_noise,
    )
