"""Commands of `skqeq.cli`, which defines their options.

The module of a command is imported when the command runs.
"""

from ..response import ChargeFlow, QEq

# Values of --response.
RESPONSES = {"qeq": QEq, "flow": ChargeFlow}
