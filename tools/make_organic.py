"""Make the harvest: labels of organic molecules and ions for models that are ready to use.

    python tools/make_organic.py queue      # write the list of structures
    python tools/make_organic.py run        # calculate, in the background, for days
    python tools/make_organic.py status
    python tools/make_organic.py pack       # move finished results to data/organic

RDKit inserts substituents into the families of ``organic.smi``, and makes ions. The structures are
optimised with GFN2-xTB and labelled by PBE0, see ``organic_labels.py``. ``data/README.md``
describes labels and files.
"""

import hashlib
import random
import re
import sys
import zlib
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent))

import harvest  # noqa: E402, I001  (before NumPy: it sets the number of threads)
from harvest import Rejected  # noqa: E402
import numpy as np  # noqa: E402

SEED = 2026
ELEMENTS = {"H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Br", "I"}
RARE = {"B", "Si", "Br", "I"}  # preferred within their families
SMALL, MEDIUM, LARGE = range(2, 11), range(11, 15), range(20, 31)  # heavy atoms
# Number of molecules of each charge; zwitterions, which have an ammonium group, count separately.
N_SMALL = {"zwitterion": 80, -2: 60, -1: 330, 0: 850, 1: 250, 2: 50}
N_MEDIUM = {"zwitterion": 25, -2: 20, -1: 65, 0: 150, 1: 60, 2: 15}
TEST = 0.13  # probability of a group that is not too large; gives 10 % of the molecules
MAX_GROUP = 0.02  # largest group of the test set, as a share of the molecules
SECOND = 3  # on average one molecule in this many has a second structure
HF = 8  # on average one molecule in this many has the HF/6-31G* potential
MIX = 3.0  # The order may differ from the order of sizes by this number of heavy atoms.
FMAX = 0.05  # eV/Angstrom
RATTLE = 0.05  # Angstrom, standard deviation of each coordinate
ACIDS = {
    "carboxylate": "[CX3](=[OX1])[OX2H1:1]",
    "phosphate": "[PX4](=[OX1])[OX2H1:1]",
    "sulfonate": "[SX4](=O)(=O)[OX2H1:1]",
    "phenolate": "c[OX2H1:1]",
    "thiolate": "[#6][SX2H1:1]",
    "sulfonamide anion": "[SX4](=O)(=O)[NX3;H1,H2:1]",
    "imide anion": "[CX3](=O)[NX3H1:1][CX3]=O",
    "azolate": "[nX3H1:1]",
}
BASES = {
    "guanidinium": "[NX2;+0:1]=[CX3]([NX3])[NX3]",
    "amidinium": "[NX2;+0:1]=[CX3][NX3]",
    "ammonium": "[NX3;+0;!$(N~[!#6;!#1]);!$(N[C,S,P]=[O,S,N,C]);!$(Nc);!$(NC#N);!$(N[C]#C):1]",
    "azinium": "[nX2;+0:1]",
    "anilinium": "[NX3;+0;!$(N~[!#6;!#1]);$(Nc):1]",
    "iminium": "[NX2;+0;!$(N~[!#6;!#1]):1]=[CX3;!$(C[NX3])]",
    "phosphonium": "[PX3;+0;$(P[#6]):1]",
}


