"""Make the bundled data sets: dipoles and charges of small organic molecules and ions.

Every molecule of ``molecules.smi`` is embedded by RDKit, optimised with GFN2-xTB and labelled by
one PBE0/def2-TZVP calculation. Of each molecule with up to three heavy atoms there is also a
rattled copy, in the same group.

Run ``python tools/make_molecules.py``; it needs ``rdkit tblite pyscf ase tqdm``. Each finished
molecule is appended to a journal, so that an interrupted run can be continued. With a complete
journal the script only writes the data files, with the same bytes each time.

Notes
-----
Units: Angstrom, eV, e, e*Angstrom. The dipole of an ion depends on the origin of coordinates. The
origin is the centre of mass.

The keys ``REF_dipole``, ``REF_charges`` and ``REF_energy`` have a prefix because ASE's reader moves
keys without it into a calculator.
"""

import argparse
import gzip
import json
import logging
import os
import random
import zlib
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.io import write
from ase.optimize import BFGS
from ase.units import Debye, Hartree
from pyscf import dft, gto
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem
from tblite.ase import TBLite
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

ROOT = Path(__file__).parents[1]
SEED = 2022
BASIS = "def2-TZVP"
# [radial, angular] points. The default grid of pyscf takes more than twice as long. The differences
# between both grids are 3e-4 D, 4e-4 e and 2 meV (acetamide, CF3CH2CH2NH2).
GRID = {"H": [30, 170], "default": [40, 194]}
FMAX = 0.05  # eV/Angstrom
MAX_HEAVY_RATTLED = 3
RATTLE = 0.05  # Angstrom, standard deviation of each coordinate
LEVEL = (
    f"PBE0/{BASIS} (density fitting), pyscf {version('pyscf')}; "
    f"geometry GFN2-xTB, tblite {version('tblite')}"
)
# Everything that a result depends on. Journal entries with other settings are ignored.
SETTINGS = [LEVEL, GRID, SEED, FMAX, MAX_HEAVY_RATTLED, RATTLE, version("rdkit")]

log = logging.getLogger("make_molecules")


class Rejected(Exception):
    """A molecule could not be labelled; the message gives the reason."""


def read_list(path):
    """Distinct molecules of a list, as ``{smiles: group}``.

    The order is random, so that the first part of a run or of a file is a random sample.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    families = [line.split(":", 1)[1] for line in lines if line and not line.startswith("#")]
    # A dict, not a set: before shuffling, the order must be the same in every run.
    distinct = list(dict.fromkeys(map(portable_smiles, " ".join(families).split())))
    random.Random(SEED).shuffle(distinct)
    return {smiles: group for group, smiles in enumerate(distinct)}


def portable_smiles(smiles):
    r"""SMILES that extended XYZ can store.

    ASE's reader drops backslashes, and reads a single ``F`` (hydrogen fluoride) as False.
    """
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise ValueError(f"RDKit cannot read {smiles!r}.")
    canonical = Chem.MolToSmiles(molecule)
    if canonical == "F":
        return "[H]F"
    spellings = [canonical]
    for atom in Chem.MolFromSmiles(canonical).GetAtoms():
        again = Chem.MolFromSmiles(canonical)
        spellings.append(Chem.MolToSmiles(again, rootedAtAtom=atom.GetIdx()))
    return next(spelling for spelling in spellings if "\\" not in spelling)


def build(smiles):
    """Geometry optimised with GFN2-xTB, with the centre of mass at the origin."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if AllChem.EmbedMolecule(molecule, randomSeed=SEED) != 0:
        raise Rejected("RDKit found no conformer")
    if AllChem.MMFFHasAllMoleculeParams(molecule):
        AllChem.MMFFOptimizeMolecule(molecule)
    charge = Chem.GetFormalCharge(molecule)
    atoms = Atoms(
        [atom.GetSymbol() for atom in molecule.GetAtoms()],
        molecule.GetConformer().GetPositions(),
        info={"charge": charge},
    )
    atoms.calc = TBLite(method="GFN2-xTB", charge=charge, multiplicity=1, verbosity=0)
    if not BFGS(atoms, logfile=None).run(fmax=FMAX, steps=500):
        raise Rejected("geometry not converged")
    atoms.calc = None
    if not np.array_equal(bonded(atoms), Chem.GetAdjacencyMatrix(molecule).astype(bool)):
        raise Rejected("the bonds changed during the optimisation")
    return centred(atoms)


def bonded(atoms):
    """Whether each pair of atoms is bonded, a boolean array of shape (n_atoms, n_atoms)."""
    radii = covalent_radii[atoms.numbers]
    bonds = atoms.get_all_distances() < 1.3 * np.add.outer(radii, radii)
    np.fill_diagonal(bonds, False)
    return bonds


