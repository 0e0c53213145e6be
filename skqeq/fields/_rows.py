"""Rows of a least-squares problem whose unknowns are the fields on the atoms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._typing import Array

# Largest number of rows of the design matrix in memory at a time.
MAX_ROWS = 4096


class AtomRows:
    """Derivatives of labels with respect to the fields on the atoms of a block of structures.

    A row has entries for all atoms of its structure and is zero for all other atoms. The rows of
    many structures are therefore a sparse matrix, with one column per atom of the block.

    Examples
    --------
    >>> import numpy as np
    >>> from skqeq.fields import AtomRows
    >>> rows = AtomRows()
    >>> rows.add({"chi": np.ones((1, 2))}, np.zeros(1), first_atom=3)
    >>> [(factors, residual)] = rows.chunks(n_atoms=5)
    >>> factors["chi"].toarray()
    array([[0., 0., 0., 1., 1.]])
    """

    def __init__(self) -> None:
        self._pieces: list[tuple[dict[str, Array], Array, int]] = []

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, factors: dict[str, Array], residual: Array, first_atom: int) -> None:
        """Add the rows of one structure.

        Parameters
        ----------
        factors : dict of {str: ndarray of shape (k, n_atoms)}
            Derivatives of the labels with respect to the fields. The keys are the quantities to
            which fields contribute, such as ``"chi"``; at least one is needed, and the derivatives
            of missing ones are zero.
        residual : ndarray of shape (k,)
            Right-hand sides.
        first_atom : int
            Index of the first atom of the structure in the block.
        """
        self._pieces.append((factors, residual, first_atom))

    def chunks(
        self, n_atoms: int, max_rows: int = MAX_ROWS
    ) -> Iterator[tuple[dict[str, csr_matrix], Array]]:
        """Yield up to about `max_rows` rows at a time.

        Parameters
        ----------
        n_atoms : int
            Number of atoms in the block.
        max_rows : int
            Largest number of rows of a chunk. A structure with more rows is a chunk by itself.

        Yields
        ------
        factors : dict of {str: sparse matrix of shape (n_rows, n_atoms)}
            The keys are the quantities to which fields contribute, such as ``"chi"``.
        residual : ndarray of shape (n_rows,)
            Right-hand sides.
        """
        start, n_rows = 0, 0
        for i, (_, residual, _) in enumerate(self._pieces):
            if n_rows and n_rows + len(residual) > max_rows:
                yield _stack(self._pieces[start:i], n_atoms)
                start, n_rows = i, 0
            n_rows += len(residual)
        if n_rows:
            yield _stack(self._pieces[start:], n_atoms)


def _stack(pieces, n_atoms):
    """Sparse matrices of the rows of several structures."""
    every_factors, residuals, first_atoms = zip(*pieces, strict=True)
    shapes = [next(iter(factors.values())).shape for factors in every_factors]
    # The matrices of all quantities share one sparsity pattern: a row covers the atoms of its
    # structure.
    columns = np.concatenate(
        [np.tile(np.arange(a, a + n), k) for a, (k, n) in zip(first_atoms, shapes, strict=True)]
    )
    lengths = np.concatenate([np.full(k, n) for k, n in shapes])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    places = dict.fromkeys(name for factors in every_factors for name in factors)
    matrices = {}
    for name in places:
        data = np.concatenate(
            [
                factors[name].ravel() if name in factors else np.zeros(k * n)
                for factors, (k, n) in zip(every_factors, shapes, strict=True)
            ]
        )
        matrices[name] = csr_matrix((data, columns, starts), (len(lengths), n_atoms))
    return matrices, np.concatenate(residuals)
