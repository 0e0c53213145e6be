"""Labels reduced to triangles, by one process or many.

A triangle stands for the rows of a target in units that no noise and no amplitude changes: of rows
over the weights, and their labels, with the noise of each relative to the model's. With the
triangles of all targets, those parameters can be changed without a look at the data, more data can
be added at any time, and parts of the data can be reduced anywhere, in any order.
"""

import os
from contextlib import AbstractContextManager
from copy import copy
from functools import lru_cache
from math import ceil
from tempfile import TemporaryDirectory
from threading import Lock
from typing import NamedTuple

import joblib
import numpy as np
from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from tqdm import tqdm

from ..solvers import NonlinearRows, Triangle

# A triangle must not start from zero, see `Triangle`. As a penalty this is far below rounding: for
# a noise s and an amplitude a it is that of a prior 1 / (TINY a / s) times wider.
TINY = 1e-12
# Parts per worker: enough that one that is late or lost costs little, few enough that merging does.
PARTS = 4
LOCK = Lock()


def empty(n_columns):
    """A triangle of no rows."""
    return Triangle(n_columns, TINY)


class Part(NamedTuple):
    """What a worker is given: some of the structures of a fit.

    Attributes
    ----------
    model : ChargeModel
        Prepared for the elements of all structures.
    features : StructureFeatures
        Of these structures.
    labels, weights
        Of all structures.
    first : int
        Number of the first one of these.
    store : dict
        What the worker knows of this part from earlier calls.
    """

    model: object
    features: object
    labels: object
    weights: np.ndarray
    first: int
    store: dict


class Parts(AbstractContextManager):
    """The structures of a fit, divided among workers.

    What all of them need is written to a folder by the first `map`, and deleted at the end of the
    context: once on disk instead of once in every task, as the sparse set is large.

    Parameters
    ----------
    model : ChargeModel
        Prepared for the elements of the structures.
    features : StructureFeatures
        Of all structures.
    labels : Labels
        Their labels.
    weights : ndarray of shape (n_structures,)
        Of the structures.
    n_rows : int
        About the number of rows that they make.
    """

    def __init__(self, model, features, labels, weights, n_rows):
        self.model, self.features, self.labels, self.weights = model, features, labels, weights
        self.n_jobs = effective_n_jobs(model.n_jobs)
        # Parts with less rows than unknowns are better not reduced at all.
        n_parts = min(PARTS * self.n_jobs, ceil(n_rows / (2 * len(model._scale()))))
        atoms = features.structures.offsets
        shares = np.linspace(0, atoms[-1], max(self.n_jobs, n_parts) + 1)
        self.bounds = np.unique([0, *np.searchsorted(atoms, shares[1:-1]), len(features)]).tolist()
        parts = zip(self.bounds[:-1], self.bounds[1:], strict=True)
        self.structures = [features.structures[a:b] for a, b in parts]
        self._folder = None

    def __len__(self):
        return len(self.structures)

    def map(self, function, *arguments):
        """Yield ``function(part, *arguments)`` of all parts in order."""
        if self._folder is None:
            self._folder = TemporaryDirectory(dir=os.environ.get("JOBLIB_TEMP_FOLDER"))
            model = copy(self.model)
            model.verbose = 0
            shared = model, self.features.source, self.labels, self.weights, {}
            joblib.dump(shared, self._path)
        task = delayed(_on_part)
        tasks = (
            task(function, self._path, structures, first, arguments)
            for structures, first in zip(self.structures, self.bounds[:-1], strict=True)
        )
        found = _parallel(self.n_jobs)(tasks)
        silent = not (self.model.verbose or self.features.source.verbose)
        yield from tqdm(found, "parts", len(self), disable=silent, leave=False)

    @property
    def _path(self):
        return os.path.join(self._folder.name, "fit.joblib")

    def __exit__(self, *error):
        if self._folder is not None:
            self._folder.cleanup()
            _loaded.cache_clear()  # of workers that are threads


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
    if effective_n_jobs(model.n_jobs) == 1:
        return _reduced(Part(model, features, labels, weights, 0, {}))
    with Parts(model, features, labels, weights, 3 * len(features)) as parts:
        return merge_pairwise(parts.map(_reduced))


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


def _reduced(part):
    triangles = {}
    rows_of = part.model._linear_rows
    for rows in rows_of(part.features, part.labels, part.weights, part.first):
        if rows.name not in triangles:
            triangles[rows.name] = empty(rows.J.shape[1])
        triangles[rows.name].update(rows.J, rows.residual)
    return {name: triangle.augmented for name, triangle in triangles.items()}


def merge_assembled(triangle, parts):
    """Add the rows of linear targets of charges to a triangle; those of others, by target."""
    kept = {}
    for R, n_rows, found in parts.map(_assembled):
        triangle.merge(R, n_rows)
        for name, rows in found.items():
            kept.setdefault(name, NonlinearRows(rows.target)).extend(rows)
    return kept


def _assembled(part):
    model, features, labels, weights, first, _ = part
    triangle = empty(len(model._scale()))
    kept = model._assemble_charges(triangle, features, labels, weights, first)
    return triangle.augmented, triangle.n_rows, kept


def _on_part(function, path, structures, first, arguments):
    """What a worker does."""
    from ..structures import StructureFeatures

    model, source, labels, weights, stores = _load(path)
    features, store = StructureFeatures(structures, source), stores.setdefault(first, {})
    with parallel_config("sequential"):  # a worker has no workers
        return function(Part(model, features, labels, weights, first, store), *arguments)


def _load(path):
    with LOCK:  # threads share it
        return _loaded(path)


@lru_cache(maxsize=1)
def _loaded(path):
    return joblib.load(path)
