"""Minimisation of the penalised loss."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from joblib import effective_n_jobs
from sklearn.exceptions import ConvergenceWarning
from tqdm import tqdm

from .._warnings import warn_once
from ..solvers import LossTerm, Triangle, fixed_point, gauss_newton
from ..targets import ENERGIES, GRADIENTS
from ._derivative_rows import DerivativeRows, SharedDerivativeRows
from ._workers import Workers, merge_charge_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._typing import Array, History
    from ._problem import Problem
    from ._training_r2 import RowSample

ALGORITHMS = {"gauss_newton": gauss_newton, "fixed_point": fixed_point}


@contextmanager
def assembled(problem: Problem, sample: RowSample) -> Iterator[tuple[Triangle, list[LossTerm]]]:
    """Reduce all rows that are linear in the weights, and set up the rows of all other labels.

    Parameters
    ----------
    problem : Problem
        Labels, fields and response.
    sample : RowSample
        Keeps some rows of labels that are linear in the charges.

    Yields
    ------
    triangle : Triangle
        Linear rows and the prior, in units of the prior.
    nonlinear : list
        Rows for `skqeq.solvers.gauss_newton`. With several jobs, workers compute these rows until
        the context ends.
    """
    if effective_n_jobs(problem.n_jobs) == 1:
        yield _assemble(problem, sample, None)
        return
    # Estimate the number of rows, from which the number of parts follows: three forces per atom,
    # or three dipole components per structure.
    structures = problem.features.structures
    with_gradients = set(problem.labels.names) & set(GRADIENTS)
    n_centers = structures.offsets[-1] if with_gradients else len(structures)
    with Workers(problem, 3 * int(n_centers)) as workers:
        yield _assemble(problem, sample, workers)


def _assemble(problem, sample, workers):
    layout, names = problem.layout, problem.labels.names
    triangle, nonlinear = Triangle(layout.n_columns, penalty=1.0), []

    def derivative_rows(targets):
        if workers is None:
            return DerivativeRows(problem, targets)
        return SharedDerivativeRows(workers, targets)

    if set(names) & set(ENERGIES):
        rows = derivative_rows(ENERGIES)
        if problem.fits_offsets:
            # Prior means from a linear fit, before workers get the layout. They must not depend on
            # the initial weights.
            counts, energies = rows.compositions()
            layout.means[-1] = np.linalg.lstsq(counts, energies, rcond=1e-10)[0]
        if rows.is_linear:
            rows.add_to(triangle, np.zeros(layout.n_columns), response=False)
        else:
            nonlinear.append(rows)
    if "born_effective_charges" in names:
        # These rows are linear in the weights, although the same code makes them as rows of forces.
        derivative_rows(["born_effective_charges"]).add_to(triangle, np.zeros(layout.n_columns))
    if problem.charge_targets:
        if workers is None:
            of_charges = problem.reduce_charge_rows(triangle, sample)
        else:
            of_charges = merge_charge_rows(triangle, workers, sample)
        nonlinear = [rows.gathered() for rows in of_charges.values()] + nonlinear
    return triangle, nonlinear


def minimise(
    triangle: Triangle,
    nonlinear: Sequence[LossTerm],
    start: Array,
    algorithm: str,
    max_iter: int,
    tol: float,
    callback: Callable[[Array, History], object],
    verbose: bool = False,
) -> Array:
    """Minimise the penalised loss by iteration.

    Parameters
    ----------
    triangle : Triangle
        Linear rows and the prior.
    nonlinear : list
        Rows that are not linear in the weights.
    start : ndarray of shape (n_weights,)
        Initial weights, in units of their prior.
    algorithm : {"gauss_newton", "fixed_point"}
        As in `KQEqRegressor`.
    max_iter : int
        Largest number of steps.
    tol : float
        Relative size of the gradient at which the iteration stops.
    callback : callable
        Called as ``callback(v, history)`` after every step, so that an interrupt loses at most one
        step.
    verbose : bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    v : ndarray of shape (n_weights,)
        Weights in units of their prior.
    """
    history: History = []

    def report(v, entry):
        history.append(entry)
        callback(v, history)
        bar.update()
        bar.set_postfix(loss=f"{entry['loss']:.6g}", gradient=f"{entry['gradient']:.1e}")

    with tqdm(desc=algorithm, disable=not verbose, leave=False) as bar:
        v, _, converged = ALGORITHMS[algorithm](triangle, nonlinear, start, max_iter, tol, report)
    callback(v, history)
    if not converged:
        warn_once(
            f"{algorithm} stopped after {len(history) - 1} steps at a relative gradient of "
            f"{history[-1]['gradient']:.1e} (tol={tol:g}); raise max_iter or sigma, or continue "
            "from these weights with init=coef_",
            "convergence of the weights",
            ConvergenceWarning,
        )
    return v
