"""Derivatives of whitened kernel features with respect to positions and strain.

For one column block, with ``x = p / |p|`` the normalised row of a centre and s a sparse point,

    d (x . s)^zeta = zeta (x . s)^(zeta - 1) (s - (x . s) x) . dp / |p|.

Backwards, that turns derivatives with respect to the features into one vector per centre, which
the power spectrum pulls back. Forwards, all sparse points at once, the columns that a neighbour
changes are multiplied by those of the points: a product of matrices, and nothing of the size
(centres, atoms, features) is stored.
"""

import numpy as np
from scipy.sparse import csr_array

from ..features._gradient import Surroundings
from ._cur import ALL
from ._kernel import row_norms

# Number of centres whose temporary arrays the processor's cache and the allocator hold well.
PIECE = 256


class SparseGradient:
    """The features of one structure and their derivatives.

    Derivatives of a field ``chi = phi w`` are taken at its dual weights, which stand for w in
    ``chi = K u``, ``L^T u = w``: so nothing is whitened for them.

    Parameters
    ----------
    source : SparseSource
        What makes the features, from power spectra.
    structure : Structure
        A molecule, a slab or a crystal.
    """

    def __init__(self, source, structure):
        self.n_atoms, self.source = len(structure), source
        self.columns, self.n_columns = source.columns, source.boundaries[-1]
        self.kernels, self.centers = {}, {}
        for group, kernel in source.kernels.items():
            own = np.arange(self.n_atoms)
            if group != ALL:
                own = np.flatnonzero(structure.numbers == group)
            if len(own):
                self.kernels[group], self.centers[group] = kernel, own
        self.blocks, self._whitened = [], {}
        for b, spectrum in enumerate(source.parent.spectra):
            near = Surroundings(spectrum, structure)
            X = near.rows()
            columns = spectrum.columns(structure.species, source.parent.boundaries[b])
            columns = np.concatenate([np.arange(c.start, c.stop) for c in columns])
            norms = row_norms(X)
            X /= norms[:, None]
            cosines = {
                group: _dot_points(X[own], self.kernels[group], columns)
                for group, own in self.centers.items()
            }
            self.blocks.append((b, near, X, norms, columns, cosines))

    def _pieces(self):
        """Some centres of one group at a time: which, and which of the group they are."""
        for group, own in self.centers.items():
            for start in range(0, len(own), PIECE):
                rows = slice(start, start + PIECE)
                yield group, own[rows], rows

    def _kernel(self, group):
        """K of the centres of a group with its sparse points."""
        kernel = self.kernels[group]
        return sum(
            kernel.block_weights[b] * cosines[group] ** kernel.zeta
            for b, _, _, _, _, cosines in self.blocks
        )

    def _features(self, group):
        """The whitened features of the centres of a group."""
        if group not in self._whitened:
            self._whitened[group] = self.kernels[group].whiten(self._kernel(group))
        return self._whitened[group]

    def field(self, dual):
        """``chi = phi w`` of every atom, shape (n_atoms,), from the dual weights of w."""
        chi = np.zeros(self.n_atoms)
        for group, own in self.centers.items():
            chi[own] = self._kernel(group) @ dual[self.columns[group]]
        return chi

    def contract(self, cotangents):
        """Cotangents of shape (n_rows, n_atoms) times features: (n_rows, n_columns)."""
        result = np.zeros((len(cotangents), self.n_columns))
        for group, own in self.centers.items():
            result[:, self.columns[group]] = cotangents[:, own] @ self._features(group)
        return result

    def slopes(self, dual):
        """Derivatives of the field of every centre with respect to where its neighbours are.

        Parameters
        ----------
        dual : ndarray of shape (n_columns,) or (n_atoms, n_columns)
            Dual weights of the field, or of another field for every centre.

        Yields
        ------
        near : Surroundings
            Of each column block, the pairs of centres and neighbours.
        slopes : ndarray of shape (n_pairs, 3)
            ``d chi_i / d D_ij`` of every pair; 1/Angstrom times the unit of the field.
        """
        for b, near, X, norms, columns, cosines in self.blocks:
            given = np.empty_like(X)
            for group, own, rows in self._pieces():
                kernel, cosine = self.kernels[group], cosines[group][rows]
                t = dual[..., self.columns[group]]
                t = t if dual.ndim == 1 else t[own]
                t = t * _slope(kernel, b, cosine) / norms[own, None]
                along = np.einsum("im,im->i", t, cosine)
                for here, there in _runs(columns):
                    given[own, here] = t @ kernel.points[:, there] - along[:, None] * X[own, here]
            yield near, near.slopes(given)

    def field_gradient(self, q, dual):
        """Derivatives of ``sum_f q_f . chi_f`` for fixed q with respect to the geometry.

        Parameters
        ----------
        q : ndarray of shape (n_atoms,) or (n_fields, n_atoms)
            A factor for every atom, such as its charge.
        dual : ndarray of shape (n_columns,) or (n_fields, n_columns)
            Dual weights of the fields chi.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            With respect to the positions, 1/Angstrom.
        virial : ndarray of shape (3, 3)
            With respect to a strain of positions and cell.
        """
        return self._collected(np.atleast_2d(q).T @ np.atleast_2d(dual))

    def _collected(self, dual):
        """Derivatives of the sum over the centres of a field of each."""
        gradient, virial = np.zeros((self.n_atoms, 3)), np.zeros((3, 3))
        for near, slopes in self.slopes(dual):
            parts = near.collect(slopes)
            gradient += parts[0]
            virial += parts[1]
        return gradient, virial

    def pull_back(self, cotangents):
        """Derivatives of a function of the features with respect to the geometry.

        Parameters
        ----------
        cotangents : ndarray of shape (n_atoms, n_columns)
            Derivatives of the function with respect to the features; of an atom those count
            that belong to its own element.

        Returns
        -------
        gradient, virial
            As of `field_gradient`.
        """
        return self._collected(self.source.dual(cotangents))

    def jacobian(self, q):
        """Derivatives of ``q^T phi`` for fixed q, one row per coordinate.

        Parameters
        ----------
        q : ndarray of shape (n_atoms,) or (k, n_atoms)
            A factor for every atom, such as its charge; several sets share most of the work.

        Returns
        -------
        J : ndarray of shape (3 n_atoms, n_columns) or (k, 3 n_atoms, n_columns)
            With respect to the positions, 1/Angstrom.
        virial : ndarray of shape (9, n_columns) or (k, 9, n_columns)
            With respect to a strain of positions and cell.
        """
        sets = np.atleast_2d(q)
        J = np.zeros((len(sets), self.n_atoms, 3, self.n_columns))
        virial = np.zeros((len(sets), 3, 3, self.n_columns))
        for b, near, X, norms, columns, cosines in self.blocks:
            factors = {
                group: _slope(kernel, b, cosines[group]) / norms[self.centers[group], None]
                for group, kernel in self.kernels.items()
            }
            for pairs, touched, dp in near.jacobians():
                i, j, D = near.i[pairs], near.j[pairs], near.D[pairs]
                for group, kernel in self.kernels.items():
                    some = np.flatnonzero(np.isin(i, self.centers[group]) & D.any(axis=1))
                    if not len(some):
                        continue
                    row = np.searchsorted(self.centers[group], i[some])
                    slopes = dp[some].reshape(3 * len(some), -1)
                    part = _dot_points(slopes, kernel, columns[touched])
                    part = part.reshape(len(some), 3, -1)
                    along = np.einsum("paf,pf->pa", dp[some], X[i[some]][:, touched])
                    part -= along[:, :, None] * cosines[group][row][:, None]
                    part *= factors[group][row][:, None]
                    part = part.reshape(len(some), -1)
                    shape = (self.n_atoms, len(some))
                    ends = np.concatenate([j[some], i[some]]), np.tile(np.arange(len(some)), 2)
                    here = self.columns[group]
                    for k, charges in enumerate(sets):
                        charge = charges[i[some]]
                        scatter = csr_array((np.concatenate([charge, -charge]), ends), shape)
                        J[k][:, :, here] += (scatter @ part).reshape(self.n_atoms, 3, -1)
                        stretch = ((charge[:, None] * D[some]).T @ part).reshape(3, 3, -1)
                        virial[k][:, :, here] += stretch.transpose(1, 0, 2)
        J, virial = J.reshape(-1, self.n_columns), virial.reshape(-1, self.n_columns)
        for group, kernel in self.kernels.items():
            for rows in (J, virial):
                rows[:, self.columns[group]] = kernel.whiten(rows[:, self.columns[group]])
        lead = np.shape(q)[:-1]
        return J.reshape(*lead, 3 * self.n_atoms, -1), virial.reshape(*lead, 9, -1)

    def unexplained(self):
        """What the features leave of fields of unit prior, and of how those change.

        The rest of the field of a centre has the covariance ``k(x, x') - phi(x) . phi(x')``, of
        which these are the derivatives at ``x = x'``. Normalised rows make
        ``d d' k = zeta sum_b w_b |dx_b|^2``.

        Returns
        -------
        variance : ndarray of shape (n_atoms,)
            ``1 - |phi_i|^2``.
        covariances, variances : ndarray of shape (n_atoms, 3 n_atoms + 9)
            Of the derivatives of the rest of every centre with respect to the positions and to a
            strain: with the rest itself, ``-phi_i . dphi_i``, and of their own,
            ``d d' k - |dphi_i|^2``.
        """
        variance = np.ones(self.n_atoms)
        covariances, variances = np.zeros((2, self.n_atoms, 3 * self.n_atoms + 9))
        places = {
            i: (group, row)
            for group, own in self.centers.items()
            for row, i in enumerate(own.tolist())
        }
        # The kernels of all groups are alike but for their points; some elements may have none.
        any_kernel = next(iter(self.source.kernels.values()))
        for i in range(self.n_atoms):
            group, row = places.get(i, (None, None))
            slopes = 0.0
            for b, near, X, norms, columns, cosines in self.blocks:
                dx = near.jacobian_of(i)
                dx -= np.outer(dx @ X[i], X[i])
                dx /= norms[i]
                weight = any_kernel.zeta * any_kernel.block_weights[b]
                variances[i] += weight * np.einsum("rf,rf->r", dx, dx)
                if group is not None:
                    part = _dot_points(dx, self.kernels[group], columns)
                    slopes += _slope(any_kernel, b, cosines[group][row]) * part
            if group is not None:
                phi, dphi = self._features(group)[row], self.kernels[group].whiten(slopes)
                variance[i] -= phi @ phi
                covariances[i] = -dphi @ phi
                variances[i] -= np.einsum("rm,rm->r", dphi, dphi)
        return variance, covariances, variances


def _slope(kernel, b, cosines):
    """Derivative of a block's kernel with respect to ``x . s``."""
    return kernel.block_weights[b] * kernel.zeta * cosines ** (kernel.zeta - 1)


def _dot_points(rows, kernel, columns):
    """Rows that hold some columns only, times the same columns of the sparse points."""
    return sum(rows[:, here] @ kernel.points[:, there].T for here, there in _runs(columns))


def _runs(columns):
    """Ascending columns as slices, of themselves and of all: no product has to copy the points."""
    edges = [0, *(np.flatnonzero(np.diff(columns) != 1) + 1).tolist(), len(columns)]
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        first = int(columns[start])
        yield slice(start, stop), slice(first, first + stop - start)
