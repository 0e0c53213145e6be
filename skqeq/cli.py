"""The command line: ``skqeq demo | fit | predict | evaluate``."""

import argparse
import math
import sys
import textwrap
import traceback
import warnings
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import ase.units

from . import CURSparsifier, KQEqRegressor, SOAPFeaturizer
from .targets import TARGETS

TRUST = (
    "Model files that end in .skqeq execute nothing when they are loaded. Others are files of "
    "joblib, which execute code: load only trusted ones."
)
# Not all names of ase.units: its A is the ampere.
UNITS = (
    "Debye", "Bohr", "Ang", "Angstrom", "nm", "eV", "Hartree", "Ha", "Rydberg", "Ry", "kcal", "kJ",
    "mol", "GPa", "C", "m",
)  # fmt: skip
EXAMPLES = {
    "main": """
        skqeq demo
        skqeq fit train.xyz -o model.skqeq --search
        skqeq evaluate model.skqeq test.xyz --plot parity.png
        skqeq predict model.skqeq new.xyz -o charges.xyz
        ase gui charges.xyz        # View > Colors > By initial charge
        """,
    "demo": """
        skqeq demo
        skqeq demo --output figures
        """,
    "fit": """
        skqeq fit train.xyz -o model.skqeq
        skqeq fit train.xyz -o model.skqeq --search --group molecule
        skqeq fit train.xyz@:800 -o model.skqeq --search-r-cut
        skqeq fit train.xyz -o model.skqeq --targets dipole charges \\
            --key dipole=dft_dipole charges=mulliken --unit dipole=Debye \\
            --sigma dipole=0.01 charges=0.05
        skqeq fit train.xyz -o model.skqeq --targets energy forces --hardness 8 --cutoff-width 1
        """,
    "predict": """
        skqeq predict model.skqeq new.xyz -o charges.xyz
        skqeq predict model.skqeq trajectory.traj@::10 -o charges.xyz.gz
        skqeq predict model.skqeq new.xyz -o charges.xyz --std    # after skqeq fit --std
        """,
    "evaluate": """
        skqeq evaluate model.skqeq test.xyz
        skqeq evaluate model.skqeq train.xyz@800:     # after skqeq fit train.xyz@:800
        skqeq evaluate model.skqeq test.xyz --targets dipole --worst 20 --plot parity.png
        """,
}
LABELS = """\
Labels are looked up as `dipole` or `REF_dipole` and so on, in calculator results, atom columns and
info; --key gives other names. Units: dipole e*Angstrom, charges e, energy eV, forces eV/Angstrom,
stress eV/Angstrom^3; --unit says what else they are in. The total charge is info `charge` or
`total_charge`."""

RESULTS = """\
The output is extended xyz: order, info and cell stay. Charges are written as results (`charges`,
`dipole`) and as `initial_charges`, which the ASE GUI shows; of models trained on energies, forces
or stress also `energy`, `forces` and, with a cell, `stress`. Results of these names in the input
are labels and are kept as `REF_charges` and so on."""


def main(argv=None):
    """Run a command.

    Parameters
    ----------
    argv : list of str, default=None
        The arguments; None means those of the process.

    Returns
    -------
    code : int
        0, or 2 after an error in what was given, or 130 after Ctrl-C.
    """
    args = build_parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            args.run(args)
        except KeyboardInterrupt:
            print("\nskqeq: interrupted", file=sys.stderr)
            return 130
        except (ValueError, TypeError, OSError, ImportError) as error:
            if args.debug:
                traceback.print_exc()
            message = " ".join(str(error).split()) or type(error).__name__
            print(f"skqeq {args.command}: error: {message}", file=sys.stderr)
            return 2
    return 0


def _show_warning(message, *_, **__):
    print(f"warning: {message}", file=sys.stderr)


def build_parser():
    """Parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="skqeq",
        description="Kernel charge equilibration: learn charges, dipoles, energies and forces.",
        epilog=f"{_examples('main')}\n\n{TRUST}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"skqeq {version('skqeq')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_fit(commands)
    _add_predict(commands)
    _add_evaluate(commands)
    return parser


def _examples(command):
    return "examples:\n" + textwrap.indent(textwrap.dedent(EXAMPLES[command]).strip(), "  ")


def _add_command(commands, name, summary, description="", note=""):
    """A subparser with what all commands share."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {description}".strip(),
        epilog="\n\n".join(filter(None, [_examples(name), note])),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bars")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    parser.set_defaults(run=lambda args: _run(name, args))
    return parser


def _run(name, args):
    import_module(f"skqeq._cli.{name}").run(args)


