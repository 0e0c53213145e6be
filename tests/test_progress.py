"""Long operations have a progress bar if it is requested, and none otherwise."""

import pytest
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    KQEqRegressor,
    KQEqRegressorCV,
    QEq,
    SOAPFeaturizer,
    make_targets,
    targets_from_atoms,
)

SOAP = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=1)


def features(X):
    return make_pipeline(SOAP, CURSparsifier(n_points=3)).fit_transform(X)


def choose(X, y, verbose):
    CURSparsifier(n_points=3, verbose=verbose).fit(SOAP.fit_transform(X))


def fit(X, y, verbose):
    KQEqRegressor(verbose=verbose).fit(features(X), y)


def iterate(X, y, verbose):
    energies = make_targets(energy=range(len(X)))
    KQEqRegressor(verbose=verbose, tol=1e-2, response=QEq(hardness=10.0)).fit(features(X), energies)


def predict(X, y, verbose):
    phi = features(X)
    KQEqRegressor().fit(phi, y).set_params(verbose=verbose).predict(phi)


def derive(X, y, verbose):
    phi = features(X)
    KQEqRegressor().fit(phi, y).set_params(verbose=verbose).predict_target(phi, "forces")


def search(X, y, verbose):
    KQEqRegressorCV(sigmas=[0.1], verbose=verbose, scoring="rmse").fit(features(X), y)


def gather(X, y, verbose):
    for atoms in X:
        atoms.info["dipole"] = [0.0, 0.0, 0.1]
    targets_from_atoms(X, ["dipole"], verbose=verbose)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("operation", "bar"),
    [
        (choose, "sparse set"),
        (fit, "fit"),
        (iterate, "gauss_newton"),
        (predict, "charges"),
        (derive, "derivatives"),
        (search, "folds"),
        (gather, "labels"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_bars(operation, bar, molecules, dipoles, capsys):
    operation(molecules, dipoles, 0)
    assert capsys.readouterr() == ("", "")
    operation(molecules, dipoles, 1)
    found = capsys.readouterr()
    assert bar in found.err
    assert found.out == ""
