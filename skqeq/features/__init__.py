"""Features: per-atom descriptors of structures."""

from ._soap import SOAPFeaturizer

__all__ = ["SOAPFeaturizer"]
