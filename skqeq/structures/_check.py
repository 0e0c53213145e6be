"""Conversion of `ase.Atoms`, which users pass, to checked structures."""

from __future__ import annotations

import hashlib
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atom, Atoms

from .._counts import counted
from ..parameters import MAX_ATOMIC_NUMBER
from ._geometry import (
    check_cell,
    check_distances,
    check_space,
    checked_geometry,
    shortest_vectors,
)
from ._numbers import as_floats
from ._plausibility import CHECKS_OF_DATA, Finding, Plausibility
from ._structure import Structure, formula
from ._total_charge import CHARGE_KEYS, total_charge

if TYPE_CHECKING:
    from .._typing import StructuresLike


# All keys of `Atoms.info` that models use.
INFO_KEYS = (*CHARGE_KEYS, "external_field", "potential_points")


def check_structures(X: StructuresLike) -> list[Structure]:
    """Check structures, and extract the data that charge models use.

    All `ase.Atoms` enter the package through this function.

    Parameters
    ----------
    X : list, tuple, Series, one-column frame or 1-D object array of ase.Atoms
        Structures. The total charge (e) is ``info["charge"]``, or ``info["total_charge"]``, or 0 if
        neither is present. The external field (V/Angstrom) is ``info["external_field"]``. The
        points (n, 3) of the target `potential` are ``info["potential_points"]`` (Angstrom). The
        atoms are not modified.

    Returns
    -------
    structures : list of Structure
        Geometry, total charge and external field.

    Raises
    ------
    TypeError
        If X is not a sequence of Atoms.
    ValueError
        If X is empty, or a structure is invalid; the message names its index and the value.

    Warns
    -----
    UserWarning
        If a structure is probably not what the user means: a total charge under another key, sites
        with partial occupancy, missing hydrogen atoms, or a drawing in two dimensions.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import check_structures
    >>> [water] = check_structures([molecule("H2O")])
    >>> water.charge, len(water)
    (0.0, 3)
    """
    plausibility = Plausibility()
    structures = list(_checked(X, plausibility.add))
    plausibility.warn()
    return structures


def _checked(X, look):
    """Yield checked structures; `look` is called with the index, the atoms, and the structure."""
    n = -1
    for n, item in enumerate(as_sequence(X)):
        if isinstance(item, Structure):
            yield item
        elif isinstance(item, Atoms):
            structure = check_one(n, item)
            look(n, item, structure)
            yield structure
        else:
            raise wrong_item(n, item)
    if n < 0:
        raise ValueError("X holds no structures")


def implausible_structures(X: StructuresLike) -> list[Finding]:
    """Look for structures that are probably not what the user means.

    `check_structures` gives the same findings as warnings.

    Parameters
    ----------
    X : sequence of ase.Atoms
        See `check_structures`.

    Returns
    -------
    findings : list of Finding
        One per check, with the attributes ``name``, ``severity``, ``n_structures``, ``first``,
        ``value`` and ``advice``.

    Raises
    ------
    ValueError
        If a structure is invalid.

    Examples
    --------
    >>> from ase import Atoms
    >>> from skqeq.structures import implausible_structures
    >>> hydroxide = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], info={"net_charge": -1})
    >>> [finding.name for finding in implausible_structures([hydroxide]) if finding.advice]
    ['total charge']
    """
    plausibility = Plausibility()
    for _ in _checked(X, plausibility.add):
        pass
    return plausibility.findings()


def strip(X: StructuresLike) -> list[Atoms]:
    """Copy structures without calculators, labels, and other data that models do not use.

    Some calculators cannot be pickled or hashed, and labels in ``info`` become part of every cache
    key. Strip structures before you pass them to `joblib` or ``Pipeline(memory=...)``.

    Parameters
    ----------
    X : sequence of ase.Atoms
        See `check_structures`.

    Returns
    -------
    stripped : list of ase.Atoms
        Copies with geometry, masses, and the items of ``info`` for total charge, external field and
        potential points.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import strip
    >>> atoms = molecule("H2O")
    >>> atoms.info["note"] = "secret"
    >>> strip([atoms])[0].info
    {}
    """
    stripped = []
    items = list(as_sequence(X))
    # A later call still notices an implausible geometry, but not the data that are removed here.
    plausibility = Plausibility(CHECKS_OF_DATA)
    structures = list(_checked(items, plausibility.add))
    plausibility.warn()
    for structure, atoms in zip(structures, items, strict=True):
        copy = structure.to_atoms()
        copy.cell = atoms.cell
        if atoms.has("masses"):
            copy.set_masses(structure.masses)
        copy.info = {key: atoms.info[key] for key in INFO_KEYS if key in atoms.info}
        stripped.append(copy)
    return stripped


