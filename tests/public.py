"""The public functions, classes and methods of the package."""

import inspect
from functools import cached_property
from importlib import import_module

PUBLIC = [
    "skqeq",
    "skqeq.active_learning",
    "skqeq.calculator",
    "skqeq.datasets",
    "skqeq.electrostatics",
    "skqeq.features",
    "skqeq.fields",
    "skqeq.metrics",
    "skqeq.model_selection",
    "skqeq.models",
    "skqeq.parameters",
    "skqeq.persistence",
    "skqeq.plotting",
    "skqeq.response",
    "skqeq.solvers",
    "skqeq.sparsify",
    "skqeq.spectra",
    "skqeq.structures",
    "skqeq.targets",
    "skqeq.validation",
]


def public_objects():
    """Names and values of the functions and classes of all modules, without duplicates."""
    found = {}
    for name in PUBLIC:
        module = import_module(name)
        for attribute in module.__all__:
            value = getattr(module, attribute)
            if callable(value):
                found.setdefault(value, f"{name}.{attribute}")
    return {name: value for value, name in found.items()}


def public_members(cls):
    """Names and values of the methods and properties that a class has from this package.

    The result leaves out generated members, such as the fields of a named tuple.
    """
    for name in dir(cls):
        owner = next(c for c in cls.__mro__ if name in vars(c))
        value = vars(owner)[name]
        described = isinstance(value, (property, cached_property, classmethod, staticmethod))
        written = owner.__module__.startswith("skqeq.") and (inspect.isfunction(value) or described)
        if written and not name.startswith("_"):
            yield name, value


def function_of(member):
    """The function that implements a method or a property."""
    for place in ("fget", "func", "__func__"):
        member = getattr(member, place, member)
    return member
