"""Errors of predictions; labels may be missing, and errors of dipoles are in Debye."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning

from ._counts import counted
from ._warnings import warn_once
from .parameters import DEBYE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ._typing import Array, Column


__all__ = ["dipole_errors", "structure_rmse", "target_mae", "target_r2", "target_rmse"]

# Kind of the warning for an R2 of fewer than two structures, see `_warnings.warn_once`.
TOO_FEW = "R2 of too few structures"
# If the norm of a dipole is smaller than this value (Debye), its error is divided by this value.
RELATIVE_THRESHOLD = 1.0


def target_r2(y_true: Column, y_pred: Column, sample_weight: ArrayLike | None = None) -> float:
    """Coefficient of determination of one target, over all components and structures.

    Parameters
    ----------
    y_true, y_pred : sequence of array-like
        One value per structure. None and NaN in `y_true` are missing labels.
    sample_weight : ndarray of shape (n,), default=None
        Weights of the structures.

    Returns
    -------
    r2 : float
        ``1 - sum |error|^2 / sum |y - mean|^2``. For fewer than two labelled structures it is NaN,
        with an `UndefinedMetricWarning`.

    Examples
    --------
    >>> from skqeq.metrics import target_r2
    >>> target_r2([1.0, 2.0, 3.0, None], [1.0, 2.0, 4.0, 0.0])
    0.5
    """
    truth, predicted, weights = _aligned(y_true, y_pred, sample_weight)
    n_labelled = sum(has_label(value) for value in y_true)
    if n_labelled < 2:
        warn_once(
            f"R2 needs two labelled structures, got {n_labelled}",
            TOO_FEW,
            UndefinedMetricWarning,
        )
        return float("nan")
    total = np.maximum(weights.sum(axis=0), np.finfo(float).tiny)
    mean = np.sum(weights * truth, axis=0) / total
    spread = np.sum(weights * (truth - mean) ** 2)
    error = np.sum(weights * (truth - predicted) ** 2)
    if spread == 0.0:
        return 1.0 if error == 0.0 else 0.0
    return float(1.0 - error / spread)


def target_mae(y_true: Column, y_pred: Column, sample_weight: ArrayLike | None = None) -> float:
    """Mean absolute error over all labelled components, in the unit of the target.

    Parameters
    ----------
    y_true, y_pred : sequence of array-like
        As in `target_r2`.
    sample_weight : ndarray of shape (n,), default=None
        Weights of the structures.

    Returns
    -------
    mae : float
        Error in the unit of the target.

    Examples
    --------
    >>> import numpy as np
    >>> from skqeq.metrics import target_mae
    >>> target_mae([[0.1, -0.1], None], [np.array([0.2, -0.2]), np.zeros(3)])
    0.1
    """
    truth, predicted, weights = _aligned(y_true, y_pred, sample_weight)
    return float(np.average(np.abs(truth - predicted), weights=weights))


def target_rmse(y_true: Column, y_pred: Column, sample_weight: ArrayLike | None = None) -> float:
    """Root mean squared error over all labelled components, in the unit of the target.

    Parameters
    ----------
    y_true, y_pred : sequence of array-like
        As in `target_r2`.
    sample_weight : ndarray of shape (n,), default=None
        Weights of the structures.

    Returns
    -------
    rmse : float
        Error in the unit of the target.

    Examples
    --------
    >>> from skqeq.metrics import target_rmse
    >>> target_rmse([1.0, 2.0, float("nan")], [2.0, 3.0, 0.0])
    1.0
    """
    truth, predicted, weights = _aligned(y_true, y_pred, sample_weight)
    return float(np.sqrt(np.average((truth - predicted) ** 2, weights=weights)))


def structure_rmse(y_true: Column, y_pred: Column) -> Array:
    """Root mean squared error of each structure, in the unit of the target.

    The structures with the largest errors are those whose labels or geometries are worth a look.

    Parameters
    ----------
    y_true, y_pred : sequence of array-like
        As in `target_r2`.

    Returns
    -------
    rmse : ndarray of shape (n,)
        Root mean square over the labelled components; NaN for structures without a label.

    Examples
    --------
    >>> from skqeq.metrics import structure_rmse
    >>> structure_rmse([[1.0, 2.0], None, [0.0]], [[1.0, 1.0], [0.0], [3.0]]).round(2)
    array([0.71,  nan, 3.  ])
    """
    if len(y_true) != len(y_pred):
        raise ValueError(
            f"{counted(len(y_true), 'label')} for {counted(len(y_pred), 'prediction')}"
        )
    rmse = np.full(len(y_true), np.nan)
    for i, (truth, predicted) in enumerate(zip(y_true, y_pred, strict=True)):
        if has_label(truth):
            error = np.asarray(predicted, dtype=np.float64) - np.asarray(truth, dtype=np.float64)
            rmse[i] = np.sqrt(np.nanmean(error**2))
    return rmse


def dipole_errors(y_true: ArrayLike, y_pred: ArrayLike) -> dict[str, float]:
    """Errors of dipole moments, in Debye.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n, 3) or (n,)
        Dipole vectors, or their norms, in e*Angstrom. Rows with NaN in `y_true` are ignored.

    Returns
    -------
    errors : dict of {str: float}
        - ``mae``, ``median`` and ``rmse``: errors of the norm, in Debye;
        - ``rrmse``: root mean square of the error of the norm divided by ``max(|mu|, 1 D)``;
        - ``vector_mae`` and ``vector_rmse``, for vectors only: mean and root mean square of the
          length of the error vector, in Debye.

    References
    ----------
    Relative errors: Hait and Head-Gordon, J. Chem. Theory Comput. 14, 1969 (2018); Staacke et al.,
    Mach. Learn.: Sci. Technol. 3, 015032 (2022).

    Examples
    --------
    >>> from skqeq.metrics import dipole_errors
    >>> errors = dipole_errors([[0.0, 0.0, 1.0]], [[0.0, 0.1, 1.0]])
    >>> round(errors["vector_rmse"], 3)
    0.48
    """
    truth, predicted = (DEBYE * np.asarray(y, dtype=np.float64) for y in (y_true, y_pred))
    if truth.shape != predicted.shape or truth.ndim > 2:
        raise ValueError(f"shapes {truth.shape} and {predicted.shape} of dipoles do not match")
    labelled = ~np.isnan(truth.reshape(len(truth), -1)).any(axis=1)
    if not labelled.any():
        raise ValueError("all dipoles in y_true are NaN")
    truth, predicted = truth[labelled], predicted[labelled]
    errors = {}
    if truth.ndim == 2:
        lengths = np.linalg.norm(predicted - truth, axis=1)
        errors["vector_mae"] = np.mean(lengths)
        errors["vector_rmse"] = np.sqrt(np.mean(lengths**2))
        truth, predicted = np.linalg.norm(truth, axis=1), np.linalg.norm(predicted, axis=1)
    error = predicted - truth
    errors["mae"] = np.mean(np.abs(error))
    errors["median"] = np.median(np.abs(error))
    errors["rmse"] = np.sqrt(np.mean(error**2))
    errors["rrmse"] = np.sqrt(np.mean((error / np.maximum(truth, RELATIVE_THRESHOLD)) ** 2))
    return {name: float(value) for name, value in errors.items()}


def has_label(value):
    """Whether the label of one structure has at least one number: it is not None or all NaN."""
    return value is not None and not np.isnan(np.asarray(value, dtype=np.float64)).all()


def _as_column(values):
    """Concatenate all numbers of arrays of any shape to one column (n, 1)."""
    rows = [np.zeros(0), *(np.ravel(np.asarray(value, dtype=np.float64)) for value in values)]
    return np.concatenate(rows)[:, None]


def _aligned(y_true, y_pred, sample_weight):
    """Labels, predictions and weights, each of shape (n, k); missing labels have weight 0.

    Targets whose size depends on the structure become one column.
    """
    if len(y_true) != len(y_pred):
        raise ValueError(
            f"{counted(len(y_true), 'label')} for {counted(len(y_pred), 'prediction')}"
        )
    weights = np.ones(len(y_true)) if sample_weight is None else np.asarray(sample_weight)
    ragged = getattr(getattr(y_true, "dtype", None), "kind", "O") == "O"
    if ragged:
        labelled = [i for i, value in enumerate(y_true) if has_label(value)]
        truth, predicted = (_as_column(y[i] for i in labelled) for y in (y_true, y_pred))
        repeated = _as_column(np.full(np.size(y_true[i]), weights[i]) for i in labelled)
    else:
        shape = len(y_true), int(np.prod(np.shape(y_true)[1:]))
        truth, predicted = (np.reshape(y, shape).astype(np.float64) for y in (y_true, y_pred))
        labelled = ~np.isnan(truth).all(axis=1)
        truth, predicted = truth[labelled], predicted[labelled]
        repeated = np.repeat(weights[labelled, None], truth.shape[1], axis=1)
    missing = np.isnan(truth)
    return np.where(missing, 0.0, truth), np.where(missing, 0.0, predicted), repeated * ~missing
