"""Conversion of `ase.Atoms`, which users pass, to checked plain arrays, which skqeq works with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import minkowski_reduce
from scipy.spatial import cKDTree

from ..parameters import MAX_ATOMIC_NUMBER

if TYPE_CHECKING:
    from .._typing import Array, StructuresLike


# Minimum distance of two atoms, Angstrom. Atoms that are closer indicate a mistake in the file.
SHORTEST_DISTANCE = 0.1
# Maximum distance of an atom from the origin (Angstrom), and maximum volume of the box around all
# atoms (Angstrom^3). Larger values usually come from a wrong column of the file. Neighbour lists of
# such a box would fill the memory.
FARTHEST, LARGEST_SPACE = 1e6, 1e9
# Memory of the Python objects of one structure, without the data of its arrays, bytes.
OVERHEAD = 1050
# Keys of `Atoms.info` for the total charge; if both are present, they must agree.
CHARGE_KEYS = ("charge", "total_charge")
# All keys of `Atoms.info` that models use.
INFO_KEYS = (*CHARGE_KEYS, "external_field", "potential_points")


@dataclass(frozen=True, eq=False, slots=True)
class Structure:
    """Geometry, total charge and external field of one structure, and nothing else.

    Parameters
    ----------
    numbers : ndarray of shape (n_atoms,)
        Atomic numbers.
    positions : ndarray of shape (n_atoms, 3)
        Positions of the atoms, Angstrom.
    cell : ndarray of shape (3, 3)
        Cell vectors in rows, Angstrom. For a slab, the vector that is not periodic is replaced by
        the unit normal of the slab.
    pbc : tuple of 3 bool
        Which cell vectors are periodic.
    volume : float
        Volume of the original cell, including vacuum, Angstrom^3; 0 if a cell vector is zero.
    masses : ndarray of shape (n_atoms,)
        Atomic mass units. They define the centre of mass, which is the origin of dipoles.
    charge : float
        Total charge, e.
    field : ndarray of shape (3,)
        External electric field, V/Angstrom; its energy is ``-dipole . field``.
    potential_points : ndarray of shape (n_points, 3) or None
        Points of the target `potential`, Angstrom.
    species : tuple of int
        Atomic numbers that occur, ascending.
    digest : bytes
        Hash of numbers, positions, cell and pbc, because per-atom features depend on these only.

    See Also
    --------
    check_structures : Make structures from `ase.Atoms`.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import check_structures
    >>> [ammonia] = check_structures([molecule("NH3")])
    >>> ammonia.symbols, ammonia.species, ammonia.periodic
    ('H3N', (1, 7), False)
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: tuple
    volume: float
    masses: np.ndarray
    charge: float
    field: np.ndarray
    potential_points: np.ndarray | None
    species: tuple
    digest: bytes

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def periodic(self) -> bool:
        """Whether any cell vector is periodic."""
        return any(self.pbc)

    @property
    def center_of_mass(self) -> Array:
        """Mass-weighted centre, shape (3,), Angstrom."""
        return self.masses @ self.positions / self.masses.sum()

    @property
    def symbols(self) -> str:
        """Chemical formula, for messages."""
        return _formula(self.numbers)

    @property
    def n_bytes(self) -> int:
        """Approximate memory of the structure, bytes."""
        points = 0 if self.potential_points is None else self.potential_points.nbytes
        arrays = (self.numbers, self.positions, self.cell, self.masses, self.field)
        return OVERHEAD + points + sum(array.nbytes for array in arrays)

    def to_atoms(self) -> Atoms:
        """Convert to `ase.Atoms`.

        Returns
        -------
        atoms : ase.Atoms
            Atoms with numbers, positions, cell and pbc, and nothing else.
        """
        return Atoms(self.numbers, self.positions, cell=self.cell, pbc=self.pbc)


