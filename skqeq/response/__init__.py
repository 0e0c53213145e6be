"""Charge responses: how charges follow from the latent fields."""

from ._qeq import Equilibrium

__all__ = ["Equilibrium"]
