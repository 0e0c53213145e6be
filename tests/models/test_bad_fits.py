"""Fits that are worse than the mean of the labels, and energies that are not determined."""

import warnings

import numpy as np
import pytest
from ase.build import molecule
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    GAPKQEqRegressor,
    KQEqCalculator,
    KQEqRegressor,
    QEq,
    QEqRegressor,
    SOAPFeaturizer,
    StructureBlocks,
    make_targets,
    predict_energy,
    predict_forces,
    predict_targets,
    strip,
)
from skqeq.datasets import load_molecules, load_water
from skqeq.metrics import target_r2
from skqeq.models._training_r2 import RowSample, deviations, squares_of_triangles
from skqeq.models._workers import reduce_labels
from skqeq.solvers import Triangle
from skqeq.structures import collect

from .. import helpers

R2 = "on the training structures R2 is"


@pytest.fixture
def strict():
    """Turn warnings about R2 into errors."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=R2)
        yield


def part():
    soap = SOAPFeaturizer(r_cut=3.0, cutoff_width=1.0, n_max=3, l_max=2)
    return make_pipeline(soap, CURSparsifier(n_points=8))


@pytest.fixture(scope="module")
def water():
    X, y = load_water()
    few = [i for i, atoms in enumerate(X) if len(atoms) < 11][:24]
    return strip([X[i] for i in few]), y[few]


# ---- R2 of the training labels ------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_charge_equilibration_of_water_is_worse_than_the_mean(water, n_jobs):
    X, y = water
    model = make_pipeline(*part(), KQEqRegressor(max_iter=8, tol=1e-2, n_jobs=n_jobs))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="gauss_newton stopped")
        with pytest.warns(UserWarning, match=R2) as record:
            model.fit(X, y[["energy", "forces", "dipole"]])
    [message] = [str(w.message) for w in record if R2 in str(w.message)]
    assert "for forces" in message and "--gap" in message and "for dipole" not in message
    r2 = target_r2(y["forces"], predict_forces(model, X))
    assert f"{r2:.2f} for forces" in message


def test_local_energies_are_better(water, strict):
    X, y = water
    model = make_pipeline(
        StructureBlocks([("chi", part()), ("gap", part())]),
        GAPKQEqRegressor(
            amplitude_gap=10.0, tol=1e-2, response=QEq(hardness=2.7, radius_scale=0.7)
        ),
    )
    model.fit(X, y[["energy", "forces", "dipole"]])


@pytest.mark.parametrize("names", [["dipole"], ["dipole", "charges"], ["charges"]])
def test_good_fits_pass(strict, names):
    X, y = load_molecules()
    model = make_pipeline(*part(), KQEqRegressor(sigma_dipole=0.02, sigma_charges=0.05))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_points=")
        model.fit(X[:60], y[names][:60])


@pytest.mark.parametrize("factor", [40.0, -30.0])
@pytest.mark.parametrize("options", [{}, {"n_jobs": 2}, {"store_triangles": True}])
def test_contradictory_linear_labels(factor, options):
    """If dipoles are 40 times those of the charges, the model describes the charges badly."""
    X = [helpers.rattled(name, seed) for seed in range(4) for name in ("H2O", "CH3OH", "CH4")]
    charges = [helpers.invented_charges(atoms) for atoms in X]
    dipoles = [factor * helpers.dipole(a, q) for a, q in zip(X, charges)]
    y = make_targets(dipole=dipoles, charges=charges)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the dipole labels are")
        with pytest.warns(UserWarning, match=f"{R2} -.* for charges.*sigma_charges"):
            QEqRegressor(**options).fit(X, y)


def test_residuals_within_the_noise_are_not_bad(strict):
    X = [helpers.rattled("H2O", seed) for seed in range(4)]
    QEqRegressor(sigma_dipole=1.0).fit(X, [[0.0, 0.0, -0.39]] * 4)


def test_the_sample_of_all_rows_is_exact():
    """If the sample contains all rows, its R2 is that of the predictions."""
    X, y = load_molecules()
    X, y = X[:10], y[["dipole"]][:10].copy()
    y["dipole"][3] = np.nan
    y["dipole"][4, 1] = np.nan
    model = QEqRegressor().fit(X, y)
    problem = model.problem(X, y)
    sample = RowSample(problem)
    triangle = Triangle(problem.layout.n_columns, penalty=1.0)
    problem.reduce_charge_rows(triangle, sample)
    v = triangle.solve()
    model.set_weights(v, [])
    of_residuals, of_labels, n = sample.squares(v)["dipole"]
    assert n == 26
    r2 = target_r2(y["dipole"], model.predict_targets(X, ["dipole"])["dipole"])
    assert 1 - of_residuals / of_labels == pytest.approx(r2, rel=1e-9)
    assert_allclose(deviations(problem, "dipole"), (of_labels, n))
    of_triangles = squares_of_triangles(problem, reduce_labels(problem), model.coef_)
    assert_allclose(of_triangles["dipole"], (of_residuals, of_labels, n))


# ---- compositions -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_water_and_methane():
    """The energies of H, C and O are not determined by water and methane."""
    X = [helpers.rattled(name, seed) for seed in range(6) for name in ("H2O", "CH4")]
    energies = [-14.0 * len(atoms) + 0.01 * i for i, atoms in enumerate(X)]
    model = QEqRegressor(sigma_energy=0.1, response=QEq(hardness=8.0), tol=1e-3)
    return model.fit(X, make_targets(energy=energies))


@pytest.mark.parametrize("names", [["CO2"], ["H2O", "CH3OH", "H2"], ["H2", "CH4"]])
def test_energies_of_other_compositions(of_water_and_methane, names):
    X = [molecule(name) for name in names]
    first = next(i for i, name in enumerate(names) if name not in ("H2O", "CH4"))
    message = f"the first is structure {first} .*{X[first].get_chemical_formula()[:1]}"
    with pytest.warns(UserWarning, match=message):
        energies = predict_energy(of_water_and_methane, X)
    with pytest.warns(UserWarning, match=message):
        y = predict_targets(of_water_and_methane, X, ["energy", "charges"])
    assert_allclose(y["energy"], energies)


def test_combinations_of_trained_compositions_pass(of_water_and_methane):
    both = molecule("H2O") + molecule("CH4")
    both.positions[3:] += 5.0
    predict_energy(of_water_and_methane, [molecule("H2O"), both])


def test_forces_and_dynamics_pass(of_water_and_methane):
    predict_forces(of_water_and_methane, [molecule("CO2")])
    atoms = molecule("CO2")
    atoms.calc = KQEqCalculator(of_water_and_methane)
    atoms.get_forces()


def test_all_energies_are_determined_by_enough_compositions():
    names = ("H2O", "CH4", "CO2", "H2")
    X = [helpers.rattled(name, seed) for seed in range(3) for name in names]
    model = QEqRegressor(sigma_energy=0.1, response=QEq(hardness=8.0), tol=1e-3)
    model.fit(X, make_targets(energy=[-14.0 * len(atoms) for atoms in X]))
    predict_energy(model, [molecule("CH3OH")])
    given = QEqRegressor(
        sigma_energy=0.1,
        response=QEq(hardness=8.0),
        tol=1e-3,
        atomic_energies={"H": -14.0, "C": -14.0, "O": -14.0},
    )
    given.fit(X[:1], make_targets(energy=[-42.0]))
    predict_energy(given, [molecule("H2")])
    assert collect(X).numbers.max() == 8


# ---- columns without labels ---------------------------------------------------------------------


@pytest.mark.parametrize("names", [["energy"], ["energy", "forces"]])
def test_energies_without_labels_are_not_predicted(names):
    """Before, `predict` returned the energies of the charges, without bonds, like learned ones."""
    X, y = load_water("pbe0")
    X, y = X[:12], y[:12][["energy", "forces", "dipole"]]
    missing = {"energy": np.full(12, np.nan), "forces": [None] * 12}
    table = make_targets(dipole=y["dipole"], **{name: missing[name] for name in names})
    model = QEqRegressor()
    with pytest.warns(UserWarning, match="all labels of energy.* are missing"):
        model.fit(X, table)
    assert model.targets_ == ["dipole"] == list(model.predict(X).dtype.names)
    with pytest.warns(UserWarning, match="all labels of energy.* are missing"):
        increment = QEqRegressor(store_triangles=True).partial_fit(X, table)
    assert increment.targets_ == ["dipole"]


def test_charges_without_labels_are_predicted():
    """Labels of dipoles determine the charges."""
    X, y = load_molecules()
    X, D = X[:12], y["dipole"][:12]
    model = QEqRegressor().fit(X, make_targets(dipole=D, charges=[None] * 12))
    assert model.targets_ == ["dipole", "charges"]
    assert_allclose(model.predict(X)["charges"][3].sum(), 0.0, atol=1e-9)
