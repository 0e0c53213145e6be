"""Features of some structures in memory: dense tiles of a block-sparse matrix.

Features of a data set are a block-sparse matrix: one row per atom, and an atom stores only the
columns that can be non-zero for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._typing import Array
    from ..structures import Structure


class Tile(NamedTuple):
    """A dense piece of a block: some atoms times some columns.

    Parameters
    ----------
    atoms : ndarray of shape (n,)
        Ascending rows of the block.
    columns : tuple of slice
        The feature columns of `values`, in their order; none straddles a column block.
    values : ndarray of shape (n, m)
        The features; all other columns of these atoms are zero in this tile.

    Examples
    --------
    >>> import numpy as np
    >>> from skqeq.structures import Tile
    >>> tile = Tile(np.array([0, 2]), (slice(0, 1), slice(4, 6)), np.ones((2, 3)))
    >>> list(tile.pieces())
    [(slice(0, 1, None), slice(0, 1, None)), (slice(4, 6, None), slice(1, 3, None))]
    """

    atoms: np.ndarray
    columns: tuple
    values: np.ndarray

    def take(self, rows: Array) -> Tile:
        """The tile of some of its atoms.

        Parameters
        ----------
        rows : ndarray
            Indices or a mask over `atoms`.

        Returns
        -------
        tile : Tile
            With the same columns; this one if they are all.
        """
        if rows.dtype == bool and rows.all():
            return self
        return self._replace(atoms=self.atoms[rows], values=self.values[rows])

    def pieces(self) -> Iterator[tuple[slice, slice]]:
        """Yield where the columns stand.

        Yields
        ------
        columns : slice
            Among all features.
        piece : slice
            Among the columns of `values`.
        """
        start = 0
        for columns in self.columns:
            stop = start + columns.stop - columns.start
            yield columns, slice(start, stop)
            start = stop


class Block:
    """Consecutive structures with the features of all their atoms.

    Parameters
    ----------
    structures : list of Structure
        The structures of the block.
    tiles : list of Tile
        The features.
    n_features : int
        Number of columns.

    Attributes
    ----------
    offsets : ndarray of shape (n_structures + 1,)
        Structure s owns the atoms ``offsets[s]:offsets[s + 1]``.

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
            Zero where nothing is stored.
        """
        dense = np.zeros((self.n_atoms, self.n_features))
        for tile in self.tiles:
            for columns, piece in tile.pieces():
                dense[tile.atoms, columns] = tile.values[:, piece]
        return dense

    def rows_of(self, s: int) -> Array:
        """The features of the atoms of one structure as a dense array.

        Parameters
        ----------
        s : int
            Index of the structure in the block.

        Returns
        -------
        features : ndarray of shape (n_atoms, n_features)
            Of that structure.
        """
        start, stop = self.offsets[s : s + 2]
        dense = np.zeros((stop - start, self.n_features))
        for tile in self.tiles:
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
        values : ndarray of shape (n_atoms,)
            One number per atom.
        """
        result = np.zeros(self.n_atoms)
        for tile in self.tiles:
            for columns, piece in tile.pieces():
                result[tile.atoms] += tile.values[:, piece] @ weights[columns]
        return result

    def squared_norms(self) -> Array:
        """Square of the norm of the features of every atom.

        Returns
        -------
        norms : ndarray of shape (n_atoms,)
            At most 1 for features of `skqeq.CURSparsifier`.
        """
        result = np.zeros(self.n_atoms)
        for tile in self.tiles:
            result[tile.atoms] += np.einsum("ij,ij->i", tile.values, tile.values)
        return result

    def contract(self, cotangents: Any) -> Array:
        """Cotangents times features.

        Parameters
        ----------
        cotangents : ndarray or sparse array of shape (n_rows, n_atoms)
            Factors of the atoms.

        Returns
        -------
        rows : ndarray of shape (n_rows, n_features)
            Dense.
        """
        result = np.zeros((cotangents.shape[0], self.n_features))
        for tile in self.tiles:
            part = cotangents[:, tile.atoms] @ tile.values
            for columns, piece in tile.pieces():
                result[:, columns] += part[:, piece]
        return result

    def split(self, sizes: Sequence[int]) -> list[Block]:
        """Blocks of consecutive groups of columns; no tile may straddle two.

        Parameters
        ----------
        sizes : sequence of int
            Numbers of columns of the groups; their sum is `n_features`.

        Returns
        -------
        blocks : list of Block
            As many as sizes.
        """
        ends = np.cumsum(sizes).tolist()
        parts: list[list[Tile]] = [[] for _ in ends]
        for tile in self.tiles:
            part = int(np.searchsorted(ends, tile.columns[0].start, side="right"))
            first = ends[part] - sizes[part]
            columns = tuple(slice(c.start - first, c.stop - first) for c in tile.columns)
            parts[part].append(tile._replace(columns=columns))
        return [
            Block(self.structures, tiles, size) for tiles, size in zip(parts, sizes, strict=True)
        ]
