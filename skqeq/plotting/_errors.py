"""Errors of models: parity plots and learning curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._colors import model_colors
from .._counts import counted
from ..metrics import target_mae, target_rmse
from ..parameters import DEBYE
from ._style import GREY, axes_or_new, with_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    from .._typing import Column


def plot_parity(
    y_true: Column,
    y_pred: Column | dict[str, Any],
    *,
    unit: str | None = None,
    label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot predictions against reference values, with the errors in the legend.

    Parameters
    ----------
    y_true : ndarray of shape (n, 3) or (n,), or sequence of n arrays
        Reference values. If `unit` is None or "D", an array of shape (n, 3) holds dipole vectors in
        e*Angstrom, and their norms are plotted in Debye. In all other cases, such as a list with
        the charges or the forces of n structures, every number is plotted without conversion. NaN
        and None are ignored.
    y_pred : like y_true, or dict of {str: like y_true}
        Predictions of one model, or a dict from names of models to predictions.
    unit : str, default=None
        Unit on the axes and in the legend; dipoles always have "D".
    label : str, default=None
        Name of the quantity on the axes; ``"|μ|"`` for dipoles.
    ax : matplotlib.axes.Axes, default=None
        Axes to draw into; None makes a new figure.

    Returns
    -------
    ax : matplotlib.axes.Axes
        Axes of the figure.

    Examples
    --------
    >>> import numpy as np
    >>> from skqeq.plotting import plot_parity
    >>> mu = np.random.default_rng(0).normal(size=(50, 3))
    >>> ax = plot_parity(mu, {"kQEq": 0.98 * mu, "QEq": 0.7 * mu})
    >>> ax.get_xlabel()
    'reference |μ| (D)'
    """
    ax = axes_or_new(ax, (4.8, 4.8))
    models = y_pred if isinstance(y_pred, dict) else {None: y_pred}
    if isinstance(y_true, np.ndarray) and y_true.shape[1:] == (3,) and unit in (None, "D"):
        unit, label = "D", label or "|μ|"
        y_true = _norm_in_debye(y_true)
        models = {name: _norm_in_debye(values) for name, values in models.items()}
    limits = _labelled_numbers(y_true, y_true)[0]
    colors = model_colors(models)
    for i, (name, values) in enumerate(models.items()):
        truth, predicted = _labelled_numbers(y_true, values)
        limits = np.concatenate([limits, predicted])
        style = {
            "s": 16,
            "linewidths": 0,
            "color": colors[name],
            "alpha": float(np.clip(15.0 / np.sqrt(len(truth) + 1.0), 0.15, 0.7)),
            "label": _error_label(name, truth, predicted, unit),
            "rasterized": len(truth) > 5000,
        }
        # The first model is drawn on top, because later ones are usually baselines with more
        # scatter.
        ax.scatter(truth, predicted, zorder=3 - 0.01 * i, **style)
    _square(ax, limits)
    _error_legend(ax)
    ax.set_xlabel(with_unit(f"reference {label or 'value'}", unit))
    ax.set_ylabel(with_unit(f"predicted {label or 'value'}", unit))
    return ax


def plot_learning_curve(
    sizes: ArrayLike,
    errors: ArrayLike | dict[str, Any],
    *,
    unit: str | None = None,
    label: str = "MAE",
    ax: Axes | None = None,
) -> Axes:
    """Plot the error against the size of the training set, on logarithmic axes.

    Parameters
    ----------
    sizes : array-like of shape (n_sizes,)
        Numbers of training structures.
    errors : array-like of shape (n_sizes, n_folds), or dict of {str: array-like}
        Error in every fold, for one model or as a dict from names of models to errors. A line shows
        the mean over the folds, and a band shows the range from the best to the worst fold. The
        scores of `sklearn.model_selection.learning_curve` are negative errors: pass
        ``-test_scores``.
    unit : str, default=None
        Unit of the errors.
    label : str, default="MAE"
        Name of the error on the axis.
    ax : matplotlib.axes.Axes, default=None
        Axes to draw into; None makes a new figure.

    Returns
    -------
    ax : matplotlib.axes.Axes
        Axes of the figure.

    Examples
    --------
    >>> from skqeq.plotting import plot_learning_curve
    >>> ax = plot_learning_curve([50, 100, 200], [[0.5, 0.6], [0.4, 0.5], [0.3, 0.4]], unit="D")
    >>> ax.get_ylabel()
    'MAE (D)'
    """
    ax = axes_or_new(ax, (5.0, 3.8))
    sizes = np.asarray(sizes)
    models = errors if isinstance(errors, dict) else {None: errors}
    colors = model_colors(models)
    for name, values in models.items():
        values = np.asarray(values, dtype=np.float64)
        if values.shape[:1] != sizes.shape or values.ndim != 2:
            raise ValueError(f"errors have shape {values.shape}, but there are {len(sizes)} sizes")
        style = {"color": colors[name]}
        ax.fill_between(sizes, values.min(1), values.max(1), alpha=0.18, linewidth=0, **style)
        ax.plot(sizes, values.mean(1), "o-", label=name, markersize=5, **style)
    ax.set_xscale("log")
    ax.set_yscale("log")
    _plain_ticks(ax, sizes)
    ax.grid(which="major", color="#dddddd", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.set_xlabel("training structures")
    ax.set_ylabel(with_unit(label, unit))
    if any(models):
        ax.legend(frameon=False)
    return ax


def _norm_in_debye(dipoles):
    return DEBYE * np.linalg.norm(np.asarray(dipoles, dtype=np.float64), axis=1)


def _labelled_numbers(y_true, y_pred):
    """All reference values that are not NaN, and the predictions for them, each of shape (n,)."""
    if len(y_true) != len(y_pred):
        raise ValueError(
            f"{counted(len(y_true), 'reference')} for {counted(len(y_pred), 'prediction')}"
        )
    rows = [(t, p) for t, p in zip(y_true, y_pred, strict=True) if t is not None]
    truth = np.concatenate([np.ravel(np.asarray(t, dtype=np.float64)) for t, _ in rows])
    predicted = np.concatenate([np.ravel(np.asarray(p, dtype=np.float64)) for _, p in rows])
    labelled = ~np.isnan(truth)
    return truth[labelled], predicted[labelled]


def _error_label(name, truth, predicted, unit):
    mae, rmse = target_mae(truth, predicted), target_rmse(truth, predicted)
    unit = f" {unit}" if unit else ""
    return (f"{name}: " if name else "") + f"MAE {mae:#.3g}{unit}, RMSE {rmse:#.3g}{unit}"


def _square(ax, values):
    """Draw the diagonal, and set equal limits for both axes."""
    low, high = values.min(), values.max()
    margin = 0.04 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    ax.plot(limits, limits, color=GREY, linewidth=1.0, zorder=1)
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    ax.set_yticks(ax.get_xticks())
    ax.set(xlim=limits, ylim=limits)


def _error_legend(ax):
    legend = ax.legend(loc="upper left", fontsize=9, handletextpad=0.2, edgecolor="#cccccc")
    for handle in legend.legend_handles:
        handle.set(alpha=1.0, sizes=[30])


def _plain_ticks(ax, sizes):
    """Put ticks at the sizes of the training sets, and write errors as decimal numbers."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
