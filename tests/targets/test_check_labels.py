"""Wrong units, signs and origins are found, and right labels pass."""

import warnings

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.morse import MorsePotential
from ase.units import Bohr, Debye, Hartree
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    GAPRegressor,
    KQEqRegressor,
    QEqRegressor,
    SOAPFeaturizer,
    check_labels,
    make_targets,
    strip,
)
from skqeq.datasets import load_ions, load_molecules, load_water
from skqeq.targets import parse_unit

from .. import helpers


def names(report):
    return [finding.name for finding in report.warnings]


def found(X, **columns):
    return names(check_labels(X, make_targets(**columns)))


def severities(X, **columns):
    return {
        found.name: found.severity for found in check_labels(X, make_targets(**columns)).findings
    }


# ---- right labels -------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [load_molecules, load_ions, load_water])
def test_bundled_data_have_no_fault(load):
    X, y = load()
    report = check_labels(X[::4], y[::4])
    assert report
    assert {finding.severity for finding in report.findings} == {"ok"}


def test_the_report_is_a_table():
    X, y = load_molecules()
    text = str(check_labels(X[:50], y[:50]))
    assert text.splitlines()[0].split() == ["check", "result", "structures", "first", "value"]
    assert "sum of charges            ok               50" in text
    wrong = check_labels(X[:50], make_targets(dipole=y["dipole"][:50] / Debye))
    assert "note: size of dipoles: the median dipole is" in str(wrong)
    assert repr(wrong) == str(wrong)


def test_labels_without_a_check():
    report = check_labels([molecule("H2O")], make_targets(energy=[np.nan]))
    assert report and "variation of energy" in str(report)


# ---- charges ------------------------------------------------------------------------------------


@pytest.fixture
def charges(molecules):
    return [helpers.invented_charges(atoms) for atoms in molecules]


@pytest.fixture
def dipoles(molecules, charges):
    return np.array([helpers.dipole(a, q) for a, q in zip(molecules, charges)])


@pytest.mark.parametrize("total", [1.0, 0.98, -2.0])
def test_charges_of_ions_without_their_total_charge(molecules, charges, total):
    charges[2] = charges[2] + total / len(charges[2])
    charges[5] = np.full(len(charges[5]), np.nan)
    y = make_targets(charges=charges)
    message = (
        r"in 1 structure the charges .*; the first is structure 2 \(C2H6O\), whose total charge"
    )
    with pytest.warns(UserWarning, match=message):
        QEqRegressor().fit(molecules, y)
    [finding] = check_labels(molecules, y).warnings
    assert (finding.n_structures, finding.first) == (1, 2)
    molecules[2].info["charge"] = round(total)
    QEqRegressor().fit(molecules, y)
    assert check_labels(molecules, y)


def test_sums_with_a_grid_error_pass(molecules, charges):
    assert check_labels(molecules, make_targets(charges=[q + 0.12 / len(q) for q in charges]))


def test_electrons_instead_of_charges():
    X, y = load_molecules()
    electrons = [a.numbers - q for a, q in zip(X[:20], y["charges"])]
    report = check_labels(X[:20], make_targets(charges=electrons))
    assert "numbers of electrons" in report.warnings[0].advice


def test_reversed_charges():
    X, y = load_ions()
    assert found(X, charges=[-q for q in y["charges"]]).count("sign of charges") == 1


# ---- dipoles and potentials ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1 / Debye, "are 4.8 times .*Debye"),
        (Debye, "are 0.21 times .*Debye"),
        (-1.0, "are -1 times .*from negative to positive"),
    ],
)
def test_unit_and_sign_of_dipoles(molecules, charges, dipoles, factor, message):
    y = make_targets(dipole=factor * dipoles, charges=charges)
    with pytest.warns(UserWarning, match=f"the dipole labels {message}"):
        QEqRegressor().fit(molecules, y)
    check_labels(molecules[:4], y[:4])  # too few structures for a warning


