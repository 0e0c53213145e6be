"""The rules of scikit-learn for estimators that its own checks cannot test.

With structures as input scikit-learn's common checks do not apply, so they are written here.
`CURSparsifier` also takes arrays and passes the common checks.
"""

import copy
import inspect
import os
import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import BaggingRegressor
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.estimator_checks import estimator_checks_generator

from skqeq import (
    ChargeFlow,
    ChargeSearchCV,
    CURSparsifier,
    GAPKQEqRegressor,
    GAPRegressor,
    KQEqRegressor,
    KQEqRegressorCV,
    PotentialSearchCV,
    QEq,
    QEqRegressor,
    SOAPFeaturizer,
    StructureBlocks,
    StructureFeatures,
    check_structures,
    make_targets,
    predict_charges,
    predict_electronegativities,
    predict_stress,
    predict_target,
    strip,
)

CLASSES = [
    *(SOAPFeaturizer, CURSparsifier, QEq, ChargeFlow),
    *(KQEqRegressor, QEqRegressor, GAPKQEqRegressor, GAPRegressor, KQEqRegressorCV),
    *(ChargeSearchCV, PotentialSearchCV),
]
TRANSFORMERS = ["soap", "sparsifier", "blocks"]
# The first regressors have all targets, the second ones only targets that are linear in the
# charges.
MODELS = ["kqeq", "qeq", "gapkqeq", "pipeline"]
REGRESSORS = [*MODELS, "cv"]
KINDS = TRANSFORMERS + REGRESSORS


def small(kind):
    """An unfitted estimator that fits in milliseconds."""
    soap = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2)
    estimators = {
        "soap": soap,
        "sparsifier": CURSparsifier(n_points=3),
        "kqeq": KQEqRegressor(sigma_dipole=0.05),
        "qeq": QEqRegressor(sigma_dipole=0.05),
        "gapkqeq": GAPKQEqRegressor(sigma_dipole=0.05),
        "cv": KQEqRegressorCV(sigmas={"sigma_dipole": [0.05]}),
    }
    if kind == "blocks":
        near, far = (make_pipeline(soap, estimators["sparsifier"]) for _ in range(2))
        return StructureBlocks([("gap", clone(far)), ("chi", clone(near))])
    if kind == "pipeline":
        return make_pipeline(*(estimators[k] for k in ("soap", "sparsifier", "kqeq")))
    return estimators[kind]


class Case:
    """An estimator, and fitted transformers that make its input from structures."""

    def __init__(self, kind, X):
        self.kind = kind
        self.estimator = small(kind)
        steps = {
            "sparsifier": ["soap"],
            "kqeq": ["soap", "sparsifier"],
            "cv": ["soap", "sparsifier"],
            "gapkqeq": ["blocks"],
        }.get(kind, [])
        self.before = make_pipeline(*map(small, steps)).fit(X) if steps else None

    def input(self, X):
        """Input for the fit of the estimator."""
        return X if self.before is None else self.before.transform(X)

    def fit(self, X, y, **params):
        """Return a fitted clone."""
        return clone(self.estimator).fit(self.input(X), y, **params)

    def output(self, fitted, X):
        """Output for the structures: one array per structure."""
        if self.kind in TRANSFORMERS:
            return list(fitted.transform(self.input(X)))
        return list(fitted.predict(self.input(X)))


@pytest.fixture(params=KINDS)
def case(request, molecules):
    return Case(request.param, molecules)


@pytest.fixture(params=REGRESSORS)
def regressor(request, molecules):
    return Case(request.param, molecules)


@pytest.fixture(params=TRANSFORMERS)
def transformer(request, molecules):
    return Case(request.param, molecules)


def assert_outputs_close(first, second, rtol=1e-9, atol=1e-11):
    assert len(first) == len(second)
    for a, b in zip(first, second):
        assert_allclose(a, b, rtol=rtol, atol=atol)


def snapshot(X):
    """Content of all data of the structures, as bytes."""
    return [pickle.dumps((a.arrays, a.info, a.cell.array, a.pbc)) for a in X]


# ---- parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES)
def test_init_only_stores_parameters(cls):
    # Only `fit` validates parameters: clone and set_params must accept any value.
    values = {name: object() for name in inspect.signature(cls.__init__).parameters}
    del values["self"]
    estimator = cls(**values)
    assert vars(estimator) == values
    assert estimator.get_params() == values


@pytest.mark.parametrize("cls", CLASSES)
def test_every_parameter_has_a_constraint_and_a_line_of_documentation(cls):
    parameters = set(cls().get_params())
    assert parameters == set(cls._parameter_constraints)
    assert [p for p in parameters if p not in cls.__doc__] == []


@pytest.mark.parametrize("kind", KINDS)
def test_clone_and_set_params(kind):
    estimator = small(kind)
    name = {
        "soap": "n_max",
        "sparsifier": "n_points",
        "kqeq": "sigma_charges",
        "qeq": "sigma_charges",
        "gapkqeq": "amplitude_gap",
        "cv": "verbose",
        "blocks": "chi__cursparsifier__n_points",
        "pipeline": "cursparsifier__n_points",
    }[kind]
    assert estimator.set_params(**{name: 7}) is estimator
    twin = clone(estimator)
    assert twin is not estimator
    assert twin.get_params()[name] == 7
    with pytest.raises(ValueError, match="Invalid parameter"):
        estimator.set_params(nonsense=1)


def test_clone_keeps_containers():
    # After copying, clone compares parameters by identity; estimators must store what they get.
    soap = SOAPFeaturizer(r_cut=(1.7, 3.5), species=["H", "O"], species_weighting={"H": 1.0})
    assert clone(soap).get_params() == soap.get_params()
    qeq = QEqRegressor(response=QEq(radii={"H": 0.3}, hardness={"H": 1.0}), init=np.zeros(3))
    twin = clone(qeq)
    assert twin.response.radii == qeq.response.radii
    assert_array_equal(twin.init, qeq.init)