def centred(atoms):
    """Move the centre of mass to the origin, and round the coordinates as in the data file."""
    atoms.positions -= atoms.get_center_of_mass()
    atoms.positions = atoms.positions.round(6)
    return atoms


def rattled(atoms, smiles):
    """A copy with random displacements that are the same in every run."""
    atoms = atoms.copy()
    atoms.rattle(RATTLE, seed=zlib.crc32(smiles.encode()))
    return centred(atoms)


def label(atoms):
    """Total energy, dipole vector and Mulliken charges from one PBE0 calculation."""
    molecule = gto.M(
        atom=list(zip(atoms.symbols, atoms.positions)),
        basis=BASIS,
        charge=atoms.info["charge"],
        verbose=0,
    )
    scf = dft.RKS(molecule, xc="PBE0").density_fit()
    scf.grids.atom_grid = GRID
    scf.conv_tol = 1e-8
    scf.kernel()
    if not scf.converged:
        raise Rejected("SCF not converged")
    dipole = scf.dip_moment(unit="Debye", verbose=0) * Debye
    _, charges = scf.mulliken_pop(verbose=0)
    return {
        "energy": round(scf.e_tot * Hartree, 6),
        "dipole": dipole.round(6).tolist(),
        "charges": charges.round(6).tolist(),
    }


def calculate(smiles):
    """Journal entry with all structures of one molecule, or with the reason of its rejection."""
    entry = {"smiles": smiles, "settings": SETTINGS, "structures": []}
    try:
        atoms = build(smiles)
        copies = [atoms]
        if np.sum(atoms.numbers > 1) <= MAX_HEAVY_RATTLED:
            copies.append(rattled(atoms, smiles))
        for copy in copies:
            entry["structures"].append(
                {"symbols": str(copy.symbols), "positions": copy.positions.tolist(), **label(copy)}
            )
    except Rejected as reason:
        log.warning("%s dropped: %s", smiles, reason)
        entry["rejected"] = str(reason)
    return entry


def read_journal(path):
    """Entries of the journal that were made with the present settings, by SMILES."""
    entries = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # the last line of an interrupted run
                continue
            if entry["settings"] == SETTINGS:
                entries[entry["smiles"]] = entry
    return entries


def run(groups, path):
    """Calculate the molecules that are missing in the journal."""
    done = read_journal(path)
    missing = [smiles for smiles in groups if smiles not in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as journal, logging_redirect_tqdm():
        for smiles in tqdm(missing, unit="molecule"):
            # The newline comes first, so that an incomplete line does not damage the next one.
            journal.write("\n" + json.dumps(calculate(smiles)))
            journal.flush()
            os.fsync(journal.fileno())


def pack(groups, entries, folder):
    """Write the data files: one of neutral molecules, one of ions."""
    images = {"molecules": [], "ions": []}
    for smiles, group in groups.items():
        charge = Chem.GetFormalCharge(Chem.MolFromSmiles(smiles))
        entry = entries.get(smiles, {"rejected": "not calculated"})
        if "rejected" in entry:
            log.info("%s left out: %s", smiles, entry["rejected"])
            continue
        for structure in entry["structures"]:
            atoms = Atoms(structure["symbols"], structure["positions"])
            atoms.arrays["REF_charges"] = np.array(structure["charges"])
            atoms.info = {
                "REF_dipole": np.array(structure["dipole"]),
                "REF_energy": structure["energy"],
                "charge": charge,
                "group": group,
                "smiles": smiles,
                "level": LEVEL,
            }
            images["ions" if charge else "molecules"].append(atoms)
    folder.mkdir(parents=True, exist_ok=True)
    for name, members in images.items():
        path = folder / f"{name}.xyz.gz"
        write_gzip(path, members)
        log.info(
            "%s: %d structures of %d molecules, %.0f kB",
            path,
            len(members),
            len({atoms.info["group"] for atoms in members}),
            path.stat().st_size / 1000,
        )


def write_gzip(path, images):
    """Write compressed extended XYZ.

    The header has no name or time, so that equal structures give equal files.
    """
    part = path.with_suffix(".part")
    with part.open("wb") as raw:
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed, TextIOWrapper(packed) as text:
            write(text, images, format="extxyz")
    part.replace(path)


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", type=Path, default=ROOT / "tools" / "molecules.smi")
    parser.add_argument("--journal", type=Path, default=ROOT / "build" / "molecules.jsonl")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "skqeq" / "datasets" / "data", metavar="FOLDER"
    )
    parser.add_argument(
        "--pack-only", action="store_true", help="only write the data files from the journal"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    RDLogger.DisableLog("rdApp.*")

    groups = read_list(arguments.list)
    if not arguments.pack_only:
        run(groups, arguments.journal)
    pack(groups, read_journal(arguments.journal), arguments.output)


if __name__ == "__main__":
    main()
