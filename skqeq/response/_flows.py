"""The graph along which charge flows between neighbouring atoms."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from ..structures import gather_pairs, move_pairs, neighbor_pairs, spread_pairs

if TYPE_CHECKING:
    from .._typing import Array
    from ..structures import Structure


# The softness of a pair vanishes where its distance exceeds the sum of the covalent radii by this
# many times the range.
REACH = 10.0
# A softness of exp(-300) changes no digit of a result, and smaller ones would underflow.
LARGEST_EXPONENT = 300.0


class Flows:
    """The pairs of atoms of one structure between which charge flows.

    The softness of a pair decays smoothly with its distance, and vanishes beyond a finite one::

        s_ij = sqrt(s_i s_j) exp(-x / (1 - x / 10)),    x = (r_ij - R_i - R_j) / range  (below 10).

    Parameters
    ----------
    structure : Structure
        A molecule, a slab or a crystal.
    softness, radii : ndarray of shape (n_atoms,)
        Softness ``s_i`` and covalent radius ``R_i`` of every atom, e/V and Angstrom.
    range : float
        Length over which the softness decays with distance, Angstrom.

    Attributes
    ----------
    i, j : ndarray of shape (n_pairs,)
        Both atoms of each pair; every pair occurs in both orders.
    D : ndarray of shape (n_pairs, 3)
        Vectors from i to j, Angstrom.
    softness : ndarray of shape (n_pairs,)
        ``s_ij``, e/V.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from skqeq import check_structures
    >>> from skqeq.parameters import covalent_radii
    >>> from skqeq.response import Flows
    >>> [water] = check_structures([molecule("H2O")])
    >>> flows = Flows(water, np.full(3, 0.05), covalent_radii()[water.numbers], 0.25)
    >>> flows.laplacian.toarray().round(3)
    array([[ 0.101, -0.05 , -0.05 ],
           [-0.05 ,  0.05 , -0.   ],
           [-0.05 , -0.   ,  0.05 ]])
    """

    def __init__(self, structure: Structure, softness: Array, radii: Array, range: float) -> None:
        self.n_atoms, self.range = len(structure), range
        reach = 2 * radii.max() + REACH * range
        if not structure.periodic:
            # The diagonal of the box around all atoms is an upper bound on all distances.
            reach = min(reach, 1.0 + np.linalg.norm(np.ptp(structure.positions, axis=0)))
        i, j, D = neighbor_pairs(structure, reach)
        # No charge flows between an atom and its own images.
        distances = np.sqrt(np.einsum("pa,pa->p", D, D))
        x = (distances - radii[i] - radii[j]) / range
        # Solved for x, because x / (1 - x / REACH) has a pole.
        farthest = REACH / (1 + REACH / LARGEST_EXPONENT)
        soft = (x < farthest) & (i != j) & (softness[i] * softness[j] > 0)
        self.i, self.j, self.D = i[soft], j[soft], D[soft]
        self._distances, self._x = distances[soft], x[soft]
        decay = np.exp(-self._x / (1 - self._x / REACH))
        self.softness = np.sqrt(softness[self.i] * softness[self.j]) * decay

    @cached_property
    def laplacian(self) -> csr_array:
        """The sparse Laplacian X, defined by ``(X u)_i = sum_j s_ij (u_i - u_j)``; e/V."""
        shape = (self.n_atoms, self.n_atoms)
        atoms = np.arange(self.n_atoms)
        degrees = np.bincount(self.i, self.softness, self.n_atoms)
        values = np.concatenate([-self.softness, degrees])
        ends = np.concatenate([self.i, atoms]), np.concatenate([self.j, atoms])
        return csr_array((values, ends), shape)

    @cached_property
    def _softness_gradient(self):
        """Derivatives of the softness of every pair with respect to D, (n_pairs, 3)."""
        by_distance = -self.softness / (self.range * (1 - self._x / REACH) ** 2)
        return (by_distance / self._distances)[:, None] * self.D

    def gradient(self, u: Array, v: Array) -> tuple[Array, Array]:
        """Derivatives of ``u . X v`` with respect to positions and strain.

        Parameters
        ----------
        u, v : ndarray of shape (n_atoms,)
            Potentials, V.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            Derivatives with respect to the positions, eV/Angstrom.
        virial : ndarray of shape (3, 3)
            Derivatives with respect to a strain, eV.
        """
        # The factor 0.5 is needed because every pair occurs in both orders.
        differences = 0.5 * (u[self.i] - u[self.j]) * (v[self.i] - v[self.j])
        g = differences[:, None] * self._softness_gradient
        return gather_pairs(self.i, self.j, self.D, g, self.n_atoms)

    def parameter_gradient(self, H: Array, elements: Array, n_elements: int) -> tuple[float, Array]:
        """Derivatives of ``-tr(H X)`` with respect to the logarithms of range and softness.

        Parameters
        ----------
        H : ndarray of shape (n_atoms, n_atoms)
            Any matrix.
        elements : ndarray of shape (n_atoms,)
            Index of the element of every atom, from 0.
        n_elements : int
            Number of elements.

        Returns
        -------
        range : float
            Derivative with respect to the logarithm of the range.
        softness : ndarray of shape (n_elements,)
            Derivatives with respect to the logarithm of the softness of each element.
        """
        i, j = self.i, self.j
        # The factor 0.5 is needed because every pair occurs in both orders.
        of_pairs = -0.5 * self.softness * (H[i, i] + H[j, j] - H[i, j] - H[j, i])
        by_range = of_pairs @ (self._x / (1 - self._x / REACH) ** 2)
        # The softness of a pair contains sqrt(s_i s_j), so that each atom contributes half of the
        # derivative with respect to log s.
        ends = np.concatenate([elements[i], elements[j]])
        by_element = np.bincount(ends, np.tile(0.5 * of_pairs, 2), n_elements)
        return float(by_range), by_element

    def charge_gradient(self, u: Array) -> tuple[Array, Array]:
        """Derivatives of ``X u`` with respect to positions and strain.

        Parameters
        ----------
        u : ndarray of shape (n_atoms,)
            Potentials, V.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3, n_atoms)
            Derivatives with respect to the positions, e/Angstrom.
        virial : ndarray of shape (3, 3, n_atoms)
            Derivatives with respect to a strain, e.
        """
        g = (u[self.i] - u[self.j])[:, None] * self._softness_gradient
        return spread_pairs(self.i, self.j, self.D, g, self.n_atoms)

    def directional(self, u: Array, displacement: Array, strain: Array) -> Array:
        """Change of ``X u`` along one direction in the space of geometries.

        Parameters
        ----------
        u : ndarray of shape (n_atoms,)
            Potentials, V.
        displacement : ndarray of shape (n_atoms, 3)
            Displacements of the atoms, Angstrom.
        strain : ndarray of shape (3, 3)
            Strain of positions and cell.

        Returns
        -------
        change : ndarray of shape (n_atoms,)
            To first order, e.
        """
        moved = move_pairs(self.i, self.j, self.D, displacement, strain)
        change = np.einsum("pa,pa->p", self._softness_gradient, moved)
        return np.bincount(self.i, change * (u[self.i] - u[self.j]), self.n_atoms)
