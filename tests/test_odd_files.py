"""Odd files of all formats: the right structures, or a message that names file, place and value."""

import codecs
import re

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from skqeq import QEqRegressor, check_structures, save
from skqeq.cli import main
from skqeq.datasets import load_ions, open_structures

from . import helpers

WATER = "O 0 0 0\nH 0.96 0 0\nH 0.24 0.93 0\n"
POSITIONS = [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [0.24, 0.93, 0.0]]
FRAME = f"3\nwater\n{WATER}"
FRACTIONS = ("0 0 0", "0.24 0 0", "0.06 0.186 0")
POSCAR = "{}\n{}\n4 0 0\n0 5 0\n0 0 6\n{}1 2\nDirect\n0 0 0\n0.24 0 0\n0.06 0.186 0\n"


def extended(comment, *columns, symbols="OHH"):
    """A frame of extended XYZ with columns after the positions."""
    rows = [f"{s} {line[2:]}" for s, line in zip(symbols, WATER.splitlines(), strict=True)]
    rows = [" ".join([row, *(c[i] for c in columns)]) for i, row in enumerate(rows)]
    return "\n".join(["3", comment, *rows, ""])


def named(*symbols):
    """A frame with other symbols."""
    lines = [f"{s}{line[1:]}" for s, line in zip(symbols, WATER.splitlines(), strict=True)]
    return "\n".join(["3", "water", *lines, ""])


def cif(*symbols):
    rows = (f"{s.strip('+-12')}{i} {s} {x}" for i, (s, x) in enumerate(zip(symbols, FRACTIONS)))
    return helpers.cif("\n".join(rows), (4, 5, 6))


