"""Bad input raises an error before any work; the message gives structure number and value."""

import pickle
import re
from functools import cache

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    KQEqRegressor,
    QEq,
    QEqRegressor,
    SOAPFeaturizer,
    StructureFeatures,
    check_structures,
    make_targets,
    predict_charges,
    predict_forces,
    predict_stress,
    strip,
    targets_from_atoms,
)
from skqeq.model_selection import LabelledKFold, TargetScorer
from skqeq.targets import TARGETS

GATES = {
    "check_structures": lambda X: check_structures(X),
    "strip": lambda X: strip(X),
    "soap": lambda X: SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2).fit(X),
    "soap_transform": lambda X: _fitted_soap().transform(X),
    "qeq": lambda X: QEqRegressor().fit(X, np.zeros((len(X), 3))),
    "qeq_predict": lambda X: _fitted_qeq().predict(X),
    "pipeline": lambda X: small_pipeline().fit(X, np.zeros((len(X), 3))),
    "charges": lambda X: predict_charges(_fitted_qeq(), X),
    "forces": lambda X: predict_forces(_fitted_qeq(), X),
}
ELEMENTS = [molecule("CH3OH"), molecule("CO2")]


@cache
def _fitted_soap():
    return SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2).fit(ELEMENTS)


@cache
def _fitted_qeq():
    return QEqRegressor().fit(ELEMENTS, np.zeros((2, 3)))


def small_pipeline(**params):
    soap = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2)
    model = make_pipeline(soap, CURSparsifier(n_points=3), KQEqRegressor())
    return model.set_params(**params)


# ---- X is no list of structures -----------------------------------------------------------------


def water(**info):
    atoms = molecule("H2O")
    atoms.info |= info
    return atoms


def array_of_atoms():
    return np.asarray([water(), water()], dtype=object)


NOT_STRUCTURES = {
    "one structure": (lambda: water(), r"X is a single Atoms object; pass a list .*\[atoms\]"),
    "array of atoms": (array_of_atoms, r"X is an array of shape \(2, 3\) and dtype object"),
    "array of numbers": (lambda: np.zeros((4, 2)), r"X is an array of shape \(4, 2\)"),
    "0-d array": (lambda: np.array(None, dtype=object), r"X is an array of shape \(\)"),
    "wrong item": (lambda: [water(), "H2O"], r"X\[1\] is a str, but every structure must be"),
    "nothing": (lambda: [water(), water(), None], r"X\[2\] is a NoneType"),
    "nested list": (lambda: [water(), [water()]], r"X\[1\] is a list"),
    "one atom": (lambda: [water()[0]], r"X\[0\] is a Atom"),
    "path": (lambda: "molecules.xyz", "X must be a list of ase.Atoms, got str"),
    "dict": (lambda: {"a": water()}, "X must be a list of ase.Atoms, got dict"),
    "none": (lambda: None, "X must be a list of ase.Atoms, got NoneType"),
    "number": (lambda: 3, "X must be a list of ase.Atoms, got int"),
    "wide frame": (
        lambda: pd.DataFrame({"a": [water()], "b": [1]}),
        "X is a frame with 2 columns; structures need exactly one column",
    ),
    "wide frame with a telling name": (
        lambda: pd.DataFrame({"structures": [water()], "b": [1]}),
        "X is a frame with 2 columns; structures need exactly one column",
    ),
}


@pytest.mark.parametrize("case", NOT_STRUCTURES)
def test_no_list_of_structures(case):
    make, message = NOT_STRUCTURES[case]
    for gate in ("check_structures", "strip", "soap", "soap_transform", "qeq_predict", "charges"):
        with pytest.raises(TypeError, match=message):
            GATES[gate](make())
    with pytest.raises(TypeError, match=message):
        QEqRegressor().fit(make(), np.zeros((2, 3)))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("empty", [[], (), np.empty(0, dtype=object), pd.Series([], dtype=object)])
def test_empty(gate, empty):
    with pytest.raises(ValueError, match="X holds no structures"):
        GATES[gate](empty)


def test_kqeq_without_features():
    with pytest.raises(TypeError, match=r"takes the features of structures, got list; .*pipeline"):
        KQEqRegressor().fit([water()], np.zeros((1, 3)))


# ---- one structure is unusable ------------------------------------------------------------------


def with_position(value):
    atoms = water()
    atoms.positions[1, 2] = value
    return atoms


def with_cell(value, pbc):
    atoms = water()
    atoms.cell = np.diag([5.0, 5.0, value])
    atoms.pbc = pbc
    return atoms


def periodic(cell, pbc, **info):
    return Atoms("H2O", water().positions, cell=cell, pbc=pbc, info=info)


