"""``skqeq predict``: write structures with predicted charges and other targets."""

import sys

import numpy as np
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from tqdm import tqdm

from .. import predict_interval, predict_std, predict_targets
from .._counts import counted
from .._memory import BUDGET
from ..models import predict_for_scores, unwrap
from ..targets import ENERGIES, TARGETS
from .files import blocks, load_model, predictable_targets
from .inputs import STDIO, entries
from .numbering import FileNumbers
from .outputs import WRITERS, check_output, structure_writer

BLOCK = 256  # structures in memory at a time


def run(args):
    """Predict and write block by block, because a file may be larger than the memory.

    Returns
    -------
    code : int
        1 if structures were skipped, else 0.
    """
    if str(args.output) != STDIO:
        check_output(args.output, WRITERS, [args.model, args.structures])
    model = load_model(args.model, allow_pickle=args.allow_pickle)
    if args.handle_unknown is not None:
        unwrap(model)[1].set_params(handle_unknown=args.handle_unknown)
    names = predicted_names(model)
    skip, wanted = Skip(args.skip_errors), Wanted(model, args.std, args.interval)
    n = 0
    with (
        BUDGET.limited(0),  # every structure is predicted once, so caching would not help
        structure_writer(args.output) as write_structures,
        tqdm(desc="predict", unit=" structures", disable=args.quiet) as bar,
    ):
        for block in blocks(readable(args.structures, args.charge_key, skip), BLOCK):
            labelled = label_block(model, block, names, skip, wanted)
            if labelled:
                write_structures(labelled)
            n += len(labelled)
            bar.update(len(block))
        if n == 0:
            what = "holds no structures" if skip.n == 0 else "holds only structures with errors"
            raise ValueError(f"{args.structures} {what}")
    written = ", ".join(names) + (" and standard deviations" if args.std else "")
    if wanted.intervals:
        written += f" and intervals of {', '.join(wanted.intervals)}"
    skipped = f"; skipped {skip.n} with errors" if skip.n else ""
    print(
        f"wrote {counted(n, 'structure')} with {written}, where defined, to {args.output}{skipped}",
        file=sys.stderr if str(args.output) == STDIO else sys.stdout,
    )
    return int(skip.n > 0)


class Skip:
    """Handles errors of single structures: raises them, or prints and counts them.

    Parameters
    ----------
    enabled : bool
        Whether to skip structures with errors.

    Attributes
    ----------
    n : int
        Number of structures that were skipped.
    """

    def __init__(self, enabled):
        self.enabled, self.n = enabled, 0

    def __call__(self, error):
        if not self.enabled:
            raise error
        self.n += 1
        tqdm.write(f"skipped: {' '.join(str(error).split())}", file=sys.stderr)


def readable(path, charge_key, skip):
    """Yield the index in the file and the structure, for all structures that can be read."""
    found = entries(path, charge_key, damaged=skip.enabled)
    while True:
        try:
            i, read = next(found)
            atoms = read()
        except StopIteration:
            return
        except ValueError as error:
            skip(error)
        else:
            yield i, atoms


def predicted_names(model):
    """Names of the targets to write."""
    names = predictable_targets(model)
    return tuple(name for name in ("charges", "dipole", *ENERGIES) if name in names)


def label_block(model, block, names, skip, wanted):
    """Attach predictions to structures with their indices; return the structures that worked."""
    try:
        predict_block(model, block, names, wanted)
    except (ValueError, TypeError) as error:
        if not skip.enabled or len(block) == 1:
            skip(error)
            return []
        # One structure of the block failed: predict each of them alone.
        return [
            atoms for entry in block for atoms in label_block(model, [entry], names, skip, wanted)
        ]
    return [atoms for _, atoms in block]


def predict_block(model, block, names, wanted):
    """Attach predictions to a block of structures with their indices in the file."""
    indices, X = map(list, zip(*block, strict=True))
    with FileNumbers(indices).messages():
        # Energies of structures with unknown elements have no prior; the others are predicted.
        prior = unwrap(model)[1].handle_unknown == "prior"
        predicted = (predict_for_scores if prior else predict_targets)(model, X, names)
        known = [name for name in names if not (prior and name in ENERGIES)]
        errors = wanted.columns(model, X, known)
    for i, atoms in enumerate(X):
        results = {name: predicted[name][i] for name in names}
        attach(atoms, {name: value for name, value in results.items() if value is not None})
        attach_errors(atoms, names, {key: column[i] for key, column in errors.items()})


class Wanted:
    """Standard deviations and intervals that the user asks for.

    Parameters
    ----------
    model : estimator
        The model.
    std : bool
        Whether standard deviations are written.
    coverage : float or None
        Coverage of the intervals; None means no intervals.

    Attributes
    ----------
    intervals : list of str
        Targets whose intervals are written: those with left-out errors.
    """

    def __init__(self, model, std, coverage):
        self.std, self.coverage = std, coverage
        self.intervals = []
        if coverage is not None:
            last = unwrap(model)[1]
            last.check_calibrated([], coverage)
            self.intervals = list(last.calibration_)

    def columns(self, model, X, names):
        """A dict from keys such as ``dipole_std`` to one value per structure."""
        columns = {}
        if self.std:
            deviations = predict_std(model, X, names)
            columns |= {f"{name}_std": deviations[name] for name in names}
        some = [name for name in self.intervals if name in names]
        if some:
            ends = predict_interval(model, X, self.coverage, some)
            for end, table in zip(("lower", "upper"), ends, strict=True):
                columns |= {f"{name}_{end}": table[name] for name in some}
        return columns


def attach_errors(atoms, names, values):
    """Store standard deviations and intervals, in arrays if there is one per atom, or in info.

    Standard deviations and intervals that an earlier prediction stored are removed.
    """
    for name in names:
        for kind in ("std", "lower", "upper"):
            key = f"{name}_{kind}"
            atoms.arrays.pop(key, None)
            atoms.info.pop(key, None)
            value = values.get(key)
            if value is not None and not np.isnan(value).all():
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
