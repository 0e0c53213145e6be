"""Files of fitted models: exact to the last bit, versioned, and readable without pickle."""

import hashlib
import io
import json
import os
import pathlib
import pickle
import pickletools
import re
import subprocess
import sys
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import ModuleType

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import uniform
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    RandomizedSearchCV,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    KQEqRegressor,
    KQEqRegressorCV,
    QEq,
    QEqRegressor,
    SOAPFeaturizer,
    StructureBlocks,
    load,
    persistence,
    predict_charges,
    save,
)
from skqeq.model_selection import LabelledKFold, TargetScorer

# Apart from arrays and plain Python objects, our files hold only these types.
TRUSTED = {
    "pipeline": [
        "skqeq.CURSparsifier",
        "skqeq.ChargeFlow",
        "skqeq.KQEqRegressor",
        "skqeq.SOAPFeaturizer",
        "skqeq.features.PowerSpectrum",
        "skqeq.fields.FieldLayout",
        "skqeq.sparsify.SparseKernel",
    ],
    "qeq": ["skqeq.QEq", "skqeq.QEqRegressor", "skqeq.fields.FieldLayout"],
    "blocks": [
        "skqeq.CURSparsifier",
        "skqeq.GAPKQEqRegressor",
        "skqeq.QEq",
        "skqeq.SOAPFeaturizer",
        "skqeq.StructureBlocks",
        "skqeq.features.PowerSpectrum",
        "skqeq.fields.FieldLayout",
        "skqeq.sparsify.SparseKernel",
    ],
}


@pytest.fixture(params=["pipeline", "qeq", "blocks"])
def kind(request):
    return request.param


@pytest.fixture
def fitted(kind, molecules, table):
    if kind == "qeq":
        response = QEq(hardness={"H": 1.0, "C": 0.5, "O": 0.0})
        return QEqRegressor(response=response).fit(molecules, table)
    soap = SOAPFeaturizer(r_cut=(2.0, 3.0), n_max=2, l_max=2, species=["H", "C", "O"])
    if kind == "blocks":
        halves = [
            (name, make_pipeline(clone(soap), CURSparsifier(n_points=3))) for name in ("chi", "gap")
        ]
        return make_pipeline(StructureBlocks(halves), GAPKQEqRegressor()).fit(molecules, table)
    kqeq = KQEqRegressor(response=ChargeFlow(radii="covalent"))
    model = make_pipeline(soap, CURSparsifier(n_points=3), kqeq)
    return model.fit(molecules, table)


def bits(table):
    """A structured array as bytes."""
    return table["dipole"].tobytes() + np.concatenate(table["charges"]).tobytes()


FRESH = """
import sys
import joblib
import numpy as np
model, X = joblib.load(sys.argv[1])
y = model.predict(X)
with open(sys.argv[2], "wb") as out:
    out.write(y["dipole"].tobytes() + np.concatenate(y["charges"]).tobytes())
"""


@pytest.mark.parametrize("compress", [0, 3])
def test_fresh_process_predicts_the_same_bits(compress, fitted, molecules, tmp_path):
    joblib.dump((fitted, molecules), tmp_path / "model.joblib", compress=compress)
    subprocess.run(
        [sys.executable, "-c", FRESH, tmp_path / "model.joblib", tmp_path / "predicted"],
        check=True,
        cwd=tmp_path,
    )
    assert (tmp_path / "predicted").read_bytes() == bits(fitted.predict(molecules))


def imported(pickled):
    """The modules and names that a pickle imports."""
    names, strings = set(), []
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL":
            names.add(tuple(argument.split(" ", 1)))
        elif opcode.name == "STACK_GLOBAL":
            names.add(tuple(strings[-2:]))
        elif "UNICODE" in opcode.name:
            strings.append(argument)
        elif opcode.name == "MEMOIZE":
            continue
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            strings.append("memo")
    return names


def test_files_hold_arrays_and_plain_python_only(fitted):
    modules = {module.split(".")[0] for module, _ in imported(pickle.dumps(fitted, protocol=2))}
    # Protocol 2 writes every global as text; it uses `copyreg` and `_codecs` itself.
    assert modules <= {"skqeq", "sklearn", "numpy", "copyreg", "_codecs", "__builtin__", "copy_reg"}


