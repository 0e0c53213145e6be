"""Charge responses: how charges follow from the latent fields.

`Response` and `Equilibrium` are base classes: the settings of a charge model, and the charges of
one structure. The equations are in ``_qeq`` and ``_flow``. Their linear systems are solved in
``skqeq/electrostatics/_solvers.py``.
"""

from ._equilibrium import Equilibrium
from ._flow import ChargeFlow, FlowEquilibrium
from ._flows import Flows
from ._none import NoCharges, NoChargesEquilibrium
from ._qeq import QEq, QEqEquilibrium, equilibrate
from ._response import Response, check_response

# Names that are imported above but not listed here are for the other folders of the package.
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
