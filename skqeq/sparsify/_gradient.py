"""Derivatives of whitened kernel features with respect to positions and strain.

Let ``x = p / |p|`` be the normalised row of a centre in one column block, and s a sparse point. The
derivative of their kernel is

    d (x . s)^zeta = zeta (x . s)^(zeta - 1) (s - (x . s) x) . dp / |p|.

The gradient of one latent field is computed in reverse mode. The derivatives of the field with
respect to the features are one cotangent vector per centre. The descriptor turns these cotangents
into derivatives with respect to the vectors of all pairs. The Jacobian for all sparse points is
computed in forward mode. Only those columns of dp are computed and multiplied by s that depend on a
neighbour. Both modes are matrix products, and no array of size (centres, atoms, features) is
stored.
"""

from typing import NamedTuple

import numpy as np

from .._pythran import kernel_jacobian
from ..structures import DirectionalFeatures, FeatureGradient, Neighborhood
from ._kernel import ALL, row_norms

# Number of centres per matrix product. With more centres, the temporary arrays would not fit into
# the processor's cache, and malloc would return their memory to the system after each product.
PIECE = 256
# Shorter than any translation of a crystal, longer than rounding errors of positions, Angstrom.
ROUNDING = 1e-6


class ColumnBlock(NamedTuple):
    """One column block of the descriptor of one structure.

    Attributes
    ----------
    b : int
        Index of the block.
    neighborhood : Neighborhood
        The pairs of neighbours on which the rows depend.
    X : ndarray of shape (n_atoms, n)
        Normalised rows of all atoms. Columns of elements that the structure lacks are left out.
    norms : ndarray of shape (n_atoms,)
        Norms of the rows before the normalisation.
    columns : ndarray of shape (n,)
        Indices of the columns of `X` among all columns of the descriptor, ascending.
    cosines : dict of {int: ndarray of shape (n_centers, n_points)}
        ``x . s`` for the centres and sparse points of every group.
    """

    b: int
    neighborhood: Neighborhood
    X: np.ndarray
    norms: np.ndarray
    columns: np.ndarray
    cosines: dict[int, np.ndarray]


