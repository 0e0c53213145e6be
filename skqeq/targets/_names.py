"""Names of targets, and advice for names that are not among them."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from ._observables import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable

# Names of other programs and papers that are more similar to another target, or to none.
OTHER_NAMES = {
    "bec": "born_effective_charges",
    "born_charges": "born_effective_charges",
    "dipole_moment": "dipole",
    "dipole_norm": "dipole_magnitude",
    "dipole_vector": "dipole",
    "esp": "potential",
    "mu": "dipole",
    "q": "charges",
}


def check_names(names: Iterable[str]) -> None:
    """Refuse names that are not names of targets.

    Parameters
    ----------
    names : iterable of str
        Names of targets.

    Raises
    ------
    ValueError
        For an unknown name; the message suggests the target with the most similar name.
    """
    for name in names:
        if name not in TARGETS:
            known = ", ".join(TARGETS)
            raise ValueError(f"unknown target {name!r}; known: {known}{_suggestion(name)}")


def _suggestion(name):
    """The target that the user probably means, as a part of a message; empty if there is none."""
    candidates = {name: name for name in TARGETS} | OTHER_NAMES
    similar = get_close_matches(str(name).lower(), candidates, n=1)
    return f"; did you mean {candidates[similar[0]]!r}?" if similar else ""
