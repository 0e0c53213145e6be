"""Checked structures in order: all in memory, or each read when it is asked for."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from joblib import Parallel, delayed, effective_n_jobs
from tqdm import tqdm

from .._memory import BUDGET
from ._structure import Structure, check_one, check_structures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._typing import Array


# A walk over fewer structures is not worth several processes.
MIN_SHARED = 1000
# Most bytes for structures that have been read from a file; those after them are read each time.
STORE_BYTES = 2**26


class Outline(NamedTuple):
    """What fits do not want to read structures for.

    Attributes
    ----------
    sizes : ndarray of shape (n_structures,)
        Numbers of atoms.
    numbers : ndarray of shape (n_atoms,)
        Atomic numbers, one structure after the other.
    periodic : ndarray of shape (n_structures,)
        Which structures are slabs or crystals.
    """

    sizes: np.ndarray
    numbers: np.ndarray
    periodic: np.ndarray


class Structures:
    """A sequence of checked structures, those of `StructureFeatures`.

    Indexing by an integer gives one of them, by a slice, a mask or an array of indices a sequence
    of those selected.

    Parameters
    ----------
    items : sequence of Structure
        In memory.

    Attributes
    ----------
    lazy : bool
        Whether structures are read, and checked, when they are asked for.
    outline : Outline
        Sizes, atomic numbers and which are periodic.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import check_structures
    >>> from skqeq.structures import Structures
    >>> X = Structures(check_structures([molecule("H2O"), molecule("CO2")]))
    >>> X.name(1), X.first_with(6), X.offsets.tolist()
    ('structure 1 (CO2)', 1, [0, 3, 6])
    """

    lazy = False

    def __init__(self, items: Sequence[Structure]) -> None:
        self._items = np.empty(len(items), dtype=object)
        self._items[:] = items

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, key: int | np.integer) -> Structure: ...

    @overload
    def __getitem__(self, key: slice | Array | Sequence[int]) -> Structures: ...

    def __getitem__(self, key: Any) -> Structure | Structures:
        if isinstance(key, (int, np.integer)):
            return self._items[key]
        return Structures(self._items[key])

    def __iter__(self) -> Iterator[Structure]:
        return (self[i] for i in range(len(self)))

    @cached_property
    def outline(self) -> Outline:
        """Sizes, atomic numbers and which are periodic."""
        return _outline(self, len(self))

    @property
    def sizes(self) -> Array:
        """Numbers of atoms, shape (n_structures,)."""
        return self.outline.sizes

    @property
    def numbers(self) -> Array:
        """Atomic numbers of all atoms, shape (n_atoms,)."""
        return self.outline.numbers

    @property
    def periodic(self) -> Array:
        """Which structures are periodic, shape (n_structures,)."""
        return self.outline.periodic

    @property
    def offsets(self) -> Array:
        """First atom of every structure, and the number of atoms; shape (n_structures + 1,)."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def first_with(self, number: int) -> int:
        """Index of the first structure that holds an element.

        Parameters
        ----------
        number : int
            Atomic number of an element that occurs.

        Returns
        -------
        i : int
            Index of the structure.
        """
        atom = np.flatnonzero(self.numbers == number)[0]
        return int(np.searchsorted(self.offsets, atom, side="right")) - 1

    def check_elements(self, known: Array, where: str) -> None:
        """Refuse unknown elements.

        Parameters
        ----------
        known : ndarray of int
            Atomic numbers.
        where : str
            Ends the message, and says what they are.

        Raises
        ------
        ValueError
            If another element occurs; the message names the first structure with it.
        """
        unknown = np.setdiff1d(self.numbers, known)
        if len(unknown):
            i = min(self.first_with(z) for z in unknown)
            strange = [chemical_symbols[z] for z in unknown if z in self[i].species]
            raise ValueError(f"{self.name(i)} holds {', '.join(strange)}{where}")

    def name(self, i: int) -> str:
        """What messages call a structure.

        Parameters
        ----------
        i : int
            Its index.

        Returns
        -------
        name : str
            Index and chemical formula.
        """
        return f"structure {i} ({self[i].symbols})"


