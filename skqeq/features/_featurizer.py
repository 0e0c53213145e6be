"""What the transformers of structures have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ..persistence import Persistent
from ..structures import StructureFeatures, collect
from ._no_frames import NoFrames

if TYPE_CHECKING:
    from .._typing import StructuresLike


class Featurizer(  # type: ignore[call-arg]  # of a mixin without types
    NoFrames, Persistent, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):
    """A transformer of structures to features of their atoms.

    A subclass defines `_fit` and `_features`, which receive structures that `collect` has checked.
    """

    verbose: Any

    if TYPE_CHECKING:  # defined by subclasses

        def _fit(self, structures: Any) -> None: ...

        def _features(self, structures: Any) -> StructureFeatures: ...

    def transform(self, X: StructuresLike) -> StructureFeatures:
        """Return the features of structures, which are computed when a later step needs them.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Structures, see `skqeq.check_structures`.

        Returns
        -------
        features : StructureFeatures
            One row of `n_features_out_` columns per atom.
        """
        check_is_fitted(self)
        return self._features(collect(X, bool(self.verbose)))

    def fit_transform(self, X: StructuresLike, y: object = None) -> StructureFeatures:
        """Fit, and return the features of the same structures, which are checked only once.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Structures, see `skqeq.check_structures`.
        y : ignored
            Exists for compatibility with scikit-learn.

        Returns
        -------
        features : StructureFeatures
            One row of `n_features_out_` columns per atom.
        """
        structures = collect(X, bool(self.verbose))
        self._fit(structures)
        return self._features(structures)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags
