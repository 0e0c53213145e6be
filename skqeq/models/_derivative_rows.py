"""Labels of energies, forces, stress and Born charges as rows of a least-squares problem.

The equations of the derivatives are in `_jacobian`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._memory import BUDGET
from .._threads import blas_threads_for
from ..fields import AtomRows
from ..parameters import qeq_electronegativities
from ..solvers import LossTerm
from ..targets import GRADIENTS, TARGETS
from ._adjoint import pull_back
from ._geometry_store import GeometryStore
from ._jacobian import TargetJacobian
from ._workers import empty_triangle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._typing import Array
    from ._problem import Problem
    from ._workers import Workers

# Mean absolute charge of the atoms at the start of a fit, e.
START_CHARGE = 0.4
# Number of rows that are reduced together: orthogonal reduction is fast for many rows.
ROWS_PER_STEP = 2048


class DerivativeRows(LossTerm):
    """Rows of energies, forces, stress and Born charges, linearised at given weights.

    The columns of local energies do not depend on the weights. They are stored for the next
    linearisation as far as the memory budget allows.

    Parameters
    ----------
    problem : Problem
        Labels, fields and response.
    names : sequence of str
        Targets whose labels become rows.
    """

    def __init__(self, problem: Problem, names: Sequence[str]) -> None:
        self.problem, self.layout = problem, problem.layout
        self.noise = problem.noise()
        n, part = len(problem.features), slice(problem.first, problem.first + len(problem.features))
        labelled = {
            name: problem.labels.known(name)[part] & np.isfinite(self.noise[name])
            for name in problem.labels.names
            if name in names
        }
        self.names = [[name for name in labelled if labelled[name][i]] for i in range(n)]
        with_gradients = np.full(n, False)
        for name in set(GRADIENTS) & set(labelled):
            with_gradients |= labelled[name]
        self.with_gradients = np.flatnonzero(with_gradients)
        self.energy_only = np.flatnonzero(labelled.get("energy", False) & ~with_gradients)
        self._local_fields = self.layout.entering("energy")
        self._charge_fields = [
            f for f in range(len(self.layout.names)) if f not in self._local_fields
        ]
        self._linear = self.layout.columns_entering("energy")
        # Rows for the weights in which the residuals are linear: of structures that have a label of
        # the energy only, of every other structure, and of all structures together.
        self._energy_columns: list[Array] = []
        self._local_columns: dict[int, Array] = {}
        self._rows: Array | None = None
        self._memory = BUDGET.reservation()
        self._store = GeometryStore()

    @property
    def is_linear(self) -> bool:
        """Whether the rows do not depend on the weights: true if there are only local energies."""
        return not self.problem.forward.response.fields

    # ---- residuals --------------------------------------------------------------------------

    def residual(self, v: Array) -> Array:
        """Residuals in units of the noise, in the order of `linearize`.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights in units of their prior.

        Returns
        -------
        residual : ndarray of shape (n,)
            Missing labels are left out.
        """
        residuals, of_charges = [np.zeros(0)], self._of_charges(v)
        for index, gradients in ((self.energy_only, False), (self.with_gradients, True)):
            for _, solutions in self._solutions(of_charges, index, gradients):
                for i, solution in solutions:
                    with blas_threads_for(solution.structure):
                        residual, weight = self._residual(i, solution)
                    residuals.append(residual[weight > 0])
        residual, rows = np.concatenate(residuals), self._stored_rows()
        return residual if rows is None else residual + rows @ v[self._linear]

    def pull_back(self, v: Array, factors: Array) -> Array:
        """The transposed Jacobian times a vector, without the Jacobian.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights in units of their prior.
        factors : ndarray of shape (n,)
            A factor for every row, in the order of `residual`.

        Returns
        -------
        product : ndarray of shape (n_columns,)
            The product.
        """
        # The local energies do not change the Jacobian.
        product, start, v = np.zeros_like(v), 0, self._of_charges(v)
        for block, solutions in self._solutions(v, self.energy_only):
            pieces: dict[str, list[Array]] = {}
            for i, solution in solutions:
                factor = factors[start] / self.noise["energy"][i]
                for place, derivative in solution.energy_derivatives.items():
                    pieces.setdefault(place, []).append(factor * derivative)
                start += 1
            # One row for all structures of the block.
            row = AtomRows()
            of_atoms = {place: np.concatenate(parts)[None] for place, parts in pieces.items()}
            row.add(of_atoms, np.zeros(1), 0)
            [(J, _)] = self.layout.design(block, row)
            product += J[0]
        for _, [(i, solution)] in self._solutions(v, self.with_gradients, True):
            weight = self._weight(i)
            known = weight > 0
            of_rows = np.zeros(len(weight))
            of_rows[known] = weight[known] * factors[start : start + known.sum()]
            start += int(known.sum())
            with blas_threads_for(solution.structure):
                of_structure = pull_back(self.layout, solution, self.names[i], of_rows)
            product += self.layout.scale * of_structure
        return product

    def _residual(self, i, solution):
        """Weighted residuals of the labels of structure i, and weights; zero for missing labels."""
        differences = []
        for name in self.names[i]:
            label = self.problem.labels.values(name, self.problem.first + i)
            differences.append(np.nan_to_num(TARGETS[name].observe(solution) - label))
        weight = self._weight(i)
        return weight * np.concatenate(differences), weight

    def _weight(self, i):
        """One over the noise of the labels of structure i; zero for missing labels."""
        weights = []
        for name in self.names[i]:
            label = self.problem.labels.values(name, self.problem.first + i)
            inverse_noise = TARGETS[name].weights / self.noise[name][i]
            weights.append(np.where(np.isnan(label), 0.0, inverse_noise))
        return np.concatenate(weights)

    def squares(self, v: Array) -> dict[str, float]:
        """Sum of squared residuals of each target, in units of the noise.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights in units of their prior.

        Returns
        -------
        squares : dict of {str: float}
            The keys are the targets.
        """
        squares = dict.fromkeys({name for names in self.names for name in names}, 0.0)
        for index, gradients in ((self.energy_only, False), (self.with_gradients, True)):
            for _, solutions in self._solutions(v, index, gradients):
                for i, solution in solutions:
                    residual, _ = self._residual(i, solution)
                    sizes = [TARGETS[name].size(solution.structure) for name in self.names[i]]
                    parts = np.split(residual, np.cumsum(sizes)[:-1])
                    for name, part in zip(self.names[i], parts, strict=True):
                        squares[name] += float(part @ part)
        return squares

    def _structure(self, i):
        return self.problem.features.structures[i]

    def _solutions(self, v, index, gradients=False):
        """Yield blocks of the structures `index`, with a list of (index, solution) for each."""
        if len(index):
            forward, weights = self.problem.forward, self.layout.scale * v
            features, numbers = self.problem.features[index], self.problem.first + index
            # Geometries are stored. Their solvers must suit the rows, also if none are needed yet.
            n_rows = [gradients * self._n_rows(i) for i in index]
            for begin, block, solutions in forward.solutions(
                features, weights, gradients, numbers=numbers, n_rows=n_rows, store=self._store
            ):
                yield block, [(index[begin + s], x) for s, x in enumerate(solutions)]

    # ---- rows -------------------------------------------------------------------------------

    def linearize(self, v: Array, response: bool = True) -> Iterator[tuple[Array, Array]]:
        """Yield weighted Jacobians and residuals.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights in units of their prior.
        response : bool, default=True
            Whether the charges respond to the weights.

        Yields
        ------
        J : ndarray of shape (n, n_columns)
            Derivatives of the residuals.
        residual : ndarray of shape (n,)
            In units of the noise.
        """
        yield from self._energy_rows(v)
        pieces, size = [], 0
        complete, of_charges = self._stored_rows() is not None, self._of_charges(v)
        for _, [(i, solution)] in self._solutions(of_charges, self.with_gradients, True):
            with blas_threads_for(solution.structure):
                residual, weight = self._residual(i, solution)
                residual = residual[weight > 0]
                J = self._jacobian(i, solution, response, weight)
                if complete:
                    residual += J[:, self._linear] @ v[self._linear]
                pieces.append((J, residual))
            size += len(residual)
            if size > ROWS_PER_STEP:
                yield _joined(pieces)
                pieces, size = [], 0
        if pieces:
            yield _joined(pieces)

    def _energy_rows(self, v):
        """Rows of structures that have a label of the energy, but no label of a derivative."""
        stores = not self._energy_columns and self._memory.claim(
            8 * len(self.energy_only) * len(self._linear)
        )
        for block, solutions in self._solutions(v, self.energy_only):
            rows = AtomRows()
            for s, (i, solution) in enumerate(solutions):
                residual, weight = self._residual(i, solution)
                derivatives = solution.energy_derivatives.items()
                factors = {place: weight * d[None] for place, d in derivatives}
                rows.add(factors, residual, block.offsets[s])
            for J, residual in self.layout.design(block, rows):
                if stores:
                    self._energy_columns.append(J[:, self._linear])
                yield J, residual

    def _n_rows(self, i):
        return sum(TARGETS[name].size(self._structure(i)) for name in self.names[i])

    def _jacobian(self, i, solution, response, weight):
        """Derivatives of the weighted residuals of structure i with respect to the weights."""
        jacobian = TargetJacobian(self.layout, solution, self.names[i], response)
        known, stored, layout = weight > 0, self._local_columns.get(i), self.layout
        J = np.zeros((int(known.sum()), layout.n_columns))
        # All fields at once: those with the same features share the pass over the neighbours.
        fields = range(len(layout.names)) if stored is None else self._charge_fields
        factors = weight[known, None]
        for f, columns in zip(fields, jacobian.columns(fields), strict=True):
            places = slice(layout.columns[f][0].start, layout.columns[f][1].stop)
            np.multiply(columns[known], factors, out=J[:, places])
            J[:, places] *= layout.scale[places]
        if stored is not None:
            J[:, self._linear] = stored
        elif self._memory.claim(8 * len(J) * len(self._linear)):
            self._local_columns[i] = J[:, self._linear]
        return J

    # ---- weights in which the residuals are linear ------------------------------------------

    def linear_product(self, v: Array, change: Array) -> Array:
        """See `LossTerm.linear_product`; fast if all rows are stored."""
        rows = self._stored_rows()
        return super().linear_product(v, change) if rows is None else rows @ change[self._linear]

    def linear_pull_back(self, v: Array, factors: Array) -> Array:
        """See `LossTerm.linear_pull_back`; fast if all rows are stored."""
        rows = self._stored_rows()
        if rows is None:
            return super().linear_pull_back(v, factors)
        product = np.zeros_like(v)
        product[self._linear] = factors @ rows
        return product

    def _of_charges(self, v):
        """The weights v; if the rows of the local energies are stored, without local energies.

        The energies and forces of the local energies then follow from the rows, and need no pass
        over the neighbours.
        """
        if self._stored_rows() is None:
            return v
        v = v.copy()
        v[self._linear] = 0.0
        return v

    def _stored_rows(self):
        """All rows for the linear weights, or None if they are not all stored."""
        if self._rows is None:
            n_stored = sum(map(len, self._energy_columns)), len(self._local_columns)
            if n_stored != (len(self.energy_only), len(self.with_gradients)):
                return None
            of_structures = [self._local_columns[i] for i in self.with_gradients]
            none = np.zeros((0, len(self._linear)))
            self._rows = np.concatenate([none, *self._energy_columns, *of_structures])
            # From now on, the parts are views of the whole.
            ends = np.cumsum([sum(map(len, self._energy_columns)), *map(len, of_structures)])
            self._energy_columns = [self._rows[: ends[0]]]
            for i, start, stop in zip(self.with_gradients, ends[:-1], ends[1:], strict=True):
                self._local_columns[i] = self._rows[start:stop]
        return self._rows

    # ---- start ------------------------------------------------------------------------------

    def start(self) -> dict[str, Array]:
        """Values of the fields of the response from which a fit to energies starts.

        These are classical electronegativities, scaled so that the charges have the mean size
        `START_CHARGE`. If a fit started from small charges, forces would require
        electronegativities that vary strongly with the geometry, and the problem would be far from
        linear.

        Returns
        -------
        values : dict of {str: ndarray of shape (n_elements,)}
            The keys are the names of the fields.
        """
        forward, chi = self.problem.forward, qeq_electronegativities()[self.layout.elements]
        sizes = []
        for i in np.concatenate([self.energy_only, self.with_gradients]):
            structure = self.problem.features.structures[i]
            equilibrium = forward.equilibrium(structure, self.problem.first + i)
            sizes.append(forward.response.classical_size(equilibrium))
        scale = START_CHARGE / max(*sizes, 1e-3 * START_CHARGE)
        return forward.response.start_fields(chi, scale)

    def toward_start(self) -> Iterator[tuple[Array, Array]]:
        """Yield linear rows that pull the fields of the response to the values of `start`.

        Yields
        ------
        J : ndarray of shape (n, n_columns)
            Rows.
        residual : ndarray of shape (n,)
            Right-hand sides.
        """
        goals = self.start()
        labelled = np.concatenate([self.energy_only, self.with_gradients])
        for _, block in self.problem.features[labelled].blocks():
            rows = AtomRows()
            for structure, first in zip(block.structures, block.offsets[:-1], strict=True):
                onehot = self.layout.onehot(structure.numbers)
                for place, goal in goals.items():
                    rows.add({place: np.eye(len(structure))}, onehot @ goal, first)
            yield from self.layout.design(block, rows)

    def compositions(self) -> tuple[Array, Array]:
        """Compositions and energies of the labelled structures, both divided by the noise.

        Returns
        -------
        counts : ndarray of shape (n, n_elements)
            Number of atoms of each element, divided by the noise of the energy.
        energies : ndarray of shape (n,)
            Labels, divided by their noise.
        """
        structures, noise = self.problem.features.structures, self.noise["energy"]
        labelled = [i for i, names in enumerate(self.names) if "energy" in names]
        counts = [self.layout.counts(structures[i]) / noise[i] for i in labelled]
        energies = self.problem.labels.table["energy"][self.problem.first :][labelled]
        return np.array(counts), energies / noise[labelled]


class SharedDerivativeRows(DerivativeRows):
    """The rows of `DerivativeRows`, computed and reduced to triangles by workers.

    Parameters
    ----------
    workers : Workers
        Processes, each of which has a part of the structures.
    names : sequence of str
        As in `DerivativeRows`.
    """

    def __init__(self, workers: Workers, names: Sequence[str]) -> None:
        super().__init__(workers.problem, names)
        self._workers, self._targets = workers, tuple(names)

    def residual(self, v):
        parts = list(self._map(DerivativeRows.residual, v))
        self._lengths = [len(part) for part in parts]
        return np.concatenate(parts)

    def pull_back(self, v, factors):
        parts = np.split(factors, np.cumsum(self._lengths)[:-1])
        return sum(self._map(DerivativeRows.pull_back, v, each=parts))

    def linear_product(self, v, change):
        return np.concatenate(list(self._map(DerivativeRows.linear_product, v, change)))

    def linear_pull_back(self, v, factors):
        parts = np.split(factors, np.cumsum(self._lengths)[:-1])
        return sum(self._map(DerivativeRows.linear_pull_back, v, each=parts))

    def squares(self, v):
        total = {}
        for of_part in self._map(DerivativeRows.squares, v):
            for name, square in of_part.items():
                total[name] = total.get(name, 0.0) + square
        return total

    def normal_equations(self, v):
        H, gradient = np.zeros((len(v), len(v))), np.zeros_like(v)
        for of_part, of_gradient in self._map(DerivativeRows.normal_equations, v):
            H += of_part
            gradient += of_gradient
        return H, gradient

    def add_to(self, triangle, v, response=True):
        gradient = np.zeros_like(v)
        for R, n_rows, of_part in self._map(_reduced_rows, v, response):
            triangle.merge(R, n_rows)
            gradient += of_part
        return gradient

    def _map(self, function, *arguments, each=None):
        yield from self._workers.map(_on_rows, self._targets, function, arguments, each=each)


def _on_rows(part, names, function, arguments, *own):
    """Call a function with the rows of a part; the worker stores the rows for the next call."""
    rows = part.store.setdefault(names, None) or DerivativeRows(part.problem, names)
    part.store[names] = rows
    return function(rows, *arguments, *own)


def _reduced_rows(rows, v, response):
    """Triangle of the rows at v, their number, and the gradient."""
    triangle = empty_triangle(len(v))
    gradient = rows.add_to(triangle, v, response)
    return triangle.augmented, triangle.n_rows, gradient


def _joined(pieces):
    jacobians, residuals = zip(*pieces, strict=True)
    return np.concatenate(jacobians), np.concatenate(residuals)
