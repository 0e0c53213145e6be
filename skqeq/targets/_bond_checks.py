"""The sign and the unit of forces, from bonds to hydrogen.

A bond acts like a spring: in thermal motion, the force on the hydrogen atom along the bond is close
to ::

    F = -k (r - r_0),    k = 15 to 60 eV/Angstrom^2,

for all elements to which hydrogen has covalent bonds. Unlike the
comparison with energies, this needs no two geometries of one molecule.
"""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii

from ..structures import neighbor_pairs
from ._findings import Finding
from ._label_checks import NON_METALS, LabelCheck

# A hydrogen atom has a bond if the nearest atom of another non-metal is closer than this multiple
# of the sum of their covalent radii.
BOND = 1.25
# Fewest and most bonds that are examined.
MIN_BONDS, MAX_BONDS = 30, 3000
# Smallest standard deviation of the lengths of the bonds of an element, Angstrom. In optimised
# molecules it is about 0.01, and the forces do not follow from the lengths.
MIN_SPREAD = 0.02
# Forces and lengths that are correlated less strongly tell nothing.
MIN_CORRELATION = 0.5
# Limits of the spring constant, eV/Angstrom^2. Forces in Hartree/Bohr give 1, in kcal/mol 800.
MIN_SPRING, MAX_SPRING = 4.0, 200.0


class ForcesAlongBonds(LabelCheck):
    """Forces pull the atoms of bonds that are too long together."""

    name, needs = "forces along bonds", ("forces",)

    def __init__(self):
        self.n, self.bonds = 0, {}  # element: lengths and forces along the bonds

    def add(self, i, structure, labels):
        if self.n >= MAX_BONDS or 1 not in structure.species:
            return
        for element, length, force in _bonds(structure, labels["forces"]):
            self.bonds.setdefault(element, []).append((length, force))
            self.n += 1

    def finding(self):
        kinds = [np.array(bonds) for bonds in self.bonds.values()]
        lengths, forces = np.concatenate(
            [np.zeros((1, 2)), *(kind - kind.mean(axis=0) for kind in kinds)]
        ).T
        size = np.sqrt((lengths @ lengths) * (forces @ forces))
        if self.n < MIN_BONDS or size == 0.0 or lengths.std() < MIN_SPREAD:
            return self.ok(0)
        correlation = lengths @ forces / size
        spring = -(lengths @ forces) / (lengths @ lengths)
        value = f"{spring:.2g} eV/Angstrom^2"
        if abs(correlation) < MIN_CORRELATION or MIN_SPRING < spring < MAX_SPRING:
            return self.ok(self.n, value)
        severity, sign = "warning", "-" if spring < 0.0 else ""
        if spring < -MIN_SPRING:
            advice = (
                "the forces stretch the bonds that are too long: the labels of forces have the "
                "wrong sign, or are gradients; multiply by -1, or use a negative unit"
            )
        else:
            unit = "kcal/mol/angstrom"
            if spring < MIN_SPRING:
                # Differences between two methods, which some models learn, are also so small.
                severity, unit = "note", "hartree/bohr"
            advice = (
                f"the forces along bonds to hydrogen give a spring constant of {value}, which is "
                "15 to 60 in molecules; forces must be in eV/Angstrom: use their unit, such as "
                f"forces={sign}{unit}"
            )
        return Finding(self.name, severity, self.n, None, value, advice)


def _bonds(structure, forces):
    """Yield the element, the length, and the force on the hydrogen atom along it, of each bond."""
    numbers = structure.numbers
    radii = covalent_radii[numbers]
    i, j, D = neighbor_pairs(structure, BOND * (covalent_radii[1] + radii.max()))
    others = (numbers[i] == 1) & (numbers[j] != 1) & np.isin(numbers[j], NON_METALS)
    i, j, D = i[others], j[others], D[others]
    lengths = np.linalg.norm(D, axis=1)
    order = np.lexsort((lengths, i))
    for pair in order[np.unique(i[order], return_index=True)[1]]:
        if lengths[pair] < BOND * (radii[i[pair]] + radii[j[pair]]):
            force = -forces[i[pair]] @ D[pair] / lengths[pair]
            yield int(numbers[j[pair]]), lengths[pair], force
