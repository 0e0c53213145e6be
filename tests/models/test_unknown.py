"""Structures with elements that the training data lack."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    GAPRegressor,
    KQEqCalculator,
    KQEqRegressor,
    KQEqRegressorCV,
    QEqRegressor,
    SOAPFeaturizer,
    StructureBlocks,
    make_targets,
    predict_charges,
    predict_electronegativities,
    predict_energy,
    predict_forces,
    predict_std,
)
from skqeq.datasets import load_molecules
from skqeq.model_selection import LabelledKFold, TargetScorer

from .. import helpers

WITHOUT = ["H2O", "CH3OH", "H2CO", "CH3CHO", "HCOOH", "CH3OCH3", "C2H6", "CO2"]


def pipeline(model=None, **soap):
    soap = {"r_cut": 3.0, "n_max": 3, "l_max": 2, **soap}
    return make_pipeline(SOAPFeaturizer(**soap), CURSparsifier(3), model or KQEqRegressor())


def training_data():
    X = [helpers.rattled(name, seed) for seed, name in enumerate(WITHOUT)]
    chi = {"H": 2.0, "C": 2.5, "O": 3.5}
    q = [np.array([2.5 - chi[s] for s in atoms.symbols]) for atoms in X]
    q = [0.3 * (x - x.mean()) for x in q]
    dipoles = [charges @ (a.positions - a.get_center_of_mass()) for a, charges in zip(X, q)]
    return X, np.array(dipoles), q


@pytest.fixture(scope="module")
def fitted():
    X, dipoles, _ = training_data()
    return pipeline(KQEqRegressor(handle_unknown="prior", store_triangles=True)).fit(X, dipoles)


def with_neighbor(symbol):
    """A water molecule, and far away a molecule of carbon and the given element."""
    other = Atoms(["C", symbol], [[40.0, 0.0, 0.0], [41.2, 0.0, 0.0]])
    return helpers.rattled("H2O", 3) + other


# ---- searches and scores ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rare():
    """120 molecules, of which the last three hold fluorine: all of them are in the last fold."""
    X, y = load_molecules()
    holds = np.array([9 in atoms.numbers for atoms in X])
    index = [*np.flatnonzero(~holds)[:117], *np.flatnonzero(holds)[:3]]
    return [X[i] for i in index], y["dipole"][index]


def warned(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function()
    return result, caught


SEARCHES = {
    "cross_val_score": lambda X, y: cross_val_score(pipeline(), X, y, cv=KFold(3)),
    "scorer": lambda X, y: cross_val_score(
        pipeline(), X, make_targets(dipole=y), cv=KFold(3), scoring=TargetScorer("dipole", "mae")
    ),
    "GridSearchCV": lambda X, y: grid_search(X, y).cv_results_["mean_test_score"],
    "KQEqRegressorCV": lambda X, y: (
        KQEqRegressorCV(pipeline(), [0.02, 0.1], cv=KFold(3)).fit(X, y).cv_results_["score"]
    ),
    "last step": lambda X, y: (
        pipeline(KQEqRegressorCV(sigmas=[0.02, 0.1], cv=KFold(3)))
        .fit(X, y)[-1]
        .cv_results_["score"]
    ),
    "LabelledKFold": lambda X, y: cross_val_score(
        pipeline(), X, make_targets(dipole=y), cv=LabelledKFold("dipole", 3)
    ),
}


def grid_search(X, y):
    grid = {"kqeqregressor__sigma_dipole": [0.02, 0.1]}
    return GridSearchCV(pipeline(), grid, cv=KFold(3)).fit(X, y)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_rare_element_leaves_scores_finite_with_one_warning(rare, name):
    scores, caught = warned(lambda: SEARCHES[name](*rare))
    assert np.isfinite(scores).all()
    # As the last step of a pipeline, the features of all folds know fluorine.
    assert len(caught) == (name != "last step")
    for warning in caught:
        assert "holds F; known elements: H, C, N, O" in str(warning.message)
        assert warning.filename == __file__


def test_the_fast_search_has_the_scores_of_the_grid_search(rare):
    (grid, _), (fast, _) = (warned(lambda n=n: SEARCHES[n](*rare)) for n in list(SEARCHES)[2:4])
    assert_allclose(fast, grid, rtol=1e-8)


def test_energies_of_unknown_elements_are_left_out_of_scores():
    X, dipoles, _ = training_data()
    y = make_targets(
        dipole=dipoles, energy=np.arange(8.0), forces=[np.ones((len(a), 3)) for a in X]
    )
    model = pipeline(cutoff_width=1.0).fit(X, y)
    more = [*X, molecule("CF3CN")]
    table = make_targets(
        dipole=[*dipoles, None], energy=[*y["energy"], 1e6], forces=[*y["forces"], np.ones((6, 3))]
    )
    score, caught = warned(lambda: model.score(more, table))
    assert_allclose(score, model.score(X, y), rtol=1e-12)
    [warning] = caught
    assert "structure 8 (C2F3N) holds N, F" in str(warning.message)
    assert "; their energy and forces cannot be predicted" in str(warning.message)
    scorer = TargetScorer("forces", "rmse")
    with pytest.warns(UserWarning, match="In 1 of 9 structures"):
        assert scorer(model, more, table) == scorer(model, X, y)


# ---- predictions --------------------------------------------------------------------------------


def test_unknown_elements_are_refused_by_default(fitted):
    strict = pipeline().fit(*training_data()[:2])
    X = [molecule("H2O"), molecule("CH3Cl"), molecule("SiH4")]
    for predict in (strict.predict, lambda X: predict_charges(strict, X)):
        with pytest.raises(
            ValueError, match=r"structure 1 \(CClH3\) holds Cl; known elements: H, C, O; add struct"
        ):
            predict(X)
    with pytest.raises(ValueError, match="handle_unknown='prior'"):
        KQEqCalculator(strict).get_potential_energy(X[1])
    assert len(strict.predict(X[:1])) == 1
    with pytest.raises(ValueError, match="handle_unknown"):
        pipeline(KQEqRegressor(handle_unknown="ignore")).fit(*training_data()[:2])


@pytest.mark.parametrize("predict", [predict_energy, predict_forces])
def test_energies_of_unknown_elements_are_refused(fitted, predict):
    X = [molecule("H2O"), molecule("CH3Cl")]
    with pytest.raises(
        ValueError, match=r"structure 1 \(CClH3\) holds Cl.* cannot come from the pr"
    ):
        predict(fitted, X)
    assert len(predict(fitted, X[:1])) == 1


def test_unknown_atoms_and_their_neighbours_have_the_prior(fitted):
    model = fitted[-1]
    constant = dict(zip([1, 6, 8], model.coef_[-3:], strict=True))
    for symbol in ("F", "Cl", "S"):
        atoms = with_neighbor(symbol)
        before = atoms.copy()
        with pytest.warns(UserWarning, match=f"holds {symbol}; known elements: H, C, O. In 1 of 1"):
            [chi] = predict_electronegativities(fitted, [atoms])
        [alone] = predict_electronegativities(fitted, [atoms[:3]])
        assert_allclose(chi[:3], alone, rtol=1e-12)
        prior = skqeq.parameters.qeq_electronegativities()
        assert_allclose(chi[3], prior[6] + constant[6], rtol=1e-12)
        assert_allclose(chi[4], prior[atoms.numbers[4]], rtol=1e-12)
        assert atoms == before


def test_charges_of_the_prior_are_those_of_classical_charge_equilibration():
    model = QEqRegressor(handle_unknown="prior").fit([molecule("H2O")], [[0.0, 0.0, -0.39]])
    atoms = helpers.rattled("CF3CN", 1)
    with pytest.warns(UserWarning, match="holds C, N, F; known elements: H, O"):
        [q] = model.predict_charges([atoms])
    chi = np.array([helpers.CHI[s] for s in atoms.symbols])
    expected = helpers.equilibrate(atoms, chi, helpers.gaussian_widths(atoms, scale=0.2))
    assert_allclose(q, expected, rtol=1e-5)


def test_standard_deviations_are_those_of_a_fit_that_ignored_the_structure():
    """Labels of weight zero do not determine the constant of an unknown element."""
    X, dipoles, _ = training_data()
    new = helpers.rattled("CF3CN", 1)
    head = make_pipeline(SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2), CURSparsifier(3)).fit(X)
    model = KQEqRegressor(store_triangles=True, handle_unknown="prior")
    model.fit(head.transform(X), dipoles)
    with pytest.warns(UserWarning, match="holds"):
        ignorant = KQEqRegressor(store_triangles=True, handle_unknown="prior").fit(
            head.transform([*X, new]), [*dipoles, [1.0, 2.0, 3.0]], sample_weight=[1.0] * 8 + [0.0]
        )
    names = ["dipole", "charges", "quadrupole"]
    results = []
    for one in (model, ignorant):
        with pytest.warns(UserWarning, match="structure 1 .* holds"):
            features = head.transform([X[0], new])
            results.append((one.predict_targets(features, names), one.predict_std(features, names)))
    for first, second in zip(*results, strict=True):
        for name in names:
            for a, b in zip(first[name], second[name], strict=True):
                assert_allclose(a, b, rtol=1e-8, atol=1e-10)
    std = results[0][1]["charges"]
    assert std[1].min() > std[0].max()


def test_elements_without_sparse_points():
    """The descriptor knows the element, so that its neighbours keep their features."""
    X, dipoles, _ = training_data()
    model = pipeline(KQEqRegressor(handle_unknown="prior"), species=["H", "C", "O", "F"])
    model.fit(X, dipoles)
    atoms = molecule("CH3CHO")
    atoms.symbols[-1] = "F"
    with pytest.warns(UserWarning, match="holds F; known elements: H, C, O"):
        features = model[:-1].transform([atoms])
        model[-1].predict_charges(features)
    assert (features[0][-1] == 0).all()
    assert all(np.linalg.norm(row) > 0.5 for row in features[0][:-1])
    assert (pipeline().fit(X, dipoles)[:-1].transform([atoms])[0][-1] == 0).all()


def test_fits_refuse_elements_without_features():
    X, dipoles, q = training_data()
    head = make_pipeline(SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2), CURSparsifier(1)).fit(X[:1])
    features = head.transform(X)
    with pytest.raises(ValueError, match=r"structure 1 \(CH4O\) holds C; known elements: H, O"):
        KQEqRegressor().fit(features, dipoles)
    model = KQEqRegressor(handle_unknown="prior")
    with pytest.warns(UserWarning, match="In 7 of 8 structures"):
        model.fit(features, dipoles)
    with pytest.raises(ValueError, match=r"structure 1 .*; energy cannot be fitted"):
        model.fit(features, make_targets(energy=np.zeros(8), dipole=dipoles))
    energies = [1.0] + [None] * 7  # only for the structure whose elements are all known
    with pytest.warns(UserWarning, match="In 7 of 8 structures"):
        model.fit(features, make_targets(energy=energies, charges=q))


MODELS = {
    "flow": pipeline(KQEqRegressor(response=ChargeFlow(), handle_unknown="prior")),
    "no constants": pipeline(KQEqRegressor(baseline=False, handle_unknown="prior")),
    "GAP": make_pipeline(
        StructureBlocks([(name, pipeline()[:-1]) for name in ("chi", "gap")]),
        GAPKQEqRegressor(handle_unknown="prior"),
    ),
    "QEq": QEqRegressor(handle_unknown="prior"),
}


@pytest.mark.parametrize("name", MODELS)
def test_other_models_have_a_prior_too(name):
    X, _, q = training_data()
    model = MODELS[name].fit(X, make_targets(charges=q))
    atoms = with_neighbor("F")
    with pytest.warns(UserWarning, match="holds F"):
        [charges] = predict_charges(model, [atoms])
    assert np.isfinite(charges).all() and abs(charges.sum()) < 1e-9
    with pytest.raises(ValueError, match="energy cannot come from the prior"):
        predict_energy(model, [atoms])


def test_a_model_without_charges_has_no_prior():
    X, *_ = training_data()
    y = make_targets(energy=np.arange(8.0))
    model = pipeline(GAPRegressor()).fit(X, y)
    with pytest.raises(ValueError, match="holds F; known elements"):
        model.predict([with_neighbor("F")])
    with pytest.warns(UserWarning, match="their energy cannot be predicted"):
        score = model.score([*X, with_neighbor("F")], make_targets(energy=np.arange(9.0)))
    assert score == model.score(X, y)


def test_elements_without_parameters_are_refused(fitted):
    atoms = Atoms(["O", "Og"], [[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    with pytest.warns(UserWarning, match="holds Og"), pytest.raises(ValueError, match=" for Og"):
        predict_charges(fitted, [molecule("H2O"), atoms])


@pytest.mark.parametrize("cutoff_width", [None, 1.0])
def test_neighbours_in_adjacent_cells(cutoff_width):
    """A descriptor without potassium gives the right features of all atoms far from potassium."""
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (3, 1, 1)
    salt.symbols[0] = "K"
    options = {"r_cut": 3.0, "n_max": 3, "l_max": 2, "cutoff_width": cutoff_width}
    features = SOAPFeaturizer(species=["Na", "Cl"], **options).fit_transform([salt, salt[1:]])
    known = SOAPFeaturizer(species=["Na", "Cl", "K"], **options).fit_transform([salt])
    near = salt.get_all_distances(mic=True)[0] < features.source.reach
    assert 5 <= near.sum() < len(salt)
    rows = features[0]
    assert (rows[near] == 0).all()
    assert_allclose(
        np.linalg.norm(rows[~near], axis=1), np.linalg.norm(known[0][~near], axis=1), rtol=1e-12
    )
    [(_, block)] = features.blocks()
    assert_array_equal(block.rows_of(0), rows)
    assert_array_equal(block.rows_of(1), features[1])


def test_structures_of_unknown_elements_only(fitted):
    X = [molecule("F2"), molecule("H2O"), molecule("Cl2")]
    X[0].info["charge"] = -1.0
    with pytest.warns(UserWarning, match="In 2 of 3 structures"):
        charges = predict_charges(fitted, X)
    assert_allclose(charges[0], [-0.5, -0.5], atol=1e-9)
    assert_allclose(charges[1], predict_charges(fitted, X[1:2])[0], rtol=1e-12)
    with pytest.warns(UserWarning, match="holds F"):
        assert predict_std(fitted, X, ["dipole"])["dipole"].shape == (3, 3)


def test_every_call_warns_once(fitted):
    X = [molecule("H2O"), molecule("CF3CN"), molecule("F2")]
    _, caught = warned(lambda: [fitted.predict(X, return_std=True) for _ in range(2)])
    assert len(caught) == 2
    for warning in caught:
        assert str(warning.message).startswith("structure 1 (C2F3N) holds N, F; known elements")
        assert warning.filename == __file__


# ---- files --------------------------------------------------------------------------------------


def test_model_files(fitted, tmp_path):
    skqeq.save(fitted, tmp_path / "model.skqeq")
    again = skqeq.load(tmp_path / "model.skqeq")
    X = [molecule("CF3CN")]
    with pytest.warns(UserWarning, match=r"structure 0 \(C2F3N\) holds N, F; known"):
        assert_array_equal(again.predict(X), fitted.predict(X))


def test_models_from_before_the_parameter_are_strict(fitted):
    state = fitted[-1].__getstate__()
    del state["handle_unknown"]
    old = KQEqRegressor.__new__(KQEqRegressor)
    old.__setstate__(state)
    assert old.handle_unknown == "error" and "handle_unknown" in old.get_params()
    features = fitted[:-1].transform([molecule("H2O")])
    assert_array_equal(old.predict(features), fitted[-1].predict(features))
