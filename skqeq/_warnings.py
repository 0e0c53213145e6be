"""Warnings that point at the line of the user, and that one call gives once."""

from __future__ import annotations

import re
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# Calls inside these packages belong to the call of the user.
PACKAGES = {"skqeq", "sklearn", "joblib", "contextlib"}
# Modules that run the tasks of parallel workers. A worker does not know the line of the user. Its
# own functions run until the worker ends, but a task belongs to one call of the user.
EXECUTORS = ("joblib.externals", "multiprocessing", "concurrent.futures", "threading")
# Texts that workers in this process have given. A search with many candidates fits each fold many
# times, always in another task. The registry of Python would not do: scikit-learn sets the filters
# for each task, and Python then forgets what it has given.
GIVEN_BY_WORKERS: set[str] = set()
# Parts of a message that differ between the folds of one search: counts, scores, and formulas of
# structures. The value of a parameter, as in "n_points=100", is the same in all folds.
OF_FOLDS = re.compile(r"(?<![\w=.])[-+]?\d[\d.]*(e[-+]?\d+)?|\([^()]*\)")
# Name under which the outermost call remembers which warnings it has given.
GIVEN = "__skqeq_warnings__"


def warn_once(message: str, kind: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called the package, but once per kind and call.

    A cross-validation fits and scores a model many times, and every fold could give the same
    warning. Only the first one is useful. Parallel workers know neither the line nor the call of
    the user; each gives texts once that differ in nothing but counts and other numbers.

    Parameters
    ----------
    message : str
        The warning.
    kind : str
        Warnings of the same kind are given once per call of the user, whatever they say.
    category : type, default=UserWarning
        Class of the warning.
    """
    call, depth = _outermost_call()
    given = call.f_locals.get(GIVEN, ())
    if kind in given:
        return
    # An additional entry among the local variables, which ends with the call.
    call.f_locals[GIVEN] = (*given, kind)
    if call.f_back is not None and _module(call.f_back).startswith(EXECUTORS):
        text = OF_FOLDS.sub("#", message)
        if text not in GIVEN_BY_WORKERS:
            GIVEN_BY_WORKERS.add(text)
            warnings.warn_explicit(message, category, "parallel worker", 1, "skqeq")
    else:
        warnings.warn(message, category, stacklevel=depth + 1)


@contextmanager
def muted(kind: str) -> Iterator[None]:
    """Leave out warnings of a kind for some time, for instance because a later fit repeats them.

    Parameters
    ----------
    kind : str
        See `warn_once`.
    """
    call, _ = _outermost_call()
    given = call.f_locals.get(GIVEN, ())
    call.f_locals[GIVEN] = (*given, kind)
    try:
        yield
    finally:
        call.f_locals[GIVEN] = given


def _outermost_call() -> tuple[FrameType, int]:
    """The function of a known package that the user called, and the depth of the user's frame."""
    frame = sys._getframe(1)
    depth = 1
    while frame.f_back is not None and _in_call(_module(frame.f_back)):
        frame, depth = frame.f_back, depth + 1
    return frame, depth


def _in_call(module):
    return module.partition(".")[0] in PACKAGES and not module.startswith(EXECUTORS)


def _module(frame):
    return frame.f_globals.get("__name__", "")