def with_number(z):
    atoms = water()
    atoms.numbers[1] = z
    return atoms


def with_masses(value):
    atoms = water()
    atoms.set_masses([16.0, value, value])
    return atoms


def close(distance):
    atoms = water()
    atoms.positions[2] = atoms.positions[1] + [distance, 0, 0]
    return atoms


def close_through_the_boundary():
    return Atoms("HOH", [[0, 0, 0.02], [0, 0, 2.5], [0, 0, 4.97]], cell=[5.0] * 3, pbc=True)


FLAT = [[4, 0, 0], [0, 4, 0], [4, 4, 0]]
UNUSABLE = {
    "position far away": (lambda: with_position(-1e20), r"position z = -1e\+20 \(above 1e\+06\)"),
    "charge of 400 digits": (lambda: water(charge=10**400), r"info\['charge'\] = .* not a number"),
    "field of 400 digits": (
        lambda: water(external_field=[10**400, 0, 0]),
        r"info\['external_field'\] = .* is not a finite vector",
    ),
    "enormous cell": (lambda: with_cell(1e8, True), r"a cell vector is 1e\+08 Angstrom long"),
    "roomy cell": (
        lambda: Atoms("H2", [[0, 0, 0], [0, 0, 1]], cell=[5e3, 5e3, 5e3], pbc=True),
        r"extends over 5e\+03 x 5e\+03 x 5e\+03 Angstrom",
    ),
    "enormous drop": (
        lambda: Atoms("H2", [[0, 0, 0], [2e3, 2e3, 2e3]]),
        r"extends over 2e\+03 x 2e\+03 x 2e\+03 Angstrom",
    ),
    "nan position": (lambda: with_position(np.nan), "atom 1 has position z = nan"),
    "inf position": (lambda: with_position(-np.inf), "atom 1 has position z = -inf"),
    "nan cell": (lambda: with_cell(np.nan, True), "the cell holds nan"),
    "inf cell": (lambda: with_cell(np.inf, False), "the cell holds inf"),
    "close": (
        lambda: close(0.07),
        r"atoms 1 and 2 are 0\.07 Angstrom apart \(below 0\.25 for H-H\)",
    ),
    "same place": (lambda: close(0.0), "atoms 1 and 2 are 0 Angstrom apart"),
    "close image": (close_through_the_boundary, r"atoms 0 and 2 are 0\.05 Angstrom apart"),
    "dummy": (lambda: with_number(0), "atom 1 has atomic number 0: not an element"),
    "no element": (lambda: with_number(300), "atom 1 has atomic number 300: not an element"),
    "no atoms": (lambda: Atoms(), "has no atoms"),
    "no cell": (lambda: periodic(None, True), r"zero volume.*0\.0"),
    "flat cell": (lambda: periodic(FLAT, True), "zero volume.*4"),
    "parallel slab": (lambda: periodic([[4, 0, 0], [8, 0, 0], [0, 0, 4]], (1, 1, 0)), "zero vol"),
    "wire": (lambda: periodic([4, 4, 4], (0, 1, 0)), r"pbc = \(False, True, False\) is a wire"),
    "field in crystal": (
        lambda: periodic([4, 4, 4], True, external_field=[0, 0, 0.1]),
        r"info\['external_field'\] = \[0\.0, 0\.0, 0\.1\] points along a periodic axis",
    ),
    "field in slab": (
        lambda: periodic([4, 4, 4], (1, 1, 0), external_field=[0.1, 0, 0.1]),
        r"\[0\.1, 0\.0, 0\.1\] points along a periodic axis",
    ),
    "field shape": (
        lambda: water(external_field=0.1),
        r"info\['external_field'\] = 0\.1 is not a finite vector of three numbers",
    ),
    "field nan": (lambda: water(external_field=[0, 0, np.nan]), "is not a finite vector"),
    "field text": (lambda: water(external_field="z"), "= 'z' is not a finite vector"),
    "charge text": (lambda: water(charge="+"), r"info\['charge'\] = '\+' is not a number"),
    "charge none": (lambda: water(total_charge=None), r"info\['total_charge'\] = None is not"),
    "charge nan": (lambda: water(charge=np.nan), r"info\['charge'\] = nan is not finite"),
    "charges disagree": (
        lambda: water(charge=1, total_charge=-1),
        r"disagreeing charges: info\['charge'\] = 1, info\['total_charge'\] = -1",
    ),
    "points": (
        lambda: water(potential_points=[0, 0, 1]),
        r"info\['potential_points'\] must be finite \(n, 3\), got shape \(3,\)",
    ),
    "nan mass": (lambda: with_masses(np.nan), "atom 1 has mass nan"),
    "zero mass": (lambda: with_masses(0.0), r"atom 1 has mass 0\.0"),
}


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_structure(case, gate):
    make, message = UNUSABLE[case]
    X = [water(), water(), make(), water()]
    before = [pickle.dumps((a.arrays, a.info, a.cell.array, a.pbc)) for a in X]
    with pytest.raises(ValueError, match=rf"(?s)^structure 2 \(.*\): .*{message}"):
        GATES[gate](X)
    assert [pickle.dumps((a.arrays, a.info, a.cell.array, a.pbc)) for a in X] == before


