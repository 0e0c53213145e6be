"""Features that also depend on the total charge of the structure."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from .._sklearn import Interval
from ..persistence import Persistent
from ..structures import DirectionalFeatures, FeatureGradient, FeatureSource, StructureFeatures
from ._no_frames import NoFrames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._typing import Array
    from ..structures import Neighborhood, Structure, Structures, Tile


class TotalChargeFeatures(  # type: ignore[call-arg]  # of a mixin without types
    NoFrames, Persistent, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):
    """Let the latent fields of a structure depend on its total charge.

    Features of `CURSparsifier` describe the neighbourhood of an atom, whatever the total charge of
    the structure is. This transformer replaces the features ``phi`` of a structure with total
    charge Q by::

        (phi, c Q phi) / sqrt(1 + c^2 Q^2)

    A latent field is then the sum of a part for all charge states and a part that is proportional
    to Q. Its kernel is the kernel of the neighbourhoods times the correlation of the charge states,
    ``(1 + c^2 Q Q') / sqrt((1 + c^2 Q^2) (1 + c^2 Q'^2))``. With ``c = 1``, fields of cations with
    Q = 1 and of anions with Q = -1 are independent, and both are correlated with those of neutral
    structures.

    Use it for single small ions, if several charge states have the same or similar geometries. Do
    not use it for clusters and crystals: the total charge is that of the whole structure, so that a
    distant ion would change the electronegativities of all other molecules.

    Parameters
    ----------
    weight : float, default=1.0
        The factor c, 1/e. With zero, the total charge has no influence.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer, TotalChargeFeatures
    >>> from skqeq.datasets import load_ions
    >>> X, y = load_ions()
    >>> model = make_pipeline(
    ...     SOAPFeaturizer(n_max=3, l_max=2),
    ...     CURSparsifier(n_points=5),
    ...     TotalChargeFeatures(),
    ...     KQEqRegressor(),
    ... )
    >>> model = model.fit(X[:60], y["dipole"][:60])
    >>> model.predict(X[60:62]).shape
    (2, 3)
    """

    _parameter_constraints = {"weight": [Interval(Real, 0.0, None, closed="left")]}

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def fit(self, X: StructureFeatures, y: object = None) -> Self:
        """Check the parameters.

        Parameters
        ----------
        X : StructureFeatures
            Features of `CURSparsifier`.
        y : ignored
            Exists for compatibility with scikit-learn.

        Returns
        -------
        self : TotalChargeFeatures
            The same object.
        """
        self._validate_params()
        _check(X)
        return self

    def transform(self, X: StructureFeatures) -> StructureFeatures:
        """Make the features depend on the total charges of the structures.

        Parameters
        ----------
        X : StructureFeatures
            Features of `CURSparsifier`.

        Returns
        -------
        features : StructureFeatures
            Features with twice as many columns.
        """
        _check(X)
        return StructureFeatures(X.structures, TotalChargeSource(X.source, float(self.weight)))

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags


def _check(X):
    """Refuse input that is not the output of a sparsifier."""
    if not isinstance(X, StructureFeatures):
        raise TypeError(
            f"TotalChargeFeatures takes the features of CURSparsifier, got {type(X).__name__}"
        )
    if X.source.has_neighborhoods or X.source.names:
        raise ValueError(
            "TotalChargeFeatures must follow CURSparsifier, inside every block of StructureBlocks"
        )


class TotalChargeSource(FeatureSource):
    """The features of another source, once for all charge states and once times the total charge.

    Parameters
    ----------
    parent : FeatureSource
        The features phi.
    weight : float
        The factor c, 1/e.
    """

    def __init__(self, parent: FeatureSource, weight: float) -> None:
        self.parent, self.weight = parent, weight
        self.n = parent.boundaries[-1]
        self.boundaries = (*parent.boundaries, *(self.n + b for b in parent.boundaries[1:]))
        self.row_bytes = 2 * parent.row_bytes
        if parent.signature is not None:
            self.signature = ("total charge", weight, parent.signature)
        self.elements, self.represented = parent.elements, parent.represented
        # The squared norms of the features do not change, and neither does the prior.
        self.prior_variance = parent.prior_variance
        self.verbose = parent.verbose
        self.has_gradient = parent.has_gradient

    def factors(self, charge: Array | float) -> tuple[Any, Any]:
        """Factors that multiply the features in the first and in the second half of the columns.

        Parameters
        ----------
        charge : float or ndarray
            Total charge, e.

        Returns
        -------
        first, second : float or ndarray
            Their squares sum to one.
        """
        norm = np.hypot(1.0, self.weight * charge)
        return 1.0 / norm, self.weight * charge / norm

    def tiles(self, structures: Sequence[Structure] | Structures) -> list[Tile]:
        """Two tiles for every tile of the parent."""
        charge = np.concatenate([np.full(len(s), s.charge) for s in structures])
        tiles = []
        for tile in self.parent.tiles(structures):
            first, second = self.factors(charge[tile.atoms, None])
            columns = tuple(slice(c.start + self.n, c.stop + self.n) for c in tile.columns)
            tiles.append(tile._replace(values=first * tile.values))
            tiles.append(tile._replace(columns=columns, values=second * tile.values))
        return tiles

    def gradient(self, structure: Structure) -> TotalChargeGradient:
        """See `FeatureSource.gradient`."""
        factors = self.factors(structure.charge)
        return TotalChargeGradient(self.parent.gradient(structure), factors, self.n)

    def coarsened(self, n_points: int) -> tuple[TotalChargeSource, Callable[[Array], Array]]:
        """See `FeatureSource.coarsened`."""
        parent, extend = self.parent.coarsened(n_points)

        def prolong(weights: Array) -> Array:
            return np.concatenate([extend(half) for half in np.split(weights, 2)])

        return TotalChargeSource(parent, self.weight), prolong

    def dual(self, weights: Array) -> Array:
        """See `FeatureSource.dual`."""
        halves = weights[..., : self.n], weights[..., self.n :]
        return np.concatenate([self.parent.dual(half) for half in halves], axis=-1)


class TotalChargeGradient(FeatureGradient):
    """The derivatives of the features of a `TotalChargeSource`, at fixed total charge.

    Parameters
    ----------
    parent : FeatureGradient
        The derivatives of phi.
    factors : tuple of float
        Factors of phi in both halves of the columns.
    n : int
        Number of columns of phi.
    """

    def __init__(self, parent: FeatureGradient, factors: tuple[float, float], n: int) -> None:
        self.n_atoms = parent.n_atoms
        self.parent, self.factors, self.n = parent, factors, n

    @property
    def n_bytes(self) -> int:
        """Size of phi and its derivatives."""
        return self.parent.n_bytes

    def merged(self, array):
        """The sum of both halves of the columns, times their factors."""
        return self.factors[0] * array[..., : self.n] + self.factors[1] * array[..., self.n :]

    def doubled(self, array):
        """An array for phi, as one for both halves of the columns."""
        return np.concatenate([factor * array for factor in self.factors], axis=-1)

    def field(self, dual: Array) -> Array:
        """The latent field of every atom."""
        return self.parent.field(self.merged(dual))

    def contract(self, cotangents: Array) -> Array:
        """Cotangents times the features of all columns."""
        return self.doubled(self.parent.contract(cotangents))

    def pair_gradients(self, dual: Array) -> Iterator[tuple[Neighborhood, Array]]:
        """See `FeatureGradient.pair_gradients`."""
        return self.parent.pair_gradients(self.merged(dual))

    def pull_back(self, cotangents: Array) -> tuple[Array, Array]:
        """See `FeatureGradient.pull_back`."""
        return self.parent.pull_back(self.merged(cotangents))

    def jacobian(self, q: Array) -> tuple[Array, Array]:
        """See `FeatureGradient.jacobian`."""
        jacobian, virial = self.parent.jacobian(q)
        return self.doubled(jacobian), self.doubled(virial)

    def directional(self, displacement: Array, strain: Array) -> TotalChargeDirectional:
        """See `FeatureGradient.directional`."""
        parent = self.parent.directional(displacement, strain)
        return TotalChargeDirectional(self, parent)

    def residual_variances(self) -> tuple[Array, Array, Array]:
        """The residual variances of phi; the squares of the factors sum to one."""
        return self.parent.residual_variances()


class TotalChargeDirectional(DirectionalFeatures):
    """The derivatives of the features of a `TotalChargeSource` along one direction.

    Parameters
    ----------
    gradient : TotalChargeGradient
        The derivatives with respect to all coordinates.
    parent : DirectionalFeatures
        The derivatives of phi along the direction.
    """

    def __init__(self, gradient: TotalChargeGradient, parent: DirectionalFeatures) -> None:
        self._whole, self._parent = gradient, parent

    def field(self, dual: Array) -> Array:
        """See `DirectionalFeatures.field`."""
        return self._parent.field(self._whole.merged(dual))

    def contract(self, cotangents: Array) -> Array:
        """See `DirectionalFeatures.contract`."""
        return self._whole.doubled(self._parent.contract(cotangents))