@pytest.mark.parametrize("factor", [0.5, 1.5, 1.9])
def test_dipoles_that_differ_from_those_of_the_charges(molecules, charges, dipoles, factor):
    QEqRegressor().fit(molecules, make_targets(dipole=factor * dipoles, charges=charges))


@pytest.mark.parametrize("factor", [1 / Debye, Debye])
def test_unit_of_norms(molecules, charges, dipoles, factor):
    norms = np.linalg.norm(dipoles, axis=1)
    assert found(molecules, dipole_magnitude=norms, charges=charges) == []
    wrong = found(molecules, dipole_magnitude=factor * norms, charges=charges)
    assert wrong == ["dipole_magnitude of charges"]


def test_unit_of_quadrupoles_and_potentials(molecules, charges):
    theta = [helpers.quadrupole(a, q) for a, q in zip(molecules, charges)]
    assert found(molecules, quadrupole=theta, charges=charges) == []
    wrong = found(molecules, quadrupole=[4.8 * t for t in theta], charges=charges)
    assert wrong == ["quadrupole of charges"]
    points = 8.0 * np.random.default_rng(0).normal(size=(20, 3)) + [12.0, 0.0, 0.0]
    potentials = []
    for atoms, q in zip(molecules, charges):
        atoms.info["potential_points"] = points
        distances = np.linalg.norm(points[:, None] - atoms.positions, axis=2)
        potentials.append(helpers.COULOMB * (1 / distances) @ q)
    assert found(molecules, potential=potentials, charges=charges) == []
    hartree = [phi / Hartree for phi in potentials]
    assert found(molecules, potential=hartree, charges=charges) == ["potential of charges"]


def test_reversed_dipoles_without_charges():
    X, y = load_molecules()
    assert found(X, dipole=-y["dipole"]) == ["direction of dipoles"]


def test_large_dipoles_without_charges():
    X = [helpers.rattled("H2O", seed) for seed in range(6)]
    mu = np.array([[0.0, 0.0, -0.39 / Debye]] * 6) + 0.01 * np.arange(6)[:, None]
    assert found(X, dipole=mu) == ["size of dipoles"]
    assert found(X, dipole=Debye * mu) == []


@pytest.mark.parametrize("shift", [[10.0, 12.0, 8.0], [0.5, 0.0, -0.5], [-30.0, 1.0, 2.0]])
@pytest.mark.parametrize("with_charges", [True, False])
def test_origin_of_dipoles_of_ions(shift, with_charges):
    X, y = load_ions()
    X, y = [atoms.copy() for atoms in X[:40]], y[:40]
    for atoms in X:
        atoms.positions += shift
    about_origin = [d + a.info["charge"] * a.get_center_of_mass() for a, d in zip(X, y["dipole"])]
    columns = {"charges": list(y["charges"])} if with_charges else {}
    assert found(X, dipole=y["dipole"], **columns) == []
    if with_charges or np.linalg.norm(shift) > 5:
        assert found(X, dipole=about_origin, **columns) == ["origin of dipoles"]


@pytest.mark.parametrize("factor", [1 / Debye, Debye, -1.0])
def test_unit_of_dipoles_of_ions_away_from_the_origin(factor):
    X, y = load_ions()
    X = [atoms.copy() for atoms in X]
    for atoms in X:
        atoms.positions += [4.0, 0.0, -3.0]
    wrong = found(X, dipole=factor * y["dipole"], charges=list(y["charges"]))
    assert wrong == ["dipole of charges"]


def test_origin_of_dipoles_is_checked_by_fits():
    X, y = load_ions()
    X, y = [atoms.copy() for atoms in X[:20]], y[:20].copy()
    for atoms in X:
        atoms.positions += [10.0, 12.0, 8.0]
    model = make_pipeline(
        SOAPFeaturizer(r_cut=2.5, n_max=3, l_max=2), CURSparsifier(n_points=8), KQEqRegressor()
    )
    model.fit(X, y)
    y["dipole"] += [a.info["charge"] * a.get_center_of_mass() for a in X]
    with pytest.warns(UserWarning, match="dipoles must be about the centre of mass"):
        model.fit(X, y)


