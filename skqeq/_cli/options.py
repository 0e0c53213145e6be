"""Options of the commands.

This module imports neither NumPy nor the rest of the package, so that help and messages about wrong
arguments appear at once. It therefore repeats names and defaults of the package.
"""

import argparse
import math
import os
from pathlib import Path

from .texts import STRUCTURES

TARGETS = (
    "dipole",
    "charges",
    "quadrupole",
    "potential",
    "dipole_magnitude",
    "energy",
    "forces",
    "stress",
    "born_effective_charges",
)
# Default noise of the labels of each target, in the order of TARGETS.
SIGMAS = (0.002, 0.02, 0.05, 0.05, 0.002, 0.001, 0.05, 0.001, 0.05)
UNITS = (
    "e", "Debye", "Bohr", "Ang", "Angstrom", "nm", "m", "eV", "meV", "Hartree", "Ha", "Rydberg",
    "Ry", "kcal", "kJ", "mol", "V", "GPa", "kbar", "C",
)  # fmt: skip
RESPONSES = ("qeq", "flow")
# Defaults of the featurizer and the sparsifier, and of the responses that have these parameters.
FEATURES = {"r_cut": (1.7, 3.5), "n_max": 8, "l_max": 6, "n_points": 1000}
RESPONSE = {"hardness": 0.0, "radius_scale": 0.2, "softness": 0.05, "range": 0.25}


def add_demo_options(parser):
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("skqeq-demo"),
        metavar="DIR",
        help="folder for figures, model and held-out molecules (default: %(default)s)",
    )


def add_check_options(parser):
    parser.add_argument("structures", metavar="train.xyz", help=STRUCTURES)
    _add_found_targets(parser, "check")
    _add_charge_key(parser)
    _add_keys(parser)


def _add_found_targets(parser, verb):
    parser.add_argument(
        "--targets",
        nargs="+",
        choices=TARGETS,
        metavar="TARGET",
        help=f"targets to {verb} (default: every target with labels)",
    )


def add_fit_options(parser):
    add = parser.add_argument
    add("structures", metavar="train.xyz", help=STRUCTURES)
    add("-o", "--output", type=output_file, required=True, metavar="model.skqeq")
    add(
        "--targets",
        nargs="+",
        default=["dipole"],
        choices=TARGETS,
        metavar="TARGET",
        help=f"targets to learn, from {', '.join(TARGETS)} (default: dipole)",
    )
    _add_charge_key(parser)
    _add_keys(parser)
    _add_features(parser)
    _add_charge_model(parser)
    _add_search(parser)
    add(
        "--std",
        action="store_true",
        help="store the data that `skqeq predict --std` and `--interval` need, and calibrate them "
        "by left-out structures (by groups with --group); the model file becomes larger",
    )
    add(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="folder in which a fit to energies, forces, stress or norms of dipoles stores its "
        "progress every minute; after a kill, the same command continues from there",
    )


def _add_features(parser):
    parser.add_argument(
        "--r-cut",
        nargs="+",
        type=float,
        metavar="R",
        help=f"cutoffs of the descriptor, Angstrom {_default(FEATURES['r_cut'])}",
    )
    parser.add_argument(
        "--cutoff-width",
        type=float,
        metavar="W",
        help="width of the shell below the cutoff in which the cutoff function decays, Angstrom; "
        "without it, forces jump when an atom crosses the cutoff",
    )
    _add_count(parser, "--n-max", FEATURES["n_max"], "number of radial functions")
    _add_count(parser, "--l-max", FEATURES["l_max"], "largest angular momentum")
    _add_count(parser, "--n-points", FEATURES["n_points"], "sparse points per element")


def _add_charge_model(parser):
    parser.add_argument(
        "--response",
        choices=RESPONSES,
        help="how the charges are computed from the learned fields: qeq, charge equilibration of "
        "all atoms; flow, charge flow between neighbours from learned reference charges (default: "
        "qeq; with --tune, the best one)",
    )
    parser.add_argument(
        "--gap",
        action="store_true",
        help="learn local energies of the atoms too; energies and forces of molecules need them",
    )
    meaning = "hardness of all elements, eV/e^2"
    _add_response_number(parser, "--hardness", "hardness", "J", meaning)
    meaning = "width of the charges in units of the atomic radius"
    _add_response_number(parser, "--radius-scale", "radius_scale", "S", meaning)
    meaning = "softness of the bonds of --response flow, e/V"
    _add_response_number(parser, "--softness", "softness", "S", meaning)
    meaning = "length over which the softness decays with distance, Angstrom"
    _add_response_number(parser, "--range", "range", "L", meaning)
    defaults = [f"{name}={sigma:g}" for name, sigma in zip(TARGETS, SIGMAS, strict=True)]
    parser.add_argument(
        "--sigma",
        nargs="+",
        type=number,
        default=[],
        metavar="TARGET=SIGMA",
        help=f"noise of the labels, in their units {_default(defaults)}",
    )


def _add_response_number(parser, option, name, metavar, meaning):
    """Add an option for a parameter of the response; None keeps the default of the response."""
    text = f"{meaning} {_default([RESPONSE[name]])}"
    parser.add_argument(option, type=float, metavar=metavar, help=text)


