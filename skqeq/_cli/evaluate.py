"""``skqeq evaluate``: errors of a model on labelled structures."""

from .. import check_labels, make_targets, strip, targets_from_atoms
from .._counts import counted
from ..metrics import has_label
from ..models import labels_of_predictions, predict_for_scores, unfitted_energies, unwrap
from ..targets import MissingLabelsError, label_keys
from .figures import figure_endings, save_panels
from .files import load_model, predictable_targets, read_numbered
from .fit import chosen_keys
from .numbering import FileNumbers
from .outputs import check_output
from .report import (
    ENERGY,
    element_energies,
    of_composition,
    print_errors,
    print_findings,
    print_worst,
    quantities,
)


def run(args):
    """Predict, compare with the labels, and print errors."""
    if args.plot is not None:
        check_output(args.plot, figure_endings(), [args.model, args.structures])
    model = load_model(args.model, allow_pickle=args.allow_pickle)
    indices, labelled = read_numbered(args.structures, args.charge_key)
    with FileNumbers(indices).messages():
        compare(model, indices, labelled, args)


def compare(model, indices, labelled, args):
    """Predict the structures of the file, and print and draw the errors."""
    last = unwrap(model)[1]
    if reason := unfitted_energies(args.targets or (), last.targets_, last.atomic_energies):
        raise ValueError(reason)
    y = labels(labelled, args.targets, args.key, dict(args.unit), predictable_targets(model))
    X = strip(labelled)
    predicted = predict_for_scores(model, X, y.dtype.names)
    y = defined_labels(y, predicted)
    print(f"{counted(len(X), 'structure')} of {args.structures}")
    print_findings(check_labels(X, y).findings)
    print()
    print_errors(y, predicted, X)
    if args.worst > 0:
        for name in y.dtype.names:
            print_worst(name, X, y[name], predicted[name], args.worst, indices)
    if args.plot is not None:
        save_panels(args.plot, parity_panels(y, predicted, X))
        print(f"\nwrote {args.plot}")


def parity_panels(y, predicted, X):
    """One parity plot per target; of vectors every component is a point, because norms hide signs.

    The part of the energies that the composition explains is removed.
    """
    from ..plotting import plot_parity

    panels, energies = [], element_energies(y, X)
    for name, unit, truth, prediction in quantities(y, predicted, X):
        if name == "|dipole|":
            continue
        if name == ENERGY and energies is not None:
            part = of_composition(X, energies)
            name, truth, prediction = "energy - composition", truth - part, prediction - part
        options = {"unit": unit, "label": name}
        panels.append((plot_parity, (list(truth), list(prediction)), options))
    return panels


def labels(X, targets, keys, units, predictable):
    """Labels of the given targets, or of all predictable targets that have labels."""
    if targets is not None:
        return targets_from_atoms(X, chosen_keys(targets, keys), units=units)
    columns = []
    for name, key in chosen_keys(predictable, keys).items():
        try:
            unit = {name: units[name]} if name in units else None
            columns.append(targets_from_atoms(X, {name: key}, units=unit))
        except MissingLabelsError:
            if key is not None:
                raise
    if not columns:
        raise MissingLabelsError(
            f"no structure has labels; looked for {', '.join(predictable)}, also with REF_; the "
            f"first structure has {label_keys(X)}; use --key TARGET=KEY for other names"
        )
    missing = set(units) - {y.dtype.names[0] for y in columns}
    if missing:
        raise ValueError(f"--unit names {', '.join(sorted(missing))}, but there are no such labels")
    return make_targets(**{y.dtype.names[0]: y[y.dtype.names[0]] for y in columns})


def defined_labels(y, predicted):
    """Remove labels of targets that are undefined for a structure.

    Some programs write a stress for molecules, or all components of the stress for slabs.
    """
    y = labels_of_predictions(y, predicted)
    names = [name for name in y.dtype.names if any(has_label(value) for value in y[name])]
    if not names:
        raise ValueError(f"{', '.join(y.dtype.names)}: undefined for all structures with labels")
    return y[names]
