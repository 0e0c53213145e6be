"""Features: per-atom descriptors of structures."""

from ._blocks import StructureBlocks
from ._soap import SOAPFeaturizer

__all__ = ["SOAPFeaturizer", "StructureBlocks"]
