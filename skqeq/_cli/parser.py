"""The parser of the command line."""

import argparse
import textwrap

from .. import __version__
from .options import OPTIONS
from .texts import COMMANDS, EXAMPLES, TRUST


def build_parser():
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="skqeq",
        description="Kernel charge equilibration: learn charges, dipoles, energies and forces.",
        epilog=f"{_examples('main')}\n\n{TRUST}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"skqeq {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, description, notes) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}. {description}".strip(),
            epilog="\n\n".join([_examples(name), *notes]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("-q", "--quiet", action="store_true", help="no progress bars")
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        OPTIONS[name](command)
    return parser


def _examples(command):
    return "examples:\n" + textwrap.indent(textwrap.dedent(EXAMPLES[command]).strip(), "  ")
