"""Sequences of checked structures, in memory or in a file that is read on demand."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from joblib import Parallel, delayed, effective_n_jobs
from tqdm import tqdm

from .._memory import BUDGET
from ..parameters import MAX_ATOMIC_NUMBER
from ._check import check_one, check_structures, wrong_item
from ._plausibility import Plausibility
from ._structure import Structure

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from .._typing import Array, StructuresLike


# For fewer structures, starting several processes takes longer than reading the structures.
MIN_PARALLEL = 1000
# Maximum memory for structures that were read from a file, bytes.
STORE_BYTES = 2**26


class Metadata(NamedTuple):
    """Metadata that is available without reading the structures again.

    Attributes
    ----------
    sizes : ndarray of shape (n_structures,)
        Numbers of atoms.
    numbers : ndarray of shape (n_atoms,)
        Atomic numbers, one structure after the other.
    periodic : ndarray of shape (n_structures,)
        True for slabs and crystals.
    """

    sizes: np.ndarray
    numbers: np.ndarray
    periodic: np.ndarray


class Structures:
    """A sequence of checked structures, such as those of `StructureFeatures`.

    An integer index returns one `Structure`; a slice, a mask or an array of indices returns a
    sequence of the selected ones.

    Parameters
    ----------
    items : sequence of Structure
        The structures, in memory.

    Attributes
    ----------
    lazy : bool
        Whether structures are read and checked only when they are indexed.
    metadata : Metadata
        Sizes, atomic numbers and periodicity of the structures.

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
        # np.array(items) would treat each structure as a sequence.
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
    def metadata(self) -> Metadata:
        """Sizes, atomic numbers and periodicity of the structures."""
        return _metadata(self, len(self))

    @property
    def sizes(self) -> Array:
        """Numbers of atoms, shape (n_structures,)."""
        return self.metadata.sizes

    @property
    def numbers(self) -> Array:
        """Atomic numbers of all atoms, shape (n_atoms,)."""
        return self.metadata.numbers

    @property
    def periodic(self) -> Array:
        """Whether each structure is periodic, shape (n_structures,)."""
        return self.metadata.periodic

    @property
    def offsets(self) -> Array:
        """Index of the first atom of every structure, then n_atoms; shape (n_structures + 1,)."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def first_with(self, number: int) -> int:
        """Index of the first structure that contains an element.

        Parameters
        ----------
        number : int
            Atomic number of an element that occurs in some structure.

        Returns
        -------
        i : int
            Index of the structure.
        """
        atom = np.flatnonzero(self.numbers == number)[0]
        return int(np.searchsorted(self.offsets, atom, side="right")) - 1

    def holding_others(self, elements: Collection[int]) -> Array:
        """Which structures contain an element that is not in a list.

        Parameters
        ----------
        elements : collection of int
            Atomic numbers of the elements in the list.

        Returns
        -------
        mask : ndarray of shape (n_structures,)
            True for structures with at least one other element.
        """
        in_list = np.zeros(MAX_ATOMIC_NUMBER + 1, dtype=bool)
        in_list[list(elements)] = True
        return np.logical_or.reduceat(~in_list[self.numbers], self.offsets[:-1])

    def check_elements(self, elements: Collection[int], advice: str) -> None:
        """Raise an error if a structure contains an element that is not in a list.

        Parameters
        ----------
        elements : collection of int
            Atomic numbers of the known elements.
        advice : str
            End of the error message.

        Raises
        ------
        ValueError
            If another element occurs; the message names the first structure that contains it.
        """
        others = self.holding_others(elements)
        if others.any():
            raise ValueError(f"{self.unknown_elements(int(others.argmax()), elements)}; {advice}")

    def unknown_elements(self, i: int, elements: Collection[int]) -> str:
        """Say which unknown elements a structure contains.

        Parameters
        ----------
        i : int
            Index of the structure.
        elements : collection of int
            Atomic numbers of the known elements.

        Returns
        -------
        message : str
            The beginning of a message, with the structure, its unknown elements, and the known
            elements.
        """
        unknown = ", ".join(chemical_symbols[z] for z in self[i].species if z not in elements)
        known = ", ".join(chemical_symbols[z] for z in sorted(elements)) or "none"
        return f"{self.name(i)} holds {unknown}; known elements: {known}"

    def name(self, i: int) -> str:
        """Name of a structure in messages.

        Parameters
        ----------
        i : int
            Index of the structure.

        Returns
        -------
        name : str
            Index and chemical formula.
        """
        return f"structure {i} ({self[i].symbols})"


class LazyStructures(Structures):
    """A sequence of `Structure` that are read and checked when they are indexed.

    A fit needs each structure several times. Structures are therefore kept in memory after they
    are read, up to a limit; those that do not fit are read each time. To obtain the metadata, all
    structures are read and checked once; inside `joblib.parallel_config`, several processes do it.

    Parameters
    ----------
    reader : sequence of ase.Atoms
        A sequence that reads an item when it is indexed by an integer.
    index : ndarray of int, default=None
        Indices of the selected items of the reader. None means all.
    metadata : callable, default=None
        Returns the metadata of the selected items. None means that the items are read to obtain
        their metadata.
    verbose : bool, default=False
        Whether a progress bar is shown while structures are read for the metadata.
    store : StructureStore, default=None
        Structures that have been read. All selections from a reader share one store.
    """

    lazy = True

    def __init__(
        self,
        reader: Any,
        index: Array | None = None,
        metadata: Callable[[], Metadata] | None = None,
        verbose: bool = False,
        store: StructureStore | None = None,
    ) -> None:
        self.reader, self.verbose = reader, verbose
        self.index = np.arange(len(reader)) if index is None else index
        self._metadata_of_selection = metadata
        self._store = StructureStore() if store is None else store

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, (int, np.integer)):
            # When needed, the metadata of the selection are taken from those of all structures.
            metadata = partial(self._selected_metadata, key)
            return LazyStructures(self.reader, self.index[key], metadata, store=self._store)
        return self._item(int(self.index[key]))

    def _item(self, i, plausibility=None):
        """Item i of the reader, from memory or from the file."""
        if i in self._store.structures:
            return self._store.structures[i]
        return self._store.add(i, self._read(i, plausibility))

    def _read(self, i, plausibility):
        """Read and check item i of the reader; `plausibility` may be None."""
        try:
            atoms = self.reader[i]
        except Exception as error:  # each file format has its own kinds of errors
            reason = str(error) or type(error).__name__
            raise ValueError(f"structure {i} cannot be read: {reason}") from error
        if isinstance(atoms, Structure):
            return atoms
        if not isinstance(atoms, Atoms):
            raise wrong_item(i, atoms)
        structure = check_one(i, atoms)
        if plausibility is not None:
            plausibility.add(i, atoms, structure)
        return structure

    @cached_property
    def metadata(self) -> Metadata:
        """Sizes, atomic numbers and periodicity; the first call reads all structures."""
        if self._metadata_of_selection is not None:
            return self._metadata_of_selection()
        n_jobs = effective_n_jobs(None)
        if n_jobs == 1 or len(self) < MIN_PARALLEL:
            metadata, plausibility = self._examine()
        else:
            parts = np.array_split(self.index, 4 * n_jobs)
            results = Parallel()(delayed(_examine_part)(self.reader, part) for part in parts)
            tables, (plausibility, *others) = zip(*results, strict=True)
            metadata = Metadata(*(np.concatenate(arrays) for arrays in zip(*tables, strict=True)))
            for other in others:
                plausibility.merge(other)
        plausibility.warn()
        return metadata

    def _examine(self):
        """Read all structures; return their metadata, and what is implausible about them."""
        plausibility = Plausibility()
        walk = tqdm(self.index.tolist(), "structures", disable=not self.verbose, leave=False)
        structures = (self._item(i, plausibility) for i in walk)
        return _metadata(structures, len(self)), plausibility

    def _selected_metadata(self, key):
        """The metadata of the structures that `key` selects."""
        structures = np.arange(len(self))[key]
        numbers = np.split(self.numbers, self.offsets[1:-1])
        return Metadata(
            self.sizes[key],
            np.concatenate([self.numbers[:0], *(numbers[i] for i in structures)]),
            self.periodic[key],
        )

    def __getstate__(self):
        # A worker process gets only the metadata of its selection. The limit of its store is
        # reduced in proportion to the size of the selection.
        store = StructureStore(self._store.limit * len(self) // max(1, len(self.reader)))
        metadata = {"_metadata_of_selection": None, "metadata": self.metadata}
        return self.__dict__ | metadata | {"_store": store}


class StructureStore:
    """Structures in memory, keyed by their index in the reader; the first to be read are stored.

    Parameters
    ----------
    limit : int, default=None
        Maximum number of bytes, by default `STORE_BYTES`. The bytes are also claimed from the
        memory budget.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = STORE_BYTES if limit is None else limit
        self.structures: dict[int, Structure] = {}
        self._memory = BUDGET.reservation()

    def add(self, i: int, structure: Structure) -> Structure:
        """Store a structure if it fits, and return it."""
        n_bytes = structure.n_bytes
        if self._memory.n_bytes + n_bytes <= self.limit and self._memory.claim(n_bytes):
            self.structures[i] = structure
        else:
            # The store is full. Smaller structures that come later are not stored either, because
            # the structures are read in the same order next time.
            self.limit = 0
        return structure


