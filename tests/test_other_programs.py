"""Files as other programs write them: the right structures and labels, or a clear refusal."""

import re
import warnings

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLengths

from skqeq import check_structures, make_targets, targets_from_atoms
from skqeq._cli.inputs import entries
from skqeq.datasets import open_structures

from . import helpers

POSITIONS = [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [0.24, 0.93, 0.0]]
ROWS = ("O 0 0 0", "H 0.96 0 0", "H 0.24 0.93 0")
CELL = 'Lattice="4 0 0 0 5 0 0 0 6"'
COLUMNS = "Properties=species:S:1:pos:R:3"


def frame(comment, *values, rows=ROWS):
    """A frame of extended XYZ, with the same values after the position of each atom."""
    return "\n".join([str(len(rows)), comment, *(" ".join([r, *values]) for r in rows), ""])


def opened(path, text):
    path.write_text(text, encoding="utf-8")
    return open_structures(path)


# ---- labels in comment lines and columns of extended XYZ ----------------------------------------

VOIGT = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
NINE = "1 6 5 6 2 4 5 4 3"
CUBE = f"{CELL} {COLUMNS}"
# A frame, the target and its key, and the label or the message.
LABELS = {
    "stress of ASE": (frame(f'{CUBE} stress="{NINE}"'), "stress", VOIGT),
    "stress of MACE": (frame(f'{CUBE} REF_stress="{NINE}" stress="{NINE}"'), "stress", VOIGT),
    "six components": (frame(f'{CUBE} REF_stress="1 2 3 4 5 6"'), "stress", VOIGT),
    "six without prefix": (frame(f'{CUBE} stress="1 2 3 4 5 6"'), "stress", "stress, .* 9-long"),
    "not symmetric": (
        frame(f'{CUBE} REF_stress="1 2 3 4 5 6 7 8 9"'),
        "stress",
        r"structure 0: stress = \[\[1\.0, .* is not symmetric",
    ),
    "virial": (frame(f'{CUBE} virial="{NINE}"'), "stress virial", "holds a virial, which is minus"),
    "virials of MACE": (
        frame(f'{CUBE} REF_virials="{NINE}"'),
        "stress REF_virials",
        r"-atoms\.info\['REF_virials'\] / atoms\.get_volume\(\)",
    ),
    "only a virial": (frame(f'{CUBE} virial="{NINE}"'), "stress", "first structure has virial"),
    "prefix REF": (frame(f"{COLUMNS} energy=-5 REF_energy=-1"), "energy", -1.0),
    "column with prefix": (
        frame(f"{COLUMNS}:forces:R:3:REF_forces:R:3", "1 2 3 4 5 6"),
        "forces",
        [[4.0, 5.0, 6.0]] * 3,
    ),
    "prefix of another program": (frame(f"{COLUMNS} dft_energy=-1"), "energy", "has dft_energy"),
    "force": (frame(f"{COLUMNS}:force:R:3", "1 2 3"), "forces", r"structure has force\. Give"),
    "column charge": (frame(f"{COLUMNS}:charge:R:1", "0.5"), "charges", [0.5] * 3),
    "Fortran energy": (frame(f"{COLUMNS} energy=-7.6D+01"), "energy", "'-7.6D.01' is not numeric"),
    "Fortran dipole": (frame(f'{COLUMNS} dipole="0 0 1.D0"'), "dipole", "'0 0 1.D0'"),
    "Fortran forces": (
        frame(f"{COLUMNS}:forces:R:3", "0 0 1D0"),
        "forces",
        "atom 0: forces '1D0' is not a number",
    ),
    "unit as a word": (frame(f"{COLUMNS} energy=-76.4 eV"), "energy", -76.4),
    "unit in the value": (
        frame(f'{COLUMNS} energy="-48000 kcal/mol"'),
        "energy",
        "'-48000 kcal/mol' is not numeric",
    ),
    "separated thousands": (frame(f"{COLUMNS} energy=-2,080.5"), "energy", "got shape"),
    "not available": (frame(f"{COLUMNS} energy=N/A"), "energy", "'N/A' is not numeric"),
    "norm for a dipole": (frame(f"{COLUMNS} dipole=1.85"), "dipole", "must be shape"),
    "NaN": (frame(f"{COLUMNS} energy=NaN"), "energy", np.nan),
    "forces of NaN": (frame(f"{COLUMNS}:forces:R:3", "nan 1 2"), "forces", [[np.nan, 1, 2]] * 3),
    "tabs": (frame(f'{COLUMNS}\tdipole="0\t0\t0.4"\tenergy=-1'), "dipole", [0, 0, 0.4]),
    "byte order mark": ("\ufeff" + frame(f"{COLUMNS} energy=-1"), "energy", -1.0),
    "spaces around the sign": (frame(f"{COLUMNS} energy = -1"), "energy", -1.0),
    "quote in a word": (frame(f"{COLUMNS} title=5' end=3' energy=-1"), "energy", -1.0),
    "apostrophe": (frame(f"{COLUMNS} by=O'Brien energy=-1 note=don't"), "energy", -1.0),
    "quote without end": (frame(f'{COLUMNS} title="water energy=-1'), "energy", -1.0),
    "quote of another kind": (frame(f'{COLUMNS} title="a \'b c" energy=-1'), "energy", -1.0),
    "inches": (frame(f'{COLUMNS} size=5" energy=-1 width=3"'), "energy", -1.0),
    "ORCA": (
        frame("Coordinates from ORCA-job water E -76.327134"),
        "energy E",
        r"E = True is a boolean.*write E=VALUE",
    ),
    "xtb": (frame(" energy: -5.070544 gnorm: 0.0001 xtb: 6.6.0"), "energy", "has energy:, -5.07"),
    "Gaussian": (frame("SCF Done: E(RB3LYP) = -76.4"), "energy E(RB3LYP)", -76.4),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels(tmp_path, case):
    text, target, expected = LABELS[case]
    name, _, key = target.partition(" ")
    names = {name: key} if key else [name]
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            targets_from_atoms(opened(tmp_path / "in.xyz", text), names)
        return
    label = targets_from_atoms(opened(tmp_path / "in.xyz", text), names)[name][0]
    np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize("name", ["stress", "quadrupole"])
@pytest.mark.parametrize("shape", [(3, 3), (9,), (1, 9)])
def test_symmetric_matrices(name, shape):
    """Rounding and noise are no reason to refuse a matrix."""
    matrix = np.array([[1.0, 6, 5], [6.1, 2, 4], [5, 4.2, 3]])
    assert make_targets(**{name: [matrix.reshape(shape)]})[name][0].tolist() == VOIGT
    with pytest.raises(ValueError, match=f"structure 0: {name} = .* is not symmetric"):
        make_targets(**{name: [(matrix + np.eye(3, k=2)).reshape(shape)]})


# ---- structures in extended XYZ -----------------------------------------------------------------

# A frame, and the attribute that is wanted or the message.
STRUCTURES = {
    "cell without pbc": (frame(CUBE), {"pbc": [True] * 3}),
    "slab": (frame(f'{CUBE} pbc="T T F"'), {"pbc": [True, True, False]}),
    "slab in words": (frame(f'{CUBE} pbc="True true FALSE"'), {"pbc": [True, True, False]}),
    "slab in numbers": (frame(f'{CUBE} pbc="1 1 0"'), {"pbc": [True, True, False]}),
    "one word": (frame(f"{CUBE} pbc=F"), {"pbc": [False] * 3}),
    "no": (frame(f'{CUBE} pbc="yes yes no"'), "pbc must be T or F .* got 'yes yes no'"),
    "none": (frame(f"{CUBE} pbc=none"), "pbc must be T or F .* got 'none'"),
    "axes": (frame(f"{CUBE} pbc=xy"), "pbc must be T or F .* got 'xy'"),
    "two axes": (frame(f'{CUBE} pbc="T T"'), "pbc must be T or F for each of three axes"),
    "numbers of images": (frame(f'{CUBE} pbc="2 2 1"'), "pbc must be T or F"),
    "pbc without a cell": (frame(f'{COLUMNS} pbc="T T T"'), "zero volume"),
    "momenta": (frame(f"{COLUMNS}:momenta:R:3", "1 2 3"), {"momenta": [[1, 2, 3]] * 3}),
    "charge after a quote": (frame(f"{COLUMNS} by=O'Brien charge=-1"), {"charge": -1}),
    "charge with a unit": (frame(f'{COLUMNS} charge="-1 e"'), "'-1 e' is not a number"),
    "charge as of ions": (frame(f"{COLUMNS} charge=2-"), "'2-' is not a number"),
    "Fortran charge": (frame(f"{COLUMNS} charge=1.0D0"), "'1.0D0' is not a number"),
    "symbols and numbers": (
        frame(f"{COLUMNS}:Z:I:1", "8"),
        "atom 1 has the symbol H, but the atomic number 8",
    ),
    "column element": (frame("Properties=element:S:1:pos:R:3"), "must hold species:S:1"),
    "numbered atoms": (
        frame("water", rows=[f"{i} {row}" for i, row in enumerate(ROWS, 1)]),
        "atom 0: pos 'O' is not a number",
    ),
    "Tinker": ("     3  water\n     1  O 0 0 0 1 2 3\n", "line 1: '3  water' is not the number"),
}


@pytest.mark.parametrize("case", STRUCTURES)
def test_structures(tmp_path, case):
    text, expected = STRUCTURES[case]
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            check_structures(opened(tmp_path / "in.xyz", text))
        return
    [atoms] = opened(tmp_path / "in.xyz", text)
    [structure] = check_structures([atoms])
    [(name, value)] = expected.items()
    found = structure.charge if name == "charge" else getattr(atoms, name, None)
    found = atoms.arrays[name] if found is None else found
    np.testing.assert_array_equal(found, value)


# ---- other formats ------------------------------------------------------------------------------

PDB = "{:6s}{:5d}  {:<3s} HOH A   1    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00          {:>2s}{:2s}\n"
ANISOU = "ANISOU    1  O   HOH A   1     2406   1892   1614    198    519   -328       O\n"
CRYST1 = "CRYST1    4.000    5.000    6.000  90.00  90.00  90.00 {:11s}{:4d}\n"


def pdb(record="ATOM", oxygen="", hydrogen="", after=""):
    """A molecule of water; `after` follows the first atom."""
    charges = (oxygen, hydrogen, "")
    lines = [
        PDB.format(record, i, s, *r, s, q)
        for i, (s, r, q) in enumerate(zip("OHH", POSITIONS, charges, strict=True), 1)
    ]
    return "".join([lines[0], after, *lines[1:]])


SITES = ("O1 O 0 0 0 1", "H1 H 0.24 0 0 1", "H2 H 0.06 0.186 0 1")
CIF = helpers.cif("\n".join(SITES), (4, 5, 6), column="occupancy")
SALT = helpers.cif("Na1 Na 0 0 0 1\nCl1 Cl .5 0 0 1", (5.64,) * 3, column="occupancy")
GROUP = "_symmetry_space_group_name_H-M 'P 1'\n"
FACES = "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\nx,y+1/2,z+1/2\nx+1/2,y,z+1/2\nx+1/2,y+1/2,z\n"
POSCAR = "water\n{}\n4 0 0\n0 5 0\n0 0 6\n{}\n1 2\n{}\n0 0 0{}\n0.24 0 0{}\n0.06 0.186 0{}\n"
FLAGS = (" F F F", " T T F", " T T T")
# Name of the file, its content, and the formula of its structures with total charges, or a message.
FILES = {
    "HETATM and CONECT": ("x.pdb", pdb("HETATM") + "CONECT    1    2    3\nEND\n", {"OH2": [0]}),
    "ANISOU": ("x.pdb", pdb(after=ANISOU), {"OH2": [0]}),
    "formal charges": ("x.pdb", pdb(oxygen="2-", hydrogen="1+") + "END\n", {"OH2": [-1]}),
    "models with charges": (
        "x.pdb",
        f"MODEL        1\n{pdb()}ENDMDL\nMODEL        2\n{pdb(oxygen='1-')}ENDMDL\nEND\n",
        {"OH2": [0, -1]},
    ),
    "cell of a PDB file": ("x.pdb", CRYST1.format("P 1", 1) + pdb(), {"OH2": [0]}),
    "cell of zeros": ("x.pdb", re.sub("[456]", "0", CRYST1.format("P 1", 1)) + pdb(), "zero volu"),
    "free format": ("x.pdb", "ATOM 1 O HOH 1 0.0 0.0 0.0\n", "cannot read .*x.pdb"),
    "overflow": ("x.pdb", pdb().replace("   0.960", "********"), "cannot read .*x.pdb: .*coordin"),
    "CIF": ("x.cif", CIF, {"OH2": [0]}),
    "CIF without symmetry": ("x.cif", CIF.replace(GROUP, ""), {"OH2": [0]}),
    "standard deviations": ("x.cif", CIF.replace("0.24 ", "0.240(3) "), {"OH2": [0]}),
    "CIF with operations": ("x.cif", SALT.replace(GROUP, GROUP + FACES), {"Na4Cl4": [0]}),
    "CIF with a group": ("x.cif", SALT.replace("P 1", "F m -3 m"), {"Na4Cl4": [0]}),
    "CIF with a number": (
        "x.cif",
        SALT.replace(GROUP, "_symmetry_Int_Tables_number 225\n"),
        {"Na4Cl4": [0]},
    ),
    "operations without a group": ("x.cif", SALT.replace(GROUP, FACES), "cannot read .*x.cif"),
    "unknown group": ("x.cif", SALT.replace("P 1", "Q 1"), "cannot read .*x.cif: invalid spacegr"),
    "selective dynamics": (
        "POSCAR",
        POSCAR.format(1.0, "O H", "Selective dynamics\nDirect", *FLAGS),
        {"OH2": [0]},
    ),
    "short words": ("POSCAR", POSCAR.format(1.0, "O H", "s\nd", *FLAGS), {"OH2": [0]}),
    "hashes": ("CONTCAR", POSCAR.format(1.0, "O/3f H_s/aa", "Direct", "", "", ""), {"OH2": [0]}),
    "velocities": (
        "CONTCAR",
        POSCAR.format(1.0, "O H", "Direct", "", "", "") + "\n" + "0 0 1\n" * 3,
        {"OH2": [0]},
    ),
    "volume": ("POSCAR", POSCAR.format(-120.0, "O H", "Direct", "", "", ""), {"OH2": [0]}),
    "three factors": ("POSCAR", POSCAR.format("1 1 1", "O H", "Direct", "", "", ""), {"OH2": [0]}),
    "factor of zero": ("POSCAR", POSCAR.format(0.0, "O H", "Direct", "", "", ""), "zero volume"),
}


@pytest.mark.parametrize("case", FILES)
def test_files(tmp_path, case):
    name, content, expected = FILES[case]
    (tmp_path / name).write_text(content)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            check_structures([read() for _, read in entries(str(tmp_path / name))])
        return
    X = [read() for _, read in entries(str(tmp_path / name))]
    [(formula, charges)] = expected.items()
    assert [str(atoms.symbols) for atoms in X] == [formula] * len(charges)
    assert [structure.charge for structure in check_structures(X)] == charges
    if formula == "OH2":
        for atoms in X:
            np.testing.assert_allclose(atoms.positions, POSITIONS, atol=1e-6)


@pytest.mark.parametrize("group, n", [("P 1", 0), ("", 0), ("P 21 21 21", 1)])
def test_space_groups_of_pdb(tmp_path, group, n):
    (tmp_path / "x.pdb").write_text(CRYST1.format(group, 4) + pdb())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(list(entries(str(tmp_path / "x.pdb")))) == 1
    texts = [str(warning.message) for warning in helpers.of_package(caught)]
    assert len(texts) == n and all("space group P 21 21 21, whose op" in text for text in texts)


def test_rows_of_databases_without_labels(tmp_path):
    calculated = molecule("H2O")
    calculated.calc = SinglePointCalculator(calculated, energy=-1.0, dipole=[0.0, 0.0, 0.4])
    with ase.db.connect(tmp_path / "in.db") as database:
        database.write(molecule("H2O"), name="water")
        database.write(calculated, total_charge=-1)
        database.write(molecule("H2O"), data={"dipole": [0.0, 0.0, 0.3], "charge": "1"})
        database.write(molecule("H2O"), REF_energy=-5.0)
    X = open_structures(tmp_path / "in.db")
    assert [structure.charge for structure in check_structures(X)] == [0, -1, 1, 0]
    y = targets_from_atoms(X, ["energy", "dipole"])
    np.testing.assert_array_equal(y["energy"], [np.nan, -1.0, np.nan, -5.0])
    np.testing.assert_array_equal(y["dipole"][:, 2], [np.nan, 0.4, 0.3, np.nan])


@pytest.mark.parametrize("name", ["in.traj", "in.xyz"])
@pytest.mark.parametrize("constraint", [FixAtoms([0]), FixBondLengths([[0, 1]])])
def test_constraints_change_no_labels(tmp_path, name, constraint):
    """ASE's `get_forces` sets the forces of fixed atoms to zero."""
    atoms, forces = molecule("H2O"), np.arange(9.0).reshape(3, 3)
    atoms.calc = SinglePointCalculator(atoms, forces=forces)
    atoms.set_constraint(constraint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # extended XYZ holds no fixed bonds
        ase.io.write(tmp_path / name, atoms)
    y = targets_from_atoms(open_structures(tmp_path / name), ["forces"])
    np.testing.assert_array_equal(y["forces"][0], forces)


@pytest.mark.parametrize("suffix", ["xyz", "traj", "db", "json"])
@pytest.mark.parametrize("value", [np.array([0.12]), np.float64(0.12), np.array([[0.12]])])
def test_potential_at_one_point(tmp_path, suffix, value):
    """Formats keep an array of length one, or make a number of it."""
    atoms, points = molecule("H2O"), np.array([[0.0, 0.0, 4.0]])
    if suffix in ("xyz", "traj"):
        atoms.info |= {"potential_points": points, "REF_potential": value}
        ase.io.write(tmp_path / f"in.{suffix}", atoms)
    else:
        with ase.db.connect(tmp_path / f"in.{suffix}") as database:
            database.write(atoms, data={"potential_points": points, "REF_potential": value})
    X = open_structures(tmp_path / f"in.{suffix}")
    check_structures(X)
    assert targets_from_atoms(X, ["potential"])["potential"][0].tolist() == [0.12]
