"""Colours of all pictures: of charges, and of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike

# Red for negative and blue for positive charges, as in maps of electrostatic potentials. These are
# the nine colours RdBu of ColorBrewer, which colour-blind people can distinguish.
CHARGE_COLORS = (
    "#b2182b",
    "#d6604d",
    "#f4a582",
    "#fddbc7",
    "#f7f7f7",
    "#d1e5f0",
    "#92c5de",
    "#4393c3",
    "#2166ac",
)
# Colours of Okabe and Ito, which colour-blind people can distinguish.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# A local energy in addition makes the colour of a response lighter. References are black.
MODEL_COLORS: dict[str | None, str] = {
    "kQEq": "#0072B2",
    "QEq": "#D55E00",
    "ChargeFlow": "#009E73",
    "GAP": "#CC79A7",
    "GAP+kQEq": "#56B4E9",
    "GAP+ChargeFlow": "#6BBF59",
}


def charge_limit(charges: ArrayLike) -> float:
    """Charge at the ends of a scale of colours whose middle is zero; 1 if all charges are zero."""
    return float(np.abs(charges).max(initial=0.0)) or 1.0


def model_colors(names: Iterable[str | None]) -> dict[str | None, str]:
    """Return a colour for every name of a model, so that a model looks alike in all figures.

    Parameters
    ----------
    names : iterable of str
        Names in a figure. Those of the models of skqeq ("kQEq", "QEq", "ChargeFlow", "GAP",
        "GAP+kQEq", "GAP+ChargeFlow") have colours of their own. Beside them, other names take
        colours that no model has, as far as there are any.

    Returns
    -------
    colors : dict of {str: str}
        Colours as hexadecimal numbers.

    Examples
    --------
    >>> from skqeq.plotting import model_colors
    >>> model_colors(["QEq", "mine"])
    {'QEq': '#D55E00', 'mine': '#E69F00'}
    """
    names = list(names)
    taken = [MODEL_COLORS[name] for name in names if name in MODEL_COLORS]
    free = [color for color in COLORS if color not in taken]
    if taken:
        free.sort(key=lambda color: color in MODEL_COLORS.values())
    others = [name for name in names if name not in MODEL_COLORS]
    rest = {name: free[i % len(free)] for i, name in enumerate(others)}
    return {name: MODEL_COLORS.get(name) or rest[name] for name in names}
