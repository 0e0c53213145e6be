"""Smaller problems, whose solutions are starts for an iterative fit.

Far from the minimum, a fit needs several steps, each of which assembles the rows of all labels for
all weights. A problem with fewer sparse points and fewer structures needs the same number of steps,
but each costs a small part. From its solution, the full problem needs one or two steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..structures import StructureFeatures
from ..targets import ENERGIES
from ._forward import ForwardModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._typing import Array
    from ._problem import Problem

# Number of sparse points per group, and one over the part of the structures that is used.
LEVELS = ((250, 2), (60, 4))
# A level with more than this part of the points of the full problem is left out.
LARGEST_PART = 0.6
# A level has at least this number of structures; fewer are not a sample of all.
MIN_STRUCTURES = 8


def coarse_problems(problem: Problem) -> list[tuple[Problem, Callable[[Array], Array]]]:
    """Smaller problems, from the smallest to the largest.

    Parameters
    ----------
    problem : Problem
        The full problem.

    Returns
    -------
    levels : list of (Problem, callable)
        Problems with fewer points and structures. The callable turns weights of a problem, in units
        of their prior, into weights of the next one; the last one makes weights of the full
        problem.
    """
    levels: list[tuple[Problem, Callable[[Array], Array]]] = []
    finer = problem
    for n_points, every in LEVELS:
        source, prolong = finer.features.source.coarsened(n_points)
        if sum(source.sizes) <= LARGEST_PART * sum(finer.features.source.sizes):
            coarse = _coarse(problem, source, every)
            levels.insert(0, (coarse, _with_constants(finer.layout, coarse.layout, prolong)))
            finer = coarse
    return levels


def _coarse(problem, source, every):
    layout = problem.layout.with_sizes(source.sizes)
    forward = ForwardModel(layout, problem.forward.response)
    weights = problem.weights
    every = min(every, len(weights) // MIN_STRUCTURES)
    if every > 1:
        # Of both kinds of structures, with and without labels of energies, a part is used.
        energies = np.any([problem.labels.known(n) for n in _energies(problem)], axis=0)
        used, random = np.zeros(len(weights), dtype=bool), np.random.default_rng(0)
        for kind in (energies, ~energies):
            # A regular selection is no sample if charge states or sizes repeat in the data.
            members = np.flatnonzero(kind & (weights > 0))
            used[random.choice(members, -(-len(members) // every), replace=False)] = True
        weights = np.where(used, weights, 0.0)
    features = StructureFeatures(problem.features.structures, source)
    # The prior means of the energies of free atoms are those of the full problem.
    return replace(problem, forward=forward, features=features, weights=weights, fits_offsets=False)


def _energies(problem):
    """Targets with labels among energies, forces and stress."""
    return [name for name in problem.labels.names if name in ENERGIES]


def _with_constants(fine, coarse, prolong):
    """Extend a function of the weights of all features to weights that include constants.

    `fine` and `coarse` are the layouts of both problems.
    """

    def extended(v: Array) -> Array:
        of_features = np.concatenate([v[columns] for columns, _ in coarse.columns])
        parts = np.split(prolong(of_features), np.cumsum(fine.sizes)[:-1])
        result = np.empty(fine.n_columns)
        for part, new, old in zip(parts, fine.columns, coarse.columns, strict=True):
            result[new[0]], result[new[1]] = part, v[old[1]]
        return result

    return extended