# ---- forces and stress --------------------------------------------------------------------------


def with_morse(atoms, seed, strain=0.0):
    rng = np.random.default_rng(seed)
    if strain:
        tensor = strain * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell @ (np.eye(3) + tensor + tensor.T), scale_atoms=True)
    atoms.positions += 0.06 * rng.normal(size=atoms.positions.shape)
    atoms.calc = MorsePotential(r0=1.0 if strain == 0 else 2.8, epsilon=1, rho0=3, rcut1=4, rcut2=5)
    return atoms


def morse_set(kind, n=12):
    X = []
    for seed in range(n):
        if kind == "rotated":
            atoms = with_morse(molecule("CH3OH"), seed)
            atoms.rotate(37.0 * seed, [1, 2, 3])
        elif kind == "crystal":
            atoms = with_morse(bulk("Cu", cubic=True), seed)
            atoms.positions += atoms.cell[0] * (seed % 2)  # other images
        else:
            atoms = with_morse(molecule(kind), seed)
        X.append(atoms)
    return X, [a.get_potential_energy() for a in X], [a.get_forces() for a in X]


@pytest.mark.parametrize("kind", ["H2O", "rotated", "crystal", "C2H6"])
@pytest.mark.parametrize("factor", [1.0, -1.0, Bohr / Hartree, Hartree / Bohr, -Bohr / Hartree])
def test_forces_and_energies(kind, factor):
    X, energy, forces = morse_set(kind)
    report = check_labels(
        strip(X), make_targets(energy=energy, forces=[factor * f for f in forces])
    )
    warned = [name for name in names(report) if name != "forces along bonds"]
    assert warned == ([] if factor == 1.0 else ["forces and energies"])
    if factor == 1.0:
        assert report
    if factor < 0:
        assert "are gradients" in report.warnings[0].advice


def test_gradients_are_found_by_fits():
    X, energy, forces = morse_set("H2O")
    model = make_pipeline(
        SOAPFeaturizer(r_cut=3, cutoff_width=1.0, n_max=3, l_max=2),
        CURSparsifier(n_points=8),
        GAPRegressor(),
    )
    X = strip(X)
    model.fit(X, make_targets(energy=energy, forces=forces))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="on the training structures")
        with pytest.warns(UserWarning, match="the labels of forces have the wrong sign"):
            model.fit(X, make_targets(energy=energy, forces=[-f for f in forces]))


# Total energies of all electrons, B3LYP with a triple-zeta basis, rounded, Hartree.
ALL_ELECTRON = {
    "CH4": -40.53, "NH3": -56.58, "H2O": -76.46, "HF": -100.48, "C6H6": -232.31, "CO2": -188.66,
    "SH2": -399.42, "PH3": -343.19, "CH3Cl": -500.15, "SO2": -548.68,
}  # fmt: skip


@pytest.mark.parametrize("unit", ["hartree", "rydberg", "kcal/mol", "kJ/mol"])
def test_unit_of_total_energies(unit):
    """Also if the unit of the forces is wrong by the same factor, which no other check finds."""
    X = [molecule(name) for name in ALL_ELECTRON]
    energies = np.array(list(ALL_ELECTRON.values())) * Hartree
    [warning] = check_labels(X, make_targets(energy=energies / parse_unit("energy", unit))).warnings
    assert warning.name == "unit of energies" and f"use the unit energy={unit}," in warning.advice
    assert check_labels(X, make_targets(energy=energies))


def test_unit_of_water_energies():
    X, y = load_water("pbe0")
    assert check_labels(X, y[["energy", "forces"]])
    energies, forces = y["energy"] / Hartree, [Bohr / Hartree * f for f in y["forces"]]
    assert "unit of energies" in found(X, energy=energies, forces=forces)


