"""Style and helper functions of all figures.

matplotlib is imported when a figure is drawn, so that skqeq can be imported without it.
"""

from __future__ import annotations

from typing import Any

from .._colors import CHARGE_COLORS

GREY = "#595959"


def charge_colors(limit: float) -> dict[str, Any]:
    """Return the colours of charges: red for negative, white for zero, blue for positive.

    Parameters
    ----------
    limit : float
        Charge of the darkest colours, e. To compare panels, use one value for all of them.

    Returns
    -------
    options : dict
        A colour map ``"cmap"`` and a norm ``"norm"``, options of functions such as
        ``Axes.scatter``.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skqeq.plotting import charge_colors
    >>> charges = [-0.6, 0.3, 0.3]
    >>> points = plt.scatter([0.0, 1.0, 2.0], charges, c=charges, **charge_colors(0.6))
    >>> points.get_clim()
    (-0.6, 0.6)
    """
    from matplotlib.colors import CenteredNorm, LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("charges", CHARGE_COLORS)
    return {"cmap": colors, "norm": CenteredNorm(halfrange=limit)}


def axes_or_new(ax, figsize):
    """Return `ax`, or the axes of a new figure of size `figsize` (inches) if `ax` is None."""
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            'plotting needs matplotlib, the extra `plots`: pip install "skqeq[plots]"'
        ) from error
    return plt.subplots(figsize=figsize, layout="constrained")[1]


def with_unit(label, unit):
    """Label of an axis, with the unit in parentheses if there is one."""
    return f"{label} ({unit})" if unit else label