def test_usable_after_all():
    slab = fcc111("Al", (1, 1, 2), vacuum=4.0)
    slab.info["external_field"] = [0.0, 0.0, 0.1]
    charged = water(charge=1, total_charge=1.0)
    zero_field = bulk("NaCl", "rocksalt", a=5.6)
    zero_field.info["external_field"] = [0, 0, 0]
    flat = Atoms("H2O", water().positions, cell=[4, 4, 0], pbc=(1, 1, 0))
    X = check_structures([slab, charged, zero_field, flat])
    assert [s.charge for s in X] == [0.0, 1.0, 0.0, 0.0]
    assert [s.periodic for s in X] == [True, False, True, True]


@pytest.mark.parametrize("gate", ["qeq", "pipeline", "qeq_predict"])
def test_dipoles_of_crystals_are_refused(gate):
    crystal = Atoms("H2O", water().positions, cell=[4, 4, 4], pbc=True)
    X = [molecule("CH3OH"), molecule("CO2"), molecule("HCOOH"), crystal]
    message = r"^structure 3 \(H2O\) has pbc = \(True, True, True\), which leaves dipole undefined"
    with pytest.raises(ValueError, match=message):
        GATES[gate](X)


def test_stress_of_molecules_is_refused():
    crystal = Atoms("H2O", water().positions, cell=[4, 4, 4], pbc=True)
    message = r"^structure 1 \(H2O\) has pbc = \(False, False, False\), which leaves stress undefi"
    with pytest.raises(ValueError, match=message):
        predict_stress(_fitted_qeq(), [crystal, water()])
    assert predict_stress(_fitted_qeq(), [crystal]).shape == (1, 6)


def test_prediction_refuses_before_any_work(monkeypatch):
    from skqeq.features import _source

    X = [molecule("CH3OH"), molecule("CO2"), molecule("HCOOH")]
    model = small_pipeline().fit(X, np.zeros((3, 3)))
    crystal = Atoms("H2O", water().positions, cell=[4, 4, 4], pbc=True)
    monkeypatch.setattr(_source, "describe", lambda *args: pytest.fail("work was done first"))
    for bad in (crystal, molecule("NH3")):
        with pytest.raises(ValueError, match=r"^structure 1 \("):
            model.predict([water(), bad])


def test_element_without_parameters():
    X = [water(), Atoms("DsH", [[0, 0, 0], [0, 0, 2]])]
    with pytest.raises(ValueError, match=r"^structure 1 \(DsH\).* no .*Ds"):
        QEqRegressor().fit(X, np.zeros((2, 3)))
    radii = {"H": 0.4, "O": 0.6}
    with pytest.raises(ValueError, match=r"^structure 1 \(CO\).* no .*C"):
        QEqRegressor(response=QEq(radii=radii)).fit([water(), molecule("CO")], np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"^structure 1 \(CO\).*hardness.*C"):
        QEqRegressor(response=QEq(hardness=radii)).fit([water(), molecule("CO")], np.zeros((2, 3)))


def test_element_that_was_not_seen():
    X = [water(), water(), molecule("NH3")]
    message = r"^structure 2 \(H3N\) holds N.*H, C, O"
    with pytest.raises(ValueError, match=message):
        CURSparsifier().fit(_fitted_soap().transform(X))
    with pytest.raises(ValueError, match=message):
        _fitted_qeq().predict(X)
    with pytest.warns(UserWarning, match=message):
        _fitted_qeq().score(X, np.zeros((3, 3)))


def test_structure_number_counts_through_blocks(monkeypatch):
    # The code works in blocks, but the message gives the index in the user's list.
    X = StructureFeatures.from_arrays(
        [water(), water(), molecule("NH3")], [np.ones((n, 2)) for n in (3, 3, 4)]
    )
    model = KQEqRegressor().fit(X[:2], np.zeros((2, 3)))
    monkeypatch.setattr(StructureFeatures.blocks, "__defaults__", (1, False, ""))
    assert len(list(X.blocks())) == 3
    with pytest.raises(ValueError, match=r"^structure 2 \(H3N\) holds N"):
        model.predict(X)


