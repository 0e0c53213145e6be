"""Types of public functions, for type checkers; this module is not imported at run time.

A type is Any if it depends on values of the arguments. For example, `predict` returns predictions
in the form of the labels, and the values of a target are an array only if all structures have the
same size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from .datasets import StructureFile
from .structures import Structure, StructureFeatures, Structures

Array: TypeAlias = NDArray[Any]
PathType: TypeAlias = str | PathLike[str]


class Frame(Protocol):
    """A pandas Series or DataFrame."""

    @property
    def iloc(self) -> Any: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


class Model(Protocol):
    """A charge model, a pipeline that ends in one, or a search over either."""

    def fit(self, X: Any, y: Any, /) -> Any: ...

    def predict(self, X: Any, /) -> Any: ...


# Used by functions that return the model that they were given.
M = TypeVar("M", bound=Model)

# Structures of a fit or a prediction. A single Atoms object is not allowed. By its type annotation,
# `ase.io.read` may return a single Atoms object or a list, so that type checkers reject its result.
# They accept ``list(ase.io.iread(path))``.
StructureLike: TypeAlias = Atoms | Structure
StructuresLike: TypeAlias = (
    Sequence[StructureLike] | StructureFeatures | Structures | StructureFile | Array | Frame
)

# Value of one structure, an array or a number; None if the label is missing.
Value: TypeAlias = (
    float | np.number[Any] | Array | Sequence[float] | Sequence[Sequence[float]] | None
)
Column: TypeAlias = Array | Sequence[Value] | Frame
LabelsLike: TypeAlias = (
    Array | Sequence[Array] | Sequence[Sequence[float]] | Sequence[dict[str, Any]] | Frame
)

# Numbers by element, given by symbol or atomic number.
ByElement: TypeAlias = dict[Any, Any]
PerElement: TypeAlias = float | ByElement
Radii: TypeAlias = Literal["qeq", "covalent"] | ByElement
Solver: TypeAlias = Literal["auto", "dense", "iterative"]
Algorithm: TypeAlias = Literal["gauss_newton", "fixed_point"]
EnergyNoise: TypeAlias = Literal["per_atom", "per_structure", "sqrt_n"]
AtomicEnergies: TypeAlias = Literal["fit"] | ByElement
HandleUnknown: TypeAlias = Literal["error", "prior"]
Metric: TypeAlias = Literal["rmse", "mae", "r2"]
# Function that looks up the elements of a model in a table, and refuses missing entries.
Lookup: TypeAlias = Callable[[Array, str], Array]

# Function that returns energies and charges of structures, used instead of a model.
Reference: TypeAlias = Callable[[list[Atoms]], tuple[ArrayLike, Sequence[ArrayLike]]]
# (X, y), or (X, y, groups) with ``return_groups=True``.
DataSet: TypeAlias = tuple[Any, ...]
# An array, or a list of arrays if the size depends on the structure.
Values: TypeAlias = Any
History: TypeAlias = list[dict[str, Any]]
