"""Figures of infrared spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._colors import model_colors
from ._style import axes_or_new

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from .._typing import Array


def plot_spectrum(
    wavenumbers: Array | Sequence[float],
    intensities: Array | Sequence[float] | dict[str, Any],
    *,
    label: str | None = None,
    max_wavenumber: float = 4000.0,
    ax: Axes | None = None,
) -> Axes:
    """Plot infrared spectra, each scaled so that its largest peak is one.

    Parameters
    ----------
    wavenumbers : array-like of shape (n,)
        Wavenumbers from `skqeq.spectra.infrared_spectrum`, 1/cm.
    intensities : array-like of shape (n,), or dict of {str: array-like of shape (n,)}
        Intensities of one spectrum, or a dict from names of spectra to intensities, in any unit.
    label : str, default=None
        Name in the legend if there is one spectrum.
    max_wavenumber : float, default=4000.0
        Largest wavenumber on the axis, 1/cm.
    ax : matplotlib.axes.Axes, default=None
        Axes to draw into; None makes a new figure.

    Returns
    -------
    ax : matplotlib.axes.Axes
        Axes of the figure.

    Examples
    --------
    >>> import numpy as np
    >>> from skqeq.plotting import plot_spectrum
    >>> k = np.linspace(0, 4000, 400)
    >>> ax = plot_spectrum(k, np.exp(-((k - 1600) ** 2) / 500))
    >>> ax.get_xlabel()
    'wavenumber (1/cm)'
    """
    ax = axes_or_new(ax, (6.4, 3.2))
    spectra = intensities if isinstance(intensities, dict) else {label: intensities}
    colors = model_colors(spectra)
    for name, values in spectra.items():
        shown = [v for k, v in zip(wavenumbers, values, strict=True) if k <= max_wavenumber]
        scaled = [v / max(shown) for v in shown]
        ax.plot(wavenumbers[: len(shown)], scaled, label=name, color=colors[name])
    ax.set_xlim(0, max_wavenumber)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("wavenumber (1/cm)")
    ax.set_ylabel("absorption (largest peak = 1)")
    if any(spectra):
        ax.legend(frameon=False)
    return ax