# ---- y ------------------------------------------------------------------------------------------


ZEROS = np.zeros((3, 3))
Q = [np.zeros(3)] * 3
BAD_Y = {
    "short": (lambda: ZEROS[:2], ValueError, "X holds 3 structures, but y 2"),
    "long": (lambda: np.zeros((4, 3)), ValueError, "X holds 3 structures, but y 4"),
    "dict": (lambda: {"dipole": ZEROS}, TypeError, r"dict of arrays, .*make_targets\(\*\*y\)"),
    "none": (lambda: None, ValueError, r"y must be .*got NoneType"),
    "1-D": (lambda: np.zeros(3), ValueError, r"\(n, 3\) array of dipoles .*\(3,\)"),
    "wide": (lambda: np.zeros((3, 4)), ValueError, r"\(n, 3\) array of dipoles .*\(3, 4\)"),
    "text": (lambda: ["a", "b", "c"], ValueError, r"\(n, 3\) array of dipoles .*got list"),
    "inf": (
        lambda: np.where(np.eye(3)[1][:, None] > 0, np.inf, ZEROS),
        ValueError,
        "structure 1: dipole is infinite",
    ),
    "all missing": (lambda: ZEROS * np.nan, ValueError, r"all labels are missing.*dipole"),
    "all missing in two": (
        lambda: make_targets(dipole=ZEROS * np.nan, charges=[None] * 3),
        ValueError,
        r"all labels are missing.*dipole.*charges",
    ),
    "unknown in frame": (
        lambda: pd.DataFrame({"mu": [0.0, 1.0, 2.0]}),
        ValueError,
        "unknown target 'mu'; known: dipole, charges",
    ),
    "unknown in dicts": (lambda: [{"mu": 1.0}] * 3, ValueError, "unknown target 'mu'"),
    "row is no dict": (
        lambda: [{"dipole": [0, 0, 1]}, None, {"dipole": [0, 0, 1]}],
        (TypeError, ValueError),
        r"y\[1\].*NoneType|structure 1.*None",
    ),
    "charges of another size": (
        lambda: make_targets(charges=[np.zeros(3), np.zeros(4), None]),
        ValueError,
        r"structure 1 \(H2O\): charges has 4 values for 3 atoms",
    ),
    "forces of another size": (
        lambda: make_targets(forces=[ZEROS, np.zeros((4, 3)), None]),
        ValueError,
        r"structure 1 \(H2O\): forces has 4 values for 3 atoms",
    ),
    "stress of a molecule": (
        lambda: make_targets(stress=[None, np.zeros(6), None]),
        ValueError,
        r"structure 1 \(H2O\) has pbc = .*leaves stress undefined",
    ),
    "all missing of energies": (
        lambda: make_targets(energy=[np.nan] * 3, forces=[ZEROS * np.nan] * 3),
        ValueError,
        "all labels are missing.*energy.*forces",
    ),
    "potential without points": (
        lambda: make_targets(potential=[None, None, [0.1]]),
        ValueError,
        r"structure 2 \(H2O\): potential has 1 value for 0 potential points",
    ),
}


@pytest.mark.parametrize(
    ("case", "method"),
    [
        (case, method)
        for case in BAD_Y
        for method in ("fit", "score")
        # A fold without labels has no score, but raises no error.
        if not (case.startswith("all missing") and method == "score")
    ],
)
def test_bad_labels(case, method):
    make, error, message = BAD_Y[case]
    X = [water() for _ in range(3)]
    model = QEqRegressor()
    if method == "score":
        model.fit(X, ZEROS)
    y = make()
    before = pickle.dumps(y)
    with pytest.raises(error, match=message):
        getattr(model, method)(X, y)
    assert pickle.dumps(y) == before


