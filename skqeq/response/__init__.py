"""Charge responses: how charges follow from the latent fields."""

from ._equilibrium import Equilibrium
from ._flow import ChargeFlow, FlowEquilibrium
from ._flows import Flows
from ._none import NoCharges
from ._qeq import QEq, QEqEquilibrium, equilibrate
from ._response import Response, check_response

# isort: split
# Not public: for the other folders of the package.
from ._none import NoChargesEquilibrium as NoChargesEquilibrium

__all__ = [
    "ChargeFlow",
    "Equilibrium",
    "FlowEquilibrium",
    "Flows",
    "NoCharges",
    "QEq",
    "QEqEquilibrium",
    "Response",
    "check_response",
    "equilibrate",
]
