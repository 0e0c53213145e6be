"""Commands of `skqeq.cli`; the module of a command is imported when the command runs."""

from ..response import ChargeFlow, QEq

# Values of --response.
RESPONSES = {"qeq": QEq, "flow": ChargeFlow}
