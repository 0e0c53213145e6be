"""``skqeq fit --search``: choose the noise of the labels, and cutoffs, by cross-validation.

With ``--gap``, the search also chooses the charge response and its parameters.
"""

import warnings
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, ParameterGrid
from tqdm import tqdm

from .. import KQEqRegressorCV, PotentialSearchCV
from .._warnings import muted
from ..metrics import has_label, target_mae
from ..model_selection import LabelledKFold
from ..models import at_end, labels_of_predictions, predict_for_scores
from ..targets import TARGETS
from .report import element_energies, print_errors, printed_unit, quantities, quantity_r2
from .trials import as_text, print_potential_search

N_FOLDS = 5
# Candidates are these factors times --sigma and --r-cut.
SIGMAS = (0.3, 1.0, 3.0)
CUTOFFS = (0.8, 1.0, 1.25)
MODEL, R_CUT = "kqeqregressor__", "soapfeaturizer__r_cut"


class Candidate(NamedTuple):
    """Parameters that were tried, and their scores.

    Parameters
    ----------
    params : dict of {str: float or tuple of float}
        Parameters of the pipeline.
    score : float
        R2, averaged over the folds and the targets.
    columns : dict of {str: str}
        Maps the title of each printed column to a score as text.
    """

    params: dict[str, Any]
    score: float
    columns: dict[str, str]


def search(model, X, y, groups, args):
    """Find the parameters with the best cross-validated R2.

    These are the sigmas and, with --search-r-cut, the cutoffs. With --gap they are those of
    `PotentialSearchCV`.
    """
    if args.gap:
        return search_potential(model, X, y, groups, args)
    defaults, regressor = model.get_params(), f"{model.steps[-1][0]}__"
    sigmas = [f"{regressor}sigma_{name}" for name in y.dtype.names]
    grid = {sigma: [factor * defaults[sigma] for factor in SIGMAS] for sigma in sigmas}
    if args.search_r_cut:
        cutoffs = [tuple(factor * r for r in defaults[R_CUT]) for factor in CUTOFFS]
        grid[R_CUT] = [r_cut for r_cut in cutoffs if can_be_cutoff(model[0], r_cut, X[:1])]
    folds = LabelledKFold(y.dtype.names[0], n_folds(args, groups), shuffle=True, random_state=0)
    # KQEqRegressorCV tries all sigmas at the cost of one, but needs labels linear in the charges.
    linear = all(TARGETS[name].linear for name in y.dtype.names)
    method = search_linear if linear else search_grid
    # The final fit gives the same warnings.
    with muted("n_points"), muted("bad fit"), muted("composition"):
        candidates, left_out = method(model, grid, folds, X, y, groups=groups, quiet=args.quiet)
    best = int(np.nanargmax([candidate.score for candidate in candidates]))
    print(f"\n{n_folds(args, groups)}-fold cross-validation{' by group' * (groups is not None)}")
    print_candidates(candidates, best)
    if left_out is not None:
        print("\nerrors on held-out structures, for the best R2")
        print_errors(y, left_out, X)
        print()
    print_advice(candidates[best].params, grid)
    return candidates[best].params


def n_folds(args, groups):
    """Number of folds: that of --folds, or five unless there are fewer groups."""
    if args.folds is not None:
        return args.folds
    n_groups = N_FOLDS if groups is None else len(np.unique(groups))
    if n_groups < 2:
        raise ValueError(f"all structures have the same info[{args.group!r}], which --group names")
    return min(N_FOLDS, n_groups)


def can_be_cutoff(featurizer, r_cut, X):
    """Whether the radial functions exist for a cutoff of the search; cutoffs can be too short."""
    if r_cut == featurizer.r_cut:
        return True  # the user gave it: a fit says what is wrong
    try:
        clone(featurizer).set_params(r_cut=r_cut).fit(X)
    except ValueError as error:
        print(f"left out the cutoffs {as_text(r_cut)}: {error}")
        return False
    return True


def search_potential(model, X, y, groups, args):
    """Choose the settings of a potential, and print what was tried and what was chosen."""
    trial = PotentialSearchCV(
        model, cv=n_folds(args, groups), refit=False, verbose=0 if args.quiet else 1
    )
    trial.fit(X, y, groups=groups)
    print_potential_search(trial, n_folds(args, groups), groups)
    return trial.best_params_


def search_linear(model, grid, folds, X, y, *, groups, quiet):
    """Score candidates with one `KQEqRegressorCV` per cutoff.

    Returns the candidates, and the held-out predictions of the best one.
    """
    sigmas = {name.removeprefix(MODEL): values for name, values in grid.items() if name != R_CUT}
    cutoffs = grid.get(R_CUT, [model.get_params()[R_CUT]])
    candidates, best = [], None
    for r_cut in tqdm(cutoffs, "search", unit="cutoff", disable=quiet or len(cutoffs) == 1):
        estimator = clone(model).set_params(**{R_CUT: r_cut})
        trial = KQEqRegressorCV(estimator, sigmas, cv=folds, verbose=0 if quiet else 1)
        with warnings.catch_warnings():
            # `print_advice` names the option that widens the range.
            warnings.filterwarnings("ignore", message="the best .* is at the end of sigmas")
            trial.fit(X, y, groups=groups)
        cutoff = {R_CUT: r_cut} if R_CUT in grid else {}
        candidates += _candidates_of(trial, cutoff, y.dtype.names)
        if best is None or trial.best_score_ > best.best_score_:
            best = trial
    return candidates, best.left_out_


