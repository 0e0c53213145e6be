"""Extended XYZ: the frames of a file, and the structure of a frame.

skqeq does not use the reader of ASE, which ends a file at its first blank line, and which cannot
read files under ``python -O``. The structures are the same.
"""

from __future__ import annotations

import codecs
import re
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian
from ase.data import atomic_masses, atomic_numbers
from ase.io.extxyz import REV_PROPERTY_NAME_MAP, key_val_str_to_dict, set_calc_and_arrays

from .._counts import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

COUNT = re.compile(rb"\s*\+?(\d+)\s*")
MOST_ATOMS = 10**18  # a larger count is damaged, and `islice` takes no larger numbers
# Masses of isotopes with an own symbol, in u, as in ASE's reader of CIF.
ISOTOPES = {"D": 2.014, "T": 3.016}
SYMBOLS = atomic_numbers | dict.fromkeys(ISOTOPES, 1)
# Columns of a frame without Properties: name, type and number.
PLAIN = [("species", "S", 1), ("pos", "R", 3)]
# Parts of a comment. Quoted words and values, in the group, stay. The rest is removed: quotes
# inside of words, after which ASE reads on to the next quote, as in "5' end, charge=-1", and words
# that ASE would take for keys although no value follows, as in "fcc lattice".
WORDS = re.compile(
    r"""(\\.|(?<![^\s=])(?:"(?:\\.|[^"\\])*"|'[^']*')(?![^\s=])|{[^}]*}|\[[^]]*])"""
    r"""|["']"""
    r"|(?<!\S)(?:lattice|pbc|properties|stress|virial)(?!\S|\s*=)",
    re.IGNORECASE,
)
LOGICALS = {"T": True, "True": True, "F": False, "False": False}
# Types of columns: the type of the array, the conversion of one word, and what the word must be.
TYPES = {
    "R": (float, float, "a number"),
    "I": (int, int, "an integer"),
    "L": (bool, LOGICALS.__getitem__, "T or F"),
    "S": (object, str, "a word"),
}


def split_frames(file: BinaryIO, name: object) -> Iterator[tuple[int, bytes]]:
    """Yield the frames of a file: the number of atoms, a comment, and one line per atom.

    Blank lines between frames are skipped.

    Parameters
    ----------
    file : binary file
        The file; it is read once, from its position to its end.
    name : str or path
        Name of the file in errors.

    Yields
    ------
    place : int
        First byte of the frame in the file.
    frame : bytes
        Text of the frame.

    Raises
    ------
    ValueError
        If a line that should hold the number of atoms holds other text, or if the file ends inside
        a frame.
    """
    place, line, n_frames = 0, 1, 0
    for first in file:
        lines = [first.removeprefix(codecs.BOM_UTF8) if line == 1 else first]
        skipped = len(first) - len(lines[0])
        if lines[0].strip():
            n_atoms = _count(lines[0], f"{name}, line {line}", n_frames)
            lines += islice(file, n_atoms + 1)
            if len(lines) != n_atoms + 2:
                raise ValueError(
                    f"{name} ends in structure {n_frames}, which begins in line {line} and has "
                    f"{counted(n_atoms, 'atom')}"
                )
            yield place + skipped, b"".join(lines)
            n_frames += 1
        place += skipped + sum(map(len, lines))
        line += len(lines)


def _count(line, where, n_frames):
    """The number of atoms in the first line of a frame."""
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{where}: the text is in UTF-16; save the file in UTF-8")
    # Python converts no more than 4300 digits.
    match = COUNT.fullmatch(line) if len(line) < 4000 else None
    if match is None:
        text = line[:40].strip().decode(errors="replace")
        raise ValueError(f"{where}: {text!r} is not the number of atoms of structure {n_frames}")
    return min(int(match[1]), MOST_ATOMS)


def parse_frame(frame: bytes) -> Atoms:
    """Make the structure of a frame; it has the labels where ASE's reader stores them.

    Parameters
    ----------
    frame : bytes
        Text of a frame from `split_frames`.

    Returns
    -------
    atoms : ase.Atoms
        The structure. Symbols D and T give hydrogen with the mass of the isotope, and atomic
        numbers are accepted as symbols.

    Raises
    ------
    ValueError
        If a value is missing or wrong. The message names the atom and the value.
    """
    first, comment, *lines = _decoded(frame).split("\n")
    rows = [line.split() for line in lines[: int(first)]]
    comment = WORDS.sub(lambda match: match[1] or "", comment)
    info = key_val_str_to_dict(comment) if comment.strip() else {}
    lattice, pbc, properties = (_pop(info, key) for key in ("Lattice", "pbc", "Properties"))
    arrays = _arrays(rows, PLAIN if properties is None else _columns(properties))
    masses = _replace_symbols(arrays)
    atoms = Atoms(
        numbers=arrays.pop("numbers"),
        positions=arrays.pop("positions"),
        masses=masses,
        charges=arrays.pop("initial_charges", None),
        cell=None if lattice is None else _cell(lattice),
        pbc=lattice is not None if pbc is None else _periodic(pbc),
        info=info,
    )
    if "move_mask" in arrays:
        atoms.set_constraint(_constraints(~arrays.pop("move_mask").astype(bool)))
    set_calc_and_arrays(atoms, arrays)
    return atoms


