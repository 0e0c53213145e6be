"""Tables of the trials of a search, and of the settings that it chose."""

import numpy as np

from .._counts import counted
from ..response import NoCharges, Response
from ..targets import TARGETS
from .report import printed_unit

# Parameters of a potential that are printed, besides the noise.
OF_POTENTIALS = (
    "r_cut", "n_max", "l_max", "sigma_atom", "zeta", "amplitude_gap", "amplitude_chi", "response",
)  # fmt: skip


def print_trials(trials, errors):
    """Print a line for every trial, with its errors.

    Parameters
    ----------
    trials : list of Trial or ChargeTrial
        The trials.
    errors : list of dict of {str: str}
        For every trial, maps the titles of columns to errors as text; the titles of the last trial
        are those of the table.
    """
    titles = ["setting", "value", "score", *errors[-1]]
    rows = []
    for trial, columns in zip(trials, errors, strict=True):
        cells = [trial.step, value_text(trial.value), f"{trial.score:.3f}"]
        cells += [columns.get(title, "") for title in errors[-1]]
        rows.append([*cells, " <- better" if trial.kept else ""])
    widths = [max(len(row[k]) for row in [titles, *rows]) + 2 for k in range(len(titles))]
    for *cells, kept in [[*titles, ""], *rows]:
        print("".join(f"{c:<{w}}" for c, w in zip(cells, widths, strict=True)).rstrip() + kept)


def print_potential_search(search, n_folds, groups):
    """Print the trials of a `PotentialSearchCV`, and what it chose."""
    by_group = " by group" * (groups is not None)
    print(
        f"\nsearch of a potential: {n_folds}-fold cross-validation{by_group} of small models, "
        f"{counted(len(search.trials_), 'trial')}"
    )
    print_trials(search.trials_, [error_columns(trial.rmse) for trial in search.trials_])
    model, targets = search.best_estimator_, search.trials_[-1].rmse
    names = {*OF_POTENTIALS, *(f"sigma_{name}" for name in targets)}
    charged = not isinstance(model[-1].response, NoCharges)
    print("\nchosen")
    for name, value in model.get_params().items():
        _, _, short = name.partition("__")
        if short.rpartition("__")[2] in names and (charged or not short.startswith("chi__")):
            print(f"  {short} = {value}")
    best = [trial for trial in search.trials_ if trial.kept][-1]
    print("  errors of the small model: " + in_words(error_columns(best.rmse)))


def print_charge_search(search, groups):
    """Print the trials of a `ChargeSearchCV`, and what it chose."""
    left_out = "structures" if groups is None else "groups"
    print(
        f"\nsearch of a model of charges: mean errors of left-out {left_out}, and of structures of "
        f"other sizes; {counted(len(search.trials_), 'trial')}"
    )
    errors = [
        error_columns(trial.errors) | error_columns(trial.errors_by_size, ", other sizes")
        for trial in search.trials_
    ]
    print_trials(search.trials_, errors)
    soap, sparsifier, model = search.best_estimator_
    weights = sparsifier.block_weights or {}
    response = model.response
    amplitudes = {"chi": (model.amplitude_chi, model.amplitude_baseline)}
    amplitudes |= {name: response.prior(name)[:2] for name in response.fields if name != "chi"}
    print("\nchosen")
    print(f"  response: {response_text(response)}")
    print(f"  cutoffs: {as_text(soap.r_cut)} Angstrom; exponent of the kernel: {sparsifier.zeta}")
    for name, (amplitude, constants) in amplitudes.items():
        unit = "V" if name == "chi" else "e"
        text = f"amplitude {as_text(amplitude)} {unit}, constants {as_text(constants)} {unit}"
        if name in weights:
            text += f", weights of the cutoffs {as_text(weights[name])}"
        print(f"  {name}: {text}")
    for name in search.trials_[-1].errors:
        print(f"  noise of {name}: {as_text(getattr(model, f'sigma_{name}'))} {TARGETS[name].unit}")
    print("  errors: " + in_words(errors[-1]))


def in_words(columns):
    """Titles and values in one line."""
    return ", ".join(f"{title} {text}" for title, text in columns.items())


def error_columns(errors, note=""):
    """Errors as text by the titles of their columns, in printed units."""
    columns = {}
    for name, error in errors.items():
        unit, factor = printed_unit(name)
        columns[f"{name}{note} ({unit})"] = f"{factor * error:.4g}"
    return columns


def value_text(value):
    """A value that was tried, with three digits."""
    if isinstance(value, Response):
        return response_text(value)
    return "" if value is None else value if isinstance(value, str) else as_text(value)


def response_text(response):
    """A response with three digits of those parameters that are not the default."""
    default = type(response)().get_params()
    params = {k: v for k, v in response.get_params().items() if str(v) != str(default[k])}
    texts = (f"{k}={as_text(v) if isinstance(v, float) else v}" for k, v in params.items())
    return f"{type(response).__name__}({', '.join(texts)})"


def as_text(value):
    """Format one or several numbers with three digits."""
    return " ".join(f"{number:.3g}" for number in np.atleast_1d(value))
