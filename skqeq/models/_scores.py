"""Scores of a fitted charge model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._warnings import warn_once
from ..metrics import target_r2
from ..structures import collect
from ..targets import TARGETS, Labels, check_names, make_targets
from ._checks import (
    check_defined,
    check_targets,
    check_weights,
    labels_of_predictions,
    unfitted_energies,
)
from ._predictions import observed
from ._unknown import UNDEFINED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike

    from .._typing import Array, AtomicEnergies, LabelsLike, StructuresLike
    from ..fields import FieldLayout
    from ..response import Response
    from ..structures import StructureFeatures
    from ._structure_solution import Solution


class Scores:
    """Methods of a charge model that compare predictions with labels."""

    response_: Response
    layout_: FieldLayout
    targets_: list[str]
    atomic_energies: AtomicEnergies

    if TYPE_CHECKING:  # defined by `ChargeModel`

        def _solutions(
            self,
            features: StructureFeatures,
            names: Sequence[str],
            start: Sequence[Array | None] | None = ...,
            numbers: Sequence[int] | None = ...,
        ) -> Iterator[Solution]: ...

        def _checked_features(
            self, X: StructuresLike, names: Sequence[str], handle_unknown: str
        ) -> tuple[StructureFeatures, Array]: ...

    def predict_for_scores(self, X: StructuresLike, names: Sequence[str]) -> Array:
        """Predict all that can be predicted, for comparison with labels.

        Unlike `predict_targets`, this method does not refuse structures for which a target is
        undefined. For structures with unknown elements it takes charges, and what follows from
        them, from the prior, whatever `handle_unknown` is. It warns about energies, forces and
        stress of a model that was fitted to none of them, because they are those of the charges
        alone.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        names : sequence of str
            Columns of `skqeq.make_targets`.

        Returns
        -------
        y : ndarray of shape (n,)
            Structured array in the form of `skqeq.make_targets`; NaN or None if a target is
            undefined for a periodic structure. Energies, forces, stress and Born charges are also
            undefined for structures with unknown elements.

        Examples
        --------
        >>> from ase.build import bulk, molecule
        >>> from skqeq import QEqRegressor
        >>> model = QEqRegressor().fit([molecule("H2O")], [[0.0, 0.0, -0.39]])
        >>> X = [molecule("H2O"), molecule("H2O")]
        >>> X[1].set_cell([5.0, 5.0, 5.0])
        >>> X[1].pbc = True
        >>> y = model.predict_for_scores(X, ["dipole"])
        >>> y["dipole"][1]
        array([nan, nan, nan])
        """
        check_is_fitted(self)
        check_names(names)
        check_targets(names, self.response_, type(self).__name__, self.layout_.names)
        if reason := unfitted_energies(names, self.targets_, self.atomic_energies):
            warn_once(reason, "not fitted to energies")
        features, unknown = self._checked_features(X, names, "skip")
        columns: dict[str, list[Any]] = {name: [None] * len(features) for name in names}
        defined = [name for name in names if name not in UNDEFINED]
        for mask, some in ((~unknown, names), (unknown, defined)):
            index = np.flatnonzero(mask)
            if not len(index) or not some:
                continue
            part = features if mask.all() else features[index]
            solutions = self._solutions(part, some, numbers=index.tolist())
            for i, solution in zip(index, solutions, strict=True):
                for name in some:
                    columns[name][i] = observed(name, solution)
        return make_targets(**columns)

    def score(
        self, X: StructuresLike, y: LabelsLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Coefficient of determination R2, averaged over the targets that have labels.

        The R2 of a target is ``1 - sum |error|^2 / sum |y - mean|^2``, summed over its components
        and structures; it does not depend on any sigma. Energies are compared per atom. If fewer
        than two structures have a label of a target, its R2 is undefined and a warning is given. If
        all R2 are undefined, the score is NaN.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        y : labels
            As in `fit`.
        sample_weight : array-like of shape (n,), default=None
            Weights of the structures.

        Returns
        -------
        score : float
            At most 1.
        """
        check_is_fitted(self)
        structures = collect(X)
        labels = Labels(y, structures)
        weights = check_weights(sample_weight, len(structures))
        check_defined(labels, structures)
        if not labels.names:
            return target_r2([], [])
        predicted = self.predict_for_scores(X, labels.names)
        known = labels_of_predictions(labels.table, predicted)
        scores = []
        for name in labels.names:
            truth, values = (
                TARGETS[name].comparable(table[name], structures) for table in (known, predicted)
            )
            scores.append(target_r2(truth, values, weights))
        return float(np.mean(scores))
