"""Checks of labels that look at one structure after another.

A check collects numbers in `add` and judges them in `finding`. Every check has limits that leave
room for the differences between population analyses and between levels of theory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from .._counts import counted
from ..parameters import qeq_electronegativities
from ._findings import Finding
from ._observables import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._typing import Array
    from ..structures import Structure

# Charges miss a total charge if they sum to another whole number within this tolerance, e. The
# wider tolerance is for data sets whose charges sum to whole numbers only so closely.
SUM_TOLERANCE, WIDE_TOLERANCE = 0.005, 0.05
# Smallest number of structures for a check of all structures together.
MIN_STRUCTURES = 5
# Two quantities agree in their unit if their ratio is between 1 / MAX_RATIO and MAX_RATIO.
MAX_RATIO = 3.0
# A ratio has a meaning only if the quantities are correlated at least so strongly.
MIN_CORRELATION = 0.9
# Atomic numbers of elements whose compounds with each other are covalent.
NON_METALS = (1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 34, 35, 53)


class LabelCheck(ABC):
    """Something that can be wrong with labels.

    Attributes
    ----------
    name : str
        Name of the check.
    needs : tuple of str
        Targets without which there is nothing to check.
    in_fit : bool
        Whether fits run this check.
    """

    name: str
    needs: tuple[str, ...]
    in_fit = True

    @abstractmethod
    def add(self, i: int, structure: Structure, labels: Mapping[str, Array]) -> None:
        """Look at one structure.

        Parameters
        ----------
        i : int
            Index of the structure.
        structure : Structure
            The structure.
        labels : dict of {str: ndarray}
            Its complete labels, in the form of `skqeq.make_targets`, with all that are needed.
        """

    @abstractmethod
    def finding(self) -> Finding:
        """Judge all structures.

        Returns
        -------
        finding : Finding
        """

    def ok(self, n_structures: int, value: str = "") -> Finding:
        """The finding that nothing is wrong.

        Parameters
        ----------
        n_structures : int
            Number of structures that could be checked.
        value : str, default=""
            The number or words that the check found.

        Returns
        -------
        finding : Finding
        """
        return Finding(self.name, "ok", n_structures, None, value if n_structures else "")


class SumOfCharges(LabelCheck):
    """Charges sum to the total charge."""

    name, needs = "sum of charges", ("charges",)

    def __init__(self):
        self.errors, self.others = [], []

    def add(self, i, structure, labels):
        total = labels["charges"].sum()
        excess = total - structure.charge
        error = abs(excess - round(excess))
        self.errors.append(error)
        if round(excess) and error < WIDE_TOLERANCE:
            electrons = structure.numbers.sum() - structure.charge
            populations = abs(abs(total) - electrons) < WIDE_TOLERANCE
            self.others.append((i, structure, total, error, populations))

    def finding(self):
        usual = np.quantile(self.errors, 0.75) if self.errors else 0.0
        tolerance = WIDE_TOLERANCE if usual < WIDE_TOLERANCE else SUM_TOLERANCE
        wrong = [other for other in self.others if other[3] < tolerance]
        if not wrong:
            return self.ok(len(self.errors))
        n, (i, structure, total, _, _) = len(wrong), wrong[0]
        help_ = "set atoms.info['charge'] of ions"
        if all(other[4] for other in wrong):
            help_ = "these are numbers of electrons: subtract them from the atomic numbers"
        advice = (
            f"in {counted(n, 'structure')} the charges sum to a whole number that is not the total "
            f"charge; the first is structure {i} ({structure.symbols}), whose total charge is "
            f"{structure.charge:g} and whose charges sum to {total:.3g}; {help_}"
        )
        return Finding(self.name, "warning", n, i, f"{total:.3g} e", advice)


class SignOfCharges(LabelCheck):
    """Fluorine, or oxygen if there is no fluorine, is negative in compounds."""

    name, needs = "sign of charges", ("charges",)

    def __init__(self):
        self.means = []

    def add(self, i, structure, labels):
        numbers = structure.numbers
        anion = 9 if 9 in numbers else 8
        if anion in numbers and (numbers != anion).any():
            excess = structure.charge / len(numbers)
            self.means.append(labels["charges"][numbers == anion].mean() - excess)

    def finding(self):
        n = len(self.means)
        mean = np.mean(self.means) if n else 0.0
        if n < MIN_STRUCTURES or min(mean, np.median(self.means)) < 0.15:
            return self.ok(n)
        advice = (
            f"the charge of oxygen or fluorine is {mean:.2g} e on average; a positive charge means "
            "that electrons are missing: multiply by -1, or use a unit of -1"
        )
        return Finding(self.name, "warning", n, None, f"{mean:.2g} e", advice)


class AgainstCharges(LabelCheck):
    """A moment or potential has the unit and the sign of that of the charge labels.

    Parameters
    ----------
    target : str
        A target that follows from the charges.
    """

    def __init__(self, target: str) -> None:
        self.target, self.needs = target, ("charges", target)
        self.name = f"{target} of charges"
        self.products: list[tuple[float, float, float]] = []

    def add(self, i, structure, labels):
        shift = _origin_shift(structure)
        if structure.periodic or (shift.any() and self.target == "dipole_magnitude"):
            return
        target, label = TARGETS[self.target], np.ravel(labels[self.target])
        widths = np.full(len(structure), 0.3)  # Angstrom; points of potentials are farther away
        of_charges = target.value(target.operator(structure, widths) @ labels["charges"])
        if shift.any() and self.target == "dipole":
            # A wrong origin does not change these components, see `OriginOfDipoles`.
            orthogonal = np.eye(3) - np.outer(shift, shift) / (shift @ shift)
            label, of_charges = orthogonal @ label, orthogonal @ of_charges
        self.products.append((of_charges @ label, of_charges @ of_charges, label @ label))

    def finding(self):
        n = len(self.products)
        if n < MIN_STRUCTURES:
            return self.ok(n)
        both, of_charges, of_labels = np.sum(self.products, axis=0)
        if abs(both) <= MIN_CORRELATION * np.sqrt(of_charges * of_labels):
            return self.ok(n, "not correlated")
        ratio = both / of_charges
        if 1.0 / MAX_RATIO < ratio < MAX_RATIO:
            return self.ok(n, f"{ratio:.2g} times")
        unit = TARGETS[self.target].unit
        advice = (
            f"the {self.target} labels are {ratio:.2g} times the values that were computed from "
            f"the charge labels; they must be in {unit}"
        )
        if "dipole" in self.target and ratio > 1:
            advice += f"; for labels in Debye use the unit {self.target}=debye"
        elif "dipole" in self.target and ratio > 0:
            advice += "; perhaps the unit Debye was given for labels that are not in Debye"
        if ratio < 0:
            advice += " and point from negative to positive charge" * (self.target == "dipole")
            advice += "; a unit of -1 reverses their sign"
        return Finding(self.name, "warning", n, None, f"{ratio:.2g} times", advice)


class OriginOfDipoles(LabelCheck):
    """Dipoles of ions are about the centre of mass, and not about the coordinate origin.

    About the origin, the dipole is larger by the total charge times the centre of mass.
    """

    name, needs = "origin of dipoles", ("dipole",)

    def __init__(self):
        self.products, self.first = [], None

    def add(self, i, structure, labels):
        shift = _origin_shift(structure)
        if structure.periodic or not shift.any():
            return
        difference = labels["dipole"].copy()
        if "charges" in labels:
            difference -= labels["charges"] @ (structure.positions - structure.center_of_mass)
        self.first = i if self.first is None else self.first
        self.products.append((difference @ shift, difference @ difference, shift @ shift))

    def finding(self):
        n = len(self.products)
        if n < MIN_STRUCTURES:
            return self.ok(n)
        both, of_labels, of_shifts = np.sum(self.products, axis=0)
        slope = both / of_shifts
        explained = both**2 / (of_labels * of_shifts) if of_labels > 0 else 0.0
        if abs(slope - 1.0) > 0.25 or explained < 0.5:
            return self.ok(n, f"slope {slope:.2f}")
        advice = (
            "the dipole labels of ions change with the distance of the molecule from the "
            f"coordinate origin (slope {slope:.2f} on total charge times centre of mass); dipoles "
            "must be about the centre of mass: subtract atoms.info['charge'] * "
            "atoms.get_center_of_mass()"
        )
        return Finding(self.name, "warning", n, self.first, f"slope {slope:.2f}", advice)


class SignOfDipoles(LabelCheck):
    """Dipoles point from electronegative to electropositive atoms."""

    name, needs, in_fit = "direction of dipoles", ("dipole",), False

    def __init__(self):
        self.chi, self.products = qeq_electronegativities(), []

    def add(self, i, structure, labels):
        if structure.periodic or structure.charge:
            return
        chi = self.chi[structure.numbers]
        rough = (chi.mean() - chi) @ structure.positions
        label = labels["dipole"]
        self.products.append((rough @ label, rough @ rough, label @ label))

    def finding(self):
        n = len(self.products)
        both, of_rough, of_labels = np.sum(self.products, axis=0) if n else np.zeros(3)
        correlation = both / np.sqrt(of_rough * of_labels) if of_rough * of_labels > 0 else 0.0
        if n < MIN_STRUCTURES or correlation > -0.5:
            return self.ok(n, f"correlation {correlation:.2f}")
        advice = (
            "the dipole labels point toward electronegative atoms; they must point from negative "
            "to positive charge: multiply by -1, or use a unit of -1"
        )
        return Finding(self.name, "warning", n, None, f"correlation {correlation:.2f}", advice)


class SizeOfDipoles(LabelCheck):
    """The dipole of a neutral molecule is a small part of e times the length of the molecule."""

    name, needs, in_fit = "size of dipoles", ("dipole",), False

    def __init__(self):
        self.sizes, self.covalent = [], []

    def add(self, i, structure, labels):
        if structure.periodic or structure.charge or len(structure) < 2:
            return
        size = np.linalg.norm(labels["dipole"])
        size /= np.linalg.norm(np.ptp(structure.positions, axis=0))
        self.sizes.append(size)
        if len(structure) > 5 and np.isin(structure.numbers, NON_METALS).all():
            self.covalent.append(size)

    def finding(self):
        all_, covalent = (float(np.median(s or [0.0])) for s in (self.sizes, self.covalent))
        wrong = all_ > 1.0
        median = all_ if wrong else covalent
        enough = len(self.sizes if wrong else self.covalent) >= MIN_STRUCTURES
        value = f"{median:.2g} e * length"
        if not enough or not (wrong or covalent > 0.25):
            return self.ok(len(self.sizes), value)
        advice = (
            f"the median dipole is {median:.2g} e times the length of the molecule; most organic "
            "molecules have less than 0.2, and none has 1; dipoles must be in e*Angstrom: for "
            "labels in Debye use the unit dipole=debye"
        )
        severity = "warning" if wrong else "note"
        return Finding(self.name, severity, len(self.sizes), None, value, advice)


class SumOfForces(LabelCheck):
    """Forces of a structure sum to zero, or to its total charge times the external field."""

    name, needs, in_fit = "sum of forces", ("forces",), False

    def __init__(self):
        self.n, self.wrong = 0, []

    def add(self, i, structure, labels):
        forces = labels["forces"]
        self.n += 1
        net = np.linalg.norm(forces.sum(axis=0) - structure.charge * structure.field)
        size = np.sqrt((forces**2).sum())  # expected sum of forces with independent signs
        if net > max(0.3 * size, 1e-3 * len(forces)):
            self.wrong.append((i, net))

    def finding(self):
        if not self.wrong:
            return self.ok(self.n)
        i, net = self.wrong[0]
        advice = (
            "forces do not sum to zero: perhaps those of fixed atoms were set to zero, or an "
            "external field is missing in atoms.info['external_field']"
        )
        return Finding(self.name, "note", len(self.wrong), i, f"{net:.2g} eV/Angstrom", advice)


class SumOfBornCharges(LabelCheck):
    """Born effective charges sum to the total charge times the unit matrix."""

    name, needs, in_fit = "sum of Born charges", ("born_effective_charges",), False

    def __init__(self):
        self.n, self.wrong = 0, []

    def add(self, i, structure, labels):
        born = labels["born_effective_charges"]
        self.n += 1
        excess = np.abs(born.sum(axis=0) - structure.charge * np.eye(3)).max()
        if excess > 0.3 * np.sqrt((born**2).sum()):
            self.wrong.append((i, excess))

    def finding(self):
        if not self.wrong:
            return self.ok(self.n)
        i, excess = self.wrong[0]
        advice = (
            "Born charges must sum to the total charge times the unit matrix: check the order of "
            "the atoms, the unit, and the total charge"
        )
        return Finding(self.name, "note", len(self.wrong), i, f"{excess:.2g} e", advice)


class EqualLabels(LabelCheck):
    """Different structures have different labels.

    Parameters
    ----------
    target : str
        A target.
    """

    in_fit = False

    def __init__(self, target: str) -> None:
        self.target, self.needs, self.name = target, (target,), f"variation of {target}"
        self.n, self.value, self.geometry, self.equal, self.moved = 0, None, None, True, False

    def add(self, i, structure, labels):
        value, geometry = labels[self.target], structure.positions
        self.n += 1
        if self.value is None:
            self.value, self.geometry = value, geometry
            return
        self.equal = self.equal and np.array_equal(value, self.value)
        self.moved = self.moved or not np.array_equal(geometry, self.geometry)

    def finding(self):
        if self.n < MIN_STRUCTURES or not self.equal or not self.moved:
            return self.ok(self.n)
        advice = (
            f"all {self.n} labels of {self.target} are equal, but the structures are not: perhaps "
            "one calculator served all structures"
        )
        # Symmetric molecules have no dipole, and undistorted crystals no forces.
        severity = "warning" if np.any(self.value) else "note"
        return Finding(self.name, severity, self.n, 0, "all equal", advice)


def _origin_shift(structure):
    """Dipole about the coordinate origin minus that about the centre of mass, e*Angstrom."""
    shift = structure.charge * structure.center_of_mass
    return shift if np.linalg.norm(shift) > 0.05 else np.zeros(3)