def _add_search(parser):
    add = parser.add_argument
    add(
        "--search",
        action="store_true",
        help="choose sigma near --sigma by cross-validation; with --gap, choose cutoffs, response "
        "and its parameters, too, by errors of small models",
    )
    add(
        "--search-r-cut",
        action="store_true",
        help="choose cutoffs near --r-cut as well, which takes three times as long; with --gap, "
        "the same as --search",
    )
    add(
        "--group",
        metavar="KEY",
        help="info key that holds the group of a structure; structures of a group, such as copies "
        "of one molecule, are in one fold of the search",
    )
    add(
        "--folds",
        type=int,
        metavar="K",
        help="number of folds of the search (default: 5)",
    )
    add(
        "--tune",
        type=minutes,
        metavar="MINUTES",
        help="choose all settings within this time, which the final fit is added to: response, "
        "cutoffs, amplitudes and noise; of a potential with local energies if energies, forces or "
        "stress are among --targets; --response, --r-cut and --n-points are kept if given",
    )


def _add_count(parser, option, default, meaning):
    text = f"{meaning} {_default([default])}"
    parser.add_argument(option, type=int, metavar="N", help=text)


def _default(values):
    return f"(default: {' '.join(map(str, values))})"


def add_predict_options(parser):
    _add_model(parser, "in.xyz")
    parser.add_argument("-o", "--output", type=output_file, required=True, metavar="out.xyz")
    parser.add_argument(
        "--skip-errors",
        action="store_true",
        help="leave out structures that cannot be read or predicted, and print their errors",
    )
    parser.add_argument(
        "--std",
        action="store_true",
        help="also write standard deviations, as charges_std, dipole_std and so on; needs a model "
        "from `skqeq fit --std`",
    )
    parser.add_argument(
        "--interval",
        type=float,
        metavar="COVERAGE",
        help="also write intervals that contain this fraction of the labels, such as 0.95, as "
        "dipole_lower, dipole_upper and so on; needs a model from `skqeq fit --std`",
    )
    parser.add_argument(
        "--handle-unknown",
        choices=["error", "prior"],
        help="structures with elements that the training data lack: refuse them (the default of "
        "models), or take charges and dipoles from the prior",
    )


def add_evaluate_options(parser):
    _add_model(parser, "test.xyz")
    add = parser.add_argument
    _add_found_targets(parser, "compare")
    _add_keys(parser)
    add(
        "--worst",
        type=int,
        default=10,
        metavar="N",
        help="number of structures with the largest errors to list (default: 10)",
    )
    add("--plot", type=output_file, metavar="parity.png", help="draw a parity plot of every target")


def add_completion_options(parser):
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell that you use")


def _add_model(parser, structures):
    parser.add_argument("model", metavar="model.skqeq", help="from `skqeq fit`")
    parser.add_argument("structures", metavar=structures, help=STRUCTURES)
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="load a model that is a pickle, which can execute code, such as a file of joblib",
    )
    _add_charge_key(parser)


def _add_charge_key(parser):
    parser.add_argument(
        "--charge-key",
        metavar="KEY",
        help="info key that holds the total charge of every structure (default: charge or "
        "total_charge, or 0 without them); initial_charges means the sum of the initial charges",
    )


def _add_keys(parser):
    parser.add_argument(
        "--key",
        nargs="+",
        type=assignment,
        default=[],
        metavar="TARGET=KEY",
        help="names of the labels in the file",
    )
    parser.add_argument(
        "--unit",
        nargs="+",
        type=unit,
        default=[],
        metavar="TARGET=UNIT",
        help="units of labels that are not in e, eV and Angstrom, such as dipole=debye "
        "energy=hartree forces=-hartree/bohr, where the minus sign makes forces of gradients; a "
        f"unit is a product or quotient of numbers and {', '.join(UNITS)}, in any case",
    )


def assignment(text):
    """Parse ``target=value``."""
    target, equals, value = text.partition("=")
    if not equals or not value or target not in TARGETS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not TARGET=VALUE; targets are {', '.join(TARGETS)}"
        )
    return target, value


def number(text):
    """Parse ``target=number``."""
    target, value = assignment(text)
    try:
        return target, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number") from None


def minutes(text):
    """Parse a positive time."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in minutes, such as 10")
    return value


def unit(text):
    """Parse ``target=unit``, and convert the unit to a number in e, eV and Angstrom."""
    from ..targets import parse_unit

    target, value = assignment(text)
    try:
        return target, parse_unit(target, value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def output_file(text):
    """Check, before a long run starts, that a path is writable and not a device."""
    path = Path(text)
    folder = path.resolve().parent  # of a symbolic link, that of the file to which it points
    if path.exists() and not path.is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular file")
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is in a folder that does not exist")
    for target in (folder, *([path] if path.exists() else [])):
        if not os.access(target, os.W_OK):
            raise argparse.ArgumentTypeError(f"{text!r} cannot be written: {target} is read-only")
    return path


OPTIONS = {
    "demo": add_demo_options,
    "check": add_check_options,
    "fit": add_fit_options,
    "predict": add_predict_options,
    "evaluate": add_evaluate_options,
    "completion": add_completion_options,
}
