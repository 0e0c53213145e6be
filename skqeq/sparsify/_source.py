"""Whitened kernel features, computed from the features of a descriptor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpstrf

from ..structures import FeatureSource, StructureFeatures, Structures, Tile
from ._environments import environments_of
from ._gradient import SparseGradient
from ._kernel import ALL, SparseKernel, normalize_blocks
from ._selection import MAX_SKETCH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._typing import Array
    from ..structures import Structure

# Smallest jitter of an extended sparse set, which may contain the same point several times.
REPEATED_JITTER = 1e-8


class SparseSource(FeatureSource):
    """Whitened kernel features ``phi = K_nM L^-T`` for the sparse sets of all groups.

    A group contains the environments of one element, or all environments if elements are mixed.
    Every group has separate sparse points and columns. The features of an atom are zero in the
    columns of all other groups.

    Parameters
    ----------
    parent : FeatureSource
        The descriptor.
    kernels : dict of {int: SparseKernel}
        The kernel of every group; keys are atomic numbers or `ALL`.

    Attributes
    ----------
    columns : dict of {int: slice}
        Columns of every group.
    """

    def __init__(self, parent: FeatureSource, kernels: dict[int, SparseKernel]) -> None:
        self.parent, self.kernels = parent, kernels
        sizes = [len(kernel.points) for kernel in kernels.values()]
        edges = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        self.columns = {
            group: slice(start, stop)
            for group, start, stop in zip(kernels, edges[:-1], edges[1:], strict=True)
        }
        self.boundaries = (0, edges[-1])
        if parent.signature is not None:
            digests = ((int(g), kernel.digest) for g, kernel in kernels.items())
            self.signature = (parent.signature, *digests)
        self.elements = parent.elements
        self.represented = None if ALL in kernels else frozenset(map(int, kernels))
        self.row_bytes = parent.row_bytes
        self.verbose = parent.verbose
        self.has_gradient = parent.has_neighborhoods

    def tiles(self, structures: Sequence[Structure] | Structures) -> list[Tile]:
        """One tile per group, with the columns of its sparse points."""
        numbers = np.concatenate([s.numbers for s in structures])
        # A kernel is a sum over column blocks, which may be in different tiles.
        kernels_by_group: dict[int, list[tuple[Array, Array]]] = {}
        for tile in self.parent.tiles(structures):
            for group, kernel in self.kernels.items():
                part = tile if group == ALL else tile.take(numbers[tile.atoms] == group)
                if len(part.atoms):
                    kernels_by_group.setdefault(group, []).append((part.atoms, kernel(part)))
        tiles = []
        for group, pieces in kernels_by_group.items():
            atoms = np.unique(np.concatenate([a for a, _ in pieces]))
            K = np.zeros((len(atoms), len(self.kernels[group].points)))
            for part_atoms, K_part in pieces:
                K[np.searchsorted(atoms, part_atoms)] += K_part
            tiles.append(Tile(atoms, (self.columns[group],), self.kernels[group].whiten(K)))
        return tiles

    def gradient(self, structure: Structure) -> SparseGradient:
        """See `FeatureSource.gradient`."""
        return SparseGradient(self, structure)

    def dual(self, weights: Array) -> Array:
        """Weights u of the kernel for weights w of the features: ``K u = phi w``, ``L^T u = w``.

        Parameters
        ----------
        weights : ndarray of shape (n_columns,) or (n, n_columns)
            Weights w.

        Returns
        -------
        dual : ndarray of the same shape
            Weights u.
        """
        dual = np.empty_like(weights)
        for group, kernel in self.kernels.items():
            columns = self.columns[group]
            dual[..., columns] = solve_triangular(
                kernel.chol, weights[..., columns].T, lower=True, trans=1
            ).T
        return dual

    def coarsened(self, n_points: int) -> tuple[SparseSource, Callable[[Array], Array]]:
        """A source with the most important sparse points of every group.

        Pivoted Cholesky decomposition of the kernel matrix selects the points: each is the one that
        the points before it represent worst. If few points were chosen at random, they would
        represent the functions of all points much worse.

        Parameters
        ----------
        n_points : int
            Largest number of points of a group.

        Returns
        -------
        source : SparseSource
            The source with fewer points.
        prolong : callable
            Turns its weights into weights of this source.
        """
        chosen, kernels = {}, {}
        for group, kernel in self.kernels.items():
            _, pivots, _, _ = dpstrf(kernel.chol @ kernel.chol.T, lower=True)
            chosen[group] = np.sort(pivots[:n_points] - 1)
            kernels[group] = SparseKernel(
                kernel.points[chosen[group]],
                kernel.boundaries,
                kernel.block_weights,
                kernel.zeta,
                kernel.dtype,
            ).factorize(kernel.jitter, f"group {group}")
        source = SparseSource(self.parent, kernels)

        def prolong(weights: Array) -> Array:
            few, fine = source.dual(weights), np.empty(self.boundaries[-1])
            for group, kernel in self.kernels.items():
                dual = np.zeros(len(kernel.points))
                dual[chosen[group]] = few[source.columns[group]]
                fine[self.columns[group]] = kernel.chol.T @ dual
            return fine

        return source, prolong

    def with_environments(self, structure: Structure) -> SparseSource:
        """A source whose sparse points also contain the environments of a structure.

        The features of this source represent these environments exactly: the residual variance
        ``1 - |phi|^2`` is zero for them, and smaller than before for similar environments.

        Parameters
        ----------
        structure : Structure
            The structure. Atoms of elements without sparse points are ignored.

        Returns
        -------
        source : SparseSource
            A source with one additional column for each atom that is not ignored.
        """
        rows = StructureFeatures([structure], self.parent)[0]
        rows = normalize_blocks(rows, self.parent.boundaries)
        kernels = {}
        for group, kernel in self.kernels.items():
            new = rows if group == ALL else rows[structure.numbers == group]
            # If two points are equal, the kernel matrix is singular without a jitter.
            kernels[group] = SparseKernel(
                np.concatenate([kernel.points, new]),
                kernel.boundaries,
                kernel.block_weights,
                kernel.zeta,
                kernel.dtype,
            ).factorize(max(REPEATED_JITTER, kernel.jitter), f"group {group}")
        return SparseSource(self.parent, kernels)

    def sketch(
        self, structures: Structures, rng: np.random.Generator, width: int = MAX_SKETCH
    ) -> Array:
        """Random projection of the descriptors of all atoms.

        Distances between environments are nearly preserved.

        Parameters
        ----------
        structures : Structures
            The structures.
        rng : numpy.random.Generator
            Source of the random numbers.
        width : int
            Number of columns.

        Returns
        -------
        rows : ndarray of shape (n_atoms, width)
            The projected rows, whose column blocks were normalised before the projection. A
            descriptor with fewer than `width` columns is not projected.
        """
        environments = environments_of(StructureFeatures(structures, self.parent))
        return environments.sketch(np.arange(environments.n), width, rng)