# Files of extended XYZ, and the number of structures or the message.
XYZ = {
    "blank line between frames": (f"{FRAME}\n{FRAME}\n{FRAME}\n", 3),
    "blank lines before and after": (f"\n\n{FRAME}\n\n\n", 1),
    "lines of spaces between frames": (f"{FRAME}  \n\t\n{FRAME}", 2),
    "Windows, with blank lines": (f"{FRAME}\n{FRAME}".replace("\n", "\r\n"), 2),
    "old Mac": (FRAME.replace("\n", "\r"), "line 1: .* is not the number of atoms"),
    "count of a Fortran program": (f"{3:21d}\nwater\n{WATER}", 1),
    "count with sign and zeros": (f"+03\t \nwater\n{WATER}", 1),
    "count with a decimal point": (f"3.0\nwater\n{WATER}", "line 1: '3.0' is not the number"),
    "count with a word": (f"3 atoms\nwater\n{WATER}", "line 1: '3 atoms' is not the number"),
    "negative count": (f"-3\nwater\n{WATER}", "line 1: '-3' is not the number"),
    "no count": (WATER, "line 1: 'O 0 0 0' is not the number"),
    "count of zero": ("0\nwater\n", "structure 0 .*has no atoms"),
    "count too small": (f"2\nwater\n{WATER}", "line 5: .*number of atoms of structure 1"),
    "count too large": (f"{FRAME}4\nwater\n{WATER}", "ends in structure 1, .* line 6 .*4 atoms"),
    "count that takes the next count": (
        f"4\nwater\n{WATER}{FRAME}",
        "line 7: 'water' is not the number of atoms of structure 1",
    ),
    "huge count": (f"{'9' * 5000}\nwater\n{WATER}", "line 1: .* is not the number of atoms"),
    "byte order mark": (codecs.BOM_UTF8 + FRAME.encode(), 1),
    "UTF-16": (FRAME.encode("utf-16"), "line 1: the text is in UTF-16"),
    "Latin-1": (FRAME.replace("water", "H2O, 25 °C, 1.0 Å").encode("latin-1"), 1),
    "no newline at the end": (FRAME.rstrip(), 1),
    "empty comment": (FRAME.replace("water", ""), 1),
    "words with a meaning": (FRAME.replace("water", "fcc Lattice, no pbc: a stress Properties"), 1),
    "tabs and spaces": (f"3\nwater\n{WATER}".replace(" ", "\t").replace("\n", " \t\n"), 1),
    "blank line between atoms": (
        FRAME.replace("\nH 0.24", "\n\nH 0.24"),
        "line 6|atom 2 has 0 of 4",
    ),
    "velocities": (FRAME.replace(" 0\n", " 0 0.1 0.2 0.3\n"), 1),
    "symbols in any case": (named("o", "h", "H"), 1),
    "atomic numbers": (named("8", "1", "1"), 1),
    "labels": (named("O1", "H2", "H3"), "structure 0 of .*: atom 0: 'O1' is not the symbol"),
    "unknown element": (FRAME + named("O", "H", "Xx"), "structure 1 of .*: atom 2: 'Xx' is not"),
    "dummy atom": (named("O", "H", "X"), r"structure 0 .*atom 2 has atomic number 0"),
    "number of no element": (named("8", "1", "119"), "atom 2: '119' is not the symbol of an elem"),
    "missing coordinate": (FRAME.replace("0.93 0", "0.93"), "atom 2 has 3 of 4 columns: 'H 0.24"),
    "letter in a number": (FRAME.replace("0.96", "O.96"), "atom 1: pos 'O.96' is not a number"),
    "decimal comma": (FRAME.replace("0.96", "0,96"), "atom 1: pos '0,96' is not a number"),
    "Fortran overflow": (FRAME.replace("0.96", "********"), "atom 1: pos '.*' is not a number"),
    "Fortran exponent": (FRAME.replace("0.96", "0.96D0"), "atom 1: pos '0.96D0' is not a number"),
    "position of nan": (FRAME.replace("0.96", "nan"), "structure 0 .*atom 1 has position x = nan"),
    "NUL bytes": (FRAME.replace("0.96", "\0\0"), "atom 1: pos .* is not a number"),
    "only blank lines": ("\n \n\n", "holds no structures"),
    "nothing": ("", "holds no structures"),
    "keys in lower case": (
        extended('lattice="4 0 0 0 5 0 0 0 6" properties=species:S:1:pos:R:3:a:R:1 pbc=F', "123"),
        1,
    ),
    "names of columns in any case": (extended("PROPERTIES=Species:S:1:POS:R:3"), 1),
    "numbers for symbols": (extended("Properties=Z:I:1:pos:R:3", symbols="811"), 1),
    "key in two cases": (extended("pbc=F PBC=T"), "both pbc and PBC"),
    "eight numbers of the cell": (extended('lattice="4 0 0 0 5 0 0 0"'), "Lattice must be nine"),
    "Properties without pos": (extended("Properties=species:S:1:x:R:3"), "must hold pos:R:3"),
    "Properties without species": (extended("Properties=a:S:1:pos:R:3"), "must hold species:S:1"),
    "two coordinates": (extended("Properties=species:S:1:pos:R:2"), "must hold pos:R:3"),
    "unknown type": (extended("Properties=species:S:1:pos:D:3"), "Properties=.*a type among R, I"),
    "damaged Properties": (extended("Properties=species:S:1:pos"), "NAME:TYPE:NUMBER"),
    "column twice": (
        extended("Properties=species:S:1:pos:R:3:pos:R:3", "111", "111", "111"),
        "twice",
    ),
    "word for a logical": (
        extended("Properties=species:S:1:pos:R:3:fixed:L:1", ["T", "F", "maybe"]),
        "atom 2: fixed 'maybe' is not T or F",
    ),
    "fraction for an integer": (
        extended("Properties=species:S:1:pos:R:3:id:I:1", ["1", "2", "2.5"]),
        "atom 2: id '2.5' is not an integer",
    ),
    "integer with many digits": (
        extended("Properties=species:S:1:pos:R:3:id:I:1", ["1", "2", "9" * 30]),
        "atom 2: id '9+' is not an integer",
    ),
}

# Files of other formats: name, content, and the number of structures or the message.
OTHER = [
    ("T.XYZ", FRAME, 1),
    ("t.extXYZ", f"{FRAME}\n{FRAME}", 2),
    ("without_ending", f"{FRAME}\n{FRAME}", 2),
    ("labels.cif", cif("O", "H", "H"), 1),
    ("UPPER.CIF", cif("O", "H", "H").replace("\n", "\r\n"), 1),
    ("charged.cif", cif("O2-", "H1+", "H+"), 1),
    ("two.cif", cif("O", "H", "H") + cif("O", "H", "H").replace("data_x", "data_y"), 2),
    ("unknown.cif", cif("O", "H", "Qq"), "unknown.cif: 'Qq' is not the symbol of an element"),
    ("missing.cif", cif("O", "H", "H").replace("0.24", "?"), "cannot read .*missing.cif"),
    ("empty.cif", "data_x\n", "empty.cif holds no structures"),
    ("text.cif", "no data\n", "cannot read .*text.cif"),
    ("vasp5.POSCAR", POSCAR.format("O H", 1.0, "O H\n"), 1),
    ("vasp4.POSCAR", POSCAR.format("O H", 1.0, ""), 1),
    ("POSCAR", POSCAR.format("water", 1.0, "O_s H\n"), 1),
    ("volume.POSCAR", POSCAR.format("O H", -120.0, "O H\n"), 1),
    ("nameless.POSCAR", POSCAR.format("water", 1.0, ""), "nameless.POSCAR: .*chemical symbols"),
    ("short.POSCAR", POSCAR.format("O H", 1.0, "O H\n")[:-15], "cannot read .*short.POSCAR"),
    ("text.traj", "no trajectory", "cannot read .*text.traj"),
    ("empty.traj", "", "cannot read .*empty.traj"),
    ("text.db", "no database", "cannot read .*text.db as a database"),
    ("water.mol2", "@<TRIPOS>MOLECULE\n", "no format .mol2.* xyz, extxyz, traj, db, json, cif"),
    ("water.txt", FRAME, "no format .txt.* xyz, extxyz, traj, db"),
]
CASES = [pytest.param("in.xyz", *case, id=name) for name, case in XYZ.items()]
CASES += [pytest.param(*case, id=case[0]) for case in OTHER]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "water.skqeq"
    save(QEqRegressor().fit([molecule("H2O")], [[0.0, 0.0, -0.39]]), path)
    return path


