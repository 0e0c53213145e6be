import warnings

import numpy as np
import pytest
from ase.io import write
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer, strip, targets_from_atoms
from skqeq._cli.search import R_CUT, search_grid, search_linear
from skqeq.cli import main
from skqeq.model_selection import LabelledKFold

from .common import SMALL, error_of, labelled, with_energies


@pytest.mark.parametrize("with_cutoffs", [False, True])
@pytest.mark.parametrize("names", [["dipole"], ["dipole", "charges"]])
def test_cross_validation_of_linear_labels_has_the_scores_of_a_grid_search(names, with_cutoffs):
    """The scores are equal even if some structures have no dipole."""
    X = labelled()
    for atoms in X[:5]:
        del atoms.info["REF_dipole"]
    y = targets_from_atoms(X, names)
    groups = np.arange(len(X)) // 2
    model = make_pipeline(
        SOAPFeaturizer(r_cut=(3.0,), n_max=3, l_max=2), CURSparsifier(n_points=8), KQEqRegressor()
    )
    grid = {f"kqeqregressor__sigma_{name}": [0.02, 0.1] for name in names}
    if with_cutoffs:
        grid[R_CUT] = [(2.5,), (3.5,)]
    folds = LabelledKFold("dipole", 3, shuffle=True, random_state=0)
    arguments = model, grid, folds, strip(X), y
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_points=")
        fast, left_out = search_linear(*arguments, groups=groups, quiet=True)
        slow, _ = search_grid(*arguments, groups=groups, quiet=True)
    assert len(fast) == len(slow) == 2 ** len(names) * (1 + with_cutoffs)
    for candidate in slow:
        [same] = [other for other in fast if other.params == candidate.params]
        assert_allclose(same.score, candidate.score, rtol=1e-8)
        for title in same.columns.keys() & candidate.columns.keys():
            assert candidate.columns[title].startswith(same.columns[title])
        assert " +- " in same.columns["R2" if len(names) == 1 else "R2 charges"]
    assert np.isfinite(left_out["dipole"][5:]).all() and np.isnan(left_out["dipole"][:5]).all()


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize("target", ["dipole", "energy"])
def test_a_rare_element_leaves_scores_finite_with_one_warning(tmp_path, capsys, target):
    """All structures with chlorine are in one fold."""
    X = with_energies(labelled())
    for atoms in X:
        if atoms.info["family"] == "CH4":
            atoms.symbols[1] = "Cl"
    write(tmp_path / "data.xyz", X)
    arguments = ["fit", str(tmp_path / "data.xyz"), "-o", str(tmp_path / "model.skqeq")]
    options = ["--targets", target, "--search", "--folds", "3", "--group", "family", "--quiet"]
    assert main([*arguments, *options, *SMALL]) == 0
    output, messages = capsys.readouterr()
    table = output.split("cross-validation by group")[1].split("errors on")[0]
    assert "<- best R2" in table and "nan" not in table
    assert messages.count("holds Cl; known elements: H, C, O") == 1
    assert messages.count("n_points=") <= 1


@pytest.mark.filterwarnings("ignore:n_points=", "ignore:on the training")
def test_cutoffs_that_are_too_short_are_left_out(tmp_path, capsys):
    """The advice of a search, to search again with shorter cutoffs, never leads to an error."""
    write(tmp_path / "data.xyz", labelled(2))
    argv = ["fit", f"{tmp_path}/data.xyz", "-o", f"{tmp_path}/model.skqeq", "--search-r-cut", "-q"]
    options = ["--r-cut", "1.36", "--n-max", "8", "--l-max", "1", "--n-points", "4"]
    assert main([*argv, *options, "--folds", "2"]) == 0
    output, messages = capsys.readouterr()
    assert "left out the cutoffs 1.09: n_max=8 radial functions are too many" in output
    assert "--r-cut 1.36" not in output
    assert "ill-conditioned" not in messages
    message = error_of(capsys, *argv, "--r-cut", "1.09", "--n-max", "8")
    assert "n_max=8 radial functions are too many for the cutoff r_cut=1.09" in message
