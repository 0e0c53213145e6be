"""The list of all checks of labels.

A new check is a class in `_label_checks` or in a file of its own, and a line in `all_checks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._bond_checks import ForcesAlongBonds
from ._duplicate_checks import EnergiesOfDuplicates
from ._energy_checks import ForcesAgainstEnergies, StressAgainstEnergies
from ._energy_unit import UnitOfEnergies
from ._findings import Finding
from ._label_checks import (
    AgainstCharges,
    EqualLabels,
    LabelCheck,
    OriginOfDipoles,
    SignOfCharges,
    SignOfDipoles,
    SizeOfDipoles,
    SumOfBornCharges,
    SumOfCharges,
    SumOfForces,
)

if TYPE_CHECKING:
    from .._typing import Array
    from ..structures import Structure

OF_CHARGES = ("dipole", "dipole_magnitude", "quadrupole", "potential")
VARYING = ("energy", "dipole", "charges", "forces")


def all_checks() -> list[LabelCheck]:
    """New objects of all checks, in the order of the table.

    Returns
    -------
    checks : list of LabelCheck
    """
    return [
        SumOfCharges(),
        SignOfCharges(),
        *(AgainstCharges(target) for target in OF_CHARGES),
        OriginOfDipoles(),
        SignOfDipoles(),
        SizeOfDipoles(),
        UnitOfEnergies(),
        EnergiesOfDuplicates(),
        ForcesAgainstEnergies(),
        StressAgainstEnergies(),
        ForcesAlongBonds(),
        SumOfForces(),
        SumOfBornCharges(),
        *(EqualLabels(target) for target in VARYING),
    ]


class LabelChecks:
    """The checks that apply to some targets.

    Parameters
    ----------
    table : ndarray of shape (n,)
        Labels in the form of `skqeq.make_targets`.
    every : bool
        Whether to run all checks, or only those of fits.
    """

    def __init__(self, table: Array, every: bool) -> None:
        self.table = table
        columns = table.dtype.names or ()
        self.checks = [
            check
            for check in all_checks()
            if set(check.needs) <= set(columns) and (check.in_fit or every)
        ]
        self.columns = [name for name in columns if not name.endswith("_sigma")]

    def add(self, i: int, structure: Structure) -> None:
        """Look at one structure.

        Parameters
        ----------
        i : int
            Index of the structure.
        structure : Structure
            The structure.
        """
        labels = {name: self.table[name][i] for name in self.columns}
        labels = {
            name: np.asarray(value)
            for name, value in labels.items()
            if value is not None and not np.isnan(value).any()
        }
        for check in self.checks:
            if set(check.needs) <= labels.keys():
                check.add(i, structure, labels)

    def findings(self) -> list[Finding]:
        """Judge all structures.

        Returns
        -------
        findings : list of Finding
            One per check.
        """
        return [check.finding() for check in self.checks]
