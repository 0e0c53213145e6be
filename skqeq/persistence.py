"""Model files that are safe to load, carry a format number, and are never half written."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import secrets
import shutil
import zipfile
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _archive
from ._reader import ModelReader
from ._warnings import warn_once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._typing import Model, PathType


__all__ = ["TRUSTED_TYPES", "load", "save"]

FORMAT = 6

SUFFIX = ".skqeq"
# Names of the files in the zip archive that `save` writes.
ABOUT, MODEL = "about.json", "model.skops"
LARGEST_ABOUT = 2**16  # bytes
# First bytes of pickles, and of gzip, zlib, bzip2, xz and lz4 files, in which joblib writes them.
PICKLES = (b"\x80", b"\x1f\x8b", b"x", b"BZh", b"\xfd7zXZ"[:4], b"]\x00", b"\x04\x22M\x18")
# Name of the file in the skops archive that lists all types.
SCHEMA = "schema.json"
PACKAGES = ("skqeq", "numpy", "scipy", "scikit-learn", "dscribe", "ase")

# Types of this package that fitted models contain. The keys are the names in model files; they must
# never change, because existing files could then not be read. The values are the names from which
# the types are imported. If a type is moved or renamed, change its value here.
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
        "skqeq.TotalChargeFeatures",
        "skqeq.VectorSOAPFeaturizer",
        "skqeq.features.PowerSpectrum",
        "skqeq.features.VectorSpectrum",
        "skqeq.fields.FieldLayout",
        "skqeq.model_selection.LabelledKFold",
        "skqeq.model_selection.PassthroughScorer",
        "skqeq.model_selection.TargetScorer",
        "skqeq.models.Calibration",
        "skqeq.models.Posterior",
        "skqeq.response.NoCharges",
        "skqeq.sparsify.ReweightedKernel",
        "skqeq.sparsify.SparseKernel",
        # Splitters of searches. skops trusts estimators of scikit-learn, but not these.
        "sklearn.model_selection.GroupKFold",
        "sklearn.model_selection.GroupShuffleSplit",
        "sklearn.model_selection.KFold",
        "sklearn.model_selection.LeaveOneGroupOut",
        "sklearn.model_selection.LeaveOneOut",
        "sklearn.model_selection.RepeatedKFold",
        "sklearn.model_selection.ShuffleSplit",
    )
}
TRUSTED_TYPES = sorted(TYPES)


class Persistent:
    """Write a format number into pickles, and refuse pickles with another format number.

    The version that scikit-learn writes into pickles covers only estimators of scikit-learn.
    """

    if TYPE_CHECKING:  # defined by `BaseEstimator`

        def _validate_params(self) -> None: ...

    def __getstate__(self):
        return {**super().__getstate__(), "_skqeq_format": FORMAT}

    def __setstate__(self, state):
        state = dict(state)
        _check_format(state.pop("_skqeq_format", FORMAT), f"this {type(self).__name__}")
        # Parameters that this version added have their defaults.
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if parameter.default is not parameter.empty:
                state.setdefault(name, parameter.default)
        super().__setstate__(state)

    def check_loaded(self) -> None:
        """Check a fitted estimator that was read from a file.

        Raises
        ------
        ValueError
            If a parameter, or a result of a fit, does not fit the others; the message names it.
        """
        self._validate_params()
        self._check_fitted()

    def _check_fitted(self):
        """Check the results of a fit; estimators without any keep this method."""


def save(model: Model, path: PathType) -> None:
    """Write a fitted model to a file that is safe to load: no code in the file is executed.

    The file is a zip archive with the model in the format of skops, a checksum, and the versions of
    the packages. An existing file is replaced only when the new file is complete.

    If a search contains objects of other packages, such as the distributions of a
    `RandomizedSearchCV`, a warning names them, and the file holds its ``best_estimator_``, which
    makes the same predictions.

    Parameters
    ----------
    model : estimator
        A model of this package, or a pipeline or search of scikit-learn that contains one.
    path : str or path
        File name, usually with the ending ``.skqeq``.

    Raises
    ------
    TypeError
        If the model contains objects of other packages, because `load` would refuse them.
    ValueError
        If the model contains more objects than `load` accepts, such as a search with a hundred
        thousand candidates.

    See Also
    --------
    load : Read a model from a file.

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
    try:
        data = _safe_file(model)
    except TypeError as error:
        best = getattr(model, "best_estimator_", None)
        if best is None:
            raise
        data = _safe_file(best)
        warn_once(
            f"{path} holds only best_estimator_ of the {type(model).__name__}: {error}",
            "best_estimator_",
        )
    about = {
        "format": FORMAT,
        "sha256": hashlib.sha256(data).hexdigest(),
        "packages": {name: version(name) for name in PACKAGES},
    }
    with replacing(Path(path)) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(ABOUT, json.dumps(about, indent=1))
        archive.writestr(MODEL, data)