BAD_TARGETS = {
    "nothing": ({}, "no targets given; known: dipole, charges"),
    "unknown": ({"mu": ZEROS}, "unknown target 'mu'; known: dipole"),
    "unknown sigma": ({"mu_sigma": ZEROS}, "unknown target 'mu_sigma'"),
    "sigma alone": ({"charges": Q, "dipole_sigma": np.ones(3)}, "dipole_sigma is given without d"),
    "lengths": ({"dipole": ZEROS, "charges": Q[:2]}, r"different lengths: .*3.*2"),
    "scalar": ({"dipole_magnitude": 1.0}, r"one value per structure, got 1\.0"),
    "shape": ({"dipole": np.zeros((3, 2))}, r"structure 0: dipole must be shape \(3,\), got .*2"),
    "ragged": ({"dipole": [[0, 0, 1], [0, 1]]}, r"structure 1: dipole .*\(2,\)"),
    "text": ({"dipole": [[0, 0, 1], "abc"]}, "structure 1: dipole = 'abc' is not numeric"),
    "infinite": ({"charges": [[0.0], [np.inf]]}, "structure 1: charges is infinite"),
    "charges 2-D": (
        {"charges": [np.zeros((2, 2))]},
        r"structure 0: charges must be 1-D.*\(2, 2\)",
    ),
    "negative norm": ({"dipole_magnitude": [1.0, -2.0]}, r"structure 1: .*-2\.0.* is negative"),
    "norm vector": ({"dipole_magnitude": ZEROS}, "structure 0: dipole_magnitude must be a number"),
    "quadrupole": ({"quadrupole": np.zeros((1, 5))}, r"structure 0: quadrupole .*\(6,\).*\(5,\)"),
    "energy vector": ({"energy": ZEROS}, "structure 0: energy must be a number"),
    "energy infinite": ({"energy": [0.0, -np.inf]}, "structure 1: energy is infinite"),
    "forces 1-D": ({"forces": [ZEROS, np.zeros(3)]}, r"structure 1: .*\(n_atoms, 3\), .*\(3,\)"),
    "forces wide": ({"forces": [np.zeros((3, 4))]}, r"structure 0: .*\(n_atoms, 3\), .*\(3, 4\)"),
    "forces infinite": ({"forces": [ZEROS, ZEROS + np.inf]}, "structure 1: forces is infinite"),
    "stress": ({"stress": np.zeros((1, 5))}, r"structure 0: stress .*\(6,\).*\(5,\)"),
    "stress infinite": ({"stress": np.full((1, 6), np.inf)}, "structure 0: stress is infinite"),
    "sigma zero": (
        {"dipole": ZEROS, "dipole_sigma": [1, 0, 1]},
        "structure 1: dipole_sigma = 0.* is not a positive number",
    ),
    "sigma negative": (
        {"dipole": ZEROS, "dipole_sigma": [1, 1, -0.5]},
        r"structure 2: dipole_sigma = -0\.5 is not a positive number",
    ),
    "sigma vector": (
        {"dipole": ZEROS, "dipole_sigma": np.ones((3, 3))},
        "structure 0: dipole_sigma = .* is not a positive number",
    ),
}


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_bad_targets(case):
    columns, message = BAD_TARGETS[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        make_targets(**columns)


def test_no_such_label_on_the_atoms():
    with pytest.raises(ValueError, match=r"no structure has dipole: looked for REF_dipole or dip"):
        targets_from_atoms([water()], ["dipole"])
    with pytest.raises(ValueError, match="looked for mu in calc.results"):
        targets_from_atoms([water()], {"dipole": "mu"})


def test_series_of_vectors_is_an_array():
    # Users may pass `frame["dipole"]`, which is a Series.
    X, y = [water(), molecule("CO2")], np.array([[0, 0, 1.0], [0, 0, 0.0]])
    expected = QEqRegressor().fit(X, y).predict(X)
    assert np.array_equal(QEqRegressor().fit(X, pd.Series(list(y))).predict(X), expected)


# ---- weights and groups -------------------------------------------------------------------------


BAD_WEIGHTS = {
    "short": ([1.0, 1.0], r"sample_weight has shape \(2,\), but X holds 3 structures"),
    "2-D": (np.ones((3, 1)), r"sample_weight has shape \(3, 1\), but X holds 3"),
    "negative": ([1.0, -0.5, 1.0], r"sample_weight\[1\] = -0\.5"),
    "nan": ([1.0, 1.0, np.nan], r"sample_weight\[2\] = nan"),
    "inf": ([np.inf, 1.0, 1.0], r"sample_weight\[0\] = inf"),
    "zero": (np.zeros(3), "sample_weight is zero everywhere"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_bad_weights(case):
    weights, message = BAD_WEIGHTS[case]
    X = [water() for _ in range(3)]
    with pytest.raises(ValueError, match=message):
        QEqRegressor().fit(X, ZEROS, sample_weight=weights)
    model = QEqRegressor().fit(X, ZEROS)
    with pytest.raises(ValueError, match=message):
        model.score(X, ZEROS, sample_weight=weights)
    with pytest.raises(ValueError, match=message):
        TargetScorer("dipole")(model, X, ZEROS, sample_weight=weights)


def test_bad_groups(molecules, dipoles):
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[12, 12, 11\]"):
        cross_val_score(QEqRegressor(), molecules, dipoles, groups=np.arange(11), cv=GroupKFold(3))


# ---- parameters ---------------------------------------------------------------------------------


POSITIVE = [f"sigma_{name}" for name in TARGETS] + ["amplitude_baseline", "tol"]


@pytest.mark.parametrize("value", [0.0, -0.01, np.nan, np.inf, "small", None, [0.1]])
@pytest.mark.parametrize("name", POSITIVE)
def test_non_positive_parameters(name, value, molecules, dipoles):
    for model in (QEqRegressor(**{name: value}), KQEqRegressor(**{name: value})):
        with pytest.raises(ValueError, match=f"'{name}' parameter of .*{re.escape(repr(value))}"):
            model.fit(molecules, dipoles)


BAD_PARAMETERS = {
    "max_iter": [0, 2.5],
    "energy_noise": ["per_mole", None],
    "atomic_energies": ["free", None],
    "charge_bias": [0.1, "QEq"],
    "algorithm": ["newton", None],
}


@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_bad_parameters_of_models(name, molecules, dipoles):
    for value in BAD_PARAMETERS[name]:
        with pytest.raises(ValueError, match=f"'{name}' parameter of QEqRegressor .*{value}"):
            QEqRegressor(**{name: value}).fit(molecules, dipoles)


BAD_PARAMETERS_OF_RESPONSES = {
    "hardness": [-1.0, "soft", None],
    "radii": ["vdw", 0.5, None],
    "radius_scale": [0.0, -0.01, np.nan, np.inf, "small", None, [0.1]],
    "accuracy": [0.0, 1.0, "good", None],
    "solver": ["fast", None],
    "polarizability": [-1.0, "soft"],
}


@pytest.mark.parametrize("response", [QEq, ChargeFlow])
@pytest.mark.parametrize("name", BAD_PARAMETERS_OF_RESPONSES)
def test_bad_parameters_of_responses(name, response, molecules, dipoles):
    for value in BAD_PARAMETERS_OF_RESPONSES[name]:
        shown = re.escape(repr(value))
        message = f"'{name}' parameter of {response.__name__} .*{shown}"
        with pytest.raises(ValueError, match=message):
            QEqRegressor(response=response(**{name: value})).fit(molecules, dipoles)


def test_bad_tables_of_elements(molecules, dipoles):
    cases = [
        (
            QEqRegressor(response=QEq(hardness={"Xy": 1.0})),
            "hardness names 'Xy', which is not an element",
        ),
        (QEqRegressor(response=QEq(radii={999: 1.0})), "radii names 999, which is not an element"),
        (QEqRegressor(response=QEq(radii={"H": 0.3, "C": -0.5, "O": 0.5})), r"radii.*C.*-0\.5"),
        (
            QEqRegressor(response=QEq(hardness={"H": 0.3, "C": -0.5, "O": 0.5})),
            r"hardness.*C.*-0\.5",
        ),
        (QEqRegressor(response=QEq(hardness={"H": 0.3, "C": np.nan, "O": 0.5})), r"hardness.*C"),
    ]
    for model, message in cases:
        with pytest.raises(ValueError, match=message):
            model.fit(molecules, dipoles)


def test_bad_init(molecules, dipoles):
    y = make_targets(dipole_magnitude=np.linalg.norm(dipoles, axis=1))
    for init in (np.zeros(2), np.full(3, np.nan), np.zeros((3, 1))):
        with pytest.raises(ValueError, match="init must be 3 finite weights.*coef_"):
            QEqRegressor(init=init).fit(molecules, y)


@pytest.mark.parametrize("value", [0, -3, 2.5, "all", None, np.nan])
def test_absurd_n_points(value, molecules):
    X = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2).fit_transform(molecules)
    with pytest.raises(ValueError, match=f"'n_points' parameter of CURSparsifier.*{value}"):
        CURSparsifier(n_points=value).fit(X)
    with pytest.raises(ValueError, match=f"'n_points' parameter of CURSparsifier.*{value}"):
        CURSparsifier(n_points=value).fit(np.eye(4))


@pytest.mark.parametrize("per_species", [True, False])
def test_more_points_than_environments(per_species, molecules):
    X = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2).fit_transform(molecules)
    sparsifier = CURSparsifier(n_points=5000, per_species=per_species, jitter=1e-6)
    with pytest.warns(UserWarning, match="n_points=5000, but there are only") as caught:
        sparsifier.fit(X)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    n_atoms = sum(map(len, molecules))
    assert len(sparsifier.component_indices_) == n_atoms
    if per_species:
        n_oxygen = sum(atoms.numbers.tolist().count(8) for atoms in molecules)
        assert f"{n_oxygen} of O" in str(caught[0].message)


BAD_SOAP = {
    "r_cut": [(1.0, "1.0"), (-3.0, "-3.0"), (np.inf, "inf"), ("far", "far"), (None, "None")],
    "n_max": [(0, "0"), (2.5, "2.5")],
    "l_max": [(-1, "-1"), (21, "21"), (1.5, "1.5")],
    "sigma_atom": [(0.0, "0.0"), (-0.1, "-0.1"), ("wide", "wide")],
    "cutoff_width": [(0.0, "0.0"), (-0.1, "-0.1"), ("wide", "wide")],
    "compression": [("zip", "zip")],
    "species": [("H", "H"), (3, "3")],
    "species_weighting": [([1.0], "1.0")],
    "memory": [(3, "3")],
}


@pytest.mark.parametrize("name", BAD_SOAP)
def test_bad_parameters_of_soap(name, molecules):
    for value, shown in BAD_SOAP[name]:
        with pytest.raises(ValueError, match=f"'{name}' parameter of SOAPFeaturizer.*{shown}"):
            SOAPFeaturizer(**{name: value}).fit(molecules)


BAD_SOAP_ITEMS = {
    "cutoff too small": ({"r_cut": (3.0, 0.9)}, r"r_cut.*0\.9"),
    "cutoff infinite": ({"r_cut": (3.0, np.inf)}, "r_cut.*inf"),
    "cutoff text": ({"r_cut": (3.0, "far")}, "r_cut.*far"),
    "no cutoff": ({"r_cut": ()}, "r_cut"),
    "width negative": ({"r_cut": (3.0, 4.0), "sigma_atom": (0.4, -0.2)}, r"sigma_atom.*-0\.2"),
    "widths": ({"r_cut": (3.0, 4.0), "sigma_atom": (0.4,)}, "1 value of sigma_atom for 2 cutoffs"),
    "edge negative": ({"r_cut": (3.0, 4.0), "cutoff_width": (1.0, -0.2)}, r"cutoff_width.*-0\.2"),
    "edge text": ({"r_cut": (3.0, 4.0), "cutoff_width": (1.0, "soft")}, "cutoff_width.*soft"),
    "edge too wide": (
        {"r_cut": (3.0, 4.0), "cutoff_width": 3.5},
        r"cutoff_width must be above 0 and at most r_cut = 3\.0, got 3\.5",
    ),
    "edges": (
        {"r_cut": 3.0, "cutoff_width": (1.0, 1.0)},
        "2 values of cutoff_width for 1 cutoff in r_cut",
    ),
    "no species": ({"species": []}, "species is empty"),
    "unknown species": ({"species": ["H", "Xy"]}, "species holds 'Xy', which is not an element"),
    "fraction of a species": ({"species": [1.5, 6]}, r"species holds 1\.5, which is not an elem"),
    "negative species": ({"species": [-1]}, "species holds -1, which is not an element"),
    "weight missing": ({"species_weighting": {"H": 1.0, "C": 2.0}}, "species_weighting.*O"),
}


@pytest.mark.parametrize("case", BAD_SOAP_ITEMS)
def test_bad_items_in_parameters_of_soap(case, molecules):
    params, message = BAD_SOAP_ITEMS[case]
    with pytest.raises(ValueError, match=message):
        SOAPFeaturizer(n_max=2, l_max=2, **params).fit(molecules)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"method": "random"}, "'method' parameter.*random"),
        ({"zeta": 0}, "'zeta' parameter.*0"),
        ({"zeta": 1.5}, r"'zeta' parameter.*1\.5"),
        ({"jitter": -1e-9}, "'jitter' parameter.*-1e-09"),
        ({"per_species": "no"}, "'per_species' parameter.*no"),
        ({"random_state": -1}, "'random_state' parameter.*-1"),
        ({"block_weights": [1.0, 2.0]}, r"1 non-negative numbers, one per .*\[1\.0, 2\.0\]"),
        ({"block_weights": [-1.0]}, r"block_weights must be 1 non-negative .*\[-1\.0\]"),
        ({"block_weights": [0.0]}, r"block_weights must be 1 non-negative .*\[0\.0\]"),
        ({"block_weights": [np.nan]}, r"block_weights must be 1 non-negative .*nan"),
    ],
)
def test_bad_parameters_of_sparsifier(params, message, molecules):
    X = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2).fit_transform(molecules)
    with pytest.raises(ValueError, match=message):
        CURSparsifier(**{"n_points": 2, **params}).fit(X)


