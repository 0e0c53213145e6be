"""Properties that every charge model has, for any training data."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    KQEqRegressor,
    QEq,
    QEqRegressor,
    SOAPFeaturizer,
    make_targets,
    predict_charges,
    predict_electronegativities,
    predict_target,
)

from ..helpers import (
    CHI,
    COULOMB,
    RADII,
    dipole,
    equilibrate,
    gaussian_widths,
    hardness_matrix,
    invented_charges,
    linear_response,
    potential,
    quadrupole,
    rattled,
)

NAMES = ["H2O", "NH3", "HCN", "H2CO", "CH3OH", "HF", "CO2", "CH4", "HCOOH", "CH3CN"]
SOAP = {"r_cut": 3.0, "n_max": 4, "l_max": 3}
HARD = QEq(hardness=1.5, radius_scale=0.35)
pytestmark = pytest.mark.filterwarnings("ignore:n_points=:UserWarning")


def dipoles(X):
    return np.array([dipole(atoms, invented_charges(atoms)) for atoms in X])


def regressor(**parameters):
    pinned = {
        "sigma_dipole": 0.01,
        "sigma_charges": 0.05,
        "sigma_dipole_magnitude": 0.01,
        "response": QEq(radius_scale=0.35),
    }
    return KQEqRegressor(**pinned | parameters)


def pipeline(**parameters):
    return make_pipeline(SOAPFeaturizer(**SOAP), CURSparsifier(n_points=6), regressor(**parameters))


@pytest.fixture(scope="module")
def train():
    return [rattled(name, seed) for seed, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def model(train):
    return pipeline(response=HARD).fit(train, dipoles(train))


def with_info(atoms, **info):
    atoms = atoms.copy()
    atoms.info.update(info)
    return atoms


# ---- conservation -------------------------------------------------------------------------------


@pytest.mark.parametrize("Q", [-2, -1, 0, 1, 2])
def test_total_charge_is_conserved(model, Q):
    X = [rattled(name, 50 + i, charge=Q) for i, name in enumerate(NAMES)]
    X += [with_info(atoms, external_field=[1.0, -2.0, 0.5]) for atoms in X]
    X += [Atoms("H", info={"total_charge": Q})]
    # Rounding errors grow with the size, here to 192 atoms.
    grid = np.indices((4, 4, 4)).reshape(3, -1).T * 4.0
    X += [sum((molecule("H2O") for _ in grid), Atoms())]
    X[-1].positions += np.repeat(grid, 3, axis=0)
    X[-1].info["charge"] = Q
    for atoms, q in zip(X, predict_charges(model, X)):
        assert q.shape == (len(atoms),)
        assert abs(q.sum() - Q) < 1e-10


def test_charges_minimise_the_energy(model):
    """A general minimiser with the constraint finds no lower energy.

    The energy is that of the theory page.
    """
    atoms = rattled("CH3OH", 20, charge=-1, field=[0.5, 1.0, -0.3])
    [chi] = predict_electronegativities(model, [atoms])
    [q] = predict_charges(model, [atoms])
    A = hardness_matrix(atoms, gaussian_widths(atoms), 1.5)
    field = np.array(atoms.info["external_field"])

    def energy(q):
        dipole_about_origin = sum(charge * r for charge, r in zip(q, atoms.positions))
        return chi @ q + q @ A @ q / 2 - field @ dipole_about_origin

    found = minimize(
        energy,
        np.full(len(atoms), -1 / len(atoms)),
        method="SLSQP",
        constraints={"type": "eq", "fun": lambda q: q.sum() + 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert energy(q) <= found.fun + 1e-12 * abs(found.fun)
    assert_allclose(q, found.x, atol=1e-5)


# ---- symmetries ---------------------------------------------------------------------------------


def transformed(atoms, rotation, shift, order):
    """A rotated, shifted and reordered copy; its external field is rotated too."""
    new = atoms[order]
    new.positions = new.positions @ rotation.T + shift
    new.info = dict(atoms.info)
    if "external_field" in new.info:
        new.info["external_field"] = rotation @ np.array(new.info["external_field"])
    return new


def random_rotation(seed, determinant):
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return rotation * determinant * np.linalg.det(rotation)


@pytest.mark.parametrize("determinant", [1, -1], ids=["rotation", "reflection"])
@pytest.mark.parametrize("name", ["H2CO", "CH3CN"])
def test_symmetry_of_predictions(model, name, determinant):
    atoms = rattled(name, 30, charge=1, field=[0.2, 0.1, -0.4])
    rotation = random_rotation(0, determinant)
    order = np.random.default_rng(1).permutation(len(atoms))
    new = transformed(atoms, rotation, [3.0, -20.0, 1.0], order)
    before, after = predict_charges(model, [atoms, new])
    assert_allclose(after, before[order], atol=1e-9)
    mu, mu_new = predict_target(model, [atoms, new], "dipole")
    assert_allclose(mu_new, rotation @ mu, atol=1e-9)
    norms = predict_target(model, [atoms, new], "dipole_magnitude")
    assert_allclose(norms, np.linalg.norm(mu), atol=1e-9)
    theta, theta_new = (tensor(v) for v in predict_target(model, [atoms, new], "quadrupole"))
    assert_allclose(theta_new, rotation @ theta @ rotation.T, atol=1e-8)


def tensor(components):
    xx, yy, zz, yz, xz, xy = components
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


@pytest.mark.parametrize(
    "target",
    [
        "dipole",
        "charges",
        "quadrupole",
        "dipole_magnitude",
    ],
)
def test_training_on_moved_molecules_gives_the_same_model(train, target):
    """All environments are sparse points, so that the selection of points has no influence."""
    observe = {
        "dipole": dipole,
        "charges": lambda atoms, q: q,
        "quadrupole": quadrupole,
        "dipole_magnitude": lambda atoms, q: np.linalg.norm(dipole(atoms, q)),
    }[target]
    charges = [invented_charges(atoms) for atoms in train]
    X, y = train[:6], [observe(a, q) for a, q in zip(train, charges)][:6]
    moved, moved_y = [], []
    for i, (atoms, q) in enumerate(zip(X, charges)):
        order = np.random.default_rng(i).permutation(len(atoms))
        moved.append(transformed(atoms, random_rotation(i, 1), [i, 2.0, -3.0], order))
        moved_y.append(observe(moved[-1], q[order]))
    model = make_pipeline(
        SOAPFeaturizer(**SOAP), CURSparsifier(n_points=100, jitter=1e-6), regressor(tol=1e-9)
    )
    model.fit(X, make_targets(**{target: y}))
    other = clone(model).fit(moved[::-1], make_targets(**{target: moved_y[::-1]}))
    for q, p in zip(predict_charges(model, train), predict_charges(other, train)):
        assert_allclose(p, q, atol=1e-6)


def test_atoms_of_one_kind_share_charge_equally(model):
    for name in ("N2", "H2", "O2", "F2"):
        [q] = predict_charges(model, [with_info(molecule(name), charge=1)])
        assert_allclose(q, 0.5, atol=1e-10)
    [q] = predict_charges(model, [molecule("CH4")])
    assert_allclose(q[1:], q[1], atol=1e-9)
    assert_allclose(predict_target(model, [molecule("CH4")], "dipole"), 0, atol=1e-9)


def test_duplicated_structures_are_one_with_less_noise(train):
    y = dipoles(train)
    # The sparse points come from the set without duplicates, so that both models have the same
    # features.
    features = make_pipeline(SOAPFeaturizer(**SOAP), CURSparsifier(n_points=6)).fit(train)
    twice = regressor(sigma_dipole=0.05).fit(
        features.transform(train + train), np.concatenate([y, y])
    )
    once = regressor(sigma_dipole=0.05 / np.sqrt(2)).fit(features.transform(train), y)
    assert_allclose(twice.coef_, once.coef_, atol=1e-8)


@pytest.mark.filterwarnings("ignore:the kernel matrix")
@pytest.mark.parametrize("jitter", [0.0, 1e-10])
@pytest.mark.parametrize("method", ["cur", "fps"])
def test_identical_environments_among_the_sparse_points(train, method, jitter):
    """Copies of an environment make the kernel matrix singular, but do not change the model."""
    y = dipoles(train)
    soap = SOAPFeaturizer(**SOAP)
    plain = make_pipeline(soap, CURSparsifier(n_points=100), regressor()).fit(train, y)
    copied = make_pipeline(
        soap,
        CURSparsifier(n_points=200, method=method, jitter=jitter),
        regressor(sigma_dipole=0.01 * np.sqrt(2)),
    ).fit(train + train, np.concatenate([y, y]))
    assert np.isfinite(copied[-1].coef_).all()
    for q, p in zip(predict_charges(plain, train), predict_charges(copied, train)):
        assert_allclose(p, q, atol=1e-4)


@pytest.mark.parametrize("atom, Q", [("H", 1), ("Ne", 0), ("F", -1)])
def test_one_atom_structures(model, train, atom, Q):
    single = Atoms(atom, [[1.0, 2.0, 3.0]], info={"charge": Q, "potential_points": [[1, 2, 5]]})
    if atom in RADII:
        [q] = predict_charges(model, [single])
        assert_allclose(q, [Q], atol=1e-12)
    # The dipole of an atom about itself is zero, so that its label contains no information.
    y = np.concatenate([dipoles(train), np.zeros((1, 3))])
    fitted = pipeline(response=HARD).fit([*train, single], y)
    assert_allclose(predict_charges(fitted, [single])[0], [Q], atol=1e-12)
    assert_allclose(predict_target(fitted, [single], "dipole"), 0, atol=1e-12)
    assert_allclose(predict_target(fitted, [single], "quadrupole"), 0, atol=1e-12)
    if Q:
        # At a distance of two Angstrom, all of these Gaussians act like points.
        V = predict_target(fitted, [single], "potential")
        assert_allclose(V[0], [COULOMB * Q / 2], rtol=1e-8)


def test_a_set_of_single_atoms_has_a_model():
    X = [Atoms("H", info={"charge": 1}), Atoms("F", info={"charge": -1})]
    fitted = pipeline().fit(X, np.zeros((2, 3)))
    assert_allclose(np.concatenate(predict_charges(fitted, X)), [1, -1])


# ---- field --------------------------------------------------------------------------------------


@pytest.mark.parametrize("Q", [0, 1])
def test_field_response(model, Q):
    atoms = rattled("HCOOH", 40, charge=Q)
    field = np.array([0.3, -0.2, 0.5])
    X = [with_info(atoms, external_field=s * field) for s in (0, 1, 2, -1)]
    charges, mu = predict_charges(model, X), predict_target(model, X, "dipole")
    assert_allclose(charges[2] - charges[0], 2 * (charges[1] - charges[0]), atol=1e-12)
    assert_allclose(charges[3] - charges[0], charges[0] - charges[1], atol=1e-12)
    # Positive charge moves along the field.
    assert (mu[1] - mu[0]) @ field > 1e-3
    # A field has the same effect as a potential -r.field that is added to chi.
    A = hardness_matrix(atoms, gaussian_widths(atoms), 1.5)
    P, _ = linear_response(A)
    assert_allclose(charges[1] - charges[0], P @ atoms.positions @ field, atol=1e-10)
    # At the minimum of the energy E, dE/dfield = -mu.
    [chi] = predict_electronegativities(model, [atoms])

    def energy(field):
        moved = with_info(atoms, external_field=field)
        q = equilibrate(moved, chi, hardness=1.5)
        centered = atoms.positions - atoms.get_center_of_mass()
        return chi @ q + q @ A @ q / 2 - field @ (q @ centered)

    step = 1e-4 * np.eye(3)
    gradient = [(energy(field + h) - energy(field - h)) / 2e-4 for h in step]
    assert_allclose(mu[1], -np.array(gradient), atol=1e-7)


@pytest.mark.parametrize("Q", [0, 2])
def test_field_does_not_depend_on_the_origin(model, Q):
    atoms = rattled("NH3", 41, charge=Q, field=[1.0, 2.0, 3.0])
    moved = atoms.copy()
    moved.positions += [100.0, -50.0, 7.0]
    before, after = predict_charges(model, [atoms, moved])
    assert_allclose(after, before, atol=1e-9)
    assert_allclose(*predict_target(model, [atoms, moved], "dipole"), atol=1e-9)


def test_labels_in_a_field_teach_the_same_model(train):
    """A model learns the same from dipoles in a field as from dipoles without a field."""
    model = pipeline(sigma_dipole=1e-3)
    shift = predict_charges(model.fit(train, dipoles(train)), train)
    X = [with_info(a, external_field=[0.2, 0.0, 0.1 * i]) for i, a in enumerate(train)]
    response = [q - p for q, p in zip(predict_charges(model, X), shift)]
    y = [mu + dipole(a, dq) for mu, a, dq in zip(dipoles(train), train, response)]
    other = clone(model).fit(X, np.array(y))
    assert_allclose(other[-1].coef_, model[-1].coef_, atol=1e-6)


# ---- multipoles and potential -------------------------------------------------------------------


@pytest.mark.parametrize("Q", [-1, 0])
def test_quadrupole_is_a_direct_sum(model, Q):
    X = [rattled(name, 60, charge=Q) for name in ("H2CO", "CO2", "CH3OH")]
    for atoms, q, found in zip(
        X, predict_charges(model, X), predict_target(model, X, "quadrupole")
    ):
        assert_allclose(tensor(found), quadrupole(atoms, q), atol=1e-10)
        assert abs(np.trace(tensor(found))) < 1e-10


def test_potential_is_a_direct_sum(model):
    atoms = rattled("CH3OH", 61, charge=1)
    points = np.concatenate(
        [
            atoms.positions + 0.05,
            atoms.positions + [0.0, 0.0, 0.7],
            4 * np.random.default_rng(0).normal(size=(20, 3)),
        ]
    )
    atoms.info["potential_points"] = points
    [q] = predict_charges(model, [atoms])
    [V] = predict_target(model, [atoms], "potential")
    assert_allclose(V, potential(points, atoms, q, gaussian_widths(atoms)), rtol=1e-10)


def test_potential_is_that_of_gaussian_clouds(model):
    """Integrate the radial density by quadrature, for points near and at a nucleus."""
    atom = Atoms("O", [[0.5, 0.0, 0.0]], info={"charge": -2})
    alpha = 0.35 * RADII["O"]
    distances = np.array([0.0, 0.1, 0.25, 0.5, 1.0])
    atom.info["potential_points"] = [[0.5, d, 0.0] for d in distances]
    [V] = predict_target(model, [atom], "potential")
    # The sum is over midpoints of shells: V(d) = k int rho(s) 4 pi s^2 / max(s, d) ds.
    edges = np.linspace(0, 8 * alpha, 200_001)
    s = (edges[1:] + edges[:-1]) / 2
    density = -2 * np.exp(-(s**2) / (2 * alpha**2)) / (2 * np.pi * alpha**2) ** 1.5
    shells = density * 4 * np.pi * s**2 * np.diff(edges)
    direct = [COULOMB * np.sum(shells / np.maximum(s, d)) for d in distances]
    assert_allclose(V, direct, rtol=1e-8)


@pytest.mark.parametrize("Q", [0, 1])
def test_far_potential_is_that_of_the_multipoles(model, Q):
    atoms = rattled("H2CO", 62, charge=Q)
    directions = np.random.default_rng(1).normal(size=(10, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    R = 200.0
    atoms.info["potential_points"] = atoms.get_center_of_mass() + R * directions
    [V] = predict_target(model, [atoms], "potential")
    [mu] = predict_target(model, [atoms], "dipole")
    [theta] = predict_target(model, [atoms], "quadrupole")
    expansion = Q / R + directions @ mu / R**2
    expansion += np.einsum("na,ab,nb->n", directions, tensor(theta), directions) / R**3
    # The remainder is from octupoles of the order of 1 e*Angstrom^3.
    assert_allclose(V, COULOMB * expansion, rtol=0, atol=2 * COULOMB / R**4)


def test_training_on_the_potential_finds_the_charges(train):
    X = []
    for seed, atoms in enumerate(train):
        around = 3 * np.random.default_rng(seed).normal(size=(40, 3))
        X.append(with_info(atoms, potential_points=around + atoms.get_center_of_mass()))
    charges = [invented_charges(atoms) for atoms in X]
    y = [
        potential(a.info["potential_points"], a, q, gaussian_widths(a)) for a, q in zip(X, charges)
    ]
    model = pipeline(sigma_potential=1e-3, amplitude_chi=3.0)
    model.set_params(cursparsifier__n_points=100).fit(X, make_targets(potential=y))
    for q, p in zip(charges, predict_charges(model, X)):
        assert_allclose(p, q, atol=0.02)


# ---- the norm of the dipole ---------------------------------------------------------------------


class MagnitudeProblem:
    """Loss of a fit to norms of dipoles (and charges) for weights in units of their prior width."""

    def __init__(self, X, phi, sigma, norms, charges=None, sigma_charges=None, baseline=10.0):
        elements = sorted({(z, s) for a in X for z, s in zip(a.numbers, a.symbols)})
        self.scale = np.repeat([1.0, baseline], [phi[0].shape[1], len(elements)])
        self.groups = []
        self.qeq_dipoles = [
            dipole(atoms, equilibrate(atoms, np.array([CHI[s] for s in atoms.symbols])))
            for atoms in X
        ]
        for i, atoms in enumerate(X):
            kinds = np.array([[s == e for _, e in elements] for s in atoms.symbols], dtype=float)
            chi_0 = np.array([CHI[s] * (baseline > 0) for s in atoms.symbols])
            P, _ = linear_response(hardness_matrix(atoms, gaussian_widths(atoms)))
            G = -P @ np.concatenate([phi[i], kinds], axis=1) * self.scale
            T = np.stack([dipole(atoms, q) for q in np.eye(len(atoms))], axis=1)
            q_0 = equilibrate(atoms, chi_0)
            target = None if charges is None else charges[i]
            self.groups.append((T, G, q_0, norms[i], target))
        self.sigma, self.sigma_charges = sigma, sigma_charges

    def terms(self, v):
        """Yield loss and gradient, first of the prior, then of the labels of every structure."""
        yield v @ v / 2, v
        for T, G, q_0, norm, charges in self.groups:
            q = q_0 + G @ v
            if norm is not None:
                mu = T @ q
                misfit = (np.linalg.norm(mu) - norm) / self.sigma
                yield misfit**2 / 2, misfit / self.sigma * (mu @ T @ G) / np.linalg.norm(mu)
            if charges is not None:
                misfits = (q - charges) / self.sigma_charges
                yield misfits @ misfits / 2, misfits @ G / self.sigma_charges

    def loss(self, v):
        losses, gradients = zip(*self.terms(v))
        return sum(losses), sum(gradients)

    def relative_gradient(self, v):
        """Ratio of the norm of the gradient to the norms of the terms of which it is the sum."""
        _, gradients = zip(*self.terms(v))
        return np.linalg.norm(sum(gradients)) / sum(np.linalg.norm(g) for g in gradients)

    def hessian_product(self, v, p):
        """Product with the Hessian from finite differences of the gradient, without the package."""
        h = 1e-5 / np.linalg.norm(p)
        return (self.loss(v + h * p)[1] - self.loss(v - h * p)[1]) / (2 * h)

    def best(self, v):
        """The lower of the losses that two methods of scipy reach from v."""
        options = {"maxiter": 20000, "maxfun": 50000, "ftol": 1e-16, "gtol": 1e-10}
        first = minimize(self.loss, v, jac=True, method="L-BFGS-B", options=options)
        second = minimize(
            self.loss,
            v,
            jac=True,
            hessp=self.hessian_product,
            method="trust-ncg",
            options={"gtol": 1e-6, "maxiter": 500},
        )
        return min(first.fun, second.fun)

    def default_start(self):
        """Ridge regression to dipoles with labelled norms and directions from classical QEq."""
        rows, goals = [np.eye(len(self.scale))], [np.zeros(len(self.scale))]
        for (T, G, q_0, norm, _), mu in zip(self.groups, self.qeq_dipoles):
            if norm is not None:
                rows.append(T @ G / self.sigma)
                goals.append((mu / np.linalg.norm(mu) * norm - T @ q_0) / self.sigma)
        return np.linalg.lstsq(np.concatenate(rows), np.concatenate(goals), rcond=None)[0]


MAGNITUDE_CASES = {
    "norms alone": {},
    "less noise": {"sigma": 0.003},
    "ions": {"charges": [0, 1, -1, 2, 0, 0, -2, 1, 0, 0]},
    "missing labels": {"missing": [1, 4, 5]},
    "no baseline": {"baseline": 0.0},
    "with charges": {"multi": True},
    "with charges and without baseline": {"multi": True, "baseline": 0.0},
}


@pytest.mark.parametrize("start", ["default", "prior mean", "nearby"])
@pytest.mark.parametrize("case", MAGNITUDE_CASES.values(), ids=MAGNITUDE_CASES)
def test_no_optimiser_does_better_on_norms(case, start):
    """The loss has several minima; from each of these starts all optimisers reach the same one."""
    baseline, sigma = case.get("baseline", 10.0), case.get("sigma", 0.03)
    if baseline == 0.0 and start != "default":
        pytest.skip("without baseline the prior mean is a stationary point")
    total = case.get("charges", np.zeros(len(NAMES), dtype=int))
    X = [rattled(name, 70 + i, charge=int(Q)) for i, (name, Q) in enumerate(zip(NAMES, total))]
    charges = [invented_charges(atoms) for atoms in X]
    norms = [np.linalg.norm(dipole(atoms, q)) for atoms, q in zip(X, charges)]
    for i in case.get("missing", []):
        norms[i] = None
    labels, seen = {"dipole_magnitude": norms}, None
    if case.get("multi"):
        seen = [q if i % 3 else None for i, q in enumerate(charges)]
        labels["charges"] = seen
    features = make_pipeline(SOAPFeaturizer(**SOAP), CURSparsifier(n_points=5)).fit_transform(X)
    phi = [features[i] for i in range(len(X))]
    problem = MagnitudeProblem(X, phi, sigma, norms, seen, 0.05, baseline)

    if start == "default":
        v, init = problem.default_start(), None
        if seen is not None:
            # If there are linear labels, the fit to these is the start.
            without = [None] * len(X)
            linear = MagnitudeProblem(X, phi, sigma, without, seen, 0.05, baseline)
            v = minimize(linear.loss, 0 * v, jac=True, method="BFGS", tol=1e-9).x
    else:
        v = np.zeros(len(problem.scale))
        if start == "nearby":
            v = problem.default_start() + 0.05 * np.random.default_rng(0).normal(size=len(v))
        init = v * problem.scale
    model = regressor(
        sigma_dipole_magnitude=sigma,
        sigma_charges=0.05,
        baseline=baseline > 0,
        init=init,
        tol=1e-15,
    ).fit(features, make_targets(**labels))

    history = [step["loss"] for step in model.fit_history_]
    assert_allclose(history[0], problem.loss(v)[0], rtol=1e-4)
    assert (np.diff(history) <= 1e-12 * history[0]).all()
    found = np.divide(model.coef_, problem.scale, out=0 * v, where=problem.scale > 0)
    loss, _ = problem.loss(found)
    assert_allclose(history[-1], loss, rtol=1e-7)
    assert loss <= problem.best(v) * (1 + 1e-8)
    assert problem.relative_gradient(found) < 1e-6


@pytest.fixture(scope="module")
def norms(train):
    features = make_pipeline(SOAPFeaturizer(**SOAP), CURSparsifier(n_points=6)).fit_transform(train)
    return features, make_targets(dipole_magnitude=np.linalg.norm(dipoles(train), axis=1))


def test_default_start_gives_the_physical_sign(norms):
    features, y = norms
    for baseline in (True, False):
        model = regressor(baseline=baseline).fit(features, y)
        charges = dict(zip(NAMES, model.predict_charges(features)))
        assert charges["H2O"][0] < -0.1  # O
        assert charges["NH3"][0] < -0.1  # N
        assert charges["HF"][0] < -0.1  # F


def test_mirrored_start_gives_the_mirrored_model(norms):
    """Without baseline and total charge, dipoles for chi and -chi have equal norms."""
    features, y = norms
    model = regressor(baseline=False).fit(features, y)
    mirrored = regressor(baseline=False, init=-model.coef_).fit(features, y)
    assert_allclose(mirrored.coef_, -model.coef_, atol=1e-6)
    assert_allclose(mirrored.fit_history_[-1]["loss"], model.fit_history_[-1]["loss"], rtol=1e-9)
    for q, p in zip(model.predict_charges(features), mirrored.predict_charges(features)):
        assert_allclose(p, -q, atol=1e-6)


def test_the_iteration_starts_at_init(norms):
    """From the solution, the fit takes no further step.

    With a baseline, `init` sets the sign too.
    """
    features, y = norms
    model = regressor().fit(features, y)
    again = regressor(init=model.coef_).fit(features, y)
    assert again.n_iter_ == 1
    assert_allclose(again.coef_, model.coef_, rtol=1e-12)
    # To change chi into -chi, the constants b must also shift by twice the electronegativities of
    # classical QEq.
    chi_0 = [CHI[Atoms([z]).symbols[0]] for z in model.elements_]
    init = -model.coef_
    init[features.n_features :] -= 2 * np.array(chi_0)
    mirrored = regressor(init=init).fit(features, y)
    assert mirrored.predict_charges(features)[0][0] > 0.1  # O of water


def test_charge_labels_decide_the_sign(norms, train):
    features, y = norms
    upside_down = [-invented_charges(atoms) if i < 3 else None for i, atoms in enumerate(train)]
    both = make_targets(dipole_magnitude=y["dipole_magnitude"], charges=upside_down)
    model = regressor(sigma_charges=0.02).fit(features, both)
    assert model.predict_charges(features)[0][0] > 0.1


def test_labels_of_zero_weight_are_ignored(norms, train):
    """If all norms have weight zero, the fit is the linear one to the charges."""
    features, y = norms
    charges = [invented_charges(atoms) if i > 4 else None for i, atoms in enumerate(train)]
    norms_seen = [norm if i <= 4 else None for i, norm in enumerate(y["dipole_magnitude"])]
    weights = np.repeat([0.0, 1.0], 5)
    both = make_targets(dipole_magnitude=norms_seen, charges=charges)
    model = regressor().fit(features, both, sample_weight=weights)
    linear = regressor().fit(features, make_targets(charges=charges))
    assert_allclose(model.coef_, linear.coef_, atol=1e-9)


def test_classical_model_on_norms(train):
    y = make_targets(dipole_magnitude=np.linalg.norm(dipoles(train), axis=1))
    model = QEqRegressor(response=QEq(radius_scale=0.35)).fit(train, y)
    untrained = MagnitudeProblem(train, [np.zeros((len(a), 0)) for a in train], 0.01, [1.0] * 10)
    prior = [np.linalg.norm(mu) for mu in untrained.qeq_dipoles]
    truth = y["dipole_magnitude"]
    assert np.mean((model.predict(train)["dipole_magnitude"] - truth) ** 2) < np.mean(
        (prior - truth) ** 2
    )
    assert predict_charges(model, [molecule("H2O")])[0][0] < -0.1