class SparseGradient(FeatureGradient):
    """The features of one structure and their derivatives, see `FeatureGradient`.

    A latent field ``phi w`` is evaluated as ``K u``, where the dual weights u solve ``L^T u = w``.
    With u, neither the kernel nor its derivatives need to be whitened.

    Parameters
    ----------
    source : SparseSource
        Computes the features.
    structure : Structure
        A molecule, a slab or a crystal.
    """

    def __init__(self, source, structure):
        self.n_atoms, self.source = len(structure), source
        self._positions = structure.positions
        self.columns, self.n_columns = source.columns, source.boundaries[-1]
        # Kernels of groups that occur in the structure, and the atoms of each group.
        self.kernels, self.centers = {}, {}
        for group, kernel in source.kernels.items():
            atoms = np.arange(self.n_atoms)
            if group != ALL:
                atoms = np.flatnonzero(structure.numbers == group)
            if len(atoms):
                self.kernels[group], self.centers[group] = kernel, atoms
        used = next(iter(source.kernels.values())).block_weights > 0
        self.blocks = [
            self._column_block(b, neighborhood)
            for b, neighborhood in enumerate(source.parent.neighborhoods(structure))
            if used[b]
        ]
        self._whitened = {}

    @property
    def n_bytes(self):
        """Size of rows, cosines and features, bytes; neighbours need little in comparison."""
        cosines = sum(x.nbytes for block in self.blocks for x in block.cosines.values())
        pairs = sum(block.neighborhood.D.nbytes for block in self.blocks)
        rows = sum(block.X.nbytes for block in self.blocks)
        return rows + 6 * pairs + cosines + cosines // max(1, len(self.blocks))

    def _column_block(self, b, neighborhood):
        X = neighborhood.rows()
        # The columns of the neighbourhood are relative to the first column of the block.
        first = self.source.parent.boundaries[b]
        columns = [np.arange(c.start, c.stop) + first for c in neighborhood.columns]
        columns = np.concatenate(columns)
        norms = row_norms(X)
        X /= norms[:, None]
        cosines = {
            group: _dot_points(X[atoms], self.kernels[group], columns)
            for group, atoms in self.centers.items()
        }
        return ColumnBlock(b, neighborhood, X, norms, columns, cosines)

    def _kernel(self, group):
        """K between the centres of a group and its sparse points, (n_centers, n_points)."""
        kernel = self.kernels[group]
        return sum(
            kernel.block_weights[block.b] * block.cosines[group] ** kernel.zeta
            for block in self.blocks
        )

    def _features(self, group):
        """Whitened features of the centres of a group; they are stored after the first call."""
        if group not in self._whitened:
            self._whitened[group] = self.kernels[group].whiten(self._kernel(group))
        return self._whitened[group]

    def field(self, dual):
        """The latent field of every atom, shape (n_atoms,), for dual weights (n_columns,)."""
        field = np.zeros(self.n_atoms)
        for group, atoms in self.centers.items():
            field[atoms] = self._kernel(group) @ dual[self.columns[group]]
        return field

    def contract(self, cotangents):
        """Cotangents of shape (n_rows, n_atoms) times features: (n_rows, n_columns)."""
        rows = np.zeros((len(cotangents), self.n_columns))
        for group, atoms in self.centers.items():
            rows[:, self.columns[group]] = cotangents[:, atoms] @ self._features(group)
        return rows

    def pair_gradients(self, dual):
        """Yield, for every column block, its neighbourhood and ``d f_i / d D_ij``.

        See `FeatureGradient`.
        """
        for block in self.blocks:
            cotangents = np.empty_like(block.X)
            for group, atoms, rows in self._pieces():
                kernel, cosines = self.kernels[group], block.cosines[group][rows]
                u = dual[..., self.columns[group]]
                u = u if dual.ndim == 1 else u[atoms]
                t = u * _kernel_derivative(kernel, block.b, cosines) / block.norms[atoms, None]
                # The cotangent is t . (s - (x . s) x), computed for one run of consecutive columns
                # after the other.
                along = np.einsum("im,im->i", t, cosines)[:, None]
                for own, full in _runs(block.columns):
                    x = block.X[atoms, own]
                    cotangents[atoms, own] = t @ kernel.points[:, full] - along * x
            yield block.neighborhood, block.neighborhood.pull_back(cotangents)

    def _pieces(self):
        """Yield a group, up to `PIECE` of its atoms, and their slice among the group's atoms."""
        for group, atoms in self.centers.items():
            for start in range(0, len(atoms), PIECE):
                rows = slice(start, start + PIECE)
                yield group, atoms[rows], rows

    def pull_back(self, cotangents):
        """Derivatives of a function of the features, see `FeatureGradient`.

        Cotangents of an atom in columns of other elements have no effect.
        """
        return self._gathered(self.source.dual(cotangents))

    def jacobian(self, q):
        """Derivatives of ``q^T phi`` for one or several sets q, see `FeatureGradient`."""
        sets = np.ascontiguousarray(np.atleast_2d(q), dtype=np.float64)
        J = np.zeros((len(sets), self.n_atoms, 3, self.n_columns))
        virial = np.zeros((len(sets), 3, 3, self.n_columns))
        for block in self.blocks:
            for group, atoms in self.centers.items():
                columns = self.columns[group]
                for moved, strained in self._sums_over_pairs(block, group, atoms, sets):
                    J[..., columns] += moved
                    virial[..., columns] += strained
        # D = r_j - r_i, plus the shift of a neighbour that is a periodic image.
        virial += np.einsum("kjam,jb->kabm", J, self._positions)
        J, virial = J.reshape(-1, self.n_columns), virial.reshape(-1, self.n_columns)
        # Whitening is linear. It is therefore applied after the sum over pairs, to fewer rows.
        J, virial = self.whitened(J), self.whitened(virial)
        lead = np.shape(q)[:-1]
        return J.reshape(*lead, 3 * self.n_atoms, -1), virial.reshape(*lead, 9, -1)

    def _sums_over_pairs(self, block, group, atoms, sets):
        """Yield parts of the derivatives of ``q^T K`` for the centres of one group."""
        kernel, cosines = self.kernels[group], block.cosines[group]
        factors = _kernel_derivative(kernel, block.b, cosines) / block.norms[atoms, None]
        neighborhood = block.neighborhood
        for pairs, columns, dp in neighborhood.jacobians(atoms):
            i, j, D = (x[pairs] for x in (neighborhood.i, neighborhood.j, neighborhood.D))
            products = dp.reshape(3 * len(pairs), len(columns))
            products = _dot_points(products, kernel, block.columns[columns])
            along = np.einsum("paf,pf->pa", dp, block.X[i][:, columns])
            shifts = D - (self._positions[j] - self._positions[i])
            shifts[np.abs(shifts) < ROUNDING] = 0.0
            rows = np.searchsorted(atoms, i)
            products = products.reshape(len(pairs), 3, kernel.points.shape[0])
            yield kernel_jacobian(i, j, rows, shifts, products, along, cosines, factors, sets)

    def directional(self, displacement, strain):
        """Derivatives along one direction, see `FeatureGradient`."""
        return SparseDirectional(self, displacement, strain)

    def whitened(self, rows):
        """Rows of derivatives of K as derivatives of phi, in place: (n_rows, n_columns)."""
        for group, kernel in self.kernels.items():
            rows[:, self.columns[group]] = kernel.whiten(rows[:, self.columns[group]])
        return rows

    def residual_variances(self):
        """Prior variance that the sparse set does not represent, see `FeatureGradient`.

        For one centre, the residual of a latent field has the covariance
        ``k(x, x') - phi(x) . phi(x')``. The results are its value and its derivatives at
        ``x = x'``. Because x is normalised, ``d d' k = zeta sum_b w_b |dx_b|^2``.

        Returns
        -------
        variance : ndarray of shape (n_atoms,)
            ``1 - |phi_i|^2``.
        covariances, variances : ndarray of shape (n_atoms, 3 n_atoms + 9)
            ``-phi_i . dphi_i`` and ``d d' k - |dphi_i|^2``.
        """
        n = self.n_atoms
        variance = np.ones(n)
        covariances, variances = np.zeros((n, 3 * n + 9)), np.zeros((n, 3 * n + 9))
        places = {
            i: (group, row)
            for group, atoms in self.centers.items()
            for row, i in enumerate(atoms.tolist())
        }
        for i in range(n):
            # An atom of an element without sparse points has no features, so that its residual is
            # the prior.
            group, row = places.get(i, (None, None))
            d_kernel, variances[i] = self._derivatives_of(i, group, row)
            if group is not None:
                phi, dphi = self._features(group)[row], self.kernels[group].whiten(d_kernel)
                variance[i] -= phi @ phi
                covariances[i] = -dphi @ phi
                variances[i] -= np.einsum("rm,rm->r", dphi, dphi)
        return variance, covariances, variances

    def _derivatives_of(self, i, group, row):
        """For centre i: ``dk`` with all points, (3 n + 9, n_points); and ``d d' k``, (3 n + 9,)."""
        # Kernels of all groups have the same exponent and weights of the column blocks.
        any_kernel = next(iter(self.source.kernels.values()))
        d_kernel, prior = 0.0, 0.0
        for block in self.blocks:
            x = block.X[i]
            dx = block.neighborhood.jacobian_of(i)
            # d (p / |p|) = (dp - x (x . dp)) / |p|
            dx -= np.outer(dx @ x, x)
            dx /= block.norms[i]
            weight = any_kernel.zeta * any_kernel.block_weights[block.b]
            prior = prior + weight * np.einsum("rf,rf->r", dx, dx)
            if group is not None:
                part = _dot_points(dx, self.kernels[group], block.columns)
                cosines = block.cosines[group][row]
                d_kernel = d_kernel + _kernel_derivative(any_kernel, block.b, cosines) * part
        return d_kernel, prior


