"""Streaming least squares against dense algebra in extended precision."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skqeq.solvers import Triangle, _triangle
from skqeq.solvers._triangle import CHUNK, PANEL, rotate


def problem(n_rows, n_columns, condition=1e3, seed=0):
    """Rows with a given condition number, and a right-hand side with a small residual."""
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.normal(size=(n_rows, n_columns)))
    right, _ = np.linalg.qr(rng.normal(size=(n_columns, n_columns)))
    J = left * np.geomspace(1, 1 / condition, n_columns) @ right
    return J, J @ rng.normal(size=n_columns) + 1e-3 * rng.normal(size=n_rows)


def reduced(J, r, block=None):
    triangle = Triangle(J.shape[1])
    block = max(1, len(J)) if block is None else block
    for start in range(0, len(J), block):
        triangle.update(J[start : start + block], r[start : start + block])
    return triangle


def extended_solution(J, r):
    """Normal equations in extended precision, by Gaussian elimination with pivoting."""
    J, r = J.astype(np.longdouble), r.astype(np.longdouble)
    matrix = np.concatenate([J.T @ J, (J.T @ r)[:, None]], axis=1)
    n = len(matrix)
    for k in range(n):
        pivot = k + np.argmax(np.abs(matrix[k:, k]))
        matrix[[k, pivot]] = matrix[[pivot, k]]
        for i in range(n):
            if i != k:
                matrix[i] -= matrix[i, k] / matrix[k, k] * matrix[k]
    return (matrix[:, -1] / np.diag(matrix)).astype(float)


@pytest.fixture(params=[0, 10, 2048], autouse=True)
def many(request, monkeypatch):
    """Set the number of buffered rows, so that none, some or all rows of a test are buffered."""
    monkeypatch.setattr(_triangle, "MANY", request.param)


@pytest.mark.parametrize("block", [1, 7, 20, 60, 100])
@pytest.mark.parametrize("n_columns", [1, 5, 40])
def test_blocks_do_not_matter(n_columns, block):
    J, r = problem(60, n_columns)
    triangle = reduced(J, r, block)
    expected, *_ = np.linalg.lstsq(J, r)
    assert triangle.n_rows == 60
    assert triangle.n_columns == n_columns
    assert_allclose(triangle.solve(), expected, rtol=1e-9)
    assert_allclose(np.tril(triangle.R, -1), 0)
    assert_allclose(triangle.R.T @ triangle.R, J.T @ J, atol=1e-13)


def test_more_columns_than_a_lapack_block():
    J, r = problem(500, 300)
    assert_allclose(reduced(J, r, 64).solve(), np.linalg.lstsq(J, r)[0], rtol=1e-8)


def test_loss_and_gradient_are_those_of_the_rows():
    J, r = problem(50, 6)
    triangle = reduced(J, r, 11)
    v = np.random.default_rng(1).normal(size=6)
    misfit = J @ v - r
    assert_allclose(triangle.loss(v), misfit @ misfit / 2, rtol=1e-12)
    assert_allclose(triangle.gradient(v), J.T @ misfit, rtol=1e-10)
    best = np.linalg.lstsq(J, r)[0]
    assert_allclose(triangle.rho2, np.sum((J @ best - r) ** 2), rtol=1e-10)
    assert_allclose(triangle.gradient(triangle.solve()), 0, atol=1e-13)


def test_ill_conditioned_rows():
    """With condition number 1e8, normal equations in double precision lose all digits."""
    J, r = problem(80, 12, condition=1e8)
    expected = extended_solution(J, r)
    solution = reduced(J, r, 10).solve()
    plain = np.linalg.solve(J.T @ J, J.T @ r)
    stable = np.linalg.lstsq(J, r)[0]
    error, of_plain, of_stable = (
        np.linalg.norm(x - expected) / np.linalg.norm(expected) for x in (solution, plain, stable)
    )
    # Rounding errors depend on the machine, and are compared with a backward stable solver.
    assert error < 30 * of_stable
    assert error < 1e-2 * of_plain


def test_penalty_is_ridge():
    J, r = problem(20, 8)
    precision = np.linspace(0.1, 2.0, 8)
    triangle = Triangle(8, precision)
    triangle.update(J, r)
    expected = np.linalg.solve(J.T @ J + np.diag(precision**2), J.T @ r)
    assert_allclose(triangle.solve(), expected, rtol=1e-12)
    v = np.arange(8.0)
    loss = np.sum((J @ v - r) ** 2) / 2 + np.sum((precision * v) ** 2) / 2
    assert_allclose(triangle.loss(v), loss, rtol=1e-12)
    assert triangle.n_rows == 20  # Rows of a prior do not count as labels.


def test_fewer_rows_than_columns_with_prior():
    J, r = problem(30, 12)
    J, r = J[:4], r[:4]
    triangle = Triangle(12, penalty=0.1)
    triangle.update(J, r)
    expected = J.T @ np.linalg.solve(J @ J.T + 0.01 * np.eye(4), r)
    assert_allclose(triangle.solve(), expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("n_rows", [1, 5, 12, 20, 30, 31, 200])
def test_few_rows_are_buffered(n_rows):
    """Results are right for any number of rows, whether or not the rows were reduced before."""
    rng = np.random.default_rng(n_rows)
    J, r, v = rng.normal(size=(n_rows, 50)), rng.normal(size=n_rows), rng.normal(size=50)
    J[:, :20] *= 1e6  # Normal equations would lose half of the digits.
    penalty = rng.uniform(0.5, 2.0, size=50)
    stacked = np.concatenate([J, np.diag(penalty)])
    expected = np.linalg.lstsq(stacked, np.append(r, np.zeros(50)), rcond=None)[0]
    losses = []
    for reduce in (False, True):
        triangle = Triangle(50, penalty)
        for piece in np.array_split(np.arange(n_rows), 3):
            triangle.update(J[piece], r[piece])
        assert triangle.n_rows == n_rows
        if reduce:
            assert triangle.R.shape == (50, 50)
        assert_allclose(triangle.solve(), expected, rtol=0, atol=1e-8 * np.abs(expected).max())
        losses.append(triangle.loss(v))
    assert_allclose(losses, 0.5 * np.sum((stacked @ v - np.append(r, np.zeros(50))) ** 2))
    # An update of the copy does not change the original.
    copy = triangle.copy()
    copy.update(J, r)
    assert triangle.n_rows == n_rows and copy.n_rows == 2 * n_rows


def test_copy_is_independent():
    J, r = problem(30, 5)
    triangle = reduced(J[:20], r[:20])
    before = triangle.solve()
    copy = triangle.copy()
    copy.update(J[20:], r[20:])
    assert_array_equal(triangle.solve(), before)
    assert (triangle.n_rows, copy.n_rows) == (20, 30)


def test_rows_are_left_alone():
    J, r = problem(10, 4)
    J.flags.writeable = r.flags.writeable = False
    before = J.copy(), r.copy()
    reduced(np.asfortranarray(J), r)
    reduced(J, r)
    assert_array_equal(J, before[0])
    assert_array_equal(r, before[1])


def test_empty_update():
    triangle = Triangle(3, penalty=1.0)
    triangle.update(np.empty((0, 3)), np.empty(0))
    assert triangle.n_rows == 0
    assert_array_equal(triangle.solve(), 0)


@pytest.mark.parametrize("kind", ["no rows", "few rows", "equal columns", "zero column"])
def test_singular_problem_gives_advice(kind):
    J, r = problem(20, 4)
    J = {
        "no rows": J[:0],
        "few rows": J[:3],
        "equal columns": J[:, [0, 1, 2, 2]],
        "zero column": J * [1, 1, 0, 1],
    }[kind]
    with pytest.raises(ValueError, match="singular.*raise sigma, or lower n_points"):
        reduced(J, r[: len(J)]).solve()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_undefined_numbers_are_reported(value):
    J, r = problem(20, 4)
    r[3] = value
    with pytest.raises(ValueError, match="infinite or undefined"):
        reduced(J, r).solve()


def test_rows_are_counted_through_merges():
    one, other = Triangle(3), Triangle(3)
    one.update(np.eye(3), np.ones(3))
    other.update(np.ones((5, 3)), np.ones(5))
    one.merge(other.augmented.copy(), other.n_rows)
    assert (one.n_rows, other.n_rows, one.copy().n_rows) == (8, 5, 8)


@pytest.mark.parametrize("m", [1, 5, 300])
@pytest.mark.parametrize("n", [1, 15, PANEL, PANEL + 1, 2 * PANEL + CHUNK + 7])
def test_rotations(n, m):
    rng = np.random.default_rng(n + m)
    R = np.asfortranarray(np.triu(rng.normal(size=(n, n))) + 3 * np.eye(n))
    rows = np.asfortranarray(rng.normal(size=(m, n)))
    if n in (15, PANEL):
        rows[:, 0] = 0.0  # A column of zeros needs no reflector.
    expected = R.T @ R + rows.T @ rows
    rotate(R, rows)
    assert_allclose(np.tril(R, -1), 0.0)
    assert_allclose(R.T @ R, expected, atol=1e-12 * np.abs(expected).max())
