"""``skqeq demo``: train a model for dipole moments on bundled data, and draw figures."""

import sys
import time
import warnings
from pathlib import Path

import numpy as np
from ase.io import write
from sklearn.model_selection import GroupKFold, GroupShuffleSplit, learning_curve
from sklearn.pipeline import make_pipeline
from tqdm import tqdm

from .. import CURSparsifier, KQEqRegressor, QEqRegressor, SOAPFeaturizer, datasets, predict_charges
from .._counts import counted
from ..metrics import dipole_errors
from ..models import at_end
from ..parameters import DEBYE
from ..persistence import replacing
from ..plotting import plot_learning_curve, plot_molecule, plot_parity
from .figures import import_matplotlib, save_figure
from .files import save_model
from .fit import fit_with_bar
from .search import grid_results

SIGMA = "kqeqregressor__sigma_dipole"
N_POINTS = 100
SIGMAS = (0.001, 0.003, 0.01)  # values of `SIGMA` that are tried, e*Angstrom
# Sizes of the training sets of the learning curve, as fractions of all training structures.
FRACTIONS = (0.25, 0.5, 1.0)


def run(args):
    """Train a model, compare it with baselines, and write figures."""
    start = time.perf_counter()
    args.output.mkdir(parents=True, exist_ok=True)
    X, y, groups = datasets.load_molecules(return_groups=True)
    D = y["dipole"]
    train, test = next(GroupShuffleSplit(1, test_size=0.2, random_state=0).split(X, D, groups))
    train_data = [X[i] for i in train], D[train], groups[train]
    held_out = [X[i] for i in test]
    print("Dipole moments of organic molecules (PBE0/def2-TZVP), by kernel charge equilibration.\n")
    print(f"train on {_count(groups[train])}, hold out {_count(groups[test])}")

    model = build_model()
    # This warning is expected: rare elements have fewer environments than n_points.
    warnings.filterwarnings("ignore", message="n_points=")
    model.set_params(**{SIGMA: choose_sigma(model, *train_data, args.quiet)})
    fit_with_bar(model, *train_data[:2], quiet=args.quiet)
    qeq = QEqRegressor().fit(*train_data[:2])
    predictions = {"kQEq": model.predict(held_out), "QEq": qeq.predict(held_out)}
    print_comparison(D[train], D[test], predictions)
    print_conservation(model)

    errors = print_learning_curve(model, *train_data, args.quiet)
    paths = write_files(args.output, model, held_out, D[test])
    paths += draw(args.output, model, held_out, D[test], predictions, errors)
    print("\nwritten:")
    for path in paths:
        print(f"  {path}")
    # Print the path with which the program was called, because its virtual environment may not be
    # active.
    program = sys.argv[0] if Path(sys.argv[0]).stem == "skqeq" else "skqeq"
    print(
        f"\nnext, for example:\n  {program} evaluate {paths[0]} {paths[1]}\n"
        f"\ndone in {time.perf_counter() - start:.0f} s"
    )


def build_model():
    """Build a pipeline that is faster than the default one, and slightly less accurate."""
    return make_pipeline(
        SOAPFeaturizer(n_max=6, l_max=4), CURSparsifier(n_points=N_POINTS), KQEqRegressor()
    )


def choose_sigma(model, X, D, groups, quiet):
    """Choose the noise with the smallest cross-validated error."""
    grid = {SIGMA: SIGMAS}
    results = grid_results(model, grid, GroupKFold(3), score_mae, X, D, groups=groups, quiet=quiet)
    best = int(np.argmax(results["mean_test_score"]))
    print("\nnoise of the labels, by 3-fold cross-validation on the training molecules:")
    for i, (sigma, mae) in enumerate(zip(SIGMAS, -results["mean_test_score"], strict=True)):
        mark = "  <- best" if i == best else ""
        print(f"  sigma_dipole = {sigma:<5g} e*Angstrom   MAE of |mu| {mae:.3f} D{mark}")
    if more := at_end(SIGMAS[best], SIGMAS):
        print(f"  the best value is at the end of the range: {more} values may be better")
    return SIGMAS[best]