def reduced_cell(structure):
    """The shortest cell vectors of the same lattice, and which of them are periodic.

    With the cell vectors of a very skew cell, a sphere of neighbours extends over a huge number of
    periodic images. With the shortest vectors it extends over few images. The third vector of a
    slab is the unit normal.
    """
    order = np.argsort([not periodic for periodic in structure.pbc], kind="stable")
    periodic = True, True, all(structure.pbc)
    return np.array(minkowski_reduce(structure.cell[order], periodic)[0]), periodic


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

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq.structures import check_structures
    >>> [water] = check_structures([molecule("H2O")])
    >>> water.charge, len(water)
    (0.0, 3)
    """
    structures = []
    for i, item in enumerate(as_sequence(X)):
        if isinstance(item, Structure):
            structures.append(item)
        elif isinstance(item, Atoms):
            structures.append(check_one(i, item))
        else:
            raise TypeError(
                f"X[{i}] is a {type(item).__name__}, but every structure must be an ase.Atoms"
            )
    if not structures:
        raise ValueError("X holds no structures")
    return structures


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
    for structure, atoms in zip(check_structures(items), items, strict=True):
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
                f"X is a frame with {X.shape[1]} columns; structures need exactly one column"
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
        raise TypeError(f"X must be a list of ase.Atoms, got {type(X).__name__}")
    return X


def check_one(i, atoms):
    """Check one `ase.Atoms`, which error messages call structure i, and convert it."""
    numbers = atoms.numbers.astype(np.int64)

    def fail(message):
        raise ValueError(f"structure {i} ({_formula(numbers)}): {message}")

    _check_numbers(numbers, fail)
    positions, cell = _checked_geometry(atoms, fail)
    pbc = tuple(bool(p) for p in atoms.pbc)
    field = _field(atoms.info.get("external_field", (0.0, 0.0, 0.0)), fail)
    _check_cell(cell, pbc, field, fail)
    _check_space(positions, cell, pbc, fail)
    volume = abs(float(np.linalg.det(cell)))
    if any(pbc) and not all(pbc):
        # The third cell vector of a slab has no meaning. In ASE it may be zero or lie in the plane.
        normal = np.cross(*cell[np.array(pbc)])
        cell[pbc.index(False)] = normal / np.linalg.norm(normal)
    _check_distances(positions, cell, pbc, fail)
    masses = atoms.get_masses()
    bad = ~(np.isfinite(masses) & (masses > 0))
    if bad.any():
        fail(f"atom {bad.argmax()} has mass {masses[bad.argmax()]}")
    charge = _total_charge(atoms.info, fail)
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


def _checked_geometry(atoms, fail):
    """Copy positions and cell, and check that all numbers are finite."""
    positions = np.array(atoms.positions, dtype=np.float64)
    bad = ~np.isfinite(positions)
    if bad.any():
        atom, axis = np.argwhere(bad)[0]
        fail(f"atom {atom} has position {'xyz'[axis]} = {positions[atom, axis]}")
    cell = np.array(atoms.cell, dtype=np.float64)
    if not np.isfinite(cell).all():
        fail(f"the cell holds {cell[~np.isfinite(cell)][0]}")
    return positions, cell


def _digest(numbers, positions, cell, pbc):
    """Hash of a geometry; the cell is included only if the structure is periodic."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (numbers, positions, cell if any(pbc) else np.zeros(0), np.array(pbc)):
        digest.update(array.tobytes())
    return digest.digest()


def _formula(numbers):
    """Chemical formula for messages, in which numbers that are not elements appear as '?'."""
    symbols = [chemical_symbols[z] if 0 <= z <= MAX_ATOMIC_NUMBER else "?" for z in numbers]
    counts = {s: symbols.count(s) for s in sorted(set(symbols))}
    return "".join(s + (str(n) if n > 1 else "") for s, n in counts.items()) or "empty"


def _total_charge(info, fail):
    """Total charge, e, from `Atoms.info`."""
    charges = {key: info[key] for key in CHARGE_KEYS if key in info}
    for key, value in charges.items():
        try:
            charges[key] = float(value)
        except (TypeError, ValueError, OverflowError):
            fail(f"info[{key!r}] = {value!r} is not a number")
        if not np.isfinite(charges[key]):
            fail(f"info[{key!r}] = {value!r} is not finite")
    if len(set(charges.values())) > 1:
        values = ", ".join(f"info[{k!r}] = {v:g}" for k, v in charges.items())
        fail(f"disagreeing charges: {values}")
    return next(iter(charges.values()), 0.0)


