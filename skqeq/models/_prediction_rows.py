"""Derivatives of predictions with respect to the weights, and what the features leave out.

Standard deviations of predictions, and predictions of fits that leave some labels out, need both.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._threads import blas_threads_for
from ..fields import AtomRows
from ..targets import GRADIENTS, TARGETS, ChargeTarget, DipoleMagnitude
from ._jacobian import TargetJacobian
from ._problem import observable_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._typing import Array
    from ..fields import FieldLayout
    from ..structures import Block, StructureFeatures
    from ._forward import ForwardModel
    from ._structure_solution import Solution


class Predicted(NamedTuple):
    """The prediction to which some rows belong.

    Attributes
    ----------
    number : int
        Index of the structure.
    name : str
        The target.
    solution : Solution
        The solution of the structure.
    size : int
        Number of rows.
    """

    number: int
    name: str
    solution: Solution
    size: int


class PredictionRows(NamedTuple):
    """Rows of several predictions.

    Attributes
    ----------
    predictions : list of Predicted
        The predictions, in the order of their rows.
    J : ndarray of shape (n_rows, n_weights)
        Derivatives with respect to the weights, in units of their prior.
    remainders : ndarray of shape (n_rows,)
        Variances that are due to the part of the fields that the features do not describe.
    """

    predictions: list[Predicted]
    J: Array
    remainders: Array

    def split(self, values: Array) -> list[Array]:
        """Split an array with one entry per row into one part for every prediction."""
        return np.split(values, np.cumsum([p.size for p in self.predictions])[:-1])


def prediction_rows(
    forward: ForwardModel, features: StructureFeatures, weights: Array, names: Sequence[str]
) -> Iterator[PredictionRows]:
    """Yield the rows of some targets of all structures for which they are defined.

    Targets that are not linear in the weights are linearised at the given weights.

    Parameters
    ----------
    forward : ForwardModel
        Fields and response.
    features : StructureFeatures
        Features of all fields.
    weights : ndarray of shape (n_weights,)
        Weights.
    names : sequence of str
        Targets.

    Yields
    ------
    rows : PredictionRows
        Rows of several predictions. The rows of one prediction are never divided.
    """
    gradients = [name for name in names if name in GRADIENTS]
    others = [name for name in names if name not in GRADIENTS]
    walks = []
    if others:
        walks.append(_of_values(forward, features, weights, others))
    if gradients:
        walks.append(_of_gradients(forward, features, weights, gradients))
    return chain(*walks)


def _of_values(forward, features, weights, names):
    """Rows of targets that need no derivatives with respect to the geometry."""
    layout, n_rows = forward.layout, np.array([1 + 3 * len(names)] * len(features))
    for begin, block, solutions in forward.solutions(features, weights, n_rows=n_rows):
        variances = _remainders(layout, features, block)
        for name in names:
            target, rows, waiting = TARGETS[name], AtomRows(), []
            for s, solution in enumerate(solutions):
                if not target.defined(solution.structure).any():
                    continue
                factors, first = _target_rows(layout, target, solution), block.offsets[s]
                atoms = slice(first, first + len(solution.structure))
                remainders = sum(f**2 @ variances[place][atoms] for place, f in factors.items())
                rows.add(factors, remainders, first)
                waiting.append(Predicted(begin + s, name, solution, len(remainders)))
            for J, remainders in layout.design(block, rows):
                n, predictions = 0, []
                while n < len(J):
                    predictions.append(waiting.pop(0))
                    n += predictions[-1].size
                yield PredictionRows(predictions, J, remainders)


def _remainders(layout: FieldLayout, features: StructureFeatures, block: Block) -> dict[str, Any]:
    """Variances of the remainders of the fields, summed over the fields of each quantity."""
    remainders: dict[str, Any] = {}
    parts = block.split(layout.component_sizes)
    for (f, place), part in zip(layout.components, parts, strict=True):
        prior_variance = features.source.sources[f].prior_variance
        # Rounding can make the difference negative for environments in the sparse set. It is
        # negative, too, for features that are all there is of a field, without a kernel.
        left = np.maximum(prior_variance - part.squared_norms(), 0.0)
        remainders[place] = remainders.get(place, 0.0) + layout.amplitudes[f] ** 2 * left
    return remainders


def _target_rows(layout: FieldLayout, target: Any, solution: Solution) -> dict[str, Array]:
    """Derivatives of a target with respect to the values of the fields on the atoms."""
    if not isinstance(target, ChargeTarget):
        return {place: d[None] for place, d in solution.energy_derivatives.items()}
    operator, _ = solution.equilibrium.observable(target)
    rows = observable_rows(layout, solution.equilibrium, target.name, operator)
    if isinstance(target, DipoleMagnitude):
        derivative = target.derivative(target.linear_value(solution))
        rows = {place: derivative @ factors for place, factors in rows.items()}
    return rows


def _of_gradients(forward, features, weights, names):
    """Rows of forces, stress and Born charges."""
    layout = forward.layout
    defined = [
        [name for name in names if TARGETS[name].defined(structure).any()]
        for structure in features.structures
    ]
    index = np.flatnonzero([len(some) for some in defined])
    if not len(index):
        return
    sizes = [sum(TARGETS[name].size(features.structures[i]) for name in defined[i]) for i in index]
    for s, _, [solution] in forward.solutions(
        features[index], weights, True, numbers=index, n_rows=np.array(sizes)
    ):
        i = int(index[s])
        with blas_threads_for(solution.structure):
            jacobian = TargetJacobian(layout, solution, defined[i])
            columns = jacobian.columns(range(len(layout.names)))
            J = np.concatenate(columns, axis=1) * layout.scale
            remainders = jacobian.residual_variances()
        parts = zip(defined[i], jacobian.sizes, strict=True)
        predictions = [Predicted(i, name, solution, size) for name, size in parts]
        yield PredictionRows(predictions, J, remainders)
