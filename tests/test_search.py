"""Searches and other tools of scikit-learn that split data, in one process and in several."""

import joblib
import numpy as np
import pytest
from ase.build import molecule
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.metrics import make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    train_test_split,
    validation_curve,
)
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    KQEqRegressor,
    QEqRegressor,
    SOAPFeaturizer,
    make_targets,
    strip,
)
from skqeq.features import ROWS, _source
from skqeq.metrics import target_mae

GRID = {"kqeqregressor__sigma_dipole": [0.01, 0.1, 1.0], "soapfeaturizer__r_cut": [2.0, 3.0]}


@pytest.fixture
def counted(monkeypatch, empty_cache):
    """The list of descriptors that were computed, as (options, digest of the structure)."""
    calls = []
    describe = _source.describe

    def counting(spectrum, structure, key, versions=None):
        calls.append((spectrum.options, structure.digest))
        return describe(spectrum, structure, key)

    monkeypatch.setattr(_source, "describe", counting)
    return calls


def assert_same_search(search, reference):
    assert search.best_params_ == reference.best_params_
    for i in range(reference.n_splits_):
        key = f"split{i}_test_score"
        assert np.isfinite(reference.cv_results_[key]).all()
        assert_allclose(search.cv_results_[key], reference.cv_results_[key], rtol=1e-9)


@pytest.fixture
def reference(model, molecules, table):
    return GridSearchCV(model, GRID, cv=KFold(3), n_jobs=1).fit(molecules, table)


# ---- one process, several processes, a cluster --------------------------------------------------


def test_every_structure_is_described_once_per_cutoff(counted, reference, molecules):
    assert len(counted) == len(molecules) * len(GRID["soapfeaturizer__r_cut"])
    assert len(set(counted)) == len(counted)


def test_prediction_after_a_search_describes_nothing_again(counted, reference, molecules):
    counted.clear()
    reference.predict(molecules)
    assert counted == []


def test_several_cutoffs_share_rows(counted, model, molecules, table):
    grid = {"soapfeaturizer__r_cut": [2.0, 3.0, (2.0, 3.0)], "cursparsifier__zeta": [1, 2]}
    search = GridSearchCV(model, grid, cv=KFold(3)).fit(molecules, table)
    assert len(counted) == 2 * len(molecules)
    assert search.best_params_["soapfeaturizer__r_cut"] in grid["soapfeaturizer__r_cut"]


def test_cutoff_widths(counted, model, molecules, table):
    grid = {"soapfeaturizer__cutoff_width": [None, 0.5, 3.0], "kqeqregressor__sigma_dipole": [0.01]}
    search = GridSearchCV(model, grid, cv=KFold(3), error_score="raise").fit(molecules, table)
    assert len(counted) == 3 * len(molecules)
    assert len(set(search.cv_results_["mean_test_score"])) == 3


def test_without_cache_rows_are_computed_again(counted, model, molecules, table, memory_budget):
    memory_budget(0)
    model.fit(molecules, table).predict(molecules)
    # Rows of single atoms, computed for the choice of the sparse set, are not counted.
    assert len(counted) == 2 * len(molecules)
    assert len(ROWS) == 0


def test_a_small_cache_changes_nothing(counted, model, molecules, table, reference, memory_budget):
    ROWS.clear()
    row_bytes = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2).fit_transform(molecules)[4].nbytes
    memory_budget(4 * row_bytes)
    search = GridSearchCV(model, GRID, cv=KFold(3)).fit(molecules, table)
    assert 0 < ROWS.nbytes <= 4 * row_bytes
    assert_same_search(search, reference)


def test_search_beats_its_worst_candidate(reference, molecules, dipoles):
    scores = reference.cv_results_["mean_test_score"]
    assert scores.max() > scores.min() + 1e-3
    assert reference.best_score_ == scores.max()
    assert reference.score(molecules, make_targets(dipole=dipoles)) > 0.5


def test_loky(reference, model, molecules, table):
    with joblib.parallel_config(backend="loky", n_jobs=2):
        search = GridSearchCV(model, GRID, cv=KFold(3)).fit(molecules, table)
    assert_same_search(search, reference)


def test_threads(reference, model, molecules, table, empty_cache):
    # Threads share the cache of rows.
    with joblib.parallel_config(backend="threading", n_jobs=2):
        search = GridSearchCV(model, GRID, cv=KFold(3)).fit(molecules, table)
    assert_same_search(search, reference)


