"""KQEqRegressorCV against explicit fits without the held-out structures."""

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
from ase.io import write
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    LeaveOneOut,
    ShuffleSplit,
    cross_val_predict,
)
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import (
    ChargeFlow,
    CURSparsifier,
    KQEqRegressor,
    KQEqRegressorCV,
    QEqRegressor,
    SOAPFeaturizer,
    calibrate,
    make_targets,
    predict_charges,
    predict_interval,
    predict_std,
)
from skqeq.datasets import load_molecules, open_structures
from skqeq.metrics import target_r2, target_rmse
from skqeq.model_selection import TargetScorer
from skqeq.models import _cv_residuals
from skqeq.models._cv_blocks import solve_blocks
from skqeq.models._workers import Part, Workers

SIGMAS = np.array([1e-3, 0.1])


@pytest.fixture(scope="module")
def data():
    X, y, groups = load_molecules(return_groups=True)
    common = [i for i, atoms in enumerate(X) if 9 not in atoms.numbers][:30]
    X, y, groups = [X[i] for i in common], y[common], groups[common]
    features = make_pipeline(
        SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2), CURSparsifier(n_points=15)
    ).fit_transform(X)
    groups[:20] = np.random.default_rng(0).permutation(20) // 2
    return features, y, groups


@pytest.fixture(params=["few rows", "many rows", "rows that are not stored"])
def regime(request, memory_budget, data):
    """Data for each of the three ways to compute held-out residuals."""
    features, _, groups = data
    if request.param == "few rows":
        return data
    if request.param == "rows that are not stored":
        memory_budget(0)
    sparse = CURSparsifier(n_points=3)
    parent = type(features)(features.structures, features.source.parent)
    return sparse.fit_transform(parent), data[1], groups


@pytest.mark.parametrize(
    "model, cv",
    [
        (KQEqRegressor(), None),
        (KQEqRegressor(), LeaveOneGroupOut()),
        (KQEqRegressor(response=ChargeFlow()), GroupKFold(3)),
    ],
)
def test_dipoles(regime, model, cv):
    X, y, groups = regime
    D = y["dipole"]
    groups = None if cv is None else groups
    search = KQEqRegressorCV(model, SIGMAS, cv=cv, scoring="rmse").fit(X, D, groups=groups)
    splitter = LeaveOneOut() if cv is None else cv
    for sigma, rmse in zip(SIGMAS, search.cv_results_["rmse_dipole"], strict=True):
        model = model.set_params(sigma_dipole=sigma)
        errors = cross_val_predict(model, X, D, cv=splitter, groups=groups) - D
        if cv is None:
            expected = np.sqrt(np.mean(errors**2))
            assert search.cv_results_["mae_dipole"].shape == (2,)
        else:
            folds = [np.sqrt(np.mean(errors[t] ** 2)) for _, t in cv.split(X, D, groups)]
            expected = np.mean(folds)
        assert rmse == pytest.approx(expected, rel=1e-6)
        if sigma == search.best_params_["sigma_dipole"]:
            assert_allclose(search.left_out_["dipole"], D + errors, atol=1e-6)
    best = copy.deepcopy(model).set_params(**search.best_params_).fit(X, D)
    assert_allclose(search.predict(X), best.predict(X), atol=1e-8)
    assert search.score(X, D) == pytest.approx(best.score(X, D))


def test_the_same_as_a_grid_search(regime):
    X, y, groups = regime
    grid = {"sigma_dipole": SIGMAS}
    for metric, sign in (("rmse", -1), ("mae", -1), ("r2", 1)):
        brute = GridSearchCV(
            KQEqRegressor(), grid, cv=GroupKFold(4), scoring=TargetScorer("dipole", metric)
        ).fit(X, y["dipole"], groups=groups)
        fast = KQEqRegressorCV(sigmas=SIGMAS, cv=GroupKFold(4), scoring=metric)
        fast.fit(X, y["dipole"], groups=groups)
        found = sign * fast.cv_results_[f"{metric}_dipole"]
        assert_allclose(found, brute.cv_results_["mean_test_score"], rtol=1e-6)
        assert fast.best_params_ == brute.best_params_
        assert fast.best_score_ == pytest.approx(brute.best_score_)
        assert_allclose(fast.best_estimator_.coef_, brute.best_estimator_.coef_, atol=1e-6)


