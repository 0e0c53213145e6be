"""The source of vector features, and their derivatives.

A vector feature is one vector per atom. Its x, y and z components are columns of the source: first
the x components of all features, then the y and the z components. A model uses the same weight for
the three components of a feature, see `skqeq.fields.Field`.
"""

import hashlib
from functools import cached_property

import numpy as np

from .._state import check_array, check_that, check_type, is_number
from ..structures import FeatureGradient, FeatureSource, StackedGradient, Structures, Tile
from ._neighborhood import SOAPNeighborhood
from ._spectrum import PowerSpectrum
from ._unknown import known_part
from ._vector_products import VectorProducts


class VectorSpectrum:
    """The vector features for one cutoff.

    Parameters
    ----------
    spectrum : PowerSpectrum
        Its density coefficients are used.
    components : ndarray of shape (l_max + 1, n_elements, n_elements n_max, Q)
        For every degree and element of the centre, the compression of the channels.
    scales : ndarray of shape (n_elements,)
        Size of the features of each element; zero if the element has no features.
    weight : float
        Part of this cutoff in the variance of the field.
    """

    def __init__(self, spectrum, components, scales, weight):
        self.spectrum, self.components = spectrum, components
        self.scales, self.weight = scales, weight

    def check_loaded(self):
        """Check a spectrum that was read from a file.

        Raises
        ------
        ValueError
            If an array does not fit the others; the message names it.
        """
        spectrum = check_type(self, "spectrum", PowerSpectrum)
        spectrum.check_loaded()
        n, (_, n_max, l_max, *_) = len(spectrum.species), spectrum.options
        check_array(self, "components", (l_max + 1, n, n * n_max, None))
        check_array(self, "scales", (n,), least=0.0)
        check_that(is_number(self.weight, least=0.0), self, "weight", "a number >= 0")

    @property
    def size(self):
        """Number of features of the atoms of one element."""
        return (len(self.components) - 1) * self.components.shape[3] ** 2

    @property
    def factors(self):
        """For every element, the factor of its products; zero if it has no features."""
        factors = np.zeros_like(self.scales)
        return np.divide(np.sqrt(self.weight), self.scales, out=factors, where=self.scales > 0)

    @property
    def signature(self):
        """Meaning of the features, as nested tuples that can be compared and stored."""
        content = self.components.tobytes() + self.scales.tobytes()
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        return (self.spectrum.signature, digest, self.weight)

    def channels(self, species):
        """Indices of the channels of a structure with these elements among all channels."""
        n_max = self.spectrum.options[1]
        places = np.searchsorted(self.spectrum.species, species)
        return (places[:, None] * n_max + np.arange(n_max)).ravel()

    def coefficients(self, structures):
        """Density coefficients of all atoms, in all channels."""
        species, (_, n_max, l_max, *_) = self.spectrum.species, self.spectrum.options
        n = sum(len(structure) for structure in structures)
        c, start = np.zeros((n, (l_max + 1) ** 2, len(species) * n_max)), 0
        for structure in structures:
            stop = start + len(structure)
            own = SOAPNeighborhood(self.spectrum, structure).coefficients()
            c[start:stop, :, self.channels(structure.species)] = own
            start = stop
        return c

    def products(self, e, c, channels=slice(None)):
        """`VectorProducts` of atoms of element number e, from their coefficients in channels."""
        return VectorProducts(c, self.components[:, e, channels], self.factors[e])


