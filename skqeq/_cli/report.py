"""Tables of errors. Dipoles are shown in Debye."""

import numpy as np

from ..metrics import target_mae, target_r2, target_rmse
from ..parameters import DEBYE
from ..targets import TARGETS


def quantities(y, predicted):
    """Yield name, unit, references and predictions of what is compared of every target.

    Both arguments are tables as from `skqeq.make_targets`.
    """
    for name in y.dtype.names:
        truth, prediction, unit = y[name], predicted[name], TARGETS[name].unit
        if TARGETS[name].unit == "e*Angstrom":
            truth, prediction, unit = DEBYE * truth, DEBYE * prediction, "D"
        if name == "dipole":
            norms = (np.linalg.norm(values, axis=1) for values in (truth, prediction))
            yield "|dipole|", unit, *norms
            name = "dipole components"
        yield name, unit, truth, prediction


def print_errors(y, predicted):
    """Print one line of errors per quantity."""
    print(f"{'quantity':<18}{'unit':<14}{'labelled':>8}", end="")
    print("".join(f"{title:>10}" for title in ("MAE", "median", "RMSE", "R2")))
    for name, unit, truth, prediction in quantities(y, predicted):
        known = [i for i, value in enumerate(truth) if is_known(value)]
        errors = np.concatenate([np.ravel(np.abs(truth[i] - prediction[i])) for i in known])
        r2 = target_r2(truth, prediction) if len(known) > 1 else np.nan
        columns = (
            target_mae(truth, prediction),
            np.nanmedian(errors),
            target_rmse(truth, prediction),
            r2,
        )
        print(f"{name:<18}{unit:<14}{len(known):>8}", end="")
        print("".join(f"{value:>10.4f}" for value in columns))


def print_worst(name, X, truth, predicted, n):
    """Print the structures of largest error; of a vector its norm, else its worst number."""
    known = [i for i, value in enumerate(truth) if is_known(value)]
    rows = sorted(((*_worst_number(name, truth[i], predicted[i]), i) for i in known), reverse=True)
    unit = "D" if TARGETS[name].unit == "e*Angstrom" else TARGETS[name].unit
    print(f"\n{min(n, len(rows))} worst of {name} ({unit})")
    print(f"{'index':>6}  {'formula':<16}{'error':>10}{'reference':>11}{'predicted':>11}")
    for error, where, reference, prediction, i in rows[:n]:
        line = f"{i:>6}  {X[i].get_chemical_formula():<16}{error:>10.4f}"
        at = f"  {_place(name, X[i], where)}" if where is not None else ""
        print(f"{line}{reference:>11.4f}{prediction:>11.4f}{at}")


def is_known(value):
    """Whether any number of a label is known."""
    return value is not None and not np.isnan(value).all()


def _worst_number(name, truth, predicted):
    """Error, index, reference and prediction."""
    if name.startswith("dipole"):
        truth, predicted = DEBYE * np.atleast_1d(truth), DEBYE * np.atleast_1d(predicted)
        norms = (float(np.linalg.norm(values)) for values in (truth, predicted))
        return float(np.linalg.norm(predicted - truth)), None, *norms
    error = np.abs(predicted - truth)
    where = int(np.nanargmax(error))
    return float(error[where]), where, float(truth[where]), float(predicted[where])


def _place(name, atoms, where):
    if name == "charges":
        return f"atom {where} ({atoms.symbols[where]})"
    return ("xx", "yy", "zz", "yz", "xz", "xy")[where] if name == "quadrupole" else f"point {where}"
