"""Held-out residuals: for every label, the error of a fit without the fold of its structure.

Let J be the rows and r the labels. Weights are in units of their prior standard deviation, and s is
the noise. If the structures of fold F are left out, the residuals of their labels are

    e_F = (1 - H_FF)^-1 (r - J v)_F,    H = J (J^T J + s^2)^-1 J^T,    v = (J^T J + s^2)^-1 J^T r

(Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 5.4.2, generalised
to blocks). Three classes compute these residuals, each with the method ``held_out(sigmas)``:

`FewRows`
    for fewer rows than weights: one eigenvalue problem of ``J J^T`` for all values of the noise;
`FewFolds`
    for many rows and few folds: the weights of every fold follow from ``J^T J`` of the other folds;
`ManyFolds`
    for many rows and many folds: one eigenvalue problem of ``J^T J``, and blocks of H.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from tqdm import tqdm

from .._memory import BUDGET
from ._cv_blocks import batches, folds_of, members_of, solve_blocks
from ._cv_stream import RowStream, Units
from ._workers import Workers, merge_pairwise

if TYPE_CHECKING:
    from .._typing import Array
    from ._problem import LabelRows, Problem

# Largest number of folds for which the normal equations of every fold are stored.
FEW_FOLDS = 20


def held_out_rows(problem: Problem, folds: Array, verbose: bool = False) -> HeldOutRows:
    """The rows of a problem, in the class that is fastest for the numbers of rows and folds.

    Parameters
    ----------
    problem : Problem
        A problem whose labels are all linear.
    folds : ndarray of shape (n_structures,)
        The fold in which each structure is left out; -1 for structures that never are.
    verbose : bool, default=False
        Whether to show progress bars.

    Returns
    -------
    rows : FewRows, FewFolds or ManyFolds
    """
    stream = RowStream(problem)
    n_folds = int(folds.max()) + 1
    if stream.is_stored and stream.n_rows <= stream.n_columns:
        return FewRows(stream, folds, verbose)
    # One eigenvalue problem and blocks of H cost less than factorisations for every fold and noise,
    # unless there are many more rows than weights.
    many = not stream.is_stored or 2.5 * stream.n_rows > n_folds * stream.n_columns
    if many and n_folds <= FEW_FOLDS:
        return FewFolds(stream, folds, verbose)
    return ManyFolds(stream, folds, verbose)


class HeldOutRows:
    """Residual of every label in the fit that leaves out the fold of its structure.

    Parameters
    ----------
    stream : RowStream
        The rows.
    folds : ndarray of shape (n_structures,)
        The fold in which each structure is left out; -1 for structures that never are.
    verbose : bool
        Whether to show progress bars.

    Attributes
    ----------
    rows : list of LabelRows
        All rows, without their Jacobians.
    """

    def __init__(self, stream: RowStream, folds: Array, verbose: bool) -> None:
        self.stream, self.folds, self.verbose = stream, folds, verbose
        self.names, self.scale = list(stream.problem.labels.names), stream.problem.layout.scale
        self.rows: list[LabelRows] = []
        self._prepare()

    def _prepare(self):
        """Set `rows`, and compute all that does not depend on the noise."""
        raise TypeError(f"{type(self).__name__} does not prepare its rows")

    def _residuals(self, units, sigmas):
        """Residuals of every row in the fit without its fold, in the given units.

        The array has the shape (n_sigmas, n_rows). It is NaN for rows that are in no fold.
        """
        raise TypeError(f"{type(self).__name__} has no residuals")

    def fit(self, model: Any) -> None:
        """Fit a model to all rows, with the noise that is set on the model.

        Parameters
        ----------
        model : ChargeModel
            A model with the fields and the response from which the rows were made.
        """
        _, triangles = self.stream.reduce(np.zeros_like(self.folds))
        by_target = {name: R for (_, name), R in triangles.items()}
        model.solve_triangles(by_target, {n: getattr(model, f"sigma_{n}") for n in by_target})

    def held_out(self, sigmas: Array) -> list[Array]:
        """Held-out errors of all rows.

        Parameters
        ----------
        sigmas : ndarray of shape (n, n_targets)
            Values of the noise; their ratios between targets are the same in every row.

        Returns
        -------
        errors : list of ndarray of shape (n_rows,)
            For each noise, in the unit of the label; NaN for rows that are in no fold.
        """
        ratios = (sigmas[0][0] / sigmas[0]).tolist()
        units = Units(self.scale, dict(zip(self.names, ratios, strict=True)))
        factors = [rows.inverse_noise * units.ratios[rows.name] for rows in self.rows]
        return [errors / np.concatenate(factors) for errors in self._residuals(units, sigmas[:, 0])]


class FewRows(HeldOutRows):
    """For at most as many rows as weights: eigenvectors of ``J J^T`` are used for all noises."""

    def _prepare(self):
        self.rows, self._spectrum, self._ratios = self.stream.stored, None, None

    def _eigenvectors(self, units):
        """The spectrum for the noise ratios of the units; it is computed again if they change."""
        if self._ratios != units.ratios:
            self._spectrum, self._ratios = Spectrum(*units.stacked(self.rows)), units.ratios
        return self._spectrum

    def _residuals(self, units, sigmas):
        spectrum = self._eigenvectors(units)
        U = spectrum.U
        # 1 - H = U diag(remaining) U^T.
        remaining = sigmas[:, None] ** 2 / (spectrum.values + sigmas[:, None] ** 2)
        residuals = remaining * (U.T @ spectrum.r) @ U.T
        errors = np.full_like(residuals, np.nan)
        members = members_of(folds_of(self.rows, self.folds))
        for rows in batches(members, self.verbose):
            errors[:, rows] = solve_blocks(U[rows], remaining, residuals[:, rows])
        return errors

    def fit(self, model):
        if model.store_triangles:
            super().fit(model)
            return
        sigmas = np.array([getattr(model, f"sigma_{name}") for name in self.names])
        ratios = (sigmas[0] / sigmas).tolist()
        units = Units(self.scale, dict(zip(self.names, ratios, strict=True)))
        v, loss = self._eigenvectors(units).solve(sigmas[0])
        model.set_weights(v, [{"loss": float(loss), "decrease": 0.0, "step": 1.0}])


class Spectrum:
    """Least squares ``J v = r`` with the eigenvectors U of ``J J^T``, for fewer rows than weights.

    Parameters
    ----------
    J : ndarray of shape (n, n_columns)
        Rows.
    r : ndarray of shape (n,)
        Labels.
    """

    def __init__(self, J: Array, r: Array) -> None:
        self.J, self.r = J, r
        values, self.U = np.linalg.eigh(J @ J.T)
        self.values = np.maximum(values, 0.0)

    def solve(self, sigma: float) -> tuple[Array, float]:
        """Minimise ``(|v|^2 + |J v - r|^2 / sigma^2) / 2``.

        Parameters
        ----------
        sigma : float
            Noise.

        Returns
        -------
        v : ndarray of shape (n_columns,)
            The weights at the minimum.
        loss : float
            The value at the minimum.
        """
        # J J^T squares the condition number; iterative refinement removes the rounding errors.
        combination, residual = np.zeros_like(self.r), self.r
        for _ in range(3):
            combination += self.U @ ((self.U.T @ residual) / (self.values + sigma**2))
            v = self.J.T @ combination
            residual = self.r - self.J @ v - sigma**2 * combination
        return v, 0.5 * (v @ v + np.sum((self.J @ v - self.r) ** 2) / sigma**2)


class ManyRows(HeldOutRows):
    """For more rows than weights: normal equations, computed from triangles."""

    def _owners(self):
        """For every structure, the number of the triangle to which its rows are added."""
        return np.zeros_like(self.folds)

    def _prepare(self):
        self.rows, self._triangles = self.stream.reduce(self._owners())

    def fit(self, model):
        by_target = merge_pairwise({name: R} for (_, name), R in self._triangles.items())
        model.solve_triangles(
            by_target, {name: getattr(model, f"sigma_{name}") for name in by_target}
        )

    def _normal_equations(self, units):
        """``J^T J`` and ``J^T r`` of every owner, in the given units."""
        gram, right = {}, {}
        for (owner, name), R in self._triangles.items():
            J, r = units.scaled(name, R[:-1, :-1], R[:-1, -1])
            gram[owner] = gram.get(owner, 0.0) + J.T @ J
            right[owner] = right.get(owner, 0.0) + J.T @ r
        return gram, right


class FewFolds(ManyRows):
    """For many rows and few folds: one Cholesky factorisation for every fold and noise."""

    def _owners(self):
        return self.folds

    def _residuals(self, units, sigmas):
        gram, right = self._normal_equations(units)
        total_gram, total_right = sum(gram.values()), sum(right.values())
        weights = {}
        folds = np.unique(self.folds[self.folds >= 0]).tolist()
        for f in tqdm(folds, "folds", disable=not self.verbose, leave=False):
            rest, b = total_gram - gram[f], total_right - right[f]
            # A writable view of the diagonal, so that only the diagonal changes with the noise.
            diagonal, solutions = np.einsum("ii->i", rest), []
            without_noise = diagonal.copy()
            for sigma in sigmas:
                diagonal[:] = without_noise + sigma**2
                solutions.append(cho_solve(cho_factor(rest, lower=True, check_finite=False), b))
            weights[f] = np.array(solutions).T
        parts = self.stream.map(_fold_residuals, self.folds, units, weights)
        return np.concatenate(list(parts), axis=1)


class ManyFolds(ManyRows):
    """For many rows and many folds: eigenvectors of ``J^T J``, and a block of H for every fold."""

    def _prepare(self):
        super()._prepare()
        self.n_folds = int(self.folds.max()) + 1
        if not self.stream.is_stored:
            self._check_memory()

    def _check_memory(self):
        """Refuse an order of structures for which too many rows must be stored at the same time.

        Rows are made block by block, and all rows of a fold are needed together. Rows are therefore
        stored until their fold is complete.
        """
        folds = folds_of(self.rows, self.folds)
        sizes = [len(rows.inverse_noise) for rows in self.rows]
        blocks = np.repeat([rows.block for rows in self.rows], sizes)
        folds, blocks = folds[folds >= 0], blocks[folds >= 0]
        last = np.zeros(self.n_folds, dtype=int)
        np.maximum.at(last, folds, blocks)
        n_blocks = blocks.max() + 1
        # Rows stored after each block: the rows made so far, minus the rows of complete folds.
        arriving, leaving = (np.bincount(at, minlength=n_blocks) for at in (blocks, last[folds]))
        most = BUDGET.available / (8 * self.stream.n_columns)
        if np.cumsum(arriving - leaving).max() > most:
            raise ValueError(
                "the structures of a group are far apart in X, and storing their rows until the "
                "group is complete exceeds the memory budget; sort X by group, use up to "
                f"{FEW_FOLDS} folds, or raise the budget with skqeq.set_memory_budget"
            )
        if self.stream.n_jobs > 1:
            bounds = Workers(self.stream.problem, self.stream.n_rows).bounds
            parts = np.searchsorted(bounds, blocks, "right")
            first, last = np.full(self.n_folds, len(bounds)), np.zeros(self.n_folds, dtype=int)
            np.minimum.at(first, folds, parts)
            np.maximum.at(last, folds, parts)
            # The rows of a fold that is divided among workers are stored until all have finished.
            # If they are too many, use one process.
            if np.sum((first < last)[folds]) > most:
                self.stream.n_jobs = 1

    def _residuals(self, units, sigmas):
        gram, right = self._normal_equations(units)
        values, V = np.linalg.eigh(sum(gram.values()))
        weights = 1.0 / (np.maximum(values, 0.0) + sigmas[:, None] ** 2)
        coefficients = weights * (V.T @ sum(right.values()))
        errors, residuals, waiting, start = [], [], [], 0
        row_folds = folds_of(self.rows, self.folds)
        sizes = np.bincount(row_folds + 1, minlength=self.n_folds + 1)[1:]
        verbose = self.verbose and self.stream.n_jobs == 1
        arguments = self.folds, sizes, units, V, weights, coefficients, verbose
        for of_part, residuals_of_part, (Z, places) in self.stream.map(
            _block_residuals, *arguments
        ):
            errors.append(of_part)
            residuals.append(residuals_of_part)
            waiting.append((Z, start + places))
            start += of_part.shape[1]
        errors, residuals = (np.concatenate(x, axis=1) for x in (errors, residuals))
        # Folds that are divided among several workers are solved here.
        Z, places = map(np.concatenate, zip(*waiting, strict=True))
        for rows in batches(members_of(row_folds[places]), self.verbose):
            right = residuals[:, places[rows]]
            errors[:, places[rows]] = solve_blocks(Z[rows], weights, right, complement=True)
        return errors


def _fold_residuals(blocks, folds, units, weights):
    """Residuals of every row in the fit without its fold."""
    n_sigmas = next(iter(weights.values())).shape[1]
    errors = [np.empty((n_sigmas, 0))]
    for rows in chain.from_iterable(blocks):
        J, r = units.scaled(rows.name, rows.J, rows.residual)
        row_folds = folds[rows.structures]
        error = np.full((n_sigmas, len(r)), np.nan)
        for f in np.unique(row_folds[row_folds >= 0]).tolist():
            some = row_folds == f
            error[:, some] = (r[some, None] - J[some] @ weights[f]).T
        errors.append(error)
    return np.concatenate(errors, axis=1)


def _block_residuals(blocks, folds, sizes, units, V, weights, coefficients, verbose):
    """Held-out errors of complete folds, residuals of all rows, and the rows of incomplete folds.

    Rotated rows ``Z = J V`` are stored until all rows of their fold have been made.
    """
    none = np.empty(0, dtype=int)
    Z, right, row_folds, places = np.empty((0, len(V))), np.empty((len(weights), 0)), none, none
    solved, residuals, start = [], [right], 0
    for block in blocks:
        J, r = units.stacked(block)
        rotated = J @ V
        residuals.append(r - coefficients @ rotated.T)
        Z = np.concatenate([Z, rotated])
        right = np.concatenate([right, residuals[-1]], axis=1)
        row_folds = np.concatenate([row_folds, folds_of(block, folds)])
        places = np.concatenate([places, np.arange(start, start + len(r))])
        start += len(r)
        members = members_of(row_folds)
        complete = [rows for rows in members if len(rows) == sizes[row_folds[rows[0]]]]
        for rows in batches(complete, verbose):
            solution = solve_blocks(Z[rows], weights, right[:, rows], complement=True)
            solved.append((places[rows], solution))
        incomplete = [rows for rows in members if len(rows) < sizes[row_folds[rows[0]]]]
        wait = np.sort(np.concatenate([none, *incomplete]))
        Z, right, row_folds, places = Z[wait], right[:, wait], row_folds[wait], places[wait]
    errors = np.full((len(weights), start), np.nan)
    for rows, solution in solved:
        errors[:, rows] = solution
    return errors, np.concatenate(residuals, axis=1), (Z, places)
