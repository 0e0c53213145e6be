"""Structures of any size for benchmarks: water, two ionic crystals, a drop of water, a ball of ZnO.

    python benchmarks/systems.py

For each structure, the script prints the requested and the actual number of atoms, the edges, the
density and the shortest distances. The structures are not equilibrated. Their densities are those
of the real substances, and their shortest distances are realistic. The same arguments always give
the same structure.
"""

import itertools
import time

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

WATER_SITE = (18.015 * units._amu * 1e27) ** (1 / 3)  # edge of a molecule's cube at 1 g/cm^3, A
SHORTEST_CONTACT = 1.6  # Angstrom, between atoms of different molecules


def repeats(edges, atoms_per_cell, n_atoms):
    """How often to repeat a cell along each axis to get about `n_atoms` atoms in nearly a cube."""
    edges = np.asarray(edges, float)
    edge = (n_atoms / atoms_per_cell * edges.prod()) ** (1 / 3)
    candidates = [range(max(1, int(edge / a) - 1), int(edge / a) + 3) for a in edges]

    def cost(counts):
        lengths = np.array(counts) * edges
        size = abs(np.log(atoms_per_cell * np.prod(counts) / n_atoms))
        return size + 0.2 * np.log(lengths.max() / lengths.min())

    return min(itertools.product(*candidates), key=cost)


def rattled_crystal(cell, n_atoms, seed):
    """A supercell with random normal displacements of 0.05 Angstrom along each axis."""
    atoms = cell * repeats(cell.cell.lengths(), len(cell), n_atoms)
    atoms.positions += np.random.default_rng(seed).normal(scale=0.05, size=(len(atoms), 3))
    return atoms


def nacl(n_atoms, seed=0):
    """Rock salt, a = 5.64 Angstrom."""
    cation = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
    anion = cation + [0.5, 0, 0]
    cell = Atoms("Na4Cl4", scaled_positions=[*cation, *anion], cell=[5.64] * 3, pbc=True)
    return rattled_crystal(cell, n_atoms, seed)


def zno(n_atoms, seed=0):
    """Wurtzite in an orthorhombic cell, a = 3.25 and c = 5.21 Angstrom, u = 0.382."""
    a, c, u = 3.25, 5.21, 0.382
    zinc = np.array([[0, 0, 0], [1 / 2, 1 / 2, 0], [0, 1 / 3, 1 / 2], [1 / 2, 5 / 6, 1 / 2]])
    oxygen = zinc + [0, 0, u]
    edges = [a, np.sqrt(3) * a, c]
    cell = Atoms("Zn4O4", scaled_positions=[*zinc, *oxygen], cell=edges, pbc=True)
    return rattled_crystal(cell, n_atoms, seed)


def water(n_atoms, seed=0):
    """Periodic water at 1 g/cm^3; each molecule is whole, and its atoms are contiguous (O, H, H).

    The molecules are placed near the points of a cubic lattice, with random rotations. If two
    molecules are too close, one of them gets a new random rotation, until no two are too close.
    """
    rng = np.random.default_rng(seed)
    counts = np.array(repeats([WATER_SITE] * 3, 3, n_atoms))
    cell = counts * WATER_SITE
    oxygen = (np.indices(counts).reshape(3, -1).T + 0.5) * WATER_SITE
    n_molecules = len(oxygen)
    oxygen += rng.uniform(-0.2, 0.2, size=oxygen.shape)
    shape = molecule("H2O").positions
    shape = shape - shape[0] + rng.normal(scale=0.02, size=(n_molecules, 3, 3))
    positions = np.empty((n_molecules, 3, 3))
    turn = np.arange(n_molecules)
    for _ in range(1000):
        rotations = Rotation.random(len(turn), random_state=rng).as_matrix()
        positions[turn] = oxygen[turn, None] + np.einsum("nij,naj->nai", rotations, shape[turn])
        tree = cKDTree(positions.reshape(-1, 3) % cell, boxsize=cell)
        pairs = tree.query_pairs(SHORTEST_CONTACT, output_type="ndarray") // 3
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        if len(pairs) == 0:
            break
        # Rotate one of the two molecules, chosen at random. If always the same one were rotated,
        # some contacts could never be removed.
        turn = np.unique(np.where(rng.random(len(pairs)) < 0.5, pairs[:, 0], pairs[:, 1]))
    else:
        raise RuntimeError(f"{len(pairs)} pairs of molecules are still too close")
    return Atoms("OHH" * n_molecules, positions.reshape(-1, 3), cell=cell, pbc=True)