class SparseDirectional(DirectionalFeatures):
    """The derivatives of the features of one structure along one direction.

    One pass over the neighbours computes the change dp of every row of the descriptor. The change
    of the kernel with all sparse points follows from dp by matrix products.

    Parameters
    ----------
    gradient : SparseGradient
        The derivatives with respect to all coordinates.
    displacement : ndarray of shape (n_atoms, 3)
        Displacements of the atoms, Angstrom.
    strain : ndarray of shape (3, 3)
        Strain of positions and cell.
    """

    def __init__(self, gradient, displacement, strain):
        self._gradient = gradient
        self._dK = dict.fromkeys(gradient.kernels, 0.0)
        for block in gradient.blocks:
            moved = block.neighborhood.moved(displacement, strain)
            dx = block.neighborhood.directional(moved) / block.norms[:, None]
            along = np.einsum("if,if->i", dx, block.X)
            for group, atoms in gradient.centers.items():
                kernel, cosines = gradient.kernels[group], block.cosines[group]
                change = _dot_points(dx[atoms], kernel, block.columns)
                change -= along[atoms, None] * cosines
                change *= _kernel_derivative(kernel, block.b, cosines)
                self._dK[group] = self._dK[group] + change

    def field(self, dual):
        """See `DirectionalFeatures.field`."""
        change = np.zeros(self._gradient.n_atoms)
        for group, atoms in self._gradient.centers.items():
            change[atoms] = self._dK[group] @ dual[self._gradient.columns[group]]
        return change

    def contract(self, cotangents):
        """See `DirectionalFeatures.contract`."""
        rows = np.zeros((len(cotangents), self._gradient.n_columns))
        for group, atoms in self._gradient.centers.items():
            rows[:, self._gradient.columns[group]] = cotangents[:, atoms] @ self._dK[group]
        return self._gradient.whitened(rows)


def _kernel_derivative(kernel, b, cosines):
    """Derivative of the term of column block b in the kernel with respect to ``x . s``."""
    return kernel.block_weights[b] * kernel.zeta * cosines ** (kernel.zeta - 1)


def _dot_points(rows, kernel, columns):
    """Products of rows with the sparse points, (n, n_points); rows are zero in other columns."""
    return rows @ kernel.points[:, columns].T


def _runs(columns):
    """Split ascending columns into runs of consecutive ones.

    A slice of the points is a view, while an index array would copy them for every product.

    Yields
    ------
    own : slice
        Indices of the run in `columns`.
    full : slice
        The run as a slice of all columns of the descriptor.
    """
    edges = [0, *(np.flatnonzero(np.diff(columns) != 1) + 1).tolist(), len(columns)]
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        first = int(columns[start])
        yield slice(start, stop), slice(first, first + stop - start)
