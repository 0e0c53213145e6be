"""The R2 of the training labels, for warnings about bad fits.

The residuals of labels that are not linear in the weights are computed once more after the fit.
Rows of linear labels are reduced to a triangle and forgotten, so that a sample of them is kept.
With one triangle per target, the sums of squares are exact. Born charges, and energies of models
without charges, are not looked at: their rows would have to be computed a second time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._warnings import warn_once
from ..targets import ENERGIES, RAGGED, TARGETS, ChargeTarget
from ._compositions import element_counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._typing import Array
    from ..solvers import LossTerm
    from ._problem import ChargeLabel, Problem

# Rows of each target that are kept.
N_ROWS = 256
GOLDEN = 0.6180339887498949
ADVICE = {
    "energies": "charge equilibration alone describes no bonds: learn local energies too, with "
    "GAPKQEqRegressor (skqeq fit --gap), or raise the hardness and the widths of the charges",
    "other": "check the labels with skqeq.check_labels, or lower sigma_{name}",
}


class RowSample:
    """Some rows of the labels that are linear in the weights.

    Parameters
    ----------
    problem : Problem
        The labels of a fit, or a part of them.
    """

    def __init__(self, problem: Problem) -> None:
        table, names = problem.labels.table, problem.labels.names
        linear = [n for n in names if isinstance(TARGETS[n], ChargeTarget) and TARGETS[n].linear]
        self._means = {name: label_mean(table[name]) for name in linear}
        n_rows = {name: sum(np.size(value) for value in table[name]) for name in linear}
        self._share = {name: N_ROWS / max(n_rows[name], 1) for name in linear}
        self._expected: list[tuple[str | None, Array]] = []
        self.rows: dict[str, list[tuple[Array, Array, Array]]] = {name: [] for name in linear}

    def expect(self, label: ChargeLabel, inverse_noise: Array) -> None:
        """Decide whether to keep the rows of a label, which are the next rows of `take`.

        Parameters
        ----------
        label : ChargeLabel
            The label.
        inverse_noise : ndarray of shape (k,)
            One over the noise of its known components.
        """
        # Multiples of the golden ratio select structures evenly, without a period.
        kept = label.number * GOLDEN % 1.0 < self._share.get(label.name, 0.0)
        deviation = np.zeros(len(inverse_noise))
        if kept:
            difference = label.value - self._means[label.name]
            deviation = inverse_noise * difference[~np.isnan(label.value)]
        self._expected.append((label.name if kept else None, deviation))

    def take(self, J: Array, residual: Array) -> None:
        """Keep some of these rows.

        Parameters
        ----------
        J : ndarray of shape (n, n_columns)
            Rows in units of the noise, for weights in units of their prior.
        residual : ndarray of shape (n,)
            Right-hand sides.
        """
        start = 0
        while start < len(residual):
            name, deviation = self._expected.pop(0)
            part = slice(start, start + len(deviation))
            if name is not None:
                self.rows[name].append((J[part].copy(), residual[part].copy(), deviation))
            start = part.stop

    def extend(self, other: RowSample) -> None:
        """Add the rows that were kept in another part of the same labels.

        Parameters
        ----------
        other : RowSample
            The other sample.
        """
        for name, rows in other.rows.items():
            self.rows[name] += rows

    def squares(self, v: Array) -> dict[str, tuple[float, float, int]]:
        """Sums of squared residuals and of squared deviations from the mean, and numbers of rows.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights in units of their prior.

        Returns
        -------
        squares : dict of {str: (float, float, int)}
            The keys are the targets.
        """
        result = {}
        for name, rows in self.rows.items():
            if rows:
                residual, deviation = (
                    np.concatenate(part)
                    for part in zip(*((J @ v - r, d) for J, r, d in rows), strict=True)
                )
                result[name] = residual @ residual, deviation @ deviation, len(residual)
        return result


def label_mean(column: Array) -> Array:
    """Mean label of each component, or of all numbers if the size depends on the structure.

    Parameters
    ----------
    column : ndarray of shape (n,) or (n, k)
        A column of the table of labels.

    Returns
    -------
    mean : ndarray of shape (k,) or ()
        Missing labels are ignored.
    """
    if column.dtype == object:
        numbers = np.concatenate([np.ravel(value) for value in column if value is not None])
        return np.nanmean(numbers)
    known = ~np.isnan(column)
    return np.where(known, column, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


def deviations(problem: Problem, name: str) -> tuple[float, int]:
    """Sum of squared deviations of labels from their mean, in units of the noise, and their number.

    Of energies, the part that the composition explains counts as their mean.

    Parameters
    ----------
    problem : Problem
        The labels of a fit.
    name : str
        The target.

    Returns
    -------
    squares : float
        The sum of squares.
    n : int
        Number of labels.
    """
    sigma, table = problem.noise()[name], problem.labels.table
    known = np.flatnonzero(problem.labels.known(name) & np.isfinite(sigma))
    if name == "energy":
        weights = 1.0 / sigma[known]
        counts = (
            weights[:, None]
            * element_counts(problem.features.structures, problem.layout.elements)[known]
        )
        energies = weights * table[name][known]
        difference = energies - counts @ np.linalg.lstsq(counts, energies, rcond=1e-10)[0]
        return float(difference @ difference), len(known)
    mean, total, n = label_mean(table[name]), 0.0, 0
    for i in known:
        weighted = (table[name][i] - mean) * _component_weights(name) / sigma[i]
        total += float(np.nansum(weighted**2))
        n += int((~np.isnan(weighted)).sum())
    return total, n


def _component_weights(name):
    return 1.0 if name in RAGGED else TARGETS[name].weights


def squares_of_rows(
    problem: Problem, sample: RowSample, nonlinear: Sequence[LossTerm], v: Array
) -> dict[str, tuple[float, float, int]]:
    """Sums of squares for `warn_of_bad_fit`, after a fit to rows.

    Parameters
    ----------
    problem : Problem
        The labels.
    sample : RowSample
        Rows of labels that are linear in the weights.
    nonlinear : sequence of LossTerm
        Rows of the other labels.
    v : ndarray of shape (n_columns,)
        Weights in units of their prior.

    Returns
    -------
    squares : dict of {str: (float, float, int)}
        See `RowSample.squares`.
    """
    squares = sample.squares(v)
    for term in nonlinear:
        for name, of_residuals in term.squares(v).items():
            squares[name] = of_residuals, *deviations(problem, name)
    return squares


def squares_of_triangles(
    problem: Problem, triangles: Mapping[str, Array], coef: Array
) -> dict[str, tuple[float, float, int]]:
    """Sums of squares for `warn_of_bad_fit`, after a fit to one triangle per target.

    Parameters
    ----------
    problem : Problem
        The labels.
    triangles : dict of {str: ndarray of shape (n_columns + 1, n_columns + 1)}
        Triangle of the rows of each target, in units of the relative noise.
    coef : ndarray of shape (n_weights,)
        Weights of the fields. The energies of free atoms do not enter linear labels.

    Returns
    -------
    squares : dict of {str: (float, float, int)}
        See `RowSample.squares`.
    """
    squares = {}
    for name, R in triangles.items():
        residual = (R[:, : len(coef)] @ coef - R[:, -1]) / problem.sigmas[name]
        squares[name] = float(residual @ residual), *deviations(problem, name)
    return squares


def warn_of_bad_fit(squares: Mapping[str, tuple[float, float, int]]) -> None:
    """Warn about targets whose training labels are described worse than by their mean.

    Parameters
    ----------
    squares : dict of {str: (float, float, int)}
        See `RowSample.squares`.
    """
    bad = bad_targets(squares)
    if bad:
        text = " and ".join(f"{r2:.2f} for {name}" for name, r2 in bad.items())
        kind = "energies" if set(bad) & set(ENERGIES) else "other"
        advice = ADVICE[kind].format(name=next(iter(bad)))
        warn_once(
            f"on the training structures R2 is {text}: the mean of the labels would be better. "
            f"{advice[0].upper()}{advice[1:]}",
            kind="bad fit",
        )


def bad_targets(squares: Mapping[str, tuple[float, float, int]]) -> dict[str, float]:
    """R2 of the targets for which it is negative, although residuals are larger than the noise.

    Parameters
    ----------
    squares : dict of {str: (float, float, int)}
        Sums of squared residuals and of squared deviations from the mean, in units of the noise,
        and numbers of labels.

    Returns
    -------
    r2 : dict of {str: float}
    """
    return {
        name: 1.0 - of_residuals / of_labels if of_labels > 0 else -np.inf
        for name, (of_residuals, of_labels, n) in squares.items()
        if of_residuals > 1.001 * max(of_labels, n)
    }
