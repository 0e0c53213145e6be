"""What makes features: arrays, several sources side by side, and nothing at all.

A source has ``tiles(structures)``, a list of `Tile`, ``boundaries``, the first column of each block
of columns and the total number, ``row_bytes``, the memory that one atom needs on the way,
``signature``, what the columns mean, in plain Python that can be compared (None where nobody
knows), ``prior_variance``, that of a field of unit amplitude, of which features describe the part
``|phi|^2``, and ``verbose``, whether walks show their progress. Where features have a derivative,
it also has ``gradient(structure)`` and ``dual(weights)``, see `StructureFeatures`.
"""

import numpy as np

from ._tiles import Tile

NO_GRADIENT = (
    "forces, stress and Born charges need features of known derivative: those of CURSparsifier "
    "behind SOAPFeaturizer"
)


class ArraySource:
    """Features given as arrays, found again by the geometry they belong to."""

    prior_variance = 1.0
    signature = None
    verbose = False

    def __init__(self, structures, arrays):
        self.rows = {}
        for i, (structure, array) in enumerate(zip(structures, arrays, strict=True)):
            array = np.array(array, dtype=np.float64)
            if array.ndim != 2 or len(array) != len(structure):
                raise ValueError(
                    f"structure {i} ({structure.symbols}): features of shape {array.shape} for "
                    f"{len(structure)} atoms"
                )
            if not np.isfinite(array).all():
                raise ValueError(
                    f"structure {i} ({structure.symbols}): the features hold "
                    f"{array[~np.isfinite(array)][0]}"
                )
            known = self.rows.setdefault(structure.digest, array)
            if not np.array_equal(known, array):
                raise ValueError(
                    f"structure {i} ({structure.symbols}) has the same geometry as an earlier "
                    "one, but other features"
                )
        widths = {array.shape[1] for array in self.rows.values()}
        if len(widths) != 1:
            raise ValueError(f"arrays have different numbers of columns: {sorted(widths)}")
        self.boundaries = (0, widths.pop())
        self.row_bytes = 8 * self.boundaries[-1]

    def tiles(self, structures):
        """All atoms times all columns."""
        values = np.concatenate([self.rows[s.digest] for s in structures])
        return [Tile(np.arange(len(values)), (slice(0, self.boundaries[-1]),), values)]


class StackedSource:
    """Several sources side by side, as unions of transformers make them.

    A source may stand more than once; its features are computed once.

    Parameters
    ----------
    sources : list
        Sources of features of the same structures.
    names : tuple of str, default=None
        What the parts are called, where that matters.
    """

    def __init__(self, sources, names=None):
        self.sources, self.names = sources, names
        self.boundaries = (0,)
        for source in sources:
            last = self.boundaries[-1]
            self.boundaries += tuple(last + b for b in source.boundaries[1:])
        self.sizes = tuple(source.boundaries[-1] for source in sources)
        distinct = {id(source): source for source in sources}.values()
        self.n_distinct = sum(source.boundaries[-1] for source in distinct)
        self.row_bytes = sum(source.row_bytes for source in distinct)
        self.prior_variance = sum(source.prior_variance for source in sources)
        self.verbose = any(source.verbose for source in sources)
        self.signature = tuple(source.signature for source in sources)
        if None in self.signature:
            self.signature = None
        elif names is not None:
            self.signature = (tuple(names), self.signature)

    def _each(self, make):
        """``make(source)`` of every source, made once where one stands more than once."""
        made = {}
        for source in self.sources:
            if id(source) not in made:
                made[id(source)] = make(source)
        return [made[id(source)] for source in self.sources]

    def tiles(self, structures):
        """The tiles of every source, shifted to its columns."""
        result, first = [], 0
        for source, tiles in zip(self.sources, self._each(lambda s: s.tiles(structures))):
            for tile in tiles:
                columns = tuple(slice(c.start + first, c.stop + first) for c in tile.columns)
                result.append(tile._replace(columns=columns))
            first += source.boundaries[-1]
        return result

    @property
    def spectra(self):
        """The power spectra of all sources, of which every one is a column block."""
        return [spectrum for source in self.sources for spectrum in source.spectra]

    def split(self, weights):
        """Weights of shape (..., n_features) by source."""
        return np.split(weights, np.cumsum(self.sizes)[:-1], axis=-1)

    def _check_gradient(self):
        if not all(hasattr(source, "gradient") for source in self.sources):
            raise TypeError(NO_GRADIENT)

    def gradient(self, structure):
        """See `StructureFeatures.gradient`."""
        self._check_gradient()
        return StackedGradient(self._each(lambda s: s.gradient(structure)), self.split)

    def dual(self, weights):
        """See `StructureFeatures.dual`."""
        self._check_gradient()
        parts = zip(self.sources, self.split(weights), strict=True)
        return np.concatenate([source.dual(part) for source, part in parts], axis=-1)


