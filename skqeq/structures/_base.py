"""Base classes: a source computes features of structures, a gradient their derivatives.

To add a descriptor, derive a class from `FeatureSource` and define `tiles`. If it also defines
`neighborhoods`, models that use it with `skqeq.CURSparsifier` have forces, stress and Born charges.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from ._directional import DirectionalFeatures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._typing import Array
    from ..structures import Neighborhood, Structure, Structures, Tile

NO_GRADIENT = (
    "forces, stress and Born charges need features whose derivatives are known, such as those of "
    "SOAPFeaturizer followed by CURSparsifier"
)


class FeatureSource(ABC):
    """Computes per-atom features of structures when `StructureFeatures` asks for them.

    A subclass must set `boundaries` and `row_bytes`, and define `tiles`. All other attributes and
    methods have defaults.

    Attributes
    ----------
    boundaries : tuple of int
        First column of each column block, then the number of columns. A column block is a set of
        features with a separate kernel, for instance those of one SOAP cutoff.
    row_bytes : int
        Memory that one atom needs while its features are computed, bytes.
    signature : tuple or None, default=None
        Meaning of the columns, as nested tuples of plain Python objects. A fitted model refuses
        features with a signature that differs from that of its training features. None means that
        the meaning is unknown; such features are accepted.
    elements : frozenset of int or None, default=None
        Atomic numbers of the elements that the features describe; None means all. The features are
        zero for atoms of other elements, and for atoms with such a neighbour. The residual variance
        of these atoms is then the prior variance.
    represented : frozenset of int or None, default=None
        Elements whose atoms can have features other than zero, such as those with sparse points;
        None means all.
    n_components : int, default=1
        Number of columns for each weight: 3 if the features are vectors. The columns of the x
        components of all vectors then come before those of the y and z components.
    prior_variance : float, default=1.0
        Prior variance of a latent field with unit amplitude. The features represent the part
        ``|phi|^2`` of this variance; the rest is the residual variance of the atom.
    verbose : bool, default=False
        Whether a progress bar is shown while features are computed.
    names : tuple of str, default=()
        Names of the `sources`, if they have names.
    has_gradient : bool, default=False
        Whether `gradient` and `dual` are defined.
    has_neighborhoods : bool, default=False
        Whether `neighborhoods` is defined.

    Examples
    --------
    A descriptor that only knows the element of each atom:

    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from skqeq import StructureFeatures, check_structures
    >>> from skqeq.structures import FeatureSource, Tile
    >>> class Elements(FeatureSource):
    ...     boundaries, row_bytes = (0, 9), 72
    ...     def tiles(self, structures):
    ...         numbers = np.concatenate([s.numbers for s in structures])
    ...         return [Tile(np.arange(len(numbers)), (slice(0, 9),), np.eye(9)[numbers])]
    >>> StructureFeatures(check_structures([molecule("H2O")]), Elements())
    <StructureFeatures: 1 structure, 3 atoms, 9 features>
    """

    boundaries: tuple[int, ...]
    row_bytes: int
    signature: tuple[Any, ...] | None = None
    elements: frozenset[int] | None = None
    represented: frozenset[int] | None = None
    n_components: int = 1
    prior_variance: float = 1.0
    verbose: bool = False
    names: tuple[str, ...] = ()
    has_gradient: bool = False
    has_neighborhoods: bool = False

    @property
    def sources(self) -> Sequence[FeatureSource]:
        """The parts of a `StackedSource`; any other source has one part, itself."""
        return (self,)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of columns of the `sources`."""
        return tuple(source.boundaries[-1] for source in self.sources)

    @abstractmethod
    def tiles(self, structures: Sequence[Structure] | Structures) -> list[Tile]:
        """Compute the features of all atoms of some structures.

        Parameters
        ----------
        structures : sequence of Structure
            The structures. Their atoms are counted one structure after the other.

        Returns
        -------
        tiles : list of Tile
            Dense pieces, which contain every feature that is not zero.
        """

    def tiles_of(self, structure: Structure, atoms: Array) -> list[Tile]:
        """Compute the features of some atoms of one structure.

        Parameters
        ----------
        structure : Structure
            The structure.
        atoms : ndarray of int
            Indices of the atoms, ascending.

        Returns
        -------
        tiles : list of Tile
            Tiles of these atoms only. Their `Tile.atoms` are indices in the structure.
        """
        wanted = np.isin(np.arange(len(structure)), atoms)
        return [tile.take(wanted[tile.atoms]) for tile in self.tiles([structure])]

    def neighborhoods(self, structure: Structure) -> list[Neighborhood]:
        """The neighbours of all atoms of a structure, from which its features are computed.

        Parameters
        ----------
        structure : Structure
            A molecule, a slab or a crystal.

        Returns
        -------
        neighborhoods : list of Neighborhood
            One for each column block.

        Raises
        ------
        TypeError
            If the derivatives of the features are not known.
        """
        raise TypeError(NO_GRADIENT)

    def gradient(self, structure: Structure) -> FeatureGradient:
        """Derivatives of the features of one structure with respect to its geometry.

        Parameters
        ----------
        structure : Structure
            A molecule, a slab or a crystal.

        Returns
        -------
        gradient : FeatureGradient
            The derivatives, as an object that computes products with them.

        Raises
        ------
        TypeError
            If the derivatives of the features are not known.
        """
        raise TypeError(NO_GRADIENT)

    def coarsened(self, n_points: int) -> tuple[FeatureSource, Callable[[Array], Array]]:
        """A source with fewer columns, whose functions are functions of this source, too.

        Parameters
        ----------
        n_points : int
            Largest number of sparse points of a group.

        Returns
        -------
        source : FeatureSource
            This default is the source itself, because its features are not those of a sparse set.
        prolong : callable
            Turns weights of the new source into weights of this one. The function of the features
            does not change, and neither does the norm of the weights.
        """
        return self, lambda weights: weights

    def dual(self, weights: Array) -> Array:
        """Weights in the form that the methods of `FeatureGradient` take.

        Parameters
        ----------
        weights : ndarray of shape (n_columns,) or (n, n_columns)
            Weights w of a function ``phi w`` of the features.

        Returns
        -------
        dual : ndarray of the same shape
            Weights u with ``K u = phi w``, where K is the kernel between the atoms and the sparse
            points.

        Raises
        ------
        TypeError
            If the derivatives of the features are not known.
        """
        raise TypeError(NO_GRADIENT)


