"""Rows of a least-squares problem over the atoms of a block."""

import numpy as np
from scipy.sparse import csr_matrix

# Rows of the design matrix that are in memory at a time.
MAX_ROWS = 4096


class RowList:
    """Rows over the atoms of some structures of a block, for one sparse matrix.

    A row is dense over the atoms of its structure and zero elsewhere.
    """

    def __init__(self):
        self.pieces = []

    def add(self, rows, residual, first_atom):
        """Add rows (k, n_atoms) of a structure whose first atom is `first_atom`."""
        self.pieces.append((rows, residual, first_atom))

    def chunks(self, n_atoms, max_rows=MAX_ROWS):
        """Yield sparse matrices (n_rows, n_atoms) with their right-hand sides."""
        start, size = 0, 0
        for i, (rows, _, _) in enumerate(self.pieces):
            if size and size + len(rows) > max_rows:
                yield self._stack(self.pieces[start:i], n_atoms)
                start, size = i, 0
            size += len(rows)
        if size:
            yield self._stack(self.pieces[start:], n_atoms)

    @staticmethod
    def _stack(pieces, n_atoms):
        data = np.concatenate([rows.ravel() for rows, _, _ in pieces])
        columns = np.concatenate(
            [np.tile(np.arange(a, a + rows.shape[1]), len(rows)) for rows, _, a in pieces]
        )
        lengths = np.concatenate([np.full(len(rows), rows.shape[1]) for rows, _, _ in pieces])
        starts = np.concatenate([[0], np.cumsum(lengths)])
        matrix = csr_matrix((data, columns, starts), shape=(len(lengths), n_atoms))
        return matrix, np.concatenate([residual for _, residual, _ in pieces])
