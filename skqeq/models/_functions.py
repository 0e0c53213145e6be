"""Functions that call a fitted charge model, also inside pipelines and searches."""

from __future__ import annotations

import inspect
from functools import reduce
from os import PathLike
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from sklearn.utils.validation import check_is_fitted

from ._intervals import Intervals
from ._predictions import Predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from .._typing import Array, LabelsLike, M, Model, StructuresLike

P = ParamSpec("P")
R = TypeVar("R")
MODEL = """model : fitted estimator
    A charge model, a pipeline that ends in one, or a search over either.
X : sequence of ase.Atoms"""


def unwrap(model: Any, method: str = "predict_charges") -> tuple[Callable[[Any], Any], Any]:
    """Find the charge model inside pipelines and searches.

    Parameters
    ----------
    model : estimator
        A charge model, a pipeline that ends in one, or a search over either.
    method : str
        The first model that has this method is returned.

    Returns
    -------
    transform : callable
        Applies the transformers of the pipelines to X.
    model : estimator
        The charge model.

    Raises
    ------
    TypeError
        If there is no such model.
    """
    steps: list[Any] = []
    while not hasattr(model, method):
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif hasattr(model, "steps"):
            steps += [step for _, step in model.steps[:-1]]
            model = model[-1]
        else:
            if hasattr(model, "estimator"):
                check_is_fitted(model)  # a search that was not run
            is_name = isinstance(model, (str, PathLike))
            advice = "; skqeq.load reads a model file" if is_name else ""
            raise TypeError(
                f"{type(model).__name__} is neither a charge model nor a pipeline that ends in one"
                f"{advice}"
            )
    return lambda X: reduce(lambda X, step: step.transform(X), steps, X), model


def _function_of(
    method: Callable[Concatenate[Any, StructuresLike, P], R],
) -> Callable[Concatenate[Model, StructuresLike, P], R]:
    """The function ``f(model, X, ...)`` that calls a method of the charge model inside `model`."""
    name = method.__name__

    def function(model: Model, X: StructuresLike, *args: P.args, **kwargs: P.kwargs) -> R:
        transform, last = unwrap(model, name)
        return getattr(last, name)(transform(X), *args, **kwargs)

    doc = inspect.cleandoc(method.__doc__ or "")
    doc = doc.replace("X : StructureFeatures or sequence of ase.Atoms", MODEL)
    doc = doc.replace("As in `fit`", "As in ``model.predict``")
    doc = doc.replace(f"model.{name}(", f"{name}(model, ")
    function.__doc__ = doc.replace("from skqeq import ", f"from skqeq import {name}, ") + "\n"
    function.__name__ = function.__qualname__ = name
    signature = inspect.signature(method)
    model_first = [
        parameter.replace(name="model", annotation="Model") if key == "self" else parameter
        for key, parameter in signature.parameters.items()
    ]
    function.__dict__["__signature__"] = signature.replace(parameters=model_first)
    return function


predict_born_effective_charges = _function_of(Predictions.predict_born_effective_charges)
predict_charges = _function_of(Predictions.predict_charges)
predict_electronegativities = _function_of(Predictions.predict_electronegativities)
predict_energy = _function_of(Predictions.predict_energy)
predict_forces = _function_of(Predictions.predict_forces)
predict_interval = _function_of(Intervals.predict_interval)
predict_polarizability = _function_of(Predictions.predict_polarizability)
predict_std = _function_of(Intervals.predict_std)
predict_stress = _function_of(Predictions.predict_stress)
predict_target = _function_of(Predictions.predict_target)
predict_targets = _function_of(Predictions.predict_targets)


def predict_for_scores(model: Model, X: StructuresLike, names: Sequence[str]) -> Array:
    """Predict all that can be predicted, for comparison with labels.

    Parameters
    ----------
    model : fitted estimator
        A charge model, a pipeline that ends in one, or a search over either.
    X : sequence of ase.Atoms
        As in ``model.predict``.
    names : sequence of str
        Columns of `skqeq.make_targets`.

    Returns
    -------
    y : ndarray of shape (n,)
        See `KQEqRegressor.predict_for_scores`.
    """
    transform, last = unwrap(model, "predict_for_scores")
    y: Array = last.predict_for_scores(transform(X), names)
    return y


def partial_fit(
    model: M, X: StructuresLike, y: LabelsLike, sample_weight: ArrayLike | None = None
) -> M:
    """Add labels to a fitted model, and fit it to the earlier and the new labels together.

    Only the charge model at the end of a pipeline is fitted again, see `KQEqRegressor.partial_fit`.
    The transformers, and with them the sparse set, do not change.

    Parameters
    ----------
    model : fitted estimator
        A charge model, or a pipeline that ends in one, fitted with ``store_triangles=True``; it is
        changed.
    X : sequence of ase.Atoms
        As in ``model.predict``.
    y : labels
        Targets that are linear in the charges.
    sample_weight : array-like of shape (n,), default=None
        Weights of the structures.

    Returns
    -------
    model : estimator
        The same object.

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
    transform, last = unwrap(model)
    last.partial_fit(transform(X), y, sample_weight)
    return model


def refit(model: M) -> M:
    """Fit a model again to the same labels, after a change of the noise or the amplitudes.

    Parameters
    ----------
    model : fitted estimator
        A charge model, or a pipeline that ends in one, fitted with ``store_triangles=True``; it is
        changed.

    Returns
    -------
    model : estimator
        The same object.

    Raises
    ------
    ValueError
        If the model was fitted without ``store_triangles=True``, or if parameters other than noise
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
