"""Products with the Jacobian of energies, forces and stress, without the Jacobian."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    QEq,
    SOAPFeaturizer,
    StructureFeatures,
    get_memory_budget,
    make_targets,
    set_memory_budget,
)
from skqeq.models._derivative_rows import DerivativeRows
from skqeq.models._geometry_store import GeometryStore
from skqeq.response import NoCharges
from skqeq.sparsify._gradient import SparseGradient

NAMES = ["CH3OH", "H2O", "HCN"]
# There are few atoms of some elements.
pytestmark = pytest.mark.filterwarnings("ignore:n_points=")


def structures(kind):
    if kind in ("molecules", "field"):
        X = [molecule(name) for name in NAMES]
    else:
        X = [bulk("NaCl", "rocksalt", a=5.6, cubic=kind == "slab") for _ in NAMES]
    for seed, atoms in enumerate(X):
        atoms.rattle(0.1, seed=seed)
        if kind == "field":
            atoms.info.update(external_field=[0.1, -0.05, 0.2], charge=seed - 1)
        elif kind != "molecules":
            atoms.set_cell(atoms.cell @ np.diag([1.02, 0.97, 1.01]), scale_atoms=True)
            atoms.info["charge"] = seed % 2 if kind == "charged" else 0
        if kind == "slab":
            atoms.pbc = (True, True, False)
            atoms.center(vacuum=6.0, axis=2)
    return X


def labels(kind, X):
    rng = np.random.default_rng(0)
    energy, forces = rng.normal(size=len(X)), [rng.normal(size=(len(a), 3)) for a in X]
    energy[1], forces[0][0, 1], forces[2] = np.nan, np.nan, None
    if kind in ("molecules", "field"):
        return make_targets(energy=energy, forces=forces)
    stress = rng.normal(size=(len(X), 6))
    if kind == "slab":
        stress[:, 2:5] = np.nan
    return make_targets(energy=energy, forces=forces, stress=stress)


def rows_of(kind, response):
    X = structures(kind)
    half = make_pipeline(SOAPFeaturizer(r_cut=(2.5, 3.5), n_max=2, l_max=2), CURSparsifier(3))
    features = half.fit_transform(X)
    other = make_pipeline(SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2), CURSparsifier(2))
    # The electronegativities have features of their own; reference charges share them.
    blocks = {"chi": features, "gap": other.fit_transform(X)}
    model = GAPKQEqRegressor(response=response)
    problem = model.problem(StructureFeatures.stacked(blocks), labels(kind, X))
    return DerivativeRows(problem, ["energy", "forces", "stress"])


RESPONSES = {
    "qeq": QEq(hardness=5.0, radius_scale=0.7),
    "flow": ChargeFlow(radius_scale=0.7),
    "dipoles": QEq(hardness=5.0, radius_scale=0.7, polarizability=0.6),
    "flow and dipoles": ChargeFlow(radius_scale=0.7, polarizability=0.6),
}


@pytest.mark.parametrize("kind", ["molecules", "field", "crystal", "charged", "slab"])
@pytest.mark.parametrize("response", RESPONSES)
def test_products_are_those_of_the_rows(kind, response):
    rows, rng = rows_of(kind, RESPONSES[response]), np.random.default_rng(1)
    v, direction = rng.normal(size=(2, rows.layout.n_columns))
    Js, residuals = zip(*rows.linearize(v), strict=True)
    J, residual = np.concatenate(Js), np.concatenate(residuals)
    assert_allclose(rows.residual(v), residual, rtol=0, atol=1e-9 * np.abs(residual).max())
    factors = rng.normal(size=len(residual))
    expected = J.T @ factors
    assert_allclose(
        rows.pull_back(v, factors), expected, rtol=0, atol=1e-9 * np.abs(expected).max()
    )
    H, gradient = rows.normal_equations(v)
    assert_allclose(H, J.T @ J, rtol=0, atol=1e-12 * np.abs(H).max())
    assert_allclose(gradient, J.T @ residual, rtol=0, atol=1e-10 * np.abs(gradient).max())
    # Along a direction the residuals are quadratic, and linear in the weights of local energies.
    line = rows.line(v, residual, direction)
    slope = J @ direction
    assert_allclose(line.coefficients[1], slope, rtol=0, atol=1e-9 * np.abs(slope).max())
    far = rows.residual(v + 2.0 * direction)
    assert_allclose(line.residual(2.0), far, rtol=0, atol=1e-9 * np.abs(far).max())
    linear = rows.layout.columns_entering("energy")
    change = np.zeros_like(v)
    change[linear] = direction[linear]
    assert_allclose(rows.linear_product(v, change), J @ change, rtol=0, atol=1e-9)
    of_linear = rows.linear_pull_back(v, factors)[linear]
    assert_allclose(of_linear, expected[linear], rtol=0, atol=1e-9 * np.abs(expected).max())


def test_nothing_is_stored_without_memory():
    stored, v = rows_of("crystal", QEq()), np.random.default_rng(0).normal(size=2)
    v = np.resize(v, stored.layout.n_columns)
    before = get_memory_budget()
    try:
        set_memory_budget(0)
        empty = rows_of("crystal", QEq())
        results = []
        for rows in (stored, empty):
            H, _ = rows.normal_equations(v)
            factors = np.ones(len(rows.residual(v)))
            results.append(
                [H, rows.pull_back(v, factors), *rows.linear_pull_back(v, factors)[None]]
            )
    finally:
        set_memory_budget(before)
    linear = stored.layout.columns_entering("energy")
    for one, other in zip(results[0][:2], results[1][:2], strict=True):
        assert_allclose(one, other, rtol=0, atol=1e-10 * np.abs(one).max())
    assert_allclose(results[0][2][linear], results[1][2][linear], rtol=1e-9)


def test_a_model_without_charges_has_products_too():
    rows = rows_of("molecules", NoCharges())
    v = np.ones(rows.layout.n_columns)
    J = np.concatenate([J for J, _ in rows.linearize(v)])
    factors = np.arange(float(len(J)))
    expected = J.T @ factors
    assert_allclose(
        rows.pull_back(v, factors), expected, rtol=0, atol=1e-9 * np.abs(expected).max()
    )


@pytest.mark.parametrize("response", ["qeq", "flow and dipoles"])
def test_few_weights_determine_the_fields_on_a_plane(response, monkeypatch):
    """The fields are linear in the weights: known values are combined."""
    rows, fresh = (rows_of("crystal", RESPONSES[response]) for _ in range(2))
    rng = np.random.default_rng(2)
    v, a, b = rng.normal(size=(3, rows.layout.n_columns))
    a[rows.layout.columns_entering("energy")] *= 0.1
    list(rows.linearize(v)), list(fresh.linearize(v))
    passes = []
    method = SparseGradient.pair_gradients

    def counted(self, dual):
        passes.append(1)
        return method(self, dual)

    monkeypatch.setattr(SparseGradient, "pair_gradients", counted)
    counts = []
    for w in (v + a, v - 0.7 * a, v + 0.5 * a + 0.1 * b, v - 0.2 * a + 0.3 * b, v + 2 * a):
        found, n_passes = rows.residual(w), len(passes)
        counts.append(n_passes)
        monkeypatch.setattr(fresh, "_store", GeometryStore())
        expected = fresh.residual(w)
        assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
        passes.clear()
    # One pass for each structure and field; local energies need no pass at all.
    n_passes = 3 * len(rows.problem.forward.response.fields)
    assert counts == [n_passes, 0, n_passes, 0, 0]


def test_combinations_that_amplify_rounding_errors_are_not_used():
    store = GeometryStore()
    rng = np.random.default_rng(0)
    w, direction = rng.normal(size=(2, 5))
    assert store.recall(0, w).terms is None
    assert store.recall(0, w).number == 0
    assert store.recall(0, w + direction).terms is None
    assert store.recall(0, w + 3 * direction).terms == pytest.approx({0: -2.0, 1: 3.0})
    assert store.recall(0, w + 100 * direction).terms is None
    # Each field has weights of its own.
    assert store.recall(1, w + direction).terms is None
    # Combinations of combinations of combinations end with a new evaluation.
    depths = [store.recall(1, w + direction / k).depth for k in range(2, 20)]
    assert max(depths) == 10
    assert 0 in depths[2:]
