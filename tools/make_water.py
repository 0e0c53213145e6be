"""Make the data sets of water clusters: energies, forces, dipoles and charges, also in fields.

Clusters of three charge states (neutral, with H3O+, with OH-) are drawn from molecular dynamics
with GFN2-xTB; part of them are blown up, so that the molecules stand far apart, and part of them
are in a uniform electric field. It is the study of Vondrak, Reuter and Margraf, "Pushing charge
equilibration-based machine learning potentials to their limits", npj Comput. Mater. 2025, at small
size.

The clusters are labelled with GFN2-xTB; a few hundred small ones, from dynamics of their own, with
PBE0.

Run ``python tools/make_water.py``; it needs ``tblite pyscf ase tqdm``. Finished trajectories and
labels are appended to journals as they come, so that a run killed at any moment goes on where it
stopped. With full journals the script only writes the data files, the same bytes each time.

Notes
-----
Units: Angstrom, eV, e, e*Angstrom, V/Angstrom. The centre of mass is at the origin of coordinates,
so that the dipoles of ions, which depend on the origin, are about the centre of mass.

The energy in a field F contains ``-sum_i q_i r_i . F`` about the origin of coordinates: positive
charge is driven along the field, the forces on an ion of charge Q sum to Q F, and a shift of it by
t changes the energy by ``-Q t . F``. ``python tools/make_water.py --check`` verifies this, and the
forces against differences of the energy.

Labels carry the prefix ``REF_`` because ASE's reader moves keys without it into a calculator.
"""

import argparse
import gzip
import json
import logging
import os
import random
from functools import cache
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.constraints import Hookean
from ase.io import write
from ase.md.langevin import Langevin
from ase.optimize import FIRE
from ase.units import Bohr, Hartree, fs
from pyscf import dft, gto, scf
from tblite.ase import TBLite
from tblite.interface import Calculator
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

ROOT = Path(__file__).parents[1]
SEED = 2025
ATOMIC_FIELD = Hartree / Bohr  # V/Angstrom in the atomic unit of the field
HYDROGENS = {0: 2, 1: 3, -1: 1}  # of the molecule that carries the charge

SIZES = range(3, 11)
REPLICAS = 4  # independent trajectories of each size and charge
BUNDLED_REPLICAS = 3
SNAPSHOTS = 25  # of one trajectory
SPACING = 80  # time steps between snapshots
WARM_UP = 500  # time steps before the first
TIMESTEP = 1.0  # fs
TEMPERATURE = (300.0, 350.0)  # K
FRICTION = 0.02  # 1/fs
SPRING = 0.5  # eV/Angstrom^2, on oxygens outside the wall

EXPANDED = 1 / 3  # part of the snapshots that come expanded too
# Ranges of the factor and how often each is drawn.
FACTORS = {(0.9, 1.0): 0.1, (1.0, 3.0): 0.75, (3.0, 5.0): 0.15}
CONTACT = 0.8  # Angstrom, the shortest between two molecules
IN_FIELD = 1 / 4
FIELD = (0.01, 0.2)  # V/Angstrom
# V, the most that a field may drop over a cluster: more would drive charge from one end of an
# expanded cluster to the other.
DROP = 4.0
ACCURACY = 0.1  # tblite's, of the labels

# Trajectories of each charge, by size; PBE0 takes thousand times as long as GFN2-xTB.
PBE0_REPLICAS = {2: 2, 3: 5, 4: 2}
PBE0_SNAPSHOTS = 15
# V: an electron of OH- is bound by less than the 4 V of DROP.
PBE0_DROP = 1.0
BASIS = "def2-SVPD"
GRID = {"H": [40, 194], "default": [50, 302]}  # radial, angular points

