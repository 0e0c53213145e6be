"""The unit of energies, from the energies of all electrons of the atoms.

The energy of a neutral atom with Z electrons is close to ::

    E(Z) = -0.768745 Z^(7/3) + Z^2 / 2 - 0.269900 Z^(5/3)   Hartree,

the energy of Thomas and Fermi with the corrections of Scott and of Schwinger. It is within 8 % for
hydrogen, and within 1 % from carbon on. Energies of bonds change the total energy of a molecule by
less than that. Total energies with pseudopotentials, energies of formation and those of
semi-empirical methods are far smaller, so that nothing is known about their unit.

References
----------
.. [1] B.-G. Englert, J. Schwinger, Phys. Rev. A 32, 26 (1985).
"""

from __future__ import annotations

import ase.units
import numpy as np

from ._findings import Finding
from ._label_checks import MIN_STRUCTURES, LabelCheck

# Relative difference of total energies from those of the atoms.
TOLERANCE = 0.04
# Units in which programs write energies, eV.
UNITS = {
    "hartree": ase.units.Hartree,
    "rydberg": ase.units.Rydberg,
    "kcal/mol": ase.units.kcal / ase.units.mol,
    "kJ/mol": ase.units.kJ / ase.units.mol,
}


class UnitOfEnergies(LabelCheck):
    """Total energies of all electrons are close to the sum of those of the atoms."""

    name, needs = "unit of energies", ("energy",)

    def __init__(self):
        self.ratios = []

    def add(self, i, structure, labels):
        Z = structure.numbers.astype(float)
        if Z.max() > 2.0:
            atoms = -0.768745 * Z ** (7 / 3) + Z**2 / 2 - 0.269900 * Z ** (5 / 3)
            self.ratios.append(float(labels["energy"]) / (atoms.sum() * ase.units.Hartree))

    def finding(self):
        n = len(self.ratios)
        ratios = np.quantile(self.ratios, [0.1, 0.9]) if n else np.zeros(2)
        value = f"{ratios.mean():.2g} of all-electron energies"
        for unit, size in UNITS.items():
            if n >= MIN_STRUCTURES and np.all(np.abs(ratios * size - 1.0) < TOLERANCE):
                advice = (
                    f"the energies are total energies of all electrons in {unit}; energies must be "
                    f"in eV: use the unit energy={unit}, and that of the forces, if there are any"
                )
                return Finding(self.name, "warning", n, None, value, advice)
        return self.ok(n, value)
