"""Sequences of structures in files; a structure is read from its file when it is indexed."""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, overload

import numpy as np
from ase.db import connect
from ase.io import Trajectory
from ase.io.formats import UnknownFileTypeError, filetype, ioformats

from .._counts import counted
from ..structures import with_total_charge
from ._xyz import parse_frame, split_frames

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ase import Atoms

    from .._typing import Array, PathType


def open_structures(*paths: PathType, charge_key: str | None = None) -> StructureFile:
    """Open files of structures without reading them into memory.

    Parameters
    ----------
    *paths : str or path
        Extended XYZ (``.xyz``, ``.extxyz``), trajectories of ASE (``.traj``), and databases of ASE
        (``.db``, ``.json``, ``.aselmdb``). Several files are concatenated.
    charge_key : str, default=None
        Key of ``info`` that holds the total charge (e) of every structure, see
        `skqeq.with_total_charges`. None means ``charge`` or ``total_charge``, or a total charge of
        0 if neither is present.

    Returns
    -------
    structures : StructureFile
        Sequence of `ase.Atoms` of any length, for `fit` and `predict`. A structure is read from its
        file every time it is indexed.

    Raises
    ------
    ValueError
        If a file cannot be read, is compressed, has another ending, or holds no structures.

    Notes
    -----
    Key-value pairs and data of a database are copied to ``atoms.info``, because labels and total
    charges are looked up there.

    In extended XYZ, blank lines between structures are skipped, and the keys ``Lattice``, ``pbc``
    and ``Properties`` may have any case. The symbols D and T are hydrogen with the mass of the
    isotope, and an atomic number is a symbol too. An error names all other words that are not
    elements.

    Examples
    --------
    >>> import ase.io, tempfile
    >>> from ase.build import molecule
    >>> from skqeq.datasets import open_structures
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ase.io.write(f"{folder}/train.xyz", [molecule("H2O"), molecule("NH3")])
    ...     X = open_structures(f"{folder}/train.xyz")
    ...     print(len(X), X[1].symbols)
    2 NH3
    """
    if not paths:
        raise ValueError("open_structures needs at least one file")
    files = []
    for path in map(Path, paths):
        suffix = path.suffix.lower()
        if suffix in (".gz", ".bz2", ".xz", ".zip"):
            raise ValueError(f"{path} is compressed: unpack it to read structures in any order")
        if not path.is_file():
            raise ValueError(f"cannot read {path}: {'not a' if path.exists() else 'no such'} file")
        if suffix not in READERS:
            raise ValueError(
                f"{path} has the ending {suffix!r}, but open_structures reads files that end in "
                f"{', '.join(READERS)}; {_other_reader(path)}"
            )
        files.append(READERS[suffix](path))
    return StructureFile(files, charge_key=charge_key)


def _other_reader(path):
    """How a file of another format can be read, for messages."""
    try:
        name = filetype(str(path))
    except (UnknownFileTypeError, OSError):
        name = ""
    if name in ioformats and ioformats[name].can_read:
        return "read it with ase.io.read, and pass the list of structures"
    ending = path.suffix.lower() or ".mol2"
    return (
        "ASE cannot read this format either; convert the file, for instance with Open Babel: "
        f"obabel -i{ending[1:]} {path.name} -O {path.stem}.xyz"
    )


