"""Selection of structures for reference calculations: the uncertainty, and two ways to select."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..sparsify import SparseSource, leverage_scores
from ..structures import StackedSource, StructureFeatures, concatenate

if TYPE_CHECKING:
    from .._typing import Array


def uncertainty(phi: StructureFeatures) -> Array:
    """Uncertainty of the most uncertain atom of every structure.

    The posterior variance of the electronegativity of an atom is at least ``amplitude_chi^2 (1 -
    |phi_i|^2)``, for any number of labels. This is the part of the prior variance that the sparse
    set does not describe.

    Parameters
    ----------
    phi : StructureFeatures
        Features from one `skqeq.CURSparsifier`, or from `skqeq.StructureBlocks` with several of
        them.

    Returns
    -------
    uncertainty : ndarray of shape (n,)
        ``max_i sqrt(1 - |phi_i|^2)``, a standard deviation in units of `amplitude_chi`. It is 0 if
        all environments of a structure are in the sparse set, and 1 if an environment is similar to
        none in the sparse set. For several blocks, it is the largest uncertainty of all blocks,
        each in units of the amplitude of the block.

    Raises
    ------
    TypeError
        If the features have no sparse set.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, SOAPFeaturizer
    >>> from skqeq.active_learning import uncertainty
    >>> soap = SOAPFeaturizer(r_cut=3.0, n_max=4, l_max=3)
    >>> features = make_pipeline(soap, CURSparsifier(n_points=1)).fit([molecule("H2O")])
    >>> stretched = molecule("H2O")
    >>> stretched.set_distance(0, 1, 1.5)
    >>> equilibrium, distorted = uncertainty(features.transform([molecule("H2O"), stretched]))
    >>> bool(equilibrium < 1e-3 < distorted)
    True
    """
    return np.max([_block_uncertainty(block) for block in sparse_blocks(phi)], axis=0)


def _block_uncertainty(phi):
    """`uncertainty` for the features of one sparse set."""
    smallest = []  # smallest squared norm of the atoms of every structure
    for _, block in phi.blocks():
        smallest.append(np.minimum.reduceat(block.squared_norms(), block.offsets[:-1]))
    return np.sqrt(np.maximum(0.0, 1.0 - np.concatenate(smallest)))


def select_uncertain(
    data: StructureFeatures, candidates: StructureFeatures, n: int, rng: np.random.Generator
) -> list[int]:
    """Pick the most uncertain structure, add it to the sparse set, and repeat.

    The environments of a picked structure are added to the sparse set. Similar structures are then
    no longer uncertain and are not picked.

    Parameters
    ----------
    data : StructureFeatures
        Not used, because the sparse set of `candidates` represents the data.
    candidates : StructureFeatures
        Structures to pick from; features from `skqeq.CURSparsifier`.
    n : int
        Number of structures to pick.
    rng : numpy.random.Generator
        Not used.

    Returns
    -------
    picked : list of int
        Indices of candidates, with the most uncertain candidate first.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, SOAPFeaturizer
    >>> from skqeq.active_learning import select_uncertain
    >>> labelled, new = [molecule("CH3OH")], [molecule("CH3OH"), molecule("CH3CHO")]
    >>> soap = SOAPFeaturizer(r_cut=3.0, n_max=4, l_max=3)
    >>> features = make_pipeline(soap, CURSparsifier(n_points=1)).fit(labelled)
    >>> data, candidates = features.transform(labelled), features.transform(new)
    >>> select_uncertain(data, candidates, 1, np.random.default_rng(0))
    [1]
    """
    picked: list[int] = []
    phi = candidates
    # A larger sparse set can only lower an uncertainty. The uncertainty of an earlier step is
    # therefore an upper bound, and only the candidate with the largest bound is computed again.
    bounds, computed_at = uncertainty(phi), np.zeros(len(phi), dtype=int)
    while len(picked) < min(n, len(phi)):
        best = int(np.argmax(bounds))
        if computed_at[best] == len(picked):
            picked.append(best)
            bounds[best] = -1.0
            phi = _with_environments(phi, phi.structures[best])
        else:
            [bounds[best]] = uncertainty(phi[[best]])
            computed_at[best] = len(picked)
    return picked


def select_novel(
    data: StructureFeatures, candidates: StructureFeatures, n: int, rng: np.random.Generator
) -> list[int]:
    """Pick the structure with the largest CUR leverage, project it out of the others, and repeat.

    A structure is represented by the mean of the descriptors of its atoms. First, the dominant
    directions of the data are projected out, so that only new directions contribute to the
    leverage.

    Parameters
    ----------
    data : StructureFeatures
        Labelled structures; features from `skqeq.CURSparsifier`.
    candidates : StructureFeatures
        Structures to pick from; features from the same transformer.
    n : int
        Number of structures to pick.
    rng : numpy.random.Generator
        Source of the random projection of the descriptors.

    Returns
    -------
    picked : list of int
        Indices of candidates; fewer than `n` if the remaining candidates have no new direction.

    References
    ----------
    Mahoney and Drineas, PNAS 106, 697 (2009).

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, SOAPFeaturizer
    >>> from skqeq.active_learning import select_novel
    >>> labelled, new = [molecule("CH3OH")], [molecule("CH3OH"), molecule("CH3CHO")]
    >>> soap = SOAPFeaturizer(r_cut=3.0, n_max=4, l_max=3)
    >>> features = make_pipeline(soap, CURSparsifier(n_points=1)).fit(labelled)
    >>> data, candidates = features.transform(labelled), features.transform(new)
    >>> select_novel(data, candidates, 1, np.random.default_rng(0))
    [1]
    """
    structures = concatenate([data.structures, candidates.structures])
    offsets = structures.offsets
    atoms = np.concatenate(
        [block.source.sketch(structures, rng) for block in sparse_blocks(candidates)], axis=1
    )
    means = np.add.reduceat(atoms, offsets[:-1]) / np.diff(offsets)[:, None]
    labelled, rest = np.split(means, [len(data)])
    # Only the first half of the directions is used. The last directions of a random projection are
    # mixtures of many directions of the data.
    dominant = np.linalg.svd(labelled, full_matrices=False)[2][: max(1, min(labelled.shape) // 2)]
    rest = rest - rest @ dominant.T @ dominant
    picked: list[int] = []
    negligible = 1e-6 * np.linalg.norm(means, axis=1).max()
    while len(picked) < n and np.linalg.norm(rest, axis=1).max() > negligible:
        best = int(np.argmax(leverage_scores(rest, n - len(picked))))
        picked.append(best)
        direction = rest[best] / np.linalg.norm(rest[best])
        rest = rest - np.outer(rest @ direction, direction)
    return picked


def sparse_blocks(phi):
    """Features of every sparse set, as a list of StructureFeatures.

    Raises a TypeError if the features do not come from a CURSparsifier.
    """
    sources = phi.source.sources if isinstance(phi, StructureFeatures) else [None]
    if not all(isinstance(source, SparseSource) for source in sources):
        raise TypeError("active learning needs a pipeline of SOAPFeaturizer and CURSparsifier")
    return [StructureFeatures(phi.structures, source) for source in sources]


def _with_environments(phi, structure):
    """Features after the environments of a structure are added to the sparse sets."""
    sources = [source.with_environments(structure) for source in phi.source.sources]
    return StructureFeatures(phi.structures, StackedSource(sources, phi.source.names))
