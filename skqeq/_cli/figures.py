"""Figure files, without a display."""

from ..persistence import replacing


def import_matplotlib():
    """Fail early, with advice, where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "skqeq[plots]"') from error
    return Figure


def save_figure(path, plot, *args, figsize=(5.0, 4.6), title=None, **options):
    """Draw with a function of `skqeq.plotting` into a file."""
    figure = import_matplotlib()(figsize=figsize, layout="constrained")
    ax = plot(*args, ax=figure.subplots(), **options)
    if title is not None:
        ax.set_title(title, fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=160)
