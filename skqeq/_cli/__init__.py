"""Commands of `skqeq.cli`, one module each, which is imported when the command runs."""

from ..response import ChargeFlow, QEq

# Values of --response.
RESPONSES = {"qeq": QEq, "flow": ChargeFlow}
