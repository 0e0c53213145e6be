"""Sparse Gaussian processes: choose sparse points, and compute whitened kernel features."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from ase.data import chemical_symbols
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from .._counts import counted
from .._sklearn import Interval, StrOptions
from .._state import check_array, check_that, check_type, is_number
from .._warnings import warn_once
from ..parameters import MAX_ATOMIC_NUMBER
from ..persistence import Persistent
from ..structures import (
    StackedSource,
    StructureFeatures,
    Tile,
    check_same_features,
    holds_structures,
)
from ._environments import environments_of
from ._kernel import ALL, ReweightedKernel, SparseKernel, normalize_blocks
from ._selection import MAX_SKETCH, METHODS, distinct
from ._source import SparseSource

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .._typing import Array

# Types of kernels in files of models.
KERNELS = (SparseKernel, ReweightedKernel)


class CURSparsifier(  # type: ignore[call-arg]  # of a mixin without types
    Persistent,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
    auto_wrap_output_keys=None,
):
    """Select representative environments by CUR, and compute whitened kernel features.

    With M sparse points, ``phi = K_nM L^-T`` and ``K_MM = L L^T``, a Gaussian process with the
    Nystroem kernel ``K_nM K_MM^-1 K_Mn`` is the linear model ``phi w`` with independent
    standard normal weights. The kernel is::

        k(p, p') = sum_b w_b (p_b . p_b' / |p_b| |p_b'|)^zeta,     sum_b w_b = 1,

    for two environments of the same element, and zero otherwise. The sum runs over the column
    blocks b of the features; there is one block for each SOAP cutoff.

    Parameters
    ----------
    n_points : int, default=1000
        Number of sparse points per element. Copies of an environment, such as those of equivalent
        atoms or of a structure that occurs twice, count once. If there are fewer environments, all
        of them are used, with a warning.
    method : {"cur", "fps"}, default="cur"
        "cur" draws environments with probability proportional to their leverage in the dominant
        column space [1]_. "fps" selects farthest points.
    zeta : int, default=2
        Exponent of the kernel.
    block_weights : sequence of float or dict of {str: sequence of float}, default=None
        Weights of the column blocks, which are normalised to the sum 1; None means equal weights. A
        dict gives separate weights to the latent fields of a model, such as ``{"chi": (0.9, 0.1),
        "reference": (1.0, 0.0)}``. The features then have one block of columns for each field, with
        its name, like those of `StructureBlocks`. All fields have the same sparse points.
    per_species : bool, default=True
        Whether sparse points are selected for each element separately. If False, all environments
        form one group with `n_points` in total, as in [2]_.
    jitter : float, default=1e-10
        Number added to the diagonal elements of ``K_MM``, which are 1.
    max_environments : int, default=None
        Number of candidates per element. Sparse points are chosen among this many random
        environments. The candidates of all elements come from a random choice of structures, at
        most this many. For rare elements all structures are searched. More candidates make the
        selection slower and improve it little. None means 5000, or ``5 * n_points`` if that is
        larger.
    random_state : int or None, default=0
        Seed for the random choices.
    dtype : {"float64", "float32"}, default="float64"
        Precision of the matrix products with features, which take most of the time of a large fit.
        With "float32" the directions that all environments share are still multiplied in double
        precision. Predictions change by less than 1e-4 of their value. Forces are always computed
        in double precision.
    verbose : int, default=0
        Above 0 a progress bar is shown.

    Attributes
    ----------
    components_ : ndarray of shape (n_points_out, n_features)
        The chosen rows, each column block normalised.
    component_indices_ : ndarray of shape (n_points_out, 2) or (n_points_out,)
        Structure and atom of each point, or the row for array input.
    component_numbers_ : ndarray of shape (n_points_out,)
        Atomic number of each point; 0 if elements are mixed, and for array input.
    jitter_ : dict of {int: float}
        Number that was added to the diagonal of each element's ``K_MM``.
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
        "block_weights": ["array-like", dict, None],
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
        block_weights: ArrayLike | dict[str, ArrayLike] | None = None,
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
            Features of structures, or one environment per row.
        y : ignored
            Exists for compatibility with scikit-learn.

        Returns
        -------
        self : CURSparsifier
            The fitted sparsifier.
        """
        self._validate_params()
        X = self._check(X, reset=True)
        seed = self.random_state
        if isinstance(seed, np.random.RandomState):
            seed = seed.randint(2**31)
        rng = np.random.default_rng(seed)
        distinct_structures = _distinct_structures(X)
        if len(distinct_structures) < len(X):
            X = X[distinct_structures]
        environments = environments_of(X, bool(self.verbose))
        boundaries = environments.boundaries
        weights = self._weights(len(boundaries) - 1)
        if isinstance(weights, dict) and not isinstance(X, StructureFeatures):
            raise ValueError("block_weights for several fields need features of structures")
        chosen = self._choose(environments, rng)
        points = environments.gather(chosen)
        for group in chosen:
            normalize_blocks(points[group], boundaries)
        first, *others = weights.values() if isinstance(weights, dict) else [weights]
        kernels = {
            group: SparseKernel(points[group], boundaries, first, self.zeta, self.dtype)
            for group in chosen
        }
        by_field = [kernels] + [
            {group: ReweightedKernel(kernel, other) for group, kernel in kernels.items()}
            for other in others
        ]
        for of_field in by_field:
            for group, kernel in of_field.items():
                kernel.factorize(self.jitter, _name(group))
        self.kernels_ = dict(zip(weights, by_field)) if isinstance(weights, dict) else kernels
        located = environments.locate(np.concatenate(list(chosen.values())))
        if located.ndim == 2:
            located[:, 0] = distinct_structures[located[:, 0]]
        self.component_indices_ = located
        self.component_numbers_ = np.concatenate(
            [np.full(len(index), group) for group, index in chosen.items()]
        )
        return self

    def transform(self, X: StructureFeatures | ArrayLike) -> Any:
        """Whitened kernel features ``phi``.

        Parameters
        ----------
        X : StructureFeatures or array-like of shape (n_samples, n_features)
            Features of structures or rows of an array, whichever was passed to `fit`.

        Returns
        -------
        phi : StructureFeatures or ndarray of shape (n_samples, n_points_out)
            Every row has a norm of at most one. An atom has non-zero columns only for sparse
            points of its own element.
        """
        check_is_fitted(self)
        X = self._check(X, reset=False)
        if isinstance(X, StructureFeatures):
            sources = [SparseSource(X.source, kernels) for kernels in self._kernels.values()]
            names = tuple(self._kernels)
            source = StackedSource(sources, names) if names != ("",) else sources[0]
            return StructureFeatures(X.structures, source)
        [kernel] = self.kernels_.values()
        tile = Tile(np.arange(len(X)), (slice(0, X.shape[1]),), X)
        return np.ascontiguousarray(kernel.whiten(kernel(tile)))

    @property
    def components_(self) -> Array:
        """The chosen rows, each column block normalised."""
        check_is_fitted(self)
        kernels = next(iter(self._kernels.values()))
        return np.concatenate([kernel.points for kernel in kernels.values()])

    @property
    def jitter_(self) -> dict[int, float]:
        """Largest number that was added to the diagonal of each group's kernel matrices."""
        check_is_fitted(self)
        every = list(self._kernels.values())
        return {group: max(kernels[group].jitter for kernels in every) for group in every[0]}

    @property
    def _kernels(self):
        """The kernels by the name of the field, which is empty if all fields have the same."""
        by_field = any(isinstance(kernels, dict) for kernels in self.kernels_.values())
        return self.kernels_ if by_field else {"": self.kernels_}

    @property
    def _n_features_out(self):
        return len(self.component_indices_) * len(self._kernels)

    def _check(self, X, reset):
        """Check the input; in `fit` (`reset`) also store the number and meaning of its columns."""
        ragged = isinstance(X, StructureFeatures)
        if not reset:
            self._check_kind(X, ragged)
        if not ragged and holds_structures(X):
            raise TypeError(
                f"CURSparsifier takes the features of structures, got {type(X).__name__}; use it "
                "in a pipeline after SOAPFeaturizer, e.g. make_pipeline(SOAPFeaturizer(), "
                "CURSparsifier(), KQEqRegressor())"
            )
        if not ragged:
            return validate_data(self, X, dtype=np.float64, reset=reset)
        if reset:
            if any(source.n_components > 1 for source in X.source.sources):
                raise ValueError(
                    "CURSparsifier takes invariant features, not vectors: give those of "
                    "VectorSOAPFeaturizer directly to the model, as a block of StructureBlocks"
                )
            if X.source.elements is not None:
                advice = "the features describe no other elements"
                X.structures.check_elements(X.source.elements, advice)
            self.n_features_in_ = X.n_features
            self.features_ = X.source.signature
            self.__dict__.pop("feature_names_in_", None)
        elif X.n_features != self.n_features_in_:
            raise ValueError(
                f"X has {counted(X.n_features, 'feature')}, but CURSparsifier was fitted with "
                f"{self.n_features_in_}"
            )
        else:
            check_same_features(X, self.features_, type(self).__name__)
        return X

    def _check_kind(self, X, ragged):
        """Raise an error for an array after a fit to features of structures, and vice versa."""
        fitted_to_structures = self.component_indices_.ndim == 2
        if ragged and not fitted_to_structures:
            raise TypeError(
                "CURSparsifier was fitted with an array of rows, but X are the features of "
                f"{counted(len(X), 'structure')}; fit it with features of structures, too"
            )
        if fitted_to_structures and not ragged:
            shape = f" of shape {np.shape(X)}" if isinstance(X, np.ndarray) else ""
            raise TypeError(
                "CURSparsifier was fitted with the features of structures, but X is a "
                f"{type(X).__name__}{shape}; pass the result of SOAPFeaturizer.transform, or "
                "StructureFeatures.from_arrays"
            )

    def _check_fitted(self):
        check_type(self, "kernels_", dict)
        by_field = self._kernels
        boundaries, groups = set(), []
        for name, kernels in by_field.items():
            correct = isinstance(name, str) and isinstance(kernels, dict) and bool(kernels)
            correct = correct and all(type(kernel) in KERNELS for kernel in kernels.values())
            correct = correct and all(is_number(group, "i", least=ALL) for group in kernels)
            correct = correct and max(kernels) <= MAX_ATOMIC_NUMBER
            check_that(bool(correct), self, "kernels_", "a SparseKernel for every atomic number")
            for kernel in kernels.values():
                kernel.check_loaded()
                boundaries.add(kernel.boundaries)
            groups.append([g for g, kernel in kernels.items() for _ in kernel.points])
        check_that(len(boundaries) == 1, self, "kernels_", "kernels of the same features")
        correct = all(of_field == groups[0] for of_field in groups)
        check_that(correct, self, "kernels_", "the same number of points in every field")
        n_features = boundaries.pop()[-1]
        correct = is_number(self.n_features_in_, "i") and self.n_features_in_ == n_features
        check_that(correct, self, "n_features_in_", f"{n_features}, as in kernels_")
        groups = np.array(groups[0])
        numbers = check_array(self, "component_numbers_", groups.shape, "i")
        expected = "the group of every point in kernels_"
        check_that(np.array_equal(numbers, groups), self, "component_numbers_", expected)
        columns = (2,) if hasattr(self, "features_") else ()
        check_array(self, "component_indices_", (len(groups), *columns), "i", least=0)

    def _weights(self, n_blocks):
        """Normalised weights of the column blocks; for several fields, a dict of them."""
        given = self.block_weights
        if given is None:
            return np.full(n_blocks, 1.0 / n_blocks)
        by_field = given if isinstance(given, dict) else {"": given}
        result = {}
        for name, of_field in by_field.items():
            weights = np.asarray(of_field, dtype=np.float64)
            if weights.shape != (n_blocks,) or not (weights >= 0).all() or weights.sum() == 0:
                raise ValueError(
                    f"block_weights must be {n_blocks} non-negative numbers, one per column block, "
                    f"got {of_field!r}" + (f" for {name}" if name else "")
                )
            result[name] = weights / weights.sum()
        if not isinstance(given, dict):
            return result[""]
        if not all(isinstance(name, str) and name for name in result):
            raise ValueError(f"the keys of block_weights must be names of fields, got {given!r}")
        return result

    def _choose(self, environments, rng):
        """Indices of the chosen environments of every group, ascending."""
        groups = environments.groups(self.per_species)
        members = {int(g): np.flatnonzero(groups == g) for g in np.unique(groups)}
        max_candidates = self.max_environments or max(5000, 5 * self.n_points)
        if max(map(len, members.values())) > max_candidates:
            members = _candidates(members, max_candidates, environments.ranks(rng), rng)
        candidates = np.sort(np.concatenate(list(members.values())))
        sketch = environments.sketch(candidates, min(self.n_points + 10, MAX_SKETCH), rng)
        chosen, short = {}, []
        for group, index in members.items():
            rows = sketch[np.searchsorted(candidates, index)]
            first = distinct(rows)
            index, rows = index[first], rows[first]
            if len(index) < self.n_points:
                short.append(f"{len(index)} of {_name(group)}")
            else:
                index = index[np.sort(METHODS[self.method](rows, self.n_points, rng))]
            chosen[group] = index
        if short:
            limited = " (max_environments)" if max_candidates < self.n_points else ""
            warn_once(
                f"n_points={self.n_points}, but there are only {', '.join(short)}{limited}, not "
                "counting copies; all of them are used",
                "n_points",
            )
        return chosen

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


def _distinct_structures(X):
    """Indices of the structures that are not copies of earlier ones.

    All rows of an array count as distinct, and all structures that are read on demand; for these,
    environments are compared later.
    """
    if not isinstance(X, StructureFeatures) or X.structures.lazy:
        return np.arange(len(X))
    first = {}
    for i, structure in enumerate(X.structures):
        first.setdefault(structure.digest, i)
    return np.array(list(first.values()))


def _candidates(members, n, ranks, rng):
    """At most n random environments of every group, from few structures, ascending.

    The structures are in a random order, which their ranks describe. The first `reach` structures
    contain n environments of every large group, unless this would take more than n structures.
    Candidates are drawn from all atoms of these structures. If a group has too few atoms in them,
    atoms of later structures are added in the order of the ranks.
    """
    large = [ranks[index] for index in members.values() if len(index) > n]
    reach = min(n, max(np.partition(r, n - 1)[n - 1] for r in large) + 1)
    candidates = dict(members)
    for group, index in members.items():
        late = np.maximum(ranks[index], reach - 1)
        order = np.lexsort((rng.random(len(index)), late))
        candidates[group] = np.sort(index[order[:n]])
    return candidates


def _name(group):
    """Name of a group in messages."""
    return "all kinds" if group == ALL else chemical_symbols[group]
