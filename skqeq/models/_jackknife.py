"""Predictions for the training structures, each by a fit that leaves out its group.

No fit is repeated. In units of the noise, let J be the rows of the labels of one group, r the
residuals of these labels in the fit to all labels, and R the triangle of that fit, so that
``(R^T R)^-1`` is the covariance of the weights. The fit that leaves out the group has the residuals
and the covariance of predictions

    e = (1 - H)^-1 r,    C = (1 - H)^-1 - 1,    H = J (R^T R)^-1 J^T

(Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 5.4.2, for blocks
of rows). Labels that are not linear in the weights are linearised at the weights of the fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from ..targets import TARGETS
from ._cv_blocks import members_of
from ._prediction_rows import prediction_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._typing import Array
    from ._posterior import Posterior
    from ._prediction_rows import Predicted
    from ._problem import Problem

# Number of structures whose rows are in memory at a time; a group is never divided.
BATCH = 256
# Largest relative difference between ``R^-T v`` and ``R^-T J^T r``, for labels that are linear in
# the weights (True) and for others.
MAX_DIFFERENCE = {True: 1e-2, False: 0.3}


class LeftOutPrediction(NamedTuple):
    """One label, and its prediction by a fit that leaves out the group of its structure.

    Attributes
    ----------
    number : int
        Index of the structure.
    name : str
        The target.
    errors : ndarray of shape (k,)
        Label minus prediction; NaN for components without a label.
    variances : ndarray of shape (2, k)
        Variances of the prediction that are due to the weights, and to the remainders of the
        fields, see `Posterior.variances`.
    """

    number: int
    name: str
    errors: Array
    variances: Array


class _Rows(NamedTuple):
    """The rows of one label; `Z` and `residual` are in units of the noise."""

    prediction: Predicted
    known: Array
    noise: Array
    Z: Array
    residual: Array
    remainders: Array


def left_out_predictions(
    problem: Problem, posterior: Posterior, weights: Array, groups: Array
) -> Iterator[LeftOutPrediction]:
    """Yield the left-out predictions for all labels of a fit.

    Parameters
    ----------
    problem : Problem
        The labels of the fit.
    posterior : Posterior
        The posterior of the fit.
    weights : ndarray of shape (n_weights,)
        The weights of the fit.
    groups : ndarray of shape (n_structures,)
        The structures of a group are left out together.

    Yields
    ------
    prediction : LeftOutPrediction

    Raises
    ------
    ValueError
        If the weights are not those of a fit to these labels: they do not solve ``v = J^T r``.
    """
    R, noise = posterior.factor, problem.noise()
    labelled, found, squares = problem.labels.names, np.zeros(len(R)), 0.0
    for batch in _batches(groups):
        by_group: dict[int, list[_Rows]] = {}
        for rows in _rows_of(problem, R, weights, noise, batch):
            by_group.setdefault(int(groups[rows.prediction.number]), []).append(rows)
        for parts in by_group.values():
            found += sum(rows.Z.T @ rows.residual for rows in parts)
            squares += sum(rows.residual @ rows.residual for rows in parts)
            for rows, errors, variances in _leave_out(parts):
                if rows.prediction.name in labelled:
                    yield _prediction(rows, errors, variances)
    v = problem.layout.in_prior_units(weights)
    gradient = found - solve_triangular(R, v, trans="T", check_finite=False)
    largest = np.linalg.norm(found)
    if not problem.is_linear:  # the iteration stops when a step lowers the loss too little
        largest = np.sqrt(v @ v + squares)
    if np.linalg.norm(gradient) > MAX_DIFFERENCE[problem.is_linear] * largest:
        raise ValueError(
            "X, y and sample_weight, and the noise of the model, must be those of the last fit"
        )


def _batches(groups):
    """Indices of structures, so that groups are complete in a batch of about `BATCH` structures."""
    batch: list[int] = []
    for members in members_of(groups):
        batch.extend(members)
        if len(batch) >= BATCH:
            yield np.array(batch)
            batch = []
    if batch:
        yield np.array(batch)


def _rows_of(problem, R, weights, noise, batch):
    """Yield the rows of all labels of some structures."""
    names = list(noise)
    for rows in prediction_rows(problem.forward, problem.features[batch], weights, names):
        labels = [_label(problem, noise, batch[p.number], p) for p in rows.predictions]
        inverse = np.concatenate([inverse for _, inverse in labels])
        if not inverse.any():
            continue
        # Rows without a label are zero, so that they do not take part in the fit.
        Z = solve_triangular(R, (rows.J * inverse[:, None]).T, trans="T", check_finite=False).T
        start = 0
        for p, (residual, scale), remainders in zip(
            rows.predictions, labels, rows.split(rows.remainders), strict=True
        ):
            part, known = Z[start : start + p.size], scale > 0.0
            start += p.size
            if known.any():
                yield _Rows(
                    p._replace(number=batch[p.number], solution=None),
                    known,
                    1.0 / scale[known],
                    part[known],
                    residual[known] * scale[known],
                    remainders[known],
                )


def _label(problem, noise, number, predicted):
    """Residual of a label, and the inverse of its noise, which is zero if there is no label."""
    name, solution = predicted.name, predicted.solution
    nothing = np.zeros(predicted.size), np.zeros(predicted.size)
    sigma, target = noise[name][number], TARGETS[name]
    if not np.isfinite(sigma):
        return nothing
    if name in problem.labels.names:
        label = problem.labels.values(name, number)
    else:
        label = None
    if label is None and name == "charges":
        label = problem.charge_values(number, solution.structure).get("charges")
    if label is None:
        return nothing
    known = ~np.isnan(label)
    residual = np.where(known, label - target.observe(solution), 0.0)
    return residual, np.where(known, target.weights / sigma, 0.0)


def _leave_out(parts):
    """Left-out errors and variances of all rows of one group."""
    Z = np.concatenate([rows.Z for rows in parts])
    residual = np.concatenate([rows.residual for rows in parts])
    inverse = np.linalg.inv(np.eye(len(Z)) - Z @ Z.T)
    errors, variances = inverse @ residual, np.maximum(inverse.diagonal() - 1.0, 0.0)
    ends = np.cumsum([len(rows.residual) for rows in parts])[:-1]
    return zip(parts, np.split(errors, ends), np.split(variances, ends), strict=True)


def _prediction(rows, errors, variances):
    """A left-out prediction in the unit of the target."""
    size, (number, name) = rows.prediction.size, rows.prediction[:2]
    all_errors, all_variances = np.full(size, np.nan), np.full((2, size), np.nan)
    all_errors[rows.known] = errors * rows.noise
    all_variances[:, rows.known] = variances * rows.noise**2, rows.remainders
    return LeftOutPrediction(int(number), name, all_errors, all_variances)