def droplet(n_atoms, seed=0):
    """The `n_atoms // 3` molecules of a box of water that are closest to its centre; no cell."""
    n_molecules = n_atoms // 3
    # The cube around a sphere has 6 / pi times the volume of the sphere. Add a layer of molecules
    # on each side.
    n_box = ((6 / np.pi * n_molecules) ** (1 / 3) + 2) ** 3
    box = water(3 * int(n_box), seed)
    centre = box.cell.lengths() / 2
    distance = np.linalg.norm(box.positions[::3] - centre, axis=1)
    nearest = np.sort(np.argsort(distance)[:n_molecules])
    positions = box.positions.reshape(-1, 3, 3)[nearest] - centre
    return Atoms("OHH" * n_molecules, positions.reshape(-1, 3))


def zno_ball(n_atoms, seed=0):
    """The `n_atoms // 2` zinc and oxygen atoms of wurtzite that are closest to a point; no cell."""
    bulk = zno(3 * n_atoms + 200, seed)
    distance = np.linalg.norm(bulk.positions - bulk.cell.lengths() / 2, axis=1)
    nearest = [
        np.flatnonzero(bulk.symbols == s)[np.argsort(distance[bulk.symbols == s])[: n_atoms // 2]]
        for s in ("Zn", "O")
    ]
    ball = bulk[np.sort(np.concatenate(nearest))]
    return Atoms(ball.symbols, ball.positions - bulk.cell.lengths() / 2)


SYSTEMS = {"water": water, "zno": zno, "nacl": nacl, "droplet": droplet, "zno_ball": zno_ball}


def shortest(atoms, first, second):
    """Shortest distance between two elements; in water only between different molecules."""
    period = atoms.cell.lengths() if atoms.pbc.all() else None
    positions = atoms.positions if period is None else atoms.positions % period
    pairs = cKDTree(positions, boxsize=period).query_pairs(4.0, output_type="ndarray")
    if set(atoms.symbols) == {"H", "O"}:
        pairs = pairs[pairs[:, 0] // 3 != pairs[:, 1] // 3]
    symbols = np.array(atoms.symbols)[pairs]
    wanted = (symbols == (first, second)).all(axis=1) | (symbols == (second, first)).all(axis=1)
    difference = positions[pairs[wanted, 0]] - positions[pairs[wanted, 1]]
    if period is not None:
        difference -= np.round(difference / period) * period
    return np.linalg.norm(difference, axis=1).min(initial=np.inf)


def describe(name, n_atoms):
    """One line about a structure; in water, distances are those between different molecules."""
    start = time.perf_counter()
    atoms = SYSTEMS[name](n_atoms)
    seconds = time.perf_counter() - start
    edges = atoms.cell.lengths() if atoms.pbc.all() else np.ptp(atoms.positions, axis=0)
    density = ""
    if atoms.pbc.all():
        density = f"{atoms.get_masses().sum() * units._amu * 1e27 / atoms.get_volume():.3f} g/cm^3"
    elements = sorted(set(atoms.symbols))
    closest = [
        f"{a}-{b} {shortest(atoms, a, b):.2f}"
        for a, b in itertools.combinations_with_replacement(elements, 2)
    ]
    return (
        f"{name:8} {n_atoms:7} {len(atoms):7}  {'x'.join(f'{x:.1f}' for x in edges):20}"
        f"{density:13}  {', '.join(closest):36} {seconds:6.2f} s"
    )


if __name__ == "__main__":
    for name, n_atoms in itertools.product(SYSTEMS, (100, 1000, 10_000, 100_000)):
        print(describe(name, n_atoms))