def test_files_hold_no_training_structures(fitted, molecules):
    # A view or a closure must not store the training data; a model contains only what it learned.
    pickled = pickle.dumps(fitted)
    assert molecules[0].positions[0].tobytes() not in pickled
    assert b"Structure" not in pickled.replace(b"StructureBlocks", b"")
    assert b"ase." not in pickled


def test_attributes_are_arrays_and_plain_python(fitted):
    plain = (type(None), bool, int, float, str, bytes)

    def walk(value, path):
        if isinstance(value, plain):
            return
        if isinstance(value, np.ndarray):
            assert value.dtype.kind in "fiub", path
        elif isinstance(value, np.generic):
            pytest.fail(f"{path} is a {type(value).__name__}")
        elif isinstance(value, dict):
            for key, item in value.items():
                assert isinstance(key, plain), path
                walk(item, f"{path}[{key!r}]")
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                walk(item, f"{path}[{i}]")
        else:
            assert type(value).__module__.split(".")[0] in ("skqeq", "sklearn"), path
            for name, item in value.__getstate__().items():  # caches are not stored
                walk(item, f"{path}.{name}")

    walk(fitted, "model")


def test_older_format_is_refused(kind, fitted, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr(persistence, "FORMAT", persistence.FORMAT - 1)
        pickled = pickle.dumps(fitted)
    with pytest.raises(ValueError, match="by an older skqeq, but .* fit the model again"):
        pickle.loads(pickled)


def test_newer_format_is_refused(kind, fitted, monkeypatch, tmp_path):
    with monkeypatch.context() as newer:
        newer.setattr(persistence, "FORMAT", persistence.FORMAT + 1)
        joblib.dump(fitted, tmp_path / "model")
        pickled = pickle.dumps(fitted)
        joblib.load(tmp_path / "model")
    message = (
        rf"was saved in format {persistence.FORMAT + 1}, but the installed skqeq reads formats up "
        rf"to {persistence.FORMAT}; upgrade"
    )
    with pytest.raises(ValueError, match=message):
        joblib.load(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        pickle.loads(pickled)


@pytest.mark.parametrize("cls", [SOAPFeaturizer, CURSparsifier, KQEqRegressor, QEqRegressor])
def test_every_estimator_writes_its_format(cls):
    state = cls().__getstate__()
    assert state["_skqeq_format"] == persistence.FORMAT
    assert "_skqeq_format" not in vars(pickle.loads(pickle.dumps(cls())))


def test_other_features_than_in_the_file(molecules, table, tmp_path):
    def features(**params):
        soap = SOAPFeaturizer(**{"r_cut": 3.0, "n_max": 2, "l_max": 2, **params})
        return make_pipeline(soap, CURSparsifier(n_points=3))

    own = features().fit(molecules)
    model = KQEqRegressor().fit(own.transform(molecules), table)
    joblib.dump((own[-1], model), tmp_path / "model")
    sparsifier, model = joblib.load(tmp_path / "model")
    with pytest.raises(ValueError, match="X has .* features, but CURSparsifier was fitted with"):
        sparsifier.transform(features(n_max=3).fit(molecules)[0].transform(molecules))
    with pytest.raises(ValueError, match="X has .* features, but KQEqRegressor was fitted with 9"):
        model.predict(own[0].transform(molecules))


@pytest.mark.parametrize("change", [{"r_cut": 4.0}, {"sigma_atom": 0.7}, {"cutoff_width": 1.0}])
def test_other_features_of_the_same_number(change, molecules, table):
    # The number of columns is right, but their meaning is not, so that predictions would be wrong.
    soap = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2)
    other = SOAPFeaturizer(**{**soap.get_params(), **change}).fit_transform(molecules)
    sparsifier = CURSparsifier(n_points=3).fit(soap.fit_transform(molecules))
    with pytest.raises(ValueError, match="features"):
        sparsifier.transform(other)


# ---- skqeq.save: files that execute nothing -----------------------------------------------------


@pytest.fixture
def path(fitted, tmp_path):
    save(fitted, tmp_path / "model.skqeq")
    return tmp_path / "model.skqeq"


SAFE = FRESH.replace("(sys.argv[1])", "(sys.argv[3])").replace(
    "model, X = ", "import skqeq\nmodel, X = skqeq.load(sys.argv[1]), "
)


def test_a_saved_model_predicts_the_same_bits_elsewhere(path, fitted, molecules, tmp_path):
    joblib.dump(molecules, tmp_path / "X")
    command = [sys.executable, "-c", SAFE, path, tmp_path / "out", tmp_path / "X"]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == bits(fitted.predict(molecules))
    assert repr(load(path)) == repr(fitted)


def test_searches_are_saved(molecules, table, tmp_path):
    soap = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2)
    search = GridSearchCV(
        make_pipeline(
            soap, CURSparsifier(n_points=2), KQEqRegressorCV(sigmas={"sigma_dipole": [0.01, 0.1]})
        ),
        {"soapfeaturizer__r_cut": [2.0, 3.0]},
        scoring=TargetScorer("dipole"),
        cv=LabelledKFold("dipole", n_splits=2),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(molecules, table)
    save(search, tmp_path / "search.skqeq")
    again = load(tmp_path / "search.skqeq")
    assert bits(again.predict(molecules)) == bits(search.predict(molecules))
    assert again.best_params_ == search.best_params_
    first, second = (model.best_estimator_[-1].left_out_ for model in (again, search))
    for a, b in zip(first["charges"], second["charges"]):
        assert_array_equal(a, b)
    assert_array_equal(first["dipole"], second["dipole"])


@pytest.mark.parametrize(
    "cv", [3, KFold(3, shuffle=True, random_state=0), GroupKFold(3), LeaveOneGroupOut()]
)
def test_searches_with_defaults_are_saved(cv, molecules, dipoles, tmp_path):
    groups = np.arange(len(molecules)) % 3 if "Group" in repr(cv) else None
    search = GridSearchCV(QEqRegressor(), {"sigma_dipole": [0.01, 0.1]}, cv=cv)
    search.fit(molecules, dipoles, groups=groups)
    save(search, tmp_path / "search.skqeq")
    again = load(tmp_path / "search.skqeq")
    assert again.best_params_ == search.best_params_
    assert_array_equal(again.predict(molecules), search.predict(molecules))
    assert again.score(molecules, dipoles) == search.score(molecules, dipoles)


@pytest.mark.parametrize("kind", ["distribution", "scorer", "own splitter"])
def test_the_best_model_of_other_searches_is_saved(kind, molecules, dipoles, tmp_path):
    grid, model = {"sigma_dipole": [0.01, 0.1]}, QEqRegressor()
    search = {
        "distribution": RandomizedSearchCV(
            model, {"sigma_dipole": uniform(0.01, 1)}, n_iter=2, cv=2, random_state=0
        ),
        "scorer": GridSearchCV(model, grid, cv=2, scoring="neg_mean_absolute_error"),
        "own splitter": GridSearchCV(model, grid, cv=OwnFolds(2)),
    }[kind].fit(molecules, dipoles)
    path = tmp_path / "search.skqeq"
    with pytest.warns(
        UserWarning, match="holds only best_estimator_ of the .*that holds"
    ) as caught:
        save(search, path)
    assert caught[0].filename == __file__
    assert_array_equal(load(path).predict(molecules), search.predict(molecules))


class OwnFolds(KFold):
    """A splitter of the user's."""


class Foreign(CURSparsifier):
    """A class of the user's."""


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    path = tmp_path / "model.skqeq"
    path.write_text("old")
    with pytest.raises(TypeError, match="holds .*Foreign cannot be saved .* joblib.dump can"):
        save(make_pipeline(Foreign(), KQEqRegressor()), path)
    assert path.read_text() == "old"


def test_any_damage_is_noticed(path):
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:n] for n in [0, 1, 10, *rng.integers(0, len(whole), 20)]]
    damaged += [whole[n:] for n in rng.integers(1, len(whole), 20)]
    for place in rng.integers(0, len(whole), 60):
        bent = bytearray(whole)
        bent[place] ^= 1 << rng.integers(8)
        damaged.append(bytes(bent))
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            again = load(path)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
        else:  # The changed bit belongs to a part of the archive without meaning, such as a date.
            path.write_bytes(whole)
            assert pickle.dumps(again) == pickle.dumps(load(path))
    assert refused > 0.9 * len(damaged)


