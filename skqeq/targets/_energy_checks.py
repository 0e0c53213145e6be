"""Checks of forces and stress against the energies of nearby geometries.

Two geometries of one molecule or cell that differ by small displacements ``d`` and a small strain
``e`` have the energy difference ::

    E_2 - E_1 = -(F_1 + F_2) . d / 2 + (V_1 stress_1 + V_2 stress_2) : e / 2,

up to terms of third order. With the opposite sign of the forces the two sides are anticorrelated,
and with another unit their ratio is not 1. In an external field, the energy depends on the
orientation of a molecule and on the place of an ion, so that only structures in the same field are
compared, and are not rotated onto each other.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial.distance import pdist

from ._findings import Finding
from ._label_checks import MAX_RATIO, MIN_CORRELATION, LabelCheck
from ._observables import VOIGT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..structures import Structure

# Structures of one composition that are compared with each other, and largest number of such sets.
PER_SET, MAX_SETS = 32, 32
# Largest root mean square displacement between two geometries, Angstrom.
MAX_DISPLACEMENT = 0.35
# Largest component of a strain.
MAX_STRAIN = 0.1
# Smallest number of pairs of geometries.
MIN_PAIRS = 6


class Labelled(NamedTuple):
    """A structure with its labels."""

    structure: Structure
    energy: float
    forces: np.ndarray | None
    stress: np.ndarray | None


class Step(NamedTuple):
    """The way from one geometry to another.

    Attributes
    ----------
    energy : float
        Energy difference, eV.
    by_forces, by_stress : float
        Contributions that the labels predict, eV.
    is_strained : bool
        Whether the cells differ.
    """

    energy: float
    by_forces: float
    by_stress: float
    is_strained: bool


class AlongSteps(LabelCheck):
    """Base class of checks that compare energy differences with other labels."""

    def __init__(self) -> None:
        self.sets: dict[tuple, list[Labelled]] = {}

    def add(self, i, structure, labels):
        numbers, field = structure.numbers.tobytes(), tuple(structure.field)
        key = numbers, structure.charge, tuple(structure.pbc), field
        if key not in self.sets and len(self.sets) >= MAX_SETS:
            return
        members = self.sets.setdefault(key, [])
        if len(members) < PER_SET:
            energy = float(labels["energy"])
            item = Labelled(structure, energy, labels.get("forces"), labels.get("stress"))
            members.append(item)

    def steps(self) -> Iterator[Step]:
        """Yield the way from each geometry to the nearest one."""
        for members in self.sets.values():
            for a, b in _nearest([labelled.structure for labelled in members]):
                step = _step(members[a], members[b])
                if step is not None:
                    yield step

    def judge(self, energies, predicted, what, unit):
        """Compare energy differences with the contributions that labels predict."""
        n = len(energies)
        sizes = np.sqrt((energies @ energies) * (predicted @ predicted)) if n else 0.0
        if n < MIN_PAIRS or sizes == 0.0:
            return Finding(
                self.name, "ok", 0, None, f"fewer than {MIN_PAIRS} pairs of near geometries"
            )
        correlation = energies @ predicted / sizes
        ratio = energies @ predicted / (predicted @ predicted)
        value = f"correlation {correlation:.2f}, ratio {ratio:.2g}"
        if correlation < -0.7:
            advice = (
                f"the energy rises along the {what}: the labels of {what} have the wrong sign, "
                f"or are gradients; multiply by -1, or use a negative unit"
            )
        elif correlation > MIN_CORRELATION and not 1.0 / MAX_RATIO < ratio < MAX_RATIO:
            advice = (
                f"energy differences are {ratio:.3g} times those expected from the labels of "
                f"{what}: energies must be total energies in eV, {what} in {unit}"
            )
        else:
            return self.ok(n, value)
        return Finding(self.name, "warning", n, None, value, advice)


class ForcesAgainstEnergies(AlongSteps):
    """Forces are negative derivatives of the energy."""

    name, needs = "forces and energies", ("energy", "forces")

    def finding(self):
        steps = np.array([step[:3] for step in self.steps() if not step.is_strained])
        energies, forces, _ = steps.reshape(-1, 3).T
        return self.judge(energies, forces, "forces", "eV/Angstrom")


class StressAgainstEnergies(AlongSteps):
    """The stress is the derivative of the energy with respect to a strain, over the volume."""

    name, needs = "stress and energies", ("energy", "stress")

    def finding(self):
        steps = np.array([step[:3] for step in self.steps() if step.is_strained])
        energies, forces, stress = steps.reshape(-1, 3).T
        return self.judge(energies - forces, stress, "stress", "eV/Angstrom^3")


def _nearest(structures):
    """Yield the pairs (a, b) where b is the structure nearest to a, each pair once."""
    n = len(structures)
    if n < 2:
        return
    distances = np.full((n, n), np.inf)
    if structures[0].periodic:
        for a, b in combinations(range(n), 2):
            distances[a, b] = distances[b, a] = _periodic_distance(structures[a], structures[b])
    elif len(structures[0]) > 1:
        # Distances between atoms do not depend on the orientation of a molecule.
        pairs = np.array([pdist(structure.positions) for structure in structures])
        for a in range(n):
            distances[a] = ((pairs - pairs[a]) ** 2).mean(axis=1)
            distances[a, a] = np.inf
    nearest = distances.argmin(axis=1)
    found = ((a, b) for a, b in enumerate(nearest.tolist()) if np.isfinite(distances[a, b]))
    yield from sorted({(min(pair), max(pair)) for pair in found})


def _periodic_distance(first, second):
    displacements, strain = _in_cell(first, second)
    if np.abs(strain).max() > MAX_STRAIN:
        return np.inf
    return (displacements**2).mean() + (strain**2).mean()


def _in_cell(first, second):
    """Displacements apart from those of a strain, and the strain."""
    axes = np.array(first.pbc)
    if axes.all():
        deformation = np.linalg.solve(first.cell, second.cell)
        mean = 0.5 * (first.cell + second.cell)
        scaled = np.linalg.solve(second.cell.T, second.positions.T).T
        scaled -= np.linalg.solve(first.cell.T, first.positions.T).T
        displacements = (scaled - np.round(scaled)) @ mean
        return displacements, 0.5 * (deformation + deformation.T) - np.eye(3)
    # Slabs are compared only if their cells are equal.
    vectors = first.cell[axes]
    if not np.allclose(vectors, second.cell[axes], atol=1e-8):
        return np.zeros((len(first), 3)), np.full((3, 3), np.inf)
    displacements = second.positions - first.positions
    displacements -= np.round(displacements @ np.linalg.pinv(vectors)) @ vectors
    return displacements, np.zeros((3, 3))


def _step(first, second):
    """The step between two structures; None if they are too far apart."""
    a, b = first.structure, second.structure
    rotation, strain = np.eye(3), np.zeros((3, 3))
    if a.periodic:
        displacements, strain = _in_cell(a, b)
        displacements -= displacements.mean(axis=0)  # a shift of all atoms changes nothing
    elif a.field.any():
        displacements = b.positions - a.positions
    else:
        rotation, displacements = _aligned(a.positions, b.positions)
    is_strained = bool(np.abs(strain).max() > 1e-8)
    size = np.sqrt((displacements**2).sum(axis=1).mean())
    if size > MAX_DISPLACEMENT or size + np.abs(strain).max() < 1e-6:
        return None
    by_forces = by_stress = 0.0
    if first.forces is not None and second.forces is not None:
        by_forces = -0.5 * np.sum((first.forces + second.forces @ rotation) * displacements)
    elif size > 1e-6:
        return None  # the energy change by displacements is unknown
    if is_strained:
        if first.stress is None or second.stress is None:
            return None
        volumes = abs(np.linalg.det(a.cell)), abs(np.linalg.det(b.cell))
        mean = 0.5 * (volumes[0] * first.stress + volumes[1] * second.stress)
        by_stress = sum(
            (1.0 if p == q else 2.0) * mean[k] * strain[p, q] for k, (p, q) in enumerate(VOIGT)
        )
    return Step(second.energy - first.energy, by_forces, by_stress, is_strained)


def _aligned(first, second):
    """The rotation of the second molecule onto the first (Kabsch), and the displacements then.

    Row vectors of the second molecule are multiplied by the rotation from the right.
    """
    first, second = first - first.mean(axis=0), second - second.mean(axis=0)
    u, _, vt = np.linalg.svd(second.T @ first)
    rotation = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    return rotation, second @ rotation - first
