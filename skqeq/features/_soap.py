"""SOAP, a descriptor of the neighbourhood of every atom."""

from __future__ import annotations

from numbers import Integral, Real
from os import PathLike
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from joblib import Memory

from .._counts import counted
from .._sklearn import Interval, StrOptions
from .._state import check_elements, check_that, check_type
from ..parameters import per_element
from ..structures import StructureFeatures, collect
from ._featurizer import Featurizer
from ._source import SOAPSource
from ._spectrum import COMPRESSIONS, PowerSpectrum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._typing import ByElement, PathType, StructuresLike


class SOAPFeaturizer(Featurizer, auto_wrap_output_keys=None):  # type: ignore[call-arg]  # no types
    """Smooth overlap of atomic positions (SOAP) of every atom, by DScribe with GTO basis.

    The density of the neighbours of atom i is expanded in radial functions and spherical harmonics,
    with coefficients ``c[Z, n, l, m]`` for neighbours of element Z. The power spectrum::

        p[Z1 Z2, l, n1 n2] = pi sqrt(8 / (2 l + 1)) sum_m c[Z1, n1, l, m] c[Z2, n2, l, m]

    is invariant under rotations [1]_, [2]_.

    Parameters
    ----------
    r_cut : float or tuple of float, default=(1.7, 3.5)
        Cutoff radius, Angstrom (above 1). If there are several cutoffs ("double SOAP"), each has a
        column block, and the kernels of the blocks are added.
    n_max : int, default=8
        Number of radial functions.
    l_max : int, default=6
        Largest angular momentum.
    sigma_atom : float, tuple of float or None, default=None
        Width of the Gaussian on each neighbour, Angstrom. A tuple has one width for each cutoff.
        None means ``r_cut / 8``.
    cutoff_width : float, tuple of float or None, default=None
        Width of the shell, Angstrom (at most `r_cut`), in which the weight of a neighbour decreases
        from one at ``r_cut - cutoff_width`` to zero at `r_cut`. A tuple has one width for each
        cutoff. None means DScribe's sharp cutoff. See Notes.
    species : sequence of str or int, default=None
        Elements that can occur. None means the elements of the structures in `fit`.
    compression : {"off", "mu2", "mu1nu1", "crossover"}, default="off"
        Compression of the element channels [3]_.
    species_weighting : dict of {str: float}, default=None
        Weight of each element's density. With ``compression="mu2"``, elements differ by these
        weights only.
    n_jobs : int, default=None
        Number of processes that compute descriptors; None means 1.
    verbose : int, default=0
        If above 0, a progress bar is shown whenever a later step computes features.
    memory : str, path or joblib.Memory, default=None
        Folder in which computed rows are stored on disk. None stores them in memory only.
        `skqeq.load` sets it to None, because the files in such a folder can execute code.

    Attributes
    ----------
    species_ : ndarray of int
        Atomic numbers, ascending.
    n_features_out_ : int
        Number of columns.

    Notes
    -----
    Columns of an element that a structure lacks are zero. They are neither computed nor stored:
    the rows of a structure hold only the channels of its own elements.

    Atoms of elements that are not in `species_` have zero features, and so have atoms with such a
    neighbour. Charge models refuse these structures, see `handle_unknown` of `KQEqRegressor`.

    Computed rows stay in memory, within the budget of `skqeq.set_memory_budget`, and all
    featurizers of a process share them. A structure is then described only once per cutoff, however
    many clones, folds and candidates of a search need it. Predictions of other structures store at
    most as many rows as the fits of the process did. Rows of structures that are read from a
    file on demand, see `skqeq.datasets.open_structures`, are not stored.

    With ``cutoff_width=None``, neighbours count up to a distance somewhat larger than `r_cut`, at
    which a Gaussian centred at `r_cut` has decreased to 1e-3. The features change abruptly when an
    atom crosses this distance. With a width d, the density of a neighbour at distance r is
    multiplied by a cutoff function as in [1]_,

    ``f(r) = y^3 (10 - 15 y + 6 y^2)``, ``y = (r_cut - r) / d`` clipped to [0, 1],

    which has two continuous derivatives. The features then also have two continuous derivatives,
    and molecular dynamics with models of these features conserves the total energy. With a smooth
    cutoff there are also fewer neighbours, so that features take less time.

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
        "compression": [StrOptions(set(COMPRESSIONS))],
        "species_weighting": [dict, None],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
        "memory": [str, PathLike, Memory, None],
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

    def fit(self, X: StructuresLike, y: object = None) -> Self:
        """Store which elements occur.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Structures, see `skqeq.check_structures`.
        y : ignored
            Exists for compatibility with scikit-learn.

        Returns
        -------
        self : SOAPFeaturizer
            The fitted featurizer.
        """
        self._fit(collect(X, bool(self.verbose)))
        return self

    def _fit(self, structures):
        self._validate_params()
        present = np.unique(structures.numbers).astype(int)
        self.species_ = present if self.species is None else species_numbers(self.species)
        species = tuple(int(z) for z in self.species_)
        weighting = _element_weights(self.species_weighting, species)
        self.spectra_ = tuple(
            PowerSpectrum(
                species=species,
                r_cut=r_cut,
                n_max=int(self.n_max),
                l_max=int(self.l_max),
                sigma=sigma,
                cutoff_width=width,
                compression=self.compression,
                weighting=weighting,
            )
            for r_cut, sigma, width in self._cutoffs()
        )
        self.n_features_out_ = sum(s.n_features for s in self.spectra_)

    def _check_fitted(self):
        species = tuple(check_elements(self, "species_").tolist())
        spectra = check_type(self, "spectra_", tuple)
        correct = all(type(s) is PowerSpectrum and s.species == species for s in spectra)
        check_that(correct and bool(spectra), self, "spectra_", "power spectra of species_")
        for spectrum in spectra:
            spectrum.check_loaded()
        n = sum(s.n_features for s in spectra)
        check_that(self.n_features_out_ == n, self, "n_features_out_", f"{n}, as in spectra_")

    def _cutoffs(self):
        return checked_cutoffs(self.r_cut, self.sigma_atom, self.cutoff_width)

    def _features(self, structures):
        source = SOAPSource(
            self.spectra_,
            self.n_jobs,
            bool(self.verbose),
            self.memory,
            keeps_rows=not structures.lazy,
        )
        return StructureFeatures(structures, source)


def checked_cutoffs(r_cut, sigma_atom, cutoff_width):
    """Cutoff, sigma and width of the shell, Angstrom, of every column block.

    The arguments are the parameters of `SOAPFeaturizer`.
    """
    cutoffs = r_cut if isinstance(r_cut, (tuple, list)) else (r_cut,)
    sigmas = _per_cutoff(sigma_atom, "sigma_atom", cutoffs)
    widths = _per_cutoff(cutoff_width, "cutoff_width", cutoffs)
    for cutoff, sigma, width in zip(cutoffs, sigmas, widths, strict=True):
        if not isinstance(cutoff, Real) or not 1.0 < cutoff < np.inf:
            raise ValueError(f"r_cut must be finite and above 1 Angstrom, got {cutoff!r}")
        if sigma is not None and not (isinstance(sigma, Real) and 0.0 < sigma < np.inf):
            raise ValueError(f"sigma_atom must be positive, got {sigma!r}")
        if width is not None and not (isinstance(width, Real) and 0.0 < width <= cutoff):
            raise ValueError(
                f"cutoff_width must be above 0 and at most r_cut = {cutoff}, got {width!r}"
            )
    return [
        (
            float(cutoff),
            float(cutoff / 8 if sigma is None else sigma),
            None if width is None else float(width),
        )
        for cutoff, sigma, width in zip(cutoffs, sigmas, widths, strict=True)
    ]


def _element_weights(weighting, species):
    """The weight of each element's density as a dict, or None."""
    if weighting is None:
        return None
    table = per_element(weighting, "species_weighting")
    weights = {z: float(table[z]) for z in species}
    missing = [chemical_symbols[z] for z, weight in weights.items() if np.isnan(weight)]
    if missing:
        raise ValueError(f"species_weighting has no weight for {', '.join(missing)}")
    return weights


def _per_cutoff(value, name, cutoffs):
    """One value for every cutoff."""
    values = value if isinstance(value, (tuple, list)) else [value] * len(cutoffs)
    if len(values) != len(cutoffs) or not cutoffs:
        raise ValueError(
            f"{counted(len(values), 'value')} of {name} for "
            f"{counted(len(cutoffs), 'cutoff')} in r_cut"
        )
    return values


def species_numbers(species):
    """Ascending atomic numbers of elements given by symbol or number."""
    numbers = set()
    for item in species:
        number = atomic_numbers.get(item) if isinstance(item, str) else item
        if not isinstance(number, Integral) or not 1 <= number < len(chemical_symbols):
            raise ValueError(f"species holds {item!r}, which is not an element")
        numbers.add(int(number))
    if not numbers:
        raise ValueError("species is empty")
    return np.array(sorted(numbers))
