"""``skqeq fit``: from labelled structures to a model file."""

import time
import warnings

import numpy as np
from sklearn.model_selection import GridSearchCV, ParameterGrid
from sklearn.pipeline import make_pipeline
from tqdm import tqdm

from .. import ChargeFlow, CURSparsifier, KQEqRegressor, SOAPFeaturizer, strip, targets_from_atoms
from ..metrics import target_mae
from ..model_selection import LabelledKFold
from .files import read_structures, save_model
from .report import is_known, print_errors, print_labels, quantities

# Candidates of the search in units of --sigma and --r-cut.
SIGMAS = (0.3, 1.0, 3.0)
CUTOFFS = (0.8, 1.0, 1.25)
R_CUT = "soapfeaturizer__r_cut"


def run(args):
    """Fit and save."""
    labelled = read_structures(args.structures)
    keys = chosen_keys(args.targets, args.key)
    y = targets_from_atoms(labelled, keys, units=dict(args.unit))
    groups = None if args.group is None else group_ids(labelled, args.group)
    X = strip(labelled)
    model = build_model(args)
    symbols = sorted({symbol for atoms in X for symbol in atoms.symbols})
    print(f"{len(X)} structures, {sum(map(len, X))} atoms of {', '.join(symbols)}")
    print_labels(y, X)
    if args.search or args.search_r_cut:
        model.set_params(**search(model, X, y, groups, args))
    model.set_params(kqeqregressor__store_triangles=args.std)
    start = time.perf_counter()
    fit_with_bar(model, X, y, quiet=args.quiet)
    points = len(model["cursparsifier"].component_indices_)
    print(f"fitted {points} sparse points in {time.perf_counter() - start:.1f} s")
    print("\nerrors on the training structures")
    print_errors(y, model.predict(X), X)
    save_model(model, args.output)
    print(f"\nwrote {args.output}")


def chosen_keys(targets, keys):
    """Key of every target in the file; None means its own name."""
    keys = dict(keys)
    extra = set(keys) - set(targets)
    if extra:
        raise ValueError(f"--key names {', '.join(sorted(extra))}, which --targets does not")
    return {name: keys.get(name) for name in targets}


def group_ids(X, key):
    """Number of the group of every structure."""
    missing = [i for i, atoms in enumerate(X) if key not in atoms.info]
    if missing:
        raise ValueError(f"structure {missing[0]} has no info[{key!r}], the --group")
    return np.unique([str(atoms.info[key]) for atoms in X], return_inverse=True)[1]


def build_model(args):
    """The pipeline that was asked for."""
    sigmas = {f"sigma_{name}": value for name, value in args.sigma}
    extra = {name for name, _ in args.sigma} - set(args.targets)
    if extra:
        raise ValueError(f"--sigma names {', '.join(sorted(extra))}, which --targets does not")
    return make_pipeline(
        SOAPFeaturizer(
            r_cut=tuple(args.r_cut),
            n_max=args.n_max,
            l_max=args.l_max,
            cutoff_width=args.cutoff_width,
        ),
        CURSparsifier(n_points=args.n_points),
        KQEqRegressor(
            hardness=args.hardness,
            radius_scale=args.radius_scale,
            response=ChargeFlow() if args.response == "flow" else None,
            **sigmas,
        ),
    )


def fit_with_bar(model, X, y, *, quiet):
    """Fit a pipeline with a progress bar that it does not keep."""
    model.set_params(kqeqregressor__verbose=0 if quiet else 1)
    return model.fit(X, y).set_params(kqeqregressor__verbose=0)


def search(model, X, y, groups, args):
    """Sigmas, and cutoffs if asked for, of the best cross-validated R2, as parameters."""
    names = [f"kqeqregressor__sigma_{name}" for name in y.dtype.names]
    defaults = model.get_params()
    grid = {name: [factor * defaults[name] for factor in SIGMAS] for name in names}
    if args.search_r_cut:
        grid[R_CUT] = [tuple(factor * r for r in defaults[R_CUT]) for factor in CUTOFFS]
    folds = LabelledKFold(y.dtype.names[0], args.folds, shuffle=True, random_state=0)
    results = grid_search(model, grid, folds, errors_of_fold, X, y, groups=groups, quiet=args.quiet)
    best = int(np.argmax(results["mean_test_r2"]))
    print(f"\n{args.folds}-fold cross-validation{' by group' * (groups is not None)}")
    print_search(results, best)
    for name, value in results["params"][best].items():
        if value in (grid[name][0], grid[name][-1]):
            short = name.removeprefix("kqeqregressor__sigma_")
            what, option = f"sigma of {short}", f"--sigma {short}={{}}"
            if name == R_CUT:
                what, option = "cutoff", "--r-cut {}"
            print(
                f"the best {what} is at the end of its range: search again with "
                f"{option.format(shown(value))}"
            )
    return results["params"][best]


def grid_search(model, grid, cv, score, X, y, *, groups, quiet):
    """`cv_results_` of a search, with a bar that every fit advances."""
    n_fits = cv.get_n_splits() * len(ParameterGrid(grid))
    with tqdm(total=n_fits, desc="search", unit="fit", disable=quiet) as bar:

        def score_and_tick(estimator, X, y):
            scores = score(estimator, X, y)
            bar.update()
            return scores

        search = GridSearchCV(
            model, grid, cv=cv, scoring=score_and_tick, refit=False, error_score="raise"
        )
        with warnings.catch_warnings():
            # Said once, by the final fit.
            warnings.filterwarnings("ignore", message="n_points=")
            return search.fit(X, y, groups=groups).cv_results_


def errors_of_fold(estimator, X, y):
    """R2 over all targets, and the MAE of every quantity; NaN without labels."""
    scores = {"r2": estimator.score(X, y)}
    for name, unit, truth, predicted in quantities(y, estimator.predict(X), X):
        known = any(is_known(value) for value in truth)
        scores[f"{name} ({unit})"] = target_mae(truth, predicted) if known else np.nan
    return scores


def print_search(results, best):
    """Print a line per candidate: mean and deviation of R2, MAE of every quantity."""
    names = [name.split("__")[1] for name in results["params"][0]]
    maes = [name.removeprefix("mean_test_") for name in results if name.startswith("mean_test_")]
    maes.remove("r2")
    titles = [*names, "R2", *(f"MAE {name}" for name in maes)]
    widths = [max(len(title), 16) + 2 for title in titles]
    print("".join(f"{title:>{width}}" for title, width in zip(titles, widths, strict=True)))
    for i, candidate in enumerate(results["params"]):
        mean, deviation = results["mean_test_r2"][i], results["std_test_r2"][i]
        cells = [shown(value) for value in candidate.values()]
        cells.append(f"{mean:.4f} +- {deviation:.4f}")
        cells += [f"{results[f'mean_test_{name}'][i]:.4f}" for name in maes]
        line = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        print(line + ("  <- best R2" if i == best else ""))


def shown(value):
    """A number, or some."""
    return " ".join(f"{number:.3g}" for number in np.atleast_1d(value))