def test_featurizer_with_jobs_of_its_own(reference, model, molecules, table, empty_cache):
    model.set_params(soapfeaturizer__n_jobs=2)
    search = GridSearchCV(model, {k: v[:1] for k, v in GRID.items()}, cv=KFold(3))
    search.fit(molecules, table)
    key = "split0_test_score"
    assert_allclose(search.cv_results_[key][0], reference.cv_results_[key][0], rtol=1e-9)


# ---- scores, splits, and everything else that takes a pipeline ----------------------------------


def test_scores_are_those_of_a_loop(reference, model, molecules, table):
    best = clone(model).set_params(**reference.best_params_)
    scores = []
    for train, test in KFold(3).split(molecules):
        best.fit([molecules[i] for i in train], table[train])
        scores.append(best.score([molecules[i] for i in test], table[test]))
    assert_allclose(np.mean(scores), reference.best_score_, rtol=1e-9)


def test_cross_val_predict(model, molecules, dipoles, table):
    by_hand = np.empty((12, 3))
    for train, test in KFold(3).split(molecules):
        model.fit([molecules[i] for i in train], dipoles[train])
        by_hand[test] = model.predict([molecules[i] for i in test])
    assert_allclose(cross_val_predict(model, molecules, dipoles, cv=KFold(3)), by_hand, rtol=1e-9)
    predicted = cross_val_predict(model, molecules, table, cv=KFold(3))
    assert predicted.dtype == table.dtype
    assert [len(q) for q in predicted["charges"]] == [len(a) for a in molecules]
    shuffled = KFold(3, shuffle=True, random_state=0)
    predicted = cross_val_predict(model, molecules, table, cv=shuffled)
    assert [len(q) for q in predicted["charges"]] == [len(a) for a in molecules]


def test_learning_curve(model, molecules, table):
    sizes, train, test = learning_curve(model, molecules, table, cv=KFold(3), train_sizes=[6, 8])
    assert sizes.tolist() == [6, 8]
    assert train.shape == test.shape == (2, 3)
    assert np.isfinite(train).all()


def test_validation_curve(model, molecules, dipoles):
    train, _ = validation_curve(
        model,
        molecules,
        dipoles,
        param_name="kqeqregressor__sigma_dipole",
        param_range=[1e-3, 1.0, 100.0],
        cv=KFold(3),
    )
    # For larger noise, the fit is worse.
    assert (np.diff(train.mean(axis=1)) < 0).all()


def test_train_test_split(model, molecules, table):
    X_train, X_test, y_train, y_test = train_test_split(
        molecules, table, test_size=3, random_state=0
    )
    assert (len(X_train), len(X_test), len(y_train), len(y_test)) == (9, 3, 9, 3)
    for atoms, row in zip(X_test, y_test):
        i = next(i for i, other in enumerate(molecules) if other is atoms)
        assert row["charges"] is table["charges"][i]
    assert np.isfinite(model.fit(X_train, y_train).score(X_test, y_test))


def test_features_can_be_split(molecules, table):
    features = make_pipeline(SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2), CURSparsifier(n_points=3))
    X = features.fit_transform(molecules)
    search = GridSearchCV(KQEqRegressor(), {"sigma_dipole": [0.01, 0.1]}, cv=KFold(3))
    search.fit(X, table)
    scores = cross_val_score(KQEqRegressor(**search.best_params_), X, table, cv=KFold(3))
    assert_allclose(scores.mean(), search.best_score_, rtol=1e-9)
    X_train, X_test = train_test_split(X, test_size=3, random_state=0)
    assert (len(X_train), len(X_test)) == (9, 3)


def test_halving(model, molecules, table):
    search = HalvingGridSearchCV(
        model, GRID, cv=KFold(2), min_resources=8, factor=2, random_state=0
    ).fit(molecules, table)
    assert search.best_params_["soapfeaturizer__r_cut"] in GRID["soapfeaturizer__r_cut"]
    assert np.isfinite(search.best_score_)


def test_randomised_search_over_tuples(model, molecules, dipoles):
    space = {"soapfeaturizer__r_cut": [(1.7, 3.0), 3.0, (3.0,)], "cursparsifier__n_points": [1, 2]}
    search = RandomizedSearchCV(model, space, n_iter=4, cv=KFold(2), random_state=0)
    search.fit(molecules, dipoles)
    assert len(search.cv_results_["params"]) == 4


def test_search_over_tables_of_elements(molecules, dipoles):
    grid = {
        "response__radii": ["qeq", "covalent", {"H": 0.4, "C": 0.8, "O": 0.7}],
        "response__hardness": [0.0, 5.0],
    }
    search = GridSearchCV(QEqRegressor(), grid, cv=KFold(2)).fit(molecules, dipoles)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert np.ptp(search.cv_results_["mean_test_score"]) > 0


