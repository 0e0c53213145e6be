"""Odd structures and labels: the right answer, a warning, or a refusal that names the structure."""

import warnings

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.units import Bohr
from joblib import parallel_config

from skqeq import (
    QEqRegressor,
    check_structures,
    make_targets,
    predict_charges,
    strip,
    targets_from_atoms,
    with_total_charges,
)
from skqeq.datasets import load_ions, load_molecules, open_structures
from skqeq.structures import _collection, collect, implausible_structures

from . import helpers

WATER = "O 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"


def water(**info):
    atoms = molecule("H2O")
    atoms.info |= info
    return atoms


def pair(symbols, distance, **keywords):
    return Atoms(symbols, [[0, 0, 0], [0, 0, distance]], **keywords)


def skewed(atoms, k):
    """The same lattice with long cell vectors."""
    atoms.cell[1] += k * atoms.cell[0]
    if atoms.pbc.all():
        atoms.cell[2] += 3 * k * atoms.cell[0]
    return atoms


def skeleton(name):
    atoms = molecule(name)
    return atoms[atoms.numbers != 1]


def in_plane(name):
    """A planar molecule, turned into the plane z = 0."""
    atoms = molecule(name)
    positions = atoms.positions - atoms.positions.mean(axis=0)
    atoms.positions = positions @ np.linalg.svd(positions)[2].T
    atoms.positions[:, 2] = 0.0
    return atoms


def drawing(bond):
    """Benzene, as programs draw it: all bonds have the same length."""
    angles = np.arange(6) * np.pi / 3
    ring = np.c_[np.cos(angles), np.sin(angles), np.zeros(6)]
    return Atoms("C6H6", bond * np.concatenate([ring, 2 * ring]))


def with_initial_charges(*charges, **info):
    atoms = water(**info)
    atoms.set_initial_charges(charges)
    return atoms


def placeholder(n, length=1.0):
    """A molecule with the cell that PDB files contain if they have no cell."""
    return Atoms("H2O", molecule("H2O").positions, cell=[length] * 3, pbc=True)[:n]


@pytest.fixture
def read_cif(tmp_path):
    def read_text(sites, column="occupancy", group="P 1", **options):
        path = tmp_path / "x.cif"
        path.write_text(helpers.cif(sites, group=group, column=column))
        return read(path, **options)

    return read_text


