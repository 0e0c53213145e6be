"""Reference data: small molecules, ions and clusters of water."""

from ._base import load_ions, load_molecules, load_water, load_water_curves
from ._fetch import fetch_water

__all__ = ["fetch_water", "load_ions", "load_molecules", "load_water", "load_water_curves"]