def test_groups(model, molecules, table):
    groups = np.repeat(np.arange(4), 3)
    scores = cross_val_score(model, molecules, table, groups=groups, cv=GroupKFold(4))
    search = GridSearchCV(model, {"cursparsifier__zeta": [2]}, cv=GroupKFold(4))
    search.fit(molecules, table, groups=groups)
    assert_allclose(search.best_score_, scores.mean(), rtol=1e-12)


def test_string_scorers_for_plain_arrays(model, molecules, dipoles):
    scores = cross_validate(
        model,
        molecules,
        dipoles,
        cv=KFold(3),
        scoring=["neg_mean_absolute_error", "neg_root_mean_squared_error", "r2"],
    )
    predicted = cross_val_predict(model, molecules, dipoles, cv=KFold(3))
    mae = np.abs(predicted - dipoles).reshape(3, -1).mean(axis=1)
    assert_allclose(scores["test_neg_mean_absolute_error"], -mae, rtol=1e-9)
    assert np.isfinite(scores["test_r2"]).all()


def test_make_scorer(model, molecules, table):
    scorer = make_scorer(
        lambda y, predicted: target_mae(y["charges"], predicted["charges"]),
        greater_is_better=False,
    )
    scores = cross_val_score(model, molecules, table, cv=KFold(3), scoring=scorer)
    assert (scores < 0).all()


# ---- Pipeline(memory=) --------------------------------------------------------------------------


def test_pipeline_memory(model, molecules, table, tmp_path):
    expected = clone(model).fit(molecules, table).predict(molecules)
    # The first fit fills the cache, and the second fit uses it.
    for _ in range(2):
        cached = clone(model).set_params(memory=str(tmp_path)).fit(molecules, table)
        predicted = cached.predict(molecules)
        assert_array_equal(predicted["dipole"], expected["dipole"])


def test_pipeline_memory_ignores_what_strip_removes(model, molecules, table, tmp_path, monkeypatch):
    calls = []
    for cls in (SOAPFeaturizer, CURSparsifier):

        def counting(self, X, y=None, original=cls.fit_transform):
            calls.append(type(self).__name__)
            return original(self, X, y)

        monkeypatch.setattr(cls, "fit_transform", counting)
    model.set_params(memory=str(tmp_path))
    model.fit(strip(molecules), table)
    assert calls == ["SOAPFeaturizer", "CURSparsifier"]
    for i, atoms in enumerate(molecules):
        atoms.info["energy"] = -float(i)
        atoms.set_array("forces", np.ones((len(atoms), 3)))
    clone(model).fit(strip(molecules), table)
    assert len(calls) == 2
    # Without `strip` the labels are in the key of the first step, but not of later steps.
    clone(model).fit(molecules, table)
    assert calls[2:] == ["SOAPFeaturizer"]


def test_strip_keeps_what_models_look_at(molecules):
    molecules[0].info |= {"charge": 1, "external_field": [0.0, 0.0, 0.1], "energy": -1.0}
    molecules[1].info |= {"total_charge": -1, "potential_points": np.ones((2, 3))}
    molecules[2].set_masses([2.014] * len(molecules[2]))
    hashes = joblib.hash(strip(molecules))
    for atoms in molecules:
        atoms.info["label"] = "new"
        atoms.set_tags(7)
    assert joblib.hash(strip(molecules)) == hashes
    model = QEqRegressor().fit(molecules, np.zeros((12, 3)))
    first, second = (model.predict_charges(X) for X in (molecules, strip(molecules)))
    for a, b in zip(first, second):
        assert_array_equal(a, b)
    assert_array_equal(model.predict(molecules), model.predict(strip(molecules)))


def test_strip_keeps_the_cell():
    slab = molecule("H2O", cell=[[5.0, 0, 0], [1.0, 6.0, 0], [0.2, 0.3, 20.0]], pbc=(1, 1, 0))
    [stripped] = strip([slab])
    assert_array_equal(stripped.cell.array, slab.cell.array)
    assert_array_equal(stripped.pbc, slab.pbc)


def test_strip_takes_what_check_structures_takes(molecules):
    expected = joblib.hash(strip(molecules))
    assert joblib.hash(strip(tuple(molecules))) == expected
    assert joblib.hash(strip(atoms for atoms in molecules)) == expected
    assert joblib.hash(strip(strip(molecules))) == expected
