"""Held-out predictions of cross-validation."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from ..targets import make_targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._typing import Array
    from ..targets import Labels
    from ._problem import LabelRows


class HeldOut:
    """Predictions of structures by fits that leave out their fold, and their errors.

    Parameters
    ----------
    labels : Labels
        Labels of all structures.

    Attributes
    ----------
    table : ndarray of shape (n_structures,)
        Predictions; NaN where there is no label.
    """

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.table = make_targets(**{name: list(labels.table[name]) for name in labels.names})
        for name in labels.names:
            column = self.table[name]
            if column.dtype == object:
                column[:] = [None if v is None else np.full(v.shape, np.nan) for v in column]
            else:
                column[...] = np.nan
        # By target, the sum of squared errors over expected ones, and the number of rows.
        self._squares: dict[str, list[float]] = {name: [0.0, 0] for name in labels.names}

    @property
    def error_ratios(self) -> dict[str, float]:
        """By target, the root mean square of the errors over their expected size."""
        squares = dict(self._squares)
        for name, (total, n) in squares.items():
            # The sum of all targets is positive, as 1 - H is, but not that of each.
            if total <= 0.0:
                squares[name] = np.sum(list(self._squares.values()), axis=0)
                warnings.warn(
                    f"{n} labels of {name} are too few to compare its errors with the expected "
                    "ones; the ratio of all targets is used",
                    stacklevel=3,
                )
        return {name: float(np.sqrt(total / n)) for name, (total, n) in squares.items()}

    def add(self, parts: Sequence[LabelRows], errors: Array, squares: Array) -> None:
        """Add the errors of some rows.

        Parameters
        ----------
        parts : sequence of LabelRows
            The rows.
        errors : ndarray of shape (n_rows,)
            Held-out errors, in the unit of the label; NaN for rows in no fold.
        squares : ndarray of shape (n_rows,)
            Squared errors over the expected ones.
        """
        start = 0
        for rows in parts:
            stop = start + len(rows.residual)
            wrong, square, start = errors[start:stop], squares[start:stop], stop
            known, sums = ~np.isnan(square), self._squares[rows.name]
            sums[0] += square[known].sum()
            sums[1] += known.sum()
            column, labels = self.table[rows.name], self.labels.table[rows.name]
            numbers, places = np.unique(rows.structures, return_index=True)
            if column.dtype != object:
                predicted, found = column[numbers], labels[numbers].astype(float)
                present = ~np.isnan(found)
                found[present] -= wrong
                column[numbers] = np.where(np.isnan(found), predicted, found)
                continue
            for i, error in zip(numbers, np.split(wrong, places[1:]), strict=True):
                if not np.isnan(error).any():
                    column[i] = np.array(labels[i], dtype=float)
                    column[i][~np.isnan(column[i])] -= error