class VectorSource(FeatureSource):
    """Vector features for several cutoffs.

    Parameters
    ----------
    spectra : sequence of VectorSpectrum
        One for each cutoff.
    verbose : bool
        Whether a progress bar is shown while features are computed.
    """

    has_gradient = True
    n_components = 3
    # Nothing of a field is left that its features do not describe.
    prior_variance = 0.0

    def __init__(self, spectra, verbose=False):
        self.spectra = spectra
        self.verbose = verbose
        self.species = np.array(spectra[0].spectrum.species)
        self.elements = frozenset(self.species.tolist())
        self.reach = max(s.spectrum.reach for s in spectra)
        # First column of each cutoff and element, among the columns of one axis.
        sizes = [s.size for s in spectra for _ in self.species]
        self.starts = np.cumsum([0, *sizes])
        self.n_weights = int(self.starts[-1])
        self.boundaries = (0, 3 * self.n_weights)
        # An atom has the features of its element, and all density coefficients.
        self.row_bytes = sum(
            8 * (3 * s.size + (s.spectrum.options[2] + 1) ** 2 * s.components.shape[2])
            for s in spectra
        )
        self.signature = ("vectors", *(s.signature for s in spectra))

    def columns(self, b, e, axis=0):
        """The columns of cutoff number b and element number e for one axis."""
        start = int(self.starts[b * len(self.species) + e]) + axis * self.n_weights
        return slice(start, start + self.spectra[b].size)

    def of_cutoff(self, b):
        """The source of the features of one cutoff, with the weight one."""
        spectrum = self.spectra[b]
        alone = VectorSpectrum(spectrum.spectrum, spectrum.components, spectrum.scales, 1.0)
        return VectorSource((alone,), self.verbose)

    def tiles(self, structures):
        """Tiles of all atoms without unknown elements in their neighbourhood."""
        if all(self.elements.issuperset(s.species) for s in structures):
            return self._tiles(structures)
        parts = [known_part(s, self.elements, self.reach) for s in structures]
        starts = np.cumsum([0, *(len(s) for s in structures[:-1])])
        known = [(s, p) for s, p in zip(starts, parts, strict=True) if p is not None]
        if not known:
            return []
        atoms = np.concatenate([start + part.atoms for start, part in known])
        described = np.concatenate([part.described for _, part in known])
        tiles = self._tiles([part.structure for _, part in known])
        tiles = [tile.take(described[tile.atoms]) for tile in tiles]
        return [tile._replace(atoms=atoms[tile.atoms]) for tile in tiles if len(tile.atoms)]

    def _tiles(self, structures):
        """One tile per cutoff, element and axis."""
        numbers = np.concatenate([s.numbers for s in structures])
        tiles = []
        for b, spectrum in enumerate(self.spectra):
            c = spectrum.coefficients(structures)
            for e, number in enumerate(self.species):
                atoms = np.flatnonzero(numbers == number)
                if len(atoms) and spectrum.factors[e] > 0:
                    values = spectrum.products(e, c[atoms]).values
                    tiles += [
                        Tile(atoms, (self.columns(b, e, axis),), values[:, axis])
                        for axis in range(3)
                    ]
        return tiles

    def gradient(self, structure):
        """Derivatives for one structure; its `parts` are those of the x, y and z components."""
        if not self.elements.issuperset(structure.species):
            Structures([structure]).check_elements(self.elements, "there are no derivatives")
        vectors = VectorGradients(self, structure)
        parts = [ComponentGradient(vectors, axis) for axis in range(3)]
        return StackedGradient(parts, lambda array: np.split(array, 3, axis=-1))

    def dual(self, weights):
        """The weights themselves, because the features are not those of a kernel."""
        return weights


class VectorGradients:
    """Neighbours and products of one structure, which its three components share.

    Parameters
    ----------
    source : VectorSource
        Computes the features.
    structure : Structure
        A molecule, a slab or a crystal.
    """

    def __init__(self, source, structure):
        self.source, self.n_atoms = source, len(structure)
        self._structure = structure

    @cached_property
    def blocks(self):
        """For every cutoff, the neighbourhood, and (columns, atoms, products) of each element."""
        structure, blocks = self._structure, []
        for b, spectrum in enumerate(self.source.spectra):
            neighborhood = SOAPNeighborhood(spectrum.spectrum, structure)
            c, channels = neighborhood.coefficients(), spectrum.channels(structure.species)
            groups = []
            for e in np.searchsorted(self.source.species, structure.species):
                atoms = np.flatnonzero(structure.numbers == self.source.species[e])
                if spectrum.factors[e] > 0:
                    products = spectrum.products(e, c[atoms], channels)
                    groups.append((self.source.columns(b, e), atoms, products))
            blocks.append((neighborhood, groups))
        return blocks


