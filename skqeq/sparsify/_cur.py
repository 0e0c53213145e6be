"""The Nystroem of environments: a sparse set, and whitened kernel features to it."""

import warnings
from numbers import Integral, Real

import numpy as np
from ase.data import chemical_symbols
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from ..persistence import Persistent
from ..structures import StructureFeatures, Tile
from ..structures._features import check_same_features
from ._kernel import SparseKernel, block_norms, block_pieces, normalize_blocks
from ._selection import METHODS, sketch_matrix

ALL = 0  # key of the one group when elements are mixed


class CURSparsifier(
    Persistent,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
    auto_wrap_output_keys=None,
):
    """Pick representative environments by CUR and map to whitened kernel features.

    With M sparse points, ``phi = K_nM L^-T`` and ``K_MM = L L^T``, a Gaussian process with the
    Nystroem kernel ``K_nM K_MM^-1 K_Mn`` is the linear model ``phi w`` with independent
    standard normal weights. The kernel is

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
    max_environments : int, default=50000
        CUR looks at a random subset of this many environments per element.
    random_state : int or None, default=0
        Seed of the choice.
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
        "max_environments": [Interval(Integral, 1, None, closed="left")],
        "random_state": [Interval(Integral, 0, None, closed="left"), np.random.RandomState, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_points=1000,
        method="cur",
        zeta=2,
        block_weights=None,
        per_species=True,
        jitter=1e-10,
        max_environments=50_000,
        random_state=0,
        verbose=0,
    ):
        self.n_points = n_points
        self.method = method
        self.zeta = zeta
        self.block_weights = block_weights
        self.per_species = per_species
        self.jitter = jitter
        self.max_environments = max_environments
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None):
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
        """
        self._validate_params()
        X, ragged = self._check(X, reset=True)
        seed = self.random_state
        if isinstance(seed, np.random.RandomState):
            seed = seed.randint(2**31)
        rng = np.random.default_rng(seed)
        boundaries = X.source.boundaries if ragged else (0, X.shape[1])
        weights = self._weights(len(boundaries) - 1)
        chosen = self._choose(X, ragged, rng)
        points = self._gather(X, ragged, chosen)
        self.kernels_ = {
            group: SparseKernel(
                normalize_blocks(points[group], boundaries), boundaries, weights, self.zeta
            ).factorize(self.jitter, _name(group))
            for group in chosen
        }
        self.component_indices_ = np.concatenate(list(chosen.values()))
        if not ragged:
            self.component_indices_ = self.component_indices_[:, 0]
        self.component_numbers_ = np.concatenate(
            [np.full(len(index), group) for group, index in chosen.items()]
        )
        return self

    def transform(self, X):
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
    def components_(self):
        """The chosen rows, each column block normalised."""
        check_is_fitted(self)
        return np.concatenate([kernel.points.T for kernel in self.kernels_.values()])

    @property
    def jitter_(self):
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

    def _groups(self, X):
        """Group label, structure and atom of every environment, each of shape (n,)."""
        numbers = np.concatenate([s.numbers for s in X.structures])
        sizes = [len(s) for s in X.structures]
        structure = np.repeat(np.arange(len(sizes)), sizes)
        atom = np.concatenate([np.arange(n) for n in sizes])
        return (numbers if self.per_species else np.full(len(numbers), ALL)), structure, atom

    def _choose(self, X, ragged, rng):
        """For every group the chosen (structure, atom) pairs, or (row, 0)."""
        if ragged:
            labels, structure, atom = self._groups(X)
        else:
            labels = np.full(len(X), ALL)
            structure, atom = np.arange(len(X)), np.zeros(len(X), dtype=int)
        members = {}
        for group in np.unique(labels):
            rows = np.flatnonzero(labels == group)
            if len(rows) > self.max_environments:
                rows = np.sort(rng.choice(rows, self.max_environments, replace=False))
            members[int(group)] = rows
        short = {g: len(r) for g, r in members.items() if len(r) < self.n_points}
        if short:
            found = ", ".join(f"{n} of {_name(g)}" for g, n in short.items())
            limited = " (max_environments)" if self.max_environments < self.n_points else ""
            warnings.warn(
                f"n_points={self.n_points}, but there are only {found}{limited}; all of them are "
                "used",
                stacklevel=3,
            )
        # An exhausted group needs no scores.
        contested = np.concatenate(
            [r for g, r in members.items() if g not in short] or [np.zeros(0, dtype=int)]
        )
        sketch = self._sketch(X, ragged, np.sort(contested), rng) if len(contested) else None
        chosen = {}
        for group, rows in members.items():
            if group not in short:
                where = np.searchsorted(sketch[0], rows)
                picked = METHODS[self.method](sketch[1][where], self.n_points, rng)
                rows = rows[np.sort(picked)]
            chosen[group] = np.stack([structure[rows], atom[rows]], axis=1)
        return chosen

    def _sketch(self, X, ragged, wanted, rng):
        """Sketched normalised rows of the environments `wanted` (ascending)."""
        width = min(self.n_points + 10, 512)
        if not ragged:
            omega = sketch_matrix(X.shape[1], width, rng)
            return wanted, normalize_blocks(X[wanted].T, (0, X.shape[1])).T @ omega
        omega = sketch_matrix(X.n_features, width, rng)
        sketch = np.zeros((len(wanted), omega.shape[1]))
        first = 0
        for _, block in X.blocks(0, self.verbose, "sparse set"):
            here = slice(*np.searchsorted(wanted, [first, first + block.n_atoms]))
            local = np.full(block.n_atoms, -1)
            local[wanted[here] - first] = np.arange(here.start, here.stop)
            for tile in block.tiles:
                mine = local[tile.atoms] >= 0
                part = tile if mine.all() else tile.take(mine)
                norms = block_norms(part, X.source.boundaries)
                for b, columns, piece in block_pieces(part, X.source.boundaries):
                    sketched = part.values[:, piece] @ omega[columns]
                    sketch[local[part.atoms]] += sketched / norms[b][:, None]
            first += block.n_atoms
        return wanted, sketch

    def _gather(self, X, ragged, chosen):
        """For every group the chosen rows as columns, shape (n_features, n_points)."""
        if not ragged:
            return {group: X[index[:, 0]].T.copy() for group, index in chosen.items()}
        points = {g: np.zeros((X.n_features, len(index))) for g, index in chosen.items()}
        structures = np.unique(np.concatenate([index[:, 0] for index in chosen.values()]))
        for start, block in X[structures].blocks(0):
            here = structures[start : start + len(block.structures)]
            for group, index in chosen.items():
                slots = np.flatnonzero(np.isin(index[:, 0], here))
                local = np.searchsorted(here, index[slots, 0])
                _copy_rows(block, block.offsets[local] + index[slots, 1], points[group], slots)
        return points

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


class SparseSource:
    """Whitened kernel features, computed from the tiles of the descriptor."""

    def __init__(self, parent, kernels):
        self.parent = parent
        self.kernels = kernels
        sizes = [kernel.points.shape[1] for kernel in kernels.values()]
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
            K = np.zeros((len(atoms), self.kernels[group].points.shape[1]))
            for part, k in pieces:
                K[np.searchsorted(atoms, part)] += k
            tiles.append(Tile(atoms, (self.columns[group],), self.kernels[group].whiten(K)))
        return tiles


def _name(group):
    return "all kinds" if group == ALL else chemical_symbols[group]


def _copy_rows(block, atoms, points, slots):
    """Copy the features of some atoms of a block into columns of `points`."""
    for tile in block.tiles:
        where = np.searchsorted(tile.atoms, atoms)
        where = np.minimum(where, len(tile.atoms) - 1)
        hit = tile.atoms[where] == atoms
        for columns, piece in tile.pieces():
            points[columns, slots[hit]] = tile.values[where[hit], piece].T