def _safe_file(model):
    """A file of skops, as bytes, that `load` accepts; a TypeError says why there is none."""
    import skops.io  # not at the top, because this import takes half a second

    members = _archive.read_members(skops.io.dumps(model))
    schema = json.loads(members[SCHEMA])
    _rename(schema, _public_names().get)
    members[SCHEMA] = json.dumps(schema).encode()
    data = _archive.pack(members, compress=True)
    refusal = (
        "cannot be saved in a way that is safe to load; joblib.dump can save it, but its files can "
        "execute code"
    )
    foreign = set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED_TYPES)
    foreign.update(ModelReader(members, TYPES).unknown_types())
    if foreign:
        names = ", ".join(sorted(foreign))
        raise TypeError(f"a {type(model).__name__} that holds {names} {refusal}")
    return data


def load(path: PathType) -> Any:
    """Read a model from a file that `save` has written, without executing code from the file.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    model : estimator
        Its predictions equal those of the saved model; with the same versions of all packages, they
        are identical to the last bit.

    Raises
    ------
    ValueError
        If the file was not written by `save`, is damaged, has another format, contains types that
        fitted models do not contain, or needs far more memory than its size suggests.
    OSError
        If the file cannot be read.

    See Also
    --------
    save : Write a model to a file.

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
    _archive.check_regular(path)
    limit = _archive.limit_of(os.stat(path).st_size)
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(_archive.read_member(archive, ABOUT, LARGEST_ABOUT))
            data = _archive.read_member(archive, MODEL, limit)
        written, checksum = int(about["format"]), str(about["sha256"])
    except Exception as error:  # a damaged archive can raise any error, also an OSError
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(
            f"{path} was not written by skqeq.save, or is damaged: {error!r}{_advice(path)}"
        ) from error
    _check_format(written, f"the model in {path}")
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ValueError(f"{path} is damaged: its checksum does not match its content")
    try:
        reader = ModelReader(_archive.read_members(data, limit), TYPES)
        unknown = reader.unknown_types()
    except Exception as error:  # a file that was edited by hand can raise any error
        raise ValueError(f"{path} holds no model: {error!r}") from error
    if unknown:
        raise ValueError(f"{path} was not written by skqeq.save: it holds {', '.join(unknown)}")
    try:
        model = reader.read()
    except Exception as error:  # a file that was edited by hand can raise any error
        raise ValueError(f"{path} holds no model: {error!r}") from error
    for item in reader.objects:
        for name in ("memory", "checkpoint"):
            # `memory` names a folder of pickles, which could execute code. Neither folder need
            # exist on the machine that reads the model.
            if getattr(item, name, None) is not None:
                setattr(item, name, None)
    try:
        _check_loaded(model)
    except Exception as error:  # a missing attribute, for example
        reason = str(error) if isinstance(error, (ValueError, AttributeError)) else repr(error)
        raise ValueError(f"the parts of the model in {path} do not fit: {reason:.300}") from error
    return model


def _check_loaded(item):
    """Check a model that was read from a file, and the parts of it that predictions use."""
    if not is_fitted(item):
        return
    if hasattr(item, "check_loaded"):
        item.check_loaded()
    elif hasattr(item, "_parameter_constraints"):
        item._validate_params()
    steps = getattr(item, "steps", [])
    parts = [part for _, part in [*steps, *getattr(item, "transformer_list", [])]]
    if hasattr(item, "best_estimator_"):
        parts.append(item.best_estimator_)
    for part in parts:
        if not hasattr(part, "fit") and part not in (None, "passthrough", "drop"):
            raise ValueError(f"a {type(item).__name__} contains a {type(part).__name__}")
        _check_loaded(part)
    # The first step of another package need not take a list of structures.
    own = bool(steps) and type(parts[0]).__module__.startswith("skqeq.")
    if own and hasattr(parts[-1], "check_features"):
        from ase import Atoms

        # Features are computed when they are needed. This only compares their meaning.
        parts[-1].check_features(item[:-1].transform([Atoms("H")]))


def is_fitted(item: Any) -> bool:
    """Whether an object is an estimator with the results of a fit."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(item)
    except (NotFittedError, TypeError):  # a TypeError if it is no estimator
        return False
    return True


