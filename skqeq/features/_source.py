"""The source of SOAP features: rows of structures, computed once as far as memory allows."""

from functools import cache, partial
from importlib.metadata import version
from itertools import islice, pairwise

import numpy as np
from joblib import Memory, Parallel, delayed, effective_n_jobs

from .._memory import BUDGET
from ..structures import FeatureSource, Tile
from ._cache import ROWS
from ._neighborhood import SOAPNeighborhood

# Packages whose code makes the rows: those on disk are not found again after an upgrade.
ROW_PACKAGES = ("skqeq", "dscribe", "numpy", "vesin")


class SOAPSource(FeatureSource):
    """Rows of several power spectra side by side, each computed once per structure.

    Parameters
    ----------
    spectra : sequence of PowerSpectrum
        One for each column block.
    n_jobs : int or None
        Number of processes that compute rows.
    verbose : bool
        Whether walks show their progress.
    memory : str, path, joblib.Memory or None
        Where rows are kept on disk.
    keeps_rows : bool
        Whether rows are kept in memory. Those of a walk through more structures than fit in memory
        would hardly ever be found again.
    """

    has_neighborhoods = True

    def __init__(self, spectra, n_jobs, verbose, memory, keeps_rows):
        self.spectra = spectra
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.memory = memory
        self.keeps_rows = keeps_rows
        self.boundaries = (0, *np.cumsum([s.n_features for s in spectra]).tolist())
        self.row_bytes = 8 * self.boundaries[-1]
        self.signature = tuple(s.signature for s in spectra)

    def tiles(self, structures):
        """Tiles per power spectrum and element, for all structures made of the same elements."""
        numbers = np.concatenate([s.numbers for s in structures])
        offsets = np.concatenate([[0], np.cumsum([len(s) for s in structures])])
        groups = {}
        for s, structure in enumerate(structures):
            groups.setdefault(structure.species, []).append(s)
        rows = self._rows([structures[s] for members in groups.values() for s in members])
        tiles = []
        for present, members in groups.items():
            atoms = np.concatenate([np.arange(offsets[s], offsets[s + 1]) for s in members])
            if len(members) == 1:
                # The rows themselves, not a copy.
                parts, values = [slice(None)], next(rows)
            else:
                # One tile per element, because kernels compare atoms of one element.
                order = np.argsort(numbers[atoms], kind="stable")
                values = _stacked(islice(rows, len(members)), np.argsort(order))
                atoms = atoms[order]
                edges = np.searchsorted(numbers[atoms], [*present, np.inf])
                parts = [slice(start, stop) for start, stop in pairwise(edges)]
            for spectrum, first, array in zip(self.spectra, self.boundaries, values):
                columns = spectrum.columns(present, first)
                tiles += [Tile(atoms[part], columns, array[part]) for part in parts]
        return tiles

    def tiles_of(self, structure, atoms):
        """The tiles of some atoms; the other atoms are computed only if their rows are kept."""
        if (self.keeps_rows and BUDGET.available > 0) or self.memory is not None:
            return super().tiles_of(structure, atoms)
        present = structure.species
        return [
            Tile(atoms, spectrum.columns(present, first), spectrum.rows(structure, atoms))
            for spectrum, first in zip(self.spectra, self.boundaries[:-1], strict=True)
        ]

    def neighborhoods(self, structure):
        """One neighbourhood for each power spectrum."""
        return [SOAPNeighborhood(spectrum, structure) for spectrum in self.spectra]

    def _rows(self, structures):
        """Yield, for every structure, a list with the rows of every power spectrum."""
        compute = self._function(structures)
        for structure in structures:
            rows = []
            for spectrum in self.spectra:
                key = spectrum.key(structure)
                array = ROWS.get(key)
                if array is None:
                    array = compute(spectrum, structure, key)
                    # Everybody who asks for these rows is given this array.
                    array.setflags(write=False)
                    if self.keeps_rows:
                        ROWS.put(key, array)
                rows.append(array)
            yield rows

    def _function(self, structures):
        """The function that computes rows, or reads them from disk, or from other processes."""
        function = _from_disk(self.memory) if self.memory is not None else describe
        # None means 1, not the number of a joblib backend: a cluster would send the rows around.
        n_jobs = 1 if self.n_jobs in (None, 1) else effective_n_jobs(self.n_jobs)
        if n_jobs == 1:
            return function
        tasks = {spec.key(s): (spec, s) for s in structures for spec in self.spectra}
        tasks = {key: task for key, task in tasks.items() if ROWS.get(key) is None}
        if len(tasks) < 2 * n_jobs:
            return function
        # A task is a fraction of a millisecond; batches keep the overhead of processes small.
        calls = (delayed(function)(*task, key) for key, task in tasks.items())
        rows = dict(zip(tasks, Parallel(n_jobs=n_jobs, batch_size=32)(calls), strict=True))
        # Rows that were in the store when the tasks were listed may have been dropped since.
        return lambda *task: rows[task[-1]] if task[-1] in rows else function(*task)


def _stacked(rows, places):
    """Arrays of all atoms from lists of arrays per structure; `places` are the rows they go to.

    Rows are copied one structure at a time, so that a block needs its memory only once.
    """
    arrays, start = None, 0
    for parts in rows:
        if arrays is None:
            arrays = [np.empty((len(places), part.shape[1])) for part in parts]
        destination = places[start : start + len(parts[0])]
        for array, part in zip(arrays, parts, strict=True):
            array[destination] = part
        start += len(destination)
    return arrays


def describe(spectrum, structure, key, versions=None):
    """Rows of one structure; `key` and `versions` are all that they depend on, for the disk."""
    return spectrum.rows(structure)


def _from_disk(memory):
    """A function like `describe` that looks for the rows on disk first, and leaves them there."""
    memory = memory if isinstance(memory, Memory) else Memory(memory, verbose=0)
    stored = memory.cache(describe, ignore=["spectrum", "structure"])
    return partial(stored, versions=_versions())


@cache
def _versions():
    """Names and versions of the packages that compute rows."""
    return tuple((name, version(name)) for name in ROW_PACKAGES)
