"""``skqeq predict``: structures with charges, and with what else they have and the model knows."""

import re

from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.io.formats import open_with_compression
from tqdm import tqdm

from .. import predict_std, predict_targets
from .._memory import BUDGET
from ..metrics import has_label
from ..persistence import replacing
from ..targets import ENERGIES, TARGETS
from .evaluate import known_targets
from .files import blocks, iterate_structures, load_model

BLOCK = 256  # structures in memory at a time


def run(args):
    """Predict block by block."""
    model = load_model(args.model)
    names = predicted_names(model)
    n = 0
    with (
        BUDGET.limited(0),  # every structure is seen once, so nothing is worth keeping
        replacing(args.output) as temporary,
        tqdm(desc="predict", unit=" structures", disable=args.quiet) as bar,
    ):
        with open_with_compression(str(temporary), "wt") as file:
            for block in blocks(iterate_structures(args.structures), BLOCK):
                label_block(model, block, names, first=n, std=args.std)
                write(file, block, format="extxyz")
                n += len(block)
                bar.update(len(block))
    what = ", ".join(names) + (" and standard deviations" if args.std else "")
    print(f"wrote {n} structures with {what}, where defined, to {args.output}")


def predicted_names(model):
    """Targets to write: energies and what derives from them if the model learned any of it."""
    names = known_targets(model)
    return tuple(name for name in ("charges", "dipole", *ENERGIES) if name in names)


def label_block(model, X, names, first, *, std):
    """Attach predictions; messages count structures from the beginning of the file."""
    try:
        predicted = predict_targets(model, X, names)
        doubt = predict_std(model, X, names) if std else [None] * len(X)
    except ValueError as error:
        number = re.compile(r"\bstructure (\d+)")
        message = number.sub(lambda match: f"structure {int(match[1]) + first}", str(error))
        raise ValueError(message) from error
    for atoms, row, unsure in zip(X, predicted, doubt, strict=True):
        attach(atoms, {name: row[name] for name in names})
        attach_std(atoms, {name: None if unsure is None else unsure[name] for name in names})


def attach_std(atoms, results):
    """Standard deviations as ``<name>_std`` in info or, of every atom, in arrays."""
    for name, value in results.items():
        key = f"{name}_std"
        # None of another model may stay.
        atoms.arrays.pop(key, None)
        atoms.info.pop(key, None)
        if not has_label(value):
            continue
        (atoms.arrays if TARGETS[name].shape is None else atoms.info)[key] = value


def attach(atoms, results):
    """Set results and initial charges; labels of the same names move to ``REF_``."""
    old = {} if atoms.calc is None else atoms.calc.results
    old = {name: value for name, value in old.items() if name in all_properties}
    for name in old.keys() & results.keys():
        if TARGETS[name].shape is not None:
            atoms.info.setdefault(f"REF_{name}", old[name])
        elif f"REF_{name}" not in atoms.arrays:
            atoms.set_array(f"REF_{name}", old[name])
    kept = {name: value for name, value in old.items() if name not in results}
    if "energy" in results:
        kept.pop("free_energy", None)  # that of another method
    # A crystal has no dipole, a slab that of its open axis; a molecule has no stress.
    known = {name: value for name, value in results.items() if has_label(value)}
    atoms.set_initial_charges(results["charges"])
    atoms.calc = SinglePointCalculator(atoms, **kept, **known)
