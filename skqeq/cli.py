"""The command line: ``skqeq demo | check | fit | predict | evaluate``."""

import argparse
import os
import sys
import textwrap
import traceback
import warnings
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from . import CURSparsifier, KQEqRegressor, SOAPFeaturizer
from ._cli import RESPONSES
from ._cli.streams import discard_output, flush_output, open_streams, print_error
from .targets import TARGETS, UNITS, parse_unit

TRUST = (
    "A model file that ends in .skqeq is safe to load: no code in it is executed. Other model "
    "files are read with joblib, which can execute code: load only files that you trust."
)
STRUCTURES = (
    "any file that ASE reads; FILE@:100 selects the first 100 structures; - is standard input, "
    "which holds extended xyz"
)
EXAMPLES = {
    "main": """
        skqeq demo
        skqeq check train.xyz
        skqeq fit train.xyz -o model.skqeq --search
        skqeq evaluate model.skqeq test.xyz --plot parity.png
        skqeq predict model.skqeq new.xyz -o charges.xyz
        ase gui charges.xyz        # View > Colors > By initial charge
        """,
    "demo": """
        skqeq demo
        skqeq demo --output figures
        """,
    "check": """
        skqeq check train.xyz
        skqeq check train.xyz --key dipole=dft_dipole --unit dipole=debye
        skqeq check train.xyz --targets energy forces --key forces=gradient \\
            --unit energy=hartree forces=-hartree/bohr
        """,
    "fit": """
        skqeq fit train.xyz -o model.skqeq
        skqeq fit train.xyz -o model.skqeq --search --group molecule
        skqeq fit train.xyz@:800 -o model.skqeq --search-r-cut
        skqeq fit train.xyz -o model.skqeq --targets dipole charges \\
            --key dipole=dft_dipole charges=mulliken --unit dipole=Debye \\
            --sigma dipole=0.01 charges=0.05
        skqeq fit train.xyz -o model.skqeq --targets energy forces dipole --gap --cutoff-width 1 \\
            --radius-scale 0.7
        """,
    "predict": """
        skqeq predict model.skqeq new.xyz -o charges.xyz
        skqeq predict model.skqeq trajectory.traj@::10 -o charges.xyz.gz
        zcat new.xyz.gz | skqeq predict model.skqeq - -o charges.traj --skip-errors
        skqeq predict model.skqeq new.xyz -o charges.xyz --std    # after skqeq fit --std
        """,
    "evaluate": """
        skqeq evaluate model.skqeq test.xyz
        skqeq evaluate model.skqeq train.xyz@800:     # after skqeq fit train.xyz@:800
        skqeq evaluate model.skqeq test.xyz --targets dipole --worst 20 --plot parity.png
        """,
}
LABELS = """\
Labels are looked up by the name of the target, such as `dipole` or `REF_dipole`, in calculator
results, columns of atoms and info; use --key for other names. Their units are e*Angstrom for
dipole, e for charges, eV for energy, eV/Angstrom for forces, and eV/Angstrom^3 for stress; use
--unit for other units. The total charge of a structure is `charge` or `total_charge` in info; use
--charge-key for another name."""

RESULTS = """\
The ending of the output decides its format: .xyz or .extxyz (extended xyz, also with .gz, .bz2 or
.xz), .traj (ASE trajectory) or .db (ASE database). The name - writes extended xyz to standard
output. The output has the order, info and cell of the input. In .traj and .db files, columns of
atoms for which ASE has no place are stored in info. Charges and dipoles are
written as results (`charges`, `dipole`), and charges also as `initial_charges`, which the ASE GUI
shows. Models that were trained on energies, forces or stress add `energy`, `forces` and, for
periodic structures, `stress`. If the input has results with the same names, these are labels; they
are renamed to `REF_charges` and so on. The exit code is 1 if structures were skipped."""


def main(argv=None):
    """Run a command.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments; None means the arguments of the process.

    Returns
    -------
    code : int
        0 for success, 1 if structures were skipped or `check` found mistakes, 2 for an error in
        arguments or files, 130 after Ctrl-C, 141 if the reader of the output closed its pipe.
    """
    open_streams()
    try:
        return _run_command(build_parser().parse_args(argv))
    except KeyboardInterrupt:
        print_error("\nskqeq: interrupted")
        return 130


def _run_command(args):
    """Run the command of the arguments, and print its errors."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = args.run(args) or 0
        flush_output()
    except BrokenPipeError:
        discard_output()
        return 141
    except (ValueError, TypeError, OSError, ImportError) as error:
        if args.debug:
            traceback.print_exc()
        message = " ".join(str(error).split()) or type(error).__name__
        print_error(f"skqeq {args.command}: error: {message}")
        discard_output()
        return 2
    return code


def _show_warning(message, *_, **__):
    with suppress(OSError):
        print(f"warning: {message}", file=sys.stderr)


def build_parser():
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="skqeq",
        description="Kernel charge equilibration: learn charges, dipoles, energies and forces.",
        epilog=f"{_examples('main')}\n\n{TRUST}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"skqeq {version('skqeq')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_check(commands)
    _add_fit(commands)
    _add_predict(commands)
    _add_evaluate(commands)
    return parser


def _examples(command):
    return "examples:\n" + textwrap.indent(textwrap.dedent(EXAMPLES[command]).strip(), "  ")


def _add_command(commands, name, summary, description="", note=""):
    """Add a command with the options that all commands have."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {description}".strip(),
        epilog="\n\n".join(filter(None, [_examples(name), note])),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bars")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=lambda args: _run(name, args))
    return parser