@pytest.mark.parametrize("kind", KINDS)
def test_repr_shows_changed_parameters(kind):
    shown = {
        "soap": "SOAPFeaturizer(l_max=2, n_max=2, r_cut=3.0)",
        "sparsifier": "CURSparsifier(n_points=3)",
        "kqeq": "KQEqRegressor(sigma_dipole=0.05)",
        "qeq": "QEqRegressor(sigma_dipole=0.05)",
        "gapkqeq": "GAPKQEqRegressor(sigma_dipole=0.05)",
        "cv": "KQEqRegressorCV(sigmas={'sigma_dipole': [0.05]})",
        "blocks": "StructureBlocks(transformer_list=[('gap',",
        "pipeline": "Pipeline(steps=[('soapfeaturizer',",
    }[kind]
    assert repr(small(kind)).startswith(shown)


def test_html_repr(case, molecules, dipoles):
    name = "KQEqRegressor" if case.kind == "pipeline" else type(case.estimator).__name__
    for estimator in (case.estimator, case.fit(molecules, dipoles)):
        html = estimator._repr_html_()
        assert name in html
        assert "<div" in html


# ---- fit --------------------------------------------------------------------------------------


def test_fit_returns_self(case, molecules, dipoles):
    estimator = clone(case.estimator)
    assert estimator.fit(case.input(molecules), dipoles) is estimator


def test_fit_changes_no_parameter(case, molecules, dipoles):
    estimator = clone(case.estimator)
    before = repr(estimator.get_params())
    estimator.fit(case.input(molecules), dipoles)
    assert repr(estimator.get_params()) == before


def test_refit_is_idempotent(case, molecules, dipoles):
    estimator = case.fit(molecules, dipoles)
    first = case.output(estimator, molecules)
    estimator.fit(case.input(molecules), dipoles)
    assert_outputs_close(case.output(estimator, molecules), first, rtol=0, atol=0)


def test_refit_forgets(case, molecules, dipoles):
    estimator = case.fit(molecules[:6], 3 * dipoles[:6])
    estimator.fit(case.input(molecules), dipoles)
    fresh = case.output(case.fit(molecules, dipoles), molecules)
    assert_outputs_close(case.output(estimator, molecules), fresh, rtol=0, atol=0)


def test_fit_transform_is_fit_then_transform(transformer, molecules):
    X = transformer.input(molecules)
    at_once = list(clone(transformer.estimator).fit_transform(X))
    assert_outputs_close(at_once, list(transformer.estimator.fit(X).transform(X)), 0, 0)


def test_inputs_are_not_modified(case, molecules, table):
    for i, atoms in enumerate(molecules):
        atoms.info |= {"charge": 0, "name": f"number {i}", "external_field": [0.0, 0.0, 0.01]}
        atoms.info["potential_points"] = np.full((2, 3), 9.0)
        atoms.set_array("tags", np.arange(len(atoms)))
        atoms.calc = EMT()
    weights = np.linspace(0.5, 1.5, len(molecules))
    before = snapshot(molecules), pickle.dumps(table), weights.copy()
    calculators = [atoms.calc for atoms in molecules]
    params = {} if case.kind in (*TRANSFORMERS, "pipeline") else {"sample_weight": weights}
    fitted = case.fit(molecules, table, **params)
    case.output(fitted, molecules)
    if case.kind in REGRESSORS:
        fitted.score(case.input(molecules), table)
    assert snapshot(molecules) == before[0]
    assert pickle.dumps(table) == before[1]
    assert_array_equal(weights, before[2])
    assert all(a.calc is c for a, c in zip(molecules, calculators))


def test_features_are_not_modified(molecules, dipoles):
    X = make_pipeline(small("soap"), small("sparsifier")).fit_transform(molecules)
    before = list(X)
    small("kqeq").fit(X, dipoles).predict(X)
    assert_outputs_close(list(X), before, 0, 0)


def test_not_fitted(case, molecules, dipoles):
    X = case.input(molecules)
    estimator = clone(case.estimator)
    calls = [estimator.transform] if case.kind in TRANSFORMERS else [estimator.predict]
    if case.kind == "cv":
        calls.append(lambda X: estimator.score(X, dipoles))
    if case.kind in ("kqeq", "qeq"):
        calls += [
            estimator.predict_charges,
            estimator.predict_electronegativities,
            lambda X: estimator.predict_target(X, "dipole"),
            lambda X: estimator.score(X, dipoles),
        ]
    for call in calls:
        with pytest.raises(NotFittedError, match="not fitted yet"):
            call(X)


def test_not_fitted_through_functions(molecules):
    for estimator in (small("pipeline"), GridSearchCV(small("pipeline"), {}), small("qeq")):
        with pytest.raises(NotFittedError):
            predict_charges(estimator, molecules)


def test_a_failed_fit_does_not_count(molecules, dipoles):
    estimator = QEqRegressor(response=QEq(hardness={"H": 1.0}))
    with pytest.raises(ValueError, match="hardness"):
        estimator.fit(molecules, dipoles)
    with pytest.raises(NotFittedError):
        estimator.predict(molecules)


# ---- structures are independent -----------------------------------------------------------------


def test_subset_invariance(case, molecules, dipoles):
    fitted = case.fit(molecules, dipoles)
    together = case.output(fitted, molecules)
    alone = [case.output(fitted, [atoms])[0] for atoms in molecules]
    assert_outputs_close(alone, together)


def test_order_of_prediction_does_not_matter(case, molecules, dipoles):
    fitted = case.fit(molecules, dipoles)
    forwards = case.output(fitted, molecules)
    backwards = case.output(fitted, molecules[::-1])
    assert_outputs_close(backwards[::-1], forwards)