def _add_demo(commands):
    parser = _add_command(
        commands,
        "demo",
        "train on the bundled molecules and draw what was learned",
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


def _add_fit(commands):
    parser = _add_command(
        commands,
        "fit",
        "train a model on a file of labelled structures",
        note=f"{LABELS}\n\n{TRUST}",
    )
    add = parser.add_argument
    add("structures", metavar="train.xyz", help="any file ASE reads; FILE@:100 takes a part")
    add("-o", "--output", type=output_file, required=True, metavar="model.skqeq")
    add(
        "--targets",
        nargs="+",
        default=["dipole"],
        choices=list(TARGETS),
        metavar="TARGET",
        help=f"what to learn, of {', '.join(TARGETS)} (default: dipole)",
    )
    _add_keys(parser)
    soap, kqeq = SOAPFeaturizer(), KQEqRegressor()
    cutoffs = {"nargs": "+", "type": float, "default": soap.r_cut, "metavar": "R"}
    add("--r-cut", **cutoffs, help=f"cutoffs of the descriptor, Angstrom {_default(soap.r_cut)}")
    add(
        "--cutoff-width",
        type=float,
        metavar="W",
        help="width over which neighbours fade out within the cutoffs, Angstrom; without it forces "
        "jump where an atom crosses the edge",
    )
    _add_count(parser, "--n-max", soap.n_max, "radial functions")
    _add_count(parser, "--l-max", soap.l_max, "largest angular momentum")
    _add_count(parser, "--n-points", CURSparsifier().n_points, "sparse points per element")
    _add_number(parser, "--hardness", kqeq.hardness, "J", "hardness of all elements, eV/e^2")
    meaning = "width of the charges in units of the atomic radius"
    _add_number(parser, "--radius-scale", kqeq.radius_scale, "S", meaning)
    add(
        "--response",
        choices=["qeq", "flow"],
        default="qeq",
        help="how charges follow: by charge equilibration, or by flow between neighbours from "
        "reference charges that are learned too (default: qeq)",
    )
    known = [f"{name}={getattr(kqeq, f'sigma_{name}'):g}" for name in TARGETS]
    noise = {"nargs": "+", "type": number, "default": [], "metavar": "TARGET=SIGMA"}
    add("--sigma", **noise, help=f"noise of the labels, in their units {_default(known)}")
    add("--search", action="store_true", help="choose sigma around --sigma by cross-validation")
    add(
        "--search-r-cut",
        action="store_true",
        help="choose cutoffs around --r-cut as well, which takes three times as long",
    )
    add(
        "--group",
        metavar="KEY",
        help="info key of which equal values stay in one fold, such as copies of one molecule",
    )
    add("--folds", type=int, default=5, metavar="K", help="folds of the search (default: 5)")
    add(
        "--std",
        action="store_true",
        help="keep what standard deviations of predictions need, for `skqeq predict --std`; makes "
        "the file larger",
    )


def _add_count(parser, option, default, meaning):
    text = f"{meaning} {_default([default])}"
    parser.add_argument(option, type=int, default=default, metavar="N", help=text)


def _add_number(parser, option, default, metavar, meaning):
    text = f"{meaning} {_default([default])}"
    parser.add_argument(option, type=float, default=default, metavar=metavar, help=text)


def _default(values):
    return f"(default: {' '.join(map(str, values))})"


def _add_predict(commands):
    parser = _add_command(
        commands,
        "predict",
        "write structures with predicted charges and dipoles, and energies and forces",
        note=f"{RESULTS}\n\n{TRUST}",
    )
    _add_model(parser, "in.xyz")
    parser.add_argument("-o", "--output", type=output_file, required=True, metavar="out.xyz")
    parser.add_argument(
        "--std",
        action="store_true",
        help="also write standard deviations, as charges_std, dipole_std and so on; the model must "
        "have been fitted with --std",
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
    add(
        "--targets",
        nargs="+",
        choices=list(TARGETS),
        metavar="TARGET",
        help="what to compare (default: every target with labels)",
    )
    _add_keys(parser)
    add(
        "--worst",
        type=int,
        default=10,
        metavar="N",
        help="how many of the worst structures to list (default: 10)",
    )
    add("--plot", type=output_file, metavar="parity.png", help="draw a parity plot")


def _add_model(parser, structures):
    parser.add_argument("model", metavar="model.skqeq", help="from `skqeq fit`")
    parser.add_argument(
        "structures", metavar=structures, help="any file ASE reads; FILE@:100 takes a part"
    )


def _add_keys(parser):
    parser.add_argument(
        "--key",
        nargs="+",
        type=assignment,
        default=[],
        metavar="TARGET=KEY",
        help="names of labels in the file",
    )
    parser.add_argument(
        "--unit",
        nargs="+",
        type=unit,
        default=[],
        metavar="TARGET=UNIT",
        help="units of labels that are not in e, eV and Angstrom, such as dipole=Debye "
        f"energy=Hartree forces=Hartree/Bohr: of numbers and {', '.join(UNITS)}",
    )


def assignment(text):
    """``target=value`` as a pair."""
    target, equals, value = text.partition("=")
    if not equals or not value or target not in TARGETS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not TARGET=VALUE with a target of {', '.join(TARGETS)}"
        )
    return target, value


def number(text):
    """``target=number`` as a pair."""
    target, value = assignment(text)
    try:
        return target, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number") from None


def unit(text):
    """``target=unit`` as a pair of the target and the size of the unit in e, eV and Angstrom."""
    target, value = assignment(text)
    sizes = []
    for name in value.split("/"):
        try:
            sizes.append(getattr(ase.units, name) if name in UNITS else float(name))
            if not 0 < sizes[-1] < math.inf:
                raise ValueError
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{name!r} is neither a positive number nor one of {', '.join(UNITS)}"
            ) from None
    return target, sizes[0] / math.prod(sizes[1:])


def output_file(text):
    """A path that can be written: a long run must not fail at its end, nor replace a device."""
    path = Path(text)
    if path.exists() and not path.is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} lies in a folder that does not exist")
    return path


if __name__ == "__main__":
    sys.exit(main())
