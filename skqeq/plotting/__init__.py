"""Figures: parity plots, learning curves, charges of molecules, and spectra.

The functions need the extra ``plots``. Every function draws into `ax`, or into a new figure if
`ax` is None, and returns the Axes.
"""

from ._errors import plot_learning_curve, plot_parity
from ._molecules import plot_charges_by_element, plot_molecule
from ._spectra import plot_spectrum

__all__ = [
    "plot_charges_by_element",
    "plot_learning_curve",
    "plot_molecule",
    "plot_parity",
    "plot_spectrum",
]
