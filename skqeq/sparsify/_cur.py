"""The Nystroem of environments: a sparse set, and whitened kernel features to it."""

from __future__ import annotations

import warnings
from functools import cache
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from ase.data import chemical_symbols
from scipy import sparse
from scipy.linalg import solve_triangular
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from tqdm import tqdm

from ..persistence import Persistent
from ..structures import StructureFeatures, Tile
from ..structures._features import check_same_features
from ._kernel import SparseKernel, column_blocks, normalize_blocks, row_norms
from ._selection import METHODS, sketch_matrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .._typing import Array


ALL = 0  # key of the one group when elements are mixed
MAX_SKETCH = 256  # width of the sketch that leverage scores are taken from


class CURSparsifier(  # type: ignore[call-arg]  # of a mixin without types
    Persistent,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
    auto_wrap_output_keys=None,
):
    """Pick representative environments by CUR and map to whitened kernel features.

    With M sparse points, ``phi = K_nM L^-T`` and ``K_MM = L L^T``, a Gaussian process with the
    Nystroem kernel ``K_nM K_MM^-1 K_Mn`` is the linear model ``phi w`` with independent
    standard normal weights. The kernel is::

        k(p, p') = sum_b w_b (p_b . p_b' / |p_b| |p_b'|)^zeta,     sum_b w_b = 1,

    over the column blocks of the features (one per SOAP cutoff) between environments of the
    same element, and zero otherwise.

    Parameters
    ----------
    n_points : int, default=1000
        Sparse points per element. If there are fewer environments, all are used, with one
        warning.
    method : {"cur", "fps"}, default="cur"
        Draw rows with probability proportional to their leverage in the dominant column space
        [1]_, or take farthest points.
    zeta : int, default=2
        Exponent of the kernel.
    block_weights : sequence of float, default=None
        Weights of the column blocks, normalised to sum one; None means equal.
    per_species : bool, default=True
        Keep elements apart. False mixes all environments, as [2]_ did, with `n_points` in total.
    jitter : float, default=1e-10
        Added to the diagonal of ``K_MM`` (whose diagonal is 1).
    max_environments : int, default=None
        The choice is among this many random environments per element, of as many random structures
        at most; those of rarer elements are looked for in all. More make the choice slower, and
        hardly better. None means 5000, or ``5 * n_points`` if that is more.
    random_state : int or None, default=0
        Seed of the choice.
    dtype : {"float64", "float32"}, default="float64"
        Precision of the products of features, most of the work of large fits. With "float32" what
        environments have in common is still in double precision, and only the rest in single:
        predictions change by less than 1e-4 of their size. Forces are in double precision.
    verbose : int, default=0
        Above 0 a progress bar is shown.

    Attributes
    ----------
    components_ : ndarray of shape (n_points_out, n_features)
        The chosen rows, each column block normalised.
    component_indices_ : ndarray of shape (n_points_out, 2) or (n_points_out,)
        Structure and atom of each point, or the row for array input.
    component_numbers_ : ndarray of shape (n_points_out,)
        Atomic number of each point (0 where elements are mixed, and for array input).
    jitter_ : dict of {int: float}
        What was added to each element's ``K_MM``.
    n_features_in_ : int
        Number of features seen in `fit`.

    References
    ----------
    .. [1] Mahoney and Drineas, PNAS 106, 697 (2009).
    .. [2] Staacke et al., Mach. Learn.: Sci. Technol. 3, 015032 (2022).

    Examples
    --------
    >>> from ase.build import molecule
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, SOAPFeaturizer
    >>> X = [molecule("CH3OH"), molecule("CH3CH2OH")]
    >>> model = make_pipeline(SOAPFeaturizer(), CURSparsifier(n_points=2))
    >>> model.fit_transform(X)
    <StructureFeatures: 2 structures, 15 atoms, 6 features>
    """

    _parameter_constraints = {
        "n_points": [Interval(Integral, 1, None, closed="left")],
        "method": [StrOptions(set(METHODS))],
        "zeta": [Interval(Integral, 1, None, closed="left")],
        "block_weights": ["array-like", None],
        "per_species": ["boolean"],
        "jitter": [Interval(Real, 0.0, None, closed="left")],
        "max_environments": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": [Interval(Integral, 0, None, closed="left"), np.random.RandomState, None],
        "dtype": [StrOptions({"float64", "float32"})],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_points: int = 1000,
        method: Literal["cur", "fps"] = "cur",
        zeta: int = 2,
        block_weights: ArrayLike | None = None,
        per_species: bool = True,
        jitter: float = 1e-10,
        max_environments: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
        dtype: Literal["float64", "float32"] = "float64",
        verbose: int = 0,
    ) -> None:
        self.n_points = n_points
        self.method = method
        self.zeta = zeta
        self.block_weights = block_weights
        self.per_species = per_species
        self.jitter = jitter
        self.max_environments = max_environments
        self.random_state = random_state
        self.dtype = dtype
        self.verbose = verbose

    def fit(self, X: StructureFeatures | ArrayLike, y: object = None) -> Self:
        """Choose the sparse points.

        Parameters
        ----------
        X : StructureFeatures or array-like of shape (n_samples, n_features)
            Features of structures, or plain rows.
        y : ignored
            For the scikit-learn API.

        Returns
        -------
        self : CURSparsifier
            Fitted.
        """
        self._validate_params()
        X, ragged = self._check(X, reset=True)
        seed = self.random_state
        if isinstance(seed, np.random.RandomState):
            seed = seed.randint(2**31)
        rng = np.random.default_rng(seed)
        boundaries = X.source.boundaries if ragged else (0, X.shape[1])
        weights = self._weights(len(boundaries) - 1)
        offsets = X.structures.offsets if ragged else np.array([0, len(X)])
        rows = Rows(X, offsets, boundaries, self.verbose)
        chosen = self._choose(rows, self._groups(X, ragged), rng)
        points = rows.gather(chosen)
        self.kernels_ = {
            group: SparseKernel(
                normalize_blocks(points[group], boundaries),
                boundaries,
                weights,
                self.zeta,
                self.dtype,
            ).factorize(self.jitter, _name(group))
            for group in chosen
        }
        self.component_indices_ = np.concatenate(list(chosen.values()))
        if ragged:
            self.component_indices_ = rows.locate(self.component_indices_)
        self.component_numbers_ = np.concatenate(
            [np.full(len(index), group) for group, index in chosen.items()]
        )
        return self

    def transform(self, X: StructureFeatures | ArrayLike) -> Any:
        """Whitened kernel features ``phi``.

        Parameters
        ----------
        X : StructureFeatures or array-like of shape (n_samples, n_features)
            What `fit` was given the like of.

        Returns
        -------
        phi : StructureFeatures or ndarray of shape (n_samples, n_points_out)
            Rows of norm at most one; an atom has non-zero columns for its own element only.
        """
        check_is_fitted(self)
        X, ragged = self._check(X, reset=False)
        if ragged:
            return StructureFeatures(X.structures, SparseSource(X.source, self.kernels_))
        [kernel] = self.kernels_.values()
        tile = Tile(np.arange(len(X)), (slice(0, X.shape[1]),), X)
        return np.ascontiguousarray(kernel.whiten(kernel(tile)))

    @property
    def components_(self) -> Array:
        """The chosen rows, each column block normalised."""
        check_is_fitted(self)
        return np.concatenate([kernel.points for kernel in self.kernels_.values()])

    @property
    def jitter_(self) -> dict[int, float]:
        """What was added to the diagonal of each group's kernel matrix."""
        check_is_fitted(self)
        return {group: kernel.jitter for group, kernel in self.kernels_.items()}

    @property
    def _n_features_out(self):
        return len(self.component_indices_)

    def _check(self, X, reset):
        """The input, and whether it is ragged."""
        if not isinstance(X, StructureFeatures):
            return validate_data(self, X, dtype=np.float64, reset=reset), False
        if reset:
            self.n_features_in_ = X.n_features
            self.features_ = X.source.signature
            self.__dict__.pop("feature_names_in_", None)
        elif X.n_features != self.n_features_in_:
            raise ValueError(
                f"X has {X.n_features} features, but CURSparsifier was fitted with "
                f"{self.n_features_in_}"
            )
        else:
            check_same_features(X, self.features_, type(self).__name__)
        return X, True

    def _weights(self, n_blocks):
        if self.block_weights is None:
            return np.full(n_blocks, 1.0 / n_blocks)
        weights = np.asarray(self.block_weights, dtype=np.float64)
        if weights.shape != (n_blocks,) or not (weights >= 0).all() or weights.sum() == 0:
            raise ValueError(
                f"block_weights must be {n_blocks} non-negative numbers, one per column block, "
                f"got {self.block_weights!r}"
            )
        return weights / weights.sum()

    def _groups(self, X, ragged):
        """Group of every environment, shape (n,)."""
        if not ragged:
            return np.full(len(X), ALL)
        numbers = X.structures.numbers
        return numbers if self.per_species else np.full(len(numbers), ALL)

    def _choose(self, rows, labels, rng):
        """The chosen rows of every group, ascending."""
        members = {int(g): np.flatnonzero(labels == g) for g in np.unique(labels)}
        most = self.max_environments or max(5000, 5 * self.n_points)
        if max(map(len, members.values())) > most:
            rank = rows.ranks(rng)
            # Structures that hold enough of every group, but no more than environments. Those of
            # frequent groups are spread over them; rare ones are looked for beyond.
            many = [rank[found] for found in members.values() if len(found) > most]
            reach = min(most, max(np.partition(r, most - 1)[most - 1] for r in many) + 1)
            for group, found in members.items():
                late = np.maximum(rank[found], reach - 1)
                order = np.lexsort((rng.random(len(found)), late))
                members[group] = np.sort(found[order[:most]])
        short = {g: len(found) for g, found in members.items() if len(found) < self.n_points}
        if short:
            limited = " (max_environments)" if most < self.n_points else ""
            warnings.warn(
                f"n_points={self.n_points}, but there are only "
                f"{', '.join(f'{n} of {_name(g)}' for g, n in short.items())}{limited}; all of "
                "them are used",
                stacklevel=3,
            )
        # An exhausted group needs no scores.
        contested = [found for group, found in members.items() if group not in short]
        if contested:
            contested = np.sort(np.concatenate(contested))
            sketch = rows.sketch(contested, min(self.n_points + 10, MAX_SKETCH), rng)
        chosen = {}
        for group, found in members.items():
            if group not in short:
                candidates = sketch[np.searchsorted(contested, found)]
                found = found[np.sort(METHODS[self.method](candidates, self.n_points, rng))]
            chosen[group] = found
        return chosen

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