def test_several_targets_and_gaps(regime):
    X, y, groups = regime
    rng = np.random.default_rng(1)
    D = y["dipole"].copy()
    D[3] = np.nan
    D[5, 1] = np.nan
    charges = [None if i % 3 == 1 else q for i, q in enumerate(y["charges"])]
    table = make_targets(dipole=D, charges=charges, dipole_sigma=rng.uniform(0.5, 2, len(X)))
    sigmas = {"sigma_dipole": [0.01, 0.1], "sigma_charges": [0.02, 0.2]}
    search = KQEqRegressorCV(sigmas=sigmas, cv=KFold(3)).fit(X, table)
    assert [tuple(p.values()) for p in search.cv_results_["params"]] == [
        (0.01, 0.02), (0.01, 0.2), (0.1, 0.02), (0.1, 0.2)
    ]  # fmt: skip
    model = KQEqRegressor(**search.best_params_)
    for train, test in KFold(3).split(D):
        predicted = copy.deepcopy(model).fit(X[train], table[train]).predict(X[test])
        for i, row in zip(test, predicted, strict=True):
            known = ~np.isnan(D[i])
            if known.any():
                found = search.left_out_["dipole"][i]
                assert_allclose(found[known], row["dipole"][known], atol=1e-6)
            if charges[i] is not None:
                assert_allclose(search.left_out_["charges"][i], row["charges"], atol=1e-6)
            else:
                assert search.left_out_["charges"][i] is None
    assert np.isnan(search.left_out_["dipole"][3]).all()
    only = KQEqRegressorCV(sigmas={"sigma_charges": [0.3]}).fit(X, table)
    assert only.best_params_ == {"sigma_dipole": 0.002, "sigma_charges": 0.3}


def test_groups_without_folds_are_left_out_together(data):
    X, y, groups = data
    search = KQEqRegressorCV(sigmas=[0.05]).fit(X, y["dipole"], groups=groups)
    model = KQEqRegressor(sigma_dipole=0.05)
    expected = cross_val_predict(model, X, y["dipole"], cv=LeaveOneGroupOut(), groups=groups)
    assert_allclose(search.left_out_["dipole"], expected, atol=1e-6)


def test_weights(data):
    X, y, _ = data
    weights = np.random.default_rng(0).integers(0, 3, len(X)).astype(float)
    search = KQEqRegressorCV(sigmas=[0.05]).fit(X, y["dipole"], sample_weight=weights)
    i = int(np.flatnonzero(weights == 2)[0])
    others = np.delete(np.arange(len(X)), i)
    model = KQEqRegressor(sigma_dipole=0.05).fit(X[others], y["dipole"][others], weights[others])
    assert_allclose(search.left_out_["dipole"][i], model.predict(X[[i]])[0], atol=1e-6)
    # Structures of weight zero influence neither the fit nor the scores.
    some = np.flatnonzero(weights)
    fewer = KQEqRegressorCV(sigmas=[0.05]).fit(X[some], y["dipole"][some], weights[some])
    assert len(some) < len(X)
    assert search.best_score_ == pytest.approx(fewer.best_score_, rel=1e-8)
    assert_allclose(search.best_estimator_.coef_, fewer.best_estimator_.coef_, atol=1e-8)


def test_weights_are_no_groups(data):
    """The third argument is `sample_weight`, as in scikit-learn; `groups` is a keyword argument."""
    X, y, groups = data
    weights = np.random.default_rng(0).uniform(0.5, 2.0, len(X))
    third = KQEqRegressorCV(sigmas=[0.05]).fit(X, y["dipole"], weights)
    named = KQEqRegressorCV(sigmas=[0.05]).fit(X, y["dipole"], sample_weight=weights)
    plain = KQEqRegressorCV(sigmas=[0.05]).fit(X, y["dipole"])
    assert_array_equal(third.left_out_["dipole"], named.left_out_["dipole"])
    assert np.abs(third.left_out_["dipole"] - plain.left_out_["dipole"]).max() > 1e-3
    with pytest.raises(TypeError, match="positional argument"):
        KQEqRegressorCV(sigmas=[0.05]).fit(X, y["dipole"], weights, groups)


