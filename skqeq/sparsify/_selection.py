"""Choosing representative rows: CUR leverage scores and farthest points."""

import numpy as np
from scipy import sparse

# Width of the sketch that leverage scores are taken from.
MAX_SKETCH = 256


def sketch_matrix(n_features, width, random_state):
    """A sparse random sign matrix (n_features, width) that preserves the geometry of rows.

    Every feature goes to one column with a random sign (CountSketch: Clarkson and Woodruff,
    STOC 2013), so that sketching costs one multiplication per entry of the data.
    """
    if n_features <= width:
        return sparse.identity(n_features, format="csr")
    columns = random_state.integers(width, size=n_features)
    signs = random_state.choice([-1.0, 1.0], size=n_features)
    return sparse.csr_matrix((signs, columns, np.arange(n_features + 1)), shape=(n_features, width))


def leverage_scores(rows, rank):
    """Leverage of every row in the dominant `rank`-dimensional column space.

    Mahoney and Drineas, PNAS 106, 697 (2009), eq. 3, with the space from a randomised SVD
    (Halko, Martinsson, Tropp, SIAM Rev. 53, 217 (2011)) of which `rows` is the sketch.

    Parameters
    ----------
    rows : ndarray of shape (n, width)
        Sketched data.
    rank : int
        Dimension of the space.

    Returns
    -------
    scores : ndarray of shape (n,)
        Non-negative; the sum is the rank.
    """
    # From the small Gram matrix, at a tenth of the cost of a QR. It resolves singular values down
    # to 1e-7 of the largest; the directions below are noise, and are left out.
    squares, right = np.linalg.eigh(rows.T @ rows)
    squares, right = squares[::-1][:rank], right[:, ::-1][:, :rank]
    significant = squares > 1e-12 * squares[0]
    left = rows @ (right[:, significant] / np.sqrt(squares[significant]))
    return np.einsum("ij,ij->i", left, left)


def select_by_leverage(rows, n, random_state):
    """Draw `n` distinct rows with probability proportional to their leverage."""
    # Half the sketch, because its last directions are mixtures of many.
    scores = leverage_scores(rows, max(1, min(n, rows.shape[1]) // 2))
    # Exponential races (Efraimidis and Spirakis 2006): sampling without replacement.
    arrival = random_state.exponential(size=len(scores))
    with np.errstate(divide="ignore"):
        arrival /= scores
    return np.argsort(arrival, kind="stable")[:n]


def select_farthest(rows, n, random_state):
    """Start anywhere and add, `n` - 1 times, the row farthest from all chosen ones."""
    norms = np.einsum("ij,ij->i", rows, rows)
    chosen = np.empty(n, dtype=int)
    chosen[0] = random_state.integers(len(rows))
    nearest = np.full(len(rows), np.inf)
    for i in range(1, n):
        last = chosen[i - 1]
        np.minimum(nearest, norms + norms[last] - 2.0 * (rows @ rows[last]), out=nearest)
        nearest[last] = -np.inf
        chosen[i] = np.argmax(nearest)
    return chosen


METHODS = {"cur": select_by_leverage, "fps": select_farthest}