# ---- features -----------------------------------------------------------------------------------


def test_bad_features():
    X = [water(), molecule("CO2")]
    cases = [
        ([np.ones((3, 2))], "1 array for 2 structures"),
        ([np.ones((3, 2)), np.ones((2, 2))], r"structure 1 \(CO2\): .*\(2, 2\) for 3 atoms"),
        ([np.ones(3), np.ones(3)], r"structure 0 \(H2O\): features of shape \(3,\)"),
        ([np.ones((3, 2)), np.ones((3, 4))], r"different numbers of columns: \[2, 4\]"),
        ([np.ones((3, 2)), np.full((3, 2), np.nan)], r"structure 1 \(CO2\).*nan"),
    ]
    for arrays, message in cases:
        with pytest.raises(ValueError, match=message):
            StructureFeatures.from_arrays(X, arrays)


def test_features_are_found_by_geometry():
    ion = water(charge=1)
    same = StructureFeatures.from_arrays([water(), ion], [np.ones((3, 2))] * 2)
    assert len(same) == 2
    with pytest.raises(ValueError, match=r"structure 1 \(H2O\).*same geometry"):
        StructureFeatures.from_arrays([water(), ion], [np.zeros((3, 2)), np.ones((3, 2))])


# ---- singular fits ------------------------------------------------------------------------------