def _decoded(frame):
    """Text of a frame. Old programs write comments in Latin-1, which decodes any byte."""
    try:
        return frame.decode()
    except UnicodeDecodeError:
        return frame.decode("latin-1")


def _pop(info, key):
    """Remove a key in any case from ``info``, and return its value."""
    names = [name for name in info if name.lower() == key.lower()]
    if len(names) > 1:
        raise ValueError(f"the comment line holds both {' and '.join(names)}")
    return info.pop(names[0]) if names else None


def _cell(lattice):
    """Cell vectors in rows. ASE converts the key ``Lattice``, but not ``lattice``, to columns."""
    numbers = np.ravel(lattice, order="F")
    if numbers.shape != (9,) or numbers.dtype.kind not in "if":
        raise ValueError(f"Lattice must be nine numbers, got {lattice!r}")
    return numbers.reshape(3, 3)


def _periodic(pbc):
    """One flag, or three. ASE takes any other word for True, even "no"."""
    flags = np.ravel(pbc)
    if flags.size not in (1, 3) or not (flags.dtype == bool or np.isin(flags, (0, 1)).all()):
        raise ValueError(f"pbc must be T or F for each of three axes, got {pbc!r}")
    return flags.astype(bool)


def _columns(properties):
    """Parse the value of ``Properties``, NAME:TYPE:NUMBER:NAME:TYPE:NUMBER..."""
    fields = str(properties).strip(":").split(":")
    columns = list(zip(fields[::3], fields[1::3], fields[2::3], strict=False))
    if len(fields) % 3 or not all(
        kind in TYPES and re.fullmatch("0*[1-9][0-9]{,8}", n) for _, kind, n in columns
    ):
        raise ValueError(
            f"Properties={properties} does not consist of NAME:TYPE:NUMBER with a type among "
            f"{', '.join(TYPES)}"
        )
    return [(name, kind, int(n)) for name, kind, n in columns]


def _arrays(rows, columns):
    """The arrays of the columns, by their names in ASE."""
    width, shortest = sum(n for *_, n in columns), min(map(len, rows), default=None)
    # The number of columns may be damaged and huge: compare it before any array is made.
    if shortest is not None and shortest < width:
        i = [len(row) for row in rows].index(shortest)
        raise ValueError(f"atom {i} has {shortest} of {width} columns: {' '.join(rows[i])[:40]!r}")
    arrays, start = {}, 0
    for name, kind, n in columns:
        key = name.lower() if name.lower() in ("species", "pos") else name
        key = REV_PROPERTY_NAME_MAP.get(key, key)
        if key in arrays:
            raise ValueError(f"Properties holds {name} twice")
        arrays[key] = _array([row[start : start + n] for row in rows], name, kind)
        start += n
    position = arrays.get("positions")
    if rows and (position is None or position.shape[1:] != (3,) or position.dtype != float):
        raise ValueError("Properties must hold pos:R:3")
    return arrays


def _array(words, name, kind):
    """Convert words of shape (n_atoms, n_columns); a single column has shape (n_atoms,)."""
    dtype, convert, expected = TYPES[kind]
    try:
        array = np.array(words if kind in "RIS" else [list(map(convert, r)) for r in words], dtype)
    except (ValueError, KeyError, OverflowError):
        for i, row in enumerate(words):
            for word in row:
                try:
                    np.array(convert(word), dtype)
                except (ValueError, KeyError, OverflowError):
                    raise ValueError(f"atom {i}: {name} {word!r} is not {expected}") from None
        raise
    return array[:, 0] if array.shape[1:] == (1,) else array


def _replace_symbols(arrays):
    """Replace ``symbols`` by ``numbers``, and return the masses if there are isotopes."""
    symbols = arrays.pop("symbols", None)
    if symbols is None and "numbers" in arrays:
        return None
    if symbols is None:
        raise ValueError("Properties must hold species:S:1, the symbols of the elements, or Z:I:1")
    symbols = [symbol.capitalize() for symbol in symbols]
    numbers = np.array([_number(symbol, i) for i, symbol in enumerate(symbols)], dtype=int)
    given = arrays.setdefault("numbers", numbers)
    if not np.array_equal(given, numbers):
        i = int(np.flatnonzero(given != numbers)[0])
        raise ValueError(f"atom {i} has the symbol {symbols[i]}, but the atomic number {given[i]}")
    if "masses" in arrays or set(ISOTOPES).isdisjoint(symbols):
        return None
    masses = atomic_masses[numbers]
    return [ISOTOPES.get(symbol, mass) for symbol, mass in zip(symbols, masses, strict=True)]


def _number(symbol, i):
    """The atomic number of a symbol. Some programs write the number itself."""
    if symbol in SYMBOLS:
        return SYMBOLS[symbol]
    if re.fullmatch("[0-9]{1,3}", symbol) and 0 < int(symbol) < len(atomic_masses):
        return int(symbol)
    raise ValueError(f"atom {i}: {symbol!r} is not the symbol of an element")


def _constraints(fixed):
    """Constraints of ASE for fixed atoms, shape (n,), or fixed coordinates, shape (n, 3)."""
    if fixed.ndim == 1:
        return [FixAtoms(mask=fixed)]
    return [FixCartesian(i, mask=mask) for i, mask in enumerate(fixed)]