LEVEL = f"GFN2-xTB, tblite {version('tblite')}"
PBE0_LEVEL = (
    f"PBE0/{BASIS} (density fitting), Hirshfeld charges, pyscf {version('pyscf')}; "
    f"geometry from dynamics with {LEVEL}"
)
# What an entry of a journal depends on: entries made otherwise do not count.
SETTINGS = [
    *[SEED, SNAPSHOTS, SPACING, WARM_UP, TIMESTEP, TEMPERATURE, FRICTION, SPRING, EXPANDED],
    *[sorted(FACTORS.items()), CONTACT, IN_FIELD, FIELD, DROP, ACCURACY, LEVEL],
]
SETTINGS = json.loads(json.dumps(SETTINGS))  # as they are read from a journal
PBE0_SETTINGS = [*SETTINGS, PBE0_SNAPSHOTS, PBE0_DROP]
PBE0_LABEL_SETTINGS = [*PBE0_SETTINGS, PBE0_LEVEL, GRID]

log = logging.getLogger("make_water")


class Rejected(Exception):
    """A structure that cannot be made or labelled, with the reason."""


class Job(NamedTuple):
    """One trajectory."""

    group: int
    n_molecules: int
    charge: int
    replica: int


def jobs(replicas):
    """All trajectories.

    Every size and charge comes once before any comes twice, in random order, so that the first
    part of a run is a fair sample.
    """
    found = []
    for replica in range(replicas):
        kinds = [(n, charge) for n in SIZES for charge in HYDROGENS]
        random.Random(SEED + replica).shuffle(kinds)
        found += [Job(len(found) + i, *kind, replica) for i, kind in enumerate(kinds)]
    return found


def pbe0_jobs():
    """Trajectories of the small clusters; their groups are none of the others."""
    found = []
    for n_molecules, replicas in PBE0_REPLICAS.items():
        for charge in HYDROGENS:
            for i in range(replicas):
                found.append(Job(1000 + len(found), n_molecules, charge, 1000 + i))
    return found


def packed(n_molecules, charge, rng):
    """Molecules in random places and directions, the first of them with the charge."""
    while True:
        radius = 1.9 * n_molecules ** (1 / 3)
        oxygens = np.empty((0, 3))
        for _ in range(1000):
            place = rng.uniform(-radius, radius, 3)
            if np.linalg.norm(place) < radius and np.all(
                np.linalg.norm(oxygens - place, axis=1) > 2.5
            ):
                oxygens = np.vstack([oxygens, place])
            if len(oxygens) == n_molecules:
                break
        else:
            continue
        atoms = Atoms()
        members = []
        for i, place in enumerate(oxygens):
            molecule = water(HYDROGENS[charge] if i == 0 else 2)
            direction = np.linalg.qr(rng.normal(size=(3, 3)))[0]
            molecule.positions = molecule.positions @ direction + place
            atoms += molecule
            members += [i] * len(molecule)
        if shortest_contact(atoms, np.array(members)) > 1.3:
            return atoms


def water(n_hydrogens):
    """A rough OH-, H2O or H3O+."""
    angles = 2 * np.pi * np.array([0.0, 0.3, 0.65])[:n_hydrogens]
    places = [[0.97 * np.cos(a), 0.97 * np.sin(a), 0.0] for a in angles]
    return Atoms("O" + "H" * n_hydrogens, [[0, 0, 0], *places])


def molecules(atoms):
    """Index of each atom's molecule: hydrogens belong to the nearest oxygen.

    Always as many molecules as oxygens, even if a proton is on its way between two of them.
    """
    is_oxygen = atoms.numbers == 8
    distances = atoms.get_all_distances()[:, is_oxygen]
    return np.argmin(distances, axis=1)


def shortest_contact(atoms, molecule):
    """Shortest distance between atoms of different molecules, Angstrom."""
    apart = molecule[:, None] != molecule
    return atoms.get_all_distances()[apart].min(initial=np.inf)