def test_singular_fit_gives_advice(molecules, dipoles):
    with pytest.raises(ValueError, match=r"singular to working precision: raise sigma, or lower"):
        small_pipeline(kqeqregressor__sigma_dipole=1e-18).fit(molecules, dipoles)
    y = make_targets(dipole_magnitude=np.linalg.norm(dipoles, axis=1))
    with pytest.raises(ValueError, match=r"singular to working precision: raise sigma, or lower"):
        small_pipeline(kqeqregressor__sigma_dipole_magnitude=1e-18).fit(molecules, y)


def test_singular_fit_gives_advice_from_any_start(molecules, dipoles):
    y = make_targets(dipole_magnitude=np.linalg.norm(dipoles, axis=1))
    model = small_pipeline(
        kqeqregressor__sigma_dipole_magnitude=1e-18, kqeqregressor__init=np.ones(12)
    )
    with pytest.raises(ValueError, match=r"singular to working precision: raise sigma, or lower"):
        model.fit(molecules, y)


def test_hardness_matrix_is_not_positive_definite(molecules, dipoles):
    # Very wide charges at one place cannot be distinguished.
    with pytest.raises(ValueError, match=r"^structure \d+ \(.*\): .* raise hardness, or lower"):
        QEqRegressor(response=QEq(radius_scale=1e9)).fit(molecules, dipoles)


