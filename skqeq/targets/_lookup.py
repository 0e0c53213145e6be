"""Find one label in a structure: where to look, and whether it belongs to this structure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from ..structures import BOOLEAN, holds_booleans

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._typing import Array

# Labels belong to a structure if its atoms are where they were in the calculation, within this
# distance, Angstrom. Files round positions.
ROUNDING = 1e-4
# Difference of energy and free energy that is not rounding, eV.
ENERGY_TOLERANCE = 1e-6
# Columns of CIF files, which have one value per site.
SITE_COLUMN = "_atom_site_"


class MissingLabelsError(ValueError):
    """No structure has a label of some target."""


def find_label(i: int, atoms: Atoms, keys: Sequence[str]) -> tuple[Any, Mapping[str, Any]]:
    """Find the label of a structure.

    Parameters
    ----------
    i : int
        Index of the structure, for messages.
    atoms : ase.Atoms
        The structure.
    keys : sequence of str
        Keys of the label; the first that exists is used.

    Returns
    -------
    value : object
        The label; None if there is none.
    place : dict
        Where it was found: results of the calculator, arrays, or info.

    Raises
    ------
    ValueError
        If the label is a boolean, or if the calculator holds results of another geometry.
    """
    results = calculator_results(atoms)
    for key in keys:
        for place in (results, atoms.arrays, atoms.info):
            value = place.get(key)
            if value is None:
                continue
            name = f"structure {i} ({atoms.symbols})"
            if holds_booleans(value):
                raise ValueError(f"{name}: {key} = {value!r} {BOOLEAN}: write {key}=VALUE")
            if place is results:
                _check_geometry(name, atoms)
            if key.startswith(SITE_COLUMN):
                value = _of_atoms(value, atoms.arrays.get("spacegroup_kinds"))
            return value, place
    return None, {}


def calculator_results(atoms: Atoms) -> dict[str, Any]:
    """Results that the calculator of a structure holds.

    Parameters
    ----------
    atoms : ase.Atoms
        The structure.

    Returns
    -------
    results : dict
        Empty without a calculator.
    """
    return {} if atoms.calc is None else getattr(atoms.calc, "results", {})


def free_energy(results: Mapping[str, Any]) -> float | None:
    """The energy whose derivatives are forces and stress, if it differs from ``energy``.

    With fractional occupation of electronic states, ``energy`` is often extrapolated to zero width,
    and the forces are derivatives of ``free_energy``.

    Parameters
    ----------
    results : dict
        Results of a calculator.

    Returns
    -------
    energy : float or None
        Free energy, eV.
    """
    free, energy = (np.ravel(results.get(name, np.nan)) for name in ("free_energy", "energy"))
    if free.size != 1 or energy.size != 1 or holds_booleans(results.get("free_energy")):
        return None
    difference = float(free[0]) - float(energy[0])
    return float(free[0]) if abs(difference) > ENERGY_TOLERANCE else None


def _check_geometry(name, atoms):
    """Raise an error if the calculator's results belong to another geometry.

    Shifts of the whole structure and of single atoms by cell vectors do not matter, and neither
    does the cell of a molecule.
    """
    calculated = getattr(atoms.calc, "atoms", None)
    if not isinstance(calculated, Atoms) or calculated is atoms:
        return
    difference = _difference(atoms, calculated)
    if difference:
        raise ValueError(
            f"{name}: its calculator holds results of a structure with {difference}; a calculator "
            "keeps only its last results, and a structure must not be changed after the "
            "calculation; give each structure a SinglePointCalculator with its own results"
        )


def _difference(atoms: Atoms, other: Atoms) -> str:
    """In what two structures differ; empty if they are the same."""
    if not np.array_equal(atoms.numbers, other.numbers):
        return "other atoms"
    pbc = atoms.pbc
    if not np.array_equal(pbc, other.pbc):
        return f"pbc = {other.pbc.tolist()}"
    cell = atoms.cell.array
    if np.abs(cell[pbc] - other.cell.array[pbc]).max(initial=0.0) > ROUNDING:
        return "another cell"
    shifts = atoms.positions - other.positions
    if np.abs(shifts).max(initial=0.0) <= ROUNDING:
        return ""
    shifts -= shifts[0]
    if pbc.any():
        complete = atoms.cell.complete().array
        multiples = np.linalg.solve(complete.T, shifts.T).T
        shifts -= (np.round(multiples) * pbc) @ complete
    distance: Array = np.linalg.norm(shifts, axis=1).max()
    return "" if distance <= 4 * ROUNDING else f"positions that differ by {distance:.2g} Angstrom"


def _of_atoms(values, kinds):
    """Values of atoms from values of sites, which symmetry operations copied to several atoms."""
    if isinstance(values, (str, bytes)) or not np.iterable(values):
        values = [values]
    values = [np.nan if value in ("?", ".") else value for value in values]
    if kinds is None or max(kinds, default=-1) >= len(values):
        return values
    return [values[kind] for kind in kinds]