def _run(name, args):
    return import_module(f"skqeq._cli.{name}").run(args)


def _add_demo(commands):
    parser = _add_command(
        commands,
        "demo",
        "train a model on the bundled molecules, and draw figures",
        "Takes about a\nminute on two cores.",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("skqeq-demo"),
        metavar="DIR",
        help="folder for figures, model and held-out molecules (default: %(default)s)",
    )


def _add_check(commands):
    parser = _add_command(
        commands,
        "check",
        "look for mistakes in the structures and labels of a file",
        "Labels may have\nwrong units, signs or origins. The exit code is 1 if there are warnings.",
        note=LABELS,
    )
    parser.add_argument("structures", metavar="train.xyz", help=STRUCTURES)
    _add_found_targets(parser, "check")
    _add_charge_key(parser)
    _add_keys(parser)


def _add_found_targets(parser, verb):
    parser.add_argument(
        "--targets",
        nargs="+",
        choices=list(TARGETS),
        metavar="TARGET",
        help=f"targets to {verb} (default: every target with labels)",
    )


def _add_fit(commands):
    parser = _add_command(
        commands,
        "fit",
        "train a model on a file of labelled structures",
        note=f"{LABELS}\n\n{TRUST}",
    )
    add = parser.add_argument
    add("structures", metavar="train.xyz", help=STRUCTURES)
    add("-o", "--output", type=output_file, required=True, metavar="model.skqeq")
    add(
        "--targets",
        nargs="+",
        default=["dipole"],
        choices=list(TARGETS),
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
        help="store the data that `skqeq predict --std` needs for standard deviations; the model "
        "file becomes larger",
    )


def _add_features(parser):
    soap = SOAPFeaturizer()
    parser.add_argument(
        "--r-cut",
        nargs="+",
        type=float,
        default=soap.r_cut,
        metavar="R",
        help=f"cutoffs of the descriptor, Angstrom {_default(soap.r_cut)}",
    )
    parser.add_argument(
        "--cutoff-width",
        type=float,
        metavar="W",
        help="width of the shell below the cutoff in which the cutoff function decays, Angstrom; "
        "without it, forces jump when an atom crosses the cutoff",
    )
    _add_count(parser, "--n-max", soap.n_max, "number of radial functions")
    _add_count(parser, "--l-max", soap.l_max, "largest angular momentum")
    _add_count(parser, "--n-points", CURSparsifier().n_points, "sparse points per element")


def _add_charge_model(parser):
    parser.add_argument(
        "--response",
        choices=list(RESPONSES),
        default="qeq",
        help="how the charges are computed from the learned fields: qeq, charge equilibration of "
        "all atoms; flow, charge flow between neighbours from learned reference charges (default: "
        "qeq)",
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
    model = KQEqRegressor()
    defaults = [f"{name}={getattr(model, f'sigma_{name}'):g}" for name in TARGETS]
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
    responses = {key: response() for key, response in RESPONSES.items()}
    defaults = {key: getattr(r, name) for key, r in responses.items() if hasattr(r, name)}
    if len(set(defaults.values())) == 1:
        text = _default(set(defaults.values()))
    else:
        text = _default([", ".join(f"{value} for {key}" for key, value in defaults.items())])
    parser.add_argument(option, type=float, metavar=metavar, help=f"{meaning} {text}")


def _add_search(parser):
    add = parser.add_argument
    add("--search", action="store_true", help="choose sigma near --sigma by cross-validation")
    add(
        "--search-r-cut",
        action="store_true",
        help="choose cutoffs near --r-cut as well, which takes three times as long",
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
        default=5,
        metavar="K",
        help="number of folds of the search (default: 5)",
    )


def _add_count(parser, option, default, meaning):
    text = f"{meaning} {_default([default])}"
    parser.add_argument(option, type=int, default=default, metavar="N", help=text)


def _default(values):
    return f"(default: {' '.join(map(str, values))})"


def _add_predict(commands):
    parser = _add_command(
        commands,
        "predict",
        "write structures with predicted charges, dipoles, energies and forces",
        note=f"{RESULTS}\n\n{TRUST}",
    )
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
        "--handle-unknown",
        choices=["error", "prior"],
        help="structures with elements that the training data lack: refuse them (the default of "
        "models), or take charges and dipoles from the prior",
    )


def _add_evaluate(commands):
    parser = _add_command(
        commands,
        "evaluate",
        "print the errors of a model on labelled structures",
        note=f"{LABELS}\n\n{TRUST}",
    )
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


def _add_model(parser, structures):
    parser.add_argument("model", metavar="model.skqeq", help="from `skqeq fit`")
    parser.add_argument("structures", metavar=structures, help=STRUCTURES)
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


def unit(text):
    """Parse ``target=unit``, and convert the unit to a number in e, eV and Angstrom."""
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


if __name__ == "__main__":
    sys.exit(main())
