"""Minimisation of the penalised loss."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from joblib import effective_n_jobs
from sklearn.exceptions import ConvergenceWarning
from tqdm import tqdm

from .._warnings import warn_once
from ..solvers import LossTerm, Triangle, fixed_point, gauss_newton
from ..targets import ENERGIES, GRADIENTS
from ._checkpoint import FULL, NoCheckpoint, Progress
from ._derivative_rows import DerivativeRows, SharedDerivativeRows
from ._levels import coarse_problems
from ._resident_workers import ResidentWorkers
from ._start import start_weights
from ._training_r2 import RowSample
from ._workers import Workers, merge_charge_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import ArrayLike

    from .._typing import Array, History
    from ._problem import Problem
    from ._resident_workers import Processes

# Relative decrease of the loss at which a smaller problem is solved well enough.
COARSE_TOL = 1e-2


@dataclass
class Options:
    """Parameters of an iterative fit.

    Attributes
    ----------
    algorithm : {"gauss_newton", "fixed_point"}
        As in `KQEqRegressor`.
    init : array-like or None
        Weights that the user gave.
    max_iter : int
        Largest number of iterations.
    tol : float
        Relative decrease of the loss at which the iteration stops.
    verbose : bool
        Whether to show a progress bar.
    begin : float
        Time at which the fit began, from `time.perf_counter`.
    checkpoint : NoCheckpoint
        Stores the progress of the fit.
    processes : Processes or None
        Processes for smaller problems, see `assembled`.
    """

    algorithm: str
    init: ArrayLike | None
    max_iter: int
    tol: float
    verbose: bool
    begin: float
    checkpoint: NoCheckpoint
    processes: Processes | None


@contextmanager
def assembled(
    problem: Problem, sample: RowSample, processes: Processes | None
) -> Iterator[tuple[Triangle, list[LossTerm]]]:
    """Reduce all rows that are linear in the weights, and set up the rows of all other labels.

    Parameters
    ----------
    problem : Problem
        Labels, fields and response.
    sample : RowSample
        Keeps some rows of labels that are linear in the charges.
    processes : Processes or None
        Processes that compute the rows. If there are none, joblib distributes the rows for several
        jobs, for example on a cluster.

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
    if processes is not None:
        with ResidentWorkers(problem, processes) as workers:
            yield _assemble(problem, sample, workers)
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
    problem: Problem,
    triangle: Triangle,
    nonlinear: Sequence[LossTerm],
    options: Options,
    callback: Callable[[Array, History], object],
) -> Array:
    """Minimise the penalised loss by iteration.

    A fit to energies starts from the solutions of smaller problems, see `coarse_problems`.

    Parameters
    ----------
    problem : Problem
        Labels, fields and response.
    triangle : Triangle
        Linear rows and the prior.
    nonlinear : list
        Rows that are not linear in the weights.
    options : Options
        Parameters of the iteration.
    callback : callable
        Called as ``callback(v, history)`` after every step, so that an interrupt loses at most one
        step.

    Returns
    -------
    v : ndarray of shape (n_weights,)
        Weights in units of their prior.
    """
    start = options.checkpoint.read()
    if start is not None:
        options = replace(options, begin=options.begin - start.seconds)
    history: History = []
    with tqdm(desc=options.algorithm, disable=not options.verbose, leave=False) as bar:
        if start is None or start.level != FULL:
            v = _coarse_solution(problem, nonlinear, options, callback, bar, start)
            start = None
            if v is None:
                v = start_weights(problem, triangle, nonlinear, options.init)
        else:
            # The iteration will report the last step again.
            v, history = start.position.v, list(start.history)
            callback(v, start.history)
            del history[-1]

        def report(v, entry):
            history.append(entry | {"seconds": time.perf_counter() - options.begin})
            callback(v, history)
            _show(bar, entry)

        def store(position):
            seconds = time.perf_counter() - options.begin
            options.checkpoint.store(Progress(FULL, position, list(history), seconds))

        v, converged = _iterate(problem, triangle, nonlinear, v, options, report, store, start)
    callback(v, history)
    if not converged:
        part = history[-1]["decrease"] / history[-1]["loss"]
        warn_once(
            f"{options.algorithm} stopped after {len(history) - 1} steps, although the next one "
            f"could lower the loss by {part:.1e} of its value (tol={options.tol:g}); raise "
            "max_iter or sigma, or continue from these weights with init=coef_",
            "convergence of the weights",
            ConvergenceWarning,
        )
    return v


def _coarse_solution(problem, nonlinear, options, callback, bar, start):
    """Weights of the full problem from smaller problems, or None if there are none."""
    energies = any(isinstance(term, DerivativeRows) for term in nonlinear)
    if options.init is not None or options.algorithm == "fixed_point" or not energies:
        return None
    v, levels = None, coarse_problems(problem)
    for k, (coarse, prolong) in enumerate(levels):
        if start is not None and k < start.level:
            continue

        def report(v, entry, k=k):
            for _, extend in levels[k:]:
                v = extend(v)
            callback(v, [])
            _show(bar, entry)

        def store(position, k=k):
            seconds = time.perf_counter() - options.begin
            options.checkpoint.store(Progress(k, position, [], seconds))

        with assembled(coarse, RowSample(coarse), options.processes) as (triangle, terms):
            if start is None and v is None:
                v = start_weights(coarse, triangle, terms, None)
            rough = replace(options, tol=max(options.tol, COARSE_TOL))
            v, _ = _iterate(coarse, triangle, terms, v, rough, report, store, start)
        v, start = prolong(v), None
    return v


def _iterate(problem, triangle, nonlinear, v, options, report, store, start):
    """Run the chosen algorithm; return the weights, and whether it converged."""
    resume = None if start is None else start.position
    arguments = triangle, nonlinear, v, options.max_iter, options.tol, report
    if options.algorithm == "fixed_point":
        v, _, converged = fixed_point(*arguments, store=store, resume=resume)
    else:
        linear = problem.layout.columns_entering("energy")
        v, _, converged = gauss_newton(*arguments, linear=linear, store=store, resume=resume)
    return v, converged


def _show(bar, entry):
    bar.update()
    bar.set_postfix(loss=f"{entry['loss']:.6g}", decrease=f"{entry['decrease']:.1e}")
