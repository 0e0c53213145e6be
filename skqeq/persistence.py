"""Models on disk: files that execute nothing, versions, and files that are never half written."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._typing import Model, PathType


__all__ = ["TRUSTED_TYPES", "load", "save"]

FORMAT = 6

SUFFIX = ".skqeq"
# Members of a file of `save`.
ABOUT, MODEL = "about.json", "model.skops"
# Member of `MODEL` in which skops describes the object, by types and their content.
SCHEMA = "schema.json"
PACKAGES = ("skqeq", "numpy", "scipy", "scikit-learn", "dscribe", "ase")

# Types of this package that fitted models hold. The key is the name in files; it never changes, or
# older files could not be read. The value is the name under which the type can be imported now: if
# a type is moved or renamed, change the value.
TYPES = {
    name: name
    for name in (
        "skqeq.CURSparsifier",
        "skqeq.ChargeFlow",
        "skqeq.GAPKQEqRegressor",
        "skqeq.GAPRegressor",
        "skqeq.KQEqRegressor",
        "skqeq.KQEqRegressorCV",
        "skqeq.QEq",
        "skqeq.QEqRegressor",
        "skqeq.SOAPFeaturizer",
        "skqeq.StructureBlocks",
        "skqeq.features.PowerSpectrum",
        "skqeq.fields.FieldLayout",
        "skqeq.model_selection.LabelledKFold",
        "skqeq.model_selection.TargetScorer",
        "skqeq.models.Posterior",
        "skqeq.response.NoCharges",
        "skqeq.sparsify.SparseKernel",
    )
}
TRUSTED_TYPES = sorted(TYPES)


class Persistent:
    """Write a format version into pickles, and refuse those of another format.

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

    data = _with_names(skops.io.dumps(model), _public_names().get)
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
        return skops.io.loads(_with_names(data, TYPES.get), trusted=list(TYPES.values()))
    except UntrustedTypesFoundException as error:
        raise ValueError(f"{path} was not made by skqeq.save: {error}") from error
    except Exception as error:  # whatever a file that was made by hand leads to
        raise ValueError(f"{path} holds no model: {error!r}") from error


def _public_names():
    """Names in files of the types in `TYPES`, by the names that the types have in memory."""
    names = {}
    for name, importable in TYPES.items():
        module, _, attribute = importable.rpartition(".")
        cls = getattr(import_module(module), attribute)
        names[f"{cls.__module__}.{cls.__name__}"] = name
    return names


def _with_names(data: bytes, renamed: Callable[[str], str | None]) -> bytes:
    """A file of skops in which types have other names, where `renamed` returns one.

    skops stores the module in which a type is defined. That is private, and changes whenever code
    is moved from one file to another.
    """
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(result, "w") as target:
        for member in source.infolist():
            content = source.read(member)
            if member.filename == SCHEMA:
                schema = json.loads(content)
                _rename(schema, renamed)
                content = json.dumps(schema, indent=2).encode()
            target.writestr(member, content)
    return result.getvalue()


def _rename(node, renamed):
    """Rename types in place, in a node of the schema and all nodes below it."""
    nodes = [node]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            name = f"{node.get('__module__')}.{node.get('__class__')}"
            if (new := renamed(name)) is not None:
                node["__module__"], _, node["__class__"] = new.rpartition(".")
        nodes += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _check_format(found, what):
    """Refuse what was saved in another format."""
    if found < FORMAT:
        raise ValueError(
            f"{what} was saved in format {found} by an older skqeq, but the installed one reads "
            f"format {FORMAT}; fit the model again (the table 'Old and new names' of the changelog "
            "lists what parameters are called now)"
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