def answer(structure, charge=0.0):
    """Warnings of a structure, and its total charge."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        [checked] = check_structures([structure])
    assert checked.charge == pytest.approx(charge)
    return [str(warning.message) for warning in helpers.of_package(caught)]


# ---- structures ---------------------------------------------------------------------------------

REFUSED = {
    "word charge": (lambda: water(charge=True), r"info\['charge'\] = True is a boolean.*charge=-1"),
    "word total_charge": (lambda: water(total_charge=np.True_), "total_charge.* is a boolean"),
    "flags": (lambda: water(charge=np.array([False])), "is a boolean, not a number"),
    "word field": (lambda: water(external_field=[0, 0, True]), "is not a finite vector"),
    "flags for points": (
        lambda: water(potential_points=np.ones((2, 3), dtype=bool)),
        r"potential_points'\] must be finite",
    ),
    "two charges": (lambda: water(charge=1, total_charge=1.00001), "disagreeing charges"),
    "two values": (lambda: water(charge=np.array([1.0, 0.0])), "is not a number"),
    "masked charge": (lambda: water(charge=np.ma.masked), "masked is not a number"),
    "masked field": (
        lambda: water(external_field=np.ma.masked_equal([0.0, 0.1, 9.0], 9.0)),
        "is not a finite vector",
    ),
    "Zn-Zn": (lambda: pair("Zn2", 0.37), r"atoms 0 and 1 are 0\.37 Angstrom.* 0\.98 for Zn-Zn"),
    "C-C": (lambda: pair("C2", 0.45), r"0\.45 Angstrom apart \(below 0\.61 for C-C\)"),
    "Na-Cl in Bohr": (
        lambda: bulk("NaCl", "rocksalt", a=1.8),
        r"atoms 0 and 1 are 0\.9 Angstrom apart \(below 1\.1 for Na-Cl\)",
    ),
    "across the boundary": (
        lambda: Atoms("ZnO", [[0, 0, 0.1], [0, 0, 7.5]], cell=[8, 8, 8], pbc=True),
        r"atoms 0 and 1 are 0\.6 Angstrom apart",
    ),
    "own image": (
        lambda: Atoms("Zn", cell=[0.9, 9, 9], pbc=True),
        r"atoms 0 and 0 are 0\.9 Angstrom apart",
    ),
    "placeholder": (lambda: placeholder(1), "cell of 1 x 1 x 1 is a placeholder.*pbc = False"),
    "placeholder of many": (lambda: placeholder(3), "cell of 1 x 1 x 1 is a placeholder"),
    "dense cell": (lambda: placeholder(3, 1.1), r"cell of 0\.444 Angstrom\^3 per atom"),
    "flat cell": (
        lambda: Atoms("H", cell=[[4, 0, 0], [400, 1e-6, 0], [0, 0, 5]], pbc=True),
        "span zero volume",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_structures(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=rf"(?s)^structure 1 \(.*\): .*{message}"):
        check_structures([water(), make()])


def in_bohr(name):
    atoms = molecule(name)
    atoms.positions /= Bohr
    return atoms


# For each case: the structure, and a pattern that its warning must match.
WARNED = {
    "overall_charge": (lambda: water(overall_charge=-1), r"info\['overall_charge'\] = -1"),
    "netCharge": (lambda: water(netCharge=2), r"netCharge'\] = 2.*--charge-key netCharge"),
    "Qtot": (lambda: water(Qtot=np.array([1.0])), r"with_total_charges\(X, 'Qtot'\)"),
    "molecular charge": (lambda: water(**{"molecular charge": "-1"}), "is 0; models read"),
    "formal_charge": (lambda: water(formal_charge=1), r"formal_charge'\] = 1, but its total"),
    "word Charge": (lambda: water(Charge=True), r"info\['Charge'\] = True, a word of a comment"),
    "charge: -1": (lambda: water(**{"charge:": True, "-1": True}), "charge:'\\] = True, a word"),
    "Charge;": (lambda: water(**{"Charge;": True}), "Charge;'\\] = True, a word"),
    "total charge, -1": (lambda: water(**{"Total-charge,": True}), "charge,'\\] = True, a word"),
    "initial charges": (lambda: with_initial_charges(-1, 0, 0), "initial charges that sum to -1"),
    "rounded": (lambda: with_initial_charges(0.334, 0.333, 0.329), "--charge-key initial_charges"),
    "ethanol without H": (lambda: skeleton("CH3CH2OH"), "2 of 2 carbon atoms .* hydrogen atoms"),
    "benzene without H": (lambda: skeleton("C6H6"), "6 of 6 carbon atoms have too few"),
    "butane without H": (lambda: skeleton("trans-butane"), "4 of 4 carbon atoms have too few"),
    "pyridine without H": (lambda: skeleton("C5H5N"), "5 of 5 carbon atoms have too few"),
    "water in Bohr": (lambda: in_bohr("H2O"), "1.9 times as long .* multiply positions in Bohr"),
    "methylamine in Bohr": (lambda: in_bohr("H3CNH2"), "multiply positions in Bohr"),
    "methylsilane in Bohr": (lambda: in_bohr("CH3SiH3"), "multiply positions in Bohr"),
    "drawing": (lambda: drawing(1.5), "z is 0 for all atoms, .* is probably a drawing"),
    "small drawing": (lambda: drawing(0.9), "z is 0 for all atoms"),
    "drawing in between": (lambda: drawing(1.25), "z is 0 for all atoms"),
}


@pytest.mark.parametrize("case", WARNED)
def test_warned_structures(case):
    make, message = WARNED[case]
    with pytest.warns(UserWarning, match=rf"^structure 0 \(.*\): .*{message}") as caught:
        check_structures([make()])
    [warning] = helpers.of_package(caught)
    assert warning.filename == __file__


# Structures that give no warning, and their total charge.
FINE = {
    "array": (lambda: water(total_charge=np.array([[-1.0]])), -1),
    "charges agree": (lambda: water(charge=1, total_charge=1 + 1e-7), 1),
    "other key agrees": (lambda: water(charge=-1, net_charge=-1), -1),
    "neutral": (lambda: water(net_charge=0, Charge=0.0), 0),
    "other quantities": (lambda: water(charge_transfer=1, q=0.3, nuclear_charge=8, charges=3), 0),
    "method": (lambda: water(charge_method="ddec", formal_charge="unknown"), 0),
    "partial charges": (lambda: with_initial_charges(-0.8, 0.4, 0.4), 0),
    "some charges": (lambda: with_initial_charges(-0.8, 0.4, 0.2), 0),
    "explicit charge": (lambda: with_initial_charges(1, 0, 0, charge=0), 0),
    "H-H": (lambda: pair("H2", 0.5), 0),
    "compressed salt": (lambda: bulk("NaCl", "rocksalt", a=4.2), 0),
    "stretched hydride": (lambda: bulk("LiH", "rocksalt", a=5.2, cubic=True), 0),
    "compressed potassium": (lambda: bulk("K", "bcc", a=3.0), 0),
    "iodine": (lambda: pair("HI", 1.61), 0),
    "benzene in the plane": (lambda: in_plane("C6H6"), 0),
    "ethylene fluoride": (lambda: in_plane("C2F4"), 0),
    "formic acid": (lambda: in_plane("HCOOH"), 0),
    "boron fluoride": (lambda: in_plane("BF3"), 0),
    "fullerene": (lambda: molecule("C60"), 0),
    "graphene": (lambda: graphene(vacuum=5.0), 0),
    "cyanogen": (lambda: molecule("NCCN"), 0),
    "carbon dioxide": (lambda: molecule("CO2"), 0),
    "tetrachloromethane": (lambda: molecule("CCl4"), 0),
    "hydrogen in a small cell": (lambda: Atoms("H", cell=[1.3, 1.3, 1.3], pbc=True), 0),
}


@pytest.mark.parametrize("case", FINE)
def test_fine_structures(case):
    make, charge = FINE[case]
    assert answer(make(), charge) == []


@pytest.mark.parametrize("load", [load_molecules, load_ions])
def test_bundled_structures_are_plausible(load):
    assert not any(finding.advice for finding in implausible_structures(load()[0]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: bulk("NaCl", "rocksalt", a=5.64, cubic=True),
        lambda: bulk("Mg", "hcp", a=3.2, c=5.2),
        lambda: fcc111("Al", (1, 2, 2), vacuum=4.0),
        lambda: bulk("ZnO", "wurtzite", a=3.25, c=5.2),
    ],
)
@pytest.mark.parametrize("k", [100, 1000, -20000])
def test_skewed_cells(make, k):
    straight, skew = check_structures([make(), skewed(make(), k)])
    assert len(skew) == len(straight)
    if straight.pbc[2]:
        assert skew.volume == pytest.approx(straight.volume)


def test_skewed_cells_have_the_same_charges():
    X = [bulk("NaCl", "rocksalt", a=5.64, cubic=True) for _ in range(2)]
    for atoms in X:
        atoms.rattle(0.1, seed=0)
    skewed(X[1], 1000)
    model = QEqRegressor().fit([pair("NaCl", 2.4)], make_targets(charges=[[0.8, -0.8]]))
    first, second = predict_charges(model, X)
    np.testing.assert_allclose(first, second, atol=1e-7)


def test_one_warning_for_many_structures():
    X = [water(), *(water(net_charge=q) for q in (0, 1, -1)), skeleton("C6H6")]
    with pytest.warns(UserWarning) as caught:
        check_structures(X)
    assert [str(w.message).partition(":")[0] for w in helpers.of_package(caught)] == [
        "structure 2 (H2O), and 1 other structures",
        "structure 4 (C6)",
    ]


def test_one_warning_of_a_fit():
    X = [water(net_charge=1), water(), skeleton("C6H6")]
    X = [*X, pair("CO", 1.1), pair("OH", 1.0)]
    with pytest.warns(UserWarning) as caught:
        QEqRegressor().fit(X, make_targets(dipole=[None, [0, 0, -0.4], None, None, None]))
    caught = helpers.of_package(caught)
    assert len(caught) == 2
    assert {w.filename for w in caught} == {__file__}


def test_files_are_warned_about_as_lists(tmp_path):
    write(tmp_path / "x.xyz", [water(), water(net_charge=-1)])
    X = collect(open_structures(tmp_path / "x.xyz"))
    with pytest.warns(UserWarning, match=r"^structure 1 \(H2O\): info\['net_charge'\] = -1"):
        assert len(X.metadata.sizes) == 2


def test_workers_find_the_same(tmp_path, monkeypatch):
    write(tmp_path / "x.xyz", [water(), *[water(net_charge=-1)] * 3, *[skeleton("C6H6")] * 2] * 2)
    monkeypatch.setattr(_collection, "MIN_PARALLEL", 1)
    X = collect(open_structures(tmp_path / "x.xyz"))
    with parallel_config(backend="threading", n_jobs=2), pytest.warns(UserWarning) as caught:
        assert len(X.metadata.sizes) == 12
    assert [str(w.message).partition(":")[0] for w in helpers.of_package(caught)] == [
        "structure 1 (H2O), and 5 other structures",
        "structure 4 (C6), and 3 other structures",
    ]


def test_strip_warns_about_what_it_removes():
    with pytest.warns(UserWarning, match="net_charge") as caught:
        strip([water(net_charge=1), skeleton("C6H6")])
    assert len(helpers.of_package(caught)) == 1


def test_findings_are_a_table():
    findings = implausible_structures([water(), water(net_charge=-1), skeleton("C6H6")])
    assert [(f.name, f.severity, f.n_structures, f.first) for f in findings] == [
        ("total charge", "warning", 1, 1),
        ("occupancy", "ok", 3, None),
        ("hydrogen atoms", "warning", 1, 2),
        ("unit of positions", "ok", 3, None),
        ("flat structure", "ok", 3, None),
    ]


# ---- total charges under other keys -------------------------------------------------------------


@pytest.mark.parametrize(
    "make, key",
    [
        (lambda: water(net_charge=-1), "net_charge"),
        (lambda: water(Q="-1", charge=0, total_charge=0), "Q"),
        (lambda: with_initial_charges(-0.998, 0, 0), "initial_charges"),
    ],
)
def test_with_total_charges(make, key):
    atoms = make()
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    before = dict(atoms.info)
    [copy] = with_total_charges([atoms], key)
    assert answer(copy, -1) == []
    assert targets_from_atoms([copy], ["energy"])["energy"] == [-1.0]
    assert atoms.info == before


@pytest.mark.parametrize(
    "make, key, message",
    [
        (lambda: water(), "Qtot", r"has no info\['Qtot'\]"),
        (lambda: water(Qtot=True), "Qtot", "is a boolean"),
        (lambda: water(Qtot="ion"), "Qtot", "'ion' is not a number"),
        (lambda: with_initial_charges(0.3, 0, 0), "initial_charges", "0.3, which is not a whole"),
    ],
)
def test_bad_charge_keys(make, key, message):
    with pytest.raises(ValueError, match=rf"structure 1 \(.*\): .*{message}"):
        with_total_charges([water(Qtot=0), make()], key)


def test_charge_key_of_files(tmp_path):
    write(tmp_path / "x.xyz", [water(net_charge=0), water(net_charge=-1), water()])
    X = open_structures(tmp_path / "x.xyz", charge_key="net_charge")
    assert [s.charge for s in check_structures(X[:2])] == [0, -1]
    with pytest.raises(ValueError, match=r"structure 2 of .*x\.xyz .*has no info\['net_charge'\]"):
        X[2]


# ---- occupancy ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sites",
    [
        "Na1 Na 0 0 0 1\nCl1 Cl .5 .5 .5 0.9",
        "Na1 Na 0 0 0 0.5\nK1 K 0 0 0 0.5\nCl1 Cl .5 .5 .5 1",
        "Na1 Na 0 0 0 1\nCl1 Cl .5 .5 .4 0.5\nCl2 Cl .5 .5 .65 0.5",
        "Na1 Na 0 0 0 1\nCl1 Cl .5 .5 .5 -1.0",
    ],
)
def test_partial_occupancy(read_cif, sites):
    atoms = read_cif(sites)
    with pytest.warns(
        UserWarning, match=r"^structure 0 .*: a site has occupancy (0\.[59]|-1); all"
    ):
        check_structures([atoms])
    del atoms.info["occupancy"]
    assert answer(atoms) == []


def test_alternatives_on_top_of_each_other(read_cif):
    atoms = read_cif("Na1 Na 0 0 0 1\nCl1 Cl .5 .5 .45 0.5\nCl2 Cl .5 .5 .55 0.5")
    with pytest.raises(ValueError, match=r"atoms 1 and 2 are 0\.564 .* alternative positions"):
        check_structures([atoms])


def test_full_occupancy(read_cif):
    assert answer(read_cif("Na1 Na 0 0 0 1\nCl1 Cl .5 .5 .5 1.0")) == []
    assert answer(water(occupancy="full")) == []


PDB = "ATOM  {:5d}  {:<3s}{}HOH A   1    {:8.3f}{:8.3f}{:8.3f}{:6.2f}  0.00          {:>2s}\n"


@pytest.mark.parametrize("occupancy, warned", [(0.5, True), (1.0, False), (0.0, False)])
def test_alternate_locations_of_pdb(tmp_path, occupancy, warned):
    sites = [("O", " ", 0.0, 0.0, 1.0), ("H", "A", 0.96, 0.0, occupancy)]
    sites += [("H", "B", 0.5, 0.82, occupancy), ("H", " ", -0.24, 0.93, 1.0)]
    lines = [PDB.format(i, s, alt, x, y, 0, o, s) for i, (s, alt, x, y, o) in enumerate(sites, 1)]
    (tmp_path / "x.pdb").write_text("".join(lines) + "END\n")
    found = [text for text in answer(read(tmp_path / "x.pdb")) if "occupancy" in text]
    assert len(found) == warned


def test_placeholder_of_pdb(tmp_path):
    cell = "CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1\n"
    atom = PDB.format(1, "O", " ", 0, 0, 0, 1, "O")
    (tmp_path / "x.pdb").write_text(cell + atom + "END\n")
    atoms = read(tmp_path / "x.pdb")
    with pytest.raises(ValueError, match=r"structure 0 \(O\): a cell of 1 x 1 x 1"):
        check_structures([atoms])
    atoms.pbc = False
    assert answer(atoms) == []


# ---- labels that are no numbers -----------------------------------------------------------------


@pytest.mark.parametrize(
    "comment, target, key",
    [
        ("energy -76.4", "energy", "energy"),
        ("Iteration 3 Energy -76.4", "energy", "Energy"),
        ("gap 0.3 eV", "energy", "gap"),
        ("mu 0.39 D", "dipole_magnitude", "mu"),
    ],
)
def test_words_are_no_labels(tmp_path, comment, target, key):
    (tmp_path / "x.xyz").write_text(f"3\n{comment}\n{WATER}")
    X = open_structures(tmp_path / "x.xyz")
    message = rf"structure 0 \(.*\): {key} = True is a boolean, .*write {key}=VALUE"
    with pytest.raises(ValueError, match=message):
        targets_from_atoms(X, {target: key})


@pytest.mark.parametrize("word", ["charge -1", "total_charge -1"])
def test_words_are_no_charges(tmp_path, word):
    (tmp_path / "x.xyz").write_text(f"3\nanion {word} mult 1\n{WATER}")
    with pytest.raises(ValueError, match="is a boolean, not a number; ASE reads a word"):
        check_structures(open_structures(tmp_path / "x.xyz"))


@pytest.mark.parametrize(
    "columns",
    [
        {"energy": [1.0, True]},
        {"energy": np.array([False, True])},
        {"energy": pd.Series([True, False])},
        {"dipole": [[0, 0, 0], [0, 0, True]]},
        {"charges": [[0.0], np.array([True])]},
        {"forces": [np.zeros((1, 3)), [[0.0, 0.0, np.True_]]]},
        {"energy": [1.0, 2.0], "energy_sigma": [1.0, True]},
    ],
)
def test_booleans_are_no_labels(columns):
    with pytest.raises(ValueError, match=r"structure [01]: \w+ = .* is a boolean, not a number"):
        make_targets(**columns)


def test_plain_arrays_of_booleans():
    with pytest.raises(ValueError, match=r"y must be an \(n, 3\) array of dipoles"):
        QEqRegressor().fit([water()], np.zeros((1, 3), dtype=bool))


# ---- axes of length one -------------------------------------------------------------------------

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "name, shape, right",
    [
        ("energy", (1,), ()),
        ("energy", (1, 1), ()),
        ("dipole_magnitude", (1,), ()),
        ("dipole", (1, 3), (3,)),
        ("dipole", (3, 1), (3,)),
        ("quadrupole", (1, 6), (6,)),
        ("stress", (1, 6), (6,)),
        ("charges", (4, 1), (4,)),
        ("charges", (1, 4), (4,)),
        ("charges", (1, 1), (1,)),
        ("potential", (5, 1), (5,)),
        ("potential", (), (1,)),
        ("forces", (1, 4, 3), (4, 3)),
        ("forces", (1, 3), (1, 3)),
        ("forces", (1, 1, 3), (1, 3)),
        ("born_effective_charges", (1, 4, 3, 3), (4, 3, 3)),
        ("born_effective_charges", (1, 9), (1, 3, 3)),
    ],
)
def test_axes_of_length_one(name, shape, right):
    value = RNG.uniform(0.1, 1.0, shape)
    label = make_targets(**{name: [value]})[name][0]
    assert np.shape(label) == right
    np.testing.assert_array_equal(np.ravel(label), np.ravel(value))


def test_stress_tensor_with_an_axis_of_length_one():
    stress = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    assert make_targets(stress=[stress[None]])["stress"][0].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "name, shape",
    [("energy", (2,)), ("dipole", (2, 3)), ("charges", (2, 2)), ("charges", ()), ("forces", (3,))],
)
def test_other_shapes_are_refused(name, shape):
    with pytest.raises(ValueError, match=rf"structure 0: {name} must be .*got shape"):
        make_targets(**{name: [np.ones(shape)]})


# ---- labels of another geometry -----------------------------------------------------------------


def shared(calculator, distances):
    X = [pair("H2", d) for d in distances]
    for atoms in X:
        atoms.calc = calculator
    for atoms in X:
        atoms.get_potential_energy()
    return X


def computed(atoms, change):
    """A structure that was changed after its calculation."""
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((len(atoms), 3)))
    change(atoms)
    return atoms


OTHER_GEOMETRY = {
    "EMT": (lambda: shared(EMT(), (0.9, 1.1))[0], "positions that differ by 0.2"),
    "LJ": (lambda: shared(LennardJones(), (1.1, 1.2))[0], "positions that differ by 0.1"),
    "turned": (
        lambda: computed(water(), lambda atoms: atoms.rotate(90, "x")),
        "positions that differ by 1.4",
    ),
    "element": (lambda: computed(water(), lambda a: a.numbers.__setitem__(0, 16)), "other atoms"),
    "strained": (
        lambda: computed(bulk("Al"), lambda a: a.set_cell(1.01 * a.cell, scale_atoms=True)),
        "another cell",
    ),
    "image": (
        lambda: computed(bulk("Al", cubic=True), lambda a: a.positions.__iadd__(np.eye(4, 3))),
        "positions that differ by",
    ),
    "pbc": (
        lambda: computed(bulk("Al"), lambda a: a.set_pbc((True, True, False))),
        r"pbc = \[True, True, True\]",
    ),
}


@pytest.mark.parametrize("case", OTHER_GEOMETRY)
def test_labels_of_another_geometry(case):
    make, message = OTHER_GEOMETRY[case]
    X = [computed(water(), lambda atoms: None), make()]
    message = rf"^structure 1 \(.*\): its calculator holds results of a structure with {message}"
    with pytest.raises(ValueError, match=message):
        targets_from_atoms(X, ["energy"])


SAME_GEOMETRY = {
    "unchanged": (water, lambda atoms: None),
    "rounded": (water, lambda atoms: atoms.set_positions(atoms.positions.round(4))),
    "shifted": (water, lambda atoms: atoms.translate([1.0, 2.0, 3.0])),
    "in a box": (water, lambda atoms: atoms.center(vacuum=5.0)),
    "renamed": (water, lambda atoms: atoms.info.update(charge=0, name="water")),
    "wrapped": (
        lambda: Atoms(
            "H2", [[-0.3, 0, 0], [0.4, 0, 9.8]], cell=[[6, 0, 0], [2, 6, 0], [0, 0, 5]], pbc=1
        ),
        lambda atoms: atoms.wrap(),
    ),
    "shifted and wrapped": (
        lambda: bulk("Al", cubic=True),
        lambda atoms: (atoms.translate([1.0, 0.3, -2.0]), atoms.wrap()),
    ),
}


@pytest.mark.parametrize("case", SAME_GEOMETRY)
def test_labels_of_the_same_geometry(case):
    make, change = SAME_GEOMETRY[case]
    assert targets_from_atoms([computed(make(), change)], ["energy"])["energy"] == [-1.0]


def test_own_calculators():
    X = [shared(EMT(), (d,))[0] for d in (0.9, 1.0, 1.1)]
    energies = [atoms.get_potential_energy() for atoms in X]
    assert targets_from_atoms(X, ["energy"])["energy"].tolist() == energies


def test_labels_outside_of_calculators_have_no_geometry():
    X = shared(EMT(), (0.9, 1.1))
    for i, atoms in enumerate(X):
        atoms.info["REF_energy"] = -float(i)
    assert targets_from_atoms(X, ["energy"])["energy"].tolist() == [0.0, -1.0]


# ---- energies beside forces ---------------------------------------------------------------------


def smeared(free=-14.3):
    atoms = bulk("Al", cubic=True)
    results = {"energy": -14.0, "free_energy": free, "forces": np.zeros((4, 3))}
    atoms.calc = SinglePointCalculator(atoms, **results, stress=np.zeros(6))
    return atoms


@pytest.mark.parametrize(
    "names",
    [
        ["energy", "forces"],
        ["energy", "stress"],
        {"energy": "energy", "forces": "forces", "stress": "stress"},
    ],
)
def test_energies_that_do_not_belong_to_forces(names):
    message = r"not the energy in 2 structures: the difference is -0\.3 eV in structure 1"
    with pytest.warns(UserWarning, match=message) as caught:
        targets_from_atoms([smeared(-14.0), smeared(), smeared()], names)
    [warning] = helpers.of_package(caught)
    assert warning.filename == __file__


@pytest.mark.parametrize(
    "free, names, energy",
    [
        (-14.3, ["energy"], -14.0),
        (-14.3, {"energy": "free_energy", "forces": "forces"}, -14.3),
        (-14.0, ["energy", "forces"], -14.0),
        (-14.0 - 1e-9, ["energy", "forces", "stress"], -14.0),
    ],
)
def test_energies_that_belong_to_forces(free, names, energy):
    assert targets_from_atoms([smeared(free)], names)["energy"] == [energy]


# ---- charges in CIF files -----------------------------------------------------------------------


@pytest.mark.parametrize("names", [["charges"], {"charges": "_atom_site_charge"}])
def test_charges_in_cif(read_cif, names):
    atoms = read_cif("Na1 Na 0 0 0 0.9\nCl1 Cl .5 .5 .5 -0.9", "charge", store_tags=True)
    assert targets_from_atoms([atoms], names)["charges"][0].tolist() == [0.9, -0.9]


def test_charges_in_cif_with_symmetry(read_cif):
    sites = "Na1 Na 0 0 0 0.9\nCl1 Cl .5 0 0 -0.9"
    atoms = read_cif(sites, "charge", "F m -3 m", store_tags=True)
    charges = targets_from_atoms([atoms], ["charges"])["charges"][0]
    assert charges.tolist() == [0.9] * 4 + [-0.9] * 4
    assert atoms.symbols.get_chemical_formula() == "Cl4Na4"


def test_missing_charges_in_cif(read_cif):
    atoms = read_cif("Na1 Na 0 0 0 0.9\nCl1 Cl .5 .5 .5 ?", "charge", store_tags=True)
    charges = targets_from_atoms([atoms], ["charges"])["charges"][0]
    np.testing.assert_array_equal(charges, [0.9, np.nan])
