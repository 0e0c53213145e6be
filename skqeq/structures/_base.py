"""Base classes: a source computes features of structures, a gradient their derivatives.

A descriptor of your own is a subclass of `FeatureSource` with `tiles`. If it also makes a
`Neighborhood` for each of its column blocks, `skqeq.CURSparsifier` and the models behind it have
forces, stress and Born charges.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._typing import Array
    from ..structures import Neighborhood, Structure, Structures, Tile

NO_GRADIENT = (
    "forces, stress and Born charges need features of known derivative: those of CURSparsifier "
    "behind SOAPFeaturizer"
)


class FeatureSource(ABC):
    """Computes per-atom features of structures, whenever `StructureFeatures` asks for them.

    A subclass sets `boundaries` and `row_bytes`, defines `tiles`, and overrides what else differs.

    Attributes
    ----------
    boundaries : tuple of int
        First column of each column block, and at the end the number of columns. A column block is
        a unit of the kernel: `skqeq.CURSparsifier` normalises each on its own.
    row_bytes : int
        Memory that one atom needs while its features are computed, bytes.
    signature : tuple or None, default=None
        What the columns mean, in plain Python that can be compared and stored. Features of equal
        signature can be exchanged; None means that this is unknown, and is never refused.
    prior_variance : float, default=1.0
        Variance of a Gaussian process of unit amplitude over these features. The features
        represent ``|phi|^2`` of it, so the rest of an atom's variance is the difference.
    verbose : bool, default=False
        Whether walks over the features show a progress bar.
    names : tuple of str, default=()
        Names of the `sources` that stand side by side, where they have names.
    has_gradient : bool, default=False
        Whether `gradient` and `dual` are defined.
    has_neighborhoods : bool, default=False
        Whether `neighborhoods` is defined.

    Examples
    --------
    The element of each atom as a descriptor:

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
    <StructureFeatures: 1 structures, 3 atoms, 9 features>
    """

    boundaries: tuple[int, ...]
    row_bytes: int
    signature: tuple[Any, ...] | None = None
    prior_variance: float = 1.0
    verbose: bool = False
    names: tuple[str, ...] = ()
    has_gradient: bool = False
    has_neighborhoods: bool = False

    @property
    def sources(self) -> Sequence[FeatureSource]:
        """The sources whose columns stand side by side; only this one unless they were stacked."""
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
            Their atoms are numbered through.

        Returns
        -------
        tiles : list of Tile
            Dense pieces; together they hold every entry that is not zero.
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
            Of these atoms only; `Tile.atoms` are indices in the structure.
        """
        wanted = np.isin(np.arange(len(structure)), atoms)
        return [tile.take(wanted[tile.atoms]) for tile in self.tiles([structure])]

    def neighborhoods(self, structure: Structure) -> list[Neighborhood]:
        """Neighbours of the atoms of a structure, with the features that they make.

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
            Computes products with the derivatives, which are never stored.

        Raises
        ------
        TypeError
            If the derivatives of the features are not known.
        """
        raise TypeError(NO_GRADIENT)

    def dual(self, weights: Array) -> Array:
        """Weights in the form that the methods of `FeatureGradient` take.

        Parameters
        ----------
        weights : ndarray of shape (n_columns,) or (n, n_columns)
            Weights w of a function ``phi w`` of the features.

        Returns
        -------
        dual : ndarray of the same shape
            Weights u of the same function of what the features were made from: ``K u = phi w``
            with the kernel K of `skqeq.CURSparsifier`.

        Raises
        ------
        TypeError
            If the derivatives of the features are not known.
        """
        raise TypeError(NO_GRADIENT)


class FeatureGradient(ABC):
    """Derivatives of the features phi of one structure with respect to its geometry.

    They would fill an array (n_atoms, n_columns, n_atoms, 3), so only products with it are
    computed. A field is one number per atom, ``f = phi w``; the methods take its dual weights, see
    `FeatureSource.dual`. The virial is the derivative with respect to a strain e of positions and
    cell, ``r -> (1 + e) r``.

    Attributes
    ----------
    n_atoms : int
        Number of atoms of the structure.
    """

    n_atoms: int

    @abstractmethod
    def field(self, dual: Array) -> Array:
        """The field ``f = phi w``.

        Parameters
        ----------
        dual : ndarray of shape (n_columns,)
            Dual weights of w.

        Returns
        -------
        f : ndarray of shape (n_atoms,)
            In units of the weights.
        """

    @abstractmethod
    def contract(self, cotangents: Array) -> Array:
        """Cotangents times features.

        Parameters
        ----------
        cotangents : ndarray of shape (n_rows, n_atoms)
            Factors of the atoms.

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
            Dual weights of one field, or of another field for every atom.

        Yields
        ------
        neighborhood : Neighborhood
            The pairs of one column block.
        g : ndarray of shape (n_pairs, 3)
            ``d f_i / d D_ij`` of every pair; the unit of the field over Angstrom. All column
            blocks together make the derivative.
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
            With respect to the positions, 1/Angstrom.
        virial : ndarray of shape (3, 3)
            With respect to a strain.
        """

    @abstractmethod
    def jacobian(self, q: Array) -> tuple[Array, Array]:
        """Derivatives of ``q^T phi`` for fixed q, one row per coordinate.

        Parameters
        ----------
        q : ndarray of shape (n_atoms,) or (k, n_atoms)
            A factor for every atom, such as its charge. Several sets share most of the work.

        Returns
        -------
        J : ndarray of shape (3 n_atoms, n_columns) or (k, 3 n_atoms, n_columns)
            With respect to the positions, 1/Angstrom.
        virial : ndarray of shape (9, n_columns) or (k, 9, n_columns)
            With respect to a strain.
        """

    @abstractmethod
    def residual_variances(self) -> tuple[Array, Array, Array]:
        """Prior variance that the features do not represent, for a field of unit amplitude.

        The field of an atom is ``phi w`` plus a residual, of which the labels say nothing. The
        residuals of different atoms are taken as independent.

        Returns
        -------
        variance : ndarray of shape (n_atoms,)
            Variance of the residual of every atom.
        covariances : ndarray of shape (n_atoms, 3 n_atoms + 9)
            Covariance of the residual of every atom with its own derivatives with respect to the
            positions, 1/Angstrom, and to a strain.
        variances : ndarray of shape (n_atoms, 3 n_atoms + 9)
            Variances of these derivatives.
        """

    def field_gradient(self, q: Array, dual: Array) -> tuple[Array, Array]:
        """Derivatives of ``sum_f q_f . f`` over fields f, for fixed q.

        Parameters
        ----------
        q : ndarray of shape (n_atoms,) or (n_fields, n_atoms)
            A factor for every atom, such as its charge.
        dual : ndarray of shape (n_columns,) or (n_fields, n_columns)
            Dual weights of the fields.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            With respect to the positions, 1/Angstrom.
        virial : ndarray of shape (3, 3)
            With respect to a strain.
        """
        # One field per atom, sum_f q_fi u_f, costs a single pass over the pairs for all fields.
        return self._gathered(np.atleast_2d(q).T @ np.atleast_2d(dual))

    def _gathered(self, dual):
        """Gradient and virial of the sum over the atoms of one field per atom."""
        gradient, virial = np.zeros((self.n_atoms, 3)), np.zeros((3, 3))
        for neighborhood, g in self.pair_gradients(dual):
            of_block = neighborhood.gather(g)
            gradient += of_block[0]
            virial += of_block[1]
        return gradient, virial
