"""The weights from which an iterative fit starts.

If there are no linear rows, a fit to energies starts from classical electronegativities.
`DerivativeRows.start` chooses the size of the charges. For charges of this size,
`skqeq.response.Response.start_fields` returns the values of the latent fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..solvers import LossTerm, Triangle
from ._derivative_rows import DerivativeRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from .._typing import Array
    from ._problem import Problem


def start_weights(
    problem: Problem, triangle: Triangle, nonlinear: Sequence[LossTerm], init: ArrayLike | None
) -> Array:
    """Weights from which the iteration starts.

    The initial weights decide the sign of the charges, because energies and norms of dipoles are
    the same for opposite charges.

    Parameters
    ----------
    problem : Problem
        Labels, fields and response.
    triangle : Triangle
        Linear rows and the prior.
    nonlinear : list
        Rows that are not linear in the weights.
    init : array-like of shape (n_weights - n_elements,) or None
        Weights that the user gave.

    Returns
    -------
    v : ndarray of shape (n_weights,)
        In units of the prior.
    """
    if init is not None:
        return _given(problem.layout, init)
    layout = problem.layout
    energies = [rows for rows in nonlinear if isinstance(rows, DerivativeRows)]
    fields = problem.forward.response.fields
    free_constants = all(
        layout.n_constants[f] and layout.baselines[f] > 0
        for place in fields
        for f in layout.entering(place)[:1]
    )
    if triangle.n_rows:
        v = triangle.solve()
    elif energies and free_constants:
        v = _at_constants(layout, energies[0].start())
    else:
        guess = triangle.copy()
        for rows in nonlinear:
            for J, residual in rows.toward_start():
                guess.update(J, residual)
        v = guess.solve()
    return v


def _at_constants(layout, values):
    """Weights for which the element constants give the fields these values; others are zero."""
    weights = np.zeros(layout.n_columns)
    for place, of_elements in values.items():
        f = layout.entering(place)[0]
        weights[layout.columns[f][1]] = of_elements - layout.means[f]
    return layout.in_prior_units(weights)


def _given(layout, init):
    """Check the weights of the user; energies of the free atoms start at their prior mean."""
    n_offsets = layout.n_constants[-1]
    shape = (layout.n_columns - n_offsets,)
    init = np.asarray(init, dtype=np.float64)
    if init.shape != shape or not np.isfinite(init).all():
        raise ValueError(
            f"init must be {shape[0]} finite weights in the form of coef_, got shape {init.shape}"
        )
    return layout.in_prior_units(np.append(init, np.zeros(n_offsets)))