def test_order_of_training_does_not_matter(regressor, molecules, dipoles):
    if regressor.kind == "pipeline":
        # The sparse set is drawn by index; with all environments, nothing is drawn.
        regressor.estimator.set_params(cursparsifier__n_points=50, cursparsifier__jitter=1e-6)
    order = np.random.default_rng(0).permutation(len(molecules))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_points=50", UserWarning)
        first = regressor.fit(molecules, dipoles)
        second = regressor.fit([molecules[i] for i in order], dipoles[order])
    first, second = (regressor.output(m, molecules) for m in (first, second))
    assert_outputs_close(first, second, rtol=0, atol=1e-6)


def test_repeated_structures(case, molecules, dipoles):
    fitted = case.fit(molecules, dipoles)
    one, two = case.output(fitted, [molecules[0], molecules[0]])
    assert_allclose(one, two, rtol=1e-12, atol=1e-14)


def test_molecules_of_equal_size(case, molecules, dipoles):
    # np.asarray would turn a list of structures into a two-dimensional array of atoms.
    same = [i for i, atoms in enumerate(molecules) if len(atoms) == len(molecules[4])]
    assert len(same) > 1
    X = [molecules[i] for i in same]
    fitted = case.fit(molecules, dipoles)
    expected = case.output(fitted, molecules)
    assert_outputs_close(case.output(fitted, X), [expected[i] for i in same])


def test_training_on_molecules_of_equal_size(dipoles):
    X = [molecule("CH3OH") for _ in range(4)]
    for i, atoms in enumerate(X):
        atoms.rattle(0.05, seed=i)
    for kind in ("soap", "qeq", "pipeline"):
        assert small(kind).fit(X, dipoles[:4]) is not None


def test_one_atom_structures(case, molecules, dipoles):
    ion = Atoms("O", info={"charge": -2})
    X, y = [*molecules, ion], np.vstack([dipoles, np.zeros(3)])
    case = Case(case.kind, X)
    fitted = case.fit(X, y)
    *_, last = case.output(fitted, X)
    assert np.isfinite(last).all()
    if case.kind in TRANSFORMERS:
        assert last.shape[0] == 1
    else:
        assert_allclose(last, 0.0, atol=1e-12)
        [charges] = predict_charges(fitted, case.input([ion]))
        assert_allclose(charges, [-2.0], atol=1e-12)


@pytest.mark.parametrize("kind", ["soap", "qeq", "pipeline"])
def test_only_one_structure(kind, molecules, dipoles):
    estimator = small(kind)
    if kind == "pipeline":
        estimator.set_params(cursparsifier__n_points=1)
    estimator.fit(molecules[:1], dipoles[:1])


def test_n_features_must_match(molecules, dipoles):
    X = small("soap").fit_transform(molecules)
    other = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2).fit_transform(molecules)
    for estimator in (small("sparsifier").fit(X), small("kqeq").fit(X, dipoles)):
        assert estimator.n_features_in_ == X.shape[1]
        call = getattr(estimator, "transform", None) or estimator.predict
        with pytest.raises(
            ValueError, match=f"X has {other.shape[1]} features, but .* fitted with {X.shape[1]}"
        ):
            call(other)


def test_lengths_must_match(regressor, molecules, dipoles):
    X = regressor.input(molecules)
    for y in (dipoles[:-1], np.vstack([dipoles, dipoles])):
        with pytest.raises(ValueError, match=rf"12 .*{len(y)}|{len(y)}.*12"):
            clone(regressor.estimator).fit(X, y)
    fitted = regressor.fit(molecules, dipoles)
    with pytest.raises(ValueError, match="12 structures, but y 11"):
        fitted.score(X, dipoles[:-1])


# ---- pickles, processes -------------------------------------------------------------------------


def test_pickle_round_trip(case, molecules, dipoles):
    fitted = case.fit(molecules, dipoles)
    expected = case.output(fitted, molecules)
    for protocol in (2, pickle.HIGHEST_PROTOCOL):
        loaded = pickle.loads(pickle.dumps(fitted, protocol))
        assert_outputs_close(case.output(loaded, molecules), expected, 0, 0)
    assert_outputs_close(case.output(copy.deepcopy(fitted), molecules), expected, 0, 0)
    assert repr(pickle.loads(pickle.dumps(case.estimator))) == repr(case.estimator)


def test_features_can_be_pickled(molecules):
    X = make_pipeline(small("soap"), small("sparsifier")).fit_transform(molecules)
    loaded = pickle.loads(pickle.dumps(X))
    assert repr(loaded) == repr(X)
    assert_outputs_close(list(loaded), list(X), 0, 0)


def test_read_only_memory_maps(case, molecules, dipoles, tmp_path):
    # The worker processes of joblib get large inputs in this way.
    joblib.dump((molecules, dipoles, np.ones(12)), tmp_path / "data")
    X, y, weights = joblib.load(tmp_path / "data", mmap_mode="r")
    assert not y.flags.writeable
    assert not X[0].positions.flags.writeable
    params = {} if case.kind in (*TRANSFORMERS, "pipeline") else {"sample_weight": weights}
    expected = case.output(case.fit(molecules, dipoles), molecules)
    assert_outputs_close(case.output(case.fit(X, y, **params), X), expected)


def test_fitted_arrays_may_be_read_only_memory_maps(case, molecules, dipoles, tmp_path):
    fitted = case.fit(molecules, dipoles)
    joblib.dump(fitted, tmp_path / "model")
    mapped = joblib.load(tmp_path / "model", mmap_mode="r")
    assert_outputs_close(case.output(mapped, molecules), case.output(fitted, molecules))