class StackedGradient:
    """The derivatives of several features side by side.

    Parameters
    ----------
    parts : list
        Gradients of the sources.
    split : callable
        Divides an array along its last axis by source.
    """

    def __init__(self, parts, split):
        self.parts, self.split = parts, split

    def field(self, dual):
        """The sum of the fields of the parts."""
        return sum(part.field(u) for part, u in zip(self.parts, self.split(dual), strict=True))

    def contract(self, cotangents):
        """Cotangents times features."""
        return np.concatenate([part.contract(cotangents) for part in self.parts], axis=1)

    def slopes(self, dual):
        """Of every column block of every part."""
        for part, u in zip(self.parts, self.split(dual), strict=True):
            yield from part.slopes(u)

    def field_gradient(self, q, dual):
        """The sum of the derivatives of the parts."""
        found = [p.field_gradient(q, u) for p, u in zip(self.parts, self.split(dual), strict=True)]
        return sum(g for g, _ in found), sum(v for _, v in found)

    def pull_back(self, cotangents):
        """The sum of what the parts pull back."""
        cotangents = self.split(cotangents)
        found = [part.pull_back(t) for part, t in zip(self.parts, cotangents, strict=True)]
        return sum(g for g, _ in found), sum(v for _, v in found)

    def jacobian(self, q):
        """The columns of the parts."""
        found = [part.jacobian(q) for part in self.parts]
        return tuple(np.concatenate(rows, axis=-1) for rows in zip(*found, strict=True))

    def unexplained(self):
        """Of the sum of the fields of the parts, which are independent."""
        return tuple(map(sum, zip(*(part.unexplained() for part in self.parts), strict=True)))


class NoFeatures:
    """The source of features without columns."""

    boundaries = (0, 0)
    row_bytes = 1024
    prior_variance = 0.0
    signature = ()
    verbose = False

    def tiles(self, structures):
        """Nothing."""
        return []

    def gradient(self, structure):
        """Nothing depends on the geometry."""
        return NoGradient(len(structure))

    def dual(self, weights):
        """There are none."""
        return weights


class NoGradient:
    """Derivatives of features without columns: none."""

    def __init__(self, n_atoms):
        self.n_atoms = n_atoms

    def field(self, dual):
        """Nothing."""
        return np.zeros(self.n_atoms)

    def field_gradient(self, q, dual):
        """Nothing moves."""
        return np.zeros((self.n_atoms, 3)), np.zeros((3, 3))

    def slopes(self, dual):
        """No neighbour matters."""
        return []

    def contract(self, cotangents):
        """No columns."""
        return np.zeros((len(cotangents), 0))

    def unexplained(self):
        """No field."""
        n = self.n_atoms
        return np.zeros(n), *np.zeros((2, n, 3 * n + 9))

    def jacobian(self, q):
        """No columns."""
        lead = np.shape(q)[:-1]
        return np.zeros((*lead, 3 * self.n_atoms, 0)), np.zeros((*lead, 9, 0))
