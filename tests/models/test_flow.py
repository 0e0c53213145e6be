"""Models in which charge flows between neighbours."""

import joblib
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.data import covalent_radii
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    KQEqCalculator,
    KQEqRegressor,
    QEq,
    SOAPFeaturizer,
    StructureBlocks,
    make_targets,
    predict_charges,
    predict_energy,
    predict_forces,
    predict_targets,
)

from .. import helpers

# The molecules are rigid, so that atoms of several structures have the same environment.
pytestmark = pytest.mark.filterwarnings("ignore:n_points=:UserWarning")


def features(n_points=4, r_cut=3.0):
    soap = SOAPFeaturizer(r_cut=r_cut, cutoff_width=1.0, n_max=3, l_max=2)
    return make_pipeline(soap, CURSparsifier(n_points=n_points, jitter=1e-8))


def model(response=None, n_points=4, **options):
    response = ChargeFlow(range=0.3) if response is None else response
    return make_pipeline(features(n_points), KQEqRegressor(response=response, **options))


def pair(distance, charge=0, field=None):
    """Water and ammonia at a given distance between oxygen and nitrogen."""
    other = helpers.rattled("NH3", 1, amplitude=0.02)
    other.translate([distance, 0.1, 0.2])
    atoms = helpers.rattled("H2O", 0, amplitude=0.02) + other
    atoms.info = {"charge": charge}
    if field is not None:
        atoms.info["external_field"] = field
    return atoms


@pytest.fixture(scope="module")
def fitted():
    """A model fitted to charges of pairs of molecules at short and large distances."""
    X = [pair(d, charge) for d in (2.0, 2.5, 3.0, 4.0, 8.0) for charge in (-1, 0, 1)]
    rng = np.random.default_rng(0)
    y = make_targets(charges=[0.3 * rng.normal(size=len(a)) for a in X])
    return model(sigma_charges=0.05).fit(X, y)


# ---- fit ----------------------------------------------------------------------------------------


def naive_fit(X, phi, y, response, sigma, amplitudes, widths_scale=0.2):
    """Solve the regularised least-squares problem; dense matrices map the weights to charges."""
    rows, residuals = [], []
    for atoms, features_of, charges in zip(X, phi, y):
        A = helpers.hardness_matrix(atoms, helpers.gaussian_widths(atoms, widths_scale))
        n = len(atoms)
        laplacian = np.zeros((n, n))
        for i in range(n):
            for j in range(i):
                contact = covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]]
                x = (atoms.get_distance(i, j) - contact) / response.range
                s = response.softness * np.exp(-x / (1 - x / 10)) if x < 10 else 0.0
                laplacian[[i, j], [i, j]] += s
                laplacian[[i, j], [j, i]] -= s
        P = laplacian @ np.linalg.inv(np.eye(n) + A @ laplacian)
        T = np.eye(n) - P @ A
        N = np.eye(n) - 1.0 / n
        onehot = np.array([[s == e for e in "HNO"] for s in atoms.symbols], dtype=float)
        chi_0 = np.array([helpers.CHI[s] for s in atoms.symbols])
        field = np.array(atoms.info.get("external_field", np.zeros(3)))
        start = T @ np.full(n, atoms.info["charge"] / n) - P @ (chi_0 - atoms.positions @ field)
        both = np.concatenate([features_of, onehot], axis=1)
        rows.append(np.concatenate([-P @ both, T @ N @ both], axis=1) / sigma)
        residuals.append((charges - start) / sigma)
    J, r = np.concatenate(rows), np.concatenate(residuals)
    prior = np.diag(1 / np.asarray(amplitudes))
    stacked = np.concatenate([J, prior])
    return np.linalg.lstsq(stacked, np.append(r, np.zeros(len(prior))), rcond=None)[0]


