"""Read and write structures and models; an output file is never left half written."""

from itertools import islice
from pathlib import Path

import joblib
from ase.io.formats import parse_filename
from sklearn.exceptions import NotFittedError

from ..models import unwrap
from ..persistence import SUFFIX, load, replacing, save
from .inputs import entries

PICKLES = (".joblib", ".pkl", ".pickle")
MODEL_ENDINGS = (
    SUFFIX,
    *PICKLES,
    *(name + packed for name in PICKLES for packed in (".gz", ".xz")),
)


def read_structures(path, charge_key=None):
    """All structures of a file with their labels.

    `charge_key` is the key of the total charge in ``info``; None means those that models read.
    """
    structures = [read() for _, read in entries(path, charge_key, labels=True)]
    if not structures:
        raise ValueError(f"{path} holds no structures")
    return structures


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
        return range(sum(1 for _ in entries(file)))[index]
    start, step = index.start or 0, index.step or 1
    return range(start, start + n * step, step)


def blocks(iterable, size):
    """Yield lists of `size` items; the last list may be shorter."""
    iterator = iter(iterable)
    while block := list(islice(iterator, size)):
        yield block


def save_model(model, path):
    """Write a model with `skqeq.save` if the path ends in .skqeq, else with joblib."""
    if path.suffix.lower() == SUFFIX:
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