def archive(path, model, **about):
    found = {"format": persistence.FORMAT, "sha256": hashlib.sha256(model).hexdigest()} | about
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("about.json", json.dumps(found))
        file.writestr("model.skops", model)


class Dangerous:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pathlib.Path("executed").touch, ())


# Parts of a pipeline that do not belong together: a change of a fitted pipeline, and the message of
# `load`.
MISFITS = {
    "weights": (
        lambda soap, cur, kqeq: vars(kqeq).update(coef_=kqeq.coef_[1:]),
        r"coef_ of KQEqRegressor is an array of float64 of shape \(23,\), but must be .* \(24,\)",
    ),
    "missing weights": (
        lambda soap, cur, kqeq: vars(kqeq.layout_).pop("means"),
        "'FieldLayout' object has no attribute 'means'",
    ),
    "sizes": (
        lambda soap, cur, kqeq: kqeq.layout_.sizes.append(3),
        "sizes of FieldLayout is a list, but must be a list of 3 numbers",
    ),
    "prior": (
        lambda soap, cur, kqeq: vars(kqeq.layout_).update(enters=["chi", "chi", "energy"]),
        "layout_ of .* must be a layout of fields that enter chi and energy and reference",
    ),
    "elements": (
        lambda soap, cur, kqeq: vars(kqeq).update(elements_=np.array([1, 6, 9])),
        "layout_ of KQEqRegressor is a FieldLayout, but must be a layout for elements_",
    ),
    "descending elements": (
        lambda soap, cur, kqeq: vars(kqeq).update(elements_=kqeq.elements_[::-1].copy()),
        "elements_ of KQEqRegressor .* must be an array of ascending atomic numbers",
    ),
    "radii": (
        lambda soap, cur, kqeq: vars(kqeq.response_).update(widths_=np.ones(2)),
        r"widths_ of ChargeFlow is an array of float64 of shape \(2,\), but must be .* \(3,\)",
    ),
    "wide charges": (
        lambda soap, cur, kqeq: vars(kqeq.response_).update(widths_=np.full(3, 1e9)),
        "widths_ of ChargeFlow .* must be about .*, according to the parameters",
    ),
    "parameter": (
        lambda soap, cur, kqeq: kqeq.response_.set_params(solver="x"),
        "The 'solver' parameter of ChargeFlow must be a str among",
    ),
    "target": (
        lambda soap, cur, kqeq: vars(kqeq).update(targets_=["color"]),
        "targets_ of KQEqRegressor is a list, but must be a list of targets",
    ),
    "triangle": (
        lambda soap, cur, kqeq: kqeq.triangles_.update(dipole=np.eye(3)),
        r"triangles_ of KQEqRegressor .* must be arrays .* of shape \(28, 28\) by target",
    ),
    "noise": (
        lambda soap, cur, kqeq: kqeq.posterior_._sigmas.update(dipole=0.0),
        "_sigmas of Posterior is a dict, but must be positive",
    ),
    "points": (
        lambda soap, cur, kqeq: vars(cur.kernels_[6]).update(points=np.ones((3, 2))),
        r"points of SparseKernel is an array of float64 of shape \(3, 2\)",
    ),
    "singular": (
        lambda soap, cur, kqeq: vars(cur.kernels_[6]).update(chol=np.zeros((3, 3))),
        "chol of SparseKernel .* must be the Cholesky factor of the kernel of the points",
    ),
    "exponent": (
        lambda soap, cur, kqeq: vars(cur.kernels_[6]).update(zeta=True),
        "zeta of SparseKernel is True, but must be a positive integer",
    ),
    "other points": (
        lambda soap, cur, kqeq: vars(cur.kernels_[6]).update(vars(cur.kernels_[1])),
        "X has as many features as KQEqRegressor was fitted with, but with a different meaning",
    ),
    "groups": (
        lambda soap, cur, kqeq: vars(cur).update(component_numbers_=np.zeros(9, dtype=int)),
        "component_numbers_ of CURSparsifier .* must be the group of every point",
    ),
    "descriptor": (
        lambda soap, cur, kqeq: vars(soap.spectra_[0]).update(n_features=7),
        "n_features of PowerSpectrum is 7, but must be 63 for these options",
    ),
    "cutoff": (
        lambda soap, cur, kqeq: vars(soap.spectra_[0]).update(options=(0.5, 2, 2, 0.1, "off")),
        "options of PowerSpectrum is a tuple, but must be the values of r_cut",
    ),
    "other descriptor": (
        lambda soap, cur, kqeq: vars(soap).update(spectra_=soap.spectra_[::-1]),
        "X has as many features as CURSparsifier was fitted with, but with a different meaning",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_parts_that_do_not_fit_are_named(misfit, molecules, dipoles, tmp_path):
    model = make_pipeline(
        SOAPFeaturizer(r_cut=(2.0, 3.0), n_max=2, l_max=2, species=["H", "C", "O"]),
        CURSparsifier(n_points=3),
        KQEqRegressor(response=ChargeFlow(), store_triangles=True),
    ).fit(molecules, dipoles)
    change, message = MISFITS[misfit]
    change(*(step for _, step in model.steps))
    save(model, tmp_path / "model.skqeq")
    with pytest.raises(ValueError, match=f"model.skqeq do not fit: {message}"):
        load(tmp_path / "model.skqeq")


@pytest.mark.parametrize(
    "attribute, value, message",
    [
        ("features_", ("x",), "X has as many features as QEqRegressor was fitted with"),
        ("y_form_", "x", "y_form_ of QEqRegressor is 'x', but must be one of array"),
        ("response_", QEq(), "response_ of QEqRegressor is a QEq, but must be a response that is"),
        ("posterior_", 1.0, "posterior_ of QEqRegressor is 1.0, but must be of type Posterior"),
        ("energy_compositions_", np.eye(7), r"energy_compositions_ .* shape \(any, 3\)"),
    ],
)
def test_a_model_without_features_that_does_not_fit(
    attribute, value, message, molecules, dipoles, tmp_path
):
    model = QEqRegressor().fit(molecules, dipoles)
    setattr(model, attribute, value)
    save(model, tmp_path / "model.skqeq")
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "model.skqeq")


def test_a_search_without_its_best_model_does_not_fit(molecules, dipoles, tmp_path):
    search = KQEqRegressorCV(QEqRegressor(), sigmas=np.geomspace(1e-3, 1e3, 7), cv=2)
    search.fit(molecules, dipoles)
    search.best_estimator_ = CURSparsifier()
    save(search, tmp_path / "model.skqeq")
    with pytest.raises(ValueError, match="best_estimator_ of KQEqRegressorCV is a CURSparsifier"):
        load(tmp_path / "model.skqeq")


@pytest.mark.parametrize("place", [0, 1])
def test_a_step_that_is_no_estimator_does_not_fit(place, molecules, dipoles, tmp_path):
    soap = SOAPFeaturizer(n_max=2, l_max=1)
    model = make_pipeline(soap, CURSparsifier(n_points=3), KQEqRegressor()).fit(molecules, dipoles)
    model.steps[place] = ("step", "qeq")
    save(model, tmp_path / "model.skqeq")
    with pytest.raises(ValueError, match="do not fit: a Pipeline contains a str"):
        load(tmp_path / "model.skqeq")


def test_unused_parameters_of_a_search_need_not_fit(molecules, dipoles, tmp_path):
    """Pipelines may share a step that was fitted again since."""
    soap = SOAPFeaturizer(n_max=2, l_max=1)
    model = make_pipeline(soap, CURSparsifier(n_points=3), KQEqRegressor()).fit(molecules, dipoles)
    grid = {"kqeqregressor__sigma_dipole": [0.1, 0.2]}
    search = GridSearchCV(model, grid, cv=2).fit(molecules, dipoles)
    soap.set_params(n_max=3).fit(molecules)
    save(search, tmp_path / "search.skqeq")
    assert_array_equal(
        load(tmp_path / "search.skqeq").predict(molecules), search.predict(molecules)
    )


@pytest.mark.parametrize("kind", ["numbers", "columns", "noise", "arrays"])
def test_unusual_models_are_loaded(kind, molecules, dipoles, tmp_path):
    soap = SOAPFeaturizer(r_cut=np.float32(2.0), n_max=np.int64(2), l_max=np.int32(1))
    cur = CURSparsifier(n_points=np.int64(3), zeta=np.int64(2), jitter=0)
    X, y, model = molecules, dipoles, make_pipeline(soap, cur, KQEqRegressor())
    if kind == "columns":
        X = pd.DataFrame({"atoms": molecules})
        first = ColumnTransformer([("soap", soap, "atoms")])
        model = make_pipeline(first, cur, KQEqRegressor())
    elif kind == "noise":
        model = KQEqRegressorCV(make_pipeline(soap, cur, KQEqRegressor()), cv=3)
        model.set_params(sigmas=np.float32([0.01, 0.1, 0.01]), estimator__kqeqregressor__n_jobs=1)
    elif kind == "arrays":
        X, y = np.random.default_rng(0).normal(size=(9, 4)), None
        model = make_pipeline(StandardScaler(), CURSparsifier(n_points=np.int32(3)))
    model.fit(X, y)
    save(model, tmp_path / "model.skqeq")
    method = "transform" if kind == "arrays" else "predict"
    again = load(tmp_path / "model.skqeq")
    assert_array_equal(getattr(again, method)(X), getattr(model, method)(X))


def test_a_file_names_no_folder_of_pickles(molecules, dipoles, tmp_path):
    soap = SOAPFeaturizer(n_max=2, l_max=1, memory=str(tmp_path / "rows"))
    model = make_pipeline(soap, CURSparsifier(n_points=3), KQEqRegressor(), memory=soap.memory)
    save(model.fit(molecules, dipoles), tmp_path / "model.skqeq")
    again = load(tmp_path / "model.skqeq")
    assert again.memory is None and again[0].memory is None
    assert_array_equal(again.predict(molecules), model.predict(molecules))


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.skqeq"
    path.write_bytes(pickle.dumps(Dangerous()))
    with pytest.raises(ValueError, match="not written by skqeq.save, or is damaged"):
        load(path)
    archive(path, pickle.dumps(Dangerous()))
    with pytest.raises(ValueError, match="holds no model"):
        load(path)
    archive(path, skops.io.dumps(FunctionTransformer(os.system)))
    with pytest.raises(ValueError, match="not written by skqeq.save: .*system"):
        load(path)
    assert not (tmp_path / "executed").exists()


def test_other_formats(tmp_path):
    path = tmp_path / "model.skqeq"
    data = skops.io.dumps(QEqRegressor())
    for change, message in ((1, "formats up to .* upgrade skqeq"), (-1, "fit the model again")):
        archive(path, data, format=persistence.FORMAT + change)
        with pytest.raises(ValueError, match=message):
            load(path)
    archive(path, data, sha256="0")
    with pytest.raises(ValueError, match="is damaged: its checksum"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing.skqeq")


DIES = """
import os, signal, sys
import skqeq
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
skqeq.save(skqeq.QEqRegressor(), sys.argv[1])
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_process_that_dies_leaves_the_older_file(tmp_path):
    path = tmp_path / "model.skqeq"
    save(QEqRegressor(response=QEq(hardness=2.0)), path)
    # The program must not start in the source folder, which may have no compiled kernels.
    died = subprocess.run([sys.executable, "-c", DIES, path], check=False, cwd=tmp_path)
    assert died.returncode == -9
    assert load(path).response.hardness == 2.0


# ---- one model, many readers --------------------------------------------------------------------


def test_threads_get_the_same_numbers(fitted, molecules):
    expected = bits(fitted.predict(molecules))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: bits(fitted.predict(molecules)), range(24)))
    assert set(found) == {expected}


def test_processes_get_the_same_numbers(fitted, molecules):
    expected = fitted.predict(molecules)
    found = joblib.Parallel(2)(joblib.delayed(fitted.predict)(molecules) for _ in range(4))
    for table in found:
        assert_allclose(table["dipole"], expected["dipole"], rtol=1e-10, atol=1e-12)


def test_memory_maps(fitted, molecules, tmp_path):
    joblib.dump(fitted, tmp_path / "model.joblib")
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert isinstance(mapped[-1].coef_ if hasattr(mapped, "steps") else mapped.coef_, np.memmap)
    assert bits(mapped.predict(molecules)) == bits(fitted.predict(molecules))


def test_labels_in_memory_maps(molecules, dipoles, tmp_path):
    np.save(tmp_path / "D.npy", dipoles)
    mapped = np.load(tmp_path / "D.npy", mmap_mode="r")
    assert_array_equal(
        QEqRegressor().fit(molecules, mapped).coef_, QEqRegressor().fit(molecules, dipoles).coef_
    )


# ---- skops alone --------------------------------------------------------------------------------


def stored(path):
    """The skops file that one of our files contains."""
    return zipfile.ZipFile(path).read("model.skops")


def test_skops_round_trip(kind, path, fitted, molecules):
    loaded = skops.io.loads(stored(path), trusted=TRUSTED[kind])
    assert bits(loaded.predict(molecules)) == bits(fitted.predict(molecules))
    for a, b in zip(predict_charges(loaded, molecules), predict_charges(fitted, molecules)):
        assert_array_equal(a, b)
    assert repr(loaded) == repr(fitted)


def test_skops_needs_these_types_and_no_others(kind, path):
    data = stored(path)
    assert sorted(skops.io.get_untrusted_types(data=data)) == TRUSTED[kind]
    with pytest.raises(skops.io.exceptions.UntrustedTypesFoundException):
        skops.io.loads(data)


def test_package_publishes_the_list(kind):
    assert set(TRUSTED[kind]) <= set(persistence.TRUSTED_TYPES)


def test_skops_refuses_a_newer_format(kind, fitted, monkeypatch, tmp_path):
    with monkeypatch.context() as newer:
        newer.setattr(persistence, "FORMAT", persistence.FORMAT + 1)
        save(fitted, tmp_path / "model.skqeq")
    with pytest.raises(ValueError, match="upgrade skqeq"):
        skops.io.loads(stored(tmp_path / "model.skqeq"), trusted=TRUSTED[kind])


# ---- types that move ----------------------------------------------------------------------------


def test_files_name_no_private_module(path):
    schema = zipfile.ZipFile(io.BytesIO(stored(path))).read("schema.json").decode()
    modules = set(re.findall(r'"__module__": "(skqeq[^"]*)"', schema))
    assert modules
    assert not [module for module in modules if "._" in module]


def test_a_file_from_before_types_moved(path, fitted, molecules, monkeypatch):
    """A file can be loaded after its classes have moved and have new public names."""
    expected = bits(fitted.predict(molecules))
    types, moved = {}, ModuleType("skqeq._moved")
    monkeypatch.setitem(sys.modules, "skqeq._moved", moved)
    for name, importable in persistence.TYPES.items():
        module, _, attribute = importable.rpartition(".")
        cls = getattr(import_module(module), attribute)
        # As after `git mv`, the old module is gone, and the class is part of the new one.
        monkeypatch.setattr(cls, "__module__", "skqeq._moved")
        monkeypatch.delattr(import_module(module), attribute)
        setattr(moved, f"New{attribute}", cls)
        types[name] = f"skqeq._moved.New{attribute}"
    monkeypatch.setattr(persistence, "TYPES", types)
    assert bits(load(path).predict(molecules)) == expected