def _examine_part(reader, index):
    """The metadata of some items of a reader, and what is implausible about them, by a worker."""
    return LazyStructures(reader, index)._examine()


def _metadata(structures: Iterable[Structure], n: int) -> Metadata:
    """The metadata of n structures."""
    sizes, periodic = np.zeros(n, dtype=np.int32), np.zeros(n, dtype=bool)
    numbers = []
    for i, structure in enumerate(structures):
        sizes[i], periodic[i] = len(structure), structure.periodic
        # Bytes, because millions of small arrays would take ten times their memory.
        numbers.append(structure.numbers.astype(np.uint8).tobytes())
    return Metadata(sizes, np.frombuffer(b"".join(numbers), dtype=np.uint8), periodic)


def collect(X: StructuresLike, verbose: bool = False) -> Structures:
    """Make `Structures` from any container of structures that users and scikit-learn pass.

    Structures in lists, tuples, arrays and frames are checked immediately. The items of any other
    sequence, such as a `skqeq.datasets.StructureFile` or an ASE trajectory, are read when they are
    needed.

    Parameters
    ----------
    X : sequence of ase.Atoms, Structures or StructureFeatures
        The structures.
    verbose : bool, default=False
        Whether a progress bar is shown while a file is read.

    Returns
    -------
    structures : Structures
        `LazyStructures` for sequences that are read later.
    """
    structures = getattr(X, "structures", X)
    if isinstance(structures, Structures):
        return structures
    in_memory = isinstance(X, (Atoms, list, tuple, np.ndarray, str, bytes, dict))
    if in_memory or hasattr(X, "iloc"):
        return Structures(check_structures(X))
    if not (hasattr(X, "__len__") and hasattr(X, "__getitem__")):
        return Structures(check_structures(X))
    if len(X) == 0:
        raise ValueError("X holds no structures")
    return LazyStructures(X, verbose=verbose)


def concatenate(parts: Iterable[Structures]) -> Structures:
    """Join several sequences of structures to one sequence in memory."""
    return Structures([structure for part in parts for structure in part])