def test_noise_by_evidence(data):
    X, y, _ = data
    search = KQEqRegressorCV(optimize_noise=True).fit(X, y["dipole"])
    history = search.evidence_history_
    assert max(step["evidence"] for step in history) > history[0]["evidence"]
    assert search.best_params_["sigma_dipole"] == search.best_estimator_.sigma_dipole != 0.002
    assert np.isfinite(search.best_score_)


def test_structures_and_pickles(data):
    _, y, _ = data
    structures = data[0].structures
    search = KQEqRegressorCV(QEqRegressor(), [0.02, 0.2]).fit(structures, y["dipole"])
    assert len(predict_charges(search, structures)) == len(structures)
    again = pickle.loads(pickle.dumps(search))
    assert_array_equal(again.predict(structures), search.predict(structures))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sigmas": [0.0, 1.0]}, "positive"),
        ({"sigmas": {"sigma_charges": [1.0]}}, "sigma_charges"),
        ({"scoring": "best"}, "scoring"),
        ({"cv": ShuffleSplit(20)}, "cv must split"),
        ({"cv": LeaveOneOut()}, "use scoring='rmse'"),
    ],
)
def test_bad_parameters(data, options, message):
    X, y, _ = data
    with pytest.raises(ValueError, match=message):
        KQEqRegressorCV(**options).fit(X, y["dipole"])


@pytest.mark.parametrize("scoring", ["r2", "rmse"])
def test_folds_without_labels_of_a_target(regime, scoring):
    """Scores are means over those folds that have labels."""
    X, y, _ = regime
    D, q, folds = y["dipole"].copy(), list(y["charges"]), np.arange(len(X)) // 10
    D[folds == 0], q[20:] = np.nan, [None] * (len(X) - 20)
    sigmas = {"sigma_dipole": [0.05], "sigma_charges": [0.02]}
    search = KQEqRegressorCV(sigmas=sigmas, cv=LeaveOneGroupOut(), scoring=scoring)
    table = make_targets(dipole=D, charges=q)
    search.fit(X, table, groups=folds)
    metric = {"r2": target_r2, "rmse": target_rmse}[scoring]
    for name, present in (("dipole", (1, 2)), ("charges", (0, 1))):
        scores = [
            metric(table[name][folds == f], search.left_out_[name][folds == f]) for f in present
        ]
        expected = search.cv_results_[f"{scoring}_{name}"][0]
        assert np.mean(scores) == pytest.approx(expected, rel=1e-9)


def test_targets_without_held_out_labels(data):
    X, y, _ = data
    D, half = y["dipole"].copy(), np.arange(len(X)) < 15
    cv = [(np.flatnonzero(half), np.flatnonzero(~half))]
    q = [value if known else None for value, known in zip(y["charges"], half, strict=True)]
    search = KQEqRegressorCV(sigmas={"sigma_dipole": [0.05]}, cv=cv, scoring="rmse")
    with pytest.raises(ValueError, match="no structure that has a label of charges"):
        search.fit(X, make_targets(dipole=D, charges=q))
    assert np.isfinite(search.fit(X, D).best_score_)
    D[~half] = np.nan
    with pytest.raises(ValueError, match="no structure that has a label of dipole"):
        search.fit(X, D)


@pytest.mark.parametrize(
    "sigmas, direction", [([1e-6, 2e-6, 3e-6], "larger"), ([5, 6, 7], "smaller")]
)
def test_best_noise_at_the_end_of_the_sigmas(data, sigmas, direction):
    X, y, _ = data
    with pytest.warns(
        UserWarning, match=f"best sigma_dipole, .*, is at the end of sigmas: try {direction} values"
    ):
        KQEqRegressorCV(sigmas=sigmas, scoring="rmse").fit(X, y["dipole"])


def test_other_estimators(data):
    X, y, _ = data
    for model, message in (
        (Ridge(), "must be a charge model"),
        (make_pipeline(CURSparsifier(), Ridge()), "must be a charge model"),
        (make_pipeline(CURSparsifier()), "must be an object implementing 'fit' and 'predict'"),
    ):
        with pytest.raises(TypeError, match=message):
            KQEqRegressorCV(model, cv=3).fit(X, y["dipole"])


