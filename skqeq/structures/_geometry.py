"""Checks of positions and cells.

Every check gets a function ``fail(message)``, which raises an error that names the structure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.geometry import minkowski_reduce
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms

    from .._typing import Array

    Fail = Callable[[str], None]


# Minimum distance of two atoms, in units of the sum of their covalent radii. The shortest distances
# of the bundled data, of ions and of LiH under pressure are 0.68 to 0.8 of the sum, those of alkali
# metals at 100 GPa about 0.5, that of two hydrogen atoms at 0.5 Angstrom 0.8. Smaller values come
# from alternative positions of one atom and from coordinates in other units.
SHORTEST_DISTANCE = 0.4
MIN_DISTANCES = SHORTEST_DISTANCE * covalent_radii
# Minimum volume per atom of a crystal, Angstrom^3. Hydrogen at 500 GPa has 1.
SMALLEST_VOLUME = 0.5
# Minimum volume (Angstrom^3) or area (Angstrom^2) that is not called zero.
FLAT = 1e-3
# Maximum distance of an atom from the origin (Angstrom), and maximum volume of the box around all
# atoms (Angstrom^3). Larger values usually come from a wrong column of the file. Neighbour lists of
# such a box would fill the memory.
FARTHEST, LARGEST_SPACE = 1e6, 1e9


def checked_geometry(atoms: Atoms, fail: Fail) -> tuple[Array, Array]:
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


def check_cell(cell: Array, pbc: tuple[bool, ...], n_atoms: int, field: Array, fail: Fail) -> None:
    """Raise an error for wires, flat and tiny cells, and external fields along a periodic axis.

    The energy in a field along a periodic axis is undefined.
    """
    n_periodic = sum(pbc)
    if n_periodic == 0:
        return
    if n_periodic == 1:
        fail(f"pbc = {pbc} is a wire; one periodic axis is not supported (use none, two or three)")
    vectors = cell[np.array(pbc)]
    lengths = np.linalg.norm(vectors, axis=1)
    longest = lengths.max()
    if longest > FARTHEST:
        fail(f"a cell vector is {longest:g} Angstrom long (above {FARTHEST:g})")
    # The size of the periodic vectors only: the third vector of a slab may be zero. A cell with
    # long skew vectors is not flat, so the size must not be compared with the lengths.
    size = abs(np.linalg.det(cell)) if n_periodic == 3 else np.linalg.norm(np.cross(*vectors))
    if size < max(FLAT, 1e-14 * lengths.prod()):  # which is the rounding error
        fail(f"the periodic cell vectors span zero volume: {vectors.tolist()}")
    if n_periodic == 3 and (size < SMALLEST_VOLUME * n_atoms or _is_placeholder(cell)):
        what = "1 x 1 x 1" if _is_placeholder(cell) else f"{size / n_atoms:.3g} Angstrom^3 per atom"
        fail(
            f"a cell of {what} is a placeholder of files without a cell, or has another unit; set "
            "atoms.cell, or atoms.pbc = False for a molecule"
        )
    along = vectors @ field
    if np.abs(along).max() > 1e-10 * np.linalg.norm(field) * longest:
        fail(f"info['external_field'] = {field.tolist()} points along a periodic axis")


def _is_placeholder(cell):
    """Whether the cell is that of ``CRYST1 1 1 1 90 90 90`` in PDB files without a cell."""
    return np.abs(cell - np.eye(3)).max() < 1e-3


def check_space(positions: Array, cell: Array | None, fail: Fail) -> None:
    """Raise an error for unrealistically large positions and cells, see `FARTHEST`.

    `cell` has the shortest periodic vectors, and zeros for other vectors; None for molecules.
    """
    far = np.abs(positions) > FARTHEST
    if far.any():
        atom, axis = np.argwhere(far)[0]
        value = positions[atom, axis]
        fail(f"atom {atom} has position {'xyz'[axis]} = {value:g} (above {FARTHEST:g})")
    if cell is None:
        edges = np.ptp(positions, axis=0) + 1.0
    else:
        edges = np.maximum(np.linalg.norm(cell, axis=1), 1.0)
    if edges.prod() > LARGEST_SPACE:
        sizes = " x ".join(f"{edge:.3g}" for edge in edges)
        fail(f"extends over {sizes} Angstrom (more than {LARGEST_SPACE:g} Angstrom^3)")


def check_distances(
    numbers: Array, positions: Array, cell: Array | None, pbc: tuple[bool, ...], fail: Fail
) -> None:
    """Raise an error if two atoms, or an atom and an image, are too close to each other.

    `cell` has the shortest cell vectors; None for molecules.
    """
    radii = MIN_DISTANCES[numbers]
    cutoff = 2.0 * radii.max()
    atoms = np.arange(len(positions))
    if cell is not None:
        positions, atoms = _with_images(positions, cell, pbc, cutoff)
    # A tree finds close pairs in N log N steps; a matrix of distances would be too large.
    pairs = cKDTree(positions).query_pairs(cutoff, output_type="ndarray")
    if not len(pairs):
        return
    i, j = pairs.T
    distances = np.linalg.norm(positions[i] - positions[j], axis=1)
    limits = radii[atoms[i]] + radii[atoms[j]]
    worst = (distances / limits).argmin()
    if distances[worst] < limits[worst]:
        a, b = sorted((int(atoms[i[worst]]), int(atoms[j[worst]])))
        elements = "-".join(chemical_symbols[numbers[k]] for k in (a, b))
        fail(
            f"atoms {a} and {b} are {distances[worst]:.3g} Angstrom apart (below "
            f"{limits[worst]:.2g} for {elements}); look for alternative positions of one atom, and "
            "for another unit of the positions"
        )


def _with_images(positions, cell, pbc, cutoff):
    """Wrapped positions plus images in adjacent cells, and the atom's index for each position."""
    inverse = np.linalg.inv(cell)
    fractions, atoms = positions @ inverse, np.arange(len(positions))
    for axis in np.flatnonzero(pbc):
        fractions[:, axis] %= 1.0
        # An atom close to the lower face of the cell may be too close to an atom near the upper
        # face. Its image just beyond the upper face is therefore added.
        low = fractions[:, axis] <= cutoff * np.linalg.norm(inverse[:, axis])
        images = fractions[low] + np.eye(3)[axis]
        fractions, atoms = np.concatenate([fractions, images]), np.append(atoms, atoms[low])
    return fractions @ cell, atoms


def shortest_vectors(cell: Array, pbc: tuple[bool, ...]) -> Array:
    """Shortest cell vectors of the same lattice; vectors that are not periodic stay as they are."""
    return np.array(minkowski_reduce(cell, pbc)[0])
