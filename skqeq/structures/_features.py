"""The container for features that featurizers, sparsifiers and models pass to each other.

Features are computed when a later step needs them, for one block of structures at a time. They
therefore take the memory of one block, whatever the size of the data set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Self, overload

import numpy as np
from tqdm import tqdm

from .._counts import counted
from .._memory import PREDICTING
from ._base import FeatureGradient, FeatureSource
from ._collection import LazyStructures, Structures, collect, concatenate
from ._sources import ArraySource, StackedSource
from ._tiles import Block

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .._typing import Array, Column, StructuresLike
    from ..structures import Structure


# Maximum size of the dense rows of a block, bytes. The tiles of a block usually take half of it.
BLOCK_BYTES = 2**27


class StructureFeatures:
    """Per-atom features of structures, computed when they are needed.

    Structures have different numbers of atoms, so that the features are not an array. Scikit-learn
    can treat them like an array with one row per structure: they have a `shape` and a length, and
    can be indexed, split and concatenated.

    Parameters
    ----------
    structures : Structures or sequence of Structure
        Checked structures.
    source : FeatureSource
        Computes the features.

    Attributes
    ----------
    shape : tuple (n_structures, n_features)
        Numbers of structures and of columns.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import SOAPFeaturizer
    >>> X = SOAPFeaturizer(n_max=2, l_max=2).fit_transform([molecule("H2O"), molecule("CO2")])
    >>> X.shape[0], len(X), X[1].shape[0]
    (2, 2, 3)
    """

    def __init__(self, structures: Structures | Sequence[Structure], source: FeatureSource) -> None:
        if not isinstance(structures, Structures):
            structures = Structures(structures)
        self.structures = structures
        self.source = source
        self._predicting = False

    @classmethod
    def from_arrays(cls, X: StructuresLike, arrays: Column) -> Self:
        """Make `StructureFeatures` from features that you have computed yourself.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Structures.
        arrays : sequence of array-like of shape (n_atoms, n_features)
            Per-atom features of each structure.

        Returns
        -------
        features : StructureFeatures
            The features. They have no derivatives, so that models cannot predict forces.
        """
        structures = collect(X)
        if len(arrays) != len(structures):
            raise ValueError(
                f"{counted(len(arrays), 'array')} for {counted(len(structures), 'structure')}"
            )
        return cls(structures, ArraySource(structures, arrays))

    @classmethod
    def stacked(cls, blocks: Mapping[str, StructureFeatures]) -> StructureFeatures:
        """Join the columns of several features of the same structures, and give them names.

        Parameters
        ----------
        blocks : dict of {str: StructureFeatures}
            Features by name; at least one.

        Returns
        -------
        features : StructureFeatures
            Features with the columns of all blocks.
        """
        return _stacked(list(blocks.values()), tuple(blocks))

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return self.source.boundaries[-1]

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of structures and of columns."""
        return (len(self.structures), self.n_features)

    ndim = 2

    def __len__(self) -> int:
        return len(self.structures)

    def __repr__(self) -> str:
        n_atoms = self.structures.sizes.sum()
        columns = counted(self.n_features, "feature")
        if self.source.names:
            blocks = zip(self.source.names, self.source.sizes, strict=True)
            columns = ", ".join(f"{name}: {counted(size, 'feature')}" for name, size in blocks)
        sizes = f"{counted(len(self), 'structure')}, {counted(n_atoms, 'atom')}"
        return f"<StructureFeatures: {sizes}, {columns}>"

    @overload
    def __getitem__(self, key: int | np.integer) -> Array: ...

    @overload
    def __getitem__(
        self, key: slice | tuple[Any, ...] | Array | Sequence[int]
    ) -> StructureFeatures: ...

    def __getitem__(self, key: Any) -> Array | StructureFeatures:
        """Features of the selected structures; for an integer, one structure as a dense array."""
        if isinstance(key, tuple):
            # scikit-learn selects rows by X[key, ...] if X has a shape.
            if len(key) != 2 or not (key[1] is Ellipsis or key[1] == slice(None)):
                raise IndexError("StructureFeatures can be indexed along structures only")
            key = key[0]
        if isinstance(key, (int, np.integer)):
            return self._block([self.structures[key]]).toarray()
        if not isinstance(key, slice):
            key = np.asarray(key)
            if key.size == 0:
                key = key.astype(int)  # an empty list is an array of floats
        selected = StructureFeatures(self.structures[key], self.source)
        selected._predicting = self._predicting
        return selected

    def for_prediction(self) -> StructureFeatures:
        """The same features, for a caller that reads them once, so that storing them is useless.

        Returns
        -------
        features : StructureFeatures
            Rows that are already stored are still found.
        """
        features = StructureFeatures(self.structures, self.source)
        features._predicting = True
        return features

    def _block(self, structures):
        token = PREDICTING.set(self._predicting)
        try:
            return Block(structures, self.source.tiles(structures), self.n_features)
        finally:
            PREDICTING.reset(token)

    def gradient(self, structure: Structure) -> FeatureGradient:
        """Derivatives of the features of one structure with respect to its geometry.

        Parameters
        ----------
        structure : Structure
            A molecule, a slab or a crystal.

        Returns
        -------
        gradient : FeatureGradient
            The derivatives, as an object that computes products with them.

        Raises
        ------
        TypeError
            If the derivatives of the features are not known.
        """
        return self.source.gradient(structure)

    def dual(self, weights: Array) -> Array:
        """Weights in the form that the methods of `gradient` take.

        Parameters
        ----------
        weights : ndarray of shape (n_features,) or (n, n_features)
            Weights w of a function ``phi w``.

        Returns
        -------
        dual : ndarray of the same shape
            See `skqeq.structures.FeatureSource.dual`.

        Raises
        ------
        TypeError
            If the derivatives of the features are not known.
        """
        return self.source.dual(weights)

    def blocks(
        self, max_bytes: int = BLOCK_BYTES, verbose: bool = False, desc: str = "features"
    ) -> Iterator[tuple[int, Block]]:
        """Compute the features of one block of consecutive structures after the other.

        Parameters
        ----------
        max_bytes : int
            Maximum size of the dense rows of a block. A block has at least one structure. With 0,
            each block is one structure, and rows are not copied. Matrix products are faster with
            large blocks.
        verbose : bool
            Whether to show a progress bar. It is also shown if the source is verbose.
        desc : str
            Label of the progress bar.

        Yields
        ------
        start : int
            Index of the first structure of the block.
        block : Block
            Structures and their features.
        """
        # Floats, because the number of bytes of a large data set exceeds 32-bit integers.
        ends = np.cumsum(self.structures.sizes * float(self.source.row_bytes))
        silent = not (verbose or self.source.verbose)
        with tqdm(total=len(self), desc=desc, disable=silent, leave=False) as bar:
            start, begin = 0, 0.0
            while start < len(self):
                stop = int(np.searchsorted(ends, begin + max_bytes, side="right"))
                stop = max(start + 1, stop)
                yield start, self._block(list(self.structures[start:stop]))
                bar.update(stop - start)
                start, begin = stop, ends[stop - 1]

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        # FeatureUnion joins columns by np.hstack (scikit-learn 1.8) or np.concat (1.9).
        if func is np.hstack:
            return _concatenate(*args, **kwargs | {"axis": 1})
        if func is np.concatenate:
            return _concatenate(*args, **kwargs)
        if func is np.shape:
            return self.shape
        return NotImplemented

    def __array__(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(
            "StructureFeatures cannot be converted to an array; use X[i] for the rows of structure "
            "i, or an estimator of skqeq as the next step of the pipeline"
        )


def check_same_features(features, signature, estimator):
    """Raise an error if the meaning of the columns differs from that of the features in `fit`."""
    present = features.source.signature
    if None not in (present, signature) and present != signature:
        raise ValueError(
            f"X has as many features as {estimator} was fitted with, but with a different meaning: "
            "the parameters of the descriptor or of its sparse set differ"
        )


def _same_columns(first, second):
    """Whether two sources compute the same features of every structure."""
    if first is second:
        return True
    return first.signature is not None and first.signature == second.signature


def _same_structures(first, second):
    """Whether two sequences contain the same structures; files are read only if necessary."""
    if first is second:
        return True
    if isinstance(first, LazyStructures) and isinstance(second, LazyStructures):
        if first.reader is second.reader:
            return np.array_equal(first.index, second.index)
    same = (a.digest == b.digest for a, b in zip(first, second))
    return len(first) == len(second) and all(same)


def _concatenate(parts, axis=0):
    """`np.concatenate` for features: axis 0 joins structures, axis 1 columns."""
    if not all(isinstance(part, StructureFeatures) for part in parts):
        raise TypeError("StructureFeatures can be concatenated with each other only")
    if axis == 1:
        return _stacked(parts)
    if axis != 0:
        raise ValueError(f"StructureFeatures have two axes, got axis={axis}")
    if any(not _same_columns(part.source, parts[0].source) for part in parts):
        raise ValueError("features of different transformers cannot be concatenated")
    return StructureFeatures(concatenate([part.structures for part in parts]), parts[0].source)


def _stacked(parts, names=()):
    """Join the columns of features of the same structures."""
    for name, part in zip(names or range(len(parts)), parts):
        if not isinstance(part, StructureFeatures):
            raise TypeError(
                f"block {name!r} is a {type(part).__name__}, but must be features of structures"
            )
    if any(not _same_structures(part.structures, parts[0].structures) for part in parts):
        raise ValueError("columns of features of different structures cannot be joined")
    sources = [part.source for part in parts]
    if names and any(source.names for source in sources):
        # Blocks that a transformer has named keep their names.
        named = [
            pair
            for name, source in zip(names, sources, strict=True)
            for pair in (zip(source.names, source.sources) if source.names else [(name, source)])
        ]
        names, sources = zip(*named)
    return StructureFeatures(parts[0].structures, StackedSource(sources, names))