def _field(value, fail):
    """External field, shape (3,), V/Angstrom."""
    field = _as_floats(value)
    if field.shape != (3,) or not np.isfinite(field).all():
        fail(f"info['external_field'] = {value!r} is not a finite vector of three numbers")
    field.setflags(write=False)
    return field


def _points(value, fail):
    """Points of the target `potential`, shape (n, 3), Angstrom, or None."""
    if value is None:
        return None
    points = _as_floats(value)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        fail(f"info['potential_points'] must be finite (n, 3), got shape {points.shape}")
    points.setflags(write=False)
    return points


def _as_floats(value):
    """A copy as an array of floats; an empty array if the value is not numeric."""
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.empty(0)


def _check_cell(cell, pbc, field, fail):
    """Raise an error for wires, flat cells, and external fields along a periodic axis.

    The energy in a field along a periodic axis is undefined.
    """
    n_periodic = sum(pbc)
    if n_periodic == 0:
        return
    if n_periodic == 1:
        fail(f"pbc = {pbc} is a wire; one periodic axis is not supported (use none, two or three)")
    vectors = cell[np.array(pbc)]
    # The Gram determinant of the periodic vectors only: the third vector of a slab may be zero.
    gram = vectors @ vectors.T
    scale = np.prod(np.diag(gram))
    if scale == 0.0 or np.linalg.det(gram) < 1e-12 * scale:
        fail(f"the periodic cell vectors span zero volume: {vectors.tolist()}")
    along = vectors @ field
    if np.abs(along).max() > 1e-10 * np.linalg.norm(field) * np.linalg.norm(vectors, axis=1).max():
        fail(f"info['external_field'] = {field.tolist()} points along a periodic axis")


def _check_space(positions, cell, pbc, fail):
    """Raise an error for unrealistically large positions and cells, see `FARTHEST`."""
    far = np.abs(positions) > FARTHEST
    if far.any():
        atom, axis = np.argwhere(far)[0]
        value = positions[atom, axis]
        fail(f"atom {atom} has position {'xyz'[axis]} = {value:g} (above {FARTHEST:g})")
    edges = np.ptp(positions, axis=0) + 1.0
    if any(pbc):
        edges = np.maximum(np.linalg.norm(cell, axis=1) * pbc, 1.0)
        if edges.max() > FARTHEST:
            fail(f"a cell vector is {edges.max():g} Angstrom long (above {FARTHEST:g})")
    if edges.prod() > LARGEST_SPACE:
        sizes = " x ".join(f"{edge:.3g}" for edge in edges)
        fail(f"extends over {sizes} Angstrom (more than {LARGEST_SPACE:g} Angstrom^3)")


def _check_distances(positions, cell, pbc, fail):
    """Raise an error if two atoms, or an atom and an image, are too close to each other."""
    atoms = np.arange(len(positions))
    # A tree finds close pairs in N log N steps; a matrix of distances would be too large.
    if any(pbc):
        positions, atoms = _with_images(positions, cell, pbc)
    pairs = cKDTree(positions).query_pairs(SHORTEST_DISTANCE, output_type="ndarray")
    if len(pairs):
        i, j = pairs[0]
        distance = np.linalg.norm(positions[i] - positions[j])
        a, b = sorted((atoms[i], atoms[j]))
        fail(f"atoms {a} and {b} are {distance:.3g} Angstrom apart (below {SHORTEST_DISTANCE})")


def _with_images(positions, cell, pbc):
    """Wrapped positions plus images in adjacent cells, and the atom's index for each position."""
    cell = minkowski_reduce(cell, pbc)[0]
    inverse = np.linalg.inv(cell)
    fractions, atoms = positions @ inverse, np.arange(len(positions))
    for axis in np.flatnonzero(pbc):
        fractions[:, axis] %= 1.0
        # An atom close to the lower face of the cell may be too close to an atom near the upper
        # face. Its image just beyond the upper face is therefore added.
        low = fractions[:, axis] <= SHORTEST_DISTANCE * np.linalg.norm(inverse[:, axis])
        images = fractions[low] + np.eye(3)[axis]
        fractions, atoms = np.concatenate([fractions, images]), np.append(atoms, atoms[low])
    return fractions @ cell, atoms