class Rows:
    """The environments of a data set, numbered through, whichever container holds them.

    Parameters
    ----------
    X : StructureFeatures or ndarray of shape (n, n_features)
        Features.
    offsets : ndarray of shape (n_structures + 1,)
        First environment of every structure; an array counts as one structure.
    boundaries : tuple of int
        Column blocks.
    verbose : int
        Whether walks show their progress.
    """

    def __init__(self, X, offsets, boundaries, verbose):
        self.X = X
        self.offsets = offsets
        self.boundaries = boundaries
        self.verbose = verbose

    def locate(self, rows):
        """Structure and atom of environments: (n, 2)."""
        structure = np.searchsorted(self.offsets, rows, side="right") - 1
        return np.stack([structure, rows - self.offsets[structure]], axis=1)

    def ranks(self, rng):
        """Of every environment, the place of its structure in a random order."""
        if isinstance(self.X, np.ndarray):
            return rng.permutation(self.offsets[-1])
        return np.repeat(rng.permutation(len(self.X)), np.diff(self.offsets))

    def walk(self, wanted):
        """Yield tiles of the environments `wanted` (ascending), and their places in it."""
        if isinstance(self.X, np.ndarray):
            columns = (slice(0, self.X.shape[1]),)
            yield np.arange(len(wanted)), Tile(wanted, columns, self.X[wanted])
            return
        place = np.full(self.offsets[-1], -1)
        place[wanted] = np.arange(len(wanted))
        needed = np.unique(self.locate(wanted)[:, 0])
        silent = not (self.verbose or self.X.source.verbose)
        for k in tqdm(needed.tolist(), "sparse set", disable=silent, leave=False):
            local = place[self.offsets[k] : self.offsets[k + 1]]
            for tile in tiles_of(self.X.source, self.X.structures[k], np.flatnonzero(local >= 0)):
                yield local[tile.atoms], tile

    def sketch(self, wanted, width, rng):
        """Random projection of the normalised environments `wanted`: (len(wanted), width)."""
        omega = sketch_matrix(self.boundaries[-1], width, rng)
        # Structures of the same elements share their part of it.
        part = cache(lambda edges: sparse.vstack([omega[a:b] for a, b in edges], format="csc"))
        sketch = np.zeros((len(wanted), omega.shape[1]))
        for places, tile in self.walk(wanted):
            for _, values, runs in column_blocks(tile, self.boundaries):
                projected = values @ part(tuple((run.start, run.stop) for run in runs))
                sketch[places] += projected / row_norms(values)[:, None]
        return sketch

    def gather(self, chosen):
        """The chosen rows of every group, dense: (n_points, n_features)."""
        points = {g: np.zeros((len(rows), self.boundaries[-1])) for g, rows in chosen.items()}
        wanted = np.concatenate(list(chosen.values()))
        order = np.argsort(wanted)
        group = np.repeat(list(chosen), [len(rows) for rows in chosen.values()])[order]
        place = np.concatenate([np.arange(len(rows)) for rows in chosen.values()])[order]
        for places, tile in self.walk(wanted[order]):
            for i, row in zip(places, tile.values, strict=True):
                point = points[group[i]][place[i]]
                for columns, piece in tile.pieces():
                    point[columns] = row[piece]
        return points


