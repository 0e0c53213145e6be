"""``skqeq fit``: train a model on labelled structures, and write it to a file."""

import time

import numpy as np
from sklearn.pipeline import make_pipeline

from .. import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    KQEqRegressor,
    QEq,
    SOAPFeaturizer,
    StructureBlocks,
    calibrate,
    check_labels,
    strip,
    targets_from_atoms,
)
from .._counts import counted
from ..targets import ENERGIES
from .files import MODEL_ENDINGS, read_numbered, save_model
from .numbering import FileNumbers
from .outputs import check_output
from .report import print_errors, print_far, print_findings, print_labels
from .search import search
from .tune import check_options, tuned

RESPONSES = {"qeq": QEq, "flow": ChargeFlow}  # values of --response
SOAP_OPTIONS = ("r_cut", "n_max", "l_max")
RESPONSE_OPTIONS = ("hardness", "radius_scale", "softness", "range")


def run(args):
    """Read structures, fit a model, and save it."""
    check_output(args.output, MODEL_ENDINGS, [args.structures])
    if args.tune is not None:
        check_options(args)
    indices, labelled = read_numbered(args.structures, args.charge_key)
    with FileNumbers(indices).messages():
        train(indices, labelled, args)


def train(indices, labelled, args):
    """Fit a model to the structures of the file, save it, and print its errors."""
    keys = chosen_keys(args.targets, args.key)
    y = targets_from_atoms(labelled, keys, units=dict(args.unit))
    groups = None if args.group is None else group_ids(labelled, args.group)
    X = strip(labelled)
    model = build_model(args) if args.tune is None else None
    symbols = sorted({symbol for atoms in X for symbol in atoms.symbols})
    print(
        f"{counted(len(X), 'structure')}, {counted(sum(map(len, X)), 'atom')} of "
        f"{', '.join(symbols)}"
    )
    print_labels(y, X)
    print_findings(check_labels(X, y).findings)
    if args.tune is not None:
        model = tuned(X, y, groups, args)
    elif args.search or args.search_r_cut:
        model.set_params(**search(model, X, y, groups, args))
    # After the search, whose fits must not use the folder.
    model[-1].set_params(store_triangles=args.std, checkpoint=args.checkpoint)
    start = time.perf_counter()
    fit_with_bar(model, X, y, quiet=args.quiet)
    seconds = time.perf_counter() - start
    if args.std:
        calibrate(model, X, y, groups=groups)
    save_model(model, args.output)  # before anything is printed, because a pipe may be closed
    print(f"fitted {counted(n_sparse_points(model), 'sparse point')} in {seconds:.1f} s")
    print("\nerrors on the training structures")
    predicted = model.predict(X)
    print_errors(y, predicted, X)
    sigmas = {name: getattr(model[-1], f"sigma_{name}") for name in y.dtype.names}
    print_far(y, predicted, X, sigmas, indices)
    print(f"\nwrote {args.output}")


def chosen_keys(targets, keys):
    """The key of every target in the file; None means the name of the target."""
    keys = dict(keys)
    extra = set(keys) - set(targets)
    if extra:
        raise ValueError(f"--key names {', '.join(sorted(extra))}, which is not among --targets")
    return {name: keys.get(name) for name in targets}


def group_ids(X, key):
    """The number of the group of every structure, shape (n,)."""
    missing = [i for i, atoms in enumerate(X) if key not in atoms.info]
    if missing:
        raise ValueError(f"structure {missing[0]} has no info[{key!r}], which --group names")
    return np.unique([str(atoms.info[key]) for atoms in X], return_inverse=True)[1]


def build_model(args):
    """Build a pipeline with the parameters of the command line."""
    sigmas = {f"sigma_{name}": value for name, value in args.sigma}
    extra = {name for name, _ in args.sigma} - set(args.targets)
    if extra:
        raise ValueError(f"--sigma names {', '.join(sorted(extra))}, which is not among --targets")
    response = build_response(args)
    if not args.gap:
        return make_pipeline(*build_features(args), KQEqRegressor(response=response, **sigmas))
    if set(ENERGIES).isdisjoint(args.targets):
        raise ValueError(f"--gap needs one of {', '.join(ENERGIES)} among --targets")
    blocks = [(name, make_pipeline(*build_features(args))) for name in ("chi", "gap")]
    # Local energies of molecules are some eV; with the default amplitude, 1 eV, they are too stiff.
    regressor = GAPKQEqRegressor(amplitude_gap=10.0, response=response, **sigmas)
    return make_pipeline(StructureBlocks(blocks), regressor)


def build_features(args):
    """The transformers that compute the features of a field."""
    soap = SOAPFeaturizer(**given_options(args, SOAP_OPTIONS), cutoff_width=args.cutoff_width)
    return soap, CURSparsifier(**given_options(args, ["n_points"]))


def given_options(args, names):
    """Values of the options that were given; those that were not have the defaults of skqeq."""
    values = {name: getattr(args, name) for name in names}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if value is not None
    }


def build_response(args):
    """The response with the options that were given; None is the default response of the model."""
    given, kind = given_options(args, RESPONSE_OPTIONS), args.response or "qeq"
    response = RESPONSES[kind]
    for name in given:
        if name not in response().get_params():
            option = name.replace("_", "-")
            raise ValueError(f"--response {kind} has no --{option}; use --response flow")
    if args.gap and kind == "qeq":
        # The default hardness of this model is not that of `QEq`.
        params = {f"response__{name}": value for name, value in given.items()}
        return GAPKQEqRegressor().set_params(**params).response
    return response(**given)


def n_sparse_points(model):
    """Number of sparse points of a fitted pipeline, over all of its blocks of features."""
    if isinstance(model[0], StructureBlocks):
        return sum(len(part[-1].component_indices_) for _, part in model[0].transformer_list)
    return len(model["cursparsifier"].component_indices_)


def fit_with_bar(model, X, y, *, quiet):
    """Fit a pipeline with a progress bar; the fitted model shows no bars when it predicts."""
    model[-1].set_params(verbose=0 if quiet else 1)
    model.fit(X, y)[-1].set_params(verbose=0, checkpoint=None)
    return model