def read_families(path):
    """Molecules of every family, ``{family: [smiles]}``, with the substituents filled in."""
    substituents, families = {}, {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, members = line.split(":", 1)
        if name.startswith("@"):
            substituents[name[1:]] = members.split()
        else:
            families[name] = [s for m in members.split() for s in filled(m, substituents)]
    return families


def filled(template, substituents):
    """Every SMILES that a template represents. Equal letters are replaced by equal substituents."""
    letters = sorted(set(re.findall(r"{(\w)}", template)))
    for chosen in product(*(substituents[letter] for letter in letters)):
        yield template.format(**dict(zip(letters, chosen)))


class Molecule:
    """A molecule or ion of the list."""

    def __init__(self, smiles, family):
        from rdkit import Chem

        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            raise ValueError(f"RDKit cannot read {smiles!r}, of the family {family!r}.")
        self.rdkit, self.family = molecule, family
        self.smiles = Chem.MolToSmiles(molecule)
        self.charge = Chem.GetFormalCharge(molecule)
        self.n_heavy = molecule.GetNumHeavyAtoms()
        atoms = Chem.AddHs(molecule).GetAtoms()
        self.n_atoms = len(atoms)
        self.elements = sorted({atom.GetSymbol() for atom in atoms})
        radical = any(atom.GetNumRadicalElectrons() for atom in atoms)
        n_electrons = sum(atom.GetAtomicNum() for atom in atoms) - self.charge
        self.valid = (
            set(self.elements) <= ELEMENTS
            and not radical
            and n_electrons % 2 == 0
            and "." not in self.smiles
            and -2 <= self.charge <= 2
        )
        ammonium = Chem.MolFromSmarts("[#7,#15,#16;+;!$(*~[-])]")
        anion = Chem.MolFromSmarts("[-;!$(*~[+])]")
        self.zwitterion = molecule.HasSubstructMatch(ammonium) and molecule.HasSubstructMatch(anion)

    @property
    def inchi(self):
        """InChI that distinguishes tautomers.

        The standard InChI does not record the positions of mobile protons.
        """
        from rdkit import Chem

        return Chem.MolToInchi(self.rdkit, options="/FixedH")

    @property
    def kind(self):
        """Kind under which the molecule is counted: "zwitterion", or its total charge."""
        return "zwitterion" if self.zwitterion and self.charge == 0 else self.charge

    def group(self):
        """Name of the group; structures of one group are in the same part of the data.

        Molecules with rings have the same group if they have the same scaffold: the rings and the
        atoms that link them. Chains have the same group if they have the same skeleton of heavy
        atoms. Charges, and the protons that cause them, do not matter.
        """
        from rdkit import Chem
        from rdkit.Chem.MolStandardize import rdMolStandardize
        from rdkit.Chem.Scaffolds import MurckoScaffold

        neutral = rdMolStandardize.Uncharger().uncharge(Chem.Mol(self.rdkit))
        if neutral.GetRingInfo().NumRings():
            scaffold = MurckoScaffold.GetScaffoldForMol(neutral)
            return Chem.MolToSmiles(scaffold, isomericSmiles=False)
        skeleton = Chem.RWMol(neutral)
        for atom in skeleton.GetAtoms():
            atom.SetFormalCharge(0)
            atom.SetNoImplicit(True)
            atom.SetNumExplicitHs(0)
            atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
        for bond in skeleton.GetBonds():
            bond.SetBondType(Chem.BondType.SINGLE)
            bond.SetStereo(Chem.BondStereo.STEREONONE)
        return Chem.MolToSmiles(skeleton, isomericSmiles=False)


def ions(molecule):
    """Ions and zwitterions of a neutral molecule."""
    from rdkit import Chem

    sites = {}
    for sign, patterns in ((-1, ACIDS), (1, BASES)):
        for family, pattern in patterns.items():
            query = Chem.MolFromSmarts(pattern)
            mapped = [a.GetIdx() for a in query.GetAtoms() if a.GetAtomMapNum()][0]
            for match in molecule.rdkit.GetSubstructMatches(query):
                sites.setdefault((sign, match[mapped]), family)
    acids = [(atom, family) for (sign, atom), family in sites.items() if sign < 0]
    bases = [(atom, family) for (sign, atom), family in sites.items() if sign > 0]
    chosen = [((acid,), (), acid[1]) for acid in acids] + [((), (b,), b[1]) for b in bases]
    chosen += [((acid,), (base,), "zwitterion") for acid in acids[:1] for base in bases[:1]]
    if len(acids) > 1:
        chosen.append((tuple(acids[:2]), (), "dianion"))
    if len(bases) > 1:
        chosen.append(((), (bases[0], bases[-1]), "dication"))
    for negative, positive, family in chosen:
        edited = Chem.RWMol(molecule.rdkit)
        for members, charge in ((negative, -1), (positive, 1)):
            for index, _ in members:
                atom = edited.GetAtomWithIdx(index)
                n_hydrogen = atom.GetTotalNumHs() + charge
                atom.SetNoImplicit(True)
                atom.SetNumExplicitHs(n_hydrogen)
                atom.SetFormalCharge(charge)
        try:
            Chem.SanitizeMol(edited)
        except ValueError:
            continue
        yield Molecule(Chem.MolToSmiles(edited), family)


def candidates(path):
    """Distinct molecules and ions of all families, in a fixed order."""
    found = {}
    for family, members in read_families(path).items():
        for smiles in members:
            molecule = Molecule(smiles, family)
            if not molecule.valid:
                continue
            more = [] if family == "drug-like" or molecule.charge else ions(molecule)
            for member in [molecule, *more]:
                if member.valid:
                    found.setdefault(member.inchi, member)
    return found


def drawn(*key):
    """Generator of random numbers, seeded by a key.

    The numbers of a molecule therefore stay the same if other molecules are added.
    """
    return random.Random(" ".join(map(str, (SEED, *key))))


def choose(pool, numbers):
    """Choose the wanted number of molecules of each kind, from the families in turn."""
    chosen = []
    for kind, number in numbers.items():
        families = defaultdict(list)
        for inchi, molecule in pool:
            if molecule.kind == kind:
                factor = 0.3 if RARE & set(molecule.elements) else 1.0
                rank = factor * drawn("choice", inchi).random()
                families[molecule.family].append((rank, inchi, molecule))
        for members in families.values():
            members.sort(key=lambda member: member[:2], reverse=True)
        of_kind = []
        while len(of_kind) < number and any(families.values()):
            for members in families.values():
                if members:
                    of_kind.append(members.pop()[1:])
        chosen += of_kind[:number]
    return chosen


def make_queue(path=ROOT / "tools" / "organic.smi"):
    """All structures to be calculated, in their order."""
    from rdkit import RDLogger

    RDLogger.DisableLog("rdApp.*")
    pool = list(candidates(path).items())
    test = test_groups([molecule for _, molecule in pool])
    chosen = [(inchi, m) for inchi, m in pool if m.n_heavy < 2 and m.n_atoms > 1]
    for size, numbers in ((SMALL, N_SMALL), (MEDIUM, N_MEDIUM)):
        chosen += choose([(inchi, m) for inchi, m in pool if m.n_heavy in size], numbers)
    chosen += [(i, m) for i, m in pool if m.n_heavy in LARGE and m.family == "drug-like"]
    jobs = []
    for inchi, molecule in chosen:
        rng = drawn("job", inchi)
        group = molecule.group()
        large = molecule.n_heavy in LARGE
        second, small_basis = rng.randrange(SECOND) == 0, rng.randrange(HF) == 0
        job = {
            "id": hashlib.sha256(inchi.encode()).hexdigest()[:10],
            "smiles": molecule.smiles,
            "inchi": inchi,
            "family": molecule.family,
            "charge": molecule.charge,
            "zwitterion": molecule.zwitterion,
            "n_heavy": molecule.n_heavy,
            "elements": molecule.elements,
            "group": group,
            "split": "test" if large or group in test else "train",
            "geometry": "relaxed",
            "potential_hf": small_basis and "I" not in molecule.elements and not large,
        }
        jobs.append(job)
        if second and not large:
            jobs.append({**job, "id": job["id"] + "b", "geometry": "second", "potential_hf": False})
    return ordered(jobs)


def test_groups(molecules):
    """Select the groups of the test set; the largest groups stay in the training set."""
    sizes = Counter(molecule.group() for molecule in molecules)
    limit = MAX_GROUP * len(molecules)
    return {
        group
        for group, size in sizes.items()
        if size <= limit and drawn("test", group).random() < TEST
    }


def ordered(jobs):
    """Sort jobs: first small ones with all pairs of element and charge, then roughly by size."""
    rank = {job["id"]: job["n_heavy"] + MIX * drawn("order", job["id"]).random() for job in jobs}
    jobs = sorted(jobs, key=lambda job: (rank[job["id"]], job["id"]))
    early, seen = [], set()
    for job in jobs:
        cases = {(element, job["charge"]) for element in job["elements"]}
        if job["n_heavy"] in SMALL and not cases <= seen:
            early.append(job)
            seen |= cases
    names = {job["id"] for job in early}
    return early + [job for job in jobs if job["id"] not in names]


def geometry(job):
    """Structure of a job, and its kind.

    The kind is "relaxed", "conformer" or "displaced". A conformer is a second relaxed structure of
    the same molecule. If none is found, the atoms of the relaxed structure are displaced randomly.
    """
    from rdkit import Chem

    molecule = Chem.AddHs(Chem.MolFromSmiles(job["smiles"]))
    seed = zlib.crc32(job["smiles"].encode()) % 10**6
    first = relax(molecule, embed(molecule, seed), job)
    if job["geometry"] == "relaxed":
        return centred(first), "relaxed"
    for attempt in range(1, 6):
        try:
            second = relax(molecule, embed(molecule, seed + attempt), job)
        except Rejected:
            continue
        if different(first, second):
            return centred(second), "conformer"
    rng = np.random.default_rng(seed)
    first.positions += rng.normal(scale=RATTLE, size=first.positions.shape)
    return centred(first), "displaced"


def embed(molecule, seed):
    """Positions from RDKit, Angstrom."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    copy = Chem.Mol(molecule)
    if copy.GetNumAtoms() == 1:
        return np.zeros((1, 3))
    if AllChem.EmbedMolecule(copy, randomSeed=seed) != 0:
        if AllChem.EmbedMolecule(copy, randomSeed=seed, useRandomCoords=True) != 0:
            raise Rejected("RDKit found no conformer")
    if AllChem.MMFFHasAllMoleculeParams(copy):
        AllChem.MMFFOptimizeMolecule(copy)
    elif AllChem.UFFHasAllMoleculeParams(copy):
        AllChem.UFFOptimizeMolecule(copy)
    return copy.GetConformer().GetPositions()


def relax(molecule, positions, job):
    """Optimise with GFN2-xTB.

    Zwitterions are optimised in implicit water (ALPB), so that the proton stays in its place.
    """
    from ase import Atoms
    from ase.optimize import BFGS
    from rdkit import Chem
    from tblite.ase import TBLite

    symbols = [atom.GetSymbol() for atom in molecule.GetAtoms()]
    atoms = Atoms(symbols, positions)
    atoms.calc = TBLite(
        method="GFN2-xTB",
        charge=job["charge"],
        multiplicity=1,
        verbosity=0,
        solvation=("alpb", "water") if job["zwitterion"] else None,
    )
    if len(atoms) > 1 and not BFGS(atoms, logfile=None).run(fmax=FMAX, steps=500):
        raise Rejected("geometry not converged")
    atoms.calc = None
    if not np.array_equal(bonded(atoms), Chem.GetAdjacencyMatrix(molecule).astype(bool)):
        raise Rejected("the bonds changed during the optimisation")
    return atoms


def bonded(atoms):
    """Whether two atoms are in contact, ``(n, n)`` of bool."""
    from ase.data import covalent_radii

    radii = covalent_radii[atoms.numbers]
    touching = atoms.get_all_distances() < 1.3 * np.add.outer(radii, radii)
    np.fill_diagonal(touching, False)
    return touching


def different(first, second):
    """Whether two structures are different conformers, from all distances between their atoms."""
    heavy = first.numbers > 1
    shown = heavy if heavy.sum() > 3 else np.full(len(first), True)
    distances = [np.sort(a[shown].get_all_distances().ravel()) for a in (first, second)]
    return np.abs(distances[0] - distances[1]).max() > 0.15


def centred(atoms):
    """Move the centre of mass to the origin, and round the coordinates to five decimals."""
    atoms.positions -= atoms.get_center_of_mass()
    atoms.positions = atoms.positions.round(5) + 0.0
    return atoms


def calculate(job, report):
    """Calculate the labels of one structure."""
    from organic_labels import labels

    report("geometry")
    atoms, kind = geometry(job)
    symbols, positions = list(atoms.symbols), atoms.positions
    found = labels(symbols, positions, job["charge"], job["potential_hf"], report)
    kept = ("smiles", "inchi", "family", "charge", "group", "split")
    return {
        **{key: job[key] for key in kept},
        "geometry": kind,
        "solvent": "water" if job["zwitterion"] else "none",
        "symbols": symbols,
        "positions": positions.tolist(),
        **found,
    }


def size_class(job):
    """Size class of a job, for the table of sizes."""
    n = job["n_heavy"]
    for last in (2, 4, 6, 8, 10, 14):
        if n <= last:
            return [f"up to {last:2d} heavy"]
    return ["drug-like"]


LABELS = {
    "size": size_class,
    "charge": lambda job: [f"{job['charge']:+d}"],
    "element": lambda job: job["elements"],
    "family": lambda job: [job["family"]],
    "split": lambda job: [job["split"]],
    "geometry": lambda job: [job["geometry"]],
}


def prepare():
    """Import the modules that every job needs."""
    import organic_labels  # noqa: F401
    from rdkit import RDLogger
    from tblite.ase import TBLite  # noqa: F401

    RDLogger.DisableLog("rdApp.*")


def main():
    """Command line."""
    harvest.main(
        "organic",
        make_queue,
        calculate,
        LABELS,
        build=ROOT / "build",
        data=ROOT / "data" / "organic",
        description=__doc__.splitlines()[0],
        before=prepare,
    )


if __name__ == "__main__":
    main()
