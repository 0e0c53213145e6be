"""All environments of a data set, numbered consecutively, from an array or from structures."""

from abc import ABC, abstractmethod
from functools import cache

import numpy as np
from scipy import sparse
from tqdm import tqdm

from ..structures import StructureFeatures, Tile
from ._kernel import ALL, column_blocks, row_norms
from ._selection import sketch_matrix


class Environments(ABC):
    """All environments of a data set, from which sparse points are chosen.

    Attributes
    ----------
    n : int
        Number of environments.
    boundaries : tuple of int
        First column of each column block, and the number of columns.
    """

    @abstractmethod
    def groups(self, per_species):
        """Group of every environment, shape (n,): its atomic number, or `ALL`."""

    @abstractmethod
    def locate(self, index):
        """Convert numbers of environments to indices in the input of `CURSparsifier.fit`."""

    @abstractmethod
    def ranks(self, rng):
        """Rank of every environment in a random order of the structures, shape (n,)."""

    @abstractmethod
    def walk(self, index):
        """Compute the features of some environments.

        Parameters
        ----------
        index : ndarray of int
            The environments, ascending.

        Yields
        ------
        places : ndarray of int
            Positions in `index` of the environments of the tile.
        tile : Tile
            Features of these environments.
        """

    def sketch(self, index, width, rng):
        """Random projection of normalised features, shape (len(index), width).

        Parameters
        ----------
        index : ndarray of int
            The environments, ascending.
        width : int
            Number of columns of the sketch.
        rng : numpy.random.Generator
            Source of the random numbers.
        """
        omega = sketch_matrix(self.boundaries[-1], width, rng)
        # Stored, because structures with the same elements have the same columns and therefore need
        # the same rows of omega.
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
        """Dense features of the chosen environments of every group.

        Parameters
        ----------
        chosen : dict of {int: ndarray of int}
            Environments of every group.

        Returns
        -------
        points : dict of {int: ndarray of shape (n_points, n_features)}
            Features of the chosen environments.
        """
        points = {g: np.zeros((len(rows), self.boundaries[-1])) for g, rows in chosen.items()}
        index = np.concatenate(list(chosen.values()))
        # The structures are visited once, in their order, for all groups together.
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
        """One group, because rows of an array have no elements."""
        return np.full(self.n, ALL)

    def locate(self, index):
        """Rows of the array, shape (n,)."""
        return index

    def ranks(self, rng):
        """Random ranks of the rows, each of which counts as a structure."""
        return rng.permutation(self.n)

    def walk(self, index):
        """Yield one tile with all environments."""
        yield np.arange(len(index)), Tile(index, (slice(0, self.X.shape[1]),), self.X[index])


class StructureEnvironments(Environments):
    """The atoms of structures.

    Parameters
    ----------
    features : StructureFeatures
        Features of the structures.
    verbose : bool
        Whether `walk` shows a progress bar.
    """

    def __init__(self, features, verbose):
        self.features, self.offsets = features, features.structures.offsets
        self.n, self.boundaries = self.offsets[-1], features.source.boundaries
        self.silent = not (verbose or features.source.verbose)

    def groups(self, per_species):
        """Group of every atom: its element, or the same group for all atoms."""
        numbers = self.features.structures.numbers
        return numbers if per_species else np.full(len(numbers), ALL)

    def locate(self, index):
        """Structures and atoms, shape (n, 2)."""
        structure = np.searchsorted(self.offsets, index, side="right") - 1
        return np.stack([structure, index - self.offsets[structure]], axis=1)

    def ranks(self, rng):
        """Random ranks of the structures; all atoms of a structure have the same rank."""
        return np.repeat(rng.permutation(len(self.features)), np.diff(self.offsets))

    def walk(self, index):
        """Yield the tiles of one structure after the other."""
        source, structures = self.features.source, self.features.structures
        place = np.full(self.n, -1)
        place[index] = np.arange(len(index))
        needed = np.unique(self.locate(index)[:, 0])
        for k in tqdm(needed.tolist(), "sparse set", disable=self.silent, leave=False):
            places = place[self.offsets[k] : self.offsets[k + 1]]
            for tile in source.tiles_of(structures[k], np.flatnonzero(places >= 0)):
                yield places[tile.atoms], tile


def environments_of(X, verbose=False):
    """Make the `Environments` of an array or of the features of structures."""
    if isinstance(X, StructureFeatures):
        return StructureEnvironments(X, verbose)
    return ArrayEnvironments(X)
