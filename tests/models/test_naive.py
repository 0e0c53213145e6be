"""Kernel charge equilibration against naive dense algebra written from the papers.

[S22] Staacke et al., Mach. Learn.: Sci. Technol. 3, 015032 (2022), eq. 20: all environments.
[V23] Vondrak et al., J. Chem. Phys. 159, 054109 (2023), eq. 30: a sparse set; the sign of
``T A^-1`` is corrected.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    KQEqRegressor,
    QEq,
    SOAPFeaturizer,
    make_targets,
    predict_charges,
    predict_electronegativities,
    predict_target,
)

from ..helpers import (
    CHI,
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
    soap,
)

TOLERANCE = 1e-8  # e, e*Angstrom, V
SOAP = {"r_cut": 3.0, "n_max": 4, "l_max": 3}
pytestmark = pytest.mark.filterwarnings("ignore:n_points=:UserWarning")


def points_around(atoms, seed):
    return atoms.positions.mean(axis=0) + 4.0 * np.random.default_rng(seed).normal(size=(5, 3))


@pytest.fixture(scope="module")
def train():
    X = [
        rattled("H2O", 0),
        rattled("NH3", 1),
        rattled("HCN", 2),
        rattled("H2CO", 3, field=[0.1, -0.2, 0.3]),
        rattled("OH", 4, charge=-1),
        rattled("HF", 5),
        rattled("CO2", 6, charge=1),
    ]
    for seed, atoms in enumerate(X):
        atoms.info["potential_points"] = points_around(atoms, seed)
    return X


@pytest.fixture(scope="module")
def test():
    return [rattled("H2O", 10), rattled("CH3OH", 11, charge=2), rattled("N2", 12, field=[1, 0, 0])]


@pytest.fixture(scope="module")
def labels(train):
    noise = np.random.default_rng(0)
    charges = [invented_charges(atoms) for atoms in train]
    return {
        "dipole": [dipole(a, q) + 0.05 * noise.normal(size=3) for a, q in zip(train, charges)],
        "charges": [q + 0.1 * noise.normal(size=len(q)) for q in charges],
        "quadrupole": [quadrupole(a, q) for a, q in zip(train, charges)],
        "potential": [
            potential(a.info["potential_points"], a, q, gaussian_widths(a))
            for a, q in zip(train, charges)
        ],
    }


def kernel(X, Y, r_cuts=(3.0,), weights=(1.0,), zeta=2, per_species=False, **options):
    """Kernel between all atoms of X and all atoms of Y, from DScribe's features of all species."""
    numbers = [np.concatenate([atoms.numbers for atoms in Z]) for Z in (X, Y)]
    K = np.zeros((len(numbers[0]), len(numbers[1])))
    for r_cut, weight in zip(r_cuts, weights):
        P, Q = (np.concatenate(soap(Z, list(RADII), r_cut, **options)) for Z in (X, Y))
        for i in range(len(P)):
            for j in range(len(Q)):
                cosine = P[i] @ Q[j] / np.sqrt((P[i] @ P[i]) * (Q[j] @ Q[j]))
                K[i, j] += weight / sum(weights) * cosine**zeta
    if per_species:
        K *= numbers[0][:, None] == numbers[1]
    return K


def operator(name, atoms, widths):
    """The matrix of a linear observable, from its values for unit charges."""
    observe = {
        "dipole": dipole,
        "charges": lambda _, q: q,
        # The order of the components is xx, yy, zz, yz, xz, xy.
        "quadrupole": lambda a, q: quadrupole(a, q)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        "potential": lambda a, q: potential(a.info["potential_points"], a, q, widths),
    }[name]
    return np.stack([observe(atoms, q) for q in np.eye(len(atoms))], axis=1)


def label_vector(name, value):
    value = np.asarray(value)
    return value[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] if name == "quadrupole" else value


def split(values, X):
    return np.split(values, np.cumsum([len(atoms) for atoms in X])[:-1])


def assert_model_has(model, X, chi, widths=gaussian_widths, hardness=None):
    """Electronegativities, charges and dipoles of a fitted pipeline agree with the naive ones."""
    found_chi = predict_electronegativities(model, X)
    found_q = predict_charges(model, X)
    found_mu = predict_target(model, X, "dipole")
    for i, atoms in enumerate(X):
        J = 0.0 if hardness is None else hardness(atoms)
        q = equilibrate(atoms, chi[i], widths(atoms), J)
        assert_allclose(found_chi[i], chi[i], rtol=0, atol=TOLERANCE)
        assert_allclose(found_q[i], q, rtol=0, atol=TOLERANCE)
        assert_allclose(found_mu[i], dipole(atoms, q), rtol=0, atol=TOLERANCE)


