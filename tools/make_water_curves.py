"""Make reference curves of water clusters with GFN2-xTB: expansion of a cluster, and fields.

There is one cluster of six molecules for each charge state, from a separate trajectory. In the
first curve the molecules move apart: their distances to the centre are multiplied by 0.9 to 5. In
the second curve the cluster does not change, and a field of -0.2 to 0.2 V/Angstrom acts along x, y
or z. `skqeq.validation` compares models with these curves.

Run ``python tools/make_water_curves.py``; it needs ``make_water.py`` in the same folder and the
packages that ``make_water.py`` lists. It takes a minute.
"""

import argparse
import logging
from pathlib import Path

import numpy as np
from make_water import (
    HYDROGENS,
    LEVEL,
    ROOT,
    SEED,
    Rejected,
    gfn2,
    image,
    log,
    molecules,
    trajectory,
    write_gzip,
)

N_MOLECULES = 6
FACTORS = np.round(np.concatenate([np.arange(0.9, 2.0, 0.05), np.arange(2.0, 5.01, 0.25)]), 4)
FIELDS = np.round(np.linspace(-0.2, 0.2, 9), 4)
GROUP = 2000  # larger than the number of any trajectory of make_water


def curves(charge):
    """Yield the structures of one charge state: first the expansion, then the cluster in fields."""
    rng = np.random.default_rng([SEED, N_MOLECULES, charge + 1, GROUP])
    for atoms in trajectory(N_MOLECULES, charge, 20, rng):
        molecule = molecules(atoms)
        hydrogens = sorted(np.bincount(molecule) - 1)
        if hydrogens == sorted([HYDROGENS[charge]] + [2] * (N_MOLECULES - 1)):
            break
    else:
        raise RuntimeError("no snapshot has intact molecules")
    atoms.positions -= atoms.get_center_of_mass()
    centers = np.array([atoms[molecule == i].get_center_of_mass() for i in range(N_MOLECULES)])
    for factor in FACTORS:
        copy = atoms.copy()
        copy.positions = (atoms.positions + (factor - 1) * centers[molecule]).round(5)
        copy.info = {"charge": charge, "curve": "expansion", "expansion": float(factor)}
        yield copy
    for axis in range(3):
        for field in FIELDS:
            copy = atoms.copy()
            copy.positions = atoms.positions.round(5)
            copy.info = {"charge": charge, "curve": "field", "expansion": 1.0}
            copy.info["external_field"] = (field * np.eye(3)[axis]).tolist()
            yield copy


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=ROOT / "skqeq" / "datasets" / "data", metavar="FOLDER"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    labelled = []
    for i, charge in enumerate(HYDROGENS):
        for atoms in curves(charge):
            structure = {
                "symbols": str(atoms.symbols),
                "positions": atoms.positions,
                "info": {**atoms.info, "n_molecules": N_MOLECULES},
            }
            try:
                labels = gfn2(atoms)
            except Rejected as reason:
                log.warning("%s dropped: %s", structure["info"], reason)
                continue
            labelled.append(image(structure, labels, GROUP + i, LEVEL))
            for name in ("forces", "charges"):
                labelled[-1].arrays[f"REF_{name}"] = labelled[-1].arrays[f"REF_{name}"].round(5)
    write_gzip(arguments.output / "water_curves.xyz.gz", labelled)


if __name__ == "__main__":
    main()