def _candidates_of(trial, cutoff, names):
    """Yield the candidates of a fitted `KQEqRegressorCV`."""
    results = trial.cv_results_
    for i, sigmas in enumerate(results["params"]):
        r2 = {
            name: f"{results[f'r2_{name}'][i]:.4f} +- {results[f'std_r2_{name}'][i]:.4f}"
            for name in names
        }
        if len(names) == 1:
            columns = {"R2": r2[names[0]]}
        else:
            columns = {"R2": f"{results['score'][i]:.4f}"}
            columns |= {f"R2 {name}": text for name, text in r2.items()}
        for name in names:
            unit, factor = printed_unit(name)
            title = "dipole components" if name == "dipole" else name
            columns[f"MAE {title} ({unit})"] = f"{factor * results[f'mae_{name}'][i]:.4f}"
        params = {f"{MODEL}{name}": sigma for name, sigma in sigmas.items()} | cutoff
        yield Candidate(params, results["score"][i], columns)


def search_grid(model, grid, folds, X, y, *, groups, quiet):
    """Score candidates by fits in every fold, for labels that are not linear in the charges."""
    score = partial(errors_of_fold, energies=element_energies(y, X))
    results = grid_results(model, grid, folds, score, X, y, groups=groups, quiet=quiet)
    maes = [name for name in results if name.startswith("mean_test_") and name != "mean_test_r2"]
    candidates = []
    for i, params in enumerate(results["params"]):
        score, deviation = results["mean_test_r2"][i], results["std_test_r2"][i]
        columns = {"R2": f"{score:.4f} +- {deviation:.4f}"}
        for name in maes:
            columns[f"MAE {name.removeprefix('mean_test_')}"] = f"{results[name][i]:.4f}"
        candidates.append(Candidate(params, score, columns))
    return candidates, None


def grid_results(model, grid, folds, score, X, y, *, groups, quiet):
    """Run a GridSearchCV with a progress bar that advances with every fit."""
    n_fits = folds.get_n_splits() * len(ParameterGrid(grid))
    with tqdm(total=n_fits, desc="search", unit="fit", disable=quiet) as bar:

        def score_and_advance(estimator, X, y):
            scores = score(estimator, X, y)
            bar.update()
            return scores

        trial = GridSearchCV(
            model, grid, cv=folds, scoring=score_and_advance, refit=False, error_score="raise"
        )
        return trial.fit(X, y, groups=groups).cv_results_


def errors_of_fold(estimator, X, y, energies):
    """R2 averaged over all targets, and the MAE of every quantity; NaN without labels in the fold.

    The energies of the elements explain a part of the energies, which is removed from their R2.
    """
    scores, r2 = {}, []
    predictions = predict_for_scores(estimator, X, y.dtype.names)
    y = labels_of_predictions(y, predictions)
    for name, unit, truth, predicted in quantities(y, predictions, X):
        labelled = any(has_label(value) for value in truth)
        scores[f"{name} ({unit})"] = target_mae(truth, predicted) if labelled else np.nan
        if name != "|dipole|":
            r2.append(quantity_r2(name, truth, predicted, X, energies))
    return {"r2": np.nanmean(r2) if np.isfinite(r2).any() else np.nan} | scores


def print_candidates(candidates, best):
    """Print the parameters and scores of the candidates, one line for each candidate."""
    names = [name.split("__")[1] for name in candidates[0].params]
    titles = [*names, *candidates[0].columns]
    widths = [max(len(title), 16) + 2 for title in titles]
    print("".join(f"{title:>{width}}" for title, width in zip(titles, widths, strict=True)))
    for i, candidate in enumerate(candidates):
        cells = [as_text(value) for value in candidate.params.values()]
        cells += candidate.columns.values()
        line = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        print(line + ("  <- best R2" if i == best else ""))


def print_advice(params, grid):
    """Print which of the best parameters are at an end of their range."""
    for name, values in grid.items():
        shortest = name == R_CUT and len(values) < len(CUTOFFS) and params[name] == values[0]
        if at_end(params[name], values) and not shortest:
            target = name.split("__sigma_")[-1]
            name_of_value, option = f"sigma of {target}", f"--sigma {target}="
            if name == R_CUT:
                name_of_value, option = "cutoff", "--r-cut "
            print(
                f"the best {name_of_value} is at the end of its range: search again with "
                f"{option}{as_text(params[name])}"
            )