def is_model_file(path: PathType) -> bool:
    """Whether a file is a zip archive, as all files of `save` are, whatever its name.

    Raises
    ------
    ValueError
        If the path is a pipe or a device.
    OSError
        If the file cannot be read.
    """
    return _first_bytes(path).startswith(b"PK\x03\x04")


def _advice(path):
    """Advice for a message about a file that may be a pickle; empty for other files."""
    if _first_bytes(path).startswith(PICKLES):
        return "; it may be a pickle, which joblib.load reads; loading a pickle can execute code"
    return ""


def _first_bytes(path):
    _archive.check_regular(path)
    with open(path, "rb") as file:
        return file.read(4)


def _public_names():
    """A dict from the current module and name of every type to its name in model files."""
    names = {}
    for name, importable in TYPES.items():
        module, _, attribute = importable.rpartition(".")
        cls = getattr(import_module(module), attribute)
        names[f"{cls.__module__}.{cls.__name__}"] = name
    return names


def _rename(node, renamed):
    """Rename types in place, in a node of the schema and in all nodes below it."""
    nodes = [node]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            name = f"{node.get('__module__')}.{node.get('__class__')}"
            if (new := renamed(name)) is not None:
                node["__module__"], _, node["__class__"] = new.rpartition(".")
        nodes += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _check_format(written, name):
    """Refuse files and pickles with another format number."""
    if written < FORMAT:
        raise ValueError(
            f"{name} was saved in format {written} by an older skqeq, but the installed one reads "
            f"format {FORMAT}; fit the model again (the table 'Old and new names' of the changelog "
            "lists what parameters are called now)"
        )
    if written > FORMAT:
        raise ValueError(
            f"{name} was saved in format {written}, but the installed skqeq reads formats up to "
            f"{FORMAT}; upgrade skqeq"
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A context manager that yields a temporary path, and moves that file to `path` at its end.

    After an exception, `path` is unchanged. A file that is replaced keeps its permissions. A
    process that is killed leaves a hidden file in the same folder, whose name ends with the name
    of the file.
    """
    path = path.resolve()  # of a symbolic link, replace the file to which it points
    # The number of the process would not be enough: threads share it, and so can containers. The
    # temporary file has the same ending, because writers choose the format by the ending.
    temporary = path.with_name(f".{secrets.token_hex(8)}-{path.name}")
    try:
        yield temporary
        if path.exists():
            shutil.copymode(path, temporary)
        with open(temporary, "r+b") as file:
            # The content must be on disk before the file is renamed. Otherwise a crash could lose
            # both the old and the new file.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
