"""Features: per-atom descriptors of structures."""

from ._blocks import StructureBlocks
from ._cache import ROWS
from ._neighborhood import SOAPNeighborhood
from ._soap import SOAPFeaturizer
from ._source import SOAPSource
from ._spectrum import PowerSpectrum
from ._total_charge import TotalChargeFeatures
from ._vector_soap import VectorSOAPFeaturizer
from ._vector_source import VectorSpectrum

__all__ = ["SOAPFeaturizer", "StructureBlocks", "TotalChargeFeatures", "VectorSOAPFeaturizer"]