def trajectory(n_molecules, charge, snapshots, rng):
    """Snapshots from molecular dynamics with GFN2-xTB."""
    atoms = packed(n_molecules, charge, rng)
    atoms.calc = TBLite(method="GFN2-xTB", charge=charge, multiplicity=1, verbosity=0)
    FIRE(atoms, logfile=None).run(fmax=0.3, steps=100)
    atoms.positions -= atoms.get_center_of_mass()
    wall = 2.0 * n_molecules ** (1 / 3) + 1.5
    oxygens = np.flatnonzero(atoms.numbers == 8)
    atoms.set_constraint([Hookean(int(i), (0.0, 0.0, 0.0), SPRING, wall) for i in oxygens])
    dynamics = Langevin(
        atoms,
        TIMESTEP * fs,
        temperature_K=rng.uniform(*TEMPERATURE),
        friction=FRICTION / fs,
        fixcm=False,
        rng=rng,
    )
    dynamics.run(WARM_UP)
    for _ in range(snapshots):
        dynamics.run(SPACING)
        yield Atoms(atoms.numbers, atoms.positions)


def expanded(atoms, molecule, rng):
    """A copy whose molecules are moved, as they are, from or to the centre; and the factor."""
    ranges = list(FACTORS)
    factor = round(rng.uniform(*ranges[rng.choice(len(ranges), p=list(FACTORS.values()))]), 4)
    copy = atoms.copy()
    centre = atoms.get_center_of_mass()
    for i in range(molecule.max() + 1):
        members = molecule == i
        copy.positions[members] += (factor - 1) * (atoms[members].get_center_of_mass() - centre)
    return copy, factor


def random_field(atoms, drop, rng):
    """A uniform field in a random direction, V/Angstrom."""
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    extent = np.ptp(atoms.positions @ direction)
    return (rng.uniform(FIELD[0], min(FIELD[1], drop / extent)) * direction).round(5)


def structures(job, snapshots, drop):
    """Snapshots and their expanded copies, part of them in fields, with numbers as written."""
    n_molecules, charge = job.n_molecules, job.charge
    rng = np.random.default_rng([SEED, n_molecules, charge + 1, job.replica])
    for snapshot in trajectory(n_molecules, charge, snapshots, rng):
        molecule = molecules(snapshot)
        hydrogens = sorted(np.bincount(molecule) - 1)
        if hydrogens != sorted([HYDROGENS[charge]] + [2] * (n_molecules - 1)):
            log.warning("a snapshot dropped: molecules with %s hydrogens", hydrogens)
            continue
        found = [(snapshot, 1.0)]
        if rng.random() < EXPANDED:
            found.append(expanded(snapshot, molecule, rng))
        for atoms, factor in found:
            if shortest_contact(atoms, molecule) < CONTACT:
                continue
            atoms.positions -= atoms.get_center_of_mass()
            atoms.positions = atoms.positions.round(5)
            atoms.info = {"charge": charge, "n_molecules": n_molecules, "expansion": factor}
            if rng.random() < IN_FIELD:
                atoms.info["external_field"] = random_field(atoms, drop, rng).tolist()
            yield atoms


def gfn2(atoms):
    """Energy, forces, dipole about the origin and Mulliken charges with GFN2-xTB."""
    calculator = Calculator(
        "GFN2-xTB", atoms.numbers, atoms.positions / Bohr, float(atoms.info["charge"])
    )
    calculator.set("verbosity", 0)
    calculator.set("accuracy", ACCURACY)
    if "external_field" in atoms.info:
        # A list, because tblite refuses an array.
        calculator.add("electric-field", [x / ATOMIC_FIELD for x in atoms.info["external_field"]])
    try:
        result = calculator.singlepoint()
    except RuntimeError as error:
        raise Rejected(f"not converged: {error}") from error
    return {
        "energy": result["energy"] * Hartree,
        "forces": -result["gradient"] * ATOMIC_FIELD,
        "dipole": result["dipole"] * Bohr,
        "charges": result["charges"],
    }


