"""Pairs of neighbouring atoms, and derivatives that are sums over pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from ._structure import reduced_cell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._typing import Array


class Neighborhood(ABC):
    """The neighbours of every atom of one structure, and one column block of features.

    The features of an atom, the centre, depend on the geometry only through the vectors D to its
    neighbours. All derivatives are therefore sums over pairs. Periodic images of atoms count as
    neighbours, so that molecules, slabs and crystals are treated alike.

    Attributes
    ----------
    n_atoms : int
        Number of atoms of the structure.
    i, j : ndarray of shape (n_pairs,)
        Centre and neighbour of each pair. If a pair occurs more than once, its derivatives add.
    D : ndarray of shape (n_pairs, 3)
        Vectors from i to j, Angstrom.
    columns : tuple of slice
        Columns of `rows` in the column block. All other columns of the block are zero.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from skqeq import SOAPFeaturizer
    >>> features = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2).fit_transform([molecule("H2O")])
    >>> [neighborhood] = features.source.neighborhoods(features.structures[0])
    >>> rows = neighborhood.rows()
    >>> gradient, virial = neighborhood.gather(neighborhood.pull_back(2 * rows))
    >>> rows.shape, gradient.shape, bool(np.abs(gradient.sum(axis=0)).max() < 1e-10)
    ((3, 30), (3, 3), True)
    """

    n_atoms: int
    i: np.ndarray
    j: np.ndarray
    D: np.ndarray
    columns: tuple[slice, ...]

    @abstractmethod
    def rows(self) -> Array:
        """Features of every atom, shape (n_atoms, n_columns)."""

    @abstractmethod
    def pull_back(self, cotangents: Array) -> Array:
        """Derivatives of a function of the rows with respect to `D`.

        Parameters
        ----------
        cotangents : ndarray of shape (n_atoms, n_columns)
            Derivatives of the function with respect to `rows`.

        Returns
        -------
        g : ndarray of shape (n_pairs, 3)
            Derivatives of the function with respect to D, 1/Angstrom. `gather` turns them into
            derivatives with respect to the geometry.
        """

    @abstractmethod
    def jacobians(self, centers: Array | None = None) -> Iterator[tuple[Array, Array, Array]]:
        """Derivatives of the rows with respect to `D`, piece by piece.

        Parameters
        ----------
        centers : ndarray of int, default=None
            Atoms whose rows are differentiated; None means all.

        Yields
        ------
        pairs : ndarray of shape (n,)
            Indices of pairs.
        columns : ndarray of shape (m,)
            Columns of `rows` that depend on these pairs.
        J : ndarray of shape (n, 3, m)
            ``d rows[i[p], columns] / d D[p]`` for the pairs p; 1/Angstrom.
        """

    def directional(self, moved: Array) -> Array:
        """Derivatives of the rows along one direction.

        This default sums over `jacobians`; a descriptor may have a faster way.

        Parameters
        ----------
        moved : ndarray of shape (n_pairs, 3)
            The direction: the change of every vector D, Angstrom.

        Returns
        -------
        change : ndarray of shape (n_atoms, n_columns)
            The change of `rows` to first order.
        """
        change = np.zeros((self.n_atoms, sum(c.stop - c.start for c in self.columns)))
        for pairs, columns, J in self.jacobians():
            of_pairs = np.einsum("paf,pa->pf", J, moved[pairs])
            np.add.at(change, (self.i[pairs][:, None], columns), of_pairs)
        return change

    def moved(self, displacement: Array, strain: Array) -> Array:
        """Change of the vectors `D` if the geometry changes.

        Parameters
        ----------
        displacement : ndarray of shape (n_atoms, 3)
            Displacements of the atoms, Angstrom.
        strain : ndarray of shape (3, 3)
            Strain e of positions and cell, ``r -> (1 + e) r``.

        Returns
        -------
        moved : ndarray of shape (n_pairs, 3)
            Changes of D to first order, Angstrom.
        """
        return move_pairs(self.i, self.j, self.D, displacement, strain)

    @abstractmethod
    def jacobian_of(self, i: int) -> Array:
        """Derivatives of the row of one atom with respect to the geometry.

        Parameters
        ----------
        i : int
            The atom.

        Returns
        -------
        J : ndarray of shape (3 n_atoms + 9, n_columns)
            Derivatives with respect to the positions, 1/Angstrom, and to a strain.
        """

    def gather(self, g: Array) -> tuple[Array, Array]:
        """Turn derivatives with respect to `D` into derivatives with respect to the geometry.

        Parameters
        ----------
        g : ndarray of shape (n_pairs, 3)
            Derivatives of one number.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            Derivatives with respect to the positions, 1/Angstrom. It sums to zero.
        virial : ndarray of shape (3, 3)
            Derivatives with respect to a strain e of positions and cell, ``r -> (1 + e) r``.
        """
        return gather_pairs(self.i, self.j, self.D, g, self.n_atoms)

    def gather_by_center(self, g: Array) -> tuple[Array, Array]:
        """Turn derivatives with respect to `D` into gradients of one number per atom.

        Parameters
        ----------
        g : ndarray of shape (n_pairs, 3)
            For pair p, the derivative of the number of atom ``i[p]``, the centre, with respect to
            ``D[p]``.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3, n_atoms)
            ``d number[i] / d r_k`` at ``[k, :, i]``, 1/Angstrom.
        virial : ndarray of shape (3, 3, n_atoms)
            Derivatives with respect to a strain of positions and cell.
        """
        return spread_pairs(self.i, self.j, self.D, g, self.n_atoms)


def neighbor_pairs(structure, cutoff):
    """All ordered pairs of atoms closer than a cutoff, including pairs across cell boundaries.

    Parameters
    ----------
    structure : Structure
        A molecule, a slab or a crystal.
    cutoff : float
        Maximum distance, Angstrom.

    Returns
    -------
    i, j : ndarray of shape (n_pairs,)
        Both atoms of each pair. In a periodic structure an atom can form a pair with one of its
        images, but never with itself.
    D : ndarray of shape (n_pairs, 3)
        Vectors from i to j, Angstrom.
    """
    # With a long or skew cell, the neighbour search would have to visit very many images.
    cell, pbc = reduced_cell(structure) if structure.periodic else (np.eye(3), structure.pbc)
    from vesin import NeighborList  # not at the top: it imports torch if that is installed

    neighbors = NeighborList(cutoff=cutoff, full_list=True)
    i, j, D = neighbors.compute(structure.positions, cell, pbc, "ijD", copy=False)
    # Copy the arrays, because they are views of memory that the next call of `compute` overwrites.
    return i.astype(np.int64), j.astype(np.int64), D.copy()


def move_pairs(i, j, D, displacement, strain):
    """Change of the vectors D, to first order, if atoms are displaced and a strain is applied.

    Parameters
    ----------
    i, j, D
        Pairs, see `neighbor_pairs`.
    displacement : ndarray of shape (n_atoms, 3)
        Displacements of the atoms, Angstrom.
    strain : ndarray of shape (3, 3)
        Strain e of positions and cell, ``r -> (1 + e) r``.

    Returns
    -------
    moved : ndarray of shape (n_pairs, 3)
        Changes of D, Angstrom.
    """
    return displacement[j] - displacement[i] + D @ strain.T


def gather_pairs(i, j, D, g, n_atoms):
    """Turn derivatives with respect to D into derivatives with respect to positions and strain.

    Because ``D = r_j - r_i``, a derivative g is added for atom j and subtracted for atom i.

    Parameters
    ----------
    i, j, D
        Pairs, see `neighbor_pairs`.
    g : ndarray of shape (n_pairs, 3)
        Derivatives of one number with respect to D.
    n_atoms : int
        Number of atoms.

    Returns
    -------
    gradient : ndarray of shape (n_atoms, 3)
        Derivatives with respect to the positions.
    virial : ndarray of shape (3, 3)
        Derivatives with respect to a strain.
    """
    # bincount is several times faster than np.add.at.
    gradient = [np.bincount(j, g_a, n_atoms) - np.bincount(i, g_a, n_atoms) for g_a in g.T]
    # Without pairs bincount returns integers.
    return np.stack(gradient, axis=1).astype(np.float64), g.T @ D


def spread_pairs(i, j, D, g, n_atoms):
    """Per-atom version of `gather_pairs`: pair p holds the derivative of the number of atom i[p].

    Returns
    -------
    gradient : ndarray of shape (n_atoms, 3, n_atoms)
        ``d number[i] / d r_k`` at ``[k, :, i]``.
    virial : ndarray of shape (3, 3, n_atoms)
        Derivatives with respect to a strain.
    """
    gradient, virial = np.empty((n_atoms, 3, n_atoms)), np.empty((3, 3, n_atoms))
    # The index of (k, i) in a flat array lets bincount fill a matrix.
    for a in range(3):
        flat = np.bincount(j * n_atoms + i, g[:, a], n_atoms**2)
        flat -= np.bincount(i * n_atoms + i, g[:, a], n_atoms**2)
        gradient[:, a] = flat.reshape(n_atoms, n_atoms)
        for b in range(3):
            virial[a, b] = np.bincount(i, g[:, a] * D[:, b], n_atoms)
    return gradient, virial
