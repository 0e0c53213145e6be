"""Features of some structures in memory, as dense tiles of a sparse matrix.

The features of a data set are a matrix with one row per atom. Most elements of a row are zero.
Columns of chemical elements that the structure lacks are zero. After `skqeq.CURSparsifier`, the
row of an atom is nonzero only in the columns of its chemical element. Only nonzero columns are
stored, as dense tiles. Matrix products with a few dense tiles are much faster than products
with a general sparse matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scipy.sparse import sparray

    from .._typing import Array
    from ..structures import Structure


class Tile(NamedTuple):
    """A dense piece of the features of a block: some atoms times some columns.

    Parameters
    ----------
    atoms : ndarray of shape (n,)
        Indices of the atoms in the block, ascending.
    columns : tuple of slice
        The columns of `values`, as slices of all columns, in order. Every slice is inside one
        column block.
    values : ndarray of shape (n, m)
        The features of these atoms in these columns.

    Examples
    --------
    >>> import numpy as np
    >>> from skqeq.structures import Tile
    >>> tile = Tile(np.array([0, 2]), (slice(0, 1), slice(4, 6)), np.ones((2, 3)))
    >>> list(tile.pieces())
    [(slice(0, 1, None), slice(0, 1, None)), (slice(4, 6, None), slice(1, 3, None))]
    """

    atoms: np.ndarray
    columns: tuple[slice, ...]
    values: np.ndarray

    def take(self, rows: Array) -> Tile:
        """Return the part of the tile for some of its atoms.

        Parameters
        ----------
        rows : ndarray
            Indices or a mask over `atoms`.

        Returns
        -------
        tile : Tile
            A tile with the same columns.
        """
        # Usually all atoms are selected. A copy of the values is avoided, because it would be slow.
        if rows.dtype == bool and rows.all():
            return self
        return self._replace(atoms=self.atoms[rows], values=self.values[rows])

    def pieces(self) -> Iterator[tuple[slice, slice]]:
        """Yield the slices in `columns`, and the corresponding slices of `values`.

        Yields
        ------
        columns : slice
            Some columns, as a slice of all columns.
        piece : slice
            The same columns, as a slice of the columns of `values`.
        """
        start = 0
        for columns in self.columns:
            stop = start + columns.stop - columns.start
            yield columns, slice(start, stop)
            start = stop


class Block:
    """Consecutive structures of a data set, with the features of all their atoms in memory.

    Parameters
    ----------
    structures : list of Structure
        The structures.
    tiles : list of Tile
        Features of the structures.
    n_features : int
        Number of columns.

    Attributes
    ----------
    offsets : ndarray of shape (n_structures + 1,)
        Atoms of structure s are ``offsets[s]:offsets[s + 1]``.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import SOAPFeaturizer
    >>> X = SOAPFeaturizer(n_max=2, l_max=2).fit_transform([molecule("H2O"), molecule("CO2")])
    >>> for first, block in X.blocks():
    ...     print(first, len(block.structures), block.n_atoms, block.toarray().shape)
    0 2 6 (6, 126)
    """

    def __init__(self, structures: Sequence[Structure], tiles: list[Tile], n_features: int) -> None:
        self.structures = structures
        self.offsets = np.concatenate([[0], np.cumsum([len(s) for s in structures])])
        self.tiles = tiles
        self.n_features = n_features

    @property
    def n_atoms(self) -> int:
        """Number of atoms in the block."""
        return int(self.offsets[-1])

    @property
    def numbers(self) -> Array:
        """Atomic numbers of all atoms."""
        return np.concatenate([s.numbers for s in self.structures])

    def toarray(self) -> Array:
        """The features as a dense array.

        Returns
        -------
        features : ndarray of shape (n_atoms, n_features)
            One row per atom of the block.
        """
        dense = np.zeros((self.n_atoms, self.n_features))
        for tile in self.tiles:
            for columns, piece in tile.pieces():
                dense[tile.atoms, columns] = tile.values[:, piece]
        return dense

    def rows_of(self, s: int) -> Array:
        """The features of one structure as a dense array.

        Parameters
        ----------
        s : int
            Index of the structure in the block.

        Returns
        -------
        features : ndarray of shape (n_atoms, n_features)
            One row per atom of the structure.
        """
        start, stop = self.offsets[s : s + 2]
        dense = np.zeros((stop - start, self.n_features))
        for tile in self.tiles:
            # The atoms of a tile are in ascending order, so that those of one structure are
            # consecutive.
            rows = slice(*np.searchsorted(tile.atoms, [start, stop]))
            for columns, piece in tile.pieces():
                dense[tile.atoms[rows] - start, columns] = tile.values[rows, piece]
        return dense

    def dot(self, weights: Array) -> Array:
        """Features times weights.

        Parameters
        ----------
        weights : ndarray of shape (n_features,)
            One number per column.

        Returns
        -------
        field : ndarray of shape (n_atoms,)
            One number per atom, in the unit of the weights.
        """
        result = np.zeros(self.n_atoms)
        for tile in self.tiles:
            for columns, piece in tile.pieces():
                result[tile.atoms] += tile.values[:, piece] @ weights[columns]
        return result

    def squared_norms(self) -> Array:
        """Squared norm of the features of every atom.

        Returns
        -------
        norms : ndarray of shape (n_atoms,)
            Squared norms; for features of `skqeq.CURSparsifier` they are at most 1.
        """
        # The tiles of an atom have different columns, so that their squared norms can be added.
        result = np.zeros(self.n_atoms)
        for tile in self.tiles:
            result[tile.atoms] += np.einsum("ij,ij->i", tile.values, tile.values)
        return result

    def contract(self, cotangents: Array | sparray) -> Array:
        """Cotangents times features.

        Parameters
        ----------
        cotangents : ndarray or sparse array of shape (n_rows, n_atoms)
            Factors that multiply the features of the atoms.

        Returns
        -------
        rows : ndarray of shape (n_rows, n_features)
            ``cotangents @ features``, dense.
        """
        result = np.zeros((cotangents.shape[0], self.n_features))
        for tile in self.tiles:
            part = cotangents[:, tile.atoms] @ tile.values
            for columns, piece in tile.pieces():
                result[:, columns] += part[:, piece]
        return result

    def split(self, sizes: Sequence[int]) -> list[Block]:
        """Divide the columns, for instance into those of the sources of a `StackedSource`.

        Parameters
        ----------
        sizes : sequence of int
            Numbers of columns of the parts; their sum is `n_features`. No tile may have columns
            of two parts.

        Returns
        -------
        blocks : list of Block
            The same structures, one block for each of the sizes.
        """
        ends = np.cumsum(sizes).tolist()
        tiles: list[list[Tile]] = [[] for _ in ends]
        for tile in self.tiles:
            part = int(np.searchsorted(ends, tile.columns[0].start, side="right"))
            first = ends[part] - sizes[part]
            columns = tuple(slice(c.start - first, c.stop - first) for c in tile.columns)
            tiles[part].append(tile._replace(columns=columns))
        return [
            Block(self.structures, of_part, size)
            for of_part, size in zip(tiles, sizes, strict=True)
        ]
