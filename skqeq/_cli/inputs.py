"""Read structures for the commands: from files of all formats that ASE reads, and from pipes."""

import bz2
import gzip
import lzma
import re
import sys
import zlib
from functools import partial
from itertools import islice
from pathlib import Path

from ase.io import iread
from ase.io.formats import UnknownFileTypeError, filetype
from ase.utils import string2index

from .._counts import counted
from ..datasets import (
    READERS,
    naming_structure,
    open_structures,
    parse_frame,
    split_frames,
)
from ..structures import with_total_charge
from .records import read_pdb, read_sdf

STDIO = "-"  # the name of standard input and standard output
XYZ = (".xyz", ".extxyz")
DECOMPRESS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
RECORDS = {".pdb": read_pdb, ".sdf": read_sdf, ".mol": read_sdf}
FORMATS = "xyz, extxyz, traj, db, json, cif, pdb, POSCAR, mol, sdf, gen and xsf"


def entries(path, charge_key=None, *, labels=False, damaged=False):
    """Yield the index of every structure in its file, and a function that reads the structure.

    Parameters
    ----------
    path : str
        A file, ``-`` for the standard input, or FILE@SLICE for some structures of a file. Standard
        input and pipes hold extended XYZ.
    charge_key : str, default=None
        Key of the total charge in ``info``; None means those that models read.
    labels : bool, default=False
        Whether to read the charges of CIF files, and all other columns of their sites.
    damaged : bool, default=False
        Whether to read a damaged file of extended XYZ up to the damage. By default it is refused
        before its first structure is read.

    Raises
    ------
    ValueError
        If the file, or a structure, cannot be read.
    """
    for i, read in raw_entries(path, labels, damaged):
        if charge_key is not None:
            read = partial(read_with_charge, read, charge_key, f"{path}, structure {i}")
        yield i, read


def read_with_charge(read, charge_key, name):
    """A structure whose total charge has another key."""
    return with_total_charge(read(), charge_key, name)


def raw_entries(path, labels, damaged):
    """Entries without total charges of other keys."""
    file, selection = split_selection(path)
    suffix, packed = endings(file)
    known = suffix in READERS and not packed and isinstance(selection, slice)
    if file == STDIO or (Path(file).exists() and not Path(file).is_file()):
        yield from select(stream(file, ""), selection)
    elif is_xyz(file, suffix) and (damaged or not known):
        yield from select(stream(file, packed), selection)
    elif known:
        X = open_structures(file)
        yield from ((i, partial(X.__getitem__, i)) for i in range(len(X))[selection])
    elif isinstance(selection, slice):
        yield from select(with_ase(file, slice(None), labels), selection)
    else:
        yield from with_ase(file, selection, labels)


def endings(file):
    """The ending of a file, and the ending of its compression or "", in lower case."""
    path = Path(file)
    packed = path.suffix.lower()
    if packed not in DECOMPRESS:
        return packed, ""
    return path.with_suffix("").suffix.lower(), packed


def is_xyz(file, suffix):
    """Whether ASE takes a file for extended XYZ, by its ending or its content."""
    try:
        return suffix in XYZ or (not suffix and filetype(file) == "extxyz")
    except (OSError, UnknownFileTypeError):
        return False


def split_selection(path):
    """Split FILE@SLICE into the file and a slice, or a text that selects rows of a database."""
    file, at, text = path.rpartition("@")
    if not at or Path(path).exists():
        return path, slice(None)
    try:
        index = string2index(text)
    except ValueError:
        raise ValueError(f"cannot read {path}: {text!r} is not a slice such as :100") from None
    if isinstance(index, int):
        index = slice(index, index + 1 or None)
    return file, index


def select(numbered, selection):
    """Apply a slice to an iterator."""
    parts = selection.start, selection.stop, selection.step
    if any(part is not None and part < 0 for part in parts):
        return iter(list(numbered)[selection])
    return islice(numbered, *parts)


def stream(file, suffix):
    """Entries of extended XYZ that is read once, from its beginning to its end."""
    name = "standard input" if file == STDIO else file
    try:
        with opened(file, suffix) as binary:
            for i, (_, frame) in enumerate(split_frames(binary, name)):
                yield i, partial(read_frame, frame, i, name)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot read {name}: {reason}") from error


def opened(file, suffix):
    """Open a file, or standard input, for reading bytes."""
    if file != STDIO:
        return DECOMPRESS.get(suffix, open)(file, "rb")
    if sys.stdin is None:
        raise ValueError("cannot read standard input: it is closed")
    return open(sys.stdin.fileno(), "rb", closefd=False)


def read_frame(frame, i, name):
    """Structure of a frame of extended XYZ; errors name it."""
    with naming_structure(i, name):
        return parse_frame(frame)


def with_ase(file, index, labels):
    """Entries of a file that is read by ASE."""
    n = 0
    try:
        suffix, packed = endings(file)
        if suffix in RECORDS:
            with opened(file, packed) as binary:
                structures = RECORDS[suffix](binary.read().decode(errors="replace"))
        else:
            options = {"store_tags": True} if suffix == ".cif" and labels else {}
            structures = iread(file, index, do_not_split_by_at_sign=True, **options)
        for atoms in structures:
            yield n, lambda atoms=atoms: atoms
            n += 1
    except UnknownFileTypeError as error:
        raise ValueError(
            f"cannot read {file}: ASE knows no format {Path(file).suffix or 'of this name'}; "
            f"convert it, for example with Open Babel, to a format that works, such as {FORMATS}"
        ) from error
    except Exception as error:  # ASE's readers raise exceptions of many types
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, KeyError) and re.fullmatch(r"'\w{,8}'", reason):
            reason = f"{reason} is not the symbol of an element"
        progress = f" after {counted(n, 'structure')}" if n else ""
        raise ValueError(f"cannot read {file}{progress}: {reason}") from error
