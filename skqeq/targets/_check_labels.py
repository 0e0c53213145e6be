"""Check labels before a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..structures import collect
from ._findings import Report
from ._labels import Labels

if TYPE_CHECKING:
    from .._typing import LabelsLike, StructuresLike


def check_labels(X: StructuresLike, y: LabelsLike) -> Report:
    """Look for wrong units, signs and origins in labels.

    The checks compare labels with each other and with the structures: charges with the total
    charge, moments with the charges, forces with the energies of nearby geometries. Fits run those
    checks that are certain, and warn; this function runs all of them.

    Parameters
    ----------
    X : sequence of ase.Atoms
        Structures.
    y : structured array, array of shape (n, 3), list of dict or DataFrame
        Labels, see `skqeq.make_targets`; a plain array holds dipoles in e*Angstrom.

    Returns
    -------
    report : Report
        Prints as a table. Its list ``findings`` has one entry per check, with the attributes
        ``name``, ``severity``, ``n_structures``, ``first``, ``value`` and ``advice``. It is true if
        there are no warnings.

    Raises
    ------
    ValueError
        If the labels do not fit the structures.

    Examples
    --------
    Dipoles in Debye are 4.8 times as large as those in e*Angstrom:

    >>> from skqeq import check_labels, make_targets
    >>> from skqeq.datasets import load_molecules
    >>> X, y = load_molecules()
    >>> bool(check_labels(X, y))
    True
    >>> wrong = make_targets(dipole=4.803 * y["dipole"], charges=y["charges"])
    >>> [finding.name for finding in check_labels(X, wrong).warnings]
    ['dipole of charges']
    """
    return Report(Labels(y, collect(X), all_checks=True).findings)
