"""Make the data sets of water clusters: energies, forces, dipoles and charges, some in fields.

Clusters of three charge states (neutral, with H3O+, with OH-) are snapshots of molecular dynamics
with GFN2-xTB. Some of them are expanded, so that the molecules are far apart, and some are in a
uniform electric field. The data follow the study of Vondrak, Reuter and Margraf, "Pushing charge
equilibration-based machine learning potentials to their limits", npj Comput. Mater. 2025, with
fewer and smaller clusters.

The labels are those of GFN2-xTB. A few hundred small clusters, from other trajectories, have labels
of PBE0.

Run ``python tools/make_water.py``; it needs ``tblite pyscf ase tqdm``. Each finished trajectory and
label is appended to a journal, so that an interrupted run can be continued. With complete journals
the script only writes the data files, with the same bytes each time.

Notes
-----
Units: Angstrom, eV, e, e*Angstrom, V/Angstrom. The dipole of an ion depends on the origin of
coordinates. The origin is the centre of mass.

The energy in a field F contains ``-sum_i q_i r_i . F``, with positions r_i relative to the origin:
the field pulls positive charge along F, the forces on an ion of charge Q sum to Q F, and a shift of
the ion by t changes the energy by ``-Q t . F``. ``python tools/make_water.py --check`` verifies
this, and compares the forces with differences of the energy.

Labels have the prefix ``REF_`` because ASE's reader moves keys without it into a calculator.
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
ATOMIC_FIELD = Hartree / Bohr  # the atomic unit of the field, V/Angstrom
HYDROGENS = {0: 2, 1: 3, -1: 1}  # number of hydrogens of the charged molecule, by charge

SIZES = range(3, 11)
REPLICAS = 4  # independent trajectories of each size and charge
BUNDLED_REPLICAS = 3
SNAPSHOTS = 25  # per trajectory
SPACING = 80  # time steps between snapshots
WARM_UP = 500  # time steps before the first snapshot
TIMESTEP = 1.0  # fs
TEMPERATURE = (300.0, 350.0)  # K
FRICTION = 0.02  # 1/fs
SPRING = 0.5  # eV/Angstrom^2, on oxygens outside the wall

EXPANDED = 1 / 3  # share of the snapshots of which there is also an expanded copy
# Ranges of the expansion factor, and the probability of each.
FACTORS = {(0.9, 1.0): 0.1, (1.0, 3.0): 0.75, (3.0, 5.0): 0.15}
CONTACT = 0.8  # shortest distance between atoms of two molecules, Angstrom
IN_FIELD = 1 / 4  # share of the structures in a field
FIELD = (0.01, 0.2)  # V/Angstrom
# Largest potential drop across a cluster, V. A larger one would move charge from one end of an
# expanded cluster to the other.
DROP = 4.0
ACCURACY = 0.1  # parameter of tblite for the labels

# Number of trajectories of each charge, by number of molecules. PBE0 takes a thousand times as long
# as GFN2-xTB.
PBE0_REPLICAS = {2: 2, 3: 5, 4: 2}
PBE0_SNAPSHOTS = 15
# Largest potential drop across a cluster, V. The electron of OH- is bound by less than `DROP`.
PBE0_DROP = 1.0
BASIS = "def2-SVPD"
GRID = {"H": [40, 194], "default": [50, 302]}  # radial, angular points

LEVEL = f"GFN2-xTB, tblite {version('tblite')}"
PBE0_LEVEL = (
    f"PBE0/{BASIS} (density fitting), Hirshfeld charges, pyscf {version('pyscf')}; "
    f"geometry from dynamics with {LEVEL}"
)
# Everything that an entry of a journal depends on. Entries with other settings are ignored.
SETTINGS = [
    *[SEED, SNAPSHOTS, SPACING, WARM_UP, TIMESTEP, TEMPERATURE, FRICTION, SPRING, EXPANDED],
    *[sorted(FACTORS.items()), CONTACT, IN_FIELD, FIELD, DROP, ACCURACY, LEVEL],
]
SETTINGS = json.loads(json.dumps(SETTINGS))  # JSON turns tuples into lists, as in the journal
PBE0_SETTINGS = [*SETTINGS, PBE0_SNAPSHOTS, PBE0_DROP]
PBE0_LABEL_SETTINGS = [*PBE0_SETTINGS, PBE0_LEVEL, GRID]

log = logging.getLogger("make_water")


class Rejected(Exception):
    """A structure could not be made or labelled; the message gives the reason."""


class Job(NamedTuple):
    """One trajectory."""

    group: int
    n_molecules: int
    charge: int
    replica: int


def jobs(replicas):
    """All trajectories.

    The first trajectory of every size and charge comes before any second one. Within a round the
    order is random, so that the first part of a run is a representative sample.
    """
    trajectories = []
    for replica in range(replicas):
        kinds = [(n, charge) for n in SIZES for charge in HYDROGENS]
        random.Random(SEED + replica).shuffle(kinds)
        first = len(trajectories)
        trajectories += [Job(first + i, *kind, replica) for i, kind in enumerate(kinds)]
    return trajectories


def pbe0_jobs():
    """Trajectories of the small clusters; their group numbers start at 1000."""
    trajectories = []
    for n_molecules, replicas in PBE0_REPLICAS.items():
        for charge in HYDROGENS:
            for i in range(replicas):
                group = 1000 + len(trajectories)
                trajectories.append(Job(group, n_molecules, charge, 1000 + i))
    return trajectories


def packed(n_molecules, charge, rng):
    """Molecules at random places with random orientations; the first one is charged."""
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
    """An approximate geometry of OH-, H2O or H3O+."""
    angles = 2 * np.pi * np.array([0.0, 0.3, 0.65])[:n_hydrogens]
    places = [[0.97 * np.cos(a), 0.97 * np.sin(a), 0.0] for a in angles]
    return Atoms("O" + "H" * n_hydrogens, [[0, 0, 0], *places])


def molecules(atoms):
    """Index of the molecule of each atom: a hydrogen belongs to the nearest oxygen.

    There is one molecule per oxygen, even if a proton is between two oxygens.
    """
    is_oxygen = atoms.numbers == 8
    distances = atoms.get_all_distances()[:, is_oxygen]
    return np.argmin(distances, axis=1)


def shortest_contact(atoms, molecule):
    """Shortest distance between atoms of different molecules, Angstrom."""
    different = molecule[:, None] != molecule
    return atoms.get_all_distances()[different].min(initial=np.inf)


def trajectory(n_molecules, charge, snapshots, rng):
    """Yield snapshots of molecular dynamics with GFN2-xTB."""
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
    """A copy whose rigid molecules are moved away from the centre or towards it, and the factor."""
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
    """Yield snapshots and expanded copies, some in fields, rounded as in the data file."""
    n_molecules, charge = job.n_molecules, job.charge
    rng = np.random.default_rng([SEED, n_molecules, charge + 1, job.replica])
    for snapshot in trajectory(n_molecules, charge, snapshots, rng):
        molecule = molecules(snapshot)
        hydrogens = sorted(np.bincount(molecule) - 1)
        if hydrogens != sorted([HYDROGENS[charge]] + [2] * (n_molecules - 1)):
            log.warning("a snapshot dropped: molecules with %s hydrogens", hydrogens)
            continue
        clusters = [(snapshot, 1.0)]
        if rng.random() < EXPANDED:
            clusters.append(expanded(snapshot, molecule, rng))
        for atoms, factor in clusters:
            if shortest_contact(atoms, molecule) < CONTACT:
                continue
            atoms.positions -= atoms.get_center_of_mass()
            atoms.positions = atoms.positions.round(5)
            atoms.info = {"charge": charge, "n_molecules": n_molecules, "expansion": factor}
            if rng.random() < IN_FIELD:
                atoms.info["external_field"] = random_field(atoms, drop, rng).tolist()
            yield atoms


def gfn2(atoms):
    """Energy, forces, dipole about the origin, and Mulliken charges of GFN2-xTB."""
    calculator = Calculator(
        "GFN2-xTB", atoms.numbers, atoms.positions / Bohr, float(atoms.info["charge"])
    )
    calculator.set("verbosity", 0)
    calculator.set("accuracy", ACCURACY)
    if "external_field" in atoms.info:
        # tblite accepts a list, but no array.
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
    """One-atom molecule of an element, and its spherically averaged density matrix."""
    molecule = gto.M(atom=symbol, basis=BASIS, spin={"H": 1, "O": 2}[symbol], verbose=0)
    atom = dft.UKS(molecule, xc="PBE0")
    atom.conv_tol = 1e-9
    atom.kernel()
    density = np.sum(atom.make_rdm1(), axis=0)
    # After spherical averaging only functions with equal l and m couple, in the same way for all m.
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
    """Free atoms for `hirshfeld`, by element."""
    return {symbol: free_atom(symbol) for symbol in ("H", "O")}


def hirshfeld(method):
    """Hirshfeld charges: the density is divided in proportion to the densities of free atoms."""
    molecule, grids = method.mol, method.grids
    shares = []
    for i in range(molecule.natm):
        free, density = free_atoms()[molecule.atom_symbol(i)]
        values = free.eval_gto("GTOval_sph", grids.coords - molecule.atom_coord(i))
        shares.append(np.einsum("pi,ij,pj->p", values, density, values, optimize=True))
    # Avoid division by zero where the density vanishes.
    shares /= np.maximum(np.sum(shares, axis=0), 1e-100)
    electrons = dft.numint.NumInt().get_rho(molecule, method.make_rdm1(), grids) * grids.weights
    return molecule.atom_charges() - shares @ electrons


def pbe0(atoms):
    """Energy, forces, dipole about the origin, and Hirshfeld charges of PBE0."""
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
        # The energy of an electron in the field is +r . F, that of a nucleus -Z R . F.
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
        # The minus sign arises because basis functions move with their atoms.
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
    """A structure in the form of the journal."""
    return {
        "symbols": str(atoms.symbols),
        "positions": atoms.positions.tolist(),
        "info": atoms.info,
    }


def rounded(labels):
    """Labels in the form of the journal."""
    return {name: np.round(label, 5).tolist() for name, label in labels.items()}


def calculate(job):
    """All structures of one trajectory, with labels."""
    labelled = []
    for atoms in structures(job, SNAPSHOTS, DROP):
        try:
            labelled.append({**plain(atoms), "labels": rounded(gfn2(atoms))})
        except Rejected as reason:
            log.warning("a structure of %s dropped: %s", job, reason)
    return {"structures": labelled}


def read_journal(path, settings):
    """Entries of a journal that were made with the present settings, by job."""
    entries = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # the last line of an interrupted run
                continue
            if entry["settings"] == settings:
                entries[tuple(entry["job"])] = entry
    return entries


def run(todo, path, settings, calculate):
    """Calculate the jobs that are missing in the journal."""
    done = read_journal(path, settings)
    missing = [job for job in todo if job not in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as journal, logging_redirect_tqdm():
        for job in tqdm(missing, desc=path.stem, unit="job"):
            entry = {"job": job, "settings": settings, **calculate(job)}
            # The newline comes first, so that an incomplete line does not damage the next one.
            journal.write("\n" + json.dumps(entry))
            journal.flush()
            os.fsync(journal.fileno())


def pbe0_structures(entries):
    """Unlabelled structures of the small clusters, by trajectory and number of the snapshot.

    The order is random, so that the first part of a run is a random sample.
    """
    unlabelled = {}
    for job in pbe0_jobs():
        for i, structure in enumerate(entries[job]["structures"] if job in entries else ()):
            unlabelled[job.group, i] = structure
    keys = list(unlabelled)
    random.Random(SEED).shuffle(keys)
    return {key: unlabelled[key] for key in keys}


def calculate_pbe0(structure):
    """Labels of one structure, or the reason of its rejection."""
    atoms = Atoms(structure["symbols"], structure["positions"], info=structure["info"])
    try:
        return {"labels": rounded(pbe0(atoms))}
    except Rejected as reason:
        log.warning("a structure dropped: %s", reason)
        return {"rejected": str(reason)}


def image(structure, labels, group, level):
    """A labelled structure in the form of the data file."""
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
    """Clusters of some trajectories in random order, so that any slice is a random sample."""
    clusters = []
    for job in todo:
        for structure in entries[job]["structures"] if job in entries else ():
            clusters.append(image(structure, structure["labels"], job.group, LEVEL))
    random.Random(SEED).shuffle(clusters)
    return clusters


def pbe0_images(structures, entries):
    """Clusters with labels of PBE0, in the order of `structures`."""
    return [
        image(structure, entries[key]["labels"], key[0], PBE0_LEVEL)
        for key, structure in structures.items()
        if "labels" in entries.get(key, ())
    ]


def write_gzip(path, members):
    """Write compressed extended XYZ.

    The header has no name or time, so that equal structures give equal files.
    """
    if not members:
        log.warning("%s is not written: the journals have no structures", path)
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
    """Compare the labels of a cluster in a field with differences of its energy.

    Returns the largest errors of the forces on three atoms, of the dipole, of the sum of the
    forces, of the energy after a shift of the cluster, and of the sum of the charges.
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
    """Print the errors of `check` for both methods and all charges."""
    for charge in HYDROGENS:
        rng = np.random.default_rng(SEED)
        atoms = packed(2, charge, rng)
        atoms.info = {"charge": charge, "external_field": np.array([0.08, -0.1, 0.05])}
        for label in (gfn2, pbe0):
            errors = check(label, atoms)
            numbers = ", ".join(f"{name} {value:.1e}" for name, value in errors.items())
            print(f"{label.__name__}, charge {charge}: {numbers}")


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--journals", type=Path, default=ROOT / "build", metavar="FOLDER")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "skqeq" / "datasets" / "data", metavar="FOLDER"
    )
    parser.add_argument(
        "--large",
        type=Path,
        default=ROOT / "build",
        metavar="FOLDER",
        help="folder of water_large.xyz.gz",
    )
    parser.add_argument("--level", choices=["gfn2", "pbe0"], help="make only this data set")
    parser.add_argument(
        "--check", action="store_true", help="compare labels with differences of the energy"
    )
    parser.add_argument(
        "--pack-only", action="store_true", help="only write the data files from the journals"
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
        unlabelled = pbe0_structures(read_journal(path, PBE0_SETTINGS))
        path = arguments.journals / "water_pbe0.jsonl"
        if not arguments.pack_only:
            run(unlabelled, path, PBE0_LABEL_SETTINGS, lambda key: calculate_pbe0(unlabelled[key]))
        images_ = pbe0_images(unlabelled, read_journal(path, PBE0_LABEL_SETTINGS))
        write_gzip(arguments.output / "water_pbe0.xyz.gz", images_)


if __name__ == "__main__":
    main()