def test_bad_labels(data, monkeypatch, memory_budget):
    X, y, groups = data
    magnitudes = make_targets(dipole_magnitude=np.linalg.norm(y["dipole"], axis=1))
    with pytest.raises(ValueError, match="linear in the charges"):
        KQEqRegressorCV().fit(X, magnitudes)
    with pytest.raises(ValueError, match="sigmas must be a dict"):
        KQEqRegressorCV(sigmas=[1.0]).fit(X, y)
    with pytest.raises(ValueError, match="groups holds 3"):
        KQEqRegressorCV().fit(X, y["dipole"], groups=[1, 2, 3])
    memory_budget(0)
    monkeypatch.setattr(_cv_residuals, "FEW_FOLDS", 5)
    from skqeq.structures import _features

    monkeypatch.setattr(_features.StructureFeatures.blocks, "__defaults__", (1, False, ""))
    with pytest.raises(ValueError, match="sort X by group"):
        KQEqRegressorCV().fit(X, y["dipole"], groups=groups)
    # With one structure per fold, each block of rows contains all rows of its folds.
    found = KQEqRegressorCV(sigmas=[0.05]).fit(X, y["dipole"]).left_out_["dipole"]
    model = KQEqRegressor(sigma_dipole=0.05)
    assert_allclose(found, cross_val_predict(model, X, y["dipole"], cv=LeaveOneOut()), atol=1e-6)


def test_groups_spread_over_blocks(data, monkeypatch, memory_budget):
    """Rows are stored only if their group is spread over several blocks, until it is complete."""
    X, y, groups = data
    D, folds = y["dipole"], groups.copy()
    folds[10:] = np.sort(folds[10:])
    expected = KQEqRegressorCV(sigmas=SIGMAS).fit(X, D, groups=folds)
    monkeypatch.setattr(_cv_residuals, "FEW_FOLDS", 5)
    memory_budget(8 * 30 * n_weights(X))  # The budget is sufficient for 30 rows.
    from skqeq.structures import _features

    monkeypatch.setattr(_features.StructureFeatures.blocks, "__defaults__", (1, False, ""))
    found = KQEqRegressorCV(sigmas=SIGMAS).fit(X, D, groups=folds)
    assert_allclose(found.left_out_["dipole"], expected.left_out_["dipole"], atol=1e-9)


@pytest.mark.parametrize("few_folds", [5, 20])
def test_several_processes(regime, monkeypatch, memory_budget, few_folds):
    """Several processes give the results of one process, for all ways to divide the rows."""
    X, y, groups = regime
    monkeypatch.setattr(_cv_residuals, "FEW_FOLDS", few_folds)
    monkeypatch.setattr(Workers, "map", one_after_the_other)
    # With a budget of zero no row may be stored; the test removes this limit.
    if not skqeq.get_memory_budget():
        monkeypatch.setattr(_cv_residuals.ManyFolds, "_check_memory", lambda self: None)
    folds, sigmas = groups % 10, {"sigma_dipole": [0.01, 0.1], "sigma_charges": [0.02, 0.2]}
    charges = list(y["charges"])
    if few_folds == 5:  # One of the parts has no label at all.
        y = y.copy()
        y["dipole"][:14], charges[:14] = np.nan, [None] * 14
    table = make_targets(dipole=y["dipole"], charges=charges)
    found = [
        KQEqRegressorCV(KQEqRegressor(n_jobs=n_jobs), sigmas).fit(X, table, groups=folds)
        for n_jobs in (None, 3)
    ]
    one, several = found
    assert one.best_params_ == several.best_params_
    for name in table.dtype.names:
        for a, b in zip(one.left_out_[name], several.left_out_[name], strict=True):
            assert (a is None) == (b is None)
            assert a is None or np.allclose(a, b, atol=1e-8, equal_nan=True)
    assert_allclose(one.best_estimator_.coef_, several.best_estimator_.coef_, atol=1e-8)


