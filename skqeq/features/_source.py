"""The source of SOAP features, which keeps computed rows in memory and on disk."""

from functools import cache, partial
from importlib.metadata import version
from itertools import islice, pairwise

import numpy as np
from joblib import Memory, Parallel, delayed, effective_n_jobs

from .._memory import BUDGET, PREDICTING
from ..structures import FeatureSource, Structures, Tile
from ._cache import ROWS
from ._neighborhood import SOAPNeighborhood
from ._unknown import known_part

# Packages whose code computes rows. If one of them is upgraded, rows on disk are computed again.
ROW_PACKAGES = ("skqeq", "dscribe", "numpy", "vesin")


class SOAPSource(FeatureSource):
    """The rows of several power spectra, with their columns side by side.

    Parameters
    ----------
    spectra : sequence of PowerSpectrum
        One power spectrum for each column block.
    n_jobs : int or None
        Number of processes that compute rows.
    verbose : bool
        Whether a progress bar is shown while features are computed.
    memory : str, path, joblib.Memory or None
        Folder in which rows are stored on disk.
    keeps_rows : bool
        Whether rows are stored in memory. If the structures themselves do not fit into memory,
        storing their rows is useless: they would be dropped before they are needed again.
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
        self.elements = frozenset(spectra[0].species)
        self.reach = max(s.reach for s in spectra)

    def tiles(self, structures):
        """Tiles of all atoms without unknown elements in their neighbourhood."""
        if all(self.elements.issuperset(s.species) for s in structures):
            return self._tiles(structures)
        parts = [known_part(s, self.elements, self.reach) for s in structures]
        known = [part.structure for part in parts if part is not None]
        if not known:
            return []
        starts = np.cumsum([0, *(len(s) for s in structures[:-1])])
        atoms = [s + p.atoms for s, p in zip(starts, parts, strict=True) if p is not None]
        atoms = np.concatenate(atoms)
        described = np.concatenate([part.described for part in parts if part is not None])
        tiles = [tile.take(described[tile.atoms]) for tile in self._tiles(known)]
        return [tile._replace(atoms=atoms[tile.atoms]) for tile in tiles if len(tile.atoms)]

    def _tiles(self, structures):
        """One tile per power spectrum and element, for all structures with the same elements."""
        numbers = np.concatenate([s.numbers for s in structures])
        offsets = np.concatenate([[0], np.cumsum([len(s) for s in structures])])
        # Structures with the same elements have the same columns, and can share tiles.
        groups = {}
        for s, structure in enumerate(structures):
            groups.setdefault(structure.species, []).append(s)
        rows = self._rows([structures[s] for members in groups.values() for s in members])
        tiles = []
        for present, members in groups.items():
            atoms = np.concatenate([np.arange(offsets[s], offsets[s + 1]) for s in members])
            if len(members) == 1:
                # Tiles are views of the rows in the store.
                parts, values = [slice(None)], next(rows)
            else:
                # One tile per element, because a kernel takes atoms of one element.
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
        """The tiles of some atoms of a structure, see `FeatureSource.tiles_of`."""
        # If rows are stored, compute those of the other atoms, too: a fit needs them later.
        stored = (self.keeps_rows and BUDGET.available > 0) or self.memory is not None
        if stored or not self.elements.issuperset(structure.species):
            return super().tiles_of(structure, atoms)
        present = structure.species
        return [
            Tile(atoms, spectrum.columns(present, first), spectrum.rows(structure, atoms))
            for spectrum, first in zip(self.spectra, self.boundaries[:-1], strict=True)
        ]

    def neighborhoods(self, structure):
        """One neighbourhood for each power spectrum."""
        if not self.elements.issuperset(structure.species):
            Structures([structure]).check_elements(self.elements, "there are no derivatives")
        return [SOAPNeighborhood(spectrum, structure) for spectrum in self.spectra]

    def _rows(self, structures):
        """Yield, for every structure, a list with its rows for every power spectrum."""
        compute = self._function(structures)
        for structure in structures:
            rows = []
            for spectrum in self.spectra:
                key = spectrum.key(structure)
                array = ROWS.get(key)
                if array is None:
                    array = compute(spectrum, structure, key)
                    # Read-only, because all callers get the same array.
                    array.setflags(write=False)
                    if self.keeps_rows:
                        ROWS.put(key, array, predicted=PREDICTING.get())
                rows.append(array)
            yield rows

    def _function(self, structures):
        """Make a function like `describe` that may read rows from disk or use worker processes."""
        function = _from_disk(self.memory) if self.memory is not None else describe
        # None means 1, even inside joblib.parallel_config(n_jobs=...): on a cluster, sending rows
        # takes longer than computing them.
        n_jobs = 1 if self.n_jobs in (None, 1) else effective_n_jobs(self.n_jobs)
        if n_jobs == 1:
            return function
        tasks = {spec.key(s): (spec, s) for s in structures for spec in self.spectra}
        tasks = {key: task for key, task in tasks.items() if ROWS.get(key) is None}
        if len(tasks) < 2 * n_jobs:
            return function
        # A task takes less time than its transfer, so tasks are sent in batches.
        calls = (delayed(function)(*task, key) for key, task in tasks.items())
        rows = dict(zip(tasks, Parallel(n_jobs=n_jobs, batch_size=32)(calls), strict=True))
        # Rows that were in the store when the tasks were listed may have been dropped since.
        return lambda *task: rows[task[-1]] if task[-1] in rows else function(*task)


def _stacked(rows, places):
    """Copy the rows of structures into one array per power spectrum.

    `rows` yields the arrays of one structure after the other. Rows that are not stored elsewhere
    therefore exist for one structure at a time only. `places` has one number per atom: the index of
    its row in the result.
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
    """Compute the rows of one structure; on disk, `key` and `versions` identify them."""
    return spectrum.rows(structure)


def _from_disk(memory):
    """Make a function like `describe` that reads rows from disk, or computes and writes them."""
    memory = memory if isinstance(memory, Memory) else Memory(memory, verbose=0)
    stored = memory.cache(describe, ignore=["spectrum", "structure"])
    return partial(stored, versions=_versions())


@cache
def _versions():
    """Names and versions of the packages that compute rows."""
    return tuple((name, version(name)) for name in ROW_PACKAGES)
