"""The search for the settings of a potential."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    KQEqRegressor,
    PotentialSearchCV,
    QEq,
    SOAPFeaturizer,
    StructureBlocks,
    make_targets,
    predict_targets,
)
from skqeq.models import _potential_trials
from skqeq.response import NoCharges

from .. import helpers

pytestmark = pytest.mark.filterwarnings("ignore")
MODEL = "gapkqeqregressor__"


def half():
    return make_pipeline(SOAPFeaturizer(r_cut=2.0, n_max=2, l_max=1), CURSparsifier(n_points=4))


def pipeline(**options):
    blocks = StructureBlocks([("chi", half()), ("gap", half())])
    regressor = GAPKQEqRegressor(amplitude_gap=10.0, sigma_energy=0.1, max_iter=2, **options)
    return make_pipeline(blocks, regressor)


@pytest.fixture(scope="module")
def data():
    """Molecules whose energies and forces are those of a model with charges."""
    X = [helpers.rattled(name, seed) for seed in range(6) for name in ("H2O", "CH3OH", "NH3")]
    rng = np.random.default_rng(0)
    charges = [rng.normal(size=len(atoms)) * 0.1 for atoms in X]
    energy = [float(np.sum((a.get_all_distances() - 1.2) ** 2)) for a in X]
    charges = [q - q.mean() for q in charges]
    model = make_pipeline(
        StructureBlocks([("chi", half()), ("gap", half())]),
        GAPKQEqRegressor(sigma_energy=0.01, response=QEq(hardness=20.0, radius_scale=1.0)),
    ).fit(X, make_targets(energy=energy, charges=charges))
    predicted = predict_targets(model, X, ["energy", "forces", "dipole"])
    groups = np.repeat(np.arange(6), 3)
    return (
        X,
        make_targets(**{name: list(predicted[name]) for name in predicted.dtype.names}),
        groups,
    )


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(_potential_trials, "CUTOFFS", (2.0, (2.0, 3.0)))
    monkeypatch.setattr(_potential_trials, "RESOLUTIONS", ((2, 2),))
    monkeypatch.setattr(_potential_trials, "EXPONENTS", (1,))
    monkeypatch.setattr(_potential_trials, "GAUSSIANS", ())
    responses = (QEq(hardness=20.0, radius_scale=1.0), ChargeFlow(softness=0.0))
    monkeypatch.setattr(_potential_trials, "RESPONSES", responses)
    monkeypatch.setattr(_potential_trials, "RESPONSE_FACTORS", {"hardness": 2.0, "softness": 3.0})
    monkeypatch.setattr(_potential_trials, "MAX_STEPS", 1)


def search(**options):
    return PotentialSearchCV(
        pipeline(), **{"trial_points": 3, "trial_atoms": 39, "cv": 3, **options}
    )


def test_each_step_keeps_only_what_lowers_the_errors(data, monkeypatch):
    X, y, groups = data
    y = y[["energy", "forces"]]
    trial = search(min_gain=0.0).fit(X, y, groups=groups)
    scores = [t.score for t in trial.trials_]
    assert trial.best_score_ == min(scores) < scores[0]
    steps = {"cutoffs", "n_max, l_max", "zeta", "sigma_energy", "sigma_forces", "response"}
    assert steps <= {t.step for t in trial.trials_}
    best = np.inf
    for t in trial.trials_:
        assert t.score == pytest.approx(np.mean(np.log(list(t.rmse.values()))))
        assert t.kept == (t.score < best)
        best = min(best, t.score)
    # The chosen settings are those of the best trials, and nothing else of the pipeline changes.
    best = trial.best_estimator_
    assert best.get_params()[f"{MODEL}tol"] == GAPKQEqRegressor().tol
    for name in ("chi", "gap"):
        assert best.get_params()[f"structureblocks__{name}__cursparsifier__n_points"] == 4
    for name, value in trial.best_params_.items():
        assert str(best.get_params()[name]) == str(value)
    # The energies need charges, so that these are chosen.
    assert not isinstance(best[-1].response, NoCharges)
    found = predict_targets(trial, X, ["energy"])["energy"]
    np.testing.assert_array_equal(found, predict_targets(best, X, ["energy"])["energy"])
    # Fits without charges are linear, and do not depend on rounding errors.
    monkeypatch.setattr(_potential_trials.Trials, "_choose_charges", lambda *args: None)
    again = search(min_gain=0.0, refit=False).fit(X, y, groups=groups)
    assert [t.score for t in again.trials_[:4]] == pytest.approx(scores[:4], rel=1e-6)


def test_scores_are_those_of_a_naive_cross_validation(data, monkeypatch):
    X, y, groups = data
    monkeypatch.setattr(_potential_trials, "RESPONSES", ())
    y = y[["energy", "forces"]]
    trial = PotentialSearchCV(
        pipeline(response=NoCharges()), trial_points=3, trial_atoms=1000, cv=3, refit=False
    ).fit(X, y, groups=groups)
    start, first = trial.trials_[:2]
    assert start.step == "start"
    params = {f"structureblocks__{n}__cursparsifier__n_points": 3 for n in ("chi", "gap")}
    soap = "structureblocks__gap__soapfeaturizer__"
    params |= {f"{soap}r_cut": 2.0, f"{soap}cutoff_width": 1.0, f"{MODEL}response": NoCharges()}
    logs = []
    for train, test in GroupKFold(3, shuffle=True, random_state=0).split(X, groups=groups):
        model = clone(pipeline()).set_params(**params).fit([X[i] for i in train], y[train])
        energy = predict_targets(model, [X[i] for i in test], ["energy"])["energy"]
        error = (energy - y["energy"][test]) / [len(X[i]) for i in test]
        logs.append(np.log(np.mean(error**2)) / 2)
    assert first.rmse["energy"] == pytest.approx(np.exp(np.mean(logs)), rel=1e-6)
    with pytest.raises((NotFittedError, AttributeError)):
        trial.predict(X)


def test_groups_are_not_divided_and_few_structures_are_used(data, monkeypatch):
    X, y, groups = data
    group_of = {a.positions.tobytes(): g for a, g in zip(X, groups)}
    fit, predict = GAPKQEqRegressor.fit, _potential_trials.predict_for_scores
    train, test = [], []

    def fit_and_record(self, X, y, *args, **kwargs):
        train.append([s.positions.tobytes() for s in X.structures])
        return fit(self, X, y, *args, **kwargs)

    def predict_and_record(model, X, names):
        test.append([a.positions.tobytes() for a in X])
        return predict(model, X, names)

    monkeypatch.setattr(GAPKQEqRegressor, "fit", fit_and_record)
    monkeypatch.setattr(_potential_trials, "predict_for_scores", predict_and_record)
    search(refit=False).fit(X, y[["energy"]], groups=groups)
    n_atoms = {a.positions.tobytes(): len(a) for a in X}
    for trained, tested in zip(train, test, strict=True):
        assert {group_of[p] for p in trained}.isdisjoint(group_of[p] for p in tested)
        # The last structure may exceed the limit, 39.
        assert 39 <= sum(n_atoms[p] for p in trained + tested) <= 39 + 5


def test_other_targets_need_charges(data):
    X, y, groups = data
    trial = search(refit=False).fit(X, y[["energy", "dipole"]], groups=groups)
    # Local energies are chosen without charges, and thus without dipoles.
    stages = ["dipole" in t.rmse for t in trial.trials_]
    assert stages == sorted(stages)
    assert "zeta" in {t.step for t, charges in zip(trial.trials_, stages) if not charges}
    first = trial.trials_[stages.index(True)]
    assert (first.step, str(first.value), first.kept) == ("response", "QEq(hardness=2.7)", True)
    assert not isinstance(trial.best_estimator_[-1].response, NoCharges)


def test_the_given_response_is_a_candidate(data):
    X, y, groups = data
    given = [pipeline(response=response) for response in (QEq(), NoCharges())]
    options = {"trial_points": 3, "trial_atoms": 39, "cv": 3, "refit": False}
    trial = PotentialSearchCV(given[0], **options).fit(X, y[["energy"]], groups=groups)
    tried = [str(t.value) for t in trial.trials_ if t.step == "response"]
    assert tried == [str(QEq()), *map(str, _potential_trials.RESPONSES)]
    # Models without charges predict no dipoles.
    trial = PotentialSearchCV(given[1], **options).fit(X, y[["energy", "dipole"]], groups=groups)
    tried = [str(t.value) for t in trial.trials_ if t.step == "response"]
    assert tried == list(map(str, _potential_trials.RESPONSES))


def test_trials_that_are_much_worse_end_early(data, monkeypatch):
    X, y, groups = data
    errors, method = [], _potential_trials.Trials._errors_of_fold

    def errors_of_fold(self, *args):
        errors.append(method(self, *args)[0])
        return errors[-1:]

    monkeypatch.setattr(_potential_trials.Trials, "_errors_of_fold", errors_of_fold)
    monkeypatch.setattr(_potential_trials, "MAX_EXCESS", -np.inf)
    # Nothing but the start is kept.
    trials = search(refit=False, min_gain=100.0).fit(X, y[["energy"]], groups=groups).trials_
    start, others = errors[:3], errors[3:]
    assert trials[0].score == pytest.approx(np.mean(start))
    assert len(others) == len(trials) - 1
    scores = [(error + start[1] + start[2]) / 3 for error in others]
    assert [t.score for t in trials[1:]] == pytest.approx(scores)


def test_candidates_are_not_modified(data):
    X, y, groups = data
    given = ChargeFlow(softness=0.03)
    before = [str(r) for r in (given, *_potential_trials.RESPONSES)]
    estimator = pipeline(response=given)
    # Nothing but the start is kept.
    options = {"trial_points": 3, "trial_atoms": 39, "cv": 3, "refit": False, "min_gain": 100.0}
    trial = PotentialSearchCV(estimator, **options)
    trial.fit(X, y[["energy", "dipole"]], groups=groups)
    assert [str(r) for r in (given, *_potential_trials.RESPONSES)] == before
    # A number is changed in both directions from the value that was kept.
    assert [t.value for t in trial.trials_ if t.step == "softness"] == pytest.approx([0.01, 0.09])


def test_an_interrupt_keeps_the_trials(data, monkeypatch):
    X, y, groups = data
    calls = []
    method = GAPKQEqRegressor.fit

    def fit(self, *args, **kwargs):
        calls.append(1)
        if len(calls) > 7:
            raise KeyboardInterrupt
        return method(self, *args, **kwargs)

    monkeypatch.setattr(GAPKQEqRegressor, "fit", fit)
    trial = search()
    with pytest.raises(KeyboardInterrupt):
        trial.fit(X, y[["energy"]], groups=groups)
    assert len(trial.trials_) == 2


@pytest.mark.parametrize(
    "estimator, text",
    [
        (make_pipeline(half(), KQEqRegressor()), "needs a pipeline of StructureBlocks"),
        (
            make_pipeline(
                StructureBlocks([("chi", half()), ("gap", SOAPFeaturizer())]), GAPKQEqRegressor()
            ),
            "blocks 'chi' and 'gap' are pipelines",
        ),
    ],
)
def test_other_pipelines_are_refused(data, estimator, text):
    X, y, _ = data
    with pytest.raises(ValueError, match=text):
        PotentialSearchCV(estimator).fit(X, y)


def test_bad_labels_and_groups(data):
    X, y, groups = data
    with pytest.raises(ValueError, match="needs labels of one of energy, forces, stress"):
        search().fit(X, y[["dipole"]])
    with pytest.raises(ValueError, match="groups has 3 entries for 18 structures"):
        search().fit(X, y, groups=groups[:3])
    with pytest.raises(ValueError, match="trial_atoms"):
        search(trial_atoms=0).fit(X, y)


def test_groups_with_elements_of_their_own_are_refused(data):
    X, y, _ = data
    some = [i for i in range(len(X)) if i % 3 != 1]  # water and ammonia
    elements = np.array([len(X[i]) for i in some])
    with pytest.raises(ValueError, match="no left-out structure can be predicted"):
        search(cv=2).fit([X[i] for i in some], y[["energy"]][some], groups=elements)


def test_few_atoms_still_give_every_fold_a_group(data):
    X, y, groups = data
    trial = search(trial_atoms=1, cv=5, refit=False).fit(X, y[["energy"]], groups=groups)
    assert np.isfinite(trial.best_score_)


def test_time_limit(data):
    """The first settings of each stage that the labels need are tried."""
    X, y, groups = data
    trial = search(time_limit=0.0, refit=False).fit(X, y[["energy"]], groups=groups)
    assert [t.step for t in trial.trials_] == ["start"]
    trial = search(time_limit=0.0, refit=False).fit(X, y[["energy", "dipole"]], groups=groups)
    assert [t.step for t in trial.trials_] == ["start", "response"]
    assert not isinstance(trial.best_estimator_[-1].response, NoCharges)


def test_empty_candidates_keep_response_and_cutoffs(data):
    """A response that the user gave is kept even if local energies alone have smaller errors."""
    X, y, groups = data
    options = {"refit": False, "responses": (), "cutoffs": ()}
    trial = search(**options).set_params(estimator=pipeline(response=QEq(hardness=7.0)))
    trial.fit(X, y[["energy"]], groups=groups)
    assert {"cutoffs", "cutoffs of chi"}.isdisjoint(t.step for t in trial.trials_)
    assert [str(t.value) for t in trial.trials_ if t.step == "response"] == ["QEq(hardness=7.0)"]
    assert isinstance(trial.best_estimator_[-1].response, QEq)
    trial = search(**options).set_params(estimator=pipeline(response=NoCharges()))
    trial.fit(X, y[["energy"]], groups=groups)
    assert isinstance(trial.best_estimator_[-1].response, NoCharges)
