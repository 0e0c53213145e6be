"""Training on energies, forces and stress."""

import copy
import time

import joblib
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.morse import MorsePotential
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    KQEqRegressor,
    QEq,
    QEqRegressor,
    SOAPFeaturizer,
    make_targets,
    predict_energy,
    predict_forces,
)
from skqeq.models import _minimise, _start
from skqeq.models._derivative_rows import DerivativeRows
from skqeq.structures import check_structures
from skqeq.targets import TARGETS, Labels

from .test_forces import CASES, HARD, rattled


def features(X):
    soap = SOAPFeaturizer(r_cut=(2.5, 3.5), n_max=3, l_max=2)
    return make_pipeline(soap, CURSparsifier(n_points=6, jitter=1e-8)).fit_transform(X)


def labels_of(X, seed=0):
    """Random labels for all targets that the structures can have."""
    rng = np.random.default_rng(seed)
    defined = [TARGETS["stress"].defined(structure) for structure in check_structures(X)]
    return make_targets(
        energy=rng.normal(size=len(X)),
        forces=[rng.normal(size=(len(atoms), 3)) for atoms in X],
        stress=[np.where(known, rng.normal(size=6), np.nan) for known in defined],
    )


@pytest.fixture(scope="module")
def problem():
    """Rows of molecules, crystals and slabs at random weights."""
    X = list(CASES.values())
    problem = KQEqRegressor(response=HARD).problem(features(X), labels_of(X))
    v = 0.3 * np.random.default_rng(1).normal(size=problem.layout.n_columns)
    return DerivativeRows(problem, problem.labels.names), v


def stacked(rows, v, **options):
    jacobians, residuals = zip(*rows.linearize(v, **options))
    return np.concatenate(jacobians), np.concatenate(residuals)