def test_groups_that_would_all_come_back_from_workers(data, monkeypatch, memory_budget):
    """The main process computes the rows itself if workers would return nearly all of them.

    A single process stores only few rows until their group is complete.
    """
    X, y, _ = data
    from skqeq.structures import _features

    monkeypatch.setattr(_features.StructureFeatures.blocks, "__defaults__", (1, False, ""))
    monkeypatch.setattr(_cv_residuals, "FEW_FOLDS", 5)
    divided = []

    def on_parts(workers, function, *arguments):
        divided.append(arguments[0].__name__)
        return one_after_the_other(workers, function, *arguments)

    monkeypatch.setattr(Workers, "map", on_parts)
    model, groups = KQEqRegressor(n_jobs=10), np.arange(len(X)) // 2
    groups[1::2] = np.roll(groups[1::2], 1)  # Adjacent pairs of structures share groups.
    expected = KQEqRegressorCV(sigmas=SIGMAS).fit(X, y["dipole"], groups=groups).left_out_
    for rows, maps in ((12, ["_reduced"]), (89, ["_reduced", "_block_residuals"])):
        divided.clear()
        memory_budget(8 * rows * n_weights(X))
        search = KQEqRegressorCV(model, SIGMAS).fit(X, y["dipole"], groups=groups)
        assert_allclose(search.left_out_["dipole"], expected["dipole"], atol=1e-8)
        assert divided == maps


def n_weights(X):
    """Number of weights: one per feature, and constants of four elements in two fields."""
    return X.n_features + 2 * 4


def one_after_the_other(workers, function, *arguments):
    """`Workers.map` in one process; `test_reduction` tests it with several processes."""
    problem = workers.problem
    for first, stop in pairwise(workers.bounds):
        part = problem.part(problem.features[first:stop], first)
        yield function(Part(part, {}), *pickle.loads(pickle.dumps(arguments)))


def test_processes(data):
    X, y, _ = data
    one, several = (
        KQEqRegressorCV(KQEqRegressor(n_jobs=n_jobs), SIGMAS, cv=3).fit(X, y["dipole"])
        for n_jobs in (None, 2)
    )
    assert_allclose(several.left_out_["dipole"], one.left_out_["dipole"], atol=1e-8)
    assert_allclose(several.predict(X), one.predict(X), atol=1e-8)


@pytest.mark.parametrize("weighted", [False, True])
def test_all_steps_of_a_pipeline_are_fitted_in_every_fold(data, weighted):
    features, y, groups = data
    X, D = list(features.structures), y["dipole"].copy()
    D[7] = np.nan
    weights = np.random.default_rng(0).uniform(0.5, 2.0, len(X)) if weighted else None
    pipeline = make_pipeline(
        SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2),
        CURSparsifier(n_points=6),
        KQEqRegressor(store_triangles=True),
    )
    folds = GroupKFold(3)
    search = KQEqRegressorCV(pipeline, SIGMAS, cv=folds, scoring="rmse")
    assert search.fit(X, D, weights, groups=groups) is search
    for sigma, score in zip(SIGMAS, search.cv_results_["rmse_dipole"], strict=True):
        expected = []
        for train, test in folds.split(X, D, groups):
            model = clone(pipeline).set_params(kqeqregressor__sigma_dipole=sigma)
            known = None if weights is None else weights[train]
            model.fit([X[i] for i in train], D[train], kqeqregressor__sample_weight=known)
            errors = model.predict([X[i] for i in test]) - D[test]
            if sigma == search.best_params_["sigma_dipole"]:
                present = ~np.isnan(D[test])
                difference = search.left_out_["dipole"][test] - D[test] - errors
                assert np.abs(difference[present]).max() < 1e-6
            w = np.ones(len(test)) if weights is None else weights[test]
            squares = np.repeat(w[:, None], 3, axis=1) * errors**2
            expected.append(np.sqrt(np.nansum(squares) / (3 * w[~np.isnan(D[test, 0])].sum())))
        assert score == pytest.approx(np.mean(expected), rel=1e-6)
    best = clone(pipeline).set_params(
        **{f"kqeqregressor__{name}": value for name, value in search.best_params_.items()}
    )
    best.fit(X, D, kqeqregressor__sample_weight=weights)
    assert_allclose(search.predict(X), best.predict(X), atol=1e-9)
    assert_allclose(search.best_estimator_.predict(X), best.predict(X), atol=1e-9)
    _, std = search.predict(X[:2], return_std=True)
    best = calibrate(best, X, D, weights, groups=groups, cv=folds)
    assert_allclose(std, predict_std(best, X[:2], ["dipole"])["dipole"], rtol=1e-6)
    ends = search.predict_interval(X[:2], 0.5), predict_interval(best, X[:2], 0.5)
    for end, expected in zip(*ends):
        assert_allclose(end, expected, rtol=1e-6)
    assert len(predict_charges(search, X[:2])) == 2
    # If the features are chosen from all structures, the held-out errors are different.
    given = KQEqRegressorCV(pipeline[-1], SIGMAS, cv=folds, scoring="rmse")
    given.fit(best[:-1].transform(X), D, weights, groups=groups)
    assert not np.allclose(given.left_out_["dipole"], search.left_out_["dipole"], equal_nan=True)


