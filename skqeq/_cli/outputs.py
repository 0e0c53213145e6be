"""Write structures in the format that the ending of a file names, and never over an input."""

import os
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from warnings import warn

from ase.db import connect
from ase.io import Trajectory, write
from ase.io.jsonio import decode, encode

from ..persistence import replacing
from .inputs import DECOMPRESS, STDIO, XYZ, split_selection

# Arrays that all formats store under their own names.
STANDARD = {
    *("numbers", "positions", "momenta", "masses", "tags", "initial_magmoms", "initial_charges"),
}


def check_output(path, endings, inputs):
    """Refuse, before any work, an output with an unknown ending, or one that is an input.

    Parameters
    ----------
    path : path
        The output.
    endings : iterable of str
        Endings in lower case.
    inputs : list of str
        Inputs of the command, also FILE@SLICE. Links to the same file are found.
    """
    if not str(path).lower().endswith(tuple(endings)):
        raise ValueError(f"the name of the output {path} must end in {', '.join(endings)}")
    for name in inputs:
        name, _ = split_selection(name)
        if path.exists() and Path(name).exists() and os.path.samefile(path, name):
            raise ValueError(f"{path} is the input {name}; choose another name for the output")


@contextmanager
def structure_writer(path):
    """Yield a function that writes a list of structures; ``-`` is the standard output."""
    if str(path) == STDIO:
        yield partial(write, sys.stdout, format="extxyz")
        return
    with replacing(path) as temporary, WRITERS[ending(path)](temporary) as write_structures:
        yield write_structures


def ending(path):
    """The ending of an output among those that can be written."""
    name = path.name.lower()
    return next(known for known in WRITERS if name.endswith(known))


@contextmanager
def xyz_writer(path):
    """Write extended XYZ, compressed or not."""
    opener = DECOMPRESS.get(path.suffix.lower(), open)
    with opener(path, "wt", encoding="utf-8") as file:
        yield partial(write, file, format="extxyz")


@contextmanager
def trajectory_writer(path):
    """Write a trajectory of ASE."""
    with Trajectory(os.fspath(path), "w") as trajectory:

        def write_structures(X):
            for atoms in X:
                atoms.info |= other_arrays(atoms)
                trajectory.write(atoms)

        yield write_structures


@contextmanager
def database_writer(path):
    """Write a database of ASE; ``info`` becomes the data of a row."""
    with connect(os.fspath(path), type="db", append=False, use_lock_file=False) as database:

        def write_structures(X):
            for atoms in X:
                database.write(atoms, data=plain(atoms.info | other_arrays(atoms)))

        yield write_structures


def other_arrays(atoms):
    """Arrays for which the format has no place. They are stored in ``info``."""
    return {name: array for name, array in atoms.arrays.items() if name not in STANDARD}


def plain(values):
    """Convert values to Python objects and arrays, which databases can store."""
    result = {}
    for name, value in values.items():
        try:
            result[name] = decode(encode(value))
        except (TypeError, ValueError, AttributeError):
            warn(f"a database of ASE cannot store info[{name!r}], {value!r}", stacklevel=2)
    return result


WRITERS = {
    **dict.fromkeys(XYZ, xyz_writer),
    **{xyz + packed: xyz_writer for xyz in XYZ for packed in DECOMPRESS},
    ".traj": trajectory_writer,
    ".db": database_writer,
}