def free_atom(symbol):
    """Density matrix of the free atom, averaged over all directions, and its one-atom molecule."""
    molecule = gto.M(atom=symbol, basis=BASIS, spin={"H": 1, "O": 2}[symbol], verbose=0)
    atom = dft.UKS(molecule, xc="PBE0")
    atom.conv_tol = 1e-9
    atom.kernel()
    density = np.sum(atom.make_rdm1(), axis=0)
    # Between functions of the same l and m only, and the same for every m.
    average = np.zeros_like(density)
    start = molecule.ao_loc_nr()
    for i in range(molecule.nbas):
        for j in range(molecule.nbas):
            if molecule.bas_angular(i) == molecule.bas_angular(j):
                block = np.s_[start[i] : start[i + 1], start[j] : start[j + 1]]
                average[block] = np.eye(start[i + 1] - start[i]) * np.diag(density[block]).mean()
    return molecule, average


@cache
def free_atoms():
    """What `hirshfeld` compares with, by element."""
    return {symbol: free_atom(symbol) for symbol in ("H", "O")}


def hirshfeld(method):
    """Charges by the shares of the free atoms in the sum of their densities (Hirshfeld 1977)."""
    molecule, grids = method.mol, method.grids
    shares = []
    for i in range(molecule.natm):
        free, density = free_atoms()[molecule.atom_symbol(i)]
        values = free.eval_gto("GTOval_sph", grids.coords - molecule.atom_coord(i))
        shares.append(np.einsum("pi,ij,pj->p", values, density, values, optimize=True))
    # Where there is no density there is nothing to share.
    shares /= np.maximum(np.sum(shares, axis=0), 1e-100)
    electrons = dft.numint.NumInt().get_rho(molecule, method.make_rdm1(), grids) * grids.weights
    return molecule.atom_charges() - shares @ electrons


def pbe0(atoms):
    """Energy, forces, dipole about the origin and Hirshfeld charges with PBE0."""
    molecule = gto.M(
        atom=list(zip(atoms.symbols, atoms.positions)),
        basis=BASIS,
        charge=atoms.info["charge"],
        verbose=0,
    )
    method = dft.RKS(molecule, xc="PBE0").density_fit()
    method.grids.atom_grid = GRID
    method.conv_tol = 1e-9
    gradients = method.nuc_grad_method
    if "external_field" in atoms.info:
        field = np.array(atoms.info["external_field"]) / ATOMIC_FIELD
        # Electrons are negative: their energy in the field is +r . F, that of the nuclei -Z R . F.
        with molecule.with_common_origin((0.0, 0.0, 0.0)):
            hcore = scf.hf.get_hcore(molecule) + np.tensordot(field, molecule.intor("int1e_r"), 1)
            # <i| r_k d_l |j> in the order (k, l, i, j)
            moments = molecule.intor("int1e_irp").reshape(3, 3, molecule.nao, molecule.nao)
        nuclei = molecule.atom_charges()
        nuclear = molecule.energy_nuc() - nuclei @ molecule.atom_coords() @ field
        method.get_hcore = lambda *_: hcore
        method.energy_nuc = lambda *_: nuclear
    method.kernel()
    if not method.converged:
        raise Rejected("SCF not converged")
    gradient = gradients()
    if "external_field" in atoms.info:
        bare_hcore, bare_nuclei = gradient.get_hcore, gradient.grad_nuc
        # Functions move with their atoms, hence the minus sign.
        moved = -np.einsum("k,klij->lji", field, moments)
        gradient.get_hcore = lambda mol=None: bare_hcore(mol) + moved
        gradient.grad_nuc = lambda mol=None, atmlst=None: (
            bare_nuclei(mol, atmlst) - np.outer(nuclei, field)
        )
    return {
        "energy": method.e_tot * Hartree,
        "forces": -gradient.kernel() * ATOMIC_FIELD,
        "dipole": method.dip_moment(unit="AU", verbose=0) * Bohr,
        "charges": hirshfeld(method),
    }


