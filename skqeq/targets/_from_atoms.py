"""Labels that are stored in structures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from .._counts import counted
from .._warnings import warn_once
from ..structures import as_sequence
from ._labels import make_targets
from ._lookup import MissingLabelsError, calculator_results, find_label, free_energy
from ._names import check_names
from ._units import parse_unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._typing import Array, StructuresLike


def targets_from_atoms(
    X: StructuresLike,
    names: Sequence[str] | dict[str, str],
    *,
    units: Mapping[str, float | str] | None = None,
    verbose: int = 0,
) -> Array:
    """Collect the labels that are stored in structures.

    A label is looked up in ``atoms.calc.results``, ``atoms.arrays`` and ``atoms.info``, in this
    order. All three are needed because ASE's reader of extended XYZ moves some labels into a
    calculator and leaves others.

    Parameters
    ----------
    X : sequence of ase.Atoms
        Structures with labels.
    names : sequence of str, or dict of {str: str}
        Targets. The label is looked up under the key ``REF_<target>``, and then under
        ``<target>``; charges also under ``_atom_site_charge``, where ``ase.io.read(...,
        store_tags=True)`` stores charges in CIF files. A dict gives the key of each target instead.
    units : dict of {str: float or str}, default=None
        Units of the labels, if they are not those of `make_targets`: names, such as
        ``{"dipole": "debye", "energy": "hartree"}``, or numbers, such as ``ase.units.Debye``.
        Labels are multiplied by them. A negative unit changes the sign: ``{"forces":
        "-hartree/bohr"}`` if the file holds gradients.
    verbose : int, default=0
        If above 0, a progress bar is shown.

    Returns
    -------
    y : ndarray of shape (n,)
        In the form of `make_targets`; NaN or None for structures without a label.

    Raises
    ------
    ValueError
        If no structure has a label of some target, if a label is a boolean, if a calculator holds
        results of another geometry, if a unit is unknown, or if it is not a finite number other
        than zero. Also if the key of the stress names a virial, which has another sign and unit.

    Warns
    -----
    UserWarning
        If forces or stress are among the targets, and a calculator has a ``free_energy`` other than
        its ``energy``. Forces and stress are derivatives of the free energy.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import targets_from_atoms
    >>> atoms = molecule("H2O")
    >>> atoms.info["mu"] = [0.0, 0.0, -1.85]
    >>> y = targets_from_atoms([atoms], {"dipole": "mu"}, units={"dipole": "debye"})
    >>> y["dipole"].round(2)
    array([[ 0.  ,  0.  , -0.39]])
    """
    if isinstance(names, str):
        names = [names]
    keys = names if isinstance(names, dict) else dict.fromkeys(names)
    check_names(name.removesuffix("_sigma") for name in keys)
    _refuse_virial(keys.get("stress"))
    places = {n: _default_keys(n) if key is None else (key,) for n, key in keys.items()}
    units = _check_units({} if units is None else units, keys)
    columns: dict[str, list[Any]] = {name: [] for name in keys}
    free_energies = _FreeEnergies(keys)
    # One pass over X, which may read every structure from a file.
    for i, atoms in enumerate(tqdm(as_sequence(X), "labels", disable=not verbose, leave=False)):
        for name, candidates in places.items():
            value, place = find_label(i, atoms, candidates)
            if name == "energy":
                free_energies.compare(i, atoms, value, place)
            columns[name].append(value)
    for name, candidates in places.items():
        if all(value is None for value in columns[name]):
            raise MissingLabelsError(
                f"no structure has {name}: looked for {' or '.join(candidates)} in calc.results, "
                f"arrays and info; the first structure has {label_keys(X)}. Give another key "
                f"as {{{name!r}: key}}, or on the command line with --key {name}=KEY"
            )
    free_energies.warn()
    y = make_targets(**columns)
    with np.errstate(over="ignore"):  # make_targets refuses infinite labels
        for name, unit in units.items():
            columns[name] = [None if value is None else unit * value for value in y[name]]
    return make_targets(**columns) if units else y


def label_keys(X: StructuresLike) -> str:
    """Keys of the first structure that could hold labels, for messages.

    Parameters
    ----------
    X : sequence of ase.Atoms
        Structures.

    Returns
    -------
    keys : str
        Separated by commas.
    """
    atoms = next(iter(as_sequence(X)), Atoms())
    keys = [*calculator_results(atoms), *atoms.arrays, *atoms.info]
    return ", ".join(k for k in keys if k not in ("numbers", "positions")) or "nothing"


def _refuse_virial(key):
    """Raise an error if the key of the stress names a virial."""
    if key is not None and "virial" in key.lower():
        raise ValueError(
            f"{key} holds a virial, which is minus the stress times the volume: store the stress, "
            f"-atoms.info[{key!r}] / atoms.get_volume(), and give its key"
        )


def _check_units(units, names):
    for name in units:
        if name not in names:
            raise ValueError(
                f"units holds {name}, which is not among the targets {', '.join(names)}"
            )
    return {name: parse_unit(name, unit) for name, unit in units.items()}


def _default_keys(name):
    return (f"REF_{name}", name, *(["_atom_site_charge"] if name == "charges" else []))


class _FreeEnergies:
    """Counts calculations whose energy is not the one that belongs to forces and stress.

    Parameters
    ----------
    names : iterable of str
        The targets.
    """

    def __init__(self, names):
        self.derivatives = [name for name in ("forces", "stress") if name in names]
        self.n_structures, self.first = 0, ""

    def compare(self, i, atoms, energy, results):
        """Compare the label `energy` with the free energy of the same calculation."""
        free = free_energy(results) if self.derivatives else None
        if free is not None and energy is results.get("energy"):
            difference = free - float(np.ravel(energy)[0])
            self.n_structures += 1
            self.first = self.first or (f"{difference:+.3g} eV in structure {i} ({atoms.symbols})")

    def warn(self):
        """Warn once about all structures."""
        if self.n_structures:
            warn_once(
                f"{' and '.join(self.derivatives)} are derivatives of the free energy, which is "
                f"not the energy in {counted(self.n_structures, 'structure')}: the difference is "
                f"{self.first}; use it as the label: {{'energy': 'free_energy'}}, or --key "
                "energy=free_energy on the command line",
                "free energy",
            )
