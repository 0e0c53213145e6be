"""Numbers of things in messages."""

from __future__ import annotations

__all__ = ["counted"]


def counted(n: int, noun: str) -> str:
    """A number and its noun, in the singular for one.

    Parameters
    ----------
    n : int
        The number.
    noun : str
        The noun in the singular; its plural ends in "s".

    Returns
    -------
    text : str

    Examples
    --------
    >>> from skqeq._counts import counted
    >>> counted(1, "structure"), counted(2, "sparse point")
    ('1 structure', '2 sparse points')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
