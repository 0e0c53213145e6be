"""Predictions of everything a charge model knows, through whatever it is wrapped in."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from .._typing import Array, Column, LabelsLike, M, Model, StructuresLike, Values


def predict_charges(model: Model, X: StructuresLike, start: Column | None = None) -> list[Array]:
    """Charges of all atoms.

    Parameters
    ----------
    model : fitted estimator
        A charge model, a pipeline that ends in one, or a search over either.
    X : sequence of ase.Atoms
        What ``model.predict`` takes.
    start : sequence of array-like of shape (n_atoms,), default=None
        Charges from which the iterative solver starts, such as those of a similar geometry; e.

    Returns
    -------
    charges : list of ndarray of shape (n_atoms,)
        In e; each sums to the structure's total charge.

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
    transformer, last = unwrap(model)
    return last.predict_charges(transformer(X), start)


def predict_electronegativities(model: Model, X: StructuresLike) -> list[Array]:
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

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor, predict_electronegativities
    >>> water = molecule("H2O")
    >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
    >>> [chi] = predict_electronegativities(model, [water])
    >>> bool(chi[0] > chi[1]), len(chi)
    (True, 3)
    """
    transformer, last = unwrap(model)
    return last.predict_electronegativities(transformer(X))


def predict_energy(model: Model, X: StructuresLike) -> Array:
    """Energies of the charges and of the atoms.

    Parameters
    ----------
    model : fitted estimator
        As in `predict_charges`.
    X : sequence of ase.Atoms
        What ``model.predict`` takes.

    Returns
    -------
    energy : ndarray of shape (n,)
        ``chi . q + q . A q / 2 - field . sum_i q_i r_i + sum_i e_i``, eV. If the model was not
        trained on energies, only differences between structures of the same composition have a
        meaning.

    References
    ----------
    Vondrák, Reuter, Margraf, J. Chem. Phys. 159, 054109 (2023).

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor, predict_energy
    >>> water = molecule("H2O")
    >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
    >>> predict_energy(model, [water, water]).shape
    (2,)
    """
    transformer, last = unwrap(model)
    return last.predict_energy(transformer(X))


def predict_forces(model: Model, X: StructuresLike) -> list[Array]:
    """Negative derivatives of `predict_energy` with respect to the positions.

    Parameters
    ----------
    model : fitted estimator
        As in `predict_charges`.
    X : sequence of ase.Atoms
        What ``model.predict`` takes.

    Returns
    -------
    forces : list of ndarray of shape (n_atoms, 3)
        In eV/Angstrom.

    Raises
    ------
    TypeError
        If the features have no known derivative.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor, predict_forces
    >>> water = molecule("H2O")
    >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
    >>> [forces] = predict_forces(model, [water])
    >>> bool(abs(forces.sum(axis=0)).max() < 1e-9)
    True
    """
    transformer, last = unwrap(model)
    return last.predict_forces(transformer(X))


def predict_stress(model: Model, X: StructuresLike) -> Array:
    """Derivatives of `predict_energy` with respect to a strain, over the volume.

    Parameters
    ----------
    model : fitted estimator
        As in `predict_charges`.
    X : sequence of ase.Atoms
        Crystals, and slabs, which have a stress in their plane.

    Returns
    -------
    stress : ndarray of shape (n, 6)
        In the sign and the order of ASE, xx, yy, zz, yz, xz, xy; eV/Angstrom^3. NaN for components
        that a slab does not have.

    Raises
    ------
    ValueError
        If a structure has no stress.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from skqeq import QEqRegressor, make_targets, predict_stress
    >>> salt = bulk("NaCl", "rocksalt", a=5.64)
    >>> model = QEqRegressor().fit([salt], make_targets(charges=[[0.8, -0.8]]))
    >>> stress = predict_stress(model, [salt])
    >>> stress.shape, bool(abs(stress[0, :3] - stress[0, 0]).max() < 1e-9)
    ((1, 6), True)
    """
    transformer, last = unwrap(model)
    return last.predict_stress(transformer(X))


def predict_polarizability(model: Model, X: StructuresLike) -> Array:
    """What a uniform field does to the dipoles.

    Parameters
    ----------
    model : fitted estimator
        As in `predict_charges`.
    X : sequence of ase.Atoms
        Molecules, and slabs, which have a polarisability along their open axis.

    Returns
    -------
    polarizability : ndarray of shape (n, 3, 3)
        ``d mu_a / d field_b``, e*Angstrom per V/Angstrom; NaN for components along periodic axes.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor, predict_polarizability
    >>> water = molecule("H2O")
    >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
    >>> [alpha] = predict_polarizability(model, [water])
    >>> bool(alpha[1, 1] > alpha[2, 2] > abs(alpha[0, 0]))
    True
    """
    transformer, last = unwrap(model)
    return last.predict_polarizability(transformer(X))


def predict_born_effective_charges(model: Model, X: StructuresLike) -> list[Array]:
    """Derivatives of the dipoles with respect to the positions.

    Parameters
    ----------
    model : fitted estimator
        As in `predict_charges`.
    X : sequence of ase.Atoms
        Molecules, and slabs, whose dipole has a component along their open axis.

    Returns
    -------
    born_effective_charges : list of ndarray of shape (n_atoms, 3, 3)
        ``d mu_a / d r_jb`` at ``[j, a, b]``, of the dipole ``sum_i q_i r_i`` about the coordinate
        origin, e; NaN for a along periodic axes.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor, predict_born_effective_charges
    >>> water = molecule("H2O")
    >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
    >>> [born] = predict_born_effective_charges(model, [water])
    >>> born.shape, bool(abs(born.sum(axis=0)).max() < 1e-9)
    ((3, 3, 3), True)
    """
    transformer, last = unwrap(model)
    return last.predict_born_effective_charges(transformer(X))


def predict_target(model: Model, X: StructuresLike, name: str) -> Values:
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

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor, predict_target
    >>> water = molecule("H2O")
    >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
    >>> predict_target(model, [water], "dipole_magnitude").round(2)
    array([0.39])
    """
    transformer, last = unwrap(model)
    return last.predict_target(transformer(X), name)


