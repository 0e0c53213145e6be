"""The command line: ``skqeq demo | check | fit | predict | evaluate | completion``.

The rest of the package is imported when a command runs, because that takes seconds.
"""

import sys
import traceback
import warnings
from contextlib import suppress
from importlib import import_module

from ._cli.parser import build_parser
from ._cli.streams import discard_output, flush_output, open_streams, print_error


def main(argv=None):
    """Run a command.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments; None means the arguments of the process.

    Returns
    -------
    code : int
        0 for success, 1 if structures were skipped or `check` found mistakes, 2 for an error in
        arguments or files, 130 after Ctrl-C, 141 if the reader of the output closed its pipe.
    """
    open_streams()
    try:
        args = build_parser().parse_args(argv)
        if argv is None:
            _import_vesin()
        return _run_command(args)
    except SystemExit:  # of the parser, after help or an error
        discard_output()
        raise
    except KeyboardInterrupt:
        print_error("\nskqeq: interrupted")
        return 130


def _import_vesin():
    """Import vesin without torch, which takes seconds and is not needed for NumPy arrays.

    In this process nobody else uses vesin.
    """
    if "torch" not in sys.modules:
        sys.modules["torch"] = None
        with suppress(ImportError):
            import_module("vesin")
        del sys.modules["torch"]


def _run_command(args):
    """Run the command of the arguments, and print its errors."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = import_module(f"skqeq._cli.{args.command}").run(args) or 0
        flush_output()
    except BrokenPipeError:
        discard_output()
        return 141
    except (ValueError, TypeError, OSError, ImportError) as error:
        if args.debug:
            traceback.print_exc()
        message = " ".join(str(error).split()) or type(error).__name__
        print_error(f"skqeq {args.command}: error: {message}")
        discard_output()
        return 2
    return code


def _show_warning(message, *_, **__):
    with suppress(OSError):
        print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
