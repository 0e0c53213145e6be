"""Folds of rows, and the blocks of the hat matrix for these folds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import check_cv
from tqdm import tqdm

from .._counts import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import ArrayLike

    from .._typing import Array
    from ._problem import LabelRows

# Folds are solved in batches with this many rows in total, which fit into the processor's cache.
BATCH_ROWS = 128


def fold_numbers(cv: Any, table: Array, groups: ArrayLike | None) -> Array:
    """The fold in which each structure is left out.

    Parameters
    ----------
    cv : int, cross-validation generator, iterable or None
        As in `KQEqRegressorCV`.
    table : ndarray of shape (n,)
        Labels in the form of `skqeq.make_targets`.
    groups : array-like of shape (n,) or None
        Groups of structures.

    Returns
    -------
    folds : ndarray of shape (n,)
        -1 for structures that are never left out.

    Raises
    ------
    ValueError
        If the folds overlap, or if the training set of a split is not all other structures.
    """
    n = len(table)
    if groups is not None:
        groups = np.asarray(groups)
        if len(groups) != n:
            raise ValueError(
                f"groups holds {counted(len(groups), 'value')} for {counted(n, 'structure')}"
            )
    if cv is None:
        labels = np.arange(n) if groups is None else groups
        return np.unique(labels, return_inverse=True)[1].ravel()
    folds = np.full(n, -1)
    everything = np.arange(n)
    for f, (train, test) in enumerate(check_cv(cv).split(everything, table, groups)):
        if (folds[test] >= 0).any() or len(np.setxor1d(train, np.setdiff1d(everything, test))):
            raise ValueError(
                "cv must split into folds that do not overlap, and train on all other structures"
            )
        folds[test] = f
    return folds


def folds_of(rows: Iterable[LabelRows], folds: Array) -> Array:
    """The fold of every row.

    Parameters
    ----------
    rows : iterable of LabelRows
        Rows.
    folds : ndarray of shape (n_structures,)
        The fold of every structure.

    Returns
    -------
    folds : ndarray of shape (n_rows,)
    """
    return np.concatenate([folds[part.structures] for part in rows])


def members_of(folds: Array) -> list[Array]:
    """Indices of the members of every fold.

    Parameters
    ----------
    folds : ndarray of shape (n,)
        The fold of every item; a negative number means no fold.

    Returns
    -------
    members : list of ndarray
        One per fold.
    """
    order = np.argsort(folds, kind="stable")
    numbers, starts = np.unique(folds[order], return_index=True)
    parts = np.split(order, starts[1:])
    return [part for f, part in zip(numbers, parts) if f >= 0]


def solve_blocks(Z: Array, weights: Array, right: Array, complement: bool = False) -> Array:
    """Solve ``Z diag(w) Z^T x = right``, or ``(1 - Z diag(w) Z^T) x = right``.

    Parameters
    ----------
    Z : ndarray of shape (n_folds, k, n)
        Rows of every fold.
    weights : ndarray of shape (n_weights, n)
        One vector w for every noise.
    right : ndarray of shape (n_weights, n_folds, k)
        Right-hand sides.
    complement : bool, default=False
        Whether to solve the second equation.

    Returns
    -------
    x : ndarray of shape (n_weights, n_folds, k)
    """
    x, k = np.empty_like(right), Z.shape[1]
    # For large folds only one matrix per fold is in memory at a time.
    step = len(weights) if k <= len(weights) else 1
    for start in range(0, len(weights), step):
        some = slice(start, start + step)
        blocks = _products(Z, weights[some])
        if complement:
            blocks = np.eye(k) - blocks
        x[some] = np.linalg.solve(blocks, right[some, ..., None])[..., 0]
    return x


def _products(Z, weights):
    """``Z diag(w) Z^T`` of every fold for every w: shape (n_weights, n_folds, k, k)."""
    k = Z.shape[1]
    products = np.empty((len(weights), len(Z), k, k))
    if k > len(weights):
        for w, product in zip(weights, products, strict=True):
            rows = Z * np.sqrt(w)
            np.matmul(rows, rows.swapaxes(-1, -2), out=product)
        return products
    # Small folds: the products of two rows do not depend on w, and are computed once.
    for a in range(k):
        for b in range(a + 1):
            products[..., a, b] = weights @ (Z[:, a] * Z[:, b]).T
            products[..., b, a] = products[..., a, b]
    return products


def batches(members: list[Array], verbose: bool) -> Iterator[Array]:
    """Yield batches of folds that have the same number of rows.

    Parameters
    ----------
    members : list of ndarray
        Rows of every fold.
    verbose : bool
        Whether to show a progress bar.

    Yields
    ------
    batch : ndarray of shape (n_folds, n_rows)
        At most about `BATCH_ROWS` rows.
    """
    by_size: dict[int, list[Array]] = {}
    for rows in members:
        by_size.setdefault(len(rows), []).append(rows)
    with tqdm(total=len(members), desc="folds", disable=not verbose, leave=False) as bar:
        for size, of_size in by_size.items():
            step = max(1, BATCH_ROWS // size)
            for start in range(0, len(of_size), step):
                batch = np.array(of_size[start : start + step])
                yield batch
                bar.update(len(batch))
