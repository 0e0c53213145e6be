"""SOAP: from structures to the power spectrum of every atom's surroundings."""

from __future__ import annotations

from functools import lru_cache
from itertools import islice, pairwise
from numbers import Integral, Real
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from joblib import Memory, Parallel, delayed, effective_n_jobs
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ..parameters import per_element
from ..persistence import Persistent
from ..structures import StructureFeatures, Tile
from ..structures._collection import collect
from ..structures._structure import reduced_cell
from ._cache import ROWS
from ._dscribe import dscribe_soap
from ._gradient import Surroundings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._typing import ByElement, PathType, StructuresLike


class SOAPFeaturizer(Persistent, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]  # of a mixin without types
    """Smooth overlap of atomic positions of every atom, by DScribe with GTO basis.

    The neighbour density of atom i is expanded in radial functions and spherical harmonics,
    ``c[Z, n, l, m]`` for neighbours of element Z. The power spectrum::

        p[Z1 Z2, l, n1 n2] = pi sqrt(8 / (2 l + 1)) sum_m c[Z1, n1, l, m] c[Z2, n2, l, m]

    is invariant under rotations [1]_, [2]_.

    Parameters
    ----------
    r_cut : float or tuple of float, default=(1.7, 3.5)
        Cutoff radius, Angstrom (above 1). Several cutoffs ('double SOAP') give blocks of columns
        whose kernels add.
    n_max : int, default=8
        Number of radial functions.
    l_max : int, default=6
        Largest angular momentum.
    sigma_atom : float, tuple of float or None, default=None
        Width of the Gaussian on each neighbour, Angstrom; None means ``r_cut / 8``, a tuple one
        width per cutoff.
    cutoff_width : float, tuple of float or None, default=None
        Width of the shell, Angstrom (at most `r_cut`), in which neighbours fade out: they count
        in full up to ``r_cut - cutoff_width`` and not at all from `r_cut` on; a tuple is one width
        per cutoff. None means DScribe's edge. See Notes.
    species : sequence of str or int, default=None
        Elements that can occur. None means those seen in `fit`.
    compression : {"off", "mu2", "mu1nu1", "crossover"}, default="off"
        Compression of the element channels [3]_.
    species_weighting : dict of {str: float}, default=None
        Weight of each element's density; with ``compression="mu2"`` the only way to tell
        elements apart.
    n_jobs : int, default=None
        Number of processes for the descriptor; None means 1.
    verbose : int, default=0
        Above 0 a progress bar is shown whenever a later step walks over the features.
    memory : str, path or joblib.Memory, default=None
        Where to keep rows on disk. None keeps them in memory only.
    cache_bytes : int, default=2**31
        The store of rows in memory, which all featurizers of a process share, is shrunk to this
        size; 0 switches it off. Rows of structures that are read when they are asked for, see
        `skqeq.datasets.open_structures`, are not kept.

    Attributes
    ----------
    species_ : ndarray of int
        Atomic numbers, ascending.
    n_features_out_ : int
        Number of columns.

    Notes
    -----
    Columns of an element that a structure lacks are zero. They are neither computed nor stored:
    a structure's rows hold only the channels of its own elements.

    A structure is featurised once per cutoff as long as its rows stay in the store, whatever
    the number of clones, folds and parameter candidates that ask for it.

    With ``cutoff_width=None`` neighbours count up to the distance beyond `r_cut` where their
    Gaussian has fallen to 1e-3 at `r_cut`, and the features jump when an atom crosses it. With a
    width d the density of a neighbour at distance r is multiplied by a function of the kind in
    [1]_,

    ``f(r) = y^3 (10 - 15 y + 6 y^2)``, ``y = (r_cut - r) / d`` clipped to [0, 1],

    which has two continuous derivatives: so have the features, and energies that are made of
    them are conserved in dynamics. There are fewer neighbours then, and features take less time.

    References
    ----------
    .. [1] Bartók, Kondor, Csányi, Phys. Rev. B 87, 184115 (2013).
    .. [2] Laakso et al. (DScribe 2), J. Chem. Phys. 158, 234802 (2023).
    .. [3] Darby, Kermode, Csányi, npj Comput. Mater. 8, 166 (2022).

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import SOAPFeaturizer
    >>> soap = SOAPFeaturizer(r_cut=3.0, n_max=4, l_max=3)
    >>> soap.fit_transform([molecule("CH3OH"), molecule("H2O")])
    <StructureFeatures: 2 structures, 9 atoms, 312 features>
    """

    _parameter_constraints = {
        "r_cut": [Interval(Real, 1.0, None, closed="neither"), tuple, list],
        "n_max": [Interval(Integral, 1, None, closed="left")],
        "l_max": [Interval(Integral, 0, 20, closed="both")],
        "sigma_atom": [Interval(Real, 0.0, None, closed="neither"), tuple, list, None],
        "cutoff_width": [Interval(Real, 0.0, None, closed="neither"), tuple, list, None],
        "species": ["array-like", None],
        "compression": [StrOptions({"off", "mu2", "mu1nu1", "crossover"})],
        "species_weighting": [dict, None],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
        "memory": [str, PathLike, Memory, None],
        "cache_bytes": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        r_cut: float | Sequence[float] = (1.7, 3.5),
        n_max: int = 8,
        l_max: int = 6,
        sigma_atom: float | Sequence[float] | None = None,
        cutoff_width: float | Sequence[float] | None = None,
        species: Sequence[str | int] | None = None,
        compression: Literal["off", "mu2", "mu1nu1", "crossover"] = "off",
        species_weighting: ByElement | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        memory: PathType | Memory | None = None,
        cache_bytes: int = 2**31,
    ) -> None:
        self.r_cut = r_cut
        self.n_max = n_max
        self.l_max = l_max
        self.sigma_atom = sigma_atom
        self.cutoff_width = cutoff_width
        self.species = species
        self.compression = compression
        self.species_weighting = species_weighting
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.memory = memory
        self.cache_bytes = cache_bytes

    def fit(self, X: StructuresLike, y: object = None) -> Self:
        """Learn which elements occur.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Structures, see `skqeq.check_structures`.
        y : ignored
            For the scikit-learn API.

        Returns
        -------
        self : SOAPFeaturizer
            Fitted.
        """
        self._fit(collect(X, self.verbose))
        return self

    def _fit(self, structures):
        self._validate_params()
        seen = np.unique(structures.numbers).astype(int)
        species = seen if self.species is None else _species_numbers(self.species)
        cutoffs = self.r_cut if isinstance(self.r_cut, (tuple, list)) else (self.r_cut,)
        sigmas = _per_cutoff(self.sigma_atom, "sigma_atom", cutoffs)
        widths = _per_cutoff(self.cutoff_width, "cutoff_width", cutoffs)
        for r_cut in cutoffs:
            if not isinstance(r_cut, Real) or not 1.0 < r_cut < np.inf:
                raise ValueError(f"r_cut must be finite and above 1 Angstrom, got {r_cut!r}")
        for sigma in sigmas:
            if sigma is not None and not (isinstance(sigma, Real) and 0.0 < sigma < np.inf):
                raise ValueError(f"sigma_atom must be positive, got {sigma!r}")
        for r_cut, width in zip(cutoffs, widths, strict=True):
            if width is not None and not (isinstance(width, Real) and 0.0 < width <= r_cut):
                raise ValueError(
                    f"cutoff_width must be above 0 and at most r_cut = {r_cut}, got {width!r}"
                )
        weighting = self.species_weighting
        if weighting is not None:
            given = per_element(weighting, "species_weighting")
            weighting = {int(z): float(given[z]) for z in species}
            missing = [chemical_symbols[z] for z, weight in weighting.items() if np.isnan(weight)]
            if missing:
                raise ValueError(f"species_weighting has no weight for {', '.join(missing)}")
        self.spectra_ = tuple(
            PowerSpectrum(
                species=tuple(int(z) for z in species),
                r_cut=float(r_cut),
                n_max=int(self.n_max),
                l_max=int(self.l_max),
                sigma=float(r_cut / 8 if sigma is None else sigma),
                cutoff_width=None if width is None else float(width),
                compression=self.compression,
                weighting=weighting,
            )
            for r_cut, sigma, width in zip(cutoffs, sigmas, widths, strict=True)
        )
        self.species_ = species
        self.n_features_out_ = sum(s.n_features for s in self.spectra_)

    def transform(self, X: StructuresLike) -> StructureFeatures:
        """Describe structures; rows are computed when a later step asks for them.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Structures, see `skqeq.check_structures`.

        Returns
        -------
        features : StructureFeatures
            One row of `n_features_out_` columns per atom.
        """
        check_is_fitted(self)
        return self._transform(collect(X, self.verbose))

    def fit_transform(self, X: StructuresLike, y: object = None) -> StructureFeatures:
        """Fit and describe the same structures, checking them once.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Structures, see `skqeq.check_structures`.
        y : ignored
            For the scikit-learn API.

        Returns
        -------
        features : StructureFeatures
            One row of `n_features_out_` columns per atom.
        """
        structures = collect(X, self.verbose)
        self._fit(structures)
        return self._transform(structures)

    def _transform(self, structures):
        known = ", ".join(chemical_symbols[z] for z in self.species_)
        structures.check_elements(
            self.species_, f"; known species: {known}; train on structures that hold it, too"
        )
        # Of a walk through data that do not fit in memory hardly any rows would be found again.
        cache_bytes = 0 if structures.lazy else self.cache_bytes
        source = SOAPSource(
            self.spectra_, self.n_jobs, bool(self.verbose), self.memory, cache_bytes
        )
        return StructureFeatures(structures, source)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags


def _per_cutoff(value, name, cutoffs):
    values = value if isinstance(value, (tuple, list)) else [value] * len(cutoffs)
    if len(values) != len(cutoffs) or not cutoffs:
        raise ValueError(f"{len(values)} values of {name} for {len(cutoffs)} of r_cut")
    return values


def _species_numbers(species):
    numbers = set()
    for item in species:
        number = atomic_numbers.get(item) if isinstance(item, str) else item
        if not isinstance(number, Integral) or not 1 <= number < len(chemical_symbols):
            raise ValueError(f"species holds {item!r}, which is not an element")
        numbers.add(int(number))
    if not numbers:
        raise ValueError("species is empty")
    return np.array(sorted(numbers))


class PowerSpectrum:
    """The SOAP power spectrum for one cutoff and a set of elements.

    A structure is described with its own elements only; `columns` says where those channels
    stand among the columns of all elements.
    """

    def __init__(self, species, r_cut, n_max, l_max, sigma, cutoff_width, compression, weighting):
        self.species = species
        self.options = (r_cut, n_max, l_max, sigma, compression)
        self.cutoff_width = cutoff_width
        self.weighting = weighting
        self.n_features = self._dscribe(species, False).get_number_of_features()

    def _weights(self, species):
        if self.weighting is None:
            return None
        return tuple((z, self.weighting[z]) for z in species)

    def _dscribe(self, species, periodic):
        return dscribe_soap(species, *self.options, self._weights(species), periodic)

    @property
    def signature(self):
        """What the columns mean: nested tuples that can be compared and stored."""
        return (self.species, self.options, self.cutoff_width, self._weights(self.species))

    def key(self, structure):
        """What the rows of a structure depend on."""
        present = structure.species
        return (self.options, self.cutoff_width, self._weights(present), structure.digest)

    def columns(self, present, first=0):
        """Columns, from `first` on, of the channels of the elements in `present`, as slices."""
        return _columns(self.species, self.options, self._weights(self.species), present, first)

    def rows(self, structure, centers=None):
        """Power spectrum of every atom, shape (n_atoms, n_columns of its own elements).

        Or of the atoms `centers` only.
        """
        if self.cutoff_width is not None:
            rows = Surroundings(self, structure).rows()
            return rows if centers is None else rows[centers]
        soap = self._dscribe(structure.species, structure.periodic)
        atoms = _prepared(structure)
        return soap.create_single(atoms, None if centers is None else centers.tolist())