def score_mae(model, X, D):
    """Minus the MAE of the norm of the dipole, D."""
    return -dipole_errors(D, model.predict(X))["mae"]


def print_comparison(D_train, D_test, predictions):
    """Print the errors of models and baselines on the held-out molecules."""
    rows = {
        "kQEq, learned electronegativities": predictions["kQEq"],
        "QEq, one electronegativity per element": predictions["QEq"],
    }
    mean = np.full(len(D_test), np.linalg.norm(D_train, axis=1).mean())
    print(f"\n{'|mu| of held-out molecules, D':<42}{'MAE':>8}{'median':>8}{'RMSE':>8}")
    for name, predicted in rows.items():
        _print_row(name, dipole_errors(D_test, predicted))
    _print_row("mean of the training set", dipole_errors(np.linalg.norm(D_test, axis=1), mean))


def _print_row(name, errors):
    print(f"  {name:<40}{errors['mae']:>8.3f}{errors['median']:>8.3f}{errors['rmse']:>8.3f}")


def print_conservation(model):
    """Print how closely the charges of ions sum to their total charges.

    No ions are in the training data.
    """
    ions, _ = datasets.load_ions()
    totals = np.array([atoms.info["charge"] for atoms in ions])
    sums = np.array([charges.sum() for charges in predict_charges(model, ions)])
    print(
        f"\ncharges of {len(ions)} ions from {totals.min():+d} to {totals.max():+d} e add up to "
        f"their total charge within {np.abs(sums - totals).max():.0e} e"
    )


def print_learning_curve(model, X, D, groups, quiet):
    """Print a learning curve; return sizes (n_sizes,) and errors (n_sizes, n_folds) in D."""
    folds = GroupKFold(3)
    with tqdm(total=3 * len(FRACTIONS), desc="learning curve", unit="fit", disable=quiet) as bar:

        def score(estimator, X, D):
            bar.update(0.5)  # called twice per fit: for the training and for the test structures
            return score_mae(estimator, X, D)

        sizes, _, scores = learning_curve(
            model,
            X,
            D,
            groups=groups,
            cv=folds,
            train_sizes=FRACTIONS,
            scoring=score,
            error_score="raise",
        )
    print(
        "\nlearning curve: "
        + ", ".join(
            f"{mae:.3f} D from {n}" for n, mae in zip(sizes, -scores.mean(axis=1), strict=True)
        )
        + " structures"
    )
    return sizes, -scores


def write_files(folder, model, X, D):
    """Write the model and the held-out molecules for use with the other commands."""
    paths = [folder / "model.skqeq", folder / "held_out.xyz"]
    save_model(model, paths[0])
    labelled = [atoms.copy() for atoms in X]
    for atoms, dipole in zip(labelled, D, strict=True):
        atoms.info["REF_dipole"] = dipole
    with replacing(paths[1]) as temporary:
        write(temporary, labelled, format="extxyz")
    return paths


def draw(folder, model, X, D, predictions, errors):
    """Draw a parity plot, a learning curve and the most polar molecule, if matplotlib is there."""
    try:
        import_matplotlib()
    except ImportError as error:
        print(f"\nno figures: {error}")
        return []
    paths = [folder / name for name in ("parity.png", "learning_curve.png", "molecule.png")]
    save_figure(paths[0], plot_parity, D, predictions, title="held-out molecules")
    options = {"unit": "D", "label": "cross-validated MAE of |μ|", "figsize": (5.0, 3.8)}
    save_figure(paths[1], plot_learning_curve, *errors, **options)
    polar = int(np.linalg.norm(D, axis=1).argmax())
    [charges] = predict_charges(model, [X[polar]])
    title = (
        f"{X[polar].get_chemical_formula()}, held out: predicted charges and dipole\n"
        f"(reference: |μ| = {DEBYE * np.linalg.norm(D[polar]):.2f} D)"
    )
    dipole = predictions["kQEq"][polar]
    save_figure(paths[2], plot_molecule, X[polar], charges, dipole, title=title)
    return paths


def _count(groups):
    return (
        f"{counted(len(groups), 'structure')} of {counted(len(set(groups.tolist())), 'molecule')}"
    )