def predict_targets(model: Model, X: StructuresLike, names: Sequence[str]) -> Array:
    """Several targets at once, at the cost of one.

    Parameters
    ----------
    model : fitted estimator
        As in `predict_charges`.
    X : sequence of ase.Atoms
        What ``model.predict`` takes.
    names : sequence of str
        Columns of `skqeq.make_targets`.

    Returns
    -------
    y : ndarray of shape (n,)
        Structured array as from `skqeq.make_targets`.

    Raises
    ------
    ValueError
        For unknown targets, or if a periodic structure has none of the targets.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor, predict_targets
    >>> water = molecule("H2O")
    >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
    >>> y = predict_targets(model, [water], ["dipole", "quadrupole"])
    >>> y.dtype.names, y["quadrupole"].shape
    (('dipole', 'quadrupole'), (1, 6))
    """
    transformer, last = unwrap(model)
    return last.predict_targets(transformer(X), names)


def predict_std(model: Model, X: StructuresLike, names: Sequence[str]) -> Array:
    """Standard deviations of several targets.

    Parameters
    ----------
    model : fitted estimator
        As in `predict_charges`, fitted with ``store_triangles=True``.
    X : sequence of ase.Atoms
        What ``model.predict`` takes.
    names : sequence of str
        Columns of `skqeq.make_targets`.

    Returns
    -------
    std : ndarray of shape (n,)
        As from `KQEqRegressor.predict_std`.

    Raises
    ------
    ValueError
        If the model was fitted without ``store_triangles=True``, or for unknown targets.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor, predict_std
    >>> X = [molecule("H2O"), molecule("NH3")]
    >>> model = QEqRegressor(sigma_dipole=0.01, store_triangles=True)
    >>> model = model.fit(X, [[0.0, 0.0, -0.39], [0.0, 0.0, -0.31]])
    >>> predict_std(model, X, ["dipole"])["dipole"].shape
    (2, 3)
    """
    transformer, last = unwrap(model, "predict_std")
    return last.predict_std(transformer(X), names)


def partial_fit(
    model: M, X: StructuresLike, y: LabelsLike, sample_weight: ArrayLike | None = None
) -> M:
    """Add labels to those that a fitted model knows, and fit it to all of them.

    The transformers of a pipeline stay as they are, and with them the sparse set; the charge model
    at its end goes on, see `KQEqRegressor.partial_fit`.

    Parameters
    ----------
    model : fitted estimator
        A charge model, or a pipeline that ends in one, fitted with ``store_triangles=True``; it is
        changed.
    X : sequence of ase.Atoms
        What ``model.predict`` takes.
    y : labels
        Those that are linear in the charges.
    sample_weight : array-like of shape (n,), default=None
        Weights of the structures.

    Returns
    -------
    model : estimator
        The same.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer, partial_fit
    >>> from skqeq.datasets import load_molecules
    >>> X, y = load_molecules()
    >>> model = KQEqRegressor(store_triangles=True)
    >>> model = make_pipeline(SOAPFeaturizer(), CURSparsifier(n_points=8), model)
    >>> model = model.fit(X[:50], y["dipole"][:50])
    >>> model = partial_fit(model, X[50:90], y["dipole"][50:90])
    """
    transformer, last = unwrap(model)
    last.partial_fit(transformer(X), y, sample_weight)
    return model


def refit(model: M) -> M:
    """Fit a model once more to the same labels, after noise or amplitudes were changed.

    Parameters
    ----------
    model : fitted estimator
        A charge model, or a pipeline that ends in one, fitted with ``store_triangles=True``; it is
        changed.

    Returns
    -------
    model : estimator
        The same.

    Raises
    ------
    ValueError
        If the model was fitted without ``store_triangles=True``, or if other parameters than noise
        and amplitudes have changed.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor, refit
    >>> X = [molecule("H2O"), molecule("NH3")]
    >>> model = QEqRegressor(store_triangles=True).fit(X, [[0.0, 0.0, -0.39], [0.0, 0.0, -0.31]])
    >>> model = refit(model.set_params(sigma_dipole=0.1))
    """
    unwrap(model)[1].refit()
    return model


def unwrap(model: Any, method: str = "predict_charges") -> tuple[Callable[[Any], Any], Any]:
    """The first model inside pipelines and searches with a method, and what makes its input."""
    steps = []
    while not hasattr(model, method):
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif hasattr(model, "steps"):
            steps += [step for _, step in model.steps[:-1]]
            model = model[-1]
        else:
            if hasattr(model, "estimator"):
                check_is_fitted(model)  # a search that was not run
            raise TypeError(f"{type(model).__name__} is no charge model, nor a pipeline of one")
    return lambda X: reduce(lambda X, step: step.transform(X), steps, X), model
