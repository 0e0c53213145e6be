"""The parser of the command line."""

import argparse
import sys
import textwrap

from .. import __version__
from .options import OPTIONS
from .streams import print_error
from .texts import COMMANDS, EXAMPLES, TRUST


class Parser(argparse.ArgumentParser):
    """Prints errors also if standard error is closed."""

    def error(self, message):
        """Print the usage and the message, and exit."""
        print_error(f"{self.format_usage()}{self.prog}: error: {message}")
        sys.exit(2)


def build_parser():
    """Build the parser of all commands."""
    parser = Parser(
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
