"""Read the harvested molecules and ions, and the points at which their potentials are given.

    from read_organic import read_organic

    train = read_organic("data/organic", split="train")

It needs NumPy and ASE only. ``data/README.md`` describes the labels.
"""

import gzip
import json
from pathlib import Path

import numpy as np
from ase import Atoms

# Van der Waals radii, Angstrom: Bondi (1964); boron from Mantina et al. (2009).
RADII = {
    "H": 1.20,
    "B": 1.92,
    "C": 1.70,
    "N": 1.55,
    "O": 1.52,
    "F": 1.47,
    "Si": 2.10,
    "P": 1.80,
    "S": 1.80,
    "Cl": 1.75,
    "Br": 1.85,
    "I": 1.98,
}
SHELLS = (1.4, 1.6, 1.8, 2.0)  # van der Waals radii
N_POINTS = 128  # per structure
N_SPHERE = 64  # Points per atom and shell, before most of them are removed.


def fibonacci_sphere(n):
    """Evenly spread unit vectors, shape (n, 3)."""
    i = np.arange(n)
    z = 1.0 - (2.0 * i + 1.0) / n
    phi = i * np.pi * (3.0 - np.sqrt(5.0))
    r = np.sqrt(1.0 - z * z)
    return np.round(np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1), 10)


def potential_points(symbols, positions):
    """Points between 1.4 and 2.0 van der Waals radii at which the potential is given.

    Every atom has four spheres of points. The function removes points that are closer to another
    atom than 1.4 times its radius. Then it repeatedly selects the point with the largest distance
    from all selected points. It compares rounded distances, so that every computer selects the
    same points.

    Parameters
    ----------
    symbols : sequence of str
        Chemical symbols.
    positions : array-like of shape (n_atoms, 3)
        Angstrom, with as many decimals as in the file.

    Returns
    -------
    points : ndarray of shape (N_POINTS, 3)
        Angstrom.
    """
    positions = np.asarray(positions, dtype=float)
    radii = np.array([RADII[symbol] for symbol in symbols])
    sphere = fibonacci_sphere(N_SPHERE)
    found = []
    for shell in SHELLS:
        for atom, (centre, radius) in enumerate(zip(positions, radii)):
            points = np.round(centre + shell * radius * sphere, 6)
            distances = np.linalg.norm(points[:, None] - positions, axis=2) / radii
            distances[:, atom] = np.inf
            found.append(points[np.all(np.round(distances, 6) >= SHELLS[0], axis=1)])
    candidates = np.concatenate(found)
    taken = [0]
    nearest = np.full(len(candidates), np.inf)
    for _ in range(N_POINTS - 1):
        squared = np.sum((candidates - candidates[taken[-1]]) ** 2, axis=1)
        nearest = np.minimum(nearest, np.round(squared, 6))
        taken.append(int(np.argmax(nearest)))
    return candidates[taken]


def read_records(folder):
    """Yield every structure as it is in the files: a dict with lists."""
    for path in sorted(Path(folder).glob("organic_[0-9][0-9][0-9].jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)


def read_organic(folder, split="train"):
    """Read structures; their labels have names that `skqeq.targets_from_atoms` finds.

    Parameters
    ----------
    folder : path-like
        Folder of the files ``organic_000.jsonl.gz`` and so on.
    split : {"train", "test"}
        Use the test set only for the last evaluation of a model.

    Returns
    -------
    structures : list of ase.Atoms
        Labels are in ``info`` and, per atom, in ``arrays``.
    """
    structures = []
    for record in read_records(folder):
        if record["split"] != split:
            continue
        atoms = Atoms(record["symbols"], record["positions"])
        atoms.arrays["REF_charges"] = np.array(record["charges"])
        atoms.arrays["REF_atomic_dipoles"] = np.array(record["atomic_dipoles"])
        atoms.info = {
            "charge": record["charge"],
            "potential_points": potential_points(record["symbols"], record["positions"]),
        }
        for label in ("dipole", "quadrupole", "potential", "potential_hf"):
            if label in record:
                atoms.info[f"REF_{label}"] = np.array(record[label])
        atoms.info["REF_energy"] = record["energy"]
        for key in ("id", "smiles", "family", "group", "geometry", "basis"):
            atoms.info[key] = record[key]
        structures.append(atoms)
    return structures
