"""PDB and SDF files with several structures, cells and charges."""

import gzip

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

from skqeq._cli.files import read_numbered

CELL = "CRYST1    9.000    9.000    9.000  90.00  90.00  90.00 P 1           1\n"


def pdb_atom(name, x, element=""):
    """A line of a PDB file for one atom; `name` has four characters."""
    place = f"{x:8.3f}{0:8.3f}{0:8.3f}  1.00  0.00"
    return f"ATOM      1 {name:4} MOL A   1    {place}          {element:>2}\n"


def model(shift=0.0, end="ENDMDL\n"):
    return "MODEL\n" + pdb_atom(" C1 ", shift) + pdb_atom(" O1 ", shift + 1.1) + end


@pytest.mark.parametrize(
    "text, n",
    [
        (model(), 1),
        (model(end="END\n"), 1),
        (model(end=""), 1),
        (model() + "END\n", 1),
        (model() + model(1.0) + "END\n", 2),
        (model() + model(1.0, end=""), 2),
        (model() + model(1.0, end="END"), 2),
        (model(end="TER\nENDMDL\n") + model(1.0) + model(2.0) + "CONECT    1    2\nEND\n", 3),
    ],
)
@pytest.mark.parametrize("cell", ["", CELL])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_every_model_of_a_pdb_file_has_its_cell(tmp_path, text, n, cell, packed):
    path = tmp_path / f"in.pdb{packed}"
    path.write_bytes(gzip.compress((cell + text).encode()) if packed else (cell + text).encode())
    X = read_numbered(str(path))[1]
    assert [str(atoms.symbols) for atoms in X] == ["CO"] * n
    np.testing.assert_allclose([atoms.positions[0, 0] for atoms in X], np.arange(n))
    for atoms in X:
        np.testing.assert_array_equal(atoms.cell.lengths(), [9.0] * 3 if cell else [0.0] * 3)
        assert atoms.pbc.all() == bool(cell)


def test_models_may_have_different_cells(tmp_path):
    (tmp_path / "in.pdb").write_text(CELL + model() + CELL.replace("9.000", "8.000") + model())
    X = read_numbered(f"{tmp_path}/in.pdb")[1]
    assert [atoms.cell.lengths()[0] for atoms in X] == [9.0, 8.0]


@pytest.mark.parametrize(
    "name, element, symbol",
    [
        (" CA ", "", None),
        (" HG ", "", None),
        ("HE21", "", None),
        (" NE2", "", None),
        (" CA ", "C", "C"),
        ("CA  ", "CA", "Ca"),
        ("CA  ", "", "Ca"),
        ("CL1 ", "", "Cl"),
        (" C1 ", "", "C"),
        (" OW ", "", "O"),
        ("HE21", "H", "H"),
    ],
)
def test_elements_of_pdb_files(tmp_path, name, element, symbol):
    (tmp_path / "in.pdb").write_text(pdb_atom(name, 0.0, element) + "END\n")
    if symbol is None:
        one, two = name.strip()[0], name.strip()[:2].capitalize()
        with pytest.raises(ValueError, match=f"in.pdb: line 1: the atom .* can be {one} or {two}"):
            read_numbered(f"{tmp_path}/in.pdb")[1]
    else:
        assert str(read_numbered(f"{tmp_path}/in.pdb")[1][0].symbols) == symbol


def sdf(name, charges="", code=0, end="$$$$\n"):
    """An SDF record of one structure, without bonds."""
    atoms = molecule(name)
    rows = "".join(
        f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:3} 0{code if i == 0 else 0:3d}  0  0  0\n"
        for i, (symbol, (x, y, z)) in enumerate(zip(atoms.symbols, atoms.positions, strict=True))
    )
    head = f"{name}\n  test\n\n{len(atoms):3d}  0  0  0  0  0  0  0  0  0999 V2000\n"
    return f"{head}{rows}{charges}M  END\n{end}"


@pytest.mark.parametrize(
    "text, expected",
    [
        (sdf("H2O"), [("H2O", 0)]),
        (sdf("H2O", end=""), [("H2O", 0)]),
        (
            sdf("H2O") + sdf("CH4") + sdf("OH", "M  CHG  1   1  -1\n"),
            [("H2O", 0), ("CH4", 0), ("OH", -1)],
        ),
        (sdf("CH4", "M  CHG  2   1   2   2  -1\n"), [("CH4", 1)]),
        (sdf("CH3", code=3), [("CH3", 1)]),
        (sdf("OH", code=5) + sdf("H2O"), [("OH", -1), ("H2O", 0)]),
        (sdf("OH", "M  CHG  1   1   1\n", code=5), [("OH", 1)]),
        (
            sdf("H2O", end="> <ID>\n7\n\n$$$$\n") + sdf("CH4", end="$$$$\n\n"),
            [("H2O", 0), ("CH4", 0)],
        ),
    ],
)
@pytest.mark.parametrize("suffix", ["sdf", "SDF"])
def test_all_structures_and_charges_of_sdf_files(tmp_path, text, expected, suffix):
    path = tmp_path / f"in.{suffix}"
    path.write_text(text)
    X = read_numbered(str(path))[1]
    assert [atoms.info.get("charge", 0) for atoms in X] == [charge for _, charge in expected]
    for atoms, (name, _) in zip(X, expected, strict=True):
        np.testing.assert_array_equal(atoms.numbers, molecule(name).numbers)


def test_mol_files_are_those_of_ase(tmp_path):
    write(tmp_path / "in.sdf", molecule("CH3OH"))
    (tmp_path / "in.mol").write_text((tmp_path / "in.sdf").read_text().replace("$$$$\n", ""))
    for suffix in ("sdf", "mol"):
        [atoms] = read_numbered(f"{tmp_path}/in.{suffix}")[1]
        np.testing.assert_allclose(atoms.positions, molecule("CH3OH").positions, atol=1e-4)
        assert "charge" not in atoms.info


def test_other_versions_of_sdf_are_refused(tmp_path):
    text = sdf("H2O").replace("V2000", "V3000")
    for bad in (text, sdf("CH4") + text, "water\n"):
        (tmp_path / "in.sdf").write_text(bad)
        with pytest.raises(ValueError, match="in.sdf.*structure [01] is not in the format V2000"):
            read_numbered(f"{tmp_path}/in.sdf")[1]