def plain(atoms):
    """A structure as it stands in a journal."""
    return {
        "symbols": str(atoms.symbols),
        "positions": atoms.positions.tolist(),
        "info": atoms.info,
    }


def rounded(labels):
    """Labels as they stand in a journal."""
    return {name: np.round(label, 5).tolist() for name, label in labels.items()}


def calculate(job):
    """All structures of one trajectory, with labels."""
    found = []
    for atoms in structures(job, SNAPSHOTS, DROP):
        try:
            found.append({**plain(atoms), "labels": rounded(gfn2(atoms))})
        except Rejected as reason:
            log.warning("a structure of %s dropped: %s", job, reason)
    return {"structures": found}


def read_journal(path, settings):
    """Entries made with the present settings, by job."""
    entries = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # the last line of a killed run
                continue
            if entry["settings"] == settings:
                entries[tuple(entry["job"])] = entry
    return entries


def run(todo, path, settings, calculate):
    """Calculate what the journal lacks."""
    done = read_journal(path, settings)
    missing = [job for job in todo if job not in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as journal, logging_redirect_tqdm():
        for job in tqdm(missing, desc=path.stem, unit="job"):
            entry = {"job": job, "settings": settings, **calculate(job)}
            # The newline comes first, so that a torn line spoils no other.
            journal.write("\n" + json.dumps(entry))
            journal.flush()
            os.fsync(journal.fileno())


def pbe0_structures(entries):
    """Unlabelled structures of the small clusters, by trajectory and place.

    In random order, so that the first part of a run is a fair sample.
    """
    found = {}
    for job in pbe0_jobs():
        for i, structure in enumerate(entries[job]["structures"] if job in entries else ()):
            found[job.group, i] = structure
    keys = list(found)
    random.Random(SEED).shuffle(keys)
    return {key: found[key] for key in keys}


def calculate_pbe0(structure):
    """Labels of one structure; a rejected one tells why."""
    atoms = Atoms(structure["symbols"], structure["positions"], info=structure["info"])
    try:
        return {"labels": rounded(pbe0(atoms))}
    except Rejected as reason:
        log.warning("a structure dropped: %s", reason)
        return {"rejected": str(reason)}


def image(structure, labels, group, level):
    """A labelled structure as it stands in the data file."""
    atoms = Atoms(structure["symbols"], structure["positions"])
    for name in ("forces", "charges"):
        atoms.arrays[f"REF_{name}"] = np.array(labels[name])
    atoms.info = {
        "REF_energy": labels["energy"],
        "REF_dipole": np.array(labels["dipole"]),
        **structure["info"],
        "group": group,
        "level": level,
    }
    if "external_field" in atoms.info:
        atoms.info["external_field"] = np.array(atoms.info["external_field"])
    return atoms


def images(todo, entries):
    """Clusters of the given trajectories in random order, so that any slice is a fair sample."""
    found = []
    for job in todo:
        for structure in entries[job]["structures"] if job in entries else ():
            found.append(image(structure, structure["labels"], job.group, LEVEL))
    random.Random(SEED).shuffle(found)
    return found


def pbe0_images(structures, entries):
    """Clusters labelled with PBE0, in the order of `structures`."""
    return [
        image(structure, entries[key]["labels"], key[0], PBE0_LEVEL)
        for key, structure in structures.items()
        if "labels" in entries.get(key, ())
    ]


def write_gzip(path, members):
    """Compressed extended XYZ without name or time in its header: the same bytes every time."""
    if not members:
        log.warning("%s is not written: no structures in the journals", path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as raw:
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed, TextIOWrapper(packed) as text:
            write(text, members, format="extxyz")
    part.replace(path)
    log.info(
        "%s: %d structures of %d trajectories, %.0f kB",
        path,
        len(members),
        len({atoms.info["group"] for atoms in members}),
        path.stat().st_size / 1000,
    )


def check(label, atoms, step=0.002):
    """Compare labels of a cluster in a field with differences of its energy.

    Returns the largest deviations of forces (three atoms), dipole, sum of forces and energy after
    a shift from what they should be, and that of the sum of charges.
    """

    def energy(move=0.0, field=0.0):
        copy = atoms.copy()
        copy.positions += move
        copy.info["external_field"] = atoms.info["external_field"] + np.asarray(field)
        return label(copy)["energy"]

    labels = label(atoms)
    field, charge = np.array(atoms.info["external_field"]), atoms.info["charge"]
    numerical = np.zeros((3, 3))
    chosen = np.linspace(0, len(atoms) - 1, 3).astype(int)
    for i, atom in enumerate(chosen):
        for k in range(3):
            move = np.zeros((len(atoms), 3))
            move[atom, k] = step
            numerical[i, k] = -(energy(move) - energy(-move)) / (2 * step)
    dipole = [-(energy(field=axis) - energy(field=-axis)) / (2 * step) for axis in step * np.eye(3)]
    shift = np.array([5.0, -3.0, 2.0])
    return {
        "forces (eV/A)": np.abs(labels["forces"][chosen] - numerical).max(),
        "dipole (eA)": np.abs(labels["dipole"] - dipole).max(),
        "sum of forces (eV/A)": np.abs(labels["forces"].sum(axis=0) - charge * field).max(),
        "shift (eV)": abs(energy(shift) - labels["energy"] + charge * shift @ field),
        "charges (e)": abs(labels["charges"].sum() - charge),
    }


def check_all():
    """Print what `check` finds for both methods and all charges."""
    for charge in HYDROGENS:
        rng = np.random.default_rng(SEED)
        atoms = packed(2, charge, rng)
        atoms.info = {"charge": charge, "external_field": np.array([0.08, -0.1, 0.05])}
        for label in (gfn2, pbe0):
            found = check(label, atoms)
            numbers = ", ".join(f"{name} {value:.1e}" for name, value in found.items())
            print(f"{label.__name__}, charge {charge}: {numbers}")


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--journals", type=Path, default=ROOT / "build", metavar="FOLDER")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "skqeq" / "datasets" / "data", metavar="FOLDER"
    )
    parser.add_argument(
        "--large", type=Path, default=ROOT / "build", metavar="FOLDER", help="of water_large.xyz.gz"
    )
    parser.add_argument("--level", choices=["gfn2", "pbe0"], help="only this one")
    parser.add_argument("--check", action="store_true", help="compare labels with differences")
    parser.add_argument(
        "--pack-only", action="store_true", help="calculate nothing, write what the journals have"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.check:
        check_all()
        return

    if arguments.level != "pbe0":
        path, todo = arguments.journals / "water_gfn2.jsonl", jobs(REPLICAS)
        if not arguments.pack_only:
            run(todo, path, SETTINGS, calculate)
        entries = read_journal(path, SETTINGS)
        bundled = [job for job in todo if job.replica < BUNDLED_REPLICAS]
        write_gzip(arguments.output / "water_gfn2.xyz.gz", images(bundled, entries))
        write_gzip(arguments.large / "water_large.xyz.gz", images(todo, entries))
    if arguments.level != "gfn2":
        path, todo = arguments.journals / "water_pbe0_structures.jsonl", pbe0_jobs()
        if not arguments.pack_only:
            run(
                todo,
                path,
                PBE0_SETTINGS,
                lambda job: {
                    "structures": list(map(plain, structures(job, PBE0_SNAPSHOTS, PBE0_DROP)))
                },
            )
        found = pbe0_structures(read_journal(path, PBE0_SETTINGS))
        path = arguments.journals / "water_pbe0.jsonl"
        if not arguments.pack_only:
            run(found, path, PBE0_LABEL_SETTINGS, lambda key: calculate_pbe0(found[key]))
        images_ = pbe0_images(found, read_journal(path, PBE0_LABEL_SETTINGS))
        write_gzip(arguments.output / "water_pbe0.xyz.gz", images_)


if __name__ == "__main__":
    main()
