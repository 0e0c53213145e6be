"""``skqeq predict``: write structures with predicted charges and other targets."""

import re

import numpy as np
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.io.formats import open_with_compression
from tqdm import tqdm

from .. import predict_std, predict_targets
from .._memory import BUDGET
from ..models import predict_for_scores, unwrap
from ..persistence import replacing
from ..targets import ENERGIES, TARGETS
from .evaluate import predictable_targets
from .files import blocks, iterate_structures, load_model

BLOCK = 256  # structures in memory at a time


def run(args):
    """Predict and write block by block, because a file may be larger than the memory."""
    model = load_model(args.model)
    if args.handle_unknown is not None:
        unwrap(model)[1].set_params(handle_unknown=args.handle_unknown)
    names = predicted_names(model)
    n = 0
    with (
        BUDGET.limited(0),  # every structure is predicted once, so caching would not help
        replacing(args.output) as temporary,
        tqdm(desc="predict", unit=" structures", disable=args.quiet) as bar,
    ):
        with open_with_compression(str(temporary), "wt") as file:
            for block in blocks(iterate_structures(args.structures, args.charge_key), BLOCK):
                label_block(model, block, names, first=n, std=args.std)
                write(file, block, format="extxyz")
                n += len(block)
                bar.update(len(block))
    written = ", ".join(names) + (" and standard deviations" if args.std else "")
    print(f"wrote {n} structures with {written}, where defined, to {args.output}")


def predicted_names(model):
    """Names of the targets to write."""
    names = predictable_targets(model)
    return tuple(name for name in ("charges", "dipole", *ENERGIES) if name in names)


def label_block(model, X, names, first, *, std):
    """Attach predictions to a block of structures; `first` is the number of its first structure."""
    try:
        # Energies of structures with unknown elements have no prior; the others are predicted.
        prior = unwrap(model)[1].handle_unknown == "prior"
        predicted = (predict_for_scores if prior else predict_targets)(model, X, names)
        names_of_std = [name for name in names if not (prior and name in ENERGIES)] if std else []
        deviations = predict_std(model, X, names_of_std) if std else None
    except ValueError as error:
        # The message counts structures from the beginning of the block, and users count from the
        # beginning of the file.
        number = re.compile(r"\bstructure (\d+)")
        message = number.sub(lambda match: f"structure {int(match[1]) + first}", str(error))
        raise ValueError(message) from error
    for i, atoms in enumerate(X):
        results = {name: predicted[name][i] for name in names}
        attach(atoms, {name: value for name, value in results.items() if value is not None})
        stds = {name: deviations[name][i] for name in names_of_std}
        attach_std(atoms, dict.fromkeys(names) | stds)


def attach_std(atoms, deviations):
    """Store standard deviations as ``<name>_std``, in arrays if there is one per atom, or in info.

    None removes the standard deviation of an earlier prediction.
    """
    for name, value in deviations.items():
        key = f"{name}_std"
        atoms.arrays.pop(key, None)
        atoms.info.pop(key, None)
        if value is None or np.isnan(value).all():
            continue
        (atoms.arrays if TARGETS[name].shape is None else atoms.info)[key] = value


def attach(atoms, results):
    """Set results and initial charges; rename labels with the same names to ``REF_<name>``."""
    labels = {} if atoms.calc is None else atoms.calc.results
    labels = {name: value for name, value in labels.items() if name in all_properties}
    for name in labels.keys() & results.keys():
        if TARGETS[name].shape is not None:
            atoms.info.setdefault(f"REF_{name}", labels[name])
        elif f"REF_{name}" not in atoms.arrays:
            atoms.set_array(f"REF_{name}", labels[name])
    others = {name: value for name, value in labels.items() if name not in results}
    if "energy" in results:
        # The free energy of the input does not belong to the predicted energy.
        others.pop("free_energy", None)
    # Some results are undefined: the dipole of a crystal, the stress of a molecule.
    defined = {name: value for name, value in results.items() if not np.isnan(value).all()}
    atoms.set_initial_charges(results["charges"])
    atoms.calc = SinglePointCalculator(atoms, **others, **defined)
