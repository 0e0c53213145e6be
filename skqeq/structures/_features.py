"""The ragged, lazy container that flows between featurizers, sparsifiers and models.

Features of a data set are a block-sparse matrix: one row per atom, and an atom stores only the
columns that can be non-zero for it. They are computed when a consumer walks over them, block by
block, so that memory is bounded by a block and not by the data.
"""

from typing import NamedTuple

import numpy as np
from tqdm import tqdm

# Size of a block if its rows were dense; the tiles in memory are usually half of that.
BLOCK_BYTES = 2**29
NO_GRADIENT = (
    "forces need features of known derivative: those of CURSparsifier behind SOAPFeaturizer"
)


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

    def take(self, rows):
        """The tile of some rows, given by index or mask."""
        return self._replace(atoms=self.atoms[rows], values=self.values[rows])

    def pieces(self):
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

    def __init__(self, structures, tiles, n_features):
        self.structures = structures
        self.offsets = np.concatenate([[0], np.cumsum([len(s) for s in structures])])
        self.tiles = tiles
        self.n_features = n_features

    @property
    def n_atoms(self):
        """Number of atoms in the block."""
        return int(self.offsets[-1])

    @property
    def numbers(self):
        """Atomic numbers of all atoms."""
        return np.concatenate([s.numbers for s in self.structures])

    def toarray(self):
        """The features as a dense array of shape (n_atoms, n_features)."""
        dense = np.zeros((self.n_atoms, self.n_features))
        for tile in self.tiles:
            for columns, piece in tile.pieces():
                dense[tile.atoms, columns] = tile.values[:, piece]
        return dense

    def dot(self, weights):
        """Features times weights of shape (n_features,): one number per atom."""
        result = np.zeros(self.n_atoms)
        for tile in self.tiles:
            for columns, piece in tile.pieces():
                result[tile.atoms] += tile.values[:, piece] @ weights[columns]
        return result

    def contract(self, cotangents):
        """Sparse cotangents of shape (n_rows, n_atoms) times features: (n_rows, n_features)."""
        result = np.zeros((cotangents.shape[0], self.n_features))
        for tile in self.tiles:
            part = cotangents[:, tile.atoms] @ tile.values
            for columns, piece in tile.pieces():
                result[:, columns] += part[:, piece]
        return result


