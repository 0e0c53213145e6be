"""Equivariant features: vectors that describe the neighbourhood of every atom."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Self

import numpy as np

from .._sklearn import Interval
from .._state import check_elements, check_that, check_type
from ..structures import StructureFeatures, collect
from ._featurizer import Featurizer
from ._soap import checked_cutoffs, species_numbers
from ._spectrum import PowerSpectrum
from ._vector_products import degrees
from ._vector_source import VectorSource, VectorSpectrum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from .._typing import StructuresLike

# Number of structures whose density coefficients are in memory during a fit.
BATCH = 64
# Channels whose eigenvalue is a smaller part of the largest one hold rounding errors.
SMALLEST_EIGENVALUE = 1e-12
# Vectors of an element that are smaller in all training structures hold rounding errors. Features
# are without unit, and most are larger than 1e-2.
SMALLEST_SCALE = 1e-6


class VectorSOAPFeaturizer(Featurizer, auto_wrap_output_keys=None):  # type: ignore[call-arg]  # no types
    """Vector features of every atom, for learned atomic dipoles.

    A model with these features as its block ``"dipole"`` learns a dipole for every atom, which
    depends on the neighbourhood of the atom, see `KQEqRegressor`. Where SOAP features are
    invariant, vector features turn with the structure, and change their sign under inversion: they
    are the features of "lambda-SOAP" for lambda = 1 [1]_, [2]_. With the density coefficients c of
    SOAP, they are the products ::

        p_a[l, A, B] = sum_mm' T_a[l, m, m'] c[l + 1, m, A] c[l, m', B],    a = x, y, z,
        v = p / (|c|^2 s),

    where T are the coefficients that couple the degrees l + 1 and l to a vector. The channels A and
    B are combinations of elements and radial functions, the `n_channels` most important ones in the
    training structures. The scale s makes the mean square of the features of each element and
    cutoff equal to the weight of the cutoff.

    Parameters
    ----------
    r_cut : float or tuple of float, default=2.0
        Cutoff radius, Angstrom (above 1). Each of several cutoffs has features of its own.
    n_max : int, default=6
        Number of radial functions.
    l_max : int, default=4
        Largest angular momentum.
    n_channels : int, default=14
        Number of channels after the compression, for each degree and element of the centre. The
        number of features of one element is ``l_max n_channels^2`` for each cutoff.
    block_weights : sequence of float, default=None
        One weight per cutoff, normalised to the sum 1: its part in the variance of the dipoles.
        None means equal weights.
    sigma_atom, cutoff_width : float, tuple of float or None, default=None
        As in `SOAPFeaturizer`; Angstrom.
    species : sequence of str or int, default=None
        Elements that can occur. None means the elements of the structures in `fit`.
    verbose : int, default=0
        If above 0, a progress bar is shown whenever a later step computes features.

    Attributes
    ----------
    species_ : ndarray of int
        Atomic numbers, ascending.
    n_features_out_ : int
        Number of columns: three for each feature, its x, y and z components.

    See Also
    --------
    SOAPFeaturizer : Invariant features, for electronegativities and other numbers.
    StructureBlocks : Joins features of both kinds.

    Notes
    -----
    The channels are the leading eigenvectors of ``sum_i c_i c_i^T / |c_i|^2``, summed over atoms of
    one element and over m [3]_. Features are not normalised to length one, because vectors of
    symmetric surroundings are small and must be.

    An element whose vectors vanish in all training structures, because of symmetry or because it
    does not occur, has no features. Structures with unknown elements are treated as in
    `SOAPFeaturizer`.

    References
    ----------
    .. [1] Grisafi, Wilkins, Csányi, Ceriotti, Phys. Rev. Lett. 120, 036002 (2018).
    .. [2] Veit, Wilkins, Yang, DiStasio, Ceriotti, J. Chem. Phys. 153, 024113 (2020).
    .. [3] Goscinski, Musil, Pozdnyakov, Nigam, Ceriotti, J. Chem. Phys. 155, 104106 (2021).

    Examples
    --------
    >>> from ase.build import molecule
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer
    >>> from skqeq import StructureBlocks, VectorSOAPFeaturizer
    >>> blocks = StructureBlocks(
    ...     [
    ...         ("chi", make_pipeline(SOAPFeaturizer(), CURSparsifier(n_points=10))),
    ...         ("dipole", VectorSOAPFeaturizer(n_channels=4)),
    ...     ]
    ... )
    >>> water = molecule("H2O")
    >>> model = make_pipeline(blocks, KQEqRegressor(amplitude_dipole=0.1))
    >>> model.fit([water], [[0.0, 0.0, -0.39]]).predict([water]).shape
    (1, 3)
    """

    _parameter_constraints = {
        "r_cut": [Interval(Real, 1.0, None, closed="neither"), tuple, list],
        "n_max": [Interval(Integral, 1, None, closed="left")],
        "l_max": [Interval(Integral, 1, 20, closed="both")],
        "n_channels": [Interval(Integral, 1, None, closed="left")],
        "block_weights": ["array-like", None],
        "sigma_atom": [Interval(Real, 0.0, None, closed="neither"), tuple, list, None],
        "cutoff_width": [Interval(Real, 0.0, None, closed="neither"), tuple, list, None],
        "species": ["array-like", None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        r_cut: float | Sequence[float] = 2.0,
        n_max: int = 6,
        l_max: int = 4,
        n_channels: int = 14,
        block_weights: ArrayLike | None = None,
        sigma_atom: float | Sequence[float] | None = None,
        cutoff_width: float | Sequence[float] | None = None,
        species: Sequence[str | int] | None = None,
        verbose: int = 0,
    ) -> None:
        self.r_cut = r_cut
        self.n_max = n_max
        self.l_max = l_max
        self.n_channels = n_channels
        self.block_weights = block_weights
        self.sigma_atom = sigma_atom
        self.cutoff_width = cutoff_width
        self.species = species
        self.verbose = verbose

    def fit(self, X: StructuresLike, y: object = None) -> Self:
        """Choose the channels.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Structures, see `skqeq.check_structures`.
        y : ignored
            Exists for compatibility with scikit-learn.

        Returns
        -------
        self : VectorSOAPFeaturizer
            The fitted featurizer.

        Raises
        ------
        ValueError
            If a parameter is invalid, or if a structure holds an element that is not in `species`.
        """
        self._fit(collect(X, bool(self.verbose)))
        return self

    def _fit(self, structures):
        self._validate_params()
        cutoffs = checked_cutoffs(self.r_cut, self.sigma_atom, self.cutoff_width)
        weights = self._weights(len(cutoffs))
        present = np.unique(structures.numbers).astype(int)
        self.species_ = present if self.species is None else species_numbers(self.species)
        species = tuple(int(z) for z in self.species_)
        structures.check_elements(species, "add it to species")
        n_max, l_max = int(self.n_max), int(self.l_max)
        spectra = []
        for (r_cut, sigma, width), weight in zip(cutoffs, weights, strict=True):
            spectrum = PowerSpectrum(species, r_cut, n_max, l_max, sigma, width, "off", None)
            components = self._components(spectrum, structures)
            scales = self._scales(spectrum, components, structures)
            spectra.append(VectorSpectrum(spectrum, components, scales, float(weight)))
        self.spectra_ = tuple(spectra)
        self.n_features_out_ = VectorSource(self.spectra_).boundaries[-1]

    def _weights(self, n_cutoffs):
        """Normalised weights of the cutoffs."""
        given = self.block_weights
        weights = np.ones(n_cutoffs) if given is None else np.asarray(given, dtype=np.float64)
        if weights.shape != (n_cutoffs,) or not (weights >= 0).all() or weights.sum() == 0:
            raise ValueError(
                f"block_weights must be {n_cutoffs} non-negative numbers, one per cutoff, got "
                f"{given!r}"
            )
        return weights / weights.sum()

    def _components(self, spectrum, structures):
        """The channels of one cutoff, see `VectorSpectrum`."""
        of_degrees, n_channels = degrees(self.l_max), len(self.species_) * self.n_max
        covariances = np.zeros((len(of_degrees), len(self.species_), n_channels, n_channels))
        empty = VectorSpectrum(spectrum, covariances[..., :0], np.ones(len(self.species_)), 1.0)
        for e, c in _environments(empty, structures):
            c = c / np.sqrt(np.einsum("imk,imk->i", c, c))[:, None, None]
            for l, m in enumerate(of_degrees):
                rows = c[:, m].reshape(-1, n_channels)
                covariances[l, e] += rows.T @ rows
        values, vectors = np.linalg.eigh(covariances)
        Q = min(self.n_channels, n_channels)
        values, vectors = values[..., ::-1][..., :Q], vectors[..., ::-1][..., :Q]
        # The sign of an eigenvector is arbitrary, and so are those that belong to rounding errors.
        largest = np.abs(vectors).argmax(axis=-2)[..., None, :]
        vectors = vectors * np.sign(np.take_along_axis(vectors, largest, axis=-2))
        total = values.max(axis=(0, 2), keepdims=True, initial=0.0)
        used = values > SMALLEST_EIGENVALUE * total
        return np.ascontiguousarray(np.where(used[..., None, :], vectors, 0.0))

    def _scales(self, spectrum, components, structures):
        """The scales of one cutoff, see `VectorSpectrum`."""
        sums, counts = np.zeros(len(self.species_)), np.zeros(len(self.species_))
        unscaled = VectorSpectrum(spectrum, components, np.ones(len(self.species_)), 1.0)
        for e, c in _environments(unscaled, structures):
            sums[e] += np.square(unscaled.products(e, c).values).sum() / 3
            counts[e] += len(c)
        scales = np.sqrt(sums / np.maximum(counts, 1))
        return np.where(scales > SMALLEST_SCALE, scales, 0.0)

    def _features(self, structures):
        return StructureFeatures(structures, VectorSource(self.spectra_, bool(self.verbose)))

    def _check_fitted(self):
        species = tuple(check_elements(self, "species_").tolist())
        spectra = check_type(self, "spectra_", tuple)
        correct = all(type(s) is VectorSpectrum for s in spectra)
        check_that(correct and bool(spectra), self, "spectra_", "a tuple of vector spectra")
        for spectrum in spectra:
            spectrum.check_loaded()
        correct = all(s.spectrum.species == species for s in spectra)
        check_that(correct, self, "spectra_", "vector spectra of species_")
        n = VectorSource(spectra).boundaries[-1]
        check_that(self.n_features_out_ == n, self, "n_features_out_", f"{n}, as in spectra_")


def _environments(spectrum, structures):
    """Yield the index of an element, and the coefficients of its atoms in some structures."""
    for start in range(0, len(structures), BATCH):
        batch = list(structures[start : start + BATCH])
        numbers, c = np.concatenate([s.numbers for s in batch]), spectrum.coefficients(batch)
        for e, number in enumerate(spectrum.spectrum.species):
            if (numbers == number).any():
                yield e, c[numbers == number]
