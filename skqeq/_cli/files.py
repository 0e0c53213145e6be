"""Read and write structures and models; an output file is never left half written."""

from itertools import islice

import joblib
from sklearn.exceptions import NotFittedError

from ..models import unwrap
from ..persistence import SUFFIX, is_model_file, load, replacing, save
from ..targets import ENERGIES, TARGETS
from .inputs import entries

PICKLES = (".joblib", ".pkl", ".pickle")
MODEL_ENDINGS = (
    SUFFIX,
    *PICKLES,
    *(name + packed for name in PICKLES for packed in (".gz", ".xz")),
)


def read_numbered(path, charge_key=None):
    """Indices in the file and structures with their labels; those of the slice for FILE@SLICE.

    `charge_key` is the key of the total charge in ``info``; None means those that models read.
    """
    numbered = [(i, read()) for i, read in entries(path, charge_key, labels=True)]
    if not numbered:
        raise ValueError(f"{path} holds no structures")
    indices, structures = zip(*numbered, strict=True)
    return list(indices), list(structures)


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


def load_model(path, *, allow_pickle=False):
    """Read a fitted charge model; the content of the file decides how, and not its name.

    A pickle, which joblib writes, can execute code when it is loaded. It is refused unless
    `allow_pickle` is True.
    """
    try:
        model = load(path) if is_model_file(path) else _load_pickle(path, allow_pickle)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        unwrap(model)
    except (TypeError, NotFittedError) as error:
        raise ValueError(f"{path} holds no fitted charge model: {error}") from error
    return getattr(model, "best_estimator_", model)


def _load_pickle(path, allowed):
    if not allowed:
        raise ValueError(
            f"{path} is not a model file of skqeq.save; if it is a pickle, as joblib writes, use "
            "--allow-pickle, but only if you trust it: loading a pickle can execute code"
        )
    try:
        return joblib.load(path)
    except OSError:
        raise
    except Exception as error:  # damaged pickles raise exceptions of any type
        raise ValueError(f"{path} is not a model file: {error!r}") from error


def predictable_targets(model):
    """Names of the targets that a model can predict.

    Energies, forces and stress are included only if the model was trained on one of these.
    """
    trained_on_energies = not set(ENERGIES).isdisjoint(unwrap(model)[1].targets_)
    return [name for name in TARGETS if trained_on_energies or name not in ENERGIES]
