"""The search for the settings of models of charges and dipoles."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    ChargeSearchCV,
    CURSparsifier,
    GAPRegressor,
    KQEqRegressor,
    QEq,
    SOAPFeaturizer,
    StructureBlocks,
    VectorSOAPFeaturizer,
    make_targets,
    predict_targets,
)
from skqeq.model_selection import log_evidence
from skqeq.models import _charge_trials
from skqeq.models._charge_trials import Settings
from skqeq.models._kernel_matrices import kernel_matrices
from skqeq.models._left_out import Covariance, LeftOutError, NegativeEvidence, optimise

from .. import helpers

pytestmark = pytest.mark.filterwarnings("ignore")


def pipeline(r_cut=2.5, response=None, dipole_cutoffs=None, **options):
    soap = SOAPFeaturizer(r_cut=r_cut, n_max=2, l_max=1)
    model = KQEqRegressor(response=response, **options)
    if dipole_cutoffs is None:
        return make_pipeline(soap, CURSparsifier(n_points=4), model)
    vectors = VectorSOAPFeaturizer(dipole_cutoffs, n_max=2, l_max=1, n_channels=2)
    kernels = make_pipeline(soap, CURSparsifier(n_points=4))
    return make_pipeline(StructureBlocks([("chi", kernels), ("dipole", vectors)]), model)


@pytest.fixture(scope="module")
def data():
    """Molecules with dipoles and charges of a model, with noise; some charges are missing."""
    names = ("H2O", "CH3OH", "NH3", "CH3CN")
    X = [helpers.rattled(name, seed) for seed in range(5) for name in names]
    rng = np.random.default_rng(0)
    charges = [0.3 * (a.numbers - a.numbers.mean()) + rng.normal(0, 0.1, len(a)) for a in X]
    charges = [q - q.mean() for q in charges]
    dipoles = np.array([q @ (a.positions - a.get_center_of_mass()) for a, q in zip(X, charges)])
    dipoles += rng.normal(0, 0.05, dipoles.shape)
    for i in (3, 8):
        charges[i] = None
    return X, make_targets(dipole=dipoles, charges=charges), np.repeat(np.arange(10), 2)


FLOW = ChargeFlow(radius_scale=0.6)


@pytest.mark.parametrize(("response", "cutoffs"), [(QEq(), None), (FLOW, None), (FLOW, (2.0, 3.0))])
def test_left_out_errors_are_those_of_separate_fits(data, response, cutoffs):
    X, y, groups = data
    model = pipeline(2.5, response, cutoffs, sigma_dipole=0.05, sigma_charges=0.1)
    features = model[:-1].fit_transform(X)
    matrices = kernel_matrices(model[-1], features, y)
    settings = Settings(model)
    logs = settings.logs(model, matrices.terms, matrices.names)
    left_out = LeftOutError(matrices, [(groups, 1.0)])
    [errors] = left_out.errors(Covariance(matrices, logs))
    norms = {"dipole": [], "charges": []}
    for g in range(10):
        test = np.flatnonzero(groups == g)
        train = np.flatnonzero(groups != g)
        fitted = clone(model[-1]).fit(features[train], y[train])
        found = predict_targets(fitted, features[test], ["dipole", "charges"])
        for name in norms:
            for value, label in zip(found[name], y[name][test], strict=True):
                if label is not None:
                    norms[name].append(np.linalg.norm(value - label))
    for name in norms:
        assert errors[name] == pytest.approx(np.mean(norms[name]), rel=1e-4)
    value, _ = left_out(Covariance(matrices, logs))
    assert value == pytest.approx(np.mean(np.log(list(errors.values()))), rel=1e-12)


@pytest.mark.parametrize("cutoffs", [None, 2.0])
def test_evidence_agrees_with_that_of_the_model(data, cutoffs):
    X, y, _ = data
    model = pipeline(2.5, FLOW, cutoffs, sigma_dipole=0.05, sigma_charges=0.1)
    features = model[:-1].fit_transform(X)
    matrices = kernel_matrices(model[-1], features, y)
    logs = Settings(model).logs(model, matrices.terms, matrices.names)
    value, _ = NegativeEvidence(matrices)(Covariance(matrices, logs))
    expected = log_evidence(model[-1], features, y).value
    assert -value * len(matrices.residual) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("kind", ["loo", "evidence"])
def test_gradients_are_finite_differences(data, kind):
    X, y, groups = data
    model = pipeline((2.0, 3.0), FLOW, (2.0, 3.0), sigma_dipole=0.05, sigma_charges=0.1)
    matrices = kernel_matrices(model[-1], model[:-1].fit_transform(X), y)
    of_charges = [(f, b) for f in ("chi", "reference") for b in (0, 1, None)]
    assert matrices.terms == [*of_charges, ("dipole", 0), ("dipole", 1)]
    by_size = np.array([len(atoms) for atoms in X])
    objective = LeftOutError(matrices, [(groups, 0.3), (by_size, 0.7)])
    if kind == "evidence":
        objective = NegativeEvidence(matrices)
    logs = np.log([1.0, 0.3, 5.0, 0.1, 0.05, 0.5, 0.2, 0.1, 0.05, 0.1])

    def value(x):
        return objective(Covariance(matrices, x))[0]

    covariance = Covariance(matrices, logs)
    gradient, h = covariance.gradient(objective(covariance)[1]), 1e-5
    expected = [(value(logs + h * e) - value(logs - h * e)) / (2 * h) for e in np.eye(len(logs))]
    assert_allclose(gradient, expected, atol=1e-6 * np.abs(gradient).max())


def test_the_optimum_does_not_depend_on_the_start(data):
    X, y, groups = data
    model = pipeline(r_cut=(2.0, 3.0), response=FLOW)
    matrices = kernel_matrices(model[-1], model[:-1].fit_transform(X), y)
    objective = LeftOutError(matrices, [(groups, 1.0)])
    centre = Settings(model).logs(model, matrices.terms, matrices.names)
    rng = np.random.default_rng(1)
    ends = [
        optimise(objective, matrices, centre + rng.normal(0, 1, len(centre)), centre, 10.0, 200)
        for _ in range(3)
    ]
    assert_allclose([value for _, value in ends], ends[0][1], atol=5e-3)
    start, _ = objective(Covariance(matrices, centre))
    assert ends[0][1] < start - 0.05


def test_parameters_give_back_the_amplitudes(data):
    X, y, _ = data
    model = pipeline(r_cut=(2.0, 3.0), response=FLOW)
    matrices = kernel_matrices(model[-1], model[:-1].fit_transform(X), y)
    settings = Settings(model)
    logs = np.log([2.0, 0.3, 5.0, 0.4, 0.01, 0.5, 0.05, 0.1])
    params = settings.params(model, matrices.terms, matrices.names, logs)
    weights = params["cursparsifier__block_weights"]
    assert_allclose(weights["chi"], np.array([4.0, 0.09]) / 4.09)
    assert params["kqeqregressor__amplitude_chi"] == pytest.approx(np.sqrt(4.09))
    assert params["kqeqregressor__sigma_charges"] == pytest.approx(0.1)
    changed = clone(model).set_params(**params)
    assert_allclose(settings.logs(changed, matrices.terms, matrices.names), logs, rtol=1e-12)
    # A column block without influence is left out.
    params = settings.params(model, matrices.terms, matrices.names, logs - np.eye(8)[4] * 9)
    assert params["cursparsifier__block_weights"]["reference"] == (1.0, 0.0)


def test_parameters_of_atomic_dipoles(data):
    X, y, _ = data
    model = pipeline(2.5, FLOW, (2.0, 3.0))
    matrices = kernel_matrices(model[-1], model[:-1].fit_transform(X), y)
    settings, logs = Settings(model), np.log([2.0, 5.0, 0.4, 0.5, 0.3, 0.1, 0.05, 0.1])
    params = settings.params(model, matrices.terms, matrices.names, logs)
    assert params["kqeqregressor__amplitude_dipole"] == pytest.approx(np.sqrt(0.1))
    assert_allclose(params["structureblocks__dipole__block_weights"], [0.9, 0.1])
    assert params["structureblocks__chi__cursparsifier__block_weights"] is None
    changed = clone(model).set_params(**params)
    assert_allclose(settings.logs(changed, matrices.terms, matrices.names), logs, rtol=1e-12)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(_charge_trials, "CUTOFFS", ((2.0, 3.0), 2.0))
    monkeypatch.setattr(_charge_trials, "EXPONENTS", (1,))
    monkeypatch.setattr(_charge_trials, "MAX_STEPS", 1)


def search(model=None, **options):
    options = {"trial_rows": 60, "final_rows": 100, "trial_points": 3, "min_gain": 0.0, **options}
    return ChargeSearchCV(model or pipeline(), **options)


def test_atomic_dipoles(few, data):
    """The search finds their amplitudes, and the best model has named blocks of both kinds."""
    X, y, groups = data
    y = make_targets(dipole=y["dipole"] + 0.3 * np.roll(y["dipole"], 1, axis=1))
    trial = search(pipeline(2.5, FLOW, (2.0, 3.0))).fit(X, y, groups=groups)
    names = trial.best_estimator_[:-1].transform(X).source.names
    assert names[0] == "chi" and names[-1] == "dipole"
    assert trial.best_params_["kqeqregressor__amplitude_dipole"] != 0.15
    assert len(trial.best_params_["structureblocks__dipole__block_weights"]) == 2
    assert trial.score(X, y) > 0.5


@pytest.mark.parametrize("optimize", ["loo", "evidence"])
def test_each_step_keeps_only_what_lowers_the_score(few, data, optimize):
    X, y, groups = data
    trial = search(optimize=optimize).fit(X, y, groups=groups)
    *steps, last = trial.trials_
    scores = [t.score for t in steps]
    assert min(scores) < scores[0]
    assert {"start", "response", "radius_scale", "cutoffs", "zeta"} <= {t.step for t in steps}
    assert last.step == "amplitudes and noise" and last.score == trial.best_score_
    best = trial.best_estimator_
    for name, value in trial.best_params_.items():
        assert str(best.get_params()[name]) == str(value)
    assert best.get_params()["cursparsifier__n_points"] == 4
    assert (
        best[-1].response.get_params() == trial.best_params_["kqeqregressor__response"].get_params()
    )
    found = trial.predict(X)
    np.testing.assert_array_equal(found["dipole"], best.predict(X)["dipole"])
    assert trial.score(X, y) == best.score(X, y) > 0.5
    again = search(optimize=optimize, refit=False).fit(X, y, groups=groups)
    assert [t.score for t in again.trials_] == pytest.approx([t.score for t in trial.trials_])


def test_groups_are_left_out_together(few, data):
    """Copies of a molecule in one group do not help to predict each other."""
    X, y, _ = data
    y = make_targets(dipole=list(y["dipole"]))
    twice, labels = [*X, *X], np.concatenate([y, y])
    apart = search(refit=False, trial_rows=200).fit(twice, labels)
    together = search(refit=False, trial_rows=200).fit(
        twice, labels, groups=np.tile(np.arange(len(X)), 2)
    )
    ratio = apart.trials_[0].errors["dipole"] / together.trials_[0].errors["dipole"]
    assert ratio < 0.9


def test_an_interrupt_keeps_the_trials(few, data, monkeypatch):
    X, y, groups = data
    calls = []
    method = CURSparsifier.fit

    def fit(self, *args, **kwargs):
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return method(self, *args, **kwargs)

    monkeypatch.setattr(CURSparsifier, "fit", fit)
    trial = search()
    with pytest.raises(KeyboardInterrupt):
        trial.fit(X, y, groups=groups)
    assert trial.trials_[0].step == "start"
    assert {t.step for t in trial.trials_} >= {"response", "radius_scale"}


def test_bad_input(data):
    X, y, groups = data
    other = make_pipeline(SOAPFeaturizer(), GAPRegressor())
    with pytest.raises(ValueError, match="got SOAPFeaturizer, GAPRegressor"):
        ChargeSearchCV(other).fit(X, y)
    lacking = pipeline(2.5, None, 2.0)
    lacking[0].transformer_list[0] = ("reference", lacking[0].transformer_list[0][1])
    with pytest.raises(ValueError, match="got StructureBlocks, KQEqRegressor"):
        ChargeSearchCV(lacking).fit(X, y)
    with pytest.raises(ValueError, match="groups has 3 entries for 20 structures"):
        search().fit(X, y, groups=groups[:3])
    energies = make_targets(energy=np.zeros(len(X)))
    with pytest.raises(ValueError, match="ChargeSearchCV is for labels that are linear"):
        search().fit(X, energies)
    with pytest.raises(ValueError, match="there is only one group"):
        search().fit(X, y, groups=np.zeros(len(X)))
    with pytest.raises(ValueError, match="size_weight"):
        search(size_weight=2.0).fit(X, y)


def test_time_limit(few, data):
    X, y, groups = data
    trial = search(time_limit=0.0, refit=False).fit(X, y, groups=groups)
    assert [t.step for t in trial.trials_] == ["start", "amplitudes and noise"]


def test_empty_candidates_keep_response_and_cutoffs(few, data):
    X, y, groups = data
    given = pipeline(response=ChargeFlow(radius_scale=0.6, range=0.3))
    trial = search(refit=False, responses=(), cutoffs=()).set_params(estimator=given)
    trial.fit(X, y, groups=groups)
    assert {"response", "cutoffs"}.isdisjoint(t.step for t in trial.trials_)
    assert isinstance(trial.best_estimator_[-1].response, ChargeFlow)
    assert trial.best_estimator_[0].r_cut == 2.5
    few_others = search(refit=False, responses=[FLOW], cutoffs=[3.0]).fit(X, y, groups=groups)
    tried = [t.value for t in few_others.trials_ if t.step in ("response", "cutoffs")]
    assert [str(value) for value in tried] == [str(FLOW), "3.0"]


def test_structures_of_one_size_have_no_errors_by_size(few):
    X = [helpers.rattled("H2O", seed) for seed in range(12)]
    D = np.array([atoms.positions[1] + atoms.positions[2] - 2 * atoms.positions[0] for atoms in X])
    trial, other = (search(refit=False, size_weight=w).fit(X, D) for w in (0.5, 0.0))
    assert all(t.errors_by_size == {} for t in trial.trials_)
    assert [t.score for t in trial.trials_] == [t.score for t in other.trials_]


def test_trials_say_what_was_kept(few, data):
    X, y, groups = data
    *steps, last = search(refit=False, min_gain=0.01).fit(X, y, groups=groups).trials_
    best = np.inf
    for trial in steps:
        assert trial.kept == (trial.score < best - 0.01)
        best = min(best, trial.score) if trial.kept else best
    assert last.kept
