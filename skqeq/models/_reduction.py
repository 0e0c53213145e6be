"""Labels reduced to one triangle per target, by one process or many.

A triangle stands for the rows of a target in units that no noise and no amplitude changes: of rows
over the weights, and their labels, with the noise of each relative to the model's. With the
triangles of all targets, those parameters can be changed without a look at the data, more data can
be added at any time, and parts of the data can be reduced anywhere, in any order.
"""

import os
import tempfile
from functools import lru_cache
from math import ceil

import joblib
import numpy as np
from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from tqdm import tqdm

from ..solvers import Triangle

# A triangle must not start from zero, see `Triangle`. As a penalty this is far below rounding: for
# a noise s and an amplitude a it is that of a prior 1 / (TINY a / s) times wider.
TINY = 1e-12
# Parts per worker: enough that one that is late or lost costs little, few enough that merging does.
PARTS = 4


def empty(n_columns):
    """A triangle of no rows."""
    return Triangle(n_columns, TINY)


def reduce_labels(model, features, labels, weights):
    """Reduce all labels, in several processes if the model has several jobs.

    Parameters
    ----------
    model : ChargeModel
        Prepared for the elements of the structures.
    features : StructureFeatures
        Of all structures.
    labels : Labels
        All of them linear in the charges.
    weights : ndarray of shape (n_structures,)
        Of the structures.

    Returns
    -------
    triangles : dict of {str: ndarray of shape (n_weights + 1, n_weights + 1)}
        By target.
    """
    n_jobs = effective_n_jobs(model.n_jobs)
    if n_jobs == 1:
        return _reduced(model, features, labels, weights, 0)
    columns, atoms = len(model._scale()), features.structures.offsets
    # Parts with less rows than unknowns are better not reduced at all.
    n_parts = max(n_jobs, min(PARTS * n_jobs, ceil(3 * len(features) / (2 * columns))))
    ends = np.searchsorted(atoms, np.linspace(0, atoms[-1], n_parts + 1)[1:-1])
    bounds = np.unique([0, *ends, len(features)]).tolist()
    parts = list(zip(bounds[:-1], bounds[1:], strict=True))
    with tempfile.TemporaryDirectory(dir=os.environ.get("JOBLIB_TEMP_FOLDER")) as folder:
        # Once on disk instead of once in every task: the sparse set is large.
        path = os.path.join(folder, "fit.joblib")
        joblib.dump((model, features.source, labels, weights), path)
        tasks = (delayed(_reduce_part)(path, features.structures[a:b], a) for a, b in parts)
        found = _parallel(n_jobs)(tasks)
        silent = not (model.verbose or features.source.verbose)
        bar = tqdm(found, "parts", len(parts), disable=silent, leave=False)
        return merge_pairwise(bar)


def _parallel(n_jobs):
    try:
        return Parallel(n_jobs=n_jobs, return_as="generator")
    except ValueError:  # a backend that returns all results at the end
        return Parallel(n_jobs=n_jobs)


def merge_pairwise(parts):
    """Merge triangles by target, like with like, so that few are in memory at a time."""
    waiting = []  # (number of parts, triangles), ever fewer
    for triangles in parts:
        size = 1
        while waiting and waiting[-1][0] == size:
            triangles, size = merged(waiting.pop()[1], triangles), 2 * size
        waiting.append((size, triangles))
    triangles = waiting.pop()[1]
    while waiting:
        triangles = merged(waiting.pop()[1], triangles)
    return triangles


def merged(first, second):
    """The triangles of two parts in one; neither part is changed."""
    both = dict(first)
    for name, R in second.items():
        both[name] = R
        if name in first:
            triangle = Triangle.from_augmented(first[name])
            triangle.merge(R.copy(order="F"))
            both[name] = triangle.augmented
    return both


def combined(model, triangles):
    """One triangle of the prior and of all targets, in units of the noise and amplitudes."""
    scale = np.append(model._scale(), 1.0)
    triangle = Triangle(len(scale) - 1, penalty=1.0)
    for name, R in triangles.items():
        triangle.merge(np.asfortranarray(R * (scale / getattr(model, f"sigma_{name}"))))
    return triangle


def _reduced(model, features, labels, weights, first):
    triangles = {}
    for rows in model._linear_rows(features, labels, weights, first):
        if rows.name not in triangles:
            triangles[rows.name] = empty(rows.J.shape[1])
        triangles[rows.name].update(rows.J, rows.residual)
    return {name: triangle.augmented for name, triangle in triangles.items()}


def _reduce_part(path, structures, first):
    """What a worker does."""
    from ..structures import StructureFeatures

    model, source, labels, weights = _load(path)
    with parallel_config("sequential"):  # a worker has no workers
        return _reduced(model, StructureFeatures(structures, source), labels, weights, first)


@lru_cache(maxsize=1)
def _load(path):
    return joblib.load(path)
