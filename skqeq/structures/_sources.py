"""Sources of features other than descriptors: arrays, stacked sources, and no features at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._counts import counted
from ._base import FeatureGradient, FeatureSource
from ._directional import DirectionalFeatures
from ._tiles import Tile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._typing import Array, Column
    from ..structures import Neighborhood, Structure, Structures


class ArraySource(FeatureSource):
    """Features that the user has computed.

    The features are stored under the digest of the structure. Structures can therefore be selected
    and reordered, but two structures with the same geometry must have the same features.

    Parameters
    ----------
    structures : Structures
        The structures.
    arrays : sequence of array-like of shape (n_atoms, n_features)
        Features of each structure. They are copied.
    """

    def __init__(self, structures: Structures, arrays: Column) -> None:
        self.rows: dict[bytes, Array] = {}
        for i, (structure, given) in enumerate(zip(structures, arrays, strict=True)):
            array = _checked(given, i, structure)
            earlier = self.rows.setdefault(structure.digest, array)
            if not np.array_equal(earlier, array):
                raise ValueError(
                    f"structure {i} ({structure.symbols}) has the same geometry as an earlier "
                    "one, but other features"
                )
        widths = {array.shape[1] for array in self.rows.values()}
        if len(widths) != 1:
            raise ValueError(f"arrays have different numbers of columns: {sorted(widths)}")
        self.boundaries = (0, widths.pop())
        self.row_bytes = 8 * self.boundaries[-1]

    def tiles(self, structures: Sequence[Structure] | Structures) -> list[Tile]:
        """One tile with all atoms and all columns."""
        values = np.concatenate([self.rows[s.digest] for s in structures])
        return [Tile(np.arange(len(values)), (slice(0, self.boundaries[-1]),), values)]


def _checked(array, i, structure):
    """A copy of the features of structure i, as floats."""
    array = np.array(array, dtype=np.float64)
    name = f"structure {i} ({structure.symbols})"
    if array.ndim != 2 or len(array) != len(structure):
        raise ValueError(
            f"{name}: features of shape {array.shape} for {counted(len(structure), 'atom')}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: the features hold {array[~np.isfinite(array)][0]}")
    return array


class StackedSource(FeatureSource):
    """Several sources, whose columns are placed side by side.

    Two latent fields, such as electronegativities and local energies, often have the same features.
    Sources with the same signature are therefore replaced by one object, whose features are
    computed once.

    Parameters
    ----------
    sources : sequence of FeatureSource
        The sources.
    names : sequence of str, default=()
        Names of the sources, if they have names.

    Attributes
    ----------
    n_distinct : int
        Number of columns if every source is counted once.
    """

    def __init__(self, sources: Sequence[FeatureSource], names: Sequence[str] = ()) -> None:
        known: dict[object, FeatureSource] = {}
        self._sources = tuple(
            s if s.signature is None else known.setdefault(s.signature, s) for s in sources
        )
        self.names = tuple(names)
        boundaries = [0]
        # The column blocks of all sources remain separate, so that their kernels are added.
        for source in self.sources:
            last = boundaries[-1]
            boundaries += [last + b for b in source.boundaries[1:]]
        self.boundaries = tuple(boundaries)
        distinct = {id(source): source for source in self.sources}.values()
        self.n_distinct = sum(source.boundaries[-1] for source in distinct)
        self.row_bytes = sum(source.row_bytes for source in distinct)
        self.prior_variance = sum(source.prior_variance for source in self.sources)
        self.verbose = any(source.verbose for source in self.sources)
        self.has_gradient = all(source.has_gradient for source in self.sources)
        self.has_neighborhoods = all(source.has_neighborhoods for source in self.sources)
        self.signature = self._signature()
        self.elements = _common([source.elements for source in self.sources])
        self.represented = _common([source.represented for source in self.sources])

    def _signature(self):
        signatures = tuple(source.signature for source in self.sources)
        if None in signatures:  # the meaning is unknown if that of one source is
            return None
        return (self.names, signatures) if self.names else signatures

    @property
    def sources(self) -> Sequence[FeatureSource]:
        """The sources, in the order of their columns."""
        return self._sources

    def _of_sources(self, compute):
        """Call ``compute(source)`` for every source, but only once if it occurs several times."""
        results = {}
        for source in self.sources:
            if id(source) not in results:
                results[id(source)] = compute(source)
        return [results[id(source)] for source in self.sources]

    def _shifted(self, parts):
        """The tiles of all sources, with columns counted over all sources."""
        tiles, first = [], 0
        for source, part in zip(self.sources, parts, strict=True):
            for tile in part:
                columns = tuple(slice(c.start + first, c.stop + first) for c in tile.columns)
                tiles.append(tile._replace(columns=columns))
            first += source.boundaries[-1]
        return tiles

    def tiles(self, structures: Sequence[Structure] | Structures) -> list[Tile]:
        """The tiles of all sources."""
        return self._shifted(self._of_sources(lambda s: s.tiles(structures)))

    def tiles_of(self, structure: Structure, atoms: Array) -> list[Tile]:
        """The tiles of some atoms of a structure, from all sources."""
        return self._shifted(self._of_sources(lambda s: s.tiles_of(structure, atoms)))

    def split(self, weights: Array) -> list[Array]:
        """Divide an array along its last axis into one part for each source.

        Parameters
        ----------
        weights : ndarray of shape (..., n_columns)
            The array, for instance weights of all columns.

        Returns
        -------
        parts : list of ndarray of shape (..., size)
            The part that belongs to each source.
        """
        return np.split(weights, np.cumsum(self.sizes)[:-1], axis=-1)

    def neighborhoods(self, structure: Structure) -> list[Neighborhood]:
        """The neighbourhoods of all column blocks of all sources."""
        parts = self._of_sources(lambda s: s.neighborhoods(structure))
        return [neighborhood for part in parts for neighborhood in part]

    def gradient(self, structure: Structure) -> StackedGradient:
        """See `FeatureSource.gradient`."""
        return StackedGradient(self._of_sources(lambda s: s.gradient(structure)), self.split)

    def coarsened(self, n_points: int) -> tuple[StackedSource, Callable[[Array], Array]]:
        """See `FeatureSource.coarsened`."""
        parts = self._of_sources(lambda s: s.coarsened(n_points))
        source = StackedSource([part for part, _ in parts], self.names)

        def prolong(weights: Array) -> Array:
            pieces = zip(parts, source.split(weights), strict=True)
            return np.concatenate([extend(piece) for (_, extend), piece in pieces])

        return source, prolong

    def dual(self, weights: Array) -> Array:
        """See `FeatureSource.dual`."""
        parts = zip(self.sources, self.split(weights), strict=True)
        return np.concatenate([source.dual(part) for source, part in parts], axis=-1)


def _common(sets):
    """The elements that are in all sets; None is the set of all elements."""
    given = [elements for elements in sets if elements is not None]
    return frozenset.intersection(*given) if given else None


class StackedGradient(FeatureGradient):
    """The derivatives of the features of a `StackedSource`.

    Parameters
    ----------
    parts : list of FeatureGradient
        Gradients of the sources.
    split : callable
        Divides an array along its last axis into one part for each source.
    """

    def __init__(self, parts: list[FeatureGradient], split: Callable[[Array], list[Array]]) -> None:
        self.n_atoms = parts[0].n_atoms
        self.parts, self.split = parts, split

    @property
    def n_bytes(self) -> int:
        """The sum over the parts."""
        return sum(part.n_bytes for part in self.parts)

    def _with_parts(self, array):
        """For each part, the part and its columns of an array."""
        return zip(self.parts, self.split(array), strict=True)

    def field(self, dual: Array) -> Array:
        """The sum of the latent fields of all parts."""
        return np.sum([part.field(u) for part, u in self._with_parts(dual)], axis=0)

    def contract(self, cotangents: Array) -> Array:
        """Cotangents times the features of all columns."""
        return np.concatenate([part.contract(cotangents) for part in self.parts], axis=1)

    def pair_gradients(self, dual: Array) -> Iterator[tuple[Neighborhood, Array]]:
        """The pair gradients of every column block of every part."""
        for part, u in self._with_parts(dual):
            yield from part.pair_gradients(u)

    def pull_back(self, cotangents: Array) -> tuple[Array, Array]:
        """The sum of the derivatives over the parts."""
        pulled = [part.pull_back(t) for part, t in self._with_parts(cotangents)]
        gradients, virials = zip(*pulled, strict=True)
        return np.sum(gradients, axis=0), np.sum(virials, axis=0)

    def jacobian(self, q: Array) -> tuple[Array, Array]:
        """The Jacobians of the parts, joined along the columns."""
        jacobians, virials = zip(*(part.jacobian(q) for part in self.parts), strict=True)
        return np.concatenate(jacobians, axis=-1), np.concatenate(virials, axis=-1)

    def directional(self, displacement: Array, strain: Array) -> StackedDirectional:
        """The derivatives of the parts along one direction."""
        parts = [part.directional(displacement, strain) for part in self.parts]
        return StackedDirectional(parts, self.split)

    def residual_variances(self) -> tuple[Array, Array, Array]:
        """The sum of the variances over the parts, because their fields are independent."""
        variances = zip(*(part.residual_variances() for part in self.parts), strict=True)
        variance, covariances, of_derivatives = (np.sum(parts, axis=0) for parts in variances)
        return variance, covariances, of_derivatives


class StackedDirectional(DirectionalFeatures):
    """The derivatives of the features of a `StackedSource` along one direction.

    Parameters
    ----------
    parts : list of DirectionalFeatures
        The derivatives of the sources.
    split : callable
        Divides an array along its last axis into one part for each source.
    """

    def __init__(
        self, parts: list[DirectionalFeatures], split: Callable[[Array], list[Array]]
    ) -> None:
        self.parts, self.split = parts, split

    def field(self, dual: Array) -> Array:
        """The sum of the changes of all parts."""
        pairs = zip(self.parts, self.split(dual), strict=True)
        return np.sum([part.field(u) for part, u in pairs], axis=0)

    def contract(self, cotangents: Array) -> Array:
        """Cotangents times the change of all columns."""
        return np.concatenate([part.contract(cotangents) for part in self.parts], axis=1)


class NoFeatures(FeatureSource):
    """A source without columns, for a latent field that is a constant for each element."""

    boundaries = (0, 0)
    # With 0 bytes per row, `StructureFeatures.blocks` would put all structures into one block.
    row_bytes = 1024
    prior_variance = 0.0
    signature = ()
    has_gradient = True

    def tiles(self, structures: Sequence[Structure] | Structures) -> list[Tile]:
        """No tiles."""
        return []

    def gradient(self, structure: Structure) -> NoGradient:
        """Derivatives of features without columns; only the number of atoms is used."""
        return NoGradient(len(structure))

    def dual(self, weights: Array) -> Array:
        """An empty array, like the weights."""
        return weights


class NoGradient(FeatureGradient):
    """The derivatives of features without columns. All results are zero or have no columns.

    Parameters
    ----------
    n_atoms : int
        Number of atoms of the structure.
    """

    def __init__(self, n_atoms: int) -> None:
        self.n_atoms = n_atoms

    def field(self, dual: Array) -> Array:
        """Zero for every atom."""
        return np.zeros(self.n_atoms)

    def contract(self, cotangents: Array) -> Array:
        """An array without columns."""
        return np.zeros((len(cotangents), 0))

    def pair_gradients(self, dual: Array) -> Iterator[tuple[Neighborhood, Array]]:
        """No pairs."""
        return iter(())

    def pull_back(self, cotangents: Array) -> tuple[Array, Array]:
        """Zeros."""
        return np.zeros((self.n_atoms, 3)), np.zeros((3, 3))

    def jacobian(self, q: Array) -> tuple[Array, Array]:
        """An array without columns."""
        lead = np.shape(q)[:-1]
        return np.zeros((*lead, 3 * self.n_atoms, 0)), np.zeros((*lead, 9, 0))

    def residual_variances(self) -> tuple[Array, Array, Array]:
        """Zeros, because a constant has no residual."""
        n = self.n_atoms
        return np.zeros(n), np.zeros((n, 3 * n + 9)), np.zeros((n, 3 * n + 9))