class FeatureGradient(ABC):
    """Derivatives of the features phi of one structure with respect to its geometry.

    The array of all derivatives, (n_atoms, n_columns, n_atoms, 3), is not computed. The methods
    compute products with it. A latent field is one number per atom, ``f = phi w``. The methods take
    its dual weights, see `FeatureSource.dual`. A virial is a derivative with respect to a strain e
    of positions and cell, ``r -> (1 + e) r``.

    Attributes
    ----------
    n_atoms : int
        Number of atoms of the structure.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, SOAPFeaturizer
    >>> pipeline = make_pipeline(SOAPFeaturizer(n_max=2, l_max=2), CURSparsifier(n_points=1))
    >>> features = pipeline.fit_transform([molecule("H2O")])
    >>> gradient = features.gradient(features.structures[0])
    >>> dual = features.dual(np.ones(features.n_features))
    >>> bool(np.allclose(gradient.field(dual), features[0].sum(axis=1)))
    True
    >>> by_positions, virial = gradient.field_gradient(np.ones(3), dual)
    >>> by_positions.shape, virial.shape
    ((3, 3), (3, 3))
    """

    n_atoms: int

    @property
    def n_bytes(self) -> int:
        """Approximate size of the stored arrays, bytes."""
        return 0

    @abstractmethod
    def field(self, dual: Array) -> Array:
        """The latent field ``f = phi w``.

        Parameters
        ----------
        dual : ndarray of shape (n_columns,)
            Dual weights of w.

        Returns
        -------
        f : ndarray of shape (n_atoms,)
            One number per atom, in the unit of the weights.
        """

    @abstractmethod
    def contract(self, cotangents: Array) -> Array:
        """Cotangents times features.

        Parameters
        ----------
        cotangents : ndarray of shape (n_rows, n_atoms)
            Factors that multiply the features of the atoms.

        Returns
        -------
        rows : ndarray of shape (n_rows, n_columns)
            ``cotangents @ phi``.
        """

    @abstractmethod
    def pair_gradients(self, dual: Array) -> Iterator[tuple[Neighborhood, Array]]:
        """Derivatives of the field of every atom with respect to the vectors to its neighbours.

        Parameters
        ----------
        dual : ndarray of shape (n_columns,) or (n_atoms, n_columns)
            Dual weights of one field for all atoms, or of a different field for each atom.

        Yields
        ------
        neighborhood : Neighborhood
            The pairs of one column block.
        g : ndarray of shape (n_pairs, 3)
            The contribution of this column block to ``d f_i / d D_ij`` for every pair, in the unit
            of the field per Angstrom. The derivative is the sum over all column blocks.
        """

    @abstractmethod
    def pull_back(self, cotangents: Array) -> tuple[Array, Array]:
        """Derivatives of a function of the features with respect to the geometry.

        Parameters
        ----------
        cotangents : ndarray of shape (n_atoms, n_columns)
            Derivatives of the function with respect to the features.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            Derivatives with respect to the positions, 1/Angstrom.
        virial : ndarray of shape (3, 3)
            Derivatives with respect to a strain.
        """

    @abstractmethod
    def jacobian(self, q: Array) -> tuple[Array, Array]:
        """Derivatives of ``q^T phi`` for fixed q, one row per coordinate.

        Parameters
        ----------
        q : ndarray of shape (n_atoms,) or (k, n_atoms)
            A factor for every atom, such as its charge. It is faster to pass several sets of
            factors at once.

        Returns
        -------
        J : ndarray of shape (3 n_atoms, n_columns) or (k, 3 n_atoms, n_columns)
            Derivatives with respect to the positions, 1/Angstrom.
        virial : ndarray of shape (9, n_columns) or (k, 9, n_columns)
            Derivatives with respect to a strain.
        """

    @abstractmethod
    def residual_variances(self) -> tuple[Array, Array, Array]:
        """Prior variance that the features do not represent, for a field of unit amplitude.

        The latent field of an atom is ``phi w`` plus a residual. A fit learns nothing about the
        residual. Residuals of different atoms are treated as independent.

        Returns
        -------
        variance : ndarray of shape (n_atoms,)
            Variance of the residual of every atom.
        covariances : ndarray of shape (n_atoms, 3 n_atoms + 9)
            For every atom, the covariances of its residual with the derivatives of the residual
            with respect to the positions, 1/Angstrom, and to a strain.
        variances : ndarray of shape (n_atoms, 3 n_atoms + 9)
            Variances of these derivatives.
        """

    def directional(self, displacement: Array, strain: Array) -> DirectionalFeatures:
        """Derivatives of the features along one direction in the space of geometries.

        Parameters
        ----------
        displacement : ndarray of shape (n_atoms, 3)
            Displacements of the atoms, Angstrom.
        strain : ndarray of shape (3, 3)
            Strain of positions and cell.

        Returns
        -------
        directional : DirectionalFeatures
            The derivatives, with the methods `field` and `contract` of this class.
        """
        return DirectionalFeatures(self, displacement, strain)

    def field_gradient(self, q: Array, dual: Array) -> tuple[Array, Array]:
        """Derivatives of ``sum_f q_f . f``, a sum over fields f, for fixed q.

        Parameters
        ----------
        q : ndarray of shape (n_atoms,) or (n_fields, n_atoms)
            A factor for every atom, such as its charge.
        dual : ndarray of shape (n_columns,) or (n_fields, n_columns)
            Dual weights of the fields.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            Derivatives with respect to the positions, 1/Angstrom.
        virial : ndarray of shape (3, 3)
            Derivatives with respect to a strain.
        """
        # For atom i, combine all fields into a single field with the dual weights sum_f q_fi u_f.
        # One pass over the pairs is then enough for all fields.
        return self._gathered(np.atleast_2d(q).T @ np.atleast_2d(dual))

    def _gathered(self, dual):
        """Gradient and virial of ``sum_i f_i``, with a different field for each atom."""
        gradient, virial = np.zeros((self.n_atoms, 3)), np.zeros((3, 3))
        for neighborhood, g in self.pair_gradients(dual):
            of_block = neighborhood.gather(g)
            gradient += of_block[0]
            virial += of_block[1]
        return gradient, virial
