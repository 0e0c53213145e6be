"""The environments of a data set, one number for each, whichever container holds them."""

from abc import ABC, abstractmethod
from functools import cache

import numpy as np
from scipy import sparse
from tqdm import tqdm

from ..structures import StructureFeatures, Tile
from ._kernel import ALL, column_blocks, row_norms
from ._selection import sketch_matrix


class Environments(ABC):
    """The rows of features of a data set, from which a sparse set is chosen.

    Attributes
    ----------
    n : int
        Number of environments.
    boundaries : tuple of int
        First column of each column block, and the number of columns.
    """

    @abstractmethod
    def groups(self, per_species):
        """Group of every environment, shape (n,): its atomic number, or `ALL` for everything."""

    @abstractmethod
    def locate(self, index):
        """Where environments stand in what `CURSparsifier.fit` was given."""

    @abstractmethod
    def ranks(self, rng):
        """Place of every environment in a random order in which structures stay together: (n,)."""

    @abstractmethod
    def walk(self, index):
        """Yield tiles of the environments `index` (ascending), and their places in `index`."""

    def sketch(self, index, width, rng):
        """Random projection of the normalised environments `index`: (len(index), width)."""
        omega = sketch_matrix(self.boundaries[-1], width, rng)
        # Structures of the same elements have the same columns, and share the rows of omega.
        rows_of_omega = cache(
            lambda edges: sparse.vstack([omega[a:b] for a, b in edges], format="csc")
        )
        sketch = np.zeros((len(index), omega.shape[1]))
        for places, tile in self.walk(index):
            for _, values, runs in column_blocks(tile, self.boundaries):
                projected = values @ rows_of_omega(tuple((run.start, run.stop) for run in runs))
                sketch[places] += projected / row_norms(values)[:, None]
        return sketch

    def gather(self, chosen):
        """The chosen rows of every group, dense: (n_points, n_features)."""
        points = {g: np.zeros((len(rows), self.boundaries[-1])) for g, rows in chosen.items()}
        index = np.concatenate(list(chosen.values()))
        # All groups in one walk, in order of the structures.
        order = np.argsort(index)
        group = np.repeat(list(chosen), [len(rows) for rows in chosen.values()])[order]
        place = np.concatenate([np.arange(len(rows)) for rows in chosen.values()])[order]
        for places, tile in self.walk(index[order]):
            for i, row in zip(places, tile.values, strict=True):
                point = points[group[i]][place[i]]
                for columns, piece in tile.pieces():
                    point[columns] = row[piece]
        return points


class ArrayEnvironments(Environments):
    """The rows of an array.

    Parameters
    ----------
    X : ndarray of shape (n, n_features)
        Each row is an environment.
    """

    def __init__(self, X):
        self.X, self.n, self.boundaries = X, len(X), (0, X.shape[1])

    def groups(self, per_species):
        """One group: nothing is known of elements."""
        return np.full(self.n, ALL)

    def locate(self, index):
        """Row of the array, shape (len(index),)."""
        return index

    def ranks(self, rng):
        """A random order of the rows."""
        return rng.permutation(self.n)

    def walk(self, index):
        """One tile."""
        yield np.arange(len(index)), Tile(index, (slice(0, self.X.shape[1]),), self.X[index])


class StructureEnvironments(Environments):
    """The atoms of structures.

    Parameters
    ----------
    features : StructureFeatures
        Features of the structures.
    verbose : bool
        Whether walks show their progress.
    """

    def __init__(self, features, verbose):
        self.features, self.offsets = features, features.structures.offsets
        self.n, self.boundaries = self.offsets[-1], features.source.boundaries
        self.silent = not (verbose or features.source.verbose)

    def groups(self, per_species):
        """The element of every atom, or one group."""
        numbers = self.features.structures.numbers
        return numbers if per_species else np.full(len(numbers), ALL)

    def locate(self, index):
        """Structure and atom, shape (len(index), 2)."""
        structure = np.searchsorted(self.offsets, index, side="right") - 1
        return np.stack([structure, index - self.offsets[structure]], axis=1)

    def ranks(self, rng):
        """A random order of the structures; all atoms of a structure have the same rank."""
        return np.repeat(rng.permutation(len(self.features)), np.diff(self.offsets))

    def walk(self, index):
        """Tiles of one structure after the other."""
        source, structures = self.features.source, self.features.structures
        place = np.full(self.n, -1)
        place[index] = np.arange(len(index))
        needed = np.unique(self.locate(index)[:, 0])
        for k in tqdm(needed.tolist(), "sparse set", disable=self.silent, leave=False):
            places = place[self.offsets[k] : self.offsets[k + 1]]
            for tile in source.tiles_of(structures[k], np.flatnonzero(places >= 0)):
                yield places[tile.atoms], tile


def environments_of(X, verbose=False):
    """The environments of features of structures, or of an array of rows."""
    if isinstance(X, StructureFeatures):
        return StructureEnvironments(X, verbose)
    return ArrayEnvironments(X)
