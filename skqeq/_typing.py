"""Types of the public functions, for type checkers: nothing else imports this module.

What is as wide as Any is where the type of a result depends on values: `predict` mirrors the form
of the labels, and a target is an array where its size is the same for all structures.
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
    """A Series or a DataFrame of pandas."""

    @property
    def iloc(self) -> Any: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


class Model(Protocol):
    """A charge model, a pipeline that ends in one, or a search over either."""

    def fit(self, X: Any, y: Any, /) -> Any: ...

    def predict(self, X: Any, /) -> Any: ...


# For what returns the model that it was given.
M = TypeVar("M", bound=Model)

# Structures of a fit or a prediction. A single Atoms is not among them, and `ase.io.read` returns
# that or a list: a list of `ase.io.iread` is one to type checkers, too.
StructureLike: TypeAlias = Atoms | Structure
StructuresLike: TypeAlias = (
    Sequence[StructureLike] | StructureFeatures | Structures | StructureFile | Array | Frame
)

# One value per structure, an array or a number; None where it is not known.
Value: TypeAlias = (
    float | np.number[Any] | Array | Sequence[float] | Sequence[Sequence[float]] | None
)
Column: TypeAlias = Array | Sequence[Value] | Frame
LabelsLike: TypeAlias = (
    Array | Sequence[Array] | Sequence[Sequence[float]] | Sequence[dict[str, Any]] | Frame
)

# Numbers by symbol or atomic number.
ByElement: TypeAlias = dict[Any, Any]
PerElement: TypeAlias = float | ByElement
Radii: TypeAlias = Literal["qeq", "covalent"] | ByElement
Solver: TypeAlias = Literal["auto", "dense", "iterative"]
Algorithm: TypeAlias = Literal["gauss_newton", "fixed_point"]
EnergyNoise: TypeAlias = Literal["per_atom", "per_structure", "sqrt_n"]
AtomicEnergies: TypeAlias = Literal["fit"] | ByElement
Metric: TypeAlias = Literal["rmse", "mae", "r2"]
# Numbers of every element from a table of all, which refuses missing ones.
Lookup: TypeAlias = Callable[[Array, str], Array]

# Energies and charges of structures, in place of a model.
Reference: TypeAlias = Callable[[list[Atoms]], tuple[ArrayLike, Sequence[ArrayLike]]]
# (X, y), or (X, y, groups) if they are asked for.
DataSet: TypeAlias = tuple[Any, ...]
# An array, or a list of them where the size depends on the structure.
Values: TypeAlias = Any
History: TypeAlias = list[dict[str, Any]]
