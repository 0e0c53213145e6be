"""``skqeq check``: look for mistakes in structures and labels before a fit."""

from .. import check_labels, strip
from ..targets import TARGETS
from .evaluate import labels
from .files import read_structures
from .report import print_labels


def run(args):
    """Print a table of what was checked; the exit code is 1 if there are warnings."""
    labelled = read_structures(args.structures)
    X = strip(labelled)
    print(f"{len(X)} structures of {args.structures}")
    y = labels(labelled, args.targets, args.key, dict(args.unit), list(TARGETS))
    print_labels(y, X)
    report = check_labels(X, y)
    print(f"\n{report}")
    return 0 if report else 1
