"""Colours and helper functions for all figures.

matplotlib is imported when a figure is drawn, so that skqeq can be imported without it.
"""

# Colours of Okabe and Ito, which colour-blind people can distinguish.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#595959"


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