def as_sequence(X):
    """The items of any container of structures that users and scikit-learn pass.

    The function never calls ``np.asarray(X)``, which would turn molecules of equal size into a
    two-dimensional array of atoms.
    """
    if isinstance(X, Atoms):
        raise TypeError("X is a single Atoms object; pass a list of structures: [atoms]")
    if hasattr(X, "iloc"):
        if X.ndim == 2 and X.shape[1] != 1:
            raise TypeError(
                f"X is a frame with {counted(X.shape[1], 'column')}; structures need exactly one "
                "column, such as X[['atoms']]"
            )
        X = X if X.ndim == 1 else X.iloc[:, 0]
        return list(X)
    if hasattr(X, "structures"):
        return X.structures
    if isinstance(X, np.ndarray):
        # scikit-learn's check_array turns a one-column frame into an (n, 1) object array.
        column = X.ndim == 2 and X.shape[1] == 1
        if X.dtype != object or not (X.ndim == 1 or column):
            raise TypeError(
                f"X is an array of shape {X.shape} and dtype {X.dtype}, but structures come as a "
                "list of ase.Atoms; np.asarray splits molecules of equal size into atoms"
            )
        return list(X.ravel())
    if isinstance(X, (str, bytes, dict)) or not hasattr(X, "__iter__"):
        raise TypeError(f"X must be a list of ase.Atoms, got {type(X).__name__}{_reader(X)}")
    return X


def wrong_item(i: int, item: object) -> TypeError:
    """The error for an item of X that is not an `ase.Atoms`.

    Parameters
    ----------
    i : int
        Index of the item.
    item : object
        The item.

    Returns
    -------
    error : TypeError
        The error, to be raised by the caller.
    """
    return TypeError(
        f"X[{i}] is a {type(item).__name__}, but every structure must be an ase.Atoms"
        f"{_reader(item)}"
    )


def _reader(item):
    """Advice for the name of a file, as the end of a message; empty for all other objects."""
    if isinstance(item, (str, PathLike)):
        return (
            f"; if {str(item)!r} is a file, read it with ase.io.read(name, ':') or "
            "skqeq.datasets.open_structures(name)"
        )
    return ""


def holds_structures(X: Any) -> bool:
    """Whether X is a container of structures or of file names, instead of numbers.

    Parameters
    ----------
    X : object
        Input of the user, for an estimator that takes features.

    Returns
    -------
    found : bool
        True also for a single structure. Only the first item of a sequence is looked at.
    """
    if isinstance(X, (Atoms, Structure, str, PathLike)):
        return True
    if hasattr(X, "iloc"):
        X = X.to_numpy().ravel()
    if isinstance(X, np.ndarray):
        return X.dtype == object and any(isinstance(x, (Atom, Atoms, Structure)) for x in X.flat)
    if not (hasattr(X, "__len__") and hasattr(X, "__getitem__")) or isinstance(X, dict):
        return False
    return len(X) > 0 and isinstance(X[0], (Atoms, Structure, str, PathLike))


def check_one(i, atoms):
    """Check one `ase.Atoms`, which error messages call structure i, and convert it."""
    numbers = atoms.numbers.astype(np.int64)

    def fail(message):
        raise ValueError(f"structure {i} ({formula(numbers)}): {message}")

    _check_numbers(numbers, fail)
    positions, cell = checked_geometry(atoms, fail)
    pbc = tuple(atoms.pbc.tolist())
    field = _field(atoms.info.get("external_field", (0.0, 0.0, 0.0)), fail)
    check_cell(cell, pbc, len(numbers), field, fail)
    volume = abs(float(np.linalg.det(cell)))
    if any(pbc) and not all(pbc):
        # The third cell vector of a slab has no meaning. In ASE it may be zero or lie in the plane.
        normal = np.cross(*cell[np.array(pbc)])
        cell[pbc.index(False)] = normal / np.linalg.norm(normal)
    lattice = shortest_vectors(cell, pbc) if any(pbc) else None
    check_space(positions, lattice, fail)
    check_distances(numbers, positions, lattice, pbc, fail)
    masses = atoms.get_masses()
    bad = ~(np.isfinite(masses) & (masses > 0))
    if bad.any():
        fail(f"atom {bad.argmax()} has mass {masses[bad.argmax()]}")
    charge = total_charge(atoms.info, fail)
    points = _points(atoms.info.get("potential_points"), fail)
    for array in (numbers, positions, cell, masses):
        array.setflags(write=False)
    return Structure(
        numbers=numbers,
        positions=positions,
        cell=cell,
        pbc=pbc,
        volume=volume,
        masses=masses,
        charge=charge,
        field=field,
        potential_points=points,
        species=tuple(sorted(set(numbers.tolist()))),
        digest=_digest(numbers, positions, cell, pbc),
    )


def _check_numbers(numbers, fail):
    if len(numbers) == 0:
        fail("has no atoms")
    bad = (numbers < 1) | (numbers > MAX_ATOMIC_NUMBER)
    if bad.any():
        fail(f"atom {bad.argmax()} has atomic number {numbers[bad.argmax()]}: not an element")


def _digest(numbers, positions, cell, pbc):
    """Hash of a geometry; the cell is included only if the structure is periodic."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (numbers, positions, cell if any(pbc) else np.zeros(0), np.array(pbc)):
        digest.update(array.tobytes())
    return digest.digest()


def _field(value, fail):
    """External field, shape (3,), V/Angstrom."""
    field = as_floats(value)
    if field.shape != (3,) or not np.isfinite(field).all():
        fail(f"info['external_field'] = {value!r} is not a finite vector of three numbers")
    field.setflags(write=False)
    return field


def _points(value, fail):
    """Points of the target `potential`, shape (n, 3), Angstrom, or None."""
    if value is None:
        return None
    points = as_floats(value)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        fail(f"info['potential_points'] must be finite (n, 3), got shape {points.shape}")
    points.setflags(write=False)
    return points