@lru_cache(maxsize=8)
def _prepared(structure):
    """The `ase.Atoms` for DScribe, which does not change them; all cutoffs share it."""
    atoms = structure.to_atoms()
    if structure.periodic:
        atoms.cell, atoms.pbc = reduced_cell(structure)
        # DScribe takes so many images that atoms in the cell see all neighbours, others not.
        atoms.wrap()
    return atoms


class SOAPSource:
    """Rows of several power spectra side by side, through the store of rows."""

    prior_variance = 1.0

    def __init__(self, spectra, n_jobs, verbose, memory, cache_bytes):
        self.spectra = spectra
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.memory = memory
        self.cache_bytes = cache_bytes
        self.boundaries = (0, *np.cumsum([s.n_features for s in spectra]).tolist())
        self.row_bytes = 8 * self.boundaries[-1]
        self.signature = tuple(s.signature for s in spectra)

    def tiles(self, structures):
        """Tiles per power spectrum and element, for all structures made of the same elements."""
        numbers = np.concatenate([s.numbers for s in structures])
        offsets = np.concatenate([[0], np.cumsum([len(s) for s in structures])])
        groups = {}
        for s, structure in enumerate(structures):
            groups.setdefault(structure.species, []).append(s)
        rows = self._rows([structures[s] for members in groups.values() for s in members])
        tiles = []
        for present, members in groups.items():
            atoms = np.concatenate([np.arange(offsets[s], offsets[s + 1]) for s in members])
            if len(members) == 1:
                parts, values = [slice(None)], next(rows)  # which are not copied
            else:
                # By element, as kernels want them.
                order = np.argsort(numbers[atoms], kind="stable")
                values = _stacked(islice(rows, len(members)), np.argsort(order))
                atoms = atoms[order]
                edges = np.searchsorted(numbers[atoms], [*present, np.inf])
                parts = [slice(start, stop) for start, stop in pairwise(edges)]
            for spectrum, first, array in zip(self.spectra, self.boundaries, values):
                columns = spectrum.columns(present, first)
                tiles += [Tile(atoms[part], columns, array[part]) for part in parts]
        return tiles

    @property
    def keeps_rows(self):
        """Whether rows that were computed once are found again."""
        return self.cache_bytes > 0 or self.memory is not None

    def tiles_of(self, structure, atoms):
        """The tiles of some atoms of a structure, which are not kept."""
        present = structure.species
        return [
            Tile(atoms, spectrum.columns(present, first), spectrum.rows(structure, atoms))
            for spectrum, first in zip(self.spectra, self.boundaries[:-1], strict=True)
        ]

    def _rows(self, structures):
        """Yield, for every structure, a list with the rows of every power spectrum."""
        compute = self._computed(structures)
        for structure in structures:
            rows = []
            for spectrum in self.spectra:
                key = spectrum.key(structure)
                array = ROWS.get(key)
                if array is None:
                    array = compute(spectrum, structure, key)
                    array.setflags(write=False)
                    ROWS.put(key, array, self.cache_bytes)
                rows.append(array)
            yield rows

    def _computed(self, structures):
        """A function that computes rows, or finds them where other processes have left them."""
        function = describe
        if self.memory is not None:
            memory = self.memory
            memory = memory if isinstance(memory, Memory) else Memory(memory, verbose=0)
            function = memory.cache(describe, ignore=["spectrum", "structure"])
        # None means 1, and not what a backend has: a cluster would send the rows around.
        n_jobs = 1 if self.n_jobs in (None, 1) else effective_n_jobs(self.n_jobs)
        if n_jobs == 1:
            return function
        tasks = {spec.key(s): (spec, s) for s in structures for spec in self.spectra}
        tasks = {key: task for key, task in tasks.items() if ROWS.get(key) is None}
        if len(tasks) < 2 * n_jobs:
            return function
        # A task is a fraction of a millisecond; batches keep the overhead of processes small.
        calls = (delayed(function)(*task, key) for key, task in tasks.items())
        found = dict(zip(tasks, Parallel(n_jobs=n_jobs, batch_size=32)(calls), strict=True))
        # What was in the store when the tasks were listed may not be there any more.
        return lambda *task: found[task[-1]] if task[-1] in found else function(*task)


