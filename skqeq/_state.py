"""Checks of fitted objects that were read from a file.

`skqeq.load` calls the method `check_loaded` of a model, which calls that of its parts. A file can
hold arrays that do not belong together, for example because a program edited it. Predictions would
then fail with an error that names neither the file nor the array, or they would be wrong.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from .parameters import MAX_ATOMIC_NUMBER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._typing import Array

__all__ = ["check_array", "check_elements", "check_that", "check_type", "is_number"]


def check_that(correct: bool, owner: object, name: str, expected: str) -> None:
    """Refuse an attribute.

    Parameters
    ----------
    correct : bool
        Whether the attribute is accepted.
    owner : object
        The object.
    name : str
        Name of its attribute.
    expected : str
        Description of a correct value, as in "must be <expected>".

    Raises
    ------
    ValueError
        The message names the attribute and its value.
    """
    if not correct:
        value = getattr(owner, name)
        if isinstance(value, np.ndarray):
            value = f"an array of {value.dtype} of shape {value.shape}"
        elif not isinstance(value, (bool, int, float, str, type(None))):
            value = f"a {type(value).__name__}"
        else:
            value = f"{value!r:.40}"
        raise ValueError(f"{name} of {type(owner).__name__} is {value}, but must be {expected}")


def check_type(owner: object, name: str, *types: type) -> Any:
    """Check the type of an attribute.

    Parameters
    ----------
    owner : object
        The object.
    name : str
        Name of its attribute.
    *types : type
        The allowed types, which the value must have exactly.

    Returns
    -------
    value : object
        The attribute.

    Raises
    ------
    ValueError
        If it has another type.
    """
    value = getattr(owner, name)
    names = " or ".join(t.__name__ for t in types)
    check_that(type(value) in types, owner, name, f"of type {names}")
    return value


def is_number(value: object, kind: str = "f", least: float = -math.inf) -> bool:
    """Whether a value is a finite number.

    Parameters
    ----------
    value : object
        Any object. True and False are no numbers.
    kind : {"f", "i"}, default="f"
        Real numbers or integers, of Python or of NumPy.
    least : float, default=-inf
        The smallest allowed number.

    Returns
    -------
    correct : bool
    """
    types: tuple[Any, ...] = (Integral,) if kind == "i" else (Integral, Real)
    number: Any = value
    return isinstance(number, types) and not isinstance(number, bool) and least <= number < math.inf


def check_array(
    owner: object, name: str, shape: Sequence[int | None], kind: str = "f", least: float = -math.inf
) -> Array:
    """Check an array of finite numbers.

    Parameters
    ----------
    owner : object
        The object.
    name : str
        Name of its attribute.
    shape : sequence of int or None
        The shape; None stands for any length.
    kind : {"f", "i"}, default="f"
        Floating-point numbers or integers.
    least : float, default=-inf
        The smallest allowed number.

    Returns
    -------
    array : ndarray
        The attribute.

    Raises
    ------
    ValueError
        If it is not such an array.
    """
    array = getattr(owner, name)
    lengths = str(tuple("any" if n is None else n for n in shape)).replace("'", "")
    fits = (
        isinstance(array, np.ndarray)
        and array.dtype.kind == kind
        and array.ndim == len(shape)
        and all(n in (None, length) for n, length in zip(shape, array.shape))
    )
    numbers = {"f": "floats", "i": "integers"}[kind]
    check_that(fits, owner, name, f"an array of {numbers} of shape {lengths}")
    # NaN is in no interval.
    valid = not array.size or least <= array.min() <= array.max() < math.inf
    bounds = "finite" if least == -math.inf else f"finite and at least {least}"
    check_that(valid, owner, name, f"an array of numbers that are {bounds}")
    return array


def check_elements(owner: object, name: str) -> Array:
    """Check an array of ascending atomic numbers.

    Parameters
    ----------
    owner : object
        The object.
    name : str
        Name of its attribute.

    Returns
    -------
    elements : ndarray
        The attribute.

    Raises
    ------
    ValueError
        If it is not such an array.
    """
    elements = check_array(owner, name, (None,), "i", least=1)
    ascending = len(elements) > 0 and (np.diff(elements) > 0).all()
    correct = bool(ascending and elements[-1] <= MAX_ATOMIC_NUMBER)
    check_that(correct, owner, name, "an array of ascending atomic numbers")
    return elements
