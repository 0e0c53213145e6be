"""Held-out predictions in cross-validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..targets import make_targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._typing import Array
    from ..targets import Labels
    from ._problem import LabelRows


class HeldOut:
    """Held-out predictions: every structure is predicted by the fit that leaves out its fold.

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

    def add(self, parts: Sequence[LabelRows], errors: Array) -> None:
        """Add the errors of some rows.

        Parameters
        ----------
        parts : sequence of LabelRows
            The rows.
        errors : ndarray of shape (n_rows,)
            Held-out errors, in the unit of the label; NaN for rows that are in no fold.
        """
        start = 0
        for rows in parts:
            stop = start + len(rows.residual)
            wrong, start = errors[start:stop], stop
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
