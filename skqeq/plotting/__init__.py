"""Figures: parity plots, learning curves, charges of molecules, and spectra.

The functions need the extra ``plots``. Every ``plot`` function draws into `ax`, or into a new
figure if `ax` is None, and returns the Axes. Negative charges are red and positive ones blue, and
every kind of model has one colour; `charge_colors` and `model_colors` give these colours to your
own figures.
"""

from .._colors import model_colors
from ._errors import plot_learning_curve, plot_parity
from ._molecules import plot_charges_by_element, plot_molecule
from ._spectra import plot_spectrum
from ._style import charge_colors

__all__ = [
    "charge_colors",
    "model_colors",
    "plot_charges_by_element",
    "plot_learning_curve",
    "plot_molecule",
    "plot_parity",
    "plot_spectrum",
]
