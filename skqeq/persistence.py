"""Version of the pickled form of fitted estimators."""

FORMAT = 2

# What fitted models hold beside arrays and plain Python, for ``skops.io.load(trusted=...)``.
TRUSTED_TYPES = [
    "skqeq.features._soap.PowerSpectrum",
    "skqeq.features._soap.SOAPFeaturizer",
    "skqeq.models._kqeq.KQEqRegressor",
    "skqeq.models._qeq.QEqRegressor",
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