def _stacked(rows, places):
    """Arrays of all atoms, of which `rows` has a list per structure; `places` are where they go.

    Rows go to their place one structure at a time, so that they are in memory once.
    """
    arrays, start = None, 0
    for parts in rows:
        if arrays is None:
            arrays = [np.empty((len(places), part.shape[1])) for part in parts]
        here = places[start : start + len(parts[0])]
        for array, part in zip(arrays, parts, strict=True):
            array[here] = part
        start += len(here)
    return arrays


def describe(spectrum, structure, key):
    """Rows of one structure; `key` says all that they depend on, for the store on disk."""
    return spectrum.rows(structure)


@lru_cache(maxsize=4096)
def _columns(species, options, weights, present, first):
    soap = dscribe_soap(species, *options, weights, False)
    compression = options[-1]
    if compression == "mu2":
        return (slice(first, first + soap.get_number_of_features()),)
    symbols = [chemical_symbols[z] for z in present]
    pairs = [(a, a) for a in symbols]
    if compression == "off":
        pairs = [(a, b) for i, a in enumerate(symbols) for b in symbols[i:]]
    merged = []
    for location in (soap.get_location(pair) for pair in pairs):
        if merged and location.start == merged[-1][1]:
            merged[-1][1] = location.stop
        else:
            merged.append([location.start, location.stop])
    return tuple(slice(start + first, stop + first) for start, stop in merged)
