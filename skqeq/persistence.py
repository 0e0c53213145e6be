"""Models on disk: files that execute nothing, versions, and files that are never half written."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._typing import Model, PathType


__all__ = ["TRUSTED_TYPES", "load", "save"]

FORMAT = 5

SUFFIX = ".skqeq"
# The members of a file of `save`.
ABOUT, MODEL = "about.json", "model.skops"
PACKAGES = ("skqeq", "numpy", "scipy", "scikit-learn", "dscribe", "ase")

# What fitted models hold beside arrays, plain Python and estimators of scikit-learn.
TRUSTED_TYPES = [
    "skqeq.features._blocks.StructureBlocks",
    "skqeq.features._soap.PowerSpectrum",
    "skqeq.features._soap.SOAPFeaturizer",
    "skqeq.model_selection.LabelledKFold",
    "skqeq.model_selection.TargetScorer",
    "skqeq.models._cv.KQEqRegressorCV",
    "skqeq.models._gap.GAPRegressor",
    "skqeq.models._gapkqeq.GAPKQEqRegressor",
    "skqeq.models._kqeq.KQEqRegressor",
    "skqeq.models._qeq.QEqRegressor",
    "skqeq.response._flow.ChargeFlow",
    "skqeq.response._qeq.QEq",
    "skqeq.sparsify._cur.CURSparsifier",
    "skqeq.sparsify._kernel.SparseKernel",
]


class Persistent:
    """Write a format version into pickles and refuse those of a newer package.

    scikit-learn stamps its own version on its own classes only, so estimators of other packages
    must bring theirs.
    """

    def __getstate__(self):
        return {**super().__getstate__(), "_skqeq_format": FORMAT}

    def __setstate__(self, state):
        state = dict(state)
        _check_format(state.pop("_skqeq_format", FORMAT), f"this {type(self).__name__}")
        super().__setstate__(state)


def save(model: Model, path: PathType) -> None:
    """Write a fitted model to a file that executes nothing when it is read.

    The file is a zip archive with the model as stored by skops, a checksum of it, and the versions
    of the packages that made it. It appears when it is complete, in place of an older one, or not
    at all.

    Parameters
    ----------
    model : estimator
        Of this package or of scikit-learn: a pipeline, a search.
    path : str or path
        Usually with the ending ``.skqeq``.

    Raises
    ------
    TypeError
        If the model holds objects of other packages, which `load` would refuse.

    See Also
    --------
    load : Read it.

    Examples
    --------
    >>> import tempfile
    >>> import skqeq
    >>> from ase.build import molecule
    >>> model = skqeq.QEqRegressor().fit([molecule("H2O")], [[0.0, 0.0, -0.39]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skqeq.save(model, f"{folder}/model.skqeq")
    ...     skqeq.load(f"{folder}/model.skqeq")
    QEqRegressor()
    """
    import skops.io  # half a second, and not everybody saves models

    data = skops.io.dumps(model)
    strange = sorted(set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED_TYPES))
    if strange:
        raise TypeError(
            f"a {type(model).__name__} that holds {', '.join(strange)} cannot be saved in a way "
            "that is safe to load; joblib.dump can, for readers who trust you"
        )
    about = {
        "format": FORMAT,
        "sha256": hashlib.sha256(data).hexdigest(),
        "packages": {name: version(name) for name in PACKAGES},
    }
    with replacing(Path(path)) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(ABOUT, json.dumps(about, indent=1))
        archive.writestr(MODEL, data)


def load(path: PathType) -> Any:
    """Read a model from a file of `save`, without executing anything in it.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    model : estimator
        Predicts what the saved one did, to the last bit if the versions are the same.

    Raises
    ------
    ValueError
        If the file is not one of `save`, is damaged, was written in another format, or asks for
        types that fitted models do not hold.
    OSError
        If it cannot be read.

    See Also
    --------
    save : Write it.

    Examples
    --------
    >>> import tempfile
    >>> import skqeq
    >>> from ase.build import molecule
    >>> model = skqeq.QEqRegressor().fit([molecule("H2O")], [[0.0, 0.0, -0.39]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skqeq.save(model, f"{folder}/model.skqeq")
    ...     again = skqeq.load(f"{folder}/model.skqeq")
    >>> bool((again.predict([molecule("H2O")]) == model.predict([molecule("H2O")])).all())
    True
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        with zipfile.ZipFile(path) as archive:
            about, data = json.loads(archive.read(ABOUT)), archive.read(MODEL)
        found, checksum = int(about["format"]), str(about["sha256"])
    except OSError:
        raise
    except Exception as error:  # damaged archives raise errors of many kinds
        raise ValueError(f"{path} is not a file of skqeq.save, or damaged: {error!r}") from error
    _check_format(found, f"the model in {path}")
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ValueError(f"{path} is damaged: its checksum is that of another model")
    try:
        return skops.io.loads(data, trusted=TRUSTED_TYPES)
    except UntrustedTypesFoundException as error:
        raise ValueError(f"{path} was not made by skqeq.save: {error}") from error
    except Exception as error:  # whatever a file that was made by hand leads to
        raise ValueError(f"{path} holds no model: {error!r}") from error


def _check_format(found, what):
    """Refuse what was saved in another format."""
    if found < FORMAT:
        raise ValueError(
            f"{what} was saved in format {found} by an older skqeq, but the installed one reads "
            f"format {FORMAT}; fit the model again"
        )
    if found > FORMAT:
        raise ValueError(
            f"{what} was saved in format {found}, but the installed skqeq reads formats up to "
            f"{FORMAT}; upgrade skqeq"
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder, which takes the place of `path` at the end.

    A process that dies on the way leaves a hidden file whose name starts with its number.
    """
    path = path.resolve()  # a link stays a link
    # Formats are told by the ending, so the ending stays.
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())  # else the new name may be on disk before the content
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
