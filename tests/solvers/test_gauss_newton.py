"""Newton's method against plain Gauss-Newton and a general minimiser."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from skqeq.solvers import LossTerm, NonlinearRows, Triangle, gauss_newton
from skqeq.targets import TARGETS


@pytest.fixture(params=[0, 1, 2])
def problem(request):
    """Norms of vectors that are linear in v, with noise and a prior.

    Therefore the minimal loss is not zero.
    """
    rng = np.random.default_rng(request.param)
    n, n_columns = 12, 7
    J, m_0 = rng.normal(size=(n, 3, n_columns)), rng.normal(size=(n, 3))
    true = m_0 + J @ rng.normal(size=n_columns)
    y = np.linalg.norm(true, axis=1) + 0.2 * rng.normal(size=n)
    return J, m_0, np.abs(y), rng.uniform(0.05, 0.2, n), rng.normal(size=n_columns)


def rows_of(J, m_0, y, sigma):
    rows = NonlinearRows(TARGETS["dipole_magnitude"])
    for arguments in zip(m_0, y[:, None], sigma, m_0):
        rows.add(*arguments)
    rows.jacobians += [J[:5].reshape(-1, J.shape[-1]), J[5:].reshape(-1, J.shape[-1])]
    return rows.gathered()


def prior(n_columns):
    return Triangle(n_columns, penalty=1.0)


def loss(v, J, m_0, y, sigma):
    m = J @ v + m_0
    norms = np.linalg.norm(m, axis=1)
    misfit = (norms - y) / sigma
    jacobian = np.einsum("na,nav->nv", m / norms[:, None], J) / sigma[:, None]
    return v @ v / 2 + misfit @ misfit / 2, v + jacobian.T @ misfit, jacobian, misfit


def test_agrees_with_plain_gauss_newton(problem):
    *data, start = problem
    v = start
    for _ in range(3000):
        value, gradient, jacobian, _ = loss(v, *data)
        direction = -np.linalg.solve(jacobian.T @ jacobian + np.eye(len(v)), gradient)
        step = 1.0
        while loss(v + step * direction, *data)[0] > value and step > 1e-12:
            step /= 2
        v = v + step * direction
        if np.linalg.norm(gradient) < 1e-9:
            break
    found, history, converged = gauss_newton(
        prior(len(v)), [rows_of(*data)], start, max_iter=100, tol=1e-16
    )
    assert converged
    # From the reference's minimum the solver stays there, whichever minimum it found before.
    again, _, _ = gauss_newton(prior(len(v)), [rows_of(*data)], v, max_iter=100, tol=1e-16)
    assert_allclose(again, v, atol=1e-6)
    assert np.linalg.norm(loss(found, *data)[1]) < 1e-5
    assert_allclose(history[0]["loss"], loss(start, *data)[0], rtol=1e-9)
    assert_allclose(history[-1]["loss"], loss(found, *data)[0], rtol=1e-9)
    losses = np.array([h["loss"] for h in history])
    # At the minimum, steps change the loss by rounding errors.
    assert (np.diff(losses) <= 1e-12 * losses[:-1]).all()


def test_newton_converges_faster_than_linearly(problem):
    *data, start = problem
    _, history, _ = gauss_newton(prior(7), [rows_of(*data)], start, max_iter=100, tol=1e-12)
    assert len(history) < 25


def test_linear_rows_in_the_same_loss(problem):
    *data, start = problem
    rng = np.random.default_rng(9)
    L, target = rng.normal(size=(4, 7)), rng.normal(size=4)
    triangle = prior(7)
    triangle.update(3.0 * L, 3.0 * target)

    def total(v):
        value, gradient, *_ = loss(v, *data)
        misfit = 3.0 * (L @ v - target)
        return value + misfit @ misfit / 2, gradient + 3.0 * L.T @ misfit

    found, _, converged = gauss_newton(triangle, [rows_of(*data)], start, 100, 1e-16)
    assert converged
    local = minimize(total, found, jac=True, method="BFGS", options={"gtol": 1e-8})
    assert total(found)[0] <= local.fun * (1 + 1e-10)


def test_stops_after_max_iter_and_reports_it(problem):
    *data, start = problem
    seen = []
    _, history, converged = gauss_newton(
        prior(7), [rows_of(*data)], start, 1, 1e-12, lambda v, entry: seen.append(entry)
    )
    assert not converged
    assert len(history) == 2
    assert seen == history


def test_derivatives_of_the_norm():
    target = TARGETS["dipole_magnitude"]
    rng = np.random.default_rng(0)
    m, direction = rng.normal(size=(2, 5, 3))
    h = 1e-5
    derivative = (target.value(m + h * direction) - target.value(m - h * direction)) / (2 * h)
    assert_allclose((target.derivative(m) @ direction[:, :, None])[..., 0], derivative, rtol=1e-8)
    bend = target.derivative(m + h * direction) - target.derivative(m - h * direction)
    assert_allclose(
        target.curvature_product(m, direction), bend[:, 0] / (2 * h), rtol=1e-7, atol=1e-9
    )
    # The derivatives are finite where the dipole vanishes.
    assert np.isfinite(target.derivative(np.zeros((1, 3)))).all()
    assert target.value(np.zeros((1, 3))).item() < 1e-5


def test_history_is_that_of_the_loss(problem):
    """Every entry holds the loss, and the decrease that a step without curvature would bring."""
    *data, start = problem
    term = WithoutCurvature(rows_of(*data))
    _, (first, *_), _ = gauss_newton(prior(len(start)), [term], start, 0, 1e-10)
    value, gradient, jacobian, _ = loss(start, *data)
    step = np.linalg.solve(jacobian.T @ jacobian + np.eye(len(start)), gradient)
    assert_allclose(first["loss"], value, rtol=1e-12)
    assert_allclose(first["decrease"], 0.5 * gradient @ step, rtol=1e-10)
    assert first["step"] == 0.0


class WithoutCurvature(LossTerm):
    """A loss term without the method that returns its curvature."""

    def __init__(self, rows):
        self.rows = rows

    def residual(self, v):
        return self.rows.residual(v)

    def linearize(self, v, response=True):
        return self.rows.linearize(v, response)

    def toward_start(self):
        return self.rows.toward_start()

    def line(self, v, residual, direction):
        return self.rows.line(v, residual, direction)

    def linear_product(self, v, change):
        return self.rows.linear_product(v, change)

    def linear_pull_back(self, v, factors):
        return self.rows.linear_pull_back(v, factors)


def test_terms_without_curvature_say_so(problem):
    *data, start = problem
    with pytest.raises(TypeError, match="WithoutCurvature does not define curvature_product"):
        WithoutCurvature(rows_of(*data)).curvature_product(start, start)


class Bilinear(LossTerm):
    """Residuals that are quadratic in the weights w, and linear in u; v holds w and then u."""

    def __init__(self, seed, n_w=4, n_u=3, n=40):
        rng = np.random.default_rng(seed)
        self.n_w, self.Q = n_w, 0.3 * rng.normal(size=(n, n_w, n_w))
        self.Q += self.Q.transpose(0, 2, 1)
        self.A, self.y = rng.normal(size=(n, n_w + n_u)), rng.normal(size=n)

    def residual(self, v):
        w = v[: self.n_w]
        return self.A @ v + np.einsum("nab,a,b->n", self.Q, w, w) - self.y

    def linearize(self, v, response=True):
        J = self.A.copy()
        J[:, : self.n_w] += 2 * self.Q @ v[: self.n_w]
        yield J, self.residual(v)

    def toward_start(self):
        return iter(())


@pytest.mark.parametrize("seed", range(4))
def test_weights_in_which_residuals_are_linear(seed):
    """The minimum is the same, whether these weights are eliminated or not."""
    term, start = Bilinear(seed), np.random.default_rng(seed).normal(size=7)
    found = [
        gauss_newton(prior(7), [term], start, 50, 1e-20, linear=linear)
        for linear in (None, np.array([4, 5, 6]))
    ]
    for v, history, converged in found:
        assert converged
        [(J, residual)] = term.linearize(v)
        assert np.abs(v + J.T @ residual).max() < 1e-8
        losses = [entry["loss"] for entry in history]
        assert (np.diff(losses) <= 1e-12 * losses[0]).all()
    general = minimize(lambda v: v @ v / 2 + term.loss(v), found[1][0], method="BFGS")
    assert found[1][1][-1]["loss"] <= general.fun * (1 + 1e-9)


def test_quadratic_residuals_along_a_direction():
    term = Bilinear(0)
    v, direction = np.random.default_rng(1).normal(size=(2, 7))
    line = term.line(v, term.residual(v), direction)
    for s in (-0.7, 0.3, 2.5):
        assert_allclose(line.residual(s), term.residual(v + s * direction), rtol=0, atol=1e-12)
        assert line.loss(s) == pytest.approx(term.loss(v + s * direction))


def test_default_products_use_the_rows():
    term = Bilinear(0)
    v, factors = np.random.default_rng(1).normal(size=7), np.arange(40.0)
    [(J, residual)] = term.linearize(v)
    assert_allclose(term.pull_back(v, factors), J.T @ factors)
    H, gradient = term.normal_equations(v)
    assert_allclose(H, J.T @ J)
    assert_allclose(gradient, J.T @ residual)
    change = np.append(np.zeros(4), [1.0, -2.0, 0.5])
    assert_allclose(term.linear_product(v, change), J @ change, rtol=0, atol=1e-12)
