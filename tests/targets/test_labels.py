"""The table of labels, from every form of input."""

import numpy as np
import pandas as pd
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.units import Debye
from numpy.testing import assert_allclose, assert_array_equal

from skqeq import QEqRegressor, check_structures, make_targets, targets_from_atoms
from skqeq.targets import Labels

from .. import helpers

NAMES = ["H2O", "CH3OH", "HF"]


@pytest.fixture
def X():
    return [helpers.rattled(name, seed) for seed, name in enumerate(NAMES)]


@pytest.fixture
def charges(X):
    return [helpers.invented_charges(atoms) for atoms in X]


@pytest.fixture
def dipoles(X, charges):
    return np.array([helpers.dipole(a, q) for a, q in zip(X, charges)])


def assert_same(table, expected):
    assert table.dtype == expected.dtype
    for name in expected.dtype.names:
        for value, reference in zip(table[name], expected[name]):
            if reference is None:
                assert value is None
            else:
                assert_array_equal(value, reference)


# ---- make_targets -------------------------------------------------------------------------------


def test_columns(X, charges, dipoles):
    theta = [helpers.quadrupole(a, q) for a, q in zip(X, charges)]
    y = make_targets(
        dipole=[dipoles[0], None, np.nan],
        charges=[charges[0], None, np.nan],
        quadrupole=[theta[0], None, [1, 2, -3, 4, 5, 6]],
        dipole_magnitude=[0.5, None, np.nan],
        dipole_sigma=[2.0, np.nan, None],
    )
    assert y.shape == (3,)
    assert_array_equal(y["dipole"], [dipoles[0], [np.nan] * 3, [np.nan] * 3])
    assert_array_equal(y["charges"][0], charges[0])
    assert y["charges"][1] is None
    assert y["charges"][2] is None
    xx, yy, zz, yz, xz, xy = y["quadrupole"][0]
    assert_allclose([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], theta[0], atol=1e-14)
    assert_array_equal(y["quadrupole"][2], [1, 2, -3, 4, 5, 6])
    assert_array_equal(y["dipole_magnitude"], [0.5, np.nan, np.nan])
    assert_array_equal(y["dipole_sigma"], [2.0, np.nan, np.nan])


def test_equal_sizes_stay_ragged():
    y = make_targets(charges=np.zeros((4, 3)))
    assert y.shape == (4,)
    assert y["charges"].dtype == object
    assert y["charges"][0].shape == (3,)


def test_labels_are_copied(charges):
    y = make_targets(charges=charges)
    charges[0][:] = 9.0
    assert np.abs(y["charges"][0]).max() < 9


@pytest.mark.parametrize(
    "columns, message",
    [
        ({}, "no targets given"),
        ({"dipoles": [[0, 0, 0]]}, "unknown target 'dipoles'; known: dipole, charges"),
        ({"dipole_sigma": [1.0]}, "dipole_sigma is given without dipole"),
        ({"dipole": None}, "dipole must hold one value per structure"),
        ({"dipole_magnitude": 3.0}, "dipole_magnitude must hold one value per structure"),
        ({"dipole": [[0, 0, 0]], "charges": [[0], [1]]}, "different lengths"),
        ({"dipole": [[0, 0]]}, r"structure 0: dipole must be shape \(3,\), got shape \(2,\)"),
        ({"dipole": [[0, 0, 0], 1.0]}, "structure 1: dipole must be shape"),
        ({"dipole": [[0, 0, np.inf]]}, "structure 0: dipole is infinite"),
        ({"dipole": [["a", 0, 0]]}, "structure 0: dipole = .* is not numeric"),
        ({"charges": [[1.0], [[1.0, 0.0]] * 2]}, "structure 1: charges must be 1-D"),
        ({"charges": [1.0]}, "structure 0: charges must be 1-D"),
        ({"quadrupole": [np.zeros((2, 3))]}, "structure 0: quadrupole must be shape"),
        ({"dipole_magnitude": [[0.1, 0.2]]}, "structure 0: dipole_magnitude must be a number"),
        ({"dipole_magnitude": [0.1, -0.1]}, "structure 1: dipole_magnitude = .*negative"),
        ({"dipole": [[0, 0, 0]], "dipole_sigma": [0.0]}, "structure 0: dipole_sigma = 0.0"),
        ({"dipole": [[0, 0, 0]], "dipole_sigma": [-1.0]}, "not a positive number"),
    ],
)
def test_bad_columns(columns, message):
    with pytest.raises(ValueError, match=message):
        make_targets(**columns)


# ---- forms of y ---------------------------------------------------------------------------------


def forms(charges, dipoles):
    table = make_targets(dipole=dipoles, charges=charges)
    rows = [{"dipole": mu, "charges": q} for mu, q in zip(dipoles, charges)]
    frame = pd.DataFrame({"dipole": list(dipoles), "charges": charges}, index=[7, 5, 3])
    return {"table": table, "dicts": rows, "frame": frame}


