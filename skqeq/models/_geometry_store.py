"""All that a fit computes once for each structure, because it does not depend on the weights.

The fields of a structure are linear in the weights. After an evaluation at two points of a straight
line, the values at all its other points are therefore known, see `GeometryStore.recall`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._memory import BUDGET
from ._structure_solution import Evaluation

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._typing import Array
    from ..response import Equilibrium
    from ..structures import FeatureGradient

# Number of evaluations that are stored for each field: at a point, and along two directions.
N_EVALUATIONS = 3
# Largest relative error of weights that are written as a combination of earlier weights.
SAME = 1e-13
# A combination multiplies rounding errors by the sum of the absolute values of its coefficients.
# Both this sum and the number of combinations of combinations are limited.
MAX_COEFFICIENTS = 10.0
MAX_DEPTH = 10


class Geometry(NamedTuple):
    """All that a solution needs and that does not depend on the weights.

    Attributes
    ----------
    equilibrium : Equilibrium
        The response of the charges.
    features : list of FeatureGradient
        Features and their derivatives, one entry per component of a field, see
        `skqeq.fields.FieldLayout`. Fields with the same source share one object.
    """

    equilibrium: Equilibrium
    features: list[FeatureGradient]

    @property
    def n_bytes(self) -> int:
        """Approximate size in memory, bytes."""
        distinct = {id(part): part for part in self.features}.values()
        # The hardness matrix, its factor, and arrays of the same size that solvers store.
        n_atoms = len(self.equilibrium.structure)
        return 32 * n_atoms**2 + sum(part.n_bytes for part in distinct)


class Recollection(NamedTuple):
    """Weights of a component of a field, as a combination of weights of earlier evaluations.

    Attributes
    ----------
    number : int
        Number of the evaluation at these weights. Numbers increase.
    weights : ndarray
        The weights.
    terms : dict of {int: float} or None
        Coefficients of the combination; the keys are the numbers of the earlier evaluations. None
        if the weights are no combination of earlier ones.
    depth : int
        Number of combinations of combinations.
    """

    number: int
    weights: Array
    terms: dict[int, float] | None
    depth: int


class GeometryStore:
    """Geometries of the structures of a fit, and evaluations of their fields.

    The store uses the memory budget. Arrays that do not fit into it are computed again
    whenever they are needed.
    """

    def __init__(self) -> None:
        self._geometries: dict[int, Geometry] = {}
        self._evaluations: dict[tuple[int, int], dict[int, Evaluation]] = {}
        self._recalled: dict[int, list[Recollection]] = {}
        self._memory = BUDGET.reservation()

    def get(self, number: int, make: Callable[[], Geometry]) -> Geometry:
        """The geometry of one structure.

        Parameters
        ----------
        number : int
            Number of the structure.
        make : callable
            Returns the geometry if it is not stored.

        Returns
        -------
        geometry : Geometry
        """
        if number in self._geometries:
            return self._geometries[number]
        geometry = make()
        if self._memory.claim(geometry.n_bytes):
            self._geometries[number] = geometry
        return geometry

    def recall(self, f: int, weights: Array) -> Recollection:
        """Write weights of a field as a combination of earlier ones, if that is possible.

        Parameters
        ----------
        f : int
            Index of the component.
        weights : ndarray of shape (n_columns of the field,)
            Weights of the features; those of the constants are left out.

        Returns
        -------
        recollection : Recollection
            To be passed to `evaluate` for every structure.
        """
        earlier = self._recalled.setdefault(f, [])
        for one in earlier:
            if np.array_equal(one.weights, weights):
                return one
        terms, depth = None, 0
        if earlier:
            basis = np.stack([one.weights for one in earlier], axis=1)
            c = np.linalg.lstsq(basis, weights, rcond=None)[0]
            error = np.linalg.norm(basis @ c - weights)
            deeper = 1 + max(one.depth for one in earlier)
            if (
                error <= SAME * np.linalg.norm(weights)
                and np.abs(c).sum() <= MAX_COEFFICIENTS
                and deeper <= MAX_DEPTH
            ):
                terms = {one.number: float(x) for one, x in zip(earlier, c, strict=True)}
                depth = deeper
        number = 1 + earlier[-1].number if earlier else 0
        new = Recollection(number, weights.copy(), terms, depth)
        self._recalled[f] = [*earlier, new][-N_EVALUATIONS:]
        return new

    def evaluate(
        self,
        number: int,
        f: int,
        recollection: Recollection,
        features: FeatureGradient,
        dual: Array,
    ) -> Evaluation:
        """Evaluate a field of one structure.

        Parameters
        ----------
        number : int
            Number of the structure.
        f : int
            Index of the component.
        recollection : Recollection
            The weights, as `recall` describes them.
        features : FeatureGradient
            The features of the field.
        dual : ndarray
            The dual weights of the field.

        Returns
        -------
        evaluation : Evaluation
        """
        stored, terms = self._evaluations.get((number, f), {}), recollection.terms
        if recollection.number in stored:
            return stored[recollection.number]
        if terms is not None and set(terms) <= set(stored):
            evaluation = Evaluation.combined([(c, stored[n]) for n, c in terms.items()])
        else:
            evaluation = Evaluation.of(features, dual)
        if stored or (
            number in self._geometries and self._memory.claim(N_EVALUATIONS * evaluation.n_bytes)
        ):
            stored[recollection.number] = evaluation
            for outdated in sorted(stored)[:-N_EVALUATIONS]:
                del stored[outdated]
            self._evaluations[number, f] = stored
        return evaluation