class LazyStructures(Structures):
    """A sequence of `Structure` that are read, and checked, when they are asked for.

    The first ones are kept, in bounded memory, as every fit reads them a few times. The outline
    takes one walk over all of them, in which all are checked, and which is shared by several
    processes if `joblib.parallel_config` says so.

    Parameters
    ----------
    reader : sequence of ase.Atoms
        Knows its length, and reads an item when it is indexed by an integer.
    index : ndarray of int, default=None
        Which of its items; None means all.
    outline : callable, default=None
        Returns the outline of these.
    verbose : bool, default=False
        Whether that walk shows its progress.
    store : StructureStore, default=None
        Structures that have been read, which all selections share.
    """

    lazy = True

    def __init__(self, reader, index=None, outline=None, verbose=False, store=None):
        self.reader, self.verbose = reader, verbose
        self.index = np.arange(len(reader)) if index is None else index
        self._known = outline
        self._store = StructureStore() if store is None else store

    def __len__(self):
        return len(self.index)

    def __getitem__(self, key):
        if not isinstance(key, (int, np.integer)):
            selected = partial(self._selected, key)
            return LazyStructures(self.reader, self.index[key], selected, store=self._store)
        i = int(self.index[key])
        if i in self._store.structures:
            return self._store.structures[i]
        try:
            atoms = self.reader[i]
        except Exception as error:  # files and data bases have errors of many kinds
            reason = str(error) or type(error).__name__
            raise ValueError(f"structure {i} cannot be read: {reason}") from error
        if isinstance(atoms, Structure):
            return atoms
        if not isinstance(atoms, Atoms):
            raise TypeError(
                f"X[{i}] is a {type(atoms).__name__}, but every structure must be an ase.Atoms"
            )
        return self._store.add(i, check_one(i, atoms))

    @cached_property
    def outline(self):
        """Sizes, atomic numbers and which are periodic; the first time from a walk over all."""
        if self._known is not None:
            return self._known()
        n_jobs = effective_n_jobs(None)
        if n_jobs == 1 or len(self) < MIN_SHARED:
            walk = tqdm(self, "structures", disable=not self.verbose, leave=False)
            return _outline(walk, len(self))
        parts = np.array_split(self.index, 4 * n_jobs)
        found = Parallel()(delayed(_outline_part)(self.reader, part) for part in parts)
        return Outline(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))

    def _selected(self, key):
        """The outline of a selection."""
        places = np.arange(len(self))[key]
        atoms = np.split(self.numbers, self.offsets[1:-1])
        numbers = [atoms[i] for i in places]
        return Outline(self.sizes[key], np.concatenate(numbers), self.periodic[key])

    def __getstate__(self):
        # A worker is sent the outline of its own selection, not that of all structures. Its store
        # is as large a part of the whole as its selection.
        store = StructureStore(self._store.limit * len(self) // max(1, len(self.reader)))
        return self.__dict__ | {"_known": None, "outline": self.outline, "_store": store}


class StructureStore:
    """The structures that were read first, by their number in the reader.

    Parameters
    ----------
    limit : int, default=None
        Most bytes that they take, by default `STORE_BYTES`. They also count against the memory
        budget.
    """

    def __init__(self, limit=None):
        self.limit, self.structures = STORE_BYTES if limit is None else limit, {}
        self._memory = BUDGET.reservation()

    def add(self, i, structure):
        """The structure, which is kept if there is room for it."""
        n_bytes = structure.n_bytes
        if self._memory.n_bytes + n_bytes <= self.limit and self._memory.claim(n_bytes):
            self.structures[i] = structure
        else:
            self.limit = 0  # full
        return structure


def _outline_part(reader, index):
    return _outline(LazyStructures(reader, index), len(index))


def _outline(structures, n):
    sizes, periodic = np.zeros(n, dtype=np.int32), np.zeros(n, dtype=bool)
    numbers = []
    for i, structure in enumerate(structures):
        sizes[i], periodic[i] = len(structure), structure.periodic
        # Small numbers in one buffer instead of many arrays.
        numbers.append(structure.numbers.astype(np.uint8).tobytes())
    return Outline(sizes, np.frombuffer(b"".join(numbers), dtype=np.uint8), periodic)


def collect(X, verbose=False):
    """Structures of whatever users and scikit-learn hand over, read now only if they must be.

    Sequences of unknown kinds stay what they are, and their items are read one by one: a
    `skqeq.datasets.StructureFile`, a trajectory of ASE.
    """
    found = getattr(X, "structures", X)
    if isinstance(found, Structures):
        return found
    known = isinstance(X, (Atoms, list, tuple, np.ndarray, str, bytes, dict)) or hasattr(X, "iloc")
    if known or not (hasattr(X, "__len__") and hasattr(X, "__getitem__")):
        return Structures(check_structures(X))
    if len(X) == 0:
        raise ValueError("X holds no structures")
    return LazyStructures(X, verbose=verbose)


def concatenate(parts):
    """The structures of several sequences; those that are read when asked for are read now."""
    return Structures([structure for part in parts for structure in part])
