"""The cutoff function of SOAP: neighbours fade out before the cutoff radius."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .._typing import Array


def cutoff_factors(D: Array, r_cut: float, width: float | None) -> Array:
    """Cutoff function f(r) of every pair, and f'(r) / r.

    With ``y = (r_cut - r) / width`` between 0 and 1, ``f = y^3 (10 - 15 y + 6 y^2)``. Its first and
    second derivatives vanish at both ends.

    Parameters
    ----------
    D : ndarray of shape (n_pairs, 3)
        Vectors from centres to neighbours, Angstrom.
    r_cut : float
        Cutoff radius, Angstrom.
    width : float or None
        Distance over which f falls from 1 to 0, Angstrom; None means f = 1.

    Returns
    -------
    factors : ndarray of shape (2, n_pairs)
        f, and f'(r) / r in Angstrom^-2.
    """
    if width is None:
        return np.stack([np.ones(len(D)), np.zeros(len(D))])
    r = np.sqrt(np.einsum("pa,pa->p", D, D))
    y = np.clip((r_cut - r) / width, 0.0, 1.0)
    derivative = -30 * y**2 * (1 - y) ** 2 / width
    # At r = 0, for an atom as its own neighbour, f' is zero, so that any divisor will do.
    return np.stack([y**3 * (10 - 15 * y + 6 * y**2), derivative / np.where(r > 0, r, 1.0)])
