"""What all figures share. matplotlib is imported when something is drawn, not before."""

# Okabe and Ito's colours: colour-blind people can tell them apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#595959"


def axes_or_new(ax, figsize):
    """The given axes, or those of a new figure of this size (inches)."""
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
    """Text of an axis."""
    return f"{label} ({unit})" if unit else label