def test_memory_order_of_positions_does_not_matter(molecules, dipoles):
    expected = small("qeq").fit(molecules, dipoles).predict(molecules)
    for atoms in molecules:
        atoms.arrays["positions"] = np.asfortranarray(atoms.positions)
    assert_allclose(small("qeq").fit(molecules, dipoles).predict(molecules), expected, rtol=1e-12)


HASHES = """
import joblib
from ase.build import molecule
from skqeq import SOAPFeaturizer, check_structures, make_targets, strip
X = [molecule("CH3OH"), molecule("H2CO")]
X[0].info.update(charge=1, note="a")
weights = {"H": 1.0, "C": 2.0, "O": 3.0}
options = {"n_max": 2, "l_max": 2, "cutoff_width": (None, 1.0), "species_weighting": weights}
soap = SOAPFeaturizer(r_cut=(3.0, 4.0), **options)
spectra = soap.fit(X).spectra_
structures = check_structures(X)
y = make_targets(dipole=[[0, 0, 1], None], charges=[[0.0] * 6, None])
for item in (strip(X), soap, spectra[0], structures[0], (spectra[1], structures[1]), y):
    print(joblib.hash(item))
print(structures[0].digest.hex())
"""


def test_hashes_are_the_same_in_every_process(capsys):
    # The hashes are the keys of caches on disk.
    exec(HASHES, {})
    printed = capsys.readouterr().out
    ran = subprocess.run(
        [sys.executable, "-P", "-c", HASHES],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == printed
    assert len(printed.split()) == 7


def test_hashes_survive_pickling(molecules):
    spectrum = SOAPFeaturizer(n_max=2, l_max=2).fit(molecules).spectra_[0]
    for item in (spectrum, check_structures(molecules)[0], strip(molecules)):
        assert joblib.hash(pickle.loads(pickle.dumps(item))) == joblib.hash(item)


def test_disk_cache_is_hit(molecules, tmp_path, monkeypatch, empty_cache):
    from skqeq.features import ROWS

    soap = small("soap").set_params(memory=str(tmp_path))
    rows = list(soap.fit_transform(molecules))
    ROWS.clear()
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("output.pkl")}
    assert len(stamps) == len(molecules)
    again = list(clone(soap).fit_transform(pickle.loads(pickle.dumps(molecules))))
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("output.pkl")} == stamps
    assert_outputs_close(again, rows, 0, 0)


def test_n_jobs(molecules, dipoles, empty_cache):
    from skqeq.features import ROWS

    one = small("pipeline").fit(molecules, dipoles).predict(molecules)
    ROWS.clear()
    two = small("pipeline").set_params(soapfeaturizer__n_jobs=2)
    assert_array_equal(two.fit(molecules, dipoles).predict(molecules), one)


