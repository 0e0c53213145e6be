"""Labels of energies, forces, stress and Born charges as rows of a least-squares problem.

The equations of the derivatives are in `_jacobian`.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

import numpy as np

from .._memory import BUDGET
from .._threads import blas_threads_for
from ..fields import AtomRows
from ..parameters import qeq_electronegativities
from ..solvers import LossTerm
from ..targets import GRADIENTS, TARGETS
from ._jacobian import TargetJacobian
from ._workers import empty_triangle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._typing import Array
    from ._problem import Problem
    from ._workers import Workers

# Mean absolute charge of the atoms at the start of a fit, e.
START_CHARGE = 0.4
# The first steps of a fit multiply the noise of the energies by these factors.
ENERGY_NOISE_FACTORS = (100.0, 10.0)
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
        self.noise, self.energy_factor = problem.noise(), 1.0
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
        self._local_columns: dict[int, list[Array]] = {}
        self._memory = BUDGET.reservation()

    @property
    def is_linear(self) -> bool:
        """Whether the rows do not depend on the weights: true if there are only local energies."""
        return not self.problem.forward.response.fields

    @property
    def has_forces(self) -> bool:
        """Whether there are labels of energies and also of derivatives, such as forces."""
        return bool(len(self.with_gradients)) and "energy" in self.noise

    # ---- loss -------------------------------------------------------------------------------

    def loss(self, v: Array) -> float:
        """Half the sum of squared residuals in units of the noise.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights in units of their prior.

        Returns
        -------
        loss : float
            Without a unit.
        """
        return self._evaluate(v)[0]

    def with_best_offsets(self, v: Array) -> tuple[Array, float]:
        """Optimise the energies of the free atoms, and return the weights and their loss.

        A step along the tangent neglects the second-order change of the energy with the charges.
        This change is nearly the same for all structures of a composition, so that the energies of
        the free atoms can compensate it. With their optimisation after each step, long steps lower
        the loss.

        Parameters
        ----------
        v : ndarray of shape (n_columns,)
            Weights in units of their prior.

        Returns
        -------
        v : ndarray of shape (n_columns,)
            Weights with optimised energies of the free atoms; all others are unchanged.
        loss : float
            Half the sum of squared residuals.
        """
        loss, counts, residuals = self._evaluate(v)
        _, offsets = self.layout.columns[-1]
        amplitudes = self.layout.scale[offsets]
        if not len(counts) or not amplitudes.any():
            return v, loss
        # The loss is quadratic in these weights; the unit matrix is their prior.
        rows = np.concatenate([counts * amplitudes, np.eye(len(amplitudes))])
        change = np.linalg.lstsq(rows, -np.append(residuals, v[offsets]), rcond=None)[0]
        moved = v.copy()
        moved[offsets] += change
        changed = residuals + counts @ (amplitudes * change)
        return moved, loss + 0.5 * (changed @ changed - residuals @ residuals)

    def _evaluate(self, v):
        """The loss, and for all labels of energies the weighted compositions and residuals."""
        total, counts, residuals = 0.0, [], []
        for index, gradients in ((self.energy_only, False), (self.with_gradients, True)):
            for _, solutions in self._solutions(v, index, gradients):
                for i, solution in solutions:
                    residual, weight = self._residual(i, solution)
                    total += 0.5 * residual @ residual
                    if "energy" in self.names[i]:
                        counts.append(weight[0] * self.layout.counts(solution.structure))
                        residuals.append(residual[0])
        return total, np.array(counts), np.array(residuals)

    def _residual(self, i, solution):
        """Weighted residuals of the labels of structure i, and weights; zero for missing labels."""
        residuals, weights = [], []
        for name in self.names[i]:
            label = self.problem.labels.values(name, self.problem.first + i)
            inverse_noise = TARGETS[name].weights / self.noise[name][i]
            weight = np.where(np.isnan(label), 0.0, inverse_noise)
            residuals.append(weight * np.nan_to_num(TARGETS[name].observe(solution) - label))
            weights.append(weight)
        return np.concatenate(residuals), np.concatenate(weights)

    def _count(self, i, residual):
        """Add the squared residuals of structure i to `squares`."""
        start = 0
        for name in self.names[i]:
            part = residual[start : start + TARGETS[name].size(self._structure(i))]
            self.squares[name] += float(part @ part)
            start += len(part)

    def _structure(self, i):
        return self.problem.features.structures[i]

    def _solutions(self, v, index, gradients=False, n_rows=None):
        """Yield blocks of the structures `index`, with a list of (index, solution) for each."""
        if len(index):
            forward, weights = self.problem.forward, self.layout.scale * v
            features, numbers = self.problem.features[index], self.problem.first + index
            for begin, block, solutions in forward.solutions(
                features, weights, gradients, numbers=numbers, n_rows=n_rows
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
        self.squares = dict.fromkeys({name for names in self.names for name in names}, 0.0)
        yield from self._energy_rows(v)
        pieces, size = [], 0
        n_rows = response * np.array([self._n_rows(i) for i in self.with_gradients], dtype=int)
        for _, [(i, solution)] in self._solutions(v, self.with_gradients, True, n_rows):
            with blas_threads_for(solution.structure):
                residual, weight = self._residual(i, solution)
                self._count(i, residual)
                J = self._jacobian(i, solution, response)
            J *= weight[:, None]
            J *= self.layout.scale
            pieces.append((J[weight > 0], residual[weight > 0]))
            size += len(residual)
            if size > ROWS_PER_STEP:
                yield _joined(pieces)
                pieces, size = [], 0
        if pieces:
            yield _joined(pieces)

    def _energy_rows(self, v):
        """Rows of structures that have a label of the energy, but no label of a derivative."""
        for block, solutions in self._solutions(v, self.energy_only):
            rows = AtomRows()
            for s, (i, solution) in enumerate(solutions):
                residual, weight = self._residual(i, solution)
                self._count(i, residual)
                derivatives = solution.energy_derivatives.items()
                factors = {place: weight * d[None] for place, d in derivatives}
                rows.add(factors, residual, block.offsets[s])
            yield from self.layout.design(block, rows)

    def _n_rows(self, i):
        return sum(TARGETS[name].size(self._structure(i)) for name in self.names[i])

    def _jacobian(self, i, solution, response):
        """Derivatives of the targets of structure i with respect to the weights."""
        jacobian = TargetJacobian(self.layout, solution, self.names[i], response)
        if i not in self._local_columns:
            local = jacobian.columns(self._local_fields)
            if self._memory.claim(sum(columns.nbytes for columns in local)):
                self._local_columns[i] = local
        else:
            local = self._local_columns[i]
        of_charges = jacobian.columns(self._charge_fields)
        columns = dict(zip(self._charge_fields + self._local_fields, of_charges + local))
        return np.concatenate([columns[f] for f in range(len(self.layout.names))], axis=1)

    # ---- start ------------------------------------------------------------------------------

    def with_more_energy_noise(self) -> Iterator[DerivativeRows]:
        """Yield the same rows with the noise of the energies increased, by decreasing factors.

        The energy is quadratic in the charges, and its curvature is large compared with its noise.
        Far from the minimum, steps along the tangent therefore rarely lower the loss. With more
        noise of the energies, the first steps fit mainly the forces.

        Yields
        ------
        rows : DerivativeRows
            Nothing is yielded unless there are labels of both energies and derivatives.
        """
        if self.has_forces:
            for factor in ENERGY_NOISE_FACTORS:
                yield self.scaled_energy_noise(factor)

    def scaled_energy_noise(self, factor: float) -> DerivativeRows:
        """The same rows with the noise of the energies multiplied by a factor.

        Parameters
        ----------
        factor : float
            The factor.

        Returns
        -------
        rows : DerivativeRows
            Shares the stored columns with this object.
        """
        rows = copy(self)
        rows.energy_factor = factor
        rows.noise = self.noise | {"energy": factor * self.noise["energy"]}
        return rows

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

    def _evaluate(self, v):
        losses, counts, residuals = zip(*self._map(DerivativeRows._evaluate, v), strict=True)
        # Parts without labels of energies return empty 1-D arrays, which cannot be concatenated.
        counts = [part for part in counts if len(part)] or counts[:1]
        return sum(losses), np.concatenate(counts), np.concatenate(residuals)

    def add_to(self, triangle, v, response=True):
        gradient, scale, self.squares = np.zeros_like(v), 0.0, {}
        for R, n_rows, of_part, size, squares in self._map(_reduced_rows, v, response):
            triangle.merge(R, n_rows)
            for name, square in squares.items():
                self.squares[name] = self.squares.get(name, 0.0) + square
            gradient += of_part
            scale += size
        return gradient, scale

    def _map(self, function, *arguments):
        yield from self._workers.map(
            _on_rows, self._targets, self.energy_factor, function, arguments
        )


def _on_rows(part, names, energy_factor, function, arguments):
    """Call a function with the rows of a part; the worker stores the rows for the next call."""
    rows = part.store.setdefault(names, None) or DerivativeRows(part.problem, names)
    part.store[names] = rows
    if energy_factor != 1.0:
        rows = rows.scaled_energy_noise(energy_factor)
    return function(rows, *arguments)


def _reduced_rows(rows, v, response):
    """Triangle of the rows at v, their number, gradient and scale, and squared residuals."""
    triangle = empty_triangle(len(v))
    gradient, scale = rows.add_to(triangle, v, response)
    return triangle.augmented, triangle.n_rows, gradient, scale, rows.squares


def _joined(pieces):
    jacobians, residuals = zip(*pieces, strict=True)
    return np.concatenate(jacobians), np.concatenate(residuals)