def test_unconverged_gauss_newton_warns(molecules, dipoles):
    y = make_targets(dipole_magnitude=np.linalg.norm(dipoles, axis=1))
    with pytest.warns(UserWarning, match=r"stopped after 1 steps.*tol=1e-15.*raise max_iter"):
        QEqRegressor(max_iter=1, sigma_dipole_magnitude=1e-3, tol=1e-15).fit(molecules, y)


# ---- scorers and splits -------------------------------------------------------------------------


def test_bad_scorers(molecules, dipoles):
    with pytest.raises(ValueError, match="unknown target 'energies'; known: dipole, charges"):
        TargetScorer("energies")
    with pytest.raises(ValueError, match="unknown metric 'mse'; known: r2, mae, rmse"):
        TargetScorer("dipole", "mse")
    for name in set(TARGETS) - {"energy"}:
        with pytest.raises(ValueError, match=f"per_atom=True is for energies, .* target is {name}"):
            TargetScorer(name, per_atom=True)
    model = QEqRegressor().fit(molecules, dipoles)
    with pytest.raises(ValueError, match="leaves stress undefined"):
        TargetScorer("stress")(model, molecules, make_targets(stress=np.zeros((12, 6))))
    unlabelled = make_targets(dipole=dipoles, charges=[None] * len(molecules))
    with pytest.raises(ValueError, match="no structure of this fold has charges: .*LabelledKFold"):
        TargetScorer("charges")(model, molecules, unlabelled)


def test_unlabelled_fold_is_loud_with_error_score_raise(molecules, dipoles):
    dipoles[:4] = np.nan
    search = GridSearchCV(
        QEqRegressor(),
        {"sigma_dipole": [0.1]},
        scoring=TargetScorer("dipole"),
        cv=3,
        error_score="raise",
    )
    with pytest.raises(ValueError, match="no structure of this fold has dipole"):
        search.fit(molecules, dipoles)


def test_split_by_a_target_that_y_lacks(molecules, dipoles, table):
    with pytest.raises(ValueError, match="y has no column 'potential', only dipole, charges"):
        next(LabelledKFold("potential").split(molecules, table))


def test_not_fitted_is_said_before_bad_input():
    for estimator in (SOAPFeaturizer(), QEqRegressor(), small_pipeline()):
        call = getattr(clone(estimator), "predict", None) or estimator.transform
        with pytest.raises(NotFittedError):
            call("nonsense")
