"""Charge responses: how charges follow from the latent fields."""

from ._flow import ChargeFlow, FlowEquilibrium, Flows
from ._none import NoCharges
from ._qeq import Equilibrium, QEq, equilibrate

__all__ = [
    "ChargeFlow",
    "Equilibrium",
    "FlowEquilibrium",
    "Flows",
    "NoCharges",
    "QEq",
    "equilibrate",
]
