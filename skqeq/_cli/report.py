"""Tables of errors, in Debye for dipoles and in meV for energies per atom, forces and stress."""

import numpy as np

from .._counts import counted
from .._warnings import warn_once
from ..metrics import has_label, structure_rmse, target_mae, target_r2, target_rmse
from ..parameters import DEBYE
from ..structures import collect
from ..targets import TARGETS, VOIGT

# Printed unit and conversion factor, for targets that are not printed in the unit of their labels.
PRINTED_UNITS = {
    "e*Angstrom": ("D", DEBYE),
    "eV": ("meV/atom", 1e3),
    "eV/Angstrom": ("meV/Angstrom", 1e3),
    "eV/Angstrom^3": ("meV/Angstrom^3", 1e3),
}
AXES = "xyz"
ENERGY = "energy per atom"
# The residuals of a structure are far from usual if they are this many times the median.
FAR = 10.0
# Largest number of such structures that are printed for each target.
MAX_FAR = 5


def printed_unit(name):
    """The unit in which a target is printed, and the conversion factor."""
    return PRINTED_UNITS.get(TARGETS[name].unit, (TARGETS[name].unit, 1.0))


def in_printed_unit(name, values, X):
    """The printed unit of a target, and its values in this unit; energies are per atom."""
    unit, factor = printed_unit(name)
    values = TARGETS[name].comparable(values, collect(X))
    if values.dtype == object:
        return unit, [None if value is None else factor * value for value in values]
    return unit, factor * values


def quantities(y, predicted, X):
    """Yield the quantities to compare: the norm and the components of dipoles, and other targets.

    Parameters
    ----------
    y, predicted : ndarray of shape (n,)
        Labels and predictions, in the form of `skqeq.make_targets`.
    X : sequence of n ase.Atoms
        Structures.

    Yields
    ------
    name, unit : str
        Name of the quantity and its printed unit.
    truth, prediction : sequence of n values
        Labels and predictions in this unit.
    """
    for name in y.dtype.names:
        unit, truth = in_printed_unit(name, y[name], X)
        _, prediction = in_printed_unit(name, predicted[name], X)
        if name == "dipole":
            norms = (np.linalg.norm(values, axis=1) for values in (truth, prediction))
            yield "|dipole|", unit, *norms
            name = "dipole components"
        yield ENERGY if name == "energy" else name, unit, truth, prediction


def element_energies(y, X):
    """Energies of the atoms of each element that explain most of the energy labels, eV.

    Returns None if they explain all labels, because there are too few.
    """
    if "energy" not in y.dtype.names:
        return None
    known = np.flatnonzero(~np.isnan(y["energy"]))
    counts = element_counts([X[i] for i in known])
    if len(known) <= np.linalg.matrix_rank(counts):
        return None
    return np.linalg.lstsq(counts, y["energy"][known], rcond=None)[0]


def element_counts(X):
    """Number of atoms of each element in every structure, shape (n, 119)."""
    return np.array([np.bincount(atoms.numbers, minlength=119) for atoms in X])


def quantity_r2(name, truth, predicted, X, energies):
    """R2 of a quantity; NaN if it is undefined.

    Total energies of different compositions differ by much more than any error. The part of the
    energy labels that the composition explains is therefore removed.
    """
    if sum(has_label(value) for value in truth) < 2 or (name == ENERGY and energies is None):
        return np.nan
    if name == ENERGY:
        part = of_composition(X, energies)
        truth, predicted = truth - part, predicted - part
    return target_r2(truth, predicted)


def of_composition(X, energies):
    """The part of the energies per atom that the composition explains, in the printed unit."""
    sizes = np.array([len(atoms) for atoms in X])
    return printed_unit("energy")[1] * (element_counts(X) @ energies) / sizes


def print_labels(y, X):
    """Print the number of labels and their median size, which reveals a wrong unit."""
    texts = {}
    for name, unit, truth, _ in quantities(y, y, X):
        labels = [np.ravel(value) for value in truth if has_label(value)]
        if labels:
            median = np.nanmedian(np.abs(np.concatenate(labels)))
            texts[name] = f"{name} {len(labels)}, {median:.3g} {unit}"
    texts.pop("dipole components", None)
    print(f"labels, and their median magnitude: {'; '.join(texts.values())}")


def print_findings(findings):
    """Warn about labels that are very probably mistakes, and print notes about others."""
    for finding in findings:
        if finding.severity == "warning":
            warn_once(finding.advice, finding.name)  # the fit does not repeat this kind
        elif finding.advice:
            print(f"note: {finding.advice}")


