"""``skqeq check``: look for mistakes in structures and labels before a fit."""

import warnings

from .. import check_labels, strip
from .._counts import counted
from ..structures import implausible_structures
from ..targets import TARGETS, MissingLabelsError, Report
from .evaluate import labels
from .files import read_numbered
from .numbering import FileNumbers
from .report import print_labels


def run(args):
    """Print a table of what was checked; the exit code is 1 if there are warnings."""
    indices, labelled = read_numbered(args.structures, args.charge_key)
    numbers = FileNumbers(indices)
    print(f"{counted(len(labelled), 'structure')} of {args.structures}")
    with numbers.messages():
        findings = find(labelled, args)
    report = Report([numbers.finding(finding) for finding in findings])
    print(f"\n{report}")
    return 0 if report else 1


def find(labelled, args):
    """Apply all checks to the structures and, if there are any, to their labels."""
    findings = implausible_structures(labelled)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the table holds the same findings
        X = strip(labelled)
    try:
        y = labels(labelled, args.targets, args.key, dict(args.unit), list(TARGETS))
    except MissingLabelsError as error:
        if args.targets or args.key or args.unit:
            raise
        print(f"no labels: {error}")
    else:
        print_labels(y, X)
        findings += check_labels(X, y).findings
    return findings