def test_rows_are_derivatives(problem):
    rows, v = problem
    J, residual = stacked(rows, v)
    # The rows are one energy per structure, forces on 2 + 5 * 8 atoms, and the stress of two
    # crystals and two slabs.
    assert len(J) == 6 + 3 * 42 + 2 * 6 + 2 * 3
    assert_allclose(rows.loss(v), 0.5 * residual @ residual, rtol=1e-12)
    rng = np.random.default_rng(2)
    for _ in range(3):
        step = 1e-3 * rng.normal(size=len(v))
        values = [stacked(rows, v + n * step)[1] for n in (-2, -1, 1, 2)]
        expected = (8 * (values[2] - values[1]) - (values[3] - values[0])) / 12
        assert_allclose(J @ step, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.fixture(scope="module")
def truth():
    """Structures with the energies, forces and stress of a known model."""
    X = [rattled(atoms, seed) for seed in range(4) for atoms in CASES.values()]
    phi = features(X)
    rng = np.random.default_rng(3)
    model = KQEqRegressor(response=HARD)
    charges = [np.where(a.symbols == "Na", 0.7, -0.7) + 0.1 * rng.normal(size=len(a)) for a in X]
    model.fit(phi, make_targets(charges=charges))
    model.atomic_energies_ = np.array([-3.0, -400.0])[: len(model.elements_)]
    y = model.predict_targets(phi, ["energy", "forces", "stress"])
    return X, phi, model, y


OPTIONS = {"response": HARD, "sigma_energy": 1e-4, "sigma_forces": 1e-3, "sigma_stress": 1e-5}


@pytest.fixture(scope="module")
def half(truth):
    """The first half of the structures, with two of each kind."""
    X, phi, model, y = truth
    return X[:12], phi[:12], model, y[:12]


@pytest.mark.parametrize("names", [["energy"], ["forces"], ["energy", "forces", "stress"]])
def test_a_known_model_is_found_again(truth, names):
    X, phi, model, y = truth
    found = KQEqRegressor(**OPTIONS, tol=1e-10).fit(phi, y[names])
    losses = [entry["loss"] for entry in found.fit_history_]
    assert (np.diff(losses) <= 1e-12 * losses[0]).all()
    assert found.fit_history_[-1]["decrease"] < 1e-10 * losses[-1]
    predicted = found.predict(phi)
    n_atoms = np.array([len(atoms) for atoms in X])
    if "energy" in names:
        assert_allclose(predicted["energy"] / n_atoms, y["energy"] / n_atoms, atol=2e-3)
        # The compositions of the structures only determine the sum of the atomic energies.
        assert_allclose(found.atomic_energies_.sum(), -403.0, atol=30.0)
    if "forces" in names:
        for one, other in zip(predicted["forces"], y["forces"], strict=True):
            assert_allclose(one, other, atol=2e-2)
    if "stress" in names:
        known = ~np.isnan(y["stress"])
        # All components for two crystals, and the in-plane components for two slabs.
        assert known[:6].sum() == 2 * 6 + 2 * 3
        assert_allclose(predicted["stress"][known], y["stress"][known], atol=1e-3)
    # Energies do not determine the sign of the charges; it comes from the start.
    for atoms, charges in zip(X[:6], found.predict_charges(phi[:6]), strict=True):
        if not atoms.info.get("charge"):
            assert charges[atoms.symbols == "Na"].mean() > 0.2


def test_fixed_point_of_energies_is_gauss_newton(truth):
    """Without the response of the charges, dE/dw = phi^T q is still right [V23]."""
    _, phi, _, y = truth
    model = KQEqRegressor(**OPTIONS)
    rows = DerivativeRows(model.problem(phi, y[["energy"]]), ["energy"])
    v = np.random.default_rng(0).normal(size=rows.layout.n_columns)
    for full, fixed in zip(rows.linearize(v), rows.linearize(v, response=False), strict=True):
        assert_allclose(fixed[0], full[0], rtol=0, atol=1e-10 * np.abs(full[0]).max())
        assert_allclose(fixed[1], full[1])


def test_gauss_newton_ends_below_the_fixed_point(half):
    _, phi, _, y = half
    y = y[["energy", "forces"]].copy()
    rng = np.random.default_rng(0)
    for i, forces in enumerate(y["forces"]):
        y["forces"][i] = forces + 0.3 * rng.normal(size=forces.shape)
    options = OPTIONS | {"sigma_forces": 0.3, "sigma_energy": 1e-2, "max_iter": 15}
    with pytest.warns(UserWarning):
        fixed = KQEqRegressor(**options, algorithm="fixed_point", tol=1e-14).fit(phi, y)
    damped = KQEqRegressor(**options).fit(phi, y)
    best = min(entry["loss"] for entry in fixed.fit_history_)
    assert damped.fit_history_[-1]["loss"] < 0.999 * best


@pytest.mark.parametrize("kind, power", [("per_atom", 1), ("sqrt_n", 0.5), ("per_structure", 0)])
def test_noise_of_energies(truth, kind, power):
    """Each choice of the noise is equivalent to a column of relative noise."""
    X, phi, _, y = truth
    n_atoms = np.array([float(len(atoms)) for atoms in X])
    model = KQEqRegressor(**OPTIONS | {"sigma_energy": 0.01, "energy_noise": kind})
    plain = model.fit(phi, make_targets(energy=y["energy"])).coef_
    model.set_params(energy_noise="per_structure")
    y = make_targets(energy=y["energy"], energy_sigma=n_atoms**power)
    assert_allclose(model.fit(phi, y).coef_, plain, rtol=0, atol=1e-9)


def test_weights_and_gaps(half):
    """Structures of weight zero and missing labels have no influence."""
    _, phi, _, y = half
    y = y[["energy", "forces"]]
    model = KQEqRegressor(**OPTIONS)
    some = np.arange(len(y)) % 3 > 0
    expected = model.fit(phi[some], y[some])
    expected = np.append(expected.coef_, expected.atomic_energies_)
    gaps = make_targets(
        energy=np.where(some, y["energy"], np.nan),
        forces=[f if known else None for f, known in zip(y["forces"], some, strict=True)],
    )
    for found in (model.fit(phi, y, sample_weight=1.0 * some), model.fit(phi, gaps)):
        found = np.append(found.coef_, found.atomic_energies_)
        assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    # Some components of the forces on some atoms have no label.
    holes = [f.copy() for f in y["forces"]]
    for forces in holes:
        forces[0, 1] = np.nan
    found = model.fit(phi, make_targets(forces=holes))
    assert np.isfinite(found.coef_).all() and found.score(phi, make_targets(forces=holes)) > 0.99


def test_atomic_energies_can_be_given(half):
    _, phi, _, y = half
    given = KQEqRegressor(**OPTIONS, atomic_energies={"Na": -3.0, "Cl": -400.0})
    given.fit(phi, y[["energy", "forces"]])
    assert_allclose(given.atomic_energies_, [-3.0, -400.0])
    assert_allclose(given.predict(phi)["energy"], y["energy"], atol=0.05)
    with pytest.raises(ValueError, match="no energy in `atomic_energies` for Cl"):
        KQEqRegressor(atomic_energies={"Na": -3.0}).fit(phi, y)


def test_charge_bias_decides_the_sign(truth):
    X, phi, _, y = truth
    for sign in (1.0, -1.0):
        bias = {"Na": 0.7 * sign, "Cl": -0.7 * sign}
        model = KQEqRegressor(**OPTIONS, charge_bias=bias, sigma_charges=0.05)
        charges = model.fit(phi, y[["energy"]]).predict_charges(phi)
        symbols = np.concatenate([atoms.numbers for atoms in X])
        assert sign * np.concatenate(charges)[symbols == 11].mean() > 0.05


def test_without_baseline_the_start_is_not_stationary(half):
    X, phi, _, y = half
    model = KQEqRegressor(**OPTIONS | {"amplitude_chi": 5.0}, baseline=False)
    model.fit(phi, y[["energy", "forces"]])
    charges = np.concatenate(model.predict_charges(phi))
    symbols = np.concatenate([atoms.numbers for atoms in X])
    assert charges[symbols == 11].mean() > 0.1


def test_the_start_is_exact_for_a_narrow_prior(half, monkeypatch):
    """A least-squares fit to the classical electronegativities would shrink them."""
    X, _, _, y = half
    starts = []

    def recorded(problem, triangle, nonlinear, init):
        v = _start.start_weights(problem, triangle, nonlinear, init)
        layout = problem.layout
        chi = (v * layout.scale)[layout.columns[0][1]] + layout.means[0]
        starts.append((chi, nonlinear[0].start()["chi"]))
        return v

    monkeypatch.setattr(_minimise, "start_weights", recorded)
    QEqRegressor(amplitude_baseline=0.1, response=HARD).fit(X, y[["energy"]])
    [(chi, goal)] = starts
    assert_allclose(chi, goal, rtol=1e-10)


def test_classical_charge_equilibration_learns_energies(half):
    X, _, _, y = half
    model = QEqRegressor(sigma_energy=0.1, sigma_forces=1.0, response=HARD)
    model.fit(X, y[["energy", "forces"]])
    losses = [entry["loss"] for entry in model.fit_history_]
    assert losses[-1] < losses[0]
    assert model.fit_history_[-1]["decrease"] < model.tol * losses[-1]
    predicted = model.predict(X)
    assert_allclose(predicted["energy"], predict_energy(model, X))
    for one, other in zip(predicted["forces"], predict_forces(model, X), strict=True):
        assert_allclose(one, other)


def test_the_history_has_the_time_of_every_step(half):
    X, _, _, y = half
    begin = time.perf_counter()
    model = QEqRegressor(sigma_energy=0.1, sigma_forces=1.0, response=HARD)
    model.fit(X, y[["energy", "forces"]])
    whole = time.perf_counter() - begin
    seconds = [entry["seconds"] for entry in model.fit_history_]
    assert len(seconds) > 2
    assert 0.0 < seconds[0] and np.all(np.diff(seconds) > 0.0) and seconds[-1] < whole
    # The steps take most of the time of a fit.
    assert seconds[-1] > 0.1 * whole


def test_structures_without_stress(truth):
    X, phi, model, _ = truth
    with pytest.raises(ValueError, match=r"structure 0 \(ClNa\) .* leaves stress undefined"):
        model.predict_target(phi[:1], "stress")
    table = model.predict_targets(phi[[0, 2]], ["energy", "stress"])
    assert np.isnan(table["stress"][0]).all()
    assert np.isnan(table["stress"][1]).tolist() == [False, False, True, True, True, False]
    stress = np.ones(6)
    with pytest.raises(ValueError, match=r"structure 0 .* leaves stress undefined"):
        KQEqRegressor().fit(phi[:1], make_targets(stress=[stress]))
    # Out-of-plane components of the stress of a slab are ignored.
    y = make_targets(stress=[stress])
    assert np.isnan(Labels(y, phi[2:3].structures).values("stress", 0)).sum() == 3
    assert not np.isnan(y["stress"]).any()
    # A slab without third cell vector can have labels of forces, but not of the stress.
    bare = X[2].copy()
    bare.cell[2] = 0.0
    [structure] = check_structures([bare])
    assert not TARGETS["stress"].defined(structure).any()
    assert TARGETS["forces"].defined(structure).all()


def test_an_interrupted_fit_keeps_its_weights(truth, monkeypatch):
    _, phi, _, y = truth
    pull_back, calls = DerivativeRows.pull_back, []

    def interrupted(self, *args):
        calls.append(None)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return pull_back(self, *args)

    monkeypatch.setattr(DerivativeRows, "pull_back", interrupted)
    model = KQEqRegressor(**OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        model.fit(phi, y[["energy"]])
    monkeypatch.undo()
    assert len(model.fit_history_) > 1
    again = KQEqRegressor(**OPTIONS, init=model.coef_).fit(phi, y[["energy"]])
    assert again.fit_history_[0]["loss"] <= 1.001 * model.fit_history_[-1]["loss"]
    assert model.predict(phi)["energy"].shape == (len(phi),)


def test_messages_name_the_structure_among_all(truth):
    X, phi, _, y = truth
    table = make_targets(energy=y["energy"], forces=[None] * 3 + list(y["forces"][3:]))
    model = KQEqRegressor(response=QEq(radius_scale=30.0))
    with pytest.raises(ValueError, match=r"structure [3-9] .* not positive definite|Angstrom"):
        model.fit(phi, make_targets(forces=table["forces"]))


def test_few_weights_find_the_least_loss():
    """Classical QEq has four unknowns here, and atomic energies fit most of the energies alone."""
    X, energies, forces = [], [], []
    for seed in range(6):
        atoms = bulk("ZnO", "wurtzite", a=3.25, c=5.2)
        atoms.rattle(0.1, seed=seed)
        atoms.calc = MorsePotential(r0=1.8, epsilon=1.0, rho0=4.0, rcut1=3.0, rcut2=3.5)
        X.append(atoms)
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
    y = make_targets(energy=energies, forces=forces)
    model = QEqRegressor(tol=1e-3, response=QEq(hardness=10.0, radius_scale=0.6)).fit(X, y)
    assert abs(np.mean(model.predict(X)["energy"] - energies)) < 1e-3

    def loss(difference):
        """Least loss over the energy per atom, for a given difference of electronegativities."""
        other = copy.copy(model)
        other.coef_ = model.coef_ + np.array([difference, -difference])
        predicted = other.predict(X)
        errors = predicted["energy"] - energies
        errors = (errors - errors.mean()) / (4 * 0.001)
        of_forces = np.concatenate(list(predicted["forces"])) - np.concatenate(forces)
        return 0.5 * np.sum(errors**2) + 0.5 * np.sum((of_forces / 0.05) ** 2)

    best = minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded")
    assert loss(0.0) <= best.fun * (1 + 1e-3)


def test_the_solver_is_chosen_for_all_rows(problem, monkeypatch):
    """The solver must suit one right-hand side for the charges, and one for each label."""
    rows, v = problem
    asked, equilibrium = [], QEq.equilibrium

    def counted(response, structure, name=None, n_solutions=1):
        asked.append(n_solutions)
        return equilibrium(response, structure, name, n_solutions)

    monkeypatch.setattr(QEq, "equilibrium", counted)
    rows = DerivativeRows(rows.problem, ["energy", "forces", "stress"])
    rows.residual(v)
    structures = list(rows.problem.features.structures)
    # The labels are an energy, the forces, and the stress if the structure is periodic.
    assert asked == [1 + 1 + 3 * len(s) + 6 * s.periodic for s in structures]
    # Other rows at other weights use the same factors of the hardness matrices.
    asked.clear()
    list(rows.linearize(1.1 * v))
    rows.pull_back(v, np.ones(len(rows.residual(v))))
    assert asked == []


def several_targets(truth):
    """Labels of every kind, of which some are missing, and relative noise for some of them."""
    X, phi, model, y = truth
    open_ones = [i for i, atoms in enumerate(X) if not atoms.pbc.any()]
    noise = np.random.default_rng(5).uniform(0.5, 2.0, len(X))
    magnitude = np.full(len(X), np.nan)
    charges, born = [[None] * len(X) for _ in range(2)]
    magnitude[open_ones] = model.predict_target(phi[open_ones], "dipole_magnitude")
    for i in open_ones[::3]:
        charges[i] = model.predict_charges(phi[i : i + 1])[0]
        born[i] = model.predict_born_effective_charges(phi[i : i + 1])[0]
    return make_targets(
        energy=[e if i % 3 else None for i, e in enumerate(y["energy"])],
        forces=[f if i % 2 else None for i, f in enumerate(y["forces"])],
        forces_sigma=noise,
        stress=y["stress"],
        charges=charges,
        dipole_magnitude=magnitude,
        born_effective_charges=born,
    )


@pytest.mark.parametrize(
    "names",
    [
        ["energy"],
        ["forces", "forces_sigma"],
        ["energy", "forces", "stress", "dipole_magnitude", "born_effective_charges", "charges"],
    ],
    ids=lambda names: f"{len(names)} columns",
)
def test_several_processes_and_threads(truth, names):
    _, phi, _, _ = truth
    y = several_targets(truth)[names]
    weights = np.append(np.random.default_rng(1).integers(0, 3, len(phi) - 1), 2.0)
    bias = {"Na": 0.7, "Cl": -0.7} if "dipole_magnitude" in names else None
    model = KQEqRegressor(**OPTIONS, charge_bias=bias, store_triangles=True, tol=1e-20)
    whole = copy.deepcopy(model).fit(phi, y, weights)
    size = np.abs(whole.coef_).max()
    for backend in ("loky", "threading"):
        with joblib.parallel_config(backend=backend, n_jobs=2):
            parallel = copy.deepcopy(model).fit(phi, y, weights)
        assert_allclose(parallel.coef_, whole.coef_, rtol=0, atol=1e-7 * size)
        assert_allclose(parallel.atomic_energies_, whole.atomic_energies_, rtol=1e-7)
        losses = [m.fit_history_[-1]["loss"] for m in (parallel, whole)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-9)
        std = [m.predict_std(phi, ["energy"])["energy"] for m in (parallel, whole)]
        assert_allclose(*std, rtol=1e-6)


def test_messages_of_workers_name_the_structure_among_all(truth):
    _, phi, _, y = truth
    labels = make_targets(forces=[None] * 20 + list(y["forces"][20:]))
    model = KQEqRegressor(response=QEq(radius_scale=30.0), n_jobs=2)
    with pytest.raises(ValueError, match=r"structure 2[0-3] .* not positive definite|Angstrom"):
        model.fit(phi, labels)