def print_errors(y, predicted, X):
    """Print one line of errors per quantity."""
    energies = element_energies(y, X)
    print(f"{'quantity':<18}{'unit':<14}{'labelled':>10}", end="")
    print("".join(f" {title:>9}" for title in ("MAE", "median", "RMSE", "R2")))
    for name, unit, truth, prediction in quantities(y, predicted, X):
        labelled = [i for i, value in enumerate(truth) if has_label(value)]
        errors = np.concatenate([np.ravel(np.abs(truth[i] - prediction[i])) for i in labelled])
        columns = [
            target_mae(truth, prediction),
            np.nanmedian(errors),
            target_rmse(truth, prediction),
        ]
        columns.append(quantity_r2(name, truth, prediction, X, energies))
        print(f"{name:<18}{unit:<14}{len(labelled):>10}", end="")
        print("".join(f" {value:>9.4f}" for value in columns if not np.isnan(value)))
    if energies is not None:
        print("R2 of the energy: without the part that the composition explains")


def print_worst(name, X, truth, predicted, n, indices):
    """Print the n structures with the largest errors of a target, and their indices in the file.

    The error of a dipole is the norm of the error vector; the error of any other target is its
    largest component.
    """
    unit, truth = in_printed_unit(name, truth, X)
    _, predicted = in_printed_unit(name, predicted, X)
    labelled = [i for i, value in enumerate(truth) if has_label(value)]
    rows = [(*_largest_error(name, truth[i], predicted[i]), i) for i in labelled]
    rows.sort(reverse=True)
    print(f"\n{counted(min(n, len(rows)), 'largest error')} of {name} ({unit})")
    print(f"{'index':>6}  {'formula':<16} {'error':>9} {'reference':>12} {'predicted':>12}")
    for error, component, reference, prediction, i in rows[:n]:
        line = f"{indices[i]:>6}  {X[i].get_chemical_formula():<16} {error:>9.4f}"
        print(
            f"{line} {reference:>12.4f} {prediction:>12.4f}{_component_name(name, X[i], component)}"
        )


def print_far(y, predicted, X, sigmas, indices):
    """Print the structures whose residuals are far larger than those of most structures.

    Labels that contradict those of similar structures have such residuals. Residuals are divided by
    the noise `sigmas` of their targets; those below the noise are not printed. `indices` are those
    of the structures in the file.
    """
    lines, structures = [], collect(X)
    for name in y.dtype.names:
        truth, guess = (TARGETS[name].comparable(t[name], structures) for t in (y, predicted))
        residuals = structure_rmse(truth, guess) / sigmas[name]
        median = np.nanmedian(residuals)
        far = np.flatnonzero(residuals > max(FAR * median, 1.0))
        for i in sorted(far, key=lambda i: -residuals[i])[:MAX_FAR]:
            formula = X[i].get_chemical_formula()
            line = f"{indices[i]:>6}  {formula:<16} {name:<14}"
            lines.append(f"{line} {residuals[i]:>9.1f} {residuals[i] / median:>10.0f}")
    if lines:
        print(f"\nresiduals of more than {FAR:.0f} times the median; check these labels")
        header = f"{'index':>6}  {'formula':<16} {'target':<14} {'/ noise':>9} {'/ median':>10}"
        print(header, *lines, sep="\n")


def _largest_error(name, truth, predicted):
    """The largest error of one structure, its component, and the reference and predicted value."""
    if name == "dipole":
        norms = (float(np.linalg.norm(values)) for values in (truth, predicted))
        return float(np.linalg.norm(predicted - truth)), 0, *norms
    truth, predicted = np.ravel(truth), np.ravel(predicted)
    error = np.abs(predicted - truth)
    k = int(np.nanargmax(error))
    return float(error[k]), k, float(truth[k]), float(predicted[k])


def _component_name(name, atoms, component):
    """The atom, the axes or the point to which a component of a target belongs."""
    if name == "forces":
        atom, axis = divmod(component, 3)
        return f"  atom {atom} ({atoms.symbols[atom]}), {AXES[axis]}"
    if name == "charges":
        return f"  atom {component} ({atoms.symbols[component]})"
    if name in ("quadrupole", "stress"):
        return "  " + "".join(AXES[axis] for axis in VOIGT[component])
    return f"  point {component}" if name == "potential" else ""
