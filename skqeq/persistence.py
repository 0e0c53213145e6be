"""Version of the pickled form of fitted estimators, and files that are never half written."""

import os
from contextlib import contextmanager

FORMAT = 5

# What fitted models hold beside arrays and plain Python, for ``skops.io.load(trusted=...)``.
TRUSTED_TYPES = [
    "skqeq.features._blocks.StructureBlocks",
    "skqeq.features._soap.PowerSpectrum",
    "skqeq.features._soap.SOAPFeaturizer",
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
        found = state.pop("_skqeq_format", FORMAT)
        if found < FORMAT:
            raise ValueError(
                f"this {type(self).__name__} was saved in format {found} by an older "
                f"skqeq, but the installed one reads format {FORMAT}; fit the model again"
            )
        if found > FORMAT:
            raise ValueError(
                f"this {type(self).__name__} was saved in format {found}, but the installed "
                f"skqeq reads formats up to {FORMAT}; upgrade skqeq"
            )
        super().__setstate__(state)


@contextmanager
def replacing(path):
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
