"""Read and write structures and models; an output file is never left half written."""

from itertools import islice
from pathlib import Path

import joblib
from ase.io import iread
from ase.io.formats import parse_filename
from sklearn.exceptions import NotFittedError

from ..datasets import open_structures
from ..models import unwrap
from ..persistence import SUFFIX, load, replacing, save
from ..structures import with_total_charge


def iterate_structures(path, charge_key=None, **options):
    """Yield the structures of a file one by one.

    `charge_key` is the key of the total charge in ``info``; None means those that models read.
    The options are passed to the reader of ASE.
    """
    for i, atoms in enumerate(_read(path, options)):
        if charge_key is None:
            yield atoms
        else:
            yield with_total_charge(atoms, charge_key, f"{path}, structure {i}")


def _read(path, options):
    if Path(path).suffix in (".xyz", ".extxyz"):
        yield from open_structures(path)
        return
    n = 0
    structures = iread(str(path), **options)  # all structures, or a slice of them for FILE@SLICE
    while True:
        try:
            atoms = next(structures, None)
        except Exception as error:  # ASE's readers raise exceptions of many types
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            progress = f" after {n} structures" if n else ""
            raise ValueError(f"cannot read {path}{progress}: {reason}") from error
        if atoms is None:
            break
        n += 1
        yield atoms
    if n == 0:
        raise ValueError(f"{path} holds no structures")


def read_structures(path, charge_key=None):
    """All structures of a file with their labels."""
    # In CIF files, charges and other columns of sites are stored only on request.
    is_cif = ".cif" in map(str.lower, Path(str(path).partition("@")[0]).suffixes)
    return list(iterate_structures(path, charge_key, **({"store_tags": True} if is_cif else {})))


def indices_in_file(path, n):
    """Indices in the file of n structures that were read: those of the slice for FILE@SLICE."""
    file, index = parse_filename(str(path))
    if isinstance(index, int):
        index = slice(index, index + 1 or None)
    if not isinstance(index, slice):
        return range(n)
    # Indices from the end need the length of the file.
    ends = index.start, index.stop, index.step
    if any(end is not None and end < 0 for end in ends):
        return range(sum(1 for _ in iterate_structures(file)))[index]
    start, step = index.start or 0, index.step or 1
    return range(start, start + n * step, step)


def blocks(iterable, size):
    """Yield lists of `size` items; the last list may be shorter."""
    iterator = iter(iterable)
    while block := list(islice(iterator, size)):
        yield block


def save_model(model, path):
    """Write a model with `skqeq.save` if the path ends in .skqeq, else with joblib."""
    if path.suffix == SUFFIX:
        save(model, path)
        return
    with replacing(path) as temporary:
        joblib.dump(model, temporary)


def load_model(path):
    """Read a fitted charge model.

    A joblib file can execute code when it is loaded: load only files from a trusted source.
    """
    try:
        model = load(path) if Path(path).suffix == SUFFIX else joblib.load(path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # damaged pickles raise exceptions of any type
        raise ValueError(f"{path} is not a model file: {error!r}") from error
    try:
        unwrap(model)
    except (TypeError, NotFittedError) as error:
        raise ValueError(f"{path} holds no fitted charge model: {error}") from error
    return getattr(model, "best_estimator_", model)