@pytest.mark.parametrize("per_atom", [-7.5, -0.5, 0.1, -150.0])
def test_other_energies_have_no_unit(per_atom):
    """Energies of formation, or with pseudopotentials."""
    X = [molecule(name) for name in ALL_ELECTRON]
    energies = [per_atom * len(atoms) * (1 + 0.01 * i) for i, atoms in enumerate(X)]
    assert "unit of energies" not in found(X, energy=energies)


def test_energies_per_atom():
    X, energy, forces = morse_set("C2H6")
    energy = [e / len(a) for e, a in zip(energy, X)]
    assert found(strip(X), energy=energy, forces=forces) == ["forces and energies"]


@pytest.mark.parametrize("factor", [1.0, -1.0, 160.2])
@pytest.mark.parametrize("with_forces", [True, False])
def test_stress_and_energies(factor, with_forces):
    X = [with_morse(bulk("Cu"), seed, strain=0.005) for seed in range(12)]
    energy, stress = [a.get_potential_energy() for a in X], [a.get_stress() for a in X]
    columns = {"forces": [a.get_forces() for a in X]} if with_forces else {}
    wrong = found(strip(X), energy=energy, stress=[factor * np.array(s) for s in stress], **columns)
    assert wrong == ([] if factor == 1.0 else ["stress and energies"])


def test_forces_of_fixed_atoms():
    X, _, forces = morse_set("C2H6")
    for f in forces:
        f[:4] = 0.0
    assert severities(strip(X), forces=forces)["sum of forces"] == "note"


UNITS_OF_FORCES = {
    "eV/Angstrom": "ok", "-eV/Angstrom": "warning", "kcal/mol/Angstrom": "warning",
    "-kcal/mol/Angstrom": "warning", "meV/Angstrom": "warning", "hartree/bohr": "note",
    "-hartree/bohr": "note", "rydberg/bohr": "note",
}  # fmt: skip


@pytest.mark.parametrize("unit", UNITS_OF_FORCES)
def test_forces_along_bonds(unit):
    """Without energies, and without geometries that are close to each other."""
    X, y = load_water("pbe0")
    forces = [f / parse_unit("forces", unit) for f in y["forces"][:60]]
    report = check_labels(X[:60], make_targets(forces=forces))
    [finding] = [found for found in report.findings if found.name == "forces along bonds"]
    assert finding.severity == UNITS_OF_FORCES[unit]
    advice = {"-eV/Angstrom": "are gradients", "-hartree/bohr": "forces=-hartree/bohr"}
    assert advice.get(unit, "") in finding.advice


def test_forces_of_optimised_molecules_tell_nothing():
    """The lengths of their bonds differ little, and forces of another method can be anything."""
    X = [molecule(name) for name in ("CH4", "C2H6", "CH3OH", "C6H6", "H3CNH2", "C2H4")] * 2
    rng = np.random.default_rng(0)
    forces = [0.3 * rng.normal(size=atoms.positions.shape) for atoms in X]
    assert severities(X, forces=forces)["forces along bonds"] == "ok"


def test_energies_in_fields_are_compared_in_equal_fields():
    """Energies change with the field, and with the orientation in a field."""
    dipole = np.array([0.0, 0.0, 40.0])
    X, energy, forces = morse_set("H2O", 40)
    X = strip(X)
    for k, atoms in enumerate(X):
        atoms.info["external_field"] = [0.0, 0.0, 0.1 * (k % 2)]
        energy[k] -= dipole @ atoms.info["external_field"]
    report = check_labels(X, make_targets(energy=energy, forces=forces))
    [finding] = [found for found in report.findings if found.name == "forces and energies"]
    assert finding.value.startswith("correlation 1.00, ratio 1")


# ---- one structure with two energies ------------------------------------------------------------


