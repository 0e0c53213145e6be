"""Conjugate gradients against factorisation."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from numpy.testing import assert_allclose

from skqeq import QEq, QEqRegressor, check_structures, make_targets, predict_charges
from skqeq.electrostatics import (
    DenseHardness,
    HardnessOperator,
    _solvers,
    hardness_matrix,
    make_hardness,
)
from skqeq.electrostatics._choice import is_iterative
from skqeq.parameters import qeq_electronegativities
from skqeq.response import QEqEquilibrium, equilibrate

ROOT = Path(__file__).parents[2]


def salt(pbc=True, n=3, **info):
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * n
    atoms.rattle(0.1, seed=0)
    atoms.pbc = pbc
    atoms.info |= info
    return atoms


def electronegativities(atoms):
    noise = np.random.default_rng(0).normal(scale=0.5, size=len(atoms))
    return qeq_electronegativities()[atoms.numbers] + noise


CASES = {
    "crystal": salt(),
    "charged crystal": salt(charge=2.0),
    "slab": salt((True, True, False)),
    "charged slab in a field": salt((1, 0, 1), charge=-1.0, external_field=[0, 0.2, 0]),
    "cluster": salt(False),
    "charged cluster in a field": salt(False, charge=1.0, external_field=[0.1, 0.2, -0.1]),
    "molecule": molecule("CH3OH"),
    "cluster in an empty box": Atoms(salt(n=2), cell=[45.0] * 3, pbc=True),
    "strip": salt((True, True, False), n=(16, 1, 1)),
    "ions": salt((True, True, False), charge=20.0),
    "one atom": Atoms("Na", cell=[4.0] * 3, pbc=True, info={"charge": 1.0}),
}


@pytest.mark.parametrize("name", CASES)
def test_charges(name):
    atoms = CASES[name]
    chi = electronegativities(atoms)
    q = equilibrate(atoms, chi, solver="iterative")
    assert_allclose(q, equilibrate(atoms, chi, solver="dense"), rtol=0, atol=1e-8)
    assert_allclose(q.sum(), atoms.info.get("charge", 0.0), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["crystal", "charged slab in a field", "cluster"])
def test_rows(name):
    atoms = CASES[name]
    T = np.random.default_rng(1).normal(size=(4, len(atoms)))
    rows = [
        QEqEquilibrium(form(atoms)).rows(T)["chi"] for form in (DenseHardness, HardnessOperator)
    ]
    assert_allclose(rows[1], rows[0], rtol=0, atol=1e-8)


def systems():
    spec = importlib.util.spec_from_file_location("systems", ROOT / "benchmarks" / "systems.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["water", "zno", "nacl", "droplet"])
def test_three_thousand_atoms(name):
    atoms = systems().SYSTEMS[name](3000)
    chi = electronegativities(atoms)
    q = equilibrate(atoms, chi, solver="iterative")
    assert_allclose(q, equilibrate(atoms, chi, solver="dense"), rtol=0, atol=1e-7)


@pytest.mark.parametrize("accuracy", [1e-4, 1e-6, 1e-10])
def test_tolerance_follows_the_accuracy(accuracy):
    atoms = salt()
    chi = electronegativities(atoms)
    exact = equilibrate(atoms, chi, accuracy=1e-12, solver="dense")
    error = equilibrate(atoms, chi, accuracy=accuracy, solver="iterative") - exact
    assert 0 < np.abs(error).max() < 10 * accuracy


def test_wide_and_hard_charges():
    """Both solvers agree for wide charges, which are worse conditioned, and for hard ones."""
    atoms = salt()
    chi = electronegativities(atoms)
    for scale, hardness in ((0.7, 0.0), (0.7, 5.0), (0.05, 0.0)):
        widths = scale * np.where(atoms.symbols == "Na", 2.1, 1.0)
        q = [equilibrate(atoms, chi, widths, hardness, solver=s) for s in ("dense", "iterative")]
        assert_allclose(q[1], q[0], rtol=0, atol=1e-7 * np.abs(q[0]).max())


@pytest.mark.parametrize("pbc", [True, (True, True, False), False])
def test_mixed_widths_and_hardness(pbc):
    """Both solvers agree if widths and hardness of neighbours differ by orders of magnitude.

    The true residual is as small as the tolerance requires.
    """
    atoms, rng = salt(pbc), np.random.default_rng(2)
    chi = electronegativities(atoms)
    widths = np.exp(rng.uniform(np.log(0.05), np.log(0.8), size=len(atoms)))
    hardness = rng.choice([0.0, 3.0, 60.0], size=len(atoms))
    q = [equilibrate(atoms, chi, widths, hardness, solver=s) for s in ("dense", "iterative")]
    assert_allclose(q[1], q[0], rtol=0, atol=1e-7)
    potential = chi + hardness_matrix(atoms, widths, hardness) @ q[1]
    assert np.ptp(potential) < 1e-6


def test_warm_start_saves_iterations():
    atoms = salt((True, True, False), n=4)
    chi = electronegativities(atoms)
    equilibrium = QEqEquilibrium(HardnessOperator(atoms))
    cold = equilibrium.charges(chi=chi)
    n_cold = equilibrium.n_iterations
    warm = equilibrium.charges(chi=chi + 1e-4 * np.cos(np.arange(len(chi))), start=cold)
    assert 0 < equilibrium.n_iterations < n_cold - 2
    assert_allclose(warm, cold, rtol=0, atol=1e-4)
    # The start may have another sum, and is not modified.
    start = cold + 1.0
    assert_allclose(equilibrium.charges(chi=chi, start=start), cold, rtol=0, atol=1e-8)
    assert_allclose(start - cold, 1.0)
    assert_allclose(equilibrium.charges(chi=chi, start=cold), cold, rtol=0, atol=1e-12)
    assert equilibrium.n_iterations == 0


def test_nothing_to_do():
    atoms = salt()
    equilibrium = QEqEquilibrium(HardnessOperator(atoms))
    assert not equilibrium.charges(chi=np.full(len(atoms), 3.0)).any()
    assert equilibrium.n_iterations == 0


def test_failure_to_converge_gives_advice(monkeypatch):
    monkeypatch.setattr(_solvers, "MAX_ITERATIONS", 3)
    atoms = salt()
    with pytest.raises(
        RuntimeError, match=r"^Cl108Na108: charges did not converge in 3 .* solver="
    ):
        equilibrate(atoms, electronegativities(atoms), solver="iterative")
    model = QEqRegressor(response=QEq(solver="iterative"))
    with pytest.raises(RuntimeError, match=r"^structure 0 \(Cl108Na108\): charges did not"):
        model.fit([atoms], make_targets(charges=[np.zeros(len(atoms))]))


def test_indefinite_operator_gives_advice():
    atoms = salt(n=1)
    with pytest.raises(ValueError, match="Cl4Na4: the hardness matrix is not positive definite"):
        equilibrate(atoms, electronegativities(atoms), hardness=-60.0, solver="iterative")


def test_choice_of_the_solver():

    def iterative(n, n_solutions, pbc):
        positions = 3.0 * np.stack(np.unravel_index(np.arange(n), (40, 40, 40)), axis=1)
        [structure] = check_structures([Atoms(f"Na{n}", positions, cell=[120] * 3, pbc=pbc)])
        return is_iterative(structure, n_solutions)

    for pbc in (True, False):
        one = [iterative(n, 1, pbc) for n in (10, 300, 1000, 3000, 10_000, 30_000)]
        assert not one[0] and one[-1] and sorted(one) == one
        # For many right-hand sides a factorisation is faster, as long as it fits into memory.
        assert not iterative(10_000, 10_000, pbc) and iterative(30_000, 30_000, pbc)
    with pytest.raises(ValueError, match="solver must be one of auto, dense, iterative, got 'lu'"):
        make_hardness(check_structures([salt()])[0], None, 0.0, 1e-8, "lu")


@pytest.mark.parametrize("name, value", [("chi", [1.0]), ("chi", [np.nan] * 8), ("start", [0.0])])
def test_bad_vectors(name, value):
    atoms = salt(n=1)
    arguments = {"chi": electronegativities(atoms), name: value}
    with pytest.raises(ValueError, match=f"{name} must be 8 finite numbers"):
        equilibrate(atoms, **arguments)


class TestModels:
    """The solver as a parameter of the response of an estimator."""

    def labelled(self):
        X = [salt(), salt((True, True, False), 2), salt(False, 1)]
        charges = [0.8 * equilibrate(atoms, electronegativities(atoms)) for atoms in X]
        return X, make_targets(charges=charges, dipole=[None, [np.nan, np.nan, 0.3], [0.1, 0, 0]])

    def test_same_model(self):
        X, y = self.labelled()
        responses = [QEq(solver=solver) for solver in ("dense", "iterative")]
        models = [QEqRegressor(response=response).fit(X, y) for response in responses]
        assert_allclose(models[1].coef_, models[0].coef_, rtol=1e-6)
        for one, other in zip(*(predict_charges(model, X) for model in models)):
            assert_allclose(other, one, rtol=0, atol=1e-7)

    def test_accuracy(self):
        X, y = self.labelled()
        exact = QEqRegressor(response=QEq(accuracy=1e-11)).fit(X, y)
        rough = QEqRegressor(response=QEq(accuracy=1e-3)).fit(X, y)
        pairs = zip(exact.predict_charges(X), rough.predict_charges(X))
        assert 1e-9 < max(np.abs(one - other).max() for one, other in pairs) < 1e-3

    def test_start(self):
        X, y = self.labelled()
        model = QEqRegressor(response=QEq(solver="iterative")).fit(X, y)
        charges = predict_charges(model, X)
        for one, other in zip(predict_charges(model, X, start=charges), charges):
            assert_allclose(one, other, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("parameter, value", [("solver", "lu"), ("accuracy", 1.0)])
    def test_bad_parameters(self, parameter, value):
        X, y = self.labelled()
        with pytest.raises(ValueError, match=f"The '{parameter}' parameter of QEq must be"):
            QEqRegressor(response=QEq(**{parameter: value})).fit(X, y)

    def test_bad_start(self):
        X, y = self.labelled()
        model = QEqRegressor().fit(X, y)
        with pytest.raises(ValueError, match="start holds 1 array, but X holds 3 structures"):
            model.predict_charges(X, start=[np.zeros(216)])
        with pytest.raises(ValueError, match=r"start\[1\] must be 64 finite charges"):
            model.predict_charges(X, start=[np.zeros(216)] * 3)
