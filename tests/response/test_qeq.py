"""Charge response of one structure."""

import numpy as np
import pytest
from ase import Atoms
from numpy.testing import assert_allclose

from skqeq.electrostatics import DenseHardness
from skqeq.response import QEqEquilibrium, equilibrate

from .. import helpers


@pytest.fixture
def case():
    atoms = helpers.rattled("CH3OH", 0, charge=1, field=[0.3, 0.1, -0.2])
    widths = helpers.gaussian_widths(atoms)
    A = helpers.hardness_matrix(atoms, widths, 0.7)
    return atoms, A, QEqEquilibrium(DenseHardness(atoms, widths, 0.7))


def test_charges(case):
    atoms, _, equilibrium = case
    chi = np.random.default_rng(0).normal(size=len(atoms))
    expected = helpers.equilibrate(atoms, chi, hardness=0.7)
    assert_allclose(equilibrium.charges(chi=chi), expected, atol=1e-13)
    assert_allclose(equilibrium.charges(chi=chi + 1e3), expected, atol=1e-11)
    zero = np.zeros(len(atoms))
    expected = helpers.equilibrate(atoms, zero, hardness=0.7)
    assert_allclose(equilibrium.charges(chi=zero), expected, atol=1e-13)
    assert_allclose(equilibrium.charges(), expected, atol=1e-13)


def test_projector(case):
    atoms, A, equilibrium = case
    n = len(atoms)
    expected, _ = helpers.linear_response(A)
    P = equilibrium.project(np.eye(n))
    assert_allclose(P, expected, atol=1e-15)
    assert_allclose(P, P.T, atol=1e-15)
    assert_allclose(P @ A @ P, P, atol=1e-14)
    assert_allclose(P.sum(axis=0), 0, atol=1e-16)
    assert np.linalg.eigvalsh(P)[0] > -1e-15
    V = np.random.default_rng(1).normal(size=(n, 4))
    assert_allclose(equilibrium.project(V), expected @ V, atol=1e-14)
    assert_allclose(equilibrium.project(V[:, 0]), expected @ V[:, 0], atol=1e-14)


def test_rows(case):
    """Rows are derivatives of an observable, and agree with differences of charges."""
    atoms, _, equilibrium = case
    T = np.random.default_rng(2).normal(size=(5, len(atoms)))
    chi = np.random.default_rng(3).normal(size=len(atoms))
    q = equilibrium.charges(chi=chi)
    steps = np.eye(len(atoms))
    differences = [T @ (equilibrium.charges(chi=chi + step) - q) for step in steps]
    assert_allclose(equilibrium.rows(T)["chi"], np.stack(differences, axis=1), atol=1e-13)


def test_indefinite_matrix_gives_advice(case):
    atoms, _, _ = case
    equilibrium = QEqEquilibrium(DenseHardness(atoms, helpers.gaussian_widths(atoms), -100.0))
    with pytest.raises(
        ValueError, match="CH4O: the hardness matrix is not positive definite; raise hardness"
    ):
        equilibrium.charges(chi=np.zeros(len(atoms)))


def test_slab_of_wide_charges_in_a_small_cell():
    """The mean of the diagonal of A can be negative, but A is positive for charges of sum zero."""
    atoms = Atoms(
        "CHO", [[0, 0, 0], [1.1, 0, 0.2], [0.1, 1.2, 0.4]], cell=[3, 3, 20], pbc=(1, 1, 0)
    )
    chi = np.array([5.3, 4.5, 8.7])
    widths = 1.2 * np.array([0.76, 0.37, 0.67])
    dense, iterative = (
        equilibrate(atoms, chi, widths, 3.0, solver=solver) for solver in ("dense", "iterative")
    )
    assert_allclose(dense, iterative, rtol=0, atol=1e-8)