class ComponentGradient(FeatureGradient):
    """The components of all vector features along one axis, and their derivatives.

    Parameters
    ----------
    vectors : VectorGradients
        The products.
    axis : int
        The axis.
    """

    def __init__(self, vectors, axis):
        self.n_atoms, self._vectors, self._axis = vectors.n_atoms, vectors, axis
        self._n_columns = vectors.source.n_weights

    @property
    def n_bytes(self):
        """A third of the size of the products, which three components share."""
        groups = [products for _, groups in self._vectors.blocks for *_, products in groups]
        return sum(products.n_bytes for products in groups) // 3

    def field(self, dual):
        """The component of the vector field on every atom."""
        field = np.zeros(self.n_atoms)
        for _, groups in self._vectors.blocks:
            for columns, atoms, products in groups:
                field[atoms] += products.values[:, self._axis] @ dual[columns]
        return field

    def contract(self, cotangents):
        """Cotangents times features."""
        rows = np.zeros((len(cotangents), self._n_columns))
        for _, groups in self._vectors.blocks:
            for columns, atoms, products in groups:
                rows[:, columns] = cotangents[:, atoms] @ products.values[:, self._axis]
        return rows

    def pair_gradients(self, dual):
        """Derivatives of the component on every atom by the vectors to its neighbours."""
        for neighborhood, groups in self._vectors.blocks:
            if not groups:
                continue
            dc = np.zeros((self.n_atoms, *groups[0][-1].c.shape[1:]))
            for columns, atoms, products in groups:
                own = dual[..., columns] if dual.ndim == 1 else dual[atoms, columns]
                own = np.broadcast_to(own, (len(atoms), own.shape[-1]))
                dc[atoms] = products.pull_back(self._axis, own)
            yield neighborhood, neighborhood.coefficient_gradients(dc)

    def pull_back(self, cotangents):
        """Derivatives of a function of the features."""
        return self._gathered(cotangents)

    def jacobian(self, q):
        """Derivatives of ``q^T v`` for one or several sets q."""
        sets = np.atleast_2d(q)
        J = np.zeros((len(sets), 3 * self.n_atoms + 9, self._n_columns))
        for neighborhood, groups in self._vectors.blocks:
            for pairs, channels, slopes in neighborhood.coefficient_slopes(2**7):
                i = neighborhood.i[pairs]
                for columns, atoms, products in groups:
                    own = np.flatnonzero(np.isin(i, atoms))
                    if len(own):
                        n_max = slopes.shape[-1]
                        of_channel = channels[own][:, None] * n_max + np.arange(n_max)
                        rows = np.searchsorted(atoms, i[own])
                        dv = products.jacobian(self._axis, rows, slopes[own], of_channel)
                        add_pairs(J, columns, sets, neighborhood, pairs.start + own, dv)
        J = J.reshape(*np.shape(q)[:-1], *J.shape[1:])
        return J[..., :-9, :], J[..., -9:, :]

    def residual_variances(self):
        """Zeros: the field is a linear function of its features."""
        n = self.n_atoms
        return np.zeros(n), np.zeros((n, 3 * n + 9)), np.zeros((n, 3 * n + 9))


def add_pairs(J, columns, sets, neighborhood, pairs, dv):
    """Add the derivatives of some pairs to those with respect to positions and strain, in place."""
    n = (J.shape[1] - 9) // 3
    i, j, D = neighborhood.i[pairs], neighborhood.j[pairs], neighborhood.D[pairs]
    flat = dv.reshape(len(pairs), -1)
    for k, q in enumerate(sets):
        # A pair counts +1 for the neighbour and -1 for the centre.
        ends = np.zeros((n, len(pairs)))
        np.add.at(ends, (j, np.arange(len(pairs))), q[i])
        np.add.at(ends, (i, np.arange(len(pairs))), -q[i])
        J[k, :-9, columns] += (ends @ flat).reshape(3 * n, -1)
        virial = ((q[i, None] * D).T @ flat).reshape(3, 3, -1)
        J[k, -9:, columns] += virial.transpose(1, 0, 2).reshape(9, -1)
