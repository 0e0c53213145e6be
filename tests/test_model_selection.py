"""Scorers of one target, and folds with equal numbers of labels."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning, UndefinedMetricWarning
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score

from skqeq import QEq, QEqRegressor, make_targets
from skqeq.model_selection import LabelledKFold, TargetScorer


@pytest.fixture
def fitted(molecules, table):
    return QEqRegressor().fit(molecules, table)


def test_scorer_values(fitted, molecules, table):
    predicted = fitted.predict(molecules)
    labelled = [i for i in range(12) if i != 3]
    error = predicted["dipole"][labelled] - table["dipole"][labelled]
    weights = np.linspace(0.1, 1, 12)
    scores = {
        "mae": -np.abs(error).mean(),
        "rmse": -np.sqrt((error**2).mean()),
    }
    for metric, expected in scores.items():
        assert_allclose(TargetScorer("dipole", metric)(fitted, molecules, table), expected)
    weighted = -np.average(np.abs(error), weights=np.repeat(weights[labelled, None], 3, axis=1))
    assert_allclose(
        TargetScorer("dipole", "mae")(fitted, molecules, table, sample_weight=weights), weighted
    )
    charges = np.concatenate(
        [predicted["charges"][i] - q for i, q in enumerate(table["charges"]) if q is not None]
    )
    assert_allclose(TargetScorer("charges", "mae")(fitted, molecules, table), -abs(charges).mean())
    only_dipoles = make_targets(dipole=table["dipole"])
    assert_allclose(
        TargetScorer("dipole", "r2")(fitted, molecules, table),
        fitted.score(molecules, only_dipoles),
    )


def test_energies_per_atom(molecules, energies):
    model = QEqRegressor(sigma_energy=0.1).fit(molecules, energies[["energy"]])
    n_atoms = np.array([len(atoms) for atoms in molecules])
    energies["energy"][3] = np.nan
    labelled = np.arange(12) != 3
    truth = (energies["energy"] / n_atoms)[labelled]
    error = (model.predict_energy(molecules) / n_atoms)[labelled] - truth
    scorer = TargetScorer("energy", "mae", per_atom=True)
    assert_allclose(scorer(model, molecules, energies), -np.abs(error).mean(), rtol=1e-9)
    total = np.abs(error * n_atoms[labelled]).mean()
    assert_allclose(TargetScorer("energy", "mae")(model, molecules, energies), -total, rtol=1e-9)
    assert total > 1e-3
    r2 = 1.0 - np.sum(error**2) / np.sum((truth - truth.mean()) ** 2)
    by_scorer = TargetScorer("energy", "r2", per_atom=True)(model, molecules, energies)
    assert_allclose(by_scorer, r2, rtol=1e-9)
    assert model.score(molecules, energies[["energy"]]) == by_scorer
    assert repr(scorer) == "TargetScorer('energy', 'mae', per_atom=True)"
    search = clone(GridSearchCV(QEqRegressor(), {"sigma_energy": [0.1]}, scoring=scorer))
    assert repr(search.scoring) == repr(scorer)


def test_scorer_needs_no_training_on_its_target(molecules, dipoles, charges):
    model = QEqRegressor().fit(molecules, make_targets(charges=charges))
    y = make_targets(dipole_magnitude=np.linalg.norm(dipoles, axis=1))
    assert -2 < TargetScorer("dipole_magnitude")(model, molecules, y) < 0
    assert -2 < TargetScorer("dipole", "mae")(model, molecules, dipoles) < 0


def test_single_metric(model, molecules, table):
    scorer = TargetScorer("charges", "mae")
    search = GridSearchCV(
        model, {"kqeqregressor__sigma_charges": [0.01, 10.0]}, scoring=scorer, cv=KFold(3)
    ).fit(molecules, table)
    assert search.best_params_ == {"kqeqregressor__sigma_charges": 0.01}
    assert search.score(molecules, table) == scorer(search, molecules, table)
    assert repr(scorer) == "TargetScorer('charges', 'mae')"
    assert repr(clone(search).scoring) == repr(scorer)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_several_metrics(n_jobs, model, molecules, table):
    scoring = {
        "dipole": TargetScorer("dipole", "rmse"),
        "charges": TargetScorer("charges", "mae"),
        "r2": TargetScorer("dipole", "r2"),
    }
    search = GridSearchCV(
        model,
        {"kqeqregressor__sigma_dipole": [1e-3, 10.0]},
        scoring=scoring,
        refit="charges",
        cv=KFold(3),
        n_jobs=n_jobs,
    ).fit(molecules, table)
    for name, scorer in scoring.items():
        alone = cross_val_score(
            clone(model).set_params(**search.cv_results_["params"][0]),
            molecules,
            table,
            scoring=scorer,
            cv=KFold(3),
        )
        assert_allclose(search.cv_results_[f"mean_test_{name}"][0], alone.mean(), rtol=1e-9)
        assert np.ptp(search.cv_results_[f"mean_test_{name}"]) > 0
    best = np.argmax(search.cv_results_["mean_test_charges"])
    assert search.best_params_ == search.cv_results_["params"][best]


def test_scorer_with_metadata_routing(model, molecules, table):
    expected = cross_val_score(model, molecules, table, scoring=TargetScorer("dipole"), cv=KFold(3))
    with sklearn.config_context(enable_metadata_routing=True):
        scores = cross_val_score(
            model, molecules, table, scoring=TargetScorer("dipole"), cv=KFold(3)
        )
    assert_allclose(scores, expected, rtol=1e-12)


def test_unlabelled_fold_is_nan_and_warns(molecules, dipoles):
    dipoles[:4] = np.nan
    with pytest.warns(UserWarning, match="Scoring failed"):
        scores = cross_val_score(
            QEqRegressor(), molecules, dipoles, scoring=TargetScorer("dipole"), cv=KFold(3)
        )
    assert np.isnan(scores).tolist() == [True, False, False]
    with pytest.warns(UndefinedMetricWarning, match="two labelled structures"):
        scores = cross_val_score(QEqRegressor(), molecules, dipoles, cv=KFold(3))
    assert np.isnan(scores).tolist() == [True, False, False]


def test_training_fold_without_labels_fails_loudly(molecules, dipoles):
    dipoles[4:] = np.nan
    with pytest.warns() as caught:
        scores = cross_val_score(QEqRegressor(), molecules, dipoles, cv=KFold(3))
    assert np.isnan(scores).all()
    failed = [str(w.message) for w in caught if w.category is FitFailedWarning]
    assert len(failed) == 1
    assert "all labels are missing" in failed[0]


def forms(dipoles):
    table = make_targets(dipole=dipoles)
    return {
        "table": table,
        "dicts": [{"dipole": d} for d in dipoles],
        "frame": pd.DataFrame({"dipole": list(dipoles)}),
        "array": dipoles,
    }


@pytest.mark.parametrize("form", ["table", "dicts", "frame", "array"])
def test_folds_have_equal_numbers_of_labels(form, molecules, dipoles):
    dipoles[4:] = np.nan
    y = forms(dipoles)[form]
    cv = LabelledKFold("dipole", n_splits=4)
    folds = list(cv.split(molecules, y))
    assert cv.get_n_splits(molecules, y) == len(folds) == 4
    tested = np.sort(np.concatenate([test for _, test in folds]))
    assert tested.tolist() == list(range(12))
    for train, test in folds:
        assert sorted([*train, *test]) == list(range(12))
        assert sum(i < 4 for i in test) == 1


def test_folds_have_equal_numbers_of_ragged_labels(molecules, charges):
    y = make_targets(charges=[q if i % 3 == 0 else None for i, q in enumerate(charges)])
    for _, test in LabelledKFold("charges", n_splits=4).split(molecules, y):
        assert sum(i % 3 == 0 for i in test) == 1


def test_folds_keep_groups_together(molecules, dipoles):
    dipoles[6:] = np.nan
    groups = np.repeat(np.arange(6), 2)
    y = make_targets(dipole=dipoles)
    folds = list(LabelledKFold("dipole", n_splits=3).split(molecules, y, groups))
    assert len(folds) == 3
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        assert sum(i < 6 for i in test) == 2


def test_folds_are_reproducible(molecules, dipoles):
    y = make_targets(dipole=dipoles)
    seeds = (0, 0, 1)
    splits = [
        [
            test.tolist()
            for _, test in LabelledKFold("dipole", 3, shuffle=True, random_state=seed).split(
                molecules, y
            )
        ]
        for seed in seeds
    ]
    assert splits[0] == splits[1] != splits[2]


@pytest.mark.parametrize("n_unlabelled", [0, 1])
def test_folds_of_few_do_not_warn_about_classes(n_unlabelled, molecules, dipoles):
    # scikit-learn's stratified folds warn about small classes, which users never defined.
    dipoles[:n_unlabelled] = np.nan
    folds = list(LabelledKFold("dipole", 2).split(molecules, make_targets(dipole=dipoles)))
    assert len(folds) == 2


def test_more_folds_than_labels(molecules, dipoles):
    dipoles[1:] = np.nan
    with pytest.raises(ValueError, match=r"n_splits=2.*1 .*dipole|1 .*dipole.*n_splits=2"):
        list(LabelledKFold("dipole", 2).split(molecules, make_targets(dipole=dipoles)))


def test_search_with_labelled_folds(molecules, dipoles):
    dipoles[4:] = np.nan
    y = make_targets(dipole=dipoles)
    groups = np.arange(12)
    search = GridSearchCV(
        QEqRegressor(response=QEq()),
        {"response__hardness": [0.0, 5.0]},
        scoring=TargetScorer("dipole"),
        cv=LabelledKFold("dipole", 4),
        error_score="raise",
    )
    search.fit(molecules, y, groups=groups)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    # With metadata routing, scikit-learn passes groups only to splitters that request them.
    with sklearn.config_context(enable_metadata_routing=True):
        routed = clone(search).fit(molecules, y, groups=groups)
    assert_allclose(
        routed.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"], rtol=1e-12
    )


def test_repr_of_folds():
    assert repr(LabelledKFold("dipole", 3)).startswith("LabelledKFold(")