def test_random_states_give_the_scores_of_a_grid_search(data):
    features, y, _ = data
    X, D = list(features.structures), y["dipole"]
    soap = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2)

    def pipeline():
        state = np.random.RandomState(3)
        return make_pipeline(soap, CURSparsifier(n_points=6, random_state=state), KQEqRegressor())

    found = KQEqRegressorCV(pipeline(), SIGMAS, cv=3, scoring="rmse").fit(X, D)
    grid = {"kqeqregressor__sigma_dipole": SIGMAS}
    grid = GridSearchCV(pipeline(), grid, cv=3, scoring=TargetScorer("dipole", "rmse")).fit(X, D)
    expected = grid.cv_results_["mean_test_score"]
    assert_allclose(found.cv_results_["score"], expected, rtol=1e-6)


def test_pipelines_with_a_memory_and_noise_by_evidence(data, tmp_path):
    features, y, _ = data
    X, D = list(features.structures), y["dipole"]
    pipeline = make_pipeline(
        SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2), CURSparsifier(n_points=6), KQEqRegressor(),
        memory=str(tmp_path),
    )  # fmt: skip
    search = KQEqRegressorCV(pipeline, cv=3, optimize_noise=True).fit(X, D)
    assert search.best_params_["sigma_dipole"] == search.best_estimator_[-1].sigma_dipole != 0.002
    assert np.isfinite(search.best_score_)
    again = pickle.loads(pickle.dumps(search))
    assert_array_equal(again.predict(X), search.predict(X))
    with pytest.raises(ValueError, match="give folds"):
        KQEqRegressorCV(pipeline).fit(X, D)
    alone = KQEqRegressorCV(make_pipeline(KQEqRegressor()), [0.1]).fit(features, D)
    assert alone.best_score_ == KQEqRegressorCV(sigmas=[0.1]).fit(features, D).best_score_


def test_pipelines_of_files_and_in_searches(data, tmp_path):
    features, y, groups = data
    X, D = list(features.structures), y["dipole"]
    pipeline = make_pipeline(
        SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2), CURSparsifier(n_points=3), KQEqRegressor()
    )
    search = KQEqRegressorCV(pipeline, SIGMAS, cv=3, scoring="rmse").fit(X, D)
    write(tmp_path / "x.xyz", [structure.to_atoms() for structure in X])
    found = clone(search).fit(open_structures(tmp_path / "x.xyz"), D)
    assert_allclose(found.left_out_["dipole"], search.left_out_["dipole"], atol=1e-4)
    found = clone(search).fit(X, [{"dipole": mu} for mu in D])
    assert_array_equal(found.left_out_["dipole"], search.left_out_["dipole"])
    skqeq.save(search, tmp_path / "model.skqeq")
    assert_array_equal(skqeq.load(tmp_path / "model.skqeq").predict(X), search.predict(X))
    grid = {"estimator__soapfeaturizer__r_cut": [2.0, 3.0]}
    outer = GridSearchCV(search, grid, cv=GroupKFold(2), error_score="raise")
    outer.fit(X, D, groups=groups)
    assert len(predict_charges(outer, X[:1])[0]) == len(X[0])


@pytest.mark.parametrize("complement", [False, True])
# There are 4 values of the noise: with k = 2 a fold has fewer rows, with k = 7 it has more.
@pytest.mark.parametrize("k", [2, 7])
def test_blocks_of_folds(k, complement):
    rng = np.random.default_rng(0)
    Z, weights = rng.normal(size=(3, k, 9)), rng.uniform(0.01, 0.02, size=(4, 9))
    right = rng.normal(size=(4, 3, k))
    found = solve_blocks(Z, weights, right, complement)
    for w, f in np.ndindex(4, 3):
        block = Z[f] @ np.diag(weights[w]) @ Z[f].T
        block = np.eye(k) - block if complement else block
        assert_allclose(block @ found[w, f], right[w, f], rtol=1e-9, atol=1e-12)
