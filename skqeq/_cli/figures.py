"""Files of figures, drawn without a display."""

from ..persistence import replacing


def import_matplotlib():
    """Import matplotlib, or raise an ImportError that says how to install it."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "skqeq[plots]"') from error
    return Figure


def figure_endings():
    """Endings of the files that matplotlib can write."""
    return sorted(f".{name}" for name in import_matplotlib()().canvas.get_supported_filetypes())


def save_figure(path, plot, *args, figsize=(5.0, 4.6), title=None, **options):
    """Draw a figure with a function of `skqeq.plotting`, and write it to a file."""
    figure = import_matplotlib()(figsize=figsize, layout="constrained")
    ax = plot(*args, ax=figure.subplots(), **options)
    if title is not None:
        ax.set_title(title, fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=160)


def save_panels(path, panels):
    """Draw several panels, each with a function of `skqeq.plotting`, and write them to a file.

    Every panel is a tuple of the function, its positional arguments and its keyword arguments.
    """
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = import_matplotlib()(figsize=(4.8 * columns, 4.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (plot, arguments, options) in zip(axes, panels, strict=False):
        plot(*arguments, ax=ax, **options)
    for ax in axes[len(panels) :]:
        ax.remove()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=160)
