"""Everything private of scikit-learn that skqeq uses, in one place.

These names are not part of scikit-learn's public interface and can change in any release. If they
do, only this file must follow.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from sklearn.pipeline import FeatureUnion
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

__all__ = ["HasMethods", "Interval", "NamedUnion", "StrOptions"]


class NamedUnion(FeatureUnion, auto_wrap_output_keys=None):  # type: ignore[call-arg]  # of a mixin without types
    """A `FeatureUnion` that joins the results of its transformers with their names at hand."""

    @abstractmethod
    def _join(self, results: dict[str, Any]) -> Any:
        """The result of the union from those of the transformers by name."""

    def _hstack(self, Xs):
        # `transform` and `fit_transform` call it in scikit-learn 1.8 and 1.9. `np.hstack`, which it
        # calls itself, would lose the names.
        return self._join(dict(zip([name for name, *_ in self._iter()], Xs)))
