"""The SOAP power spectrum for one cutoff."""

from functools import lru_cache
from itertools import pairwise

import numpy as np
from ase.data import chemical_symbols

from .._state import check_that, check_type, is_number
from ..parameters import MAX_ATOMIC_NUMBER
from ..structures import reduced_cell
from ._dscribe import dscribe_soap
from ._neighborhood import SOAPNeighborhood, radial

# Number of columns for each angular momentum, for s elements and n radial functions.
COMPRESSIONS = {
    "off": lambda s, n: s * n * (s * n + 1) // 2,
    "mu2": lambda s, n: n * (n + 1) // 2,
    "mu1nu1": lambda s, n: s * n * n,
    "crossover": lambda s, n: s * n * (n + 1) // 2,
}


class PowerSpectrum:
    """The SOAP power spectrum for one cutoff and a set of elements.

    Columns of elements that a structure lacks are zero. `rows` omits them, and `columns` returns
    the indices of the columns that remain.

    Parameters
    ----------
    species : tuple of int
        Atomic numbers that can occur, ascending.
    r_cut, n_max, l_max, sigma, cutoff_width, compression
        Parameters of `skqeq.SOAPFeaturizer`, for one cutoff; lengths in Angstrom.
    weighting : dict of {int: float} or None
        Weight of the density of each element.
    """

    def __init__(self, species, r_cut, n_max, l_max, sigma, cutoff_width, compression, weighting):
        self.species = species
        self.options = (r_cut, n_max, l_max, sigma, compression)
        self.cutoff_width = cutoff_width
        self.weighting = weighting
        self.n_features = self._dscribe(species, False).get_number_of_features()

    def check_loaded(self):
        """Check a power spectrum that was read from a file.

        Raises
        ------
        ValueError
            If a parameter is not valid, or does not fit the others; the message names it.
        """
        species = check_type(self, "species", tuple)
        correct = len(species) > 0 and all(is_number(z, "i", least=1) for z in species)
        correct = correct and species[-1] <= MAX_ATOMIC_NUMBER
        correct = correct and all(a < b for a, b in pairwise(species))
        check_that(correct, self, "species", "ascending atomic numbers")
        expected = "the values of r_cut, n_max, l_max, sigma and compression"
        check_that(len(check_type(self, "options", tuple)) == 5, self, "options", expected)
        r_cut, n_max, l_max, sigma, compression = self.options
        correct = is_number(r_cut) and r_cut > 1.0 and is_number(sigma) and sigma > 0.0
        correct = correct and is_number(n_max, "i", least=1) and is_number(l_max, "i", least=0)
        correct = correct and l_max <= 20 and compression in [*COMPRESSIONS]
        check_that(correct, self, "options", expected)
        width = self.cutoff_width
        correct = width is None or (is_number(width) and 0 < width <= r_cut)
        check_that(correct, self, "cutoff_width", "None, or positive and at most r_cut")
        weights = {} if self.weighting is None else check_type(self, "weighting", dict)
        correct = self.weighting is None or set(weights) == set(species)
        correct = correct and all(is_number(x) for x in weights.values())
        check_that(correct, self, "weighting", "None, or a number for every element of species")
        n = COMPRESSIONS[compression](len(species), n_max) * (l_max + 1)
        check_that(self.n_features == n, self, "n_features", f"{n} for these options")

    def _weights(self, species):
        """The weights of some elements, as a tuple that can be compared and hashed."""
        if self.weighting is None:
            return None
        return tuple((z, self.weighting[z]) for z in species)

    def _dscribe(self, species, periodic):
        return dscribe_soap(species, *self.options, self._weights(species), periodic)

    def element_weights(self, species):
        """Weights of the densities of elements, shape (n_elements,)."""
        if self.weighting is None:
            return np.ones(len(species))
        return np.array([self.weighting[z] for z in species])

    @property
    def signature(self):
        """Meaning of the columns, as nested tuples that can be compared and stored."""
        return (self.species, self.options, self.cutoff_width, self._weights(self.species))

    def key(self, structure):
        """Key under which rows are stored: the options, then the digest of the structure.

        The key does not contain the elements of other structures. If a fold of a cross-validation
        lacks an element, it can therefore still use rows that another fold has computed.
        """
        present = structure.species
        return (self.options, self.cutoff_width, self._weights(present), structure.digest)

    def columns(self, present, first=0):
        """Columns of a structure with the elements `present`, as slices shifted by `first`."""
        return _columns(self.species, self.options, self._weights(self.species), present, first)

    @property
    def reach(self):
        """Distance up to which atoms count as neighbours, Angstrom."""
        r_cut, n_max, l_max, sigma, _ = self.options
        return r_cut if self.cutoff_width is not None else radial(r_cut, n_max, l_max, sigma)[0]

    def rows(self, structure, centers=None):
        """Power spectra of the atoms `centers` (None for all), shape (n_centers, n_columns)."""
        # DScribe has no smooth cutoff function.
        if self.cutoff_width is not None:
            rows = SOAPNeighborhood(self, structure).rows()
            return rows if centers is None else rows[centers]
        soap = self._dscribe(structure.species, structure.periodic)
        atoms = _atoms_for_dscribe(structure)
        return soap.create_single(atoms, None if centers is None else centers.tolist())


@lru_cache(maxsize=8)
def _atoms_for_dscribe(structure):
    """The `ase.Atoms` of a structure for DScribe; stored, because DScribe does not change it."""
    atoms = structure.to_atoms()
    if structure.periodic:
        atoms.cell, atoms.pbc = reduced_cell(structure)
        # DScribe repeats the cell so often that atoms inside the cell have all their neighbours.
        # Atoms outside the cell would lack some.
        atoms.wrap()
    return atoms


@lru_cache(maxsize=4096)
def _columns(species, options, weights, present, first):
    """See `PowerSpectrum.columns`. Adjacent slices are merged, which saves matrix products."""
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
