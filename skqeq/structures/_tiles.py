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

    Attributes
    ----------
    atoms : ndarray of shape (n,)
        Ascending rows of the block.
    columns : tuple of slice
        The feature columns of `values`, in their order; none straddles a column block.
    values : ndarray of shape (n, m)
        The features; all other columns of these atoms are zero in this tile.
    """

    atoms: np.ndarray
    columns: tuple
    values: np.ndarray

    def take(self, rows: Array) -> Tile:
        """The tile of some rows, given by index or mask."""
        return self._replace(atoms=self.atoms[rows], values=self.values[rows])

    def pieces(self) -> Iterator[tuple[slice, slice]]:
        """Pairs (feature columns, columns of `values`), both slices."""
        start = 0
        for columns in self.columns:
            stop = start + columns.stop - columns.start
            yield columns, slice(start, stop)
            start = stop


class Block:
    """Consecutive structures with the features of all their atoms.

    Attributes
    ----------
    structures : list of Structure
        The structures of the block.
    offsets : ndarray of shape (n_structures + 1,)
        Structure s owns the atoms ``offsets[s]:offsets[s + 1]``.
    tiles : list of Tile
        The features.
    n_features : int
        Number of columns.
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
        """The features as a dense array of shape (n_atoms, n_features)."""
        dense = np.zeros((self.n_atoms, self.n_features))
        for tile in self.tiles:
            for columns, piece in tile.pieces():
                dense[tile.atoms, columns] = tile.values[:, piece]
        return dense

    def own(self, s: int) -> Array:
        """The features of the atoms of structure s as a dense array."""
        start, stop = self.offsets[s : s + 2]
        dense = np.zeros((stop - start, self.n_features))
        for tile in self.tiles:
            rows = slice(*np.searchsorted(tile.atoms, [start, stop]))
            for columns, piece in tile.pieces():
                dense[tile.atoms[rows] - start, columns] = tile.values[rows, piece]
        return dense

    def dot(self, weights: Array) -> Array:
        """Features times weights of shape (n_features,): one number per atom."""
        result = np.zeros(self.n_atoms)
        for tile in self.tiles:
            for columns, piece in tile.pieces():
                result[tile.atoms] += tile.values[:, piece] @ weights[columns]
        return result

    def squared_norms(self) -> Array:
        """Square of the norm of the features of every atom, shape (n_atoms,)."""
        result = np.zeros(self.n_atoms)
        for tile in self.tiles:
            result[tile.atoms] += np.einsum("ij,ij->i", tile.values, tile.values)
        return result

    def contract(self, cotangents: Any) -> Array:
        """Sparse cotangents of shape (n_rows, n_atoms) times features: (n_rows, n_features)."""
        result = np.zeros((cotangents.shape[0], self.n_features))
        for tile in self.tiles:
            part = cotangents[:, tile.atoms] @ tile.values
            for columns, piece in tile.pieces():
                result[:, columns] += part[:, piece]
        return result

    def split(self, sizes: Sequence[int]) -> list[Block]:
        """Blocks of consecutive groups of columns, as many as `sizes`; no tile straddles two."""
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