def design(X, widths):
    """Block matrices of [S22]: dipole operator T, response P, and dipoles at chi = 0."""
    n = sum(len(atoms) for atoms in X)
    T, P, constant = np.zeros((3 * len(X), n)), np.zeros((n, n)), np.zeros(3 * len(X))
    first = 0
    for i, atoms in enumerate(X):
        here, rows = slice(first, first + len(atoms)), slice(3 * i, 3 * i + 3)
        T[rows, here] = operator("dipole", atoms, widths(atoms))
        P[here, here], _ = linear_response(hardness_matrix(atoms, widths(atoms)))
        constant[rows] = dipole(atoms, equilibrate(atoms, np.zeros(len(atoms)), widths(atoms)))
        first += len(atoms)
    return T, P, constant


@pytest.mark.parametrize("zeta", [1, 2, 4])
def test_staacke_equation_20(train, test, labels, zeta):
    """All environments are sparse points, elements share one kernel, and there is no baseline."""
    sigma_dipole, amplitude = 0.02, 1.7

    def widths(atoms):
        # The width a = 0.75 R in [S22] is sqrt(2) alpha.
        return np.array([0.75 * RADII[s] / np.sqrt(2) for s in atoms.symbols])

    K = kernel(train, train, zeta=zeta)
    # For a worse condition number, explicit inverses would have large rounding errors.
    assert np.linalg.cond(K) < 1e8
    T, P, constant = design(train, widths)
    TP = T @ P
    sigma = sigma_dipole**2 / amplitude**2
    difference = np.concatenate(labels["dipole"]) - constant
    # mu = constant - T P K w;  minimise |mu - mu_ref|^2 + sigma w^T K w.
    w = -np.linalg.inv(TP.T @ TP @ K + sigma * np.eye(len(K))) @ TP.T @ difference

    model = make_pipeline(
        SOAPFeaturizer(**SOAP),
        CURSparsifier(n_points=len(K), per_species=False, zeta=zeta, jitter=0.0),
        KQEqRegressor(
            sigma_dipole=sigma_dipole,
            amplitude_chi=amplitude,
            baseline=False,
            response=QEq(radius_scale=0.75 / np.sqrt(2)),
        ),
    ).fit(train, np.array(labels["dipole"]))
    X = train + test
    assert_model_has(model, X, split(kernel(X, train, zeta=zeta) @ w, X), widths)
    assert_allclose(model.predict(train).ravel(), constant - TP @ K @ w, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("method", ["cur", "fps"])
@pytest.mark.parametrize("per_species", [False, True])
def test_vondrak_equation_30(train, test, labels, per_species, method):
    """The equation holds for a sparse set from any selection method."""
    sigma_dipole = 0.05
    n_points = 3 if per_species else 9
    model = make_pipeline(
        SOAPFeaturizer(**SOAP),
        CURSparsifier(n_points=n_points, per_species=per_species, jitter=0.0, method=method),
        KQEqRegressor(sigma_dipole=sigma_dipole, baseline=False, response=QEq(radius_scale=0.35)),
    ).fit(train, np.array(labels["dipole"]))
    firsts = np.cumsum([0] + [len(atoms) for atoms in train])
    sparse = [firsts[s] + a for s, a in model[1].component_indices_]
    assert 9 <= len(sparse) < firsts[-1]

    K = kernel(train, train, per_species=per_species)
    K_nM, K_MM = K[:, sparse], K[np.ix_(sparse, sparse)]
    T, P, constant = design(train, gaussian_widths)
    G = -T @ P @ K_nM  # the corrected sign
    difference = np.concatenate(labels["dipole"]) - constant
    precision = np.eye(len(T)) / sigma_dipole**2
    w = np.linalg.inv(G.T @ precision @ G + K_MM) @ G.T @ precision @ difference

    X = train + test
    chi = kernel(X, train, per_species=per_species)[:, sparse] @ w
    assert_model_has(model, X, split(chi, X))


def posterior(train, test, labels, sigmas, K, K_test, amplitude, baseline, widths, hardness):
    """Mean electronegativities of a Gaussian process that was fitted to linear labels.

    The prior covariance is the sum of the kernel and a constant for each element.
    """
    Z, Z_test = (np.concatenate([a.symbols for a in X]) for X in (train, test))
    C, C_test = amplitude**2 * K, amplitude**2 * K_test
    mean, mean_test = np.zeros(len(Z)), np.zeros(len(Z_test))
    if baseline is not None:
        C = C + baseline**2 * (Z[:, None] == Z)
        C_test = C_test + baseline**2 * (Z_test[:, None] == Z)
        mean = np.array([CHI[s] for s in Z])
        mean_test = np.array([CHI[s] for s in Z_test])
    H, difference, variance = [], [], []
    first = 0
    for i, atoms in enumerate(train):
        here = slice(first, first + len(atoms))
        first += len(atoms)
        P, _ = linear_response(hardness_matrix(atoms, widths(atoms), hardness(atoms)))
        prior = equilibrate(atoms, mean[here], widths(atoms), hardness(atoms))
        for name in labels:
            if labels[name][i] is None or not np.isfinite(sigmas[name][i]):
                continue
            T = operator(name, atoms, widths(atoms))
            value = label_vector(name, labels[name][i])
            # Off-diagonal components of the quadrupole occur twice in the norm of the tensor.
            counts = [1, 1, 1, 2, 2, 2] if name == "quadrupole" else np.ones(len(T))
            for row, d, count in zip(-T @ P, value - T @ prior, counts):
                if np.isnan(d):
                    continue
                H.append(np.zeros(len(Z)))
                H[-1][here] = row
                difference.append(d)
                variance.append(sigmas[name][i] ** 2 / count)
    H = np.array(H)
    gain = np.linalg.inv(H @ C @ H.T + np.diag(variance))
    return mean_test + C_test @ H.T @ gain @ np.array(difference)


CASES = {
    "one kernel per element": {"per_species": True},
    "double SOAP": {"r_cuts": (2.0, 3.0), "weights": (1.0, 1.0)},
    "double SOAP, weighted, per element": {
        "r_cuts": (2.0, 3.0),
        "weights": (3.0, 1.0),
        "per_species": True,
    },
    "baseline": {"baseline": 10.0},
    "baseline, per element": {"baseline": 3.0, "per_species": True},
    "sample weights": {"sample_weight": [1.0, 2.0, 0.5, 0.0, 1.0, 10.0, 1.0]},
    "relative sigma": {"relative": [1.0, np.nan, 0.1, 3.0, 1.0, 1.0, 0.5]},
    "dipole and charges": {"targets": {"dipole": 0.02, "charges": 0.1}, "per_species": True},
    "everything": {
        "targets": {"dipole": 0.1, "charges": 0.1, "quadrupole": 0.1, "potential": 0.05},
        "sample_weight": [1.0, 2.0, 0.5, 0.0, 1.0, 10.0, 1.0],
        "relative": [1.0, np.nan, 0.1, 3.0, 1.0, 1.0, 0.5],
        "r_cuts": (2.0, 3.0),
        "weights": (1.0, 2.0),
        "baseline": 10.0,
        "per_species": True,
        "zeta": 3,
        "scale": 0.5,
        "hardness": {"H": 1.0, "C": 2.0, "N": 3.0, "O": 4.0, "F": 5.0},
        "missing": True,
    },
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gaussian_process(train, test, labels, case):
    targets = case.get("targets", {"dipole": 0.02})
    r_cuts, weights = case.get("r_cuts", (3.0,)), case.get("weights", (1.0,))
    per_species, zeta = case.get("per_species", False), case.get("zeta", 2)
    baseline, amplitude, scale = case.get("baseline"), 1.3, case.get("scale", 0.35)
    sample_weight = np.array(case.get("sample_weight", np.ones(len(train))))
    relative = np.array(case.get("relative", np.ones(len(train))))
    J = case.get("hardness", 0.0)
    y = {name: list(labels[name]) for name in targets}
    if case.get("missing"):
        y["charges"][1] = y["dipole"][2] = y["potential"][4] = None
        y["charges"][0] = np.array([np.nan, 0.2, np.nan])

    columns = dict(y)
    if "relative" in case:
        columns |= {f"{name}_sigma": relative for name in y}
    n_environments = sum(len(atoms) for atoms in train)
    model = make_pipeline(
        SOAPFeaturizer(r_cut=r_cuts, n_max=4, l_max=3),
        CURSparsifier(
            n_points=n_environments,
            per_species=per_species,
            zeta=zeta,
            block_weights=weights,
            jitter=0.0,
        ),
        KQEqRegressor(
            **{f"sigma_{name}": sigma for name, sigma in targets.items()},
            amplitude_chi=amplitude,
            baseline=baseline is not None,
            amplitude_baseline=10.0 if baseline is None else baseline,
            response=QEq(hardness=J, radius_scale=scale),
        ),
    ).fit(train, make_targets(**columns), kqeqregressor__sample_weight=sample_weight)

    def widths(atoms):
        return gaussian_widths(atoms, scale)

    def hardness(atoms):
        return np.array([J[s] if isinstance(J, dict) else J for s in atoms.symbols])

    with np.errstate(divide="ignore"):
        effective = np.where(np.isnan(relative), 1.0, relative) / np.sqrt(sample_weight)
    X = train + test
    options = {"r_cuts": r_cuts, "weights": weights, "per_species": per_species, "zeta": zeta}
    chi = posterior(
        train,
        X,
        y,
        {name: sigma * effective for name, sigma in targets.items()},
        kernel(train, train, **options),
        kernel(X, train, **options),
        amplitude,
        baseline,
        widths,
        hardness,
    )
    assert_model_has(model, X, split(chi, X), widths, hardness)
