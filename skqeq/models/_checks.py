"""Checks of the input of charge models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._counts import counted
from .._warnings import warn_once
from ..structures import StructureFeatures
from ..targets import ENERGIES, TARGETS, possibly_undefined
from ._atomic_dipoles import DIPOLE, check_energies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from .._typing import Array, AtomicEnergies, Column
    from ..response import Response
    from ..structures import Structure, Structures
    from ..targets import Labels


def check_featurised(X: object, estimator: str, advice: str | None = None) -> StructureFeatures:
    """Check that X holds features, for an estimator that does not compute features itself.

    Parameters
    ----------
    X : object
        Input of the user.
    estimator : str
        Name of the estimator.
    advice : str, default=None
        How to make the features, for the error message; None advises a pipeline.

    Returns
    -------
    X : StructureFeatures
        The same object.

    Raises
    ------
    TypeError
        If X is not an instance of `StructureFeatures`.
    """
    if isinstance(X, StructureFeatures):
        return X
    advice = advice or (
        "use it in a pipeline after SOAPFeaturizer and CURSparsifier, e.g. "
        f"make_pipeline(SOAPFeaturizer(), CURSparsifier(), {estimator}())"
    )
    raise TypeError(
        f"{estimator} takes the features of structures, got {type(X).__name__}; {advice}"
    )


def check_weights(sample_weight: ArrayLike | None, n: int) -> Array:
    """Check the weights of the structures.

    Parameters
    ----------
    sample_weight : array-like of shape (n,) or None
        None means 1.
    n : int
        Number of structures.

    Returns
    -------
    weights : ndarray of shape (n,)
        All are finite and not negative, and at least one is positive.

    Raises
    ------
    ValueError
        If the shape is wrong, a weight is negative or not finite, or all weights are zero.
    """
    if sample_weight is None:
        return np.ones(n)
    try:
        weights = np.asarray(sample_weight, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("sample_weight must hold one number per structure") from None
    if weights.shape != (n,):
        raise ValueError(
            f"sample_weight has shape {weights.shape}, but X holds {counted(n, 'structure')}"
        )
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        raise ValueError(
            f"sample_weight[{bad.argmax()}] = {weights[bad.argmax()]} is not a finite number >= 0"
        )
    if not weights.any():
        raise ValueError("sample_weight is zero everywhere")
    return weights


def check_targets(
    names: Sequence[str], response: Response, estimator: str, fields: Sequence[str]
) -> None:
    """Refuse targets that a model does not have.

    Parameters
    ----------
    names : sequence of str
        Names of targets.
    response : Response
        The response of the model.
    estimator : str
        Name of the model.
    fields : sequence of str
        Names of the fields of the model.

    Raises
    ------
    ValueError
        For a target that needs charges if the model has no charges, and for one that needs the
        energy if it has atomic dipoles.
    """
    if DIPOLE in fields:
        check_energies(names, estimator)
    of_charges = [name for name in names if name not in ENERGIES]
    if of_charges and not response.fields:
        raise ValueError(
            f"{estimator} has no charges and does not predict {of_charges[0]}; its targets are "
            f"{', '.join(ENERGIES)}"
        )


def unfitted_energies(
    names: Sequence[str], fitted: Sequence[str], atomic_energies: AtomicEnergies
) -> str:
    """Reason why energies, forces or stress of a model cannot be compared with labels.

    A model that was not fitted to any of them predicts the energy of its charges only.

    Parameters
    ----------
    names : sequence of str
        Targets to compare with labels.
    fitted : sequence of str
        Targets that the model was fitted to.
    atomic_energies : "fit" or dict
        Parameter of the model.

    Returns
    -------
    reason : str
        Empty if nothing is wrong.
    """
    compared = [name for name in names if name in ENERGIES]
    if compared and set(ENERGIES).isdisjoint(fitted):
        return (
            f"the model was fitted to {' and '.join(fitted)}, and not to energies: its predictions "
            f"of {' and '.join(compared)} are those of its charges alone, without chemical bonds, "
            "and cannot be compared with labels"
        )
    if "energy" in compared and "energy" not in fitted and atomic_energies == "fit":
        return (
            f"the model was fitted to {' and '.join(fitted)}, which do not determine the energies "
            "of free atoms: its total energies cannot be compared with labels"
        )
    return ""


def check_defined(labels: Labels, structures: Structures) -> None:
    """Refuse labels of targets that are undefined for a periodic structure.

    Parameters
    ----------
    labels : Labels
        The labels.
    structures : Structures
        Their structures.

    Raises
    ------
    ValueError
        For a label such as the dipole along a periodic axis.
    """
    for i, structure in possibly_undefined(structures, labels.names):
        for name in labels.names:
            value = labels.values(name, i)
            if value is not None and (~np.isnan(value) & ~TARGETS[name].defined(structure)).any():
                raise ValueError(undefined_message(i, structure, name))


def check_predictable(structures: Structures, names: Sequence[str]) -> None:
    """Refuse structures for which all of the targets are undefined.

    Parameters
    ----------
    structures : Structures
        Structures to predict.
    names : sequence of str
        Targets to predict.

    Raises
    ------
    ValueError
        If all targets are undefined for a periodic structure.
    """
    for i, structure in possibly_undefined(structures, names):
        defined = np.concatenate([TARGETS[name].defined(structure) for name in names])
        if len(defined) and not defined.any():
            raise ValueError(undefined_message(i, structure, " and ".join(names)))


def labels_of_predictions(labels: Array, predicted: Array) -> Array:
    """Labels without those of structures for which the target cannot be predicted.

    Parameters
    ----------
    labels, predicted : ndarray of shape (n,)
        Structured arrays; every column of `predicted` is also one of `labels`.

    Returns
    -------
    labels : ndarray of shape (n,)
        A copy, with missing labels where predictions are missing.
    """
    labels = labels.copy()
    for name in predicted.dtype.names or ():
        truth, values = labels[name], predicted[name]
        if truth.dtype == object:
            truth[[value is None for value in values]] = None
        else:
            truth[np.isnan(values)] = np.nan
    return labels


def check_start(start: Column | None, structures: Structures) -> list[Array | None]:
    """Check the charges from which the iterative solver starts.

    Parameters
    ----------
    start : sequence of array-like of shape (n_atoms,) or None
        One array per structure; None means that there are no such charges.
    structures : Structures
        The structures.

    Returns
    -------
    start : list of ndarray or None
        One entry per structure.

    Raises
    ------
    ValueError
        If the numbers of structures or atoms differ, or a charge is not finite.
    """
    if start is None:
        return [None] * len(structures)
    if len(start) != len(structures):
        raise ValueError(
            f"start holds {counted(len(start), 'array')}, but "
            f"X holds {counted(len(structures), 'structure')}"
        )
    charges = [np.asarray(q, dtype=np.float64) for q in start]
    for i, (q, n) in enumerate(zip(charges, structures.sizes)):
        if q.shape != (n,) or not np.isfinite(q).all():
            raise ValueError(
                f"start[{i}] must be {n} finite charges for {structures.name(i)}, got shape "
                f"{q.shape}"
            )
    return list(charges)


def undefined_message(i: int, structure: Structure, what: str) -> str:
    """The error message that lists the targets which are defined for periodic structures."""
    return (
        f"structure {i} ({structure.symbols}) has pbc = {structure.pbc}, which leaves {what} "
        "undefined. All periodic structures have charges, energy and forces; crystals also have a "
        "stress. Slabs whose normal is x, y or z also have the dipole along the normal and its "
        "derivatives, and a stress if the cell has three vectors"
    )


def learned_columns(labels: Labels) -> list[str]:
    """Columns of the labels, without energies, forces and stress of which not one has a value.

    Other columns without values, such as charges beside dipoles, are kept, because the charges
    determine them. A warning names the columns that are left out.

    Parameters
    ----------
    labels : Labels
        Labels of a fit.

    Returns
    -------
    columns : list of str
    """
    if not set(ENERGIES).isdisjoint(labels.names):
        return labels.columns
    empty = [name for name in labels.columns if name in ENERGIES]
    if empty:
        warn_once(
            f"all labels of {' and '.join(empty)} are missing, so that the model cannot predict "
            f"{'them' if len(empty) > 1 else 'it'}",
            "empty columns",
        )
    return [name for name in labels.columns if name not in ENERGIES]
