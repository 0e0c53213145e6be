"""All private names of scikit-learn that skqeq uses.

These names are not part of scikit-learn's public interface and can change in any release. Only this
file must then be adapted.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from sklearn.metrics._scorer import _PassthroughScorer as PassthroughScorer
from sklearn.pipeline import FeatureUnion
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

__all__ = ["HasMethods", "Interval", "NamedUnion", "PassthroughScorer", "StrOptions"]


# A mixin of scikit-learn takes the argument `auto_wrap_output_keys`, but has no types.
class NamedUnion(FeatureUnion, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """A `FeatureUnion` that knows the names of its transformers when it joins their results."""

    @abstractmethod
    def _join(self, results: dict[str, Any]) -> Any:
        """Join the results; the keys are the names of the transformers."""

    def _hstack(self, Xs):
        # `transform` and `fit_transform` of scikit-learn 1.8 and 1.9 call this method. The original
        # method calls `np.hstack`, which would lose the names.
        return self._join(dict(zip([name for name, *_ in self._iter()], Xs)))
