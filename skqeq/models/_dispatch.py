"""Predictions of everything a charge model knows, through whatever it is wrapped in."""


def predict_charges(model, X):
    """Charges of all atoms.

    Parameters
    ----------
    model : fitted estimator
        A charge model, a pipeline that ends in one, or a search over either.
    X : sequence of ase.Atoms
        What ``model.predict`` takes.

    Returns
    -------
    charges : list of ndarray of shape (n_atoms,)
        e; each sums to the structure's total charge.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor, predict_charges
    >>> water = molecule("H2O")
    >>> model = QEqRegressor().fit([water], np.array([[0.0, 0.0, -0.39]]))
    >>> predict_charges(model, [water])[0].round(2)
    array([-0.65,  0.33,  0.33])
    """
    model, X = unwrap(model, X)
    return model.predict_charges(X)


def predict_electronegativities(model, X):
    """Electronegativities of all atoms.

    Parameters
    ----------
    model : fitted estimator
        As in `predict_charges`.
    X : sequence of ase.Atoms
        What ``model.predict`` takes.

    Returns
    -------
    chi : list of ndarray of shape (n_atoms,)
        V. Only differences within a structure matter.
    """
    model, X = unwrap(model, X)
    return model.predict_electronegativities(X)


def predict_target(model, X, name):
    """Any target, whether the model was trained on it or not.

    Parameters
    ----------
    model : fitted estimator
        As in `predict_charges`.
    X : sequence of ase.Atoms
        What ``model.predict`` takes.
    name : str
        A column of `skqeq.make_targets`, such as "dipole" or "quadrupole".

    Returns
    -------
    values : ndarray of shape (n,) or (n, k), or list of ndarray
        In the units of `skqeq.make_targets`.
    """
    model, X = unwrap(model, X)
    return model.predict_target(X, name)


def unwrap(model, X):
    """The innermost estimator, and X as it sees it."""
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif hasattr(model, "steps"):
            X = model[:-1].transform(X) if len(model.steps) > 1 else X
            model = model[-1]
        else:
            return model, X