def test_weights_are_those_of_a_naive_fit():
    X = [pair(d, c, [0.1, 0.0, -0.1 * c]) for d in (2.5, 4.0) for c in (-1, 0, 1)]
    rng = np.random.default_rng(1)
    y = [0.3 * rng.normal(size=len(a)) for a in X]
    found = model(sigma_charges=0.05).fit(X, make_targets(charges=y))
    phi = [found[:-1].transform(X)[i] for i in range(len(X))]
    n = phi[0].shape[1]
    amplitudes = [1.0] * n + [10.0] * 3 + [0.1] * n + [1.0] * 3
    expected = naive_fit(X, phi, y, ChargeFlow(range=0.3), 0.05, amplitudes)
    assert_allclose(found[-1].coef_, expected, rtol=0, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("target", ["energy and forces", "dipole_magnitude", "stress"])
def test_every_kind_of_target_is_learned(target):
    """A model learns every kind of target from predictions of another model."""
    if target == "stress":
        X = []
        for seed in range(8):
            X.append(Atoms("HF", [[0, 0, 0], [0.95, 0.1, 0]], cell=[3.0, 3.2, 3.4], pbc=True))
            X[-1].rattle(0.05, seed=seed)
        names = ["charges", "stress"]
    else:
        X = [pair(d, 0, [0.0, 0.1, 0.05]) for d in np.linspace(2.3, 4.0, 8)]
        names = {"energy and forces": ["charges", "energy", "forces"]}.get(target, [target])
    rng = np.random.default_rng(3)
    teacher = model(sigma_charges=0.1)
    teacher.fit(X, make_targets(charges=[0.3 * rng.normal(size=len(a)) for a in X]))
    y = predict_targets(teacher, X, names)
    options = {f"sigma_{name}": 1e-3 for name in names} | {"max_iter": 100, "tol": 1e-5}
    student = model(**options).fit(X, y)
    assert student.score(X, y) > 0.997


def neutral(charges):
    """Charges minus their mean."""
    return charges - charges.mean()


def test_without_softness_reference_charges_are_the_charges():
    X = [pair(d) for d in (2.5, 4.0, 8.0)]
    y = make_targets(charges=[0.1 * np.cos(np.arange(len(a))) for a in X])
    found = model(ChargeFlow(softness=0.0), 3, sigma_charges=1e-4).fit(X, y)
    [solution, *_] = found[-1].solutions(found[:-1].transform(X), ["charges"])
    assert (solution.charges == neutral(solution.fields["reference"])).all()
    # Without softness, charges do not depend on electronegativities, so that the fit leaves the
    # weights of chi at zero.
    n = found[-1].n_features_in_ + len(found[-1].elements_)
    assert not found[-1].coef_[:n].any() and found[-1].coef_[n:].any()
    inert = found.predict([pair(3.0, 0, [0.0, 0.0, 0.3])])["charges"][0]
    assert_allclose(inert, found.predict([pair(3.0)])["charges"][0], rtol=0, atol=1e-12)


def test_start_without_softness():
    """Without flow, a fit to norms of dipoles starts from reference charges that are not zero.

    Norms do not determine the directions of the dipoles.
    """
    X = [pair(d) for d in np.linspace(2.3, 4.0, 8)]
    y = make_targets(dipole_magnitude=np.linspace(0.3, 0.5, 8))
    found = model(ChargeFlow(softness=0.0), sigma_dipole_magnitude=0.01, max_iter=100).fit(X, y)
    assert_allclose(found.predict(X)["dipole_magnitude"], y["dipole_magnitude"], atol=0.05)


def test_energies_alone_are_learned():
    """A fit to energies alone starts from reference charges that are not zero."""
    X = [pair(d) for d in np.linspace(2.3, 4.0, 8)]
    rng = np.random.default_rng(3)
    y = make_targets(charges=[0.3 * rng.normal(size=len(a)) for a in X])
    energies = make_targets(energy=predict_energy(model(sigma_charges=0.1).fit(X, y), X))
    student = model(sigma_energy=1e-3, max_iter=200, tol=1e-5).fit(X, energies)
    assert student.score(X, energies) > 0.99
    assert np.abs(np.concatenate(predict_charges(student, X))).mean() > 0.02


def test_fixed_point_is_refused():
    X = [pair(d) for d in (2.3, 2.5, 3.0, 4.0)]
    with pytest.raises(ValueError, match="fixed_point' is for charge equilibration only; with Ch"):
        model(algorithm="fixed_point").fit(X, make_targets(energy=np.arange(4.0)))


def test_soft_limit_predicts_like_charge_equilibration():
    X = [pair(d) for d in (2.0, 2.2, 2.5)]
    y = make_targets(charges=[0.1 * np.cos(np.arange(len(a))) for a in X])
    response = ChargeFlow(softness=1e10, range=1.0, amplitude=1e-9, amplitude_baseline=1e-9)
    for one, other in zip(
        predict_charges(model(response, 3).fit(X, y), X),
        predict_charges(model(QEq(), 3).fit(X, y), X),
    ):
        assert_allclose(one, other, rtol=0, atol=1e-6)


# ---- a fragment that leaves ---------------------------------------------------------------------


def test_energy_and_forces_are_smooth_while_a_fragment_detaches(fitted):
    """Energy and forces are smooth even where the last pair of atoms stops exchanging charge."""
    distances = np.arange(2.5, 7.5, 0.02)
    X = [pair(d, 1) for d in distances]
    energies = predict_energy(fitted, X)
    forces = np.array(predict_forces(fitted, X))
    work = -forces[:, 3:, 0].sum(axis=1)
    # Simpson's rule over every two steps would reveal a jump of the energy or of a force.
    integral = 0.02 / 3 * (work[:-2:2] + 4 * work[1:-1:2] + work[2::2])
    assert_allclose(np.diff(energies[::2]), integral, rtol=0, atol=1e-5 * np.ptp(energies))
    assert np.abs(np.diff(forces, axis=0)).max() < 0.2 * np.abs(forces).max()
    # The charge of a fragment far away does not depend on an external field, because it exchanges
    # no charge.
    far = predict_charges(fitted, [pair(9.0, 1), pair(9.0, 1, [0.3, 0.0, 0.0])])
    near = predict_charges(fitted, [pair(2.5, 1), pair(2.5, 1, [0.3, 0.0, 0.0])])
    assert abs((far[0] - far[1])[:3].sum()) < 1e-12
    assert abs((near[0] - near[1])[:3].sum()) > 1e-3
    assert_allclose([q.sum() for q in far + near], 1.0, rtol=0, atol=1e-12)


# ---- scikit-learn, files, ASE -------------------------------------------------------------------


def test_search_reaches_the_response():
    X = [pair(d) for d in np.linspace(2.2, 5.0, 9)]
    y = make_targets(charges=[0.1 * np.cos(np.arange(len(a))) for a in X])
    grid = {
        "kqeqregressor__response__range": [0.2, 0.4],
        "kqeqregressor__response__softness": [0.01, {"H": 0.02, "N": 0.03, "O": 0.04}],
        "kqeqregressor__sigma_charges": [0.01],
    }
    search = GridSearchCV(model(), grid, cv=KFold(3), error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    best = search.best_estimator_[-1]
    assert best.response_.range == search.best_params_["kqeqregressor__response__range"]
    whole = {"kqeqregressor__response": [QEq(), ChargeFlow()]}
    assert GridSearchCV(model(), whole, cv=KFold(3)).fit(X, y).best_score_ > 0.5


def test_fitted_models_keep_their_response(fitted, tmp_path):
    """A loaded model, or one whose parameters were changed, uses the response of its fit."""
    expected = predict_charges(fitted, [pair(2.5)])[0]
    joblib.dump(fitted, tmp_path / "model.joblib")
    assert_allclose(
        predict_charges(joblib.load(tmp_path / "model.joblib"), [pair(2.5)])[0], expected
    )
    changed = joblib.load(tmp_path / "model.joblib")
    changed.set_params(kqeqregressor__response__softness=0.5)
    assert_allclose(predict_charges(changed, [pair(2.5)])[0], expected)
    assert clone(changed)[-1].response.softness == 0.5
    assert repr(changed[-1].response) == "ChargeFlow(range=0.3, softness=0.5)"


def test_blocks_of_their_own():
    X = [pair(d) for d in (2.2, 2.4, 2.6, 2.8)]
    y = make_targets(
        charges=[0.1 * np.cos(np.arange(len(a))) for a in X], energy=[1.0, 0.5, 0.2, 0.0]
    )
    options = {"sigma_energy": 0.01, "sigma_charges": 0.01, "max_iter": 100, "tol": 1e-4}
    blocks = [("reference", features(3)), ("chi", features(2, 2.5)), ("gap", features(4))]
    both = make_pipeline(
        StructureBlocks(blocks), GAPKQEqRegressor(response=ChargeFlow(hardness=2.7), **options)
    ).fit(X, y)
    assert both[-1].layout_.sizes == [6, 9, 12, 0]
    assert len(both[-1].coef_) == 6 + 3 + 9 + 3 + 12
    assert both.score(X, y) > 0.5
    alone = make_pipeline(StructureBlocks(blocks[:2]), KQEqRegressor(response=ChargeFlow()))
    assert alone.fit(X, y[["charges"]])[-1].layout_.sizes == [6, 9, 0]
    shared = make_pipeline(
        StructureBlocks(blocks[1:]), GAPKQEqRegressor(response=ChargeFlow(hardness=2.7), **options)
    )
    shared.fit(X, y)
    assert shared[-1].layout_.sizes == [6, 6, 12, 0] and shared[-1].n_features_in_ == 18


def test_unknown_blocks_are_refused():
    X = [pair(d) for d in (2.5, 3.0, 3.5, 4.0)]
    y = make_targets(charges=[np.zeros(7)] * 4, energy=[0.0, 1.0, 2.0, 3.0])
    blocks = [("reference", features(3)), ("chi", features(2)), ("gap", features(4))]
    with pytest.raises(ValueError, match="takes the blocks chi, and reference .* got blocks ref"):
        make_pipeline(StructureBlocks(blocks), KQEqRegressor()).fit(X, y[["charges"]])
    # QEq ignores the block of reference charges, so that a search can compare both responses.
    make_pipeline(StructureBlocks(blocks[:2]), KQEqRegressor()).fit(X, y[["charges"]])
    with pytest.raises(ValueError, match="takes the blocks chi and gap, and .* got blocks ref"):
        make_pipeline(
            StructureBlocks(blocks[:2]), GAPKQEqRegressor(response=ChargeFlow())
        ).fit(X, y)  # fmt: skip


def test_calculator(fitted):
    atoms = pair(2.5, 1, [0.0, 0.1, 0.0])
    atoms.calc = KQEqCalculator(fitted)
    [forces], [energy] = predict_forces(fitted, [atoms]), predict_energy(fitted, [atoms])
    assert_allclose(atoms.get_forces(), forces, rtol=0, atol=1e-12)
    assert_allclose(atoms.get_potential_energy(), energy, rtol=0, atol=1e-12)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


@pytest.mark.parametrize("name", ["crystal", "molecule"])
def test_solvers_agree(name):
    if name == "crystal":
        atoms = Atoms("HF", [[0, 0, 0], [0.95, 0.1, 0]], cell=[3.0, 3.2, 3.4], pbc=True) * 3
        atoms.rattle(0.05, seed=1)
    else:
        atoms = pair(2.5, 1, [0.1, 0.0, 0.0])
    rng = np.random.default_rng(0)
    y = make_targets(charges=[0.2 * rng.normal(size=len(atoms))])
    found = {}
    for solver in ("dense", "iterative"):
        response = ChargeFlow(range=0.3, solver=solver)
        fitted = model(response, 1, sigma_charges=0.1).fit([atoms], y)
        found[solver] = (
            predict_charges(fitted, [atoms])[0],
            predict_energy(fitted, [atoms]),
            predict_forces(fitted, [atoms])[0],
        )
    for one, other in zip(found["dense"], found["iterative"], strict=True):
        assert_allclose(one, other, rtol=1e-6, atol=1e-6)


# ---- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (ChargeFlow(softness=-0.1), "'softness' parameter of ChargeFlow must be"),
        (ChargeFlow(range=0.0), "'range' parameter of ChargeFlow must be"),
        (ChargeFlow(amplitude=-1.0), "'amplitude' parameter of ChargeFlow must be"),
        (ChargeFlow(softness={"H": 0.1, "O": 0.1}), r"structure 0 \(H5NO\): no softness in .* N"),
        (ChargeFlow(softness={"H": -0.1}), "softness of 'H' is -0.1, which is not a non-negative"),
    ],
)
def test_bad_responses_are_refused(response, message, fitted):
    y = make_targets(charges=[np.zeros(7)])
    with pytest.raises(ValueError, match=message):
        model(response, 1).fit([pair(2.5)], y)


def test_what_is_no_response_is_refused():
    y = make_targets(charges=[np.zeros(7)])
    with pytest.raises(TypeError, match="str is not a complete response: it lacks .*equilib"):
        model("flow", 1).fit([pair(2.5)], y)


def test_elements_that_were_not_learned_are_refused(fitted):
    with pytest.raises(ValueError, match=r"structure 0 \(CH4\) holds C"):
        predict_charges(fitted, [molecule("CH4")])
