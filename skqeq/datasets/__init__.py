"""Bundled reference data: small molecules and ions with dipoles and charges."""

from ._base import load_ions, load_molecules

__all__ = ["load_ions", "load_molecules"]
