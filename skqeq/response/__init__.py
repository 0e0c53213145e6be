"""Charge responses: how charges follow from the latent fields."""

from ._none import NoCharges
from ._qeq import Equilibrium, equilibrate

__all__ = ["Equilibrium", "NoCharges", "equilibrate"]
