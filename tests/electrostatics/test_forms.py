"""The dense and the operator form of the hardness matrix give the same results."""

from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from skqeq.electrostatics import (
    DenseHardness,
    HardnessOperator,
    _hardness,
    hardness_gradient,
    hardness_matrix,
    in_plane,
    potential_gradient,
)
from skqeq.structures import check_structures

from .test_gradient import KINDS, WIDTHS, charges, geometry

HARDNESS = np.array([1.0, 2.0, 0.5, 3.0])
FORMS = [DenseHardness, HardnessOperator]


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.mark.parametrize("kind", KINDS)
def test_products(form, kind):
    atoms = geometry(kind)
    A = form(atoms, WIDTHS, HARDNESS, accuracy=1e-10)
    expected = hardness_matrix(atoms, WIDTHS, HARDNESS, accuracy=1e-10)
    rows = np.random.default_rng(0).normal(size=(3, 4))
    assert A.shape == (4, 4) and A.accuracy == 1e-10
    assert_allclose(A @ rows[0], expected @ rows[0], rtol=0, atol=1e-8)
    assert_allclose(rows @ A, rows @ expected, rtol=0, atol=1e-8)
    assert_allclose(rows.tolist() @ A, rows @ expected, rtol=0, atol=1e-8)
    assert_allclose(A.diagonal, 14.3996 / (np.sqrt(np.pi) * WIDTHS) + HARDNESS, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives(form, kind):
    atoms, (q, p) = geometry(kind), charges(1.0)
    A = form(atoms, WIDTHS, HARDNESS, accuracy=1e-10)
    expected = hardness_gradient(atoms, q, p, WIDTHS, accuracy=1e-10)
    for found, part in zip(A.gradient(q, p), expected):
        assert_allclose(found, part, rtol=0, atol=1e-7)
    expected = potential_gradient(atoms, q, WIDTHS, accuracy=1e-10)
    for found, part in zip(A.potential_gradient(q), expected):
        assert_array_equal(found, part)


@pytest.mark.parametrize("total", [0.0, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_solver(form, kind, total):
    """At the minimum of the energy, the potential is the same for all atoms."""
    A = form(geometry(kind), WIDTHS, HARDNESS, accuracy=1e-10)
    V = np.random.default_rng(1).normal(size=(4, 2))
    solver = A.solver("it")
    q = solver.minimise(V, total)
    assert_allclose(q.sum(axis=0), total, rtol=0, atol=1e-12)
    for column, v in zip(q.T, V.T):
        assert np.ptp(A @ column - v) < 1e-7
        assert_allclose(solver.minimise(v, total), column, rtol=0, atol=1e-8)
    assert (solver.n_iterations > 0) == (form is HardnessOperator)


@pytest.mark.parametrize("kind", KINDS)
def test_flow_solver(form, kind):
    """The projection is ``p = X (V - A p)``; atom 3 exchanges no charge with the others."""
    A = form(geometry(kind), WIDTHS, HARDNESS, accuracy=1e-10)
    softness = np.array(
        [[0.0, 0.2, 0.1, 0.0], [0.2, 0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.0], [0.0] * 4]
    )
    X = np.diag(softness.sum(axis=0)) - softness
    V = np.random.default_rng(1).normal(size=4)
    p = A.flow_solver(csr_array(X), "it").project(V)
    assert_allclose(p, X @ (V - A @ p), rtol=0, atol=1e-8)
    assert_allclose(p[3], 0.0, atol=1e-14)
    values, vectors = np.linalg.eigh(X)
    F = vectors * np.sqrt(np.maximum(values, 0.0))
    M = hardness_matrix(geometry(kind), WIDTHS, HARDNESS, accuracy=1e-10)
    expected = F @ np.linalg.solve(np.eye(4) + F.T @ M @ F, F.T @ V)
    assert_allclose(p, expected, rtol=0, atol=1e-8)


def test_indefinite_matrix_names_the_structure(form):
    A = form(geometry("crystal"), WIDTHS, -200.0)
    for make in (A.solver, lambda name: A.flow_solver(csr_array(np.eye(4) - 0.25), name)):
        with pytest.raises(ValueError, match="^it: the hardness matrix is not positive definite"):
            make("it")


@pytest.mark.parametrize("kind", ["crystal", "slab"])
def test_set_up_once(form, kind, monkeypatch):
    """The matrix and all derivatives share one Ewald sum, which is set up when first needed."""
    counts = Counter()
    for name in ("EwaldSum", "coulomb_operator"):
        original = getattr(_hardness, name)

        def counted(*args, name=name, original=original):
            counts[name] += 1
            return original(*args)

        monkeypatch.setattr(_hardness, name, counted)
    atoms, (q, p) = geometry(kind), charges(0.0)
    A = form(atoms, WIDTHS, HARDNESS)
    assert not counts["EwaldSum"]
    for _ in range(2):
        A @ q
        A.gradient(q, p)
        A.potential_gradient(q)
        A.solver("it").minimise(q)
    assert counts["EwaldSum"] == 1 and counts["coulomb_operator"] == (form is HardnessOperator)
    monkeypatch.setattr(_hardness, "MAX_DENSE_GRADIENT", (3, 3))
    for _ in range(2):
        A.gradient(q, p)
    assert counts["coulomb_operator"] == 1


def test_screened_matrix():
    atoms, (q, p) = geometry("crystal"), charges(1.0)
    A, screening = DenseHardness(atoms, WIDTHS), np.diag([1.0, 2.0, 3.0, 4.0])
    other = A.screened(screening)
    assert_allclose(other @ q, A @ q - screening @ q, rtol=1e-13)
    assert_array_equal(other.gradient(q, p)[0], A.gradient(q, p)[0])
    assert_array_equal(A.matrix, hardness_matrix(atoms, WIDTHS))


@pytest.mark.parametrize("kind", ["molecule", "crystal", "slab", "slab yz"])
def test_strains_in_the_plane(kind):
    [structure] = check_structures([geometry(kind)])
    virial = np.random.default_rng(0).normal(size=(3, 3, 5))
    found = in_plane(virial, structure)
    if not kind.startswith("slab"):
        assert found is virial
        return
    normal = np.cross(*structure.cell[np.array(structure.pbc)])
    normal /= np.linalg.norm(normal)
    plane = np.eye(3) - np.outer(normal, normal)
    for k in range(5):
        assert_allclose(found[..., k], plane @ virial[..., k] @ plane, rtol=0, atol=1e-14)