class StructureFile:
    """A sequence of structures that are read from files when they are indexed.

    scikit-learn treats the object as an array of shape (n,). Slices, masks and arrays of indices
    select structures without reading them. Only paths and positions in the files are stored, so the
    object is cheap to pickle.

    Parameters
    ----------
    files : list
        Readers of single files, with a length and a method ``read(i)``.
    index : ndarray of int, default=None
        Indices of the selected structures; None means all.
    charge_key : str, default=None
        Key of the total charge, see `open_structures`.

    Examples
    --------
    >>> import ase.io, tempfile
    >>> from ase.build import molecule
    >>> from skqeq.datasets import open_structures
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ase.io.write(f"{folder}/train.xyz", [molecule("H2O"), molecule("NH3")])
    ...     X = open_structures(f"{folder}/train.xyz")
    ...     print(len(X[1:]), X[-1].symbols)
    1 NH3
    """

    def __init__(
        self, files: Sequence[Any], index: Array | None = None, charge_key: str | None = None
    ) -> None:
        self.files, self.charge_key = files, charge_key
        self._ends = np.cumsum([len(file) for file in files])
        self._index = np.arange(self._ends[-1]) if index is None else index

    @property
    def shape(self) -> tuple[int]:
        """Shape (n,), like that of an array of n structures."""
        return (len(self),)

    ndim = 1

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        names = ", ".join(str(file.path) for file in self.files)
        return f"<StructureFile: {counted(len(self), 'structure')} of {names}>"

    @overload
    def __getitem__(self, key: int | np.integer) -> Atoms: ...

    @overload
    def __getitem__(
        self, key: slice | tuple[Any, ...] | Array | Sequence[int]
    ) -> StructureFile: ...

    def __getitem__(self, key: Any) -> Atoms | StructureFile:
        if isinstance(key, tuple):
            # sklearn.utils._safe_indexing indexes with X[key, ...].
            if len(key) != 2 or key[1] is not Ellipsis:
                raise IndexError("structures can be indexed along one axis only")
            key = key[0]
        if not isinstance(key, (int, np.integer)):
            if not isinstance(key, slice):
                key = np.asarray(key)
                key = key if key.size else key.astype(int)
            return StructureFile(self.files, self._index[key], self.charge_key)
        i = int(self._index[key])
        f = int(np.searchsorted(self._ends, i, side="right"))
        file, place = self.files[f], i - int(self._ends[f]) + len(self.files[f])
        with naming_structure(place, file.path):
            atoms = file.read(place)
        name = f"structure {place} of {file.path}"
        return atoms if self.charge_key is None else with_total_charge(atoms, self.charge_key, name)

    def __iter__(self) -> Iterator[Atoms]:
        return (self[i] for i in range(len(self)))

    def __array__(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("a StructureFile cannot become an array; list(X) reads all structures")


@contextmanager
def naming_structure(place: int, name: object) -> Iterator[None]:
    """Convert errors to a ValueError that names the structure and its file."""
    try:
        yield
    except Exception as error:  # ASE's readers raise exceptions of many types
        reason = str(error) or type(error).__name__
        raise ValueError(f"structure {place} of {name}: {reason}") from error


class XYZFile:
    """An extended XYZ file, and the first byte and the number of bytes of every structure.

    The file is searched for its structures unless ``frames``, of shape (n, 2), is given.
    """

    def __init__(self, path, frames=None):
        self.path = path
        if frames is None:
            with open(path, "rb") as file:
                frames = [(place, len(frame)) for place, frame in split_frames(file, path)]
        if not len(frames):
            raise ValueError(f"{path} holds no structures")
        self._frames = np.array(frames)

    def __len__(self):
        return len(self._frames)

    def read(self, i):
        """Structure i."""
        place, size = self._frames[i].tolist()
        with open(self.path, "rb") as file:
            file.seek(place)
            return parse_frame(file.read(size))


class TrajectoryFile:
    """An ASE trajectory file."""

    def __init__(self, path):
        self.path = path
        with self._open() as trajectory:
            self._length = len(trajectory)
        if not self._length:
            raise ValueError(f"{path} holds no structures")

    def _open(self):
        try:
            return Trajectory(os.fspath(self.path))
        except Exception as error:
            raise ValueError(f"cannot read {self.path}: {error}") from error

    def __len__(self):
        return self._length

    def read(self, i):
        """Structure i."""
        with self._open() as trajectory:
            return trajectory[i]


class DatabaseFile:
    """An ASE database, and the ids of its rows."""

    def __init__(self, path):
        self.path = path
        try:
            with _connected(path) as database:
                rows = database.select(include_data=False)
                self._ids = np.array([row.id for row in rows])
        except Exception as error:
            raise ValueError(f"cannot read {path} as a database of ASE: {error}") from error
        if not len(self._ids):
            raise ValueError(f"{path} holds no structures")

    def __len__(self):
        return len(self._ids)

    def read(self, i):
        """Structure i."""
        with _connected(self.path) as database:
            row = database.get(id=int(self._ids[i]))
        atoms = row.toatoms()
        atoms.info |= {**row.key_value_pairs, **row.data}
        return atoms


def _connected(path):
    """Open a database as a context manager, which closes it if the database can be closed."""
    database = connect(os.fspath(path), type=path.suffix[1:].lower())
    return database if hasattr(database, "__exit__") else nullcontext(database)


READERS = {
    ".xyz": XYZFile,
    ".extxyz": XYZFile,
    ".traj": TrajectoryFile,
    ".db": DatabaseFile,
    ".json": DatabaseFile,
    ".aselmdb": DatabaseFile,
}
