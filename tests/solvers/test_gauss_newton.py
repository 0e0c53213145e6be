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
        prior(len(v)), [rows_of(*data)], start, max_iter=100, tol=1e-10
    )
    assert converged
    # From the reference's minimum the solver stays there, whichever minimum it found before.
    again, _, _ = gauss_newton(prior(len(v)), [rows_of(*data)], v, max_iter=100, tol=1e-10)
    assert_allclose(again, v, atol=1e-6)
    assert np.linalg.norm(loss(found, *data)[1]) < 1e-5
    assert_allclose(history[0]["loss"], loss(start, *data)[0], rtol=1e-9)
    assert_allclose(history[-1]["loss"], loss(found, *data)[0], rtol=1e-9)
    losses = [h["loss"] for h in history]
    assert losses == sorted(losses, reverse=True)


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

    found, _, converged = gauss_newton(triangle, [rows_of(*data)], start, 100, 1e-8)
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
    """The gradient is a sum of terms; its norm is divided by the sum of the norms of the terms."""
    *data, start = problem
    _, (first, *_), _ = gauss_newton(prior(len(start)), [rows_of(*data)], start, 0, 1e-10)
    value, gradient, jacobian, misfit = loss(start, *data)
    terms = np.linalg.norm(start) + np.linalg.norm(jacobian, axis=1) @ np.abs(misfit)
    assert_allclose(first["loss"], value, rtol=1e-12)
    assert_allclose(first["gradient"], np.linalg.norm(gradient) / terms, rtol=1e-10)
    assert first["step"] == 0.0


class WithoutCurvature(LossTerm):
    """A loss term without the method that returns its curvature."""

    def __init__(self, rows):
        self.rows = rows

    def loss(self, v):
        return self.rows.loss(v)

    def linearize(self, v, response=True):
        return self.rows.linearize(v, response)

    def toward_start(self):
        return self.rows.toward_start()


class Remote(WithoutCurvature):
    """A loss term in another process, which returns a triangle instead of rows."""

    def add_to(self, triangle, v, response=True):
        remote = Triangle(len(v), 1e-12)
        gradient_and_scale = super().add_to(remote, v, response)
        triangle.merge(remote.augmented, remote.n_rows)
        return gradient_and_scale


def test_terms_that_add_their_rows_themselves(problem):
    *data, start = problem
    runs = [
        gauss_newton(prior(len(start)), [term(rows_of(*data))], start, 200, 1e-8)
        for term in (WithoutCurvature, Remote)
    ]
    assert_allclose(runs[0][0], runs[1][0], rtol=1e-9)
    assert len(runs[0][1]) == len(runs[1][1])


def test_terms_without_curvature_say_so(problem):
    *data, start = problem
    with pytest.raises(TypeError, match="WithoutCurvature does not define curvature_product"):
        WithoutCurvature(rows_of(*data)).curvature_product(start, start)