# ---- weights and labels -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["kqeq", "qeq", "gapkqeq"])
def test_weight_two_is_a_duplicate(kind, molecules, table):
    case = Case(kind, molecules)
    weights = np.ones(12)
    weights[[2, 7]] = 2.0
    order = [*range(12), 2, 7]
    weighted = case.fit(molecules, table, sample_weight=weights)
    doubled = case.fit([molecules[i] for i in order], table[order])
    assert_allclose(weighted.coef_, doubled.coef_, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", ["kqeq", "qeq", "gapkqeq"])
@pytest.mark.parametrize("names", [["energy"], ["forces"], ["energy", "forces"]])
def test_weights_of_energies_are_duplicates_and_removals(kind, names, molecules, energies):
    case = Case(kind, molecules)
    case.estimator.set_params(response__hardness=4.0, tol=1e-20)
    case.estimator.set_params(sigma_energy=0.005, sigma_forces=0.2)
    weights = np.ones(12)
    weights[[2, 7]] = 2.0
    weights[4] = 0.0
    order = [i for i in [*range(12), 2, 7] if i != 4]
    y = energies[names]
    plain = case.fit(molecules, y)
    # The start of the iteration depends on all structures.
    case.estimator.set_params(init=plain.coef_)
    weighted = case.fit(molecules, y, sample_weight=weights)
    repeated = case.fit([molecules[i] for i in order], y[order])
    assert_allclose(weighted.coef_, repeated.coef_, atol=1e-7)
    assert_allclose(weighted.atomic_energies_, repeated.atomic_energies_, atol=1e-7)
    assert np.abs(weighted.coef_ - plain.coef_).max() > 1e-3


@pytest.mark.parametrize("kind", ["kqeq", "qeq", "gapkqeq"])
def test_weight_zero_is_removal(kind, molecules, table):
    case = Case(kind, molecules)
    weights = np.ones(12)
    weights[[0, 7, 11]] = 0.0
    keep = np.flatnonzero(weights)
    weighted = case.fit(molecules, table, sample_weight=weights)
    removed = case.fit([molecules[i] for i in keep], table[keep])
    assert_allclose(weighted.coef_, removed.coef_, rtol=1e-10, atol=1e-11)
    assert_allclose(
        weighted.score(case.input(molecules), table, sample_weight=weights),
        removed.score(case.input([molecules[i] for i in keep]), table[keep]),
        rtol=1e-9,
    )


@pytest.mark.parametrize("name", ["dipole", "dipole_magnitude"])
def test_weight_zero_on_the_only_label_of_a_target(name, molecules, charges, dipoles):
    values = {"dipole": dipoles, "dipole_magnitude": np.linalg.norm(dipoles, axis=1)}[name].copy()
    values[1:] = np.nan
    y = make_targets(charges=charges, **{name: values})
    weights = np.ones(12)
    weights[0] = 0.0
    weighted = small("qeq").fit(molecules, y, sample_weight=weights)
    removed = small("qeq").fit(molecules[1:], y[1:])
    assert_allclose(weighted.coef_, removed.coef_, rtol=1e-10)


def test_weight_zero_on_all_labels(molecules, dipoles):
    dipoles[1:] = np.nan
    weights = np.ones(12)
    weights[0] = 0.0
    with pytest.raises(ValueError, match="label"):
        small("qeq").fit(molecules, dipoles, sample_weight=weights)


@pytest.mark.parametrize("kind", ["kqeq", "qeq", "gapkqeq"])
def test_equal_weights_scale_the_noise(kind, molecules, dipoles):
    case = Case(kind, molecules)
    weighted = case.fit(molecules, dipoles, sample_weight=np.full(12, 4.0))
    case.estimator.set_params(sigma_dipole=0.025)
    assert_allclose(weighted.coef_, case.fit(molecules, dipoles).coef_, rtol=1e-9, atol=1e-11)


def test_missing_labels_are_dropped_labels(regressor, molecules, dipoles, charges):
    # The features are fitted to the same structures, so that the models only differ in their
    # labels.
    known = [0, 1, 4, 5, 8, 9]
    partial = np.where(np.isin(np.arange(12), known)[:, None], dipoles, np.nan)
    fitted = regressor.fit(molecules, partial)
    if regressor.kind == "pipeline":
        X = fitted[:-1].transform([molecules[i] for i in known])
        dropped = Pipeline([*fitted.steps[:-1], ("last", clone(fitted[-1]))])
        dropped.steps[-1][1].fit(X, dipoles[known])
    else:
        dropped = regressor.fit([molecules[i] for i in known], dipoles[known])
    assert_outputs_close(
        regressor.output(fitted, molecules), regressor.output(dropped, molecules), atol=1e-9
    )


def test_targets_add_up(molecules, dipoles, charges):
    # A fit to half of the labels is the same for one table and for two rows per structure.
    y = make_targets(dipole=dipoles, charges=charges)
    both = small("qeq").fit(molecules, y)
    only = [
        make_targets(dipole=dipoles, charges=[None] * 12),
        make_targets(dipole=np.full((12, 3), np.nan), charges=charges),
    ]
    rows = small("qeq").fit(molecules * 2, np.concatenate(only))
    assert_allclose(rows.coef_, both.coef_, rtol=1e-9)


@pytest.mark.parametrize("unknown", [np.nan, None])
def test_one_component_may_be_missing(unknown, molecules, dipoles):
    dipoles[:, 2] = np.nan
    fitted = small("qeq").fit(molecules, dipoles)
    assert np.isfinite(fitted.predict(molecules)).all()


@pytest.mark.parametrize("regressor", MODELS, indirect=True)
@pytest.mark.parametrize("name", ["dipole", "charges", "dipole_magnitude", "energy", "forces"])
def test_sigma_column(regressor, name, molecules, dipoles, charges, energies):
    values = {
        "dipole": dipoles,
        "charges": charges,
        "dipole_magnitude": np.linalg.norm(dipoles, axis=1),
        "energy": energies["energy"],
        "forces": energies["forces"],
    }[name]
    # Iterative fits take long, and stop near the minimum.
    iterates = name in ("energy", "forces")
    X, values = (molecules[:6], values[:6]) if iterates else (molecules, values)
    atol = 1e-5 if iterates else 1e-9
    last = "kqeqregressor__" if regressor.kind == "pipeline" else ""
    relative = make_targets(**{name: values, f"{name}_sigma": np.full(len(X), 3.0)})
    ones = make_targets(**{name: values, f"{name}_sigma": np.full(len(X), np.nan)})
    plain = make_targets(**{name: values})
    base = regressor.estimator.get_params()[f"{last}sigma_{name}"]
    by_column = regressor.output(regressor.fit(X, relative), X)
    default = regressor.output(regressor.fit(X, ones), X)
    expected = regressor.output(regressor.fit(X, plain), X)
    regressor.estimator.set_params(**{f"{last}sigma_{name}": 3 * base})
    by_scalar = regressor.output(regressor.fit(X, plain), X)
    for one, two in ((by_column, by_scalar), (default, expected)):
        for a, b in zip(one, two):
            assert_allclose(a[name], b[name], rtol=1e-8, atol=atol)
    assert any(np.abs(a[name] - b[name]).max() > 10 * atol for a, b in zip(by_scalar, expected))


@pytest.mark.filterwarnings("ignore:gauss_newton stopped after 2 steps")
@pytest.mark.parametrize("regressor", MODELS, indirect=True)
@pytest.mark.parametrize("names", [["dipole", "charges"], ["energy", "forces"], ["stress"]])
def test_forms_of_y(regressor, names, molecules, dipoles, charges, energies):
    if names == ["stress"]:
        for atoms in molecules:
            atoms.set_cell([9.0, 9.0, 9.0])
            atoms.pbc = True
    stress = 1e-3 * np.arange(72.0).reshape(12, 6)
    columns = {"dipole": dipoles, "charges": charges, "stress": stress}
    columns |= {name: energies[name] for name in energies.dtype.names}
    X = molecules[:5]  # Five structures are sufficient for scores.
    columns = {name: list(columns[name])[:5] for name in names}
    table = make_targets(**columns)
    last = "kqeqregressor__" if regressor.kind == "pipeline" else ""
    regressor.estimator.set_params(**{f"{last}max_iter": 2})
    forms = {
        "table": table,
        "dicts": [dict(zip(names, row)) for row in zip(*columns.values())],
        "frame": pd.DataFrame(columns, index=range(50, 55)),
    }
    scores = set()
    for form, y in forms.items():
        fitted = regressor.fit(X, y)
        predicted = fitted.predict(regressor.input(X))
        scores.add(fitted.score(regressor.input(X), y))
        if form == "dicts":
            assert isinstance(predicted, list)
            assert list(predicted[0]) == names
            predicted = make_targets(**{k: [p[k] for p in predicted] for k in predicted[0]})
        elif form == "frame":
            assert isinstance(predicted, pd.DataFrame)
            assert list(predicted.columns) == names
            predicted = make_targets(**{k: predicted[k].tolist() for k in predicted})
        assert predicted.dtype == table.dtype
        if form == "table":
            expected = predicted
        for name in names:
            assert_outputs_close(predicted[name], expected[name], 0, 0)
            assert all(np.shape(p) == np.shape(t) for p, t in zip(predicted[name], table[name]))
    assert len(scores) == 1


def test_dipoles_as_an_array(regressor, molecules, dipoles):
    X = regressor.input(molecules)
    array = regressor.fit(molecules, dipoles)
    assert array.predict(X).shape == (12, 3)
    for y in (dipoles.tolist(), list(dipoles), dipoles.astype(object)):
        assert_array_equal(regressor.fit(molecules, y).predict(X), array.predict(X))
    table = regressor.fit(molecules, make_targets(dipole=dipoles))
    assert_array_equal(table.predict(X)["dipole"], array.predict(X))
    assert table.score(X, dipoles) == array.score(X, dipoles)
    single = regressor.fit(molecules, dipoles.astype(np.float32))
    assert_allclose(single.predict(X), array.predict(X), atol=1e-3)


def test_predictions_belong_to_the_user(regressor, molecules, dipoles, charges):
    table = make_targets(dipole=dipoles, charges=charges)
    fitted = regressor.fit(molecules, table)
    X = regressor.input(molecules)
    first = fitted.predict(X)
    first["dipole"][:] = 0.0
    first["charges"][0] *= 2.0
    assert np.abs(fitted.predict(X)["dipole"]).max() > 0


def test_scores_ignore_targets_without_labels(regressor, molecules, table):
    fitted = regressor.fit(molecules, table)
    X = regressor.input(molecules)
    dipole_only = table.copy()
    dipole_only["charges"] = None
    expected = fitted.score(X, make_targets(dipole=table["dipole"]))
    assert fitted.score(X, dipole_only) == expected


def test_score_of_an_unlabelled_fold_is_nan(regressor, molecules, dipoles):
    fitted = regressor.fit(molecules, dipoles)
    X = regressor.input(molecules)
    for n_labels in (0, 1):
        y = dipoles.copy()
        y[n_labels:] = np.nan
        with pytest.warns(UndefinedMetricWarning, match=f"two labelled structures, got {n_labels}"):
            assert np.isnan(fitted.score(X, y))
    with pytest.warns(UndefinedMetricWarning, match="two labelled structures"):
        assert np.isnan(fitted.score(regressor.input(molecules[:1]), dipoles[:1]))


def test_score_is_r2_and_ignores_sigma(regressor, molecules, dipoles):
    fitted = regressor.fit(molecules, dipoles)
    X = regressor.input(molecules)
    error = np.sum((fitted.predict(X) - dipoles) ** 2)
    r2 = 1 - error / np.sum((dipoles - dipoles.mean(axis=0)) ** 2)
    assert_allclose(fitted.score(X, dipoles), r2, rtol=1e-12)
    assert r2 > 0.3
    column = make_targets(dipole=dipoles, dipole_sigma=np.linspace(1, 9, 12))
    assert fitted.score(X, column) == fitted.score(X, dipoles)


# ---- containers ---------------------------------------------------------------------------------


def object_array(X, shape):
    array = np.empty(len(X), dtype=object)
    array[:] = X
    return array.reshape(shape)


CONTAINERS = {
    "tuple": tuple,
    "series": lambda X: pd.Series(X, index=range(30, 30 + len(X))),
    "frame": lambda X: pd.DataFrame({"molecule": X}),
    "frame_structures": lambda X: pd.DataFrame({"structures": X}),
    "array": lambda X: object_array(X, -1),
    "column": lambda X: object_array(X, (-1, 1)),
}


@pytest.mark.parametrize("kind", ["soap", "qeq", "pipeline"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_of_structures(kind, container, molecules, dipoles):
    case = Case(kind, molecules)
    X = CONTAINERS[container](molecules)
    assert len(check_structures(X)) == 12
    fitted = case.fit(X, dipoles)
    expected = case.output(case.fit(molecules, dipoles), molecules)
    assert_outputs_close(case.output(fitted, X), expected, 0, 0)
    # All containers must keep molecules of equal size separate.
    twins = [molecules[0], molecules[0]]
    assert_outputs_close(
        case.output(fitted, CONTAINERS[container](twins)), case.output(fitted, twins), 0, 0
    )


@pytest.mark.parametrize("container", [list, *CONTAINERS.values()])
def test_cross_validation_splits_every_container(container, molecules, dipoles):
    scores = cross_val_score(small("qeq"), container(molecules), dipoles, cv=KFold(3))
    assert_array_equal(scores, cross_val_score(small("qeq"), molecules, dipoles, cv=KFold(3)))


def test_features_behave_like_a_matrix_of_structures(molecules):
    X = small("soap").fit_transform(molecules)
    assert X.shape == (12, X[0].shape[1])
    assert (len(X), X.ndim, np.shape(X)) == (12, 2, X.shape)
    mask = np.arange(12) % 3 == 0
    keys = [[0, 3, 6, 9], np.array([0, 3, 6, 9]), mask, mask.tolist(), slice(0, None, 3)]
    for key in keys:
        for part in (X[key], X[key, ...], X[key, :], _safe_indexing(X, key)):
            assert isinstance(part, StructureFeatures)
            assert_outputs_close(list(part), [X[i] for i in range(0, 12, 3)])
    assert len(X[[]]) == 0
    assert X[-1].shape == (len(molecules[-1]), X.shape[1])
    assert_array_equal(X[np.int64(2)], X[2])
    for bad in (12, -13):
        with pytest.raises(IndexError):
            X[bad]
    with pytest.raises(IndexError, match="structures only"):
        X[0, 0]
    with pytest.raises(TypeError, match="cannot be converted to an array"):
        np.asarray(X)


def test_features_concatenate(molecules):
    soap = small("soap").fit(molecules)
    X = soap.transform(molecules)
    whole = np.concatenate([X[:5], X[5:]])
    assert_outputs_close(list(whole), list(X))
    assert_outputs_close(list(np.concatenate([X[:5], X[5:]], axis=0)), list(X))
    wide = np.concatenate([X, X], axis=1)
    assert wide.shape == (12, 2 * X.shape[1])
    assert_array_equal(wide[3], np.hstack([X[3], X[3]]))
    with pytest.raises(ValueError, match="different structures"):
        np.concatenate([X[:5], X[5:10]], axis=1)
    with pytest.raises(ValueError, match="different transformers"):
        other = SOAPFeaturizer(r_cut=4.0, n_max=2, l_max=2).fit_transform(molecules)
        np.concatenate([X, other])
    with pytest.raises(TypeError, match="each other only"):
        np.concatenate([X, np.zeros((12, 2))])


@pytest.mark.parametrize("kinds", [["soap"], ["soap", "sparsifier"]])
def test_features_of_two_calls_concatenate(kinds, molecules):
    transformer = make_pipeline(*map(small, kinds)).fit(molecules)
    X = np.concatenate([transformer.transform(molecules[:5]), transformer.transform(molecules[5:])])
    assert_outputs_close(list(X), list(transformer.transform(molecules)))


def test_feature_union(molecules, dipoles):
    # The union stacks by np.hstack in scikit-learn 1.8 and by concat(axis=1) in 1.9.
    near, far = (SOAPFeaturizer(r_cut=r, n_max=2, l_max=2) for r in (2.0, 3.5))
    both = SOAPFeaturizer(r_cut=(2.0, 3.5), n_max=2, l_max=2)
    union = FeatureUnion([("near", near), ("far", far)])
    X = union.fit_transform(molecules)
    assert X.shape == both.fit_transform(molecules).shape
    assert_outputs_close(list(X), list(both.fit_transform(molecules)), 0, 0)
    assert_outputs_close(list(union.transform(molecules)), list(X), 0, 0)
    models = [
        make_pipeline(features, CURSparsifier(n_points=3), KQEqRegressor())
        for features in (union, both)
    ]
    first, second = (model.fit(molecules, dipoles).predict(molecules) for model in models)
    assert_allclose(first, second, rtol=1e-6, atol=1e-8)


def test_feature_union_of_sparse_sets(molecules, dipoles):
    parts = [
        make_pipeline(SOAPFeaturizer(r_cut=r, n_max=2, l_max=2), CURSparsifier(n_points=n))
        for r, n in ((2.0, 2), (3.5, 3))
    ]
    union = FeatureUnion([("near", parts[0]), ("far", parts[1])])
    X = union.fit_transform(molecules)
    assert X.shape == (12, 3 * (2 + 3))
    separate = [part.transform(molecules) for part in parts]
    assert_outputs_close(list(X), [np.hstack(rows) for rows in zip(*separate)], 0, 0)
    model = make_pipeline(union, KQEqRegressor()).fit(molecules, dipoles)
    assert model.score(molecules, dipoles) > 0.3


# ---- scikit-learn's switches --------------------------------------------------------------------


@pytest.mark.parametrize("output", ["pandas", "default"])
def test_global_output_format_is_ignored(output, molecules, dipoles):
    expected = small("pipeline").fit(molecules, dipoles).predict(molecules)
    with sklearn.config_context(transform_output=output):
        assert isinstance(small("soap").fit_transform(molecules), StructureFeatures)
        model = small("pipeline").fit(molecules, dipoles)
        assert_array_equal(model.predict(molecules), expected)


def test_feature_union_wraps_by_itself(molecules):
    # scikit-learn wraps the output of every union, which must at least raise an error here.
    union = FeatureUnion([("a", small("soap")), ("b", small("soap"))])
    with sklearn.config_context(transform_output="pandas"):
        with pytest.raises((TypeError, ValueError)):
            union.fit_transform(molecules)


def test_set_output_is_refused():
    assert not hasattr(small("sparsifier"), "set_output")
    for kind, name in (("soap", "SOAPFeaturizer"), ("blocks", "StructureBlocks")):
        for estimator in (small(kind), make_pipeline(small(kind), KQEqRegressor())):
            with pytest.raises(ValueError, match=f"{name} returns StructureFeatures"):
                estimator.set_output(transform="pandas")


def test_tags():
    for kind in ("soap", "sparsifier", "kqeq", "qeq", "gapkqeq", "cv"):
        tags = sklearn.utils.get_tags(small(kind))
        assert tags.input_tags.two_d_array == (kind == "sparsifier")
        assert tags.target_tags.required == (kind in REGRESSORS)
    for kind in REGRESSORS:
        tags = sklearn.utils.get_tags(small(kind))
        assert tags.estimator_type == "regressor"
        assert tags.target_tags.multi_output


def test_sample_weight_by_metadata_routing(molecules, dipoles):
    weights = np.linspace(0.1, 2.0, 12)
    case = Case("kqeq", molecules)
    direct = case.fit(molecules, dipoles, sample_weight=weights)
    expected = direct.predict(case.input(molecules))
    with sklearn.config_context(enable_metadata_routing=True):
        last = small("kqeq").set_fit_request(sample_weight=True)
        last.set_score_request(sample_weight=True)
        model = make_pipeline(small("soap"), small("sparsifier"), last)
        model.fit(molecules, dipoles, sample_weight=weights)
        assert_allclose(model.predict(molecules), expected, rtol=1e-9, atol=1e-12)
        assert_allclose(
            model.score(molecules, dipoles, sample_weight=weights),
            direct.score(case.input(molecules), dipoles, sample_weight=weights),
            rtol=1e-9,
        )
        search = GridSearchCV(model, {"kqeqregressor__sigma_dipole": [0.05]}, cv=KFold(3))
        search.fit(molecules, dipoles, sample_weight=weights)
        assert_allclose(search.predict(molecules), expected, rtol=1e-9, atol=1e-12)
        # The search has split the weights with the structures.
        scores = []
        for train, test in KFold(3).split(molecules):
            part = clone(model).fit(
                [molecules[i] for i in train], dipoles[train], sample_weight=weights[train]
            )
            scores.append(
                part.score([molecules[i] for i in test], dipoles[test], sample_weight=weights[test])
            )
        assert_allclose(search.cv_results_["mean_test_score"], [np.mean(scores)], rtol=1e-9)


def test_sample_weight_needs_no_routing_as_a_step_parameter(molecules, dipoles):
    weights = np.linspace(0.1, 2.0, 12)
    model = small("pipeline").fit(molecules, dipoles, kqeqregressor__sample_weight=weights)
    case = Case("kqeq", molecules)
    direct = case.fit(molecules, dipoles, sample_weight=weights)
    assert_allclose(model.predict(molecules), direct.predict(case.input(molecules)), rtol=1e-9)


def test_bagging_through_a_frame(molecules, dipoles):
    # check_array accepts a data frame with one column of objects.
    frame = pd.DataFrame({"molecule": molecules})
    bag = BaggingRegressor(small("qeq"), n_estimators=3, random_state=0).fit(frame, dipoles)
    members = [e.predict(molecules) for e in bag.estimators_]
    assert np.ptp(members, axis=0).max() > 0
    assert_allclose(bag.predict(frame), np.mean(members, axis=0), rtol=1e-12)


def test_transformed_target(molecules, dipoles):
    scaled = TransformedTargetRegressor(
        small("qeq").set_params(sigma_dipole=0.1),
        func=lambda y: 2 * y,
        inverse_func=lambda y: y / 2,
    )
    scaled.fit(molecules, dipoles)
    assert scaled.predict(molecules).shape == (12, 3)
    assert scaled.score(molecules, dipoles) > 0.3


# ---- predictions through wrappers ---------------------------------------------------------------


def test_functions_reach_the_innermost_model(molecules, table):
    pipeline = small("pipeline").fit(molecules, table)
    search = GridSearchCV(small("pipeline"), {"kqeqregressor__sigma_dipole": [0.05]}, cv=KFold(3))
    search.fit(molecules, table)
    nested = Pipeline([("all", pipeline)])
    expected = pipeline.predict(molecules)
    crystal = molecules[0].copy()
    crystal.set_cell([5.0, 5.0, 5.0])
    crystal.pbc = True
    stress = pipeline[-1].predict_stress(pipeline[:-1].transform([crystal]))
    assert stress.shape == (1, 6) and np.isfinite(stress).all()
    for model in (pipeline, search, nested):
        assert_allclose(predict_stress(model, [crystal]), stress, rtol=1e-9, atol=1e-12)
        assert_outputs_close(predict_charges(model, molecules), expected["charges"])
        assert_allclose(predict_target(model, molecules, "dipole"), expected["dipole"])
        chi = predict_electronegativities(model, molecules)
        assert [len(c) for c in chi] == [len(a) for a in molecules]
        assert predict_target(model, molecules, "quadrupole").shape == (12, 6)
        assert predict_target(model, molecules, "dipole_magnitude").shape == (12,)
    with pytest.raises(ValueError, match="unknown target 'energies'; known: dipole"):
        predict_target(pipeline, molecules, "energies")


def test_predicting_needs_no_labels_of_the_new_structures(regressor, molecules, table):
    fitted = regressor.fit(molecules[:9], table[:9])
    for atoms in molecules:
        atoms.info.clear()
    predicted = fitted.predict(regressor.input(molecules[9:]))
    assert len(predicted) == 3
    for q in predicted["charges"]:
        assert_allclose(q.sum(), 0.0, atol=1e-10)


# ---- the common checks --------------------------------------------------------------------------


@pytest.mark.filterwarnings(
    # The common checks fit 1000 points, the default, to some tens of samples with many duplicates.
    "ignore:n_points=1000, but there are only:UserWarning",
    "ignore:the kernel matrix of .* is singular:sklearn.exceptions.ConvergenceWarning",
)
@pytest.mark.parametrize(
    ("estimator", "check"),
    # A list, because pytest 9 deprecates generators. The function `parametrize_with_checks` of
    # scikit-learn 1.8 would pass a generator.
    [
        pair
        for estimator in (CURSparsifier(), CURSparsifier(n_points=2, method="fps"))
        for pair in estimator_checks_generator(estimator)
    ],
    ids=lambda item: getattr(getattr(item, "func", item), "__name__", repr(item)),
)
def test_check_estimator(estimator, check):
    check(estimator)


def test_sparsifier_names_its_columns():
    X = np.random.default_rng(0).normal(size=(20, 4))
    sparsifier = CURSparsifier(n_points=3).fit(X)
    names = sparsifier.get_feature_names_out().tolist()
    assert names == ["cursparsifier0", "cursparsifier1", "cursparsifier2"]
    assert sparsifier.transform(X).shape == (20, 3)
    frame = pd.DataFrame(X, columns=list("abcd"))
    assert CURSparsifier(n_points=3).fit(frame).feature_names_in_.tolist() == list("abcd")
