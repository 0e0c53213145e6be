"""Grids of parameters in a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .._typing import Array


def at_end(best: Any, tried: Iterable[Any]) -> str:
    """Whether the best value of a search is at an end of the values that were tried.

    Parameters
    ----------
    best : float or tuple of float
        The best value.
    tried : iterable of float or tuple of float
        All values.

    Returns
    -------
    more : {"", "smaller", "larger"}
        Which values may be better; empty if fewer than three values were tried.
    """
    tried = sorted(set(tried))
    if len(tried) < 3:
        return ""
    return "smaller" if best == tried[0] else "larger" if best == tried[-1] else ""


def by_ratio(
    candidates: Sequence[dict[str, float]], names: Sequence[str]
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Group candidates whose noises have the same ratios; they share one eigenvalue problem.

    Parameters
    ----------
    candidates : list of dict
        Noise of each target, by the name of the parameter.
    names : sequence of str
        Targets.

    Yields
    ------
    index : tuple of int
        Numbers of the candidates of a group.
    sigmas : ndarray of shape (n, n_targets)
        Their noises.
    """
    groups: dict[tuple[float, ...], list[tuple[int, Array]]] = {}
    for c, candidate in enumerate(candidates):
        sigmas = np.array([candidate[f"sigma_{name}"] for name in names])
        groups.setdefault(tuple((sigmas / sigmas[0]).round(12)), []).append((c, sigmas))
    for members in groups.values():
        index, sigmas = zip(*members, strict=True)
        yield index, np.array(sigmas)