class StructureFeatures:
    """Ragged per-atom features of a list of structures, computed on demand.

    To scikit-learn it is a two-dimensional container with one row per structure: it has a
    `shape` and a length and can be indexed, split and concatenated like one.

    Parameters
    ----------
    structures : sequence of Structure
        Checked structures.
    source : object
        Computes the features: ``source.tiles(structures)`` returns a list of `Tile`,
        ``source.boundaries`` the first column of each block of columns and the total number,
        ``source.row_bytes`` the memory that one atom needs on the way, ``source.signature``
        what the columns mean, in plain Python that can be compared (None where nobody knows),
        ``source.verbose`` whether walks show their progress.

    Attributes
    ----------
    shape : tuple (n_structures, n_features)
        As scikit-learn understands it.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import SOAPFeaturizer
    >>> X = SOAPFeaturizer(n_max=2, l_max=2).fit_transform([molecule("H2O"), molecule("CO2")])
    >>> X.shape[0], len(X), X[1].shape[0]
    (2, 2, 3)
    """

    def __init__(self, structures, source):
        self.structures = np.empty(len(structures), dtype=object)
        self.structures[:] = structures
        self.source = source

    @classmethod
    def from_arrays(cls, X, arrays):
        """Features that the user computed: one array (n_atoms, n_features) per structure.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Structures.
        arrays : sequence of array-like of shape (n_atoms, n_features)
            Per-atom features of each structure.
        """
        from ._structure import check_structures

        structures = check_structures(X)
        if len(arrays) != len(structures):
            raise ValueError(f"{len(arrays)} arrays for {len(structures)} structures")
        return cls(structures, ArraySource(structures, arrays))

    @property
    def n_features(self):
        """Number of columns."""
        return self.source.boundaries[-1]

    @property
    def shape(self):
        return (len(self.structures), self.n_features)

    ndim = 2

    def __len__(self):
        return len(self.structures)

    def __repr__(self):
        n_atoms = sum(len(s) for s in self.structures)
        return (
            f"<StructureFeatures: {len(self)} structures, {n_atoms} atoms, "
            f"{self.n_features} features>"
        )

    def __getitem__(self, key):
        """The dense rows of one structure (int), else features of the selected structures."""
        if isinstance(key, tuple):
            # sklearn.utils._safe_indexing asks for X[key, ...].
            if len(key) != 2 or not (key[1] is Ellipsis or key[1] == slice(None)):
                raise IndexError("StructureFeatures can be indexed along structures only")
            key = key[0]
        if isinstance(key, (int, np.integer)):
            return self._block([self.structures[key]]).toarray()
        if not isinstance(key, slice):
            key = np.asarray(key)
            if key.size == 0:
                key = key.astype(int)
        return StructureFeatures(self.structures[key], self.source)

    def _block(self, structures):
        return Block(structures, self.source.tiles(structures), self.n_features)

    def gradient(self, structure):
        """Derivatives of the features of one structure with respect to its geometry.

        Parameters
        ----------
        structure : Structure
            A molecule, a slab or a crystal.

        Returns
        -------
        gradient : object
            ``gradient.pull_back(cotangents)`` takes the derivatives of a function with respect to
            the features, shape (n_atoms, n_features), and returns those with respect to the
            positions, shape (n_atoms, 3), 1/Angstrom, and to a strain, shape (3, 3). For a
            function ``chi = phi w`` of the features, `dual` weights of w make
            ``gradient.field(dual)``, which is chi, and ``gradient.field_gradient(q, dual)``, the
            derivatives of ``q . chi``, cheap.

        Raises
        ------
        TypeError
            If the features have no known derivative.
        """
        if not hasattr(self.source, "gradient"):
            raise TypeError(NO_GRADIENT)
        return self.source.gradient(structure)

    def dual(self, weights):
        """Weights of shape (n_features,) in the form that `gradient` uses."""
        if not hasattr(self.source, "dual"):
            raise TypeError(NO_GRADIENT)
        return self.source.dual(weights)

    def blocks(self, max_bytes=BLOCK_BYTES, verbose=False, desc="features"):
        """Walk over the features in blocks of consecutive structures.

        Parameters
        ----------
        max_bytes : int
            A block holds at least one structure and at most this many bytes of dense rows.
            Matrix products want large blocks; 0 walks structure by structure without copies.
        verbose : bool
            Whether to show a progress bar, which the source may also ask for.
        desc : str
            What the bar is called.

        Yields
        ------
        start : int
            Index of the first structure of the block.
        block : Block
        """
        sizes = np.array([len(s) for s in self.structures], dtype=int) * self.source.row_bytes
        silent = not (verbose or self.source.verbose)
        with tqdm(total=len(self), desc=desc, disable=silent, leave=False) as bar:
            start = 0
            while start < len(self):
                fits = np.searchsorted(np.cumsum(sizes[start:]), max_bytes, side="right")
                stop = start + max(1, int(fits))
                yield start, self._block(list(self.structures[start:stop]))
                bar.update(stop - start)
                start = stop

    def __array_function__(self, func, types, args, kwargs):
        # FeatureUnion stacks by np.hstack (scikit-learn 1.8) or np.concat(axis=1) (1.9).
        if func is np.hstack:
            return _concatenate(*args, axis=1, **kwargs)
        if func is np.concatenate:
            return _concatenate(*args, **kwargs)
        if func is np.shape:
            return self.shape
        return NotImplemented

    def __array__(self, *args, **kwargs):
        raise TypeError(
            "StructureFeatures are ragged and do not turn into an array; use X[i] for the rows "
            "of structure i, or put an estimator of skqeq behind this step"
        )


class ArraySource:
    """Features given as arrays, found again by the geometry they belong to."""

    signature = None
    verbose = False

    def __init__(self, structures, arrays):
        self.rows = {}
        for i, (structure, array) in enumerate(zip(structures, arrays, strict=True)):
            array = np.array(array, dtype=np.float64)
            if array.ndim != 2 or len(array) != len(structure):
                raise ValueError(
                    f"structure {i} ({structure.symbols}): features of shape {array.shape} for "
                    f"{len(structure)} atoms"
                )
            if not np.isfinite(array).all():
                raise ValueError(
                    f"structure {i} ({structure.symbols}): the features hold "
                    f"{array[~np.isfinite(array)][0]}"
                )
            known = self.rows.setdefault(structure.digest, array)
            if not np.array_equal(known, array):
                raise ValueError(
                    f"structure {i} ({structure.symbols}) has the same geometry as an earlier "
                    "one, but other features"
                )
        widths = {array.shape[1] for array in self.rows.values()}
        if len(widths) != 1:
            raise ValueError(f"arrays have different numbers of columns: {sorted(widths)}")
        self.boundaries = (0, widths.pop())
        self.row_bytes = 8 * self.boundaries[-1]

    def tiles(self, structures):
        """All atoms times all columns."""
        values = np.concatenate([self.rows[s.digest] for s in structures])
        return [Tile(np.arange(len(values)), (slice(0, self.boundaries[-1]),), values)]