def tiles_of(source, structure, atoms):
    """The tiles of some atoms of a structure.

    They are computed alone where the source can do that, unless the others will be wanted too.
    """
    if not getattr(source, "keeps_rows", True):
        return source.tiles_of(structure, atoms)
    mine = np.isin(np.arange(len(structure)), atoms)
    return [tile.take(mine[tile.atoms]) for tile in source.tiles([structure])]


class SparseSource:
    """Whitened kernel features, computed from the tiles of the descriptor."""

    prior_variance = 1.0

    def __init__(self, parent, kernels):
        self.parent = parent
        self.kernels = kernels
        sizes = [len(kernel.points) for kernel in kernels.values()]
        edges = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        self.columns = {
            group: slice(start, stop)
            for group, start, stop in zip(kernels, edges[:-1], edges[1:], strict=True)
        }
        self.boundaries = (0, edges[-1])
        self.signature = None
        if parent.signature is not None:
            self.signature = (
                parent.signature,
                *((int(g), kernel.digest) for g, kernel in kernels.items()),
            )
        self.row_bytes = parent.row_bytes
        self.verbose = parent.verbose

    def tiles(self, structures):
        """One tile per element, with the columns of its sparse points."""
        numbers = np.concatenate([s.numbers for s in structures])
        parts = {}
        for tile in self.parent.tiles(structures):
            for group, kernel in self.kernels.items():
                part = tile if group == ALL else tile.take(numbers[tile.atoms] == group)
                if len(part.atoms):
                    parts.setdefault(group, []).append((part.atoms, kernel(part)))
        tiles = []
        for group, pieces in parts.items():
            atoms = np.unique(np.concatenate([a for a, _ in pieces]))
            K = np.zeros((len(atoms), len(self.kernels[group].points)))
            for part, k in pieces:
                K[np.searchsorted(atoms, part)] += k
            tiles.append(Tile(atoms, (self.columns[group],), self.kernels[group].whiten(K)))
        return tiles

    def gradient(self, structure):
        """See `StructureFeatures.gradient`."""
        from ._gradient import SparseGradient  # which builds on this module

        if not hasattr(self.parent, "spectra"):
            raise TypeError("forces need the features of SOAPFeaturizer before CURSparsifier")
        return SparseGradient(self, structure)

    def dual(self, weights):
        """Weights u of the kernel that stand for those of the features: ``phi w = K u``.

        Weights of shape (n_columns,) or (n, n_columns).
        """
        dual = np.empty_like(weights)
        for group, kernel in self.kernels.items():
            here = self.columns[group]
            dual[..., here] = solve_triangular(
                kernel.chol, weights[..., here].T, lower=True, trans=1
            ).T
        return dual


def _name(group):
    return "all kinds" if group == ALL else chemical_symbols[group]
