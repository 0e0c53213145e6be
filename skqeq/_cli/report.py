"""Tables of errors: dipoles in Debye, energies in meV per atom, what derives from them with meV."""

import numpy as np

from ..metrics import has_label, target_mae, target_r2, target_rmse
from ..parameters import DEBYE
from ..structures import collect
from ..targets import TARGETS, VOIGT

# Units of targets that are shown in other ones, and the factors to these.
SHOWN = {
    "e*Angstrom": ("D", DEBYE),
    "eV": ("meV/atom", 1e3),
    "eV/Angstrom": ("meV/Angstrom", 1e3),
    "eV/Angstrom^3": ("meV/Angstrom^3", 1e3),
}
AXES = "xyz"


def shown_unit(name):
    """Unit in which a target is printed, and the factor to it."""
    return SHOWN.get(TARGETS[name].unit, (TARGETS[name].unit, 1.0))


def shown(name, values, X):
    """Unit and values of a target, as they are shown."""
    unit, factor = shown_unit(name)
    values = TARGETS[name].comparable(values, collect(X))
    if values.dtype == object:
        return unit, [None if value is None else factor * value for value in values]
    return unit, factor * values


def quantities(y, predicted, X):
    """Yield name, unit, references and predictions of what is compared of every target.

    The first two arguments are tables as from `skqeq.make_targets`, of the structures X.
    """
    for name in y.dtype.names:
        unit, truth = shown(name, y[name], X)
        _, prediction = shown(name, predicted[name], X)
        if name == "dipole":
            norms = (np.linalg.norm(values, axis=1) for values in (truth, prediction))
            yield "|dipole|", unit, *norms
            name = "dipole components"
        yield "energy per atom" if name == "energy" else name, unit, truth, prediction


def print_labels(y, X):
    """Print how many labels there are, and how large they are: in a wrong unit, that shows."""
    found = {}
    for name, unit, truth, _ in quantities(y, y, X):
        known = [np.ravel(value) for value in truth if has_label(value)]
        if known:
            median = np.nanmedian(np.abs(np.concatenate(known)))
            found[name] = f"{name} {len(known)}, {median:.3g} {unit}"
    found.pop("dipole components", None)
    print(f"labels, and the median of their size: {'; '.join(found.values())}")


def print_errors(y, predicted, X):
    """Print one line of errors per quantity."""
    print(f"{'quantity':<18}{'unit':<14}{'labelled':>10}", end="")
    print("".join(f" {title:>9}" for title in ("MAE", "median", "RMSE", "R2")))
    for name, unit, truth, prediction in quantities(y, predicted, X):
        known = [i for i, value in enumerate(truth) if has_label(value)]
        errors = np.concatenate([np.ravel(np.abs(truth[i] - prediction[i])) for i in known])
        columns = [
            target_mae(truth, prediction),
            np.nanmedian(errors),
            target_rmse(truth, prediction),
        ]
        if len(known) > 1:
            columns.append(target_r2(truth, prediction))
        print(f"{name:<18}{unit:<14}{len(known):>10}", end="")
        print("".join(f" {value:>9.4f}" for value in columns))


def print_worst(name, X, truth, predicted, n):
    """Print the structures of largest error; of a vector its norm, else its worst number."""
    unit, truth = shown(name, truth, X)
    _, predicted = shown(name, predicted, X)
    known = [i for i, value in enumerate(truth) if has_label(value)]
    rows = sorted(((*_worst_number(name, truth[i], predicted[i]), i) for i in known), reverse=True)
    print(f"\n{min(n, len(rows))} worst of {name} ({unit})")
    print(f"{'index':>6}  {'formula':<16} {'error':>9} {'reference':>12} {'predicted':>12}")
    for error, where, reference, prediction, i in rows[:n]:
        line = f"{i:>6}  {X[i].get_chemical_formula():<16} {error:>9.4f}"
        print(f"{line} {reference:>12.4f} {prediction:>12.4f}{_place(name, X[i], where)}")


def _worst_number(name, truth, predicted):
    """Error, index, reference and prediction."""
    if name == "dipole":
        norms = (float(np.linalg.norm(values)) for values in (truth, predicted))
        return float(np.linalg.norm(predicted - truth)), 0, *norms
    truth, predicted = np.ravel(truth), np.ravel(predicted)
    error = np.abs(predicted - truth)
    where = int(np.nanargmax(error))
    return float(error[where]), where, float(truth[where]), float(predicted[where])


def _place(name, atoms, where):
    """Where in its structure the worst number stands."""
    if name == "forces":
        return f"  atom {where // 3} ({atoms.symbols[where // 3]}), {AXES[where % 3]}"
    if name == "charges":
        return f"  atom {where} ({atoms.symbols[where]})"
    if name in ("quadrupole", "stress"):
        return "  " + "".join(AXES[axis] for axis in VOIGT[where])
    return f"  point {where}" if name == "potential" else ""