@pytest.mark.parametrize("form", ["table", "dicts", "frame"])
def test_all_forms_are_one(X, charges, dipoles, form):
    y = forms(charges, dipoles)[form]
    labels = Labels(y, check_structures(X))
    assert_same(labels.table, make_targets(dipole=dipoles, charges=charges))
    model = QEqRegressor().fit(X, y)
    expected = QEqRegressor().fit(X, make_targets(dipole=dipoles, charges=charges))
    assert_array_equal(model.coef_, expected.coef_)
    predicted, reference = model.predict(X), expected.predict(X)
    assert type(predicted) is type(y)
    for i in range(3):
        row = predicted.iloc[i] if form == "frame" else predicted[i]
        for name in ("dipole", "charges"):
            assert_array_equal(row[name], reference[name][i])
    assert model.score(X, y) == expected.score(X, make_targets(dipole=dipoles, charges=charges))


@pytest.mark.parametrize("form", [np.array, np.ndarray.tolist], ids=["array", "list"])
def test_plain_dipoles(X, dipoles, form):
    model = QEqRegressor().fit(X, form(dipoles))
    expected = QEqRegressor().fit(X, make_targets(dipole=dipoles))
    assert_array_equal(model.coef_, expected.coef_)
    predicted = model.predict(X)
    assert predicted.dtype == float
    assert_array_equal(predicted, expected.predict(X)["dipole"])


def test_dicts_may_lack_labels(X, charges, dipoles):
    y = [{"dipole": dipoles[0]}, {"charges": charges[1]}, {}]
    labels = Labels(y, check_structures(X))
    expected = make_targets(dipole=[dipoles[0], None, None], charges=[None, charges[1], None])
    assert_same(labels.table, expected)
    assert sorted(labels.names) == ["charges", "dipole"]


@pytest.mark.parametrize("partial", ["array", "rows"])
def test_missing_labels_are_dropped_labels(X, dipoles, partial):
    y = dipoles.copy()
    y[1] = np.nan
    if partial == "rows":
        y = make_targets(dipole=[dipoles[0], None, dipoles[2]])
    model = QEqRegressor().fit(X, y)
    # Structures without labels can add elements, whose weights are zero.
    dropped = QEqRegressor().fit(X[::2], dipoles[::2])
    shared = np.isin(model.elements_, dropped.elements_)
    assert_allclose(model.coef_[shared], dropped.coef_, atol=1e-12)
    assert_allclose(model.coef_[~shared], 0, atol=1e-12)


@pytest.mark.parametrize(
    "y, error, message",
    [
        ({"dipole": np.zeros((3, 3))}, TypeError, r"make_targets\(\*\*y\)"),
        (np.zeros((2, 3)), ValueError, "X holds 3 structures, but y 2"),
        (np.zeros((3, 2)), ValueError, r"y must be an \(n, 3\) array"),
        (np.zeros(3), ValueError, r"y must be an \(n, 3\) array"),
        (["a", "b", "c"], ValueError, r"y must be an \(n, 3\) array"),
        (np.full((3, 3), np.nan), ValueError, "all labels are missing"),
        (
            make_targets(charges=[np.zeros(3), np.zeros(6), np.zeros(3)]),
            ValueError,
            r"structure 2 \(FH\): charges has 3 values for 2 atoms",
        ),
        (
            make_targets(potential=[[0.0], None, None]),
            ValueError,
            r"structure 0 \(H2O\): potential has 1 value for 0 potential points",
        ),
    ],
)
def test_bad_labels(X, y, error, message):
    with pytest.raises(error, match=message):
        QEqRegressor().fit(X, y)


def test_labels_are_left_alone(X, charges, dipoles):
    y = make_targets(dipole=dipoles, charges=charges)
    before = make_targets(dipole=dipoles, charges=charges)
    model = QEqRegressor().fit(X, y)
    model.predict(X)["dipole"][:] = 9.0
    model.score(X, y)
    assert_same(y, before)


# ---- targets_from_atoms -------------------------------------------------------------------------


def test_labels_in_calculators_info_and_arrays(X, charges, dipoles):
    X[0].calc = SinglePointCalculator(X[0], dipole=dipoles[0], charges=charges[0])
    X[1].info["REF_dipole"] = dipoles[1]
    X[1].arrays["REF_charges"] = charges[1]
    X[2].info["dipole"] = dipoles[2].tolist()
    y = targets_from_atoms(X, ["dipole", "charges"])
    assert_same(y, make_targets(dipole=dipoles, charges=[*charges[:2], None]))


