"""The rows of all labels, block by block."""

from __future__ import annotations

from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from joblib import effective_n_jobs

from .._memory import BUDGET
from ._workers import Part, Workers, empty_triangle, merge_pairwise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .._typing import Array
    from ._problem import LabelRows, Problem


class RowStream:
    """All rows of a problem, block by block: stored in memory, or made again for each pass.

    Rows are stored if the memory budget allows it. Otherwise the workers of the problem make the
    rows again for each pass.

    Parameters
    ----------
    problem : Problem
        A problem whose labels are all linear.

    Attributes
    ----------
    n_rows, n_columns : int
        Numbers of rows and of weights.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.n_columns = problem, problem.layout.n_columns
        self.n_jobs = effective_n_jobs(problem.n_jobs)
        labels, weighted = problem.labels, np.flatnonzero(problem.weights).tolist()
        values = (labels.values(name, i) for name in labels.names for i in weighted)
        self.n_rows = sum(int((~np.isnan(v)).sum()) for v in values if v is not None)
        self._memory = BUDGET.reservation()
        self.stored: list[LabelRows] = []
        self.is_stored = self._memory.claim(8 * self.n_rows * self.n_columns)
        if self.is_stored:
            self.stored = list(chain.from_iterable(self._pass(_listed)))

    def map(self, function: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
        """Yield ``function(blocks, *arguments)`` for one or several parts of the rows.

        Parameters
        ----------
        function : callable
            Takes an iterable over blocks of structures. A block is a list of `LabelRows`, one per
            target.
        *arguments
            More arguments of the function.

        Yields
        ------
        result : object
            Return value of the function.
        """
        if self.is_stored:
            yield function([self.stored], *arguments)
        else:
            yield from self._pass(function, *arguments)

    def _pass(self, function, *arguments):
        if self.n_jobs == 1:
            yield function(_blocks(Part(self.problem, {})), *arguments)
        else:
            with Workers(self.problem, self.n_rows) as workers:
                yield from workers.map(_on_blocks, function, *arguments)

    def reduce(self, owners: Array) -> tuple[list[LabelRows], dict[tuple[int, str], Array]]:
        """Reduce all rows to triangles.

        Parameters
        ----------
        owners : ndarray of shape (n_structures,)
            Number of the triangle to which the rows of each structure belong.

        Returns
        -------
        outlines : list of LabelRows
            The rows without their Jacobians.
        triangles : dict of {(int, str): ndarray}
            The keys are the number of the triangle and the target.
        """
        outlines: list[LabelRows] = []

        def triangles_of_parts():
            for of_part, triangles in self.map(_reduced, owners):
                outlines.extend(of_part)
                yield triangles

        return outlines, merge_pairwise(triangles_of_parts())


class Units(NamedTuple):
    """Units of the prior: weights have the prior N(0, 1), and all targets have the same noise.

    The noise of all targets becomes that of the first target.

    Attributes
    ----------
    scale : ndarray of shape (n_columns,)
        Prior standard deviations of the weights.
    ratios : dict of {str: float}
        For every target, the noise of the first target divided by the noise of this target.
    """

    scale: np.ndarray
    ratios: dict[str, float]

    def scaled(self, name: str, J: Array, r: Array) -> tuple[Array, Array]:
        """Jacobian and labels of one target, in units of the prior.

        Parameters
        ----------
        name : str
            The target.
        J : ndarray of shape (n, n_columns)
            Derivatives with respect to the weights.
        r : ndarray of shape (n,)
            Labels.

        Returns
        -------
        J, r : ndarray
            In units of the prior.
        """
        return J * (self.scale * self.ratios[name]), r * self.ratios[name]

    def stacked(self, rows: Iterable[LabelRows]) -> tuple[Array, Array]:
        """Jacobian and labels of several targets, in units of the prior.

        Parameters
        ----------
        rows : iterable of LabelRows
            Rows.

        Returns
        -------
        J, r : ndarray of shape (n, n_columns) and (n,)
        """
        parts = [self.scaled(part.name, part.J, part.residual) for part in rows]
        J, r = zip(*parts, strict=True)
        return np.concatenate(J), np.concatenate(r)


def _blocks(part):
    """Yield the rows of all targets for one block of structures after another."""
    for _, rows in groupby(part.problem.linear_rows(), lambda rows: rows.block):
        yield list(rows)


def _on_blocks(part, function, *arguments):
    return function(_blocks(part), *arguments)


def _listed(blocks):
    return list(chain.from_iterable(blocks))


def _reduced(blocks, owners):
    """Rows without their Jacobians, and a dict from (owner, target) to triangles."""
    outlines, triangles = [], {}
    for block in blocks:
        outlines += [rows._replace(J=None) for rows in block]
        for rows in block:
            row_owners = owners[rows.structures]
            for owner in np.unique(row_owners).tolist():
                key = owner, rows.name
                triangle = triangles.setdefault(key, empty_triangle(rows.J.shape[1]))
                some = row_owners == owner
                triangle.update(rows.J[some], rows.residual[some])
    return outlines, {key: triangle.augmented for key, triangle in triangles.items()}
