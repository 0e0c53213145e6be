"""``skqeq predict``: structures with charges, and dipoles where they have one."""

import re

import numpy as np
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.io.formats import open_with_compression
from tqdm import tqdm

from .. import predict_targets
from ..persistence import replacing
from .files import blocks, iterate_structures, load_model

BLOCK = 256  # structures in memory at a time
LABELS = ("charges", "dipole")


def run(args):
    """Predict block by block."""
    model = load_model(args.model)
    # Every structure is seen once: its descriptor need not be kept.
    caches = [name for name in model.get_params() if name.split("__")[-1] == "cache_bytes"]
    model.set_params(**dict.fromkeys(caches, 0))
    n = 0
    with (
        replacing(args.output) as temporary,
        tqdm(desc="predict", unit=" structures", disable=args.quiet) as bar,
    ):
        with open_with_compression(str(temporary), "wt") as file:
            for block in blocks(iterate_structures(args.structures), BLOCK):
                label_block(model, block, first=n)
                write(file, block, format="extxyz")
                n += len(block)
                bar.update(len(block))
    print(f"wrote {n} structures with charges and, where defined, dipoles to {args.output}")


def label_block(model, X, first):
    """Attach predictions; messages count structures from the beginning of the file."""
    try:
        predicted = predict_targets(model, X, LABELS)
    except ValueError as error:
        number = re.compile(r"\bstructure (\d+)")
        message = number.sub(lambda match: f"structure {int(match[1]) + first}", str(error))
        raise ValueError(message) from error
    for atoms, row in zip(X, predicted, strict=True):
        # A crystal has no dipole, a slab that of its open axis at most.
        known = [name for name in LABELS if not np.isnan(row[name]).all()]
        attach(atoms, {name: row[name] for name in known})


def attach(atoms, results):
    """Set results and initial charges; labels of the same names move to ``REF_``."""
    old = {} if atoms.calc is None else atoms.calc.results
    old = {name: value for name, value in old.items() if name in all_properties}
    if "charges" in old and "REF_charges" not in atoms.arrays:
        atoms.set_array("REF_charges", old["charges"])
    if "dipole" in old:
        atoms.info.setdefault("REF_dipole", old["dipole"])
    kept = {name: value for name, value in old.items() if name not in LABELS}
    atoms.set_initial_charges(results["charges"])
    atoms.calc = SinglePointCalculator(atoms, **kept, **results)
