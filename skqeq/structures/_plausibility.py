"""Warnings about structures that are probably not what the user means.

A check is a function of one structure. A new check is a function, and a line in `CHECKS_OF_DATA` or
`CHECKS_OF_GEOMETRY`. No check refuses a structure, because every finding can have a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase.data import covalent_radii

from .._warnings import warn_once
from ._neighbors import neighbor_pairs
from ._total_charge import other_total_charge

if TYPE_CHECKING:
    from ase import Atoms

    from ._structure import Structure

# Bonds of carbon to carbon, nitrogen or oxygen that are longer than this are single bonds, if the
# carbon has one neighbour, and are not those of carbon chains, if it has two; Angstrom.
SINGLE_BOND, AROMATIC_BOND = 1.40, 1.34
# A carbon with two neighbours is bent if the cosine of its angle is above this value (150 degrees).
BENT = -0.87
# Hydrogen is missing if this part of the carbon atoms, and at least two, lack neighbours. In a
# peptide of alanine it is a third.
MIN_PART = 0.3
# Atoms are neighbours if their distance is below this multiple of the sum of their covalent radii.
BOND = 1.25
# Range of the distance to the nearest atom, in units of the sum of covalent radii, in molecules.
NEAREST = (0.75, 1.3)
# Range of the same number, for hydrogen atoms, if positions are in Bohr.
IN_BOHR = (1.5, 2.5)
# Boron, carbon to fluorine, silicon to chlorine, germanium to bromine, tellurium, iodine. Hydrides
# of metals have longer bonds.
NONMETALS = {5, 6, 7, 8, 9, 14, 15, 16, 17, 32, 33, 34, 35, 52, 53}
# Checks that search for neighbours examine only this many structures, to remain cheap.
MAX_SEARCHES = 100


class Finding(NamedTuple):
    """The result of one check of all structures.

    Parameters
    ----------
    name : str
        Name of the check.
    severity : {"ok", "note", "warning"}
        A warning is very probably a mistake; a note may have a reason.
    n_structures : int
        Number of structures with the fault; if there are none, number of all that were checked.
    first : int or None
        Index of the first structure with the fault, if the check looks at single structures.
    value : str
        The number or words that the check found, in the first structure or in all together.
    advice : str
        A sentence that names the fault and the remedy; empty without a fault.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq.structures import implausible_structures
    >>> benzene = molecule("C6H6")
    >>> finding = implausible_structures([benzene, benzene[:6]])[2]
    >>> finding.name, finding.severity, finding.first, finding.value
    ('hydrogen atoms', 'warning', 1, '6 of 6 carbon atoms have too few neighbours')
    """

    name: str
    severity: str
    n_structures: int
    first: int | None = None
    value: str = ""
    advice: str = ""


class Check(NamedTuple):
    """Something that can be wrong with a structure.

    Attributes
    ----------
    name : str
        Name of the check.
    look : callable
        ``look(atoms, structure)`` returns a word for messages and what was found, and two empty
        texts if there is nothing to report.
    advice : str
        The remedy, for messages; ``{}`` stands for the word.
    applies : callable
        Whether the structure needs a look. Looks that search for neighbours are limited in number.
    """

    name: str
    look: Callable[[Atoms, Structure], tuple[str, str]]
    advice: str
    applies: Callable[[Structure], bool] | None = None


class Plausibility:
    """Applies checks to structures one by one, and summarises what they found.

    Parameters
    ----------
    checks : sequence of Check, default=None
        The checks; None means all.
    """

    def __init__(self, checks: tuple[Check, ...] | None = None) -> None:
        self.checks = CHECKS if checks is None else checks
        self.n_structures = 0
        self.n_searches = {check.name: 0 for check in self.checks}
        # Number of structures, and index, formula, word and value of the first one.
        self.found: dict[str, list[Any]] = {}

    def add(self, i: int, atoms: Atoms, structure: Structure) -> None:
        """Look at structure i.

        Parameters
        ----------
        i : int
            Index of the structure.
        atoms : ase.Atoms
            The structure as the user passed it.
        structure : Structure
            The same structure after all checks that raise errors.
        """
        self.n_structures += 1
        for check in self.checks:
            if check.applies is not None:
                if not check.applies(structure) or self.n_searches[check.name] >= MAX_SEARCHES:
                    continue
                self.n_searches[check.name] += 1
            word, value = check.look(atoms, structure)
            if value:
                self.found.setdefault(check.name, [0, i, structure.symbols, word, value])[0] += 1

    def merge(self, other: Plausibility) -> None:
        """Add what was found in later structures, by a worker.

        Parameters
        ----------
        other : Plausibility
            The same checks, applied to other structures.
        """
        self.n_structures += other.n_structures
        for name, (n, *first) in other.found.items():
            self.found.setdefault(name, [0, *first])[0] += n

    def findings(self) -> list[Finding]:
        """Summarise the checks.

        Returns
        -------
        findings : list of Finding
            One per check.
        """
        return [self._finding(check) for check in self.checks]

    def _finding(self, check):
        if check.name not in self.found:
            return Finding(check.name, "ok", self.n_structures)
        n, i, symbols, word, value = self.found[check.name]
        others = "" if n == 1 else f", and {n - 1} other structures"
        advice = f"structure {i} ({symbols}){others}: {value}; {check.advice.format(word)}"
        return Finding(check.name, "warning", n, i, value, advice)

    def warn(self) -> None:
        """Warn about everything that was found, once per check."""
        for finding in self.findings() if self.found else ():
            if finding.advice:
                warn_once(finding.advice, finding.name)


# ---- data ---------------------------------------------------------------------------------------


def _other_total_charge(atoms, structure):
    key, value = other_total_charge(atoms, structure.charge)
    return key, value and f"{value}, but its total charge is {structure.charge:g}"


def _partial_occupancy(atoms, structure):
    """Occupancies other than 0 and 1 in ``info`` (CIF) or ``arrays`` (PDB)."""
    occupancy = atoms.info.get("occupancy", atoms.arrays.get("occupancy"))
    if occupancy is None:
        return "", ""
    kinds = atoms.arrays.get("spacegroup_kinds")
    if isinstance(occupancy, dict) and kinds is not None:
        # Sites whose atoms have been removed do not matter.
        present = set(map(str, kinds.tolist()))
        occupancy = [value for kind, value in occupancy.items() if str(kind) in present]
    partial = next((x for x in _numbers(occupancy) if abs(x) > 1e-3 and x < 1.0 - 1e-3), None)
    return "", "" if partial is None else f"a site has occupancy {partial:g}"


def _numbers(value: Any) -> Iterator[float]:
    """All numbers in nested containers."""
    if isinstance(value, dict):
        value = value.values()
    elif isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    elif isinstance(value, Real):
        yield float(value)
        return
    elif not isinstance(value, (list, tuple)):
        return
    for item in value:
        yield from _numbers(item)


# ---- geometry -----------------------------------------------------------------------------------


def _lacks_hydrogen(structure):
    """Whether a structure has carbon, but less than one hydrogen for two carbons."""
    if 6 not in structure.species:
        return False
    if 1 not in structure.species:
        return True
    numbers = structure.numbers.tolist()
    return 2 * numbers.count(1) < numbers.count(6)


def _missing_hydrogen(atoms, structure):
    """Carbon atoms with too few neighbours: single bonds at chain ends, and bent ones."""
    numbers = structure.numbers
    i, j, D = _bonds(structure)
    distances = np.linalg.norm(D, axis=1)
    carbons = np.flatnonzero(numbers == 6)
    n_open = 0
    for carbon in carbons[np.bincount(i, minlength=len(numbers))[carbons] <= 2]:
        bonds = np.flatnonzero(i == carbon)
        if not np.isin(numbers[j[bonds]], (6, 7, 8)).all():
            continue
        if len(bonds) == 1:
            n_open += distances[bonds[0]] > SINGLE_BOND
        elif len(bonds) == 2:
            a, b = D[bonds] / distances[bonds, None]
            n_open += a @ b > BENT and distances[bonds].mean() > AROMATIC_BOND
    if n_open < max(2, MIN_PART * len(carbons)):
        return "", ""
    return "", f"{n_open} of {len(carbons)} carbon atoms have too few neighbours"


def _can_be_in_bohr(structure):
    """Whether a structure has hydrogen and another nonmetal, and more than two atoms."""
    species = set(structure.species)
    return len(structure) > 2 and 1 in species and not NONMETALS.isdisjoint(species)


def _far_hydrogen(atoms, structure):
    """Hydrogen atoms of which not one has a bond, because all distances are too long."""
    radii = covalent_radii[structure.numbers]
    cutoff = IN_BOHR[1] * (covalent_radii[1] + radii.max())
    i, j, D = neighbor_pairs(structure, cutoff)
    hydrogen = structure.numbers[i] == 1
    if not hydrogen.any():
        return "", ""
    ratios = np.linalg.norm(D[hydrogen], axis=1) / (radii[i] + radii[j])[hydrogen]
    order = np.lexsort((ratios, i[hydrogen]))
    nearest = ratios[order[np.unique(i[hydrogen][order], return_index=True)[1]]]
    if nearest.min() < IN_BOHR[0] or np.median(nearest) > IN_BOHR[1]:
        return "", ""
    ratio = np.median(nearest)
    return "", f"the bonds of its hydrogen atoms are {ratio:.2g} times as long as in molecules"


def _is_flat(structure):
    """Whether z is 0 for all atoms of a molecule."""
    z = structure.positions[:, 2]
    return z[0] == 0.0 == z[-1] and len(z) > 3 and not structure.periodic and not z.any()


def _sketch(atoms, structure):
    """Bonds in the plane z = 0 that do not depend on the elements, or have unusual lengths.

    Planar molecules in the plane z = 0 are right; their bonds have the lengths of bonds.
    """
    i, j, D = neighbor_pairs(structure, 4.0)
    distances = np.linalg.norm(D, axis=1)
    if len(np.unique(i)) < len(structure):
        return "", ""  # separate atoms
    order = np.lexsort((distances, i))
    nearest = order[np.unique(i[order], return_index=True)[1]]
    radii = covalent_radii[structure.numbers]
    sums = radii[i[nearest]] + radii[j[nearest]]
    ratios = distances[nearest] / sums
    unusual = np.mean((ratios < NEAREST[0]) | (ratios > NEAREST[1])) > 0.2
    equal = np.ptp(distances[nearest]) < 0.005 * distances[nearest].mean()
    if unusual or (equal and np.ptp(sums) > 0.25 * sums.mean()):
        return "", "z is 0 for all atoms, and the bonds do not have the lengths of bonds"
    return "", ""


def _bonds(structure):
    """Ordered pairs of bonded atoms; see `neighbor_pairs`."""
    radii = covalent_radii[structure.numbers]
    i, j, D = neighbor_pairs(structure, BOND * 2.0 * radii.max())
    bonded = np.linalg.norm(D, axis=1) < BOND * (radii[i] + radii[j])
    return i[bonded], j[bonded], D[bonded]


CHECKS_OF_DATA = (
    Check(
        "total charge",
        _other_total_charge,
        "models read info['charge'] or info['total_charge'] only; use "
        "skqeq.with_total_charges(X, {0!r}), or --charge-key {0} on the command line",
    ),
    Check(
        "occupancy",
        _partial_occupancy,
        "all sites count as whole atoms; keep one of the alternatives, and remove 'occupancy'",
    ),
)
CHECKS_OF_GEOMETRY = (
    Check(
        "hydrogen atoms",
        _missing_hydrogen,
        "hydrogen atoms are probably missing; add them",
        _lacks_hydrogen,
    ),
    Check(
        "unit of positions",
        _far_hydrogen,
        "positions must be in Angstrom; multiply positions in Bohr by ase.units.Bohr",
        _can_be_in_bohr,
    ),
    Check(
        "flat structure",
        _sketch,
        "this is probably a drawing; make coordinates in three dimensions",
        _is_flat,
    ),
)
CHECKS = CHECKS_OF_DATA + CHECKS_OF_GEOMETRY