def moved(atoms, how):
    """The same structure, written in another way."""
    atoms = atoms.copy()
    if how == "rotated":
        atoms.rotate(71.0, [1, 2, 3])
        atoms.positions += [3.0, -1.0, 0.3]
    elif how == "wrapped":
        atoms.positions += 0.37 * atoms.cell.sum(axis=0)
        atoms.wrap()
    # Files have a finite number of digits.
    atoms.positions = atoms.positions.round(8)
    return atoms


def crystal(seed):
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


def slab(seed):
    atoms = crystal(seed)
    atoms.pbc = True, True, False
    atoms.center(4.0, axis=2)
    return atoms


DUPLICATES = {
    "molecule": (lambda seed: helpers.rattled("CH3OH", seed), "rotated"),
    "ion": (lambda seed: helpers.rattled("CH3OH", seed), "same"),
    "crystal": (crystal, "wrapped"),
    "ideal crystal": (lambda seed: bulk("NaCl", "rocksalt", a=5.64 + seed, cubic=True), "wrapped"),
    "slab": (slab, "wrapped"),
}


@pytest.mark.parametrize("kind", DUPLICATES)
def test_one_structure_with_two_energies(kind):
    make, how = DUPLICATES[kind]
    X = [make(seed) for seed in range(4)]
    if kind == "ion":
        for atoms in X:
            atoms.info = {"charge": 1, "external_field": [0.0, 0.0, 0.1]}
    energy = [-10.0, -11.0, -12.0, -13.0]
    again = [*X, moved(X[2], how), moved(X[0], how)]
    per_atom = len(X[0])
    assert found(again, energy=[*energy, -12.0 + 0.0009 * per_atom, -10.0]) == []
    report = check_labels(again, make_targets(energy=[*energy, -12.5, -10.0]))
    [finding] = report.warnings
    assert (finding.name, finding.n_structures, finding.first) == ("energies of duplicates", 1, 4)
    assert finding.advice.startswith(
        "structures 2 and 4 have the same geometry and total charge, but their energies differ by "
        "0.5 eV: "
    )
    report = check_labels(again, make_targets(energy=[*energy, -12.5, -9.0]))
    [finding] = report.warnings
    assert (finding.n_structures, finding.value) == (2, "1 eV")
    assert "structures 0 and 5 " in finding.advice and "; 2 energies differ" in finding.advice


def test_structures_that_differ_may_have_other_energies():
    water = molecule("H2O")
    others = [water.copy() for _ in range(5)]
    others[1].info["charge"] = 1
    others[2].info["external_field"] = [0.0, 0.0, 0.1]
    others[3].info["external_field"] = [0.0, 0.0, 0.1]
    others[3].rotate(90, "x")  # in a field, the orientation matters
    others[4].positions[0, 2] += 1e-3
    assert found(others, energy=[0.0, 10.0, -0.1, 0.1, 0.2]) == []


# ---- labels that belong to other structures or atoms --------------------------------------------


def test_equal_labels_of_different_structures(molecules):
    assert found(molecules, energy=[-76.4] * len(molecules)) == ["variation of energy"]
    assert found([molecules[0]] * 6, energy=[-76.4] * 6) == []
    methane = [helpers.rattled("CH4", seed) for seed in range(6)]
    report = check_labels(methane, np.zeros((6, 3)))
    assert report and "variation of dipole       note" in str(report)


def test_born_charges_of_atoms_in_another_order():
    X, _, _ = morse_set("H2O", 6)
    born = [np.array([-0.6, 0.3, 0.3])[:, None, None] * np.eye(3) for _ in X]
    report = check_labels(strip(X), make_targets(born_effective_charges=born))
    assert {f.severity for f in report.findings} == {"ok"}
    born[3] = born[3] + 0.4
    report = check_labels(strip(X), make_targets(born_effective_charges=born))
    assert [f.first for f in report.findings if f.severity == "note"] == [3]
