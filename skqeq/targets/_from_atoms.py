"""Labels that are stored in structures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from ..structures import as_sequence
from ._labels import make_targets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._typing import Array, StructuresLike


def targets_from_atoms(
    X: StructuresLike,
    names: Sequence[str] | dict[str, str],
    *,
    units: Mapping[str, float] | None = None,
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
        ``<target>``. A dict gives the key of each target instead.
    units : dict of {str: float}, default=None
        Units of the labels, expressed in those of `make_targets`, such as
        ``{"dipole": ase.units.Debye, "energy": ase.units.Hartree}``; 1 for other targets.
    verbose : int, default=0
        If above 0, a progress bar is shown.

    Returns
    -------
    y : ndarray of shape (n,)
        In the form of `make_targets`; NaN or None for structures without a label.

    Raises
    ------
    ValueError
        If no structure has a label of some target, or if a unit is not a positive number.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import targets_from_atoms
    >>> atoms = molecule("H2O")
    >>> from ase.units import Debye
    >>> atoms.info["mu"] = [0.0, 0.0, -1.85]
    >>> y = targets_from_atoms([atoms], {"dipole": "mu"}, units={"dipole": Debye})
    >>> y["dipole"].round(2)
    array([[ 0.  ,  0.  , -0.39]])
    """
    if isinstance(names, str):
        names = [names]
    keys = names if isinstance(names, dict) else dict.fromkeys(names)
    places = {n: (f"REF_{n}", n) if key is None else (key,) for n, key in keys.items()}
    units = _check_units({} if units is None else units, keys)
    columns: dict[str, list[Any]] = {name: [] for name in keys}
    # One pass over X, which may read every structure from a file.
    for atoms in tqdm(as_sequence(X), "labels", disable=not verbose, leave=False):
        for name, candidates in places.items():
            value = _find(atoms, candidates)
            columns[name].append(value)
    for name, candidates in places.items():
        if all(value is None for value in columns[name]):
            raise ValueError(
                f"no structure has {name}: looked for {' or '.join(candidates)} in calc.results, "
                f"arrays and info; the first structure has {label_keys(X)}. Give another key "
                f"as {{{name!r}: key}}, or on the command line with --key {name}=KEY"
            )
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
    results = {} if atoms.calc is None else getattr(atoms.calc, "results", {})
    keys = [*results, *atoms.arrays, *atoms.info]
    return ", ".join(k for k in keys if k not in ("numbers", "positions")) or "nothing"


def _check_units(units, names):
    for name, unit in units.items():
        if name not in names:
            raise ValueError(
                f"units holds {name}, which is not among the targets {', '.join(names)}"
            )
        if not (np.isscalar(unit) and np.isreal(unit) and np.isfinite(unit) and unit > 0):
            raise ValueError(f"the unit of {name} must be a positive number, got {unit!r}")
    return dict(units)


def _find(atoms, candidates):
    results = {} if atoms.calc is None else getattr(atoms.calc, "results", {})
    for key in candidates:
        for place in (results, atoms.arrays, atoms.info):
            if place.get(key) is not None:
                return place[key]
    return None