def predictions(model, path, capsys):
    """The structures that ``skqeq predict`` writes, or its message."""
    out = path.with_name("predictions.xyz")
    if main(["predict", str(model), str(path), "-q", "-o", str(out)]) == 0:
        return ase.io.read(out, ":")
    assert not out.exists()
    [line] = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("name, content, expected", CASES)
def test_the_command_line(tmp_path, model, capsys, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = predictions(model, path, capsys)
    if isinstance(expected, str):
        assert isinstance(found, str) and re.search(expected, found), found
        assert str(path) in found or "structure 0 (" in found
        return
    assert not isinstance(found, str), found
    assert len(found) == expected
    for atoms in found:
        assert str(atoms.symbols) == "OH2"
        np.testing.assert_allclose(atoms.positions, POSITIONS, atol=1e-6)
        np.testing.assert_allclose(atoms.get_charges().sum(), 0.0, atol=1e-7)
        assert atoms.pbc.all() == name.lower().endswith(("cif", "poscar"))


@pytest.mark.parametrize("content, expected", XYZ.values(), ids=list(XYZ))
def test_open_structures(tmp_path, content, expected):
    path = tmp_path / "in.xyz"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            check_structures(open_structures(path))
    else:
        assert [str(atoms.symbols) for atoms in open_structures(path)] == ["OH2"] * expected


def test_isotopes(tmp_path, model, capsys):
    """Deuterium and tritium have their masses in XYZ and in CIF, and keep them in predictions."""
    (tmp_path / "in.xyz").write_text(named("O", "D", "T") + named("O", "d", "H") + named(*"OHH"))
    (tmp_path / "in.cif").write_text(cif("O", "D", "H"))
    masses = [[15.999, 2.014, 3.016], [15.999, 2.014, 1.008], [15.999, 1.008, 1.008]]
    for atoms, expected in zip(open_structures(tmp_path / "in.xyz"), masses, strict=True):
        np.testing.assert_allclose(atoms.get_masses(), expected)
    found = predictions(model, tmp_path / "in.xyz", capsys)
    np.testing.assert_allclose([atoms.get_masses() for atoms in found], masses)
    [found] = predictions(model, tmp_path / "in.cif", capsys)
    np.testing.assert_allclose(found.get_masses(), masses[1], rtol=1e-3)


def test_masses_of_the_file_win(tmp_path):
    text = extended("Properties=species:S:1:pos:R:3:masses:R:1", ["16", "2", "3"], symbols="ODT")
    (tmp_path / "in.xyz").write_text(text)
    np.testing.assert_allclose(open_structures(tmp_path / "in.xyz")[0].get_masses(), [16, 2, 3])


def test_cells_in_any_case(tmp_path):
    """The cell vectors are right for every spelling of the key ``Lattice``."""
    cell = np.array([[4.0, 0.1, 0.2], [0.3, 5.0, 0.4], [0.5, 0.6, 6.0]])
    numbers = " ".join(map(str, cell.ravel()))
    keys = ["Lattice", "lattice", "LATTICE"]
    text = "".join(extended(f'{key}="{numbers}"') for key in keys)
    text += extended(f'lattice="{numbers}" PBC="T T F" an fcc LATTICE') + extended(
        f'Lattice = "{numbers}" pbc=F'
    )
    (tmp_path / "in.xyz").write_text(text)
    X = open_structures(tmp_path / "in.xyz")
    for atoms in X:
        np.testing.assert_allclose(atoms.cell.array, cell)
    assert [atoms.pbc.tolist() for atoms in X[3:]] == [[True, True, False], [False] * 3]
    assert all(atoms.pbc.all() for atoms in X[:3])


def test_the_structures_are_those_of_ase(tmp_path):
    """Files with labels, constraints and columns of every type give the structures of ASE."""
    rng = np.random.default_rng(0)
    X = [molecule("CH3OH"), Atoms("H"), molecule("H2O", cell=[4, 5, 6], pbc=(True, True, False))]
    for i, atoms in enumerate(X):
        n = len(atoms)
        atoms.set_tags(range(n))
        atoms.set_initial_charges(rng.normal(size=n))
        atoms.arrays["chosen"] = rng.integers(2, size=n).astype(bool)
        atoms.arrays["words"] = np.array([f"w{k}" for k in range(n)])
        atoms.arrays["tensor"] = rng.normal(size=(n, 9))
        atoms.info |= {"charge": i, "name": 'a "quoted" name', "list": [1, 2], "matrix": np.eye(2)}
        results = {"energy": -1.5, "forces": rng.normal(size=(n, 3)), "stress": rng.normal(size=6)}
        atoms.calc = ase.calculators.singlepoint.SinglePointCalculator(atoms, **results)
    X[0].set_constraint(ase.constraints.FixAtoms([0, 2]))
    X[2].set_constraint(ase.constraints.FixCartesian([1], mask=[True, False, True]))
    path = tmp_path / "in.xyz"
    ase.io.write(path, X, columns=None)
    for atoms, expected in zip(open_structures(path), ase.io.read(path, ":"), strict=True):
        assert atoms == expected
        assert atoms.arrays.keys() == expected.arrays.keys()
        for key, array in expected.arrays.items():
            np.testing.assert_array_equal(atoms.arrays[key], array)
        assert atoms.info.keys() == expected.info.keys()
        for key, value in expected.info.items():
            np.testing.assert_array_equal(atoms.info[key], value)
        assert atoms.calc.results.keys() == expected.calc.results.keys()
        for key, value in expected.calc.results.items():
            np.testing.assert_array_equal(atoms.calc.results[key], value)
        constraints = [constraint.todict() for constraint in atoms.constraints]
        assert str(constraints) == str([c.todict() for c in expected.constraints])


@pytest.mark.parametrize("suffix", ["traj", "TRAJ", "db", "DB", "json", "JSON"])
def test_binary_formats(tmp_path, model, capsys, suffix):
    """Endings may be in upper or lower case; a truncated file is refused."""
    path = tmp_path / f"in.{suffix}"
    X = [Atoms("OH2", positions=POSITIONS), molecule("H2O")]
    if suffix.lower() == "traj":
        ase.io.write(path, X, format="traj")
    else:
        with ase.db.connect(path, type=suffix.lower()) as database:
            for atoms in X:
                database.write(atoms, data={"charge": 1})
    found = predictions(model, path, capsys)
    assert [str(atoms.symbols) for atoms in found] == ["OH2"] * 2
    charge = 0.0 if suffix.lower() == "traj" else 1.0
    np.testing.assert_allclose([a.get_charges().sum() for a in found], charge, atol=1e-7)
    assert len(open_structures(path)) == 2
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "predictions.xyz").unlink()
    found = predictions(model, path, capsys)
    assert isinstance(found, str) and str(path) in found


