"""``skqeq fit --tune``: let a search choose all settings of a model within a given time."""

import time

from sklearn.base import clone

from .. import ChargeFlow, ChargeSearchCV, PotentialSearchCV, QEq
from ..models import default_charge_model, default_potential
from ..targets import ENERGIES, TARGETS
from .search import n_folds
from .trials import print_charge_search, print_potential_search

# Options whose values the search chooses; with them, `--tune` is refused.
CHOSEN = ("sigma", "hardness", "radius_scale", "softness", "range")
CHOSEN_FOR_POTENTIALS = ("n_max", "l_max")
# Responses from which the search starts.
CHARGE_RESPONSES = {"qeq": QEq(), "flow": ChargeFlow(radius_scale=0.35)}
POTENTIAL_RESPONSES = {
    "qeq": None,  # the default of `GAPKQEqRegressor`
    "flow": ChargeFlow(radius_scale=1.0),
}
# Prior standard deviation of the electronegativities of a potential at the start, V.
AMPLITUDE_CHI = 10.0


def check_options(args):
    """Refuse options that contradict `--tune`, before any structure is read."""
    for name in ("search", "search_r_cut"):
        if getattr(args, name):
            raise ValueError(f"--tune and {option(name)} are different searches: use one of them")
    potential = is_potential(args.targets)
    for name in (*CHOSEN, *(CHOSEN_FOR_POTENTIALS if potential else ())):
        if getattr(args, name) not in (None, []):
            raise ValueError(f"--tune chooses what {option(name)} sets: use one of them")
    if args.cutoff_width is not None and args.r_cut is None:
        raise ValueError("--tune chooses cutoffs that --cutoff-width may not fit: add --r-cut")
    if potential:
        return
    if args.gap:
        raise ValueError(f"--gap needs one of {', '.join(ENERGIES)} among --targets")
    if args.folds is not None:
        raise ValueError(
            "--tune needs no --folds for these targets: each structure, or each group, is left out"
        )
    for name in args.targets:
        if not TARGETS[name].linear:
            raise ValueError(
                f"--tune cannot choose settings for {name} without energies: use --search"
            )


def option(name):
    """An option as the user writes it."""
    return "--" + name.replace("_", "-")


def is_potential(names):
    """Whether a model of these targets is a potential, with local energies."""
    return not set(ENERGIES).isdisjoint(names)


def tuned(X, y, groups, args):
    """Choose the settings of a model; returns a pipeline that is not fitted yet."""
    start = time.perf_counter()
    kept = {"responses": None if args.response is None else ()}
    kept["cutoffs"] = None if args.r_cut is None else ()
    common = {"time_limit": 60.0 * args.tune, "refit": False, "verbose": 0 if args.quiet else 1}
    if is_potential(args.targets):
        search = PotentialSearchCV(potential(args), cv=n_folds(args, groups), **kept, **common)
        search.fit(X, y, groups=groups)
        print_potential_search(search, n_folds(args, groups), groups)
    else:
        search = ChargeSearchCV(charge_model(args), **kept, **common).fit(X, y, groups=groups)
        print_charge_search(search, groups)
    print(f"the search took {(time.perf_counter() - start) / 60.0:.1f} min")
    if not search.complete_:
        print(
            "the time was over before all settings were tried: use a longer --tune for the others"
        )
    print()
    return clone(search.best_estimator_)


def charge_model(args):
    """The pipeline of charges from which the search starts, with the options that were given."""
    model = default_charge_model()
    if args.response is not None:
        model[-1].set_params(response=CHARGE_RESPONSES[args.response])
    set_features(model, args)
    return model


def potential(args):
    """The potential from which the search starts, with the options that were given."""
    model = default_potential()
    if args.response is not None:
        response = POTENTIAL_RESPONSES[args.response]
        model[-1].set_params(response=response, amplitude_chi=AMPLITUDE_CHI)
    for _, block in model[0].transformer_list:
        set_features(block, args)
    return model


def set_features(pipeline, args):
    """Set the parameters of the descriptor and of the sparse points that were given."""
    soap, sparsifier = pipeline[0], pipeline[1]
    for name in ("n_max", "l_max"):
        if getattr(args, name) is not None:
            soap.set_params(**{name: getattr(args, name)})
    if args.n_points is not None:
        sparsifier.set_params(n_points=args.n_points)
    if args.r_cut is not None:
        # The cutoff functions of potentials are smooth.
        smooth = soap.cutoff_width is not None
        width = tuple(r / 2 for r in args.r_cut) if smooth else None
        soap.set_params(r_cut=tuple(args.r_cut), cutoff_width=args.cutoff_width or width)