@pytest.mark.parametrize("names", ["dipole", ["dipole"], ("dipole",), {"dipole": "mu"}])
def test_names(X, dipoles, names):
    for atoms, mu in zip(X, dipoles):
        atoms.info["mu" if isinstance(names, dict) else "dipole"] = mu
    assert_array_equal(targets_from_atoms(X, names)["dipole"], dipoles)


@pytest.mark.parametrize("prefix", ["", "REF_"])
def test_extxyz_round_trip(X, charges, dipoles, tmp_path, prefix):
    """ASE's reader moves labels with known names into a calculator."""
    for atoms, mu, q in zip(X, dipoles, charges):
        atoms.info |= {f"{prefix}dipole": mu, f"{prefix}dipole_magnitude": np.linalg.norm(mu)}
        atoms.info["charge"] = 1
        atoms.arrays[f"{prefix}charges"] = q
    write(tmp_path / "x.extxyz", X)
    found = read(tmp_path / "x.extxyz", ":")
    y = targets_from_atoms(found, ["dipole", "charges", "dipole_magnitude"])
    assert_allclose(y["dipole"], dipoles, atol=1e-7)
    assert_allclose(y["dipole_magnitude"], np.linalg.norm(dipoles, axis=1), atol=1e-7)
    for q, reference in zip(y["charges"], charges):
        assert_allclose(q, reference, atol=1e-7)
    assert [s.charge for s in check_structures(found)] == [1.0] * 3


def test_calculator_results_survive_extxyz(X, charges, dipoles, tmp_path):
    for atoms, mu, q in zip(X, dipoles, charges):
        atoms.calc = SinglePointCalculator(atoms, dipole=mu, charges=q)
    write(tmp_path / "x.extxyz", X)
    y = targets_from_atoms(read(tmp_path / "x.extxyz", ":"), ["dipole", "charges"])
    assert_allclose(y["dipole"], dipoles, atol=1e-7)
    for q, reference in zip(y["charges"], charges):
        assert_allclose(q, reference, atol=1e-7)


def test_absent_labels(X):
    with pytest.raises(
        ValueError, match="no structure has dipole: looked for REF_dipole or dipole"
    ):
        targets_from_atoms(X, ["dipole"])
    X[0].info["enthalpy"] = 1.0
    with pytest.raises(ValueError, match="unknown target 'enthalpy'"):
        targets_from_atoms(X, ["enthalpy"])


def test_units():
    X = [molecule("H2O"), molecule("NH3"), molecule("CH4")]
    for i, atoms in enumerate(X[:2]):
        atoms.info["mu"] = [0, 0, i + 1]
        atoms.arrays["q"] = np.arange(len(atoms))
    names = {"dipole": "mu", "charges": "q"}
    y = targets_from_atoms(X, names, units={"dipole": Debye})
    assert_allclose(y["dipole"][:2], np.array([[0, 0, 1], [0, 0, 2]]) * Debye)
    assert np.isnan(y["dipole"][2]).all() and y["charges"][2] is None
    assert_array_equal(y["charges"][0], [0, 1, 2])
    assert X[0].info["mu"] == [0, 0, 1]
    X[1].info["mu"] = "large"
    with pytest.raises(ValueError, match="structure 1: dipole = 'large' is not numeric"):
        targets_from_atoms(X, names, units={"dipole": Debye})
    X[1].info["mu"] = [0, 0, 1e10]
    with pytest.raises(ValueError, match="structure 1: dipole is infinite"):
        targets_from_atoms(X, names, units={"dipole": 1e300})
    del X[1].info["mu"]
    with pytest.raises(ValueError, match="units holds energy"):
        targets_from_atoms(X, names, units={"energy": 1.0})
    for unit in ("Debye", "-debye"):
        again = targets_from_atoms(X, names, units={"dipole": unit})
        assert_allclose(again["dipole"][0], [0, 0, Debye * (-1 if unit[0] == "-" else 1)])
    for unit in (0, np.nan, None, [1.0], True, 1j, "furlong"):
        with pytest.raises(ValueError, match="unit of dipole"):
            targets_from_atoms(X, names, units={"dipole": unit})
    with pytest.raises(ValueError, match="the first structure has .*q, .*mu"):
        targets_from_atoms(X, {"dipole": "dft"})
    with pytest.raises(ValueError, match="the first structure has nothing"):
        targets_from_atoms([], ["dipole"])


def test_structures_in_any_container(X, dipoles):
    for atoms, mu in zip(X, dipoles):
        atoms.info["dipole"] = mu
    column = np.empty(3, dtype=object)
    column[:] = X
    for container in (tuple(X), column, pd.Series(column), pd.DataFrame({"atoms": column})):
        assert_array_equal(targets_from_atoms(container, "dipole")["dipole"], dipoles)
    with pytest.raises(TypeError, match="single Atoms"):
        targets_from_atoms(molecule("H2O"), "dipole")
