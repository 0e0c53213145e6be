"""Choosing representative rows: CUR leverage scores and farthest points."""

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

# Number of columns of the sketch (a random projection) from which leverage scores are computed.
MAX_SKETCH = 256
# Rows that are closer than this are copies. Their kernel differs from 1 by less than the default
# jitter, so that a second one would make the kernel matrix singular.
COPY_DISTANCE = 1e-5


def sketch_matrix(n_features, width, random_state):
    """A sparse random matrix that reduces the number of columns, and nearly preserves products.

    Each feature is added to one random column with a random sign (CountSketch: Clarkson and
    Woodruff, STOC 2013), which costs one multiplication per entry of the data.

    Parameters
    ----------
    n_features : int
        Number of features.
    width : int
        Number of columns of the sketch.
    random_state : numpy.random.Generator
        Source of the random numbers.

    Returns
    -------
    omega : sparse matrix of shape (n_features, width)
        The projection of rows is ``rows @ omega``. If `n_features` is at most `width`, omega is the
        identity.
    """
    if n_features <= width:
        return sparse.identity(n_features, format="csr")
    columns = random_state.integers(width, size=n_features)
    signs = random_state.choice([-1.0, 1.0], size=n_features)
    return sparse.csr_matrix((signs, columns, np.arange(n_features + 1)), shape=(n_features, width))


def distinct(rows):
    """Indices of rows that are not copies of earlier ones.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, width)
        Sketched data.

    Returns
    -------
    index : ndarray of shape (n_distinct,)
        Ascending indices.
    """
    # Most copies are equal after rounding.
    rounded = np.rint(rows / COPY_DISTANCE).astype(np.int64)
    index = np.sort(np.unique(rounded, axis=0, return_index=True)[1])
    # For the rest, a tree in few dimensions finds all pairs that may be close. An orthogonal
    # projection never increases a distance.
    rows = rows[index]
    width = rows.shape[1]
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(width, min(width, 6))))[0]
    pairs = cKDTree(rows @ axes).query_pairs(COPY_DISTANCE, output_type="ndarray")
    close = np.linalg.norm(rows[pairs[:, 0]] - rows[pairs[:, 1]], axis=1) < COPY_DISTANCE
    first = np.full(len(rows), True)
    for i, j in sorted(pairs[close].tolist()):
        if first[i]:
            first[j] = False
    return index[first]


def leverage_scores(rows, rank):
    """Leverage of every row in the dominant `rank`-dimensional column space.

    The definition is Mahoney and Drineas, PNAS 106, 697 (2009), eq. 3. The space is computed by a
    randomised SVD (Halko, Martinsson, Tropp, SIAM Rev. 53, 217 (2011)), with `rows` as the sketch.

    Parameters
    ----------
    rows : ndarray of shape (n, width)
        Sketched data.
    rank : int
        Dimension of the space.

    Returns
    -------
    scores : ndarray of shape (n,)
        Non-negative leverage scores, which sum to the rank.
    """
    # The eigenvectors of the small Gram matrix take a tenth of the time of a QR decomposition. They
    # are precise for singular values above 1e-7 of the largest one. Other directions are left out.
    squares, right = np.linalg.eigh(rows.T @ rows)
    squares, right = squares[::-1][:rank], right[:, ::-1][:, :rank]
    significant = squares > 1e-12 * squares[0]
    left = rows @ (right[:, significant] / np.sqrt(squares[significant]))
    return np.einsum("ij,ij->i", left, left)


def select_by_leverage(rows, n, random_state):
    """Draw n distinct rows with probability proportional to their leverage.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, width)
        Sketched data.
    n : int
        Number of rows to draw.
    random_state : numpy.random.Generator
        Source of the random numbers.

    Returns
    -------
    index : ndarray of shape (n,)
        Indices of the rows, in the order in which they were drawn.
    """
    # The rank is at most half the width of the sketch, because the last directions of a sketch are
    # mixtures of many directions of the data.
    scores = leverage_scores(rows, max(1, min(n, rows.shape[1]) // 2))
    # Sampling without replacement (Efraimidis and Spirakis 2006): every row arrives after a random
    # time, with its score as the rate, and the first n rows are taken.
    arrival = random_state.exponential(size=len(scores))
    with np.errstate(divide="ignore"):
        arrival /= scores
    return np.argsort(arrival, kind="stable")[:n]


def select_farthest(rows, n, random_state):
    """Choose a random row, then n - 1 times the row farthest from all chosen ones.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, width)
        Sketched data.
    n : int
        Number of rows to choose.
    random_state : numpy.random.Generator
        Source of the random numbers.

    Returns
    -------
    index : ndarray of shape (n,)
        Indices of the rows, in the order in which they were chosen.
    """
    norms = np.einsum("ij,ij->i", rows, rows)
    chosen = np.empty(n, dtype=int)
    chosen[0] = random_state.integers(len(rows))
    # Squared distance of every row from the nearest chosen row. For chosen rows it is set to -inf,
    # so that they are never chosen again, even if all rows are equal.
    nearest = np.full(len(rows), np.inf)
    for i in range(1, n):
        last = chosen[i - 1]
        np.minimum(nearest, norms + norms[last] - 2.0 * (rows @ rows[last]), out=nearest)
        nearest[last] = -np.inf
        chosen[i] = np.argmax(nearest)
    return chosen


METHODS = {"cur": select_by_leverage, "fps": select_farthest}
