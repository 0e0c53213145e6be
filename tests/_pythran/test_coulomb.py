"""`gaussian_coulomb`: compiled loop and NumPy twin against the formula and its limits."""

from importlib import import_module

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import erf


@pytest.fixture(params=["_coulomb", "_coulomb_numpy"])
def kernels(request):
    module = import_module(f"skqeq._pythran.{request.param}")
    if request.param == "_coulomb" and not hasattr(module, "__pythran__"):
        pytest.skip("kernels are not compiled")
    return module


@pytest.fixture
def gaussian_coulomb(kernels):
    return kernels.gaussian_coulomb


@pytest.fixture
def charges():
    rng = np.random.default_rng(0)
    return 3 * rng.normal(size=(40, 3)), rng.uniform(0.1, 1.5, 40)


def pair(kernel, r, wa, wb):
    """Interaction of two charges whose distance r has no rounding error."""
    ra, rb = np.zeros((1, 3)), np.array([[0.0, 0.0, r]])
    return kernel(ra, np.array([wa]), rb, np.array([wb])).item()


def test_formula(gaussian_coulomb, charges):
    positions, widths = charges
    values = gaussian_coulomb(positions, widths, positions[:7] + 0.1, widths[:7])
    r = np.linalg.norm(positions[:, None] - (positions[:7] + 0.1), axis=2)
    g = np.sqrt(widths[:, None] ** 2 + widths[:7] ** 2)
    assert values.shape == (40, 7)
    assert_allclose(values, erf(r / (np.sqrt(2) * g)) / r, rtol=1e-14)


def test_matrix_of_a_molecule(gaussian_coulomb, charges):
    positions, widths = charges
    matrix = gaussian_coulomb(positions, widths, positions, widths)
    assert_allclose(matrix, matrix.T, rtol=1e-14)
    assert_allclose(np.diag(matrix), 1 / (np.sqrt(np.pi) * widths), rtol=1e-14)
    assert np.linalg.eigvalsh(matrix)[0] > 0


@pytest.mark.parametrize("r", [1e-300, 1e-160, 1e-12, 1e-8, 2e-8, 1e-6, 1e-4, 1e-3])
def test_close_charges(gaussian_coulomb, r):
    wa, wb = 0.6, 0.8  # g = 1
    series = np.sqrt(2 / np.pi) * (1 - r**2 / 6 + r**4 / 40)
    assert_allclose(pair(gaussian_coulomb, r, wa, wb), series, rtol=1e-14)


def test_point_charges(gaussian_coulomb):
    assert_allclose(pair(gaussian_coulomb, 2.0, 0.0, 0.0), 0.5, rtol=1e-15)
    assert pair(gaussian_coulomb, 0.0, 0.0, 0.0) == np.inf
    assert_allclose(pair(gaussian_coulomb, 0.0, 0.5, 0.0), np.sqrt(8 / np.pi), rtol=1e-15)
    # At distances of many widths, Gaussians interact as point charges.
    assert_allclose(pair(gaussian_coulomb, 20.0, 0.6, 0.8), 0.05, rtol=1e-15)


def test_gradient(kernels, charges):
    """The derivative of each row agrees with central differences of sixth order."""
    positions, widths = charges
    found = kernels.gaussian_coulomb_gradient(positions, widths)
    steps, weights = np.array([-3, -2, -1, 1, 2, 3]), np.array([-1, 9, -45, 45, -9, 1]) / 60e-3
    for i, v in np.ndindex(5, 3):
        moved = np.tile(positions[i], (6, 1))
        moved[:, v] += 1e-3 * steps
        row = weights @ kernels.gaussian_coulomb(moved, np.full(6, widths[i]), positions, widths)
        # The kernel leaves out the derivative of an atom's interaction with itself.
        row[i] = 0.0
        assert_allclose(found[i, v], row, rtol=1e-9, atol=1e-10)
    assert_array_equal(found, -found.transpose(2, 1, 0))


def test_gradient_of_one_and_none(kernels):
    assert_array_equal(kernels.gaussian_coulomb_gradient(np.ones((1, 3)), np.ones(1)), 0.0)
    assert kernels.gaussian_coulomb_gradient(np.empty((0, 3)), np.empty(0)).shape == (0, 3, 0)


def test_compiled_and_twin_agree(charges):
    compiled = import_module("skqeq._pythran._coulomb")
    if not hasattr(compiled, "__pythran__"):
        pytest.skip("kernels are not compiled")
    twin = import_module("skqeq._pythran._coulomb_numpy")
    positions, widths = charges
    widths[::3] = 0.0
    # The distance is close to the one at which the code switches to the limit for r = 0.
    positions[1::3] = positions[::3][:13] + 1e-9
    arguments = positions, widths, positions, widths
    assert_allclose(compiled.gaussian_coulomb(*arguments), twin.gaussian_coulomb(*arguments), 1e-14)


def test_empty_and_untouched(gaussian_coulomb, charges):
    positions, widths = charges
    before = positions.copy(), widths.copy()
    assert gaussian_coulomb(positions, widths, np.empty((0, 3)), np.empty(0)).shape == (40, 0)
    # Arrays in the memory maps of loky are read-only.
    positions.flags.writeable = widths.flags.writeable = False
    gaussian_coulomb(positions, widths, positions, widths)
    assert_array_equal(positions, before[0])
    assert_array_equal(widths, before[1])


def test_large_distances_do_not_underflow(kernels):
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 500.0], [0.0, 3.0, 0.0]])
    with np.errstate(all="raise"):
        gradient = kernels.gaussian_coulomb_gradient(positions, np.full(3, 0.3))
    assert np.isfinite(gradient).all()
