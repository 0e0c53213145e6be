"""``skqeq evaluate``: the errors of a model."""

import numpy as np

from .. import make_targets, predict_targets, strip, targets_from_atoms
from ..metrics import has_label
from ..models import unwrap, with_energy
from ..plotting import plot_parity
from ..targets import ENERGIES, TARGETS, label_keys
from .figures import import_matplotlib, save_figure
from .files import load_model, read_structures
from .fit import chosen_keys
from .report import print_errors, print_worst, quantities


def run(args):
    """Compare and print."""
    if args.plot is not None:
        import_matplotlib()
    model = load_model(args.model)
    labelled = read_structures(args.structures)
    y = labels(labelled, args.targets, args.key, dict(args.unit), known_targets(model))
    X = strip(labelled)
    # A crystal among molecules has charges and no dipole.
    predicted = predict_targets(model, X, with_energy(y.dtype.names))
    y = defined_labels(y, predicted)
    print(f"{len(X)} structures of {args.structures}\n")
    print_errors(y, predicted, X)
    if args.worst > 0:
        for name in y.dtype.names:
            print_worst(name, X, y[name], predicted[name], args.worst)
    if args.plot is not None:
        name, unit, truth, prediction = next(quantities(y, predicted, X))
        label = "|μ|" if "dipole" in name else name
        save_figure(args.plot, plot_parity, truth, prediction, unit=unit, label=label)
        print(f"\nwrote {args.plot}")


def known_targets(model):
    """All targets but energies and what derives from them, unless the model learned any of it."""
    learns = set(unwrap(model)[1].targets_) & set(ENERGIES)
    return [name for name in TARGETS if learns or name not in ENERGIES]


def labels(X, targets, keys, units, known):
    """The named targets, or all of the `known` that the structures carry."""
    if targets is not None:
        return targets_from_atoms(X, chosen_keys(targets, keys), units=units)
    columns = []
    for name, key in chosen_keys(known, keys).items():
        try:
            unit = {name: units[name]} if name in units else None
            columns.append(targets_from_atoms(X, {name: key}, units=unit))
        except ValueError:
            if key is not None:
                raise
    if not columns:
        raise ValueError(
            f"no structure has labels; looked for {', '.join(known)}, also with REF_; the first "
            f"structure has {label_keys(X)}, and --key TARGET=KEY gives names of your own"
        )
    missing = set(units) - {y.dtype.names[0] for y in columns}
    if missing:
        raise ValueError(f"--unit names {', '.join(sorted(missing))}, of which there are no labels")
    return make_targets(**{y.dtype.names[0]: y[y.dtype.names[0]] for y in columns})


def defined_labels(y, predicted):
    """The labels of what has a meaning: programs write the stress of molecules, too."""
    y = y.copy()
    for name in y.dtype.names:
        if y[name].dtype.kind == "f":
            y[name][np.isnan(predicted[name])] = np.nan
    names = [name for name in y.dtype.names if any(has_label(value) for value in y[name])]
    if not names:
        raise ValueError(f"no structure can have the labels {', '.join(y.dtype.names)}")
    return y[names]
