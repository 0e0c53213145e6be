"""Rows of a least-squares problem over the atoms of a block."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

# Rows of the design matrix that are in memory at a time.
MAX_ROWS = 4096


class LabelRows(NamedTuple):
    """Rows of the labels of one target, whose noise is relative to that of the model.

    Attributes
    ----------
    name : str
        The target.
    J : ndarray of shape (n, n_weights)
        Over the weights before they are scaled.
    residual, weight : ndarray of shape (n,)
        Labels less those of the prior mean, and the inverse of the noise, which is part of both.
    structures : ndarray of shape (n,)
        Of which structure each row is, ascending.
    block : int
        The first structure of the block, which has all rows of its structures.
    """

    name: str
    J: np.ndarray
    residual: np.ndarray
    weight: np.ndarray
    structures: np.ndarray
    block: int


class RowList:
    """Rows over the atoms of some structures of a block, for sparse matrices.

    A row is dense over the atoms of its structure and zero elsewhere.
    """

    def __init__(self):
        self.pieces = []

    def add(self, rows, residual, first_atom, energies=0.0, reference=None):
        """Add rows (k, n_atoms) of a structure whose first atom is `first_atom`.

        The rows multiply electronegativities, and `reference` the learned reference charges, where
        there are any. `energies` is the factor of the sum of all atomic energies, of shape (k,) or
        one number.
        """
        energies = np.broadcast_to(energies, len(rows))
        self.pieces.append((rows, reference, energies, residual, first_atom))

    def chunks(self, n_atoms, max_rows=MAX_ROWS):
        """Yield some rows of each kind as sparse matrices (n_rows, n_atoms), and right-hand sides.

        The matrices are of electronegativities, of reference charges, None where there are none,
        and of energies.
        """
        start, size = 0, 0
        for i, (rows, *_) in enumerate(self.pieces):
            if size and size + len(rows) > max_rows:
                yield self._stack(self.pieces[start:i], n_atoms)
                start, size = i, 0
            size += len(rows)
        if size:
            yield self._stack(self.pieces[start:], n_atoms)

    @staticmethod
    def _stack(pieces, n_atoms):
        every, references, energies, residuals, firsts = zip(*pieces, strict=True)
        columns = np.concatenate(
            [np.tile(np.arange(a, a + r.shape[1]), len(r)) for r, a in zip(every, firsts)]
        )
        lengths = np.concatenate([np.full(len(rows), rows.shape[1]) for rows in every])
        starts = np.concatenate([[0], np.cumsum(lengths)])
        shape = (len(lengths), n_atoms)

        def matrix(parts):
            data = np.concatenate([rows.ravel() for rows in parts])
            return csr_matrix((data, columns, starts), shape)

        energies = np.concatenate(energies)
        local = csr_matrix(shape)
        if energies.any():
            local = csr_matrix((np.repeat(energies, lengths), columns, starts), shape)
        reference = None if references[0] is None else matrix(references)
        return (matrix(every), reference, local), np.concatenate(residuals)


def weighted_label(equilibrium, target, value, sigma, charges):
    """A label that is linear in the charges, in units of its noise.

    Parameters
    ----------
    equilibrium : Equilibrium
        Of the structure.
    target : ChargeTarget
        What the label is of.
    value : ndarray of shape (k,)
        The label; NaN where it is not known.
    sigma : float
        Its noise.
    charges : ndarray of shape (n_atoms,)
        Where residuals are taken.

    Returns
    -------
    operator : ndarray of shape (n_known, n_atoms)
        Of the charges.
    residual, weight : ndarray of shape (n_known,)
        What is missing to the label, and the inverse of the noise.
    """
    operator, constant = equilibrium.observable(target)
    known = ~np.isnan(value)
    weight = np.broadcast_to(target.weights / sigma, value.shape)[known]
    residual = weight * (value - operator @ charges - constant)[known]
    return weight[:, None] * operator[known], residual, weight
