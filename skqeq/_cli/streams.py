"""Standard streams that are closed, full, or read by a process that has ended."""

import os
import sys
from contextlib import suppress


def open_streams():
    """Open standard error if it is closed.

    Otherwise the next file that is opened could take its place, and receive what libraries print.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")


def print_error(message):
    """Print to standard error, or to standard output if standard error is closed."""
    with suppress(OSError):
        print(message, file=sys.stdout if sys.__stderr__ is None else sys.stderr)


def flush_output():
    """Write what is still in memory, to see errors such as a full disk."""
    if sys.stdout is not None:
        sys.stdout.flush()


def discard_output():
    """Discard what cannot be written to standard output, so that Python does not try again."""
    try:
        flush_output()
    except OSError:
        with suppress(OSError):  # a stream without a file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