def test_databases_without_rows(tmp_path):
    with ase.db.connect(tmp_path / "in.db") as database:
        database.delete([database.write(molecule("H2O"))])
    with pytest.raises(ValueError, match="in.db holds no structures"):
        open_structures(tmp_path / "in.db")


@pytest.mark.parametrize("name", ["in.cif", "POSCAR", "in.mol2", "in", "in.xyz.bak"])
def test_open_structures_says_what_it_reads(tmp_path, name):
    (tmp_path / name).write_text(FRAME)
    with pytest.raises(ValueError, match=r"end in .xyz, .extxyz, .traj, .db, .json, .aselmdb; "):
        open_structures(tmp_path / name)


def test_the_reader_of_ase_is_not_needed(tmp_path, model, capsys, monkeypatch):
    """ASE's reader fails under ``python -O``, because it reads a line inside an assertion."""

    def fail(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(ase.io.extxyz, "read_xyz", fail)
    (tmp_path / "in.xyz").write_text(f"{FRAME}\n{FRAME}")
    assert len(load_ions()[0]) == 119
    assert len(list(open_structures(tmp_path / "in.xyz"))) == 2
    for selection in ("", "@:", "@-1"):
        argv = [
            "predict",
            str(model),
            f"{tmp_path}/in.xyz{selection}",
            "-o",
            f"{tmp_path}/out.traj",
        ]
        assert main([*argv, "-q"]) == 0