class StackedSource:
    """Several sources side by side, as FeatureUnion makes them."""

    def __init__(self, sources):
        self.sources = sources
        self.boundaries = (0,)
        for source in sources:
            last = self.boundaries[-1]
            self.boundaries += tuple(last + b for b in source.boundaries[1:])
        self.row_bytes = sum(source.row_bytes for source in sources)
        self.verbose = any(source.verbose for source in sources)
        self.signature = tuple(source.signature for source in sources)
        if None in self.signature:
            self.signature = None

    def tiles(self, structures):
        """The tiles of every source, shifted to its columns."""
        tiles, first = [], 0
        for source in self.sources:
            for tile in source.tiles(structures):
                columns = tuple(slice(c.start + first, c.stop + first) for c in tile.columns)
                tiles.append(tile._replace(columns=columns))
            first += source.boundaries[-1]
        return tiles

    @property
    def spectra(self):
        """The power spectra of all sources, of which every one is a column block."""
        return [spectrum for source in self.sources for spectrum in source.spectra]

    def _split(self, weights):
        """Weights of shape (..., n_features) by source."""
        ends = np.cumsum([source.boundaries[-1] for source in self.sources])
        return np.split(weights, ends[:-1], axis=-1)

    def gradient(self, structure):
        """See `StructureFeatures.gradient`."""
        if not all(hasattr(source, "gradient") for source in self.sources):
            raise TypeError(NO_GRADIENT)
        parts = [source.gradient(structure) for source in self.sources]
        return StackedGradient(parts, self._split)

    def dual(self, weights):
        """See `StructureFeatures.dual`."""
        parts = zip(self.sources, self._split(weights), strict=True)
        return np.concatenate([source.dual(part) for source, part in parts], axis=-1)


class StackedGradient:
    """The derivatives of several features side by side.

    Parameters
    ----------
    parts : list
        Gradients of the sources.
    split : callable
        Divides an array along its last axis by source.
    """

    def __init__(self, parts, split):
        self.parts, self.split = parts, split

    def field(self, dual):
        """The sum of the fields of the parts."""
        return sum(part.field(u) for part, u in zip(self.parts, self.split(dual), strict=True))

    def contract(self, cotangents):
        """Cotangents times features."""
        return np.concatenate([part.contract(cotangents) for part in self.parts], axis=1)

    def slopes(self, dual):
        """Of every column block of every part."""
        for part, u in zip(self.parts, self.split(dual), strict=True):
            yield from part.slopes(u)

    def field_gradient(self, q, dual):
        """The sum of the derivatives of the parts."""
        found = [p.field_gradient(q, u) for p, u in zip(self.parts, self.split(dual), strict=True)]
        return sum(g for g, _ in found), sum(v for _, v in found)

    def pull_back(self, cotangents):
        """The sum of what the parts pull back."""
        cotangents = self.split(cotangents)
        found = [part.pull_back(t) for part, t in zip(self.parts, cotangents, strict=True)]
        return sum(g for g, _ in found), sum(v for _, v in found)

    def jacobian(self, q):
        """The columns of the parts."""
        found = [part.jacobian(q) for part in self.parts]
        return tuple(np.concatenate(rows, axis=1) for rows in zip(*found, strict=True))


def check_same_features(features, signature, estimator):
    """Refuse features whose columns mean something else than those of `fit`."""
    found = features.source.signature
    if None not in (found, signature) and found != signature:
        raise ValueError(
            f"X has as many features as {estimator} was fitted with, but other ones: the "
            "descriptor or its sparse set has other parameters"
        )


def _same_columns(first, second):
    """Whether two sources describe every structure in the same way."""
    if first is second:
        return True
    return first.signature is not None and first.signature == second.signature


def _concatenate(parts, axis=0):
    if not all(isinstance(part, StructureFeatures) for part in parts):
        raise TypeError("StructureFeatures can be concatenated with each other only")
    if axis == 0:
        if any(not _same_columns(part.source, parts[0].source) for part in parts):
            raise ValueError("features of different transformers cannot be concatenated")
        return StructureFeatures(
            np.concatenate([part.structures for part in parts]), parts[0].source
        )
    if axis == 1:
        reference = [s.digest for s in parts[0].structures]
        if any([s.digest for s in part.structures] != reference for part in parts):
            raise ValueError("features of different structures cannot stand side by side")
        return StructureFeatures(
            parts[0].structures, StackedSource([part.source for part in parts])
        )
    raise ValueError(f"StructureFeatures have two axes, got axis={axis}")
