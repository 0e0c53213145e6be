"""Reference data for molecules, ions and water clusters, and readers for files of any size."""

from ._base import load_ions, load_molecules, load_water, load_water_curves
from ._fetch import fetch_water
from ._open import READERS, StructureFile, naming_structure, open_structures
from ._qm9 import fetch_qm9
from ._xyz import parse_frame, split_frames

__all__ = [
    "StructureFile",
    "fetch_qm9",
    "fetch_water",
    "load_ions",
    "load_molecules",
    "load_water",
    "load_water_curves",
    "open_structures",
]
