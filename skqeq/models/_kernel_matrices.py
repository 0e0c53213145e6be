"""The covariance of labels as a sum over kernels, each with an amplitude of its own.

Each latent field of a charge model is a sum over the column blocks of the descriptor, and a
constant per element. Learned dipoles of the atoms are a sum over the cutoffs of their features.
Labels that are linear in the charges and in these dipoles therefore have the covariance::

    K = sum_k a_k^2 G_k + N,    G_k = J_k J_k^T,

where a_k are the amplitudes of the terms, J_k are the derivatives of the labels with respect to
their weights, and N is the diagonal matrix of the noise. The matrices G_k depend on the response
and on the descriptor, but not on the amplitudes and the noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..fields import Field
from ..sparsify import SparseSource
from ..structures import NoFeatures, StackedSource, StructureFeatures
from ._atomic_dipoles import DIPOLE
from ._kqeq import KQEqRegressor

if TYPE_CHECKING:
    from .._typing import Array, LabelsLike


class KernelMatrices(NamedTuple):
    """The matrices G_k, and the labels.

    Attributes
    ----------
    terms : list of (str, int or None)
        For every matrix, the field and the column block; None for the constants of the field.
    matrices : list of ndarray of shape (n, n)
        The matrices G_k.
    residual : ndarray of shape (n,)
        Labels minus the prediction of the prior mean, divided by the relative noise.
    targets : ndarray of shape (n,)
        Index of the target of every row in `names`.
    structures : ndarray of shape (n,)
        Number of the structure of every row.
    names : list of str
        The targets.
    scale : ndarray of shape (n,)
        The relative noise by which the rows were divided.
    """

    terms: list[tuple[str, int | None]]
    matrices: list[Array]
    residual: Array
    targets: Array
    structures: Array
    names: list[str]
    scale: Array


def kernel_matrices(
    model: KQEqRegressor, features: StructureFeatures, y: LabelsLike
) -> KernelMatrices:
    """Compute the matrices G_k of a model.

    Parameters
    ----------
    model : KQEqRegressor
        Its response determines the rows; its amplitudes and its noise have no influence.
    features : StructureFeatures
        Features of a `CURSparsifier` with one set of `block_weights`. They can be the block
        ``"chi"`` beside a block ``"dipole"`` of a `VectorSOAPFeaturizer`.
    y : labels
        Targets that are linear in the charges.

    Returns
    -------
    matrices : KernelMatrices
    """
    separate = _SeparateKernels(**model.get_params(deep=False))
    problem = separate.problem(features, y)
    problem.check_linear("ChargeSearchCV")
    rows = list(problem.linear_rows())
    J = np.concatenate([part.J for part in rows])
    terms = separate.terms(problem.forward.response, features)
    matrices = []
    # The layout ends with the energies of the free atoms, which are no term.
    for of_features, constants in problem.layout.columns[: len(terms)]:
        columns = J[:, of_features.start : constants.stop]
        matrices.append(columns @ columns.T)
    names = list(problem.labels.names)
    return KernelMatrices(
        terms,
        matrices,
        np.concatenate([part.residual for part in rows]),
        np.repeat([names.index(part.name) for part in rows], [len(part.J) for part in rows]),
        np.concatenate([part.structures for part in rows]),
        names,
        1.0 / np.concatenate([part.inverse_noise for part in rows]),
    )


class _SeparateKernels(KQEqRegressor):
    """A model with a field of amplitude one for every column block, and for the constants."""

    def terms(self, response: Any, X: StructureFeatures) -> list[tuple[str, int | None]]:
        """The field and the column block of every term, see `KernelMatrices`."""
        kernels, *vectors = X.source.sources
        terms: list[tuple[str, int | None]] = []
        for field in self._charge_fields(response):
            terms += [(field.name, b) for b in range(_n_blocks(kernels))]
            if field.baseline:
                terms.append((field.name, None))
        return terms + [(DIPOLE, b) for source in vectors for b in range(_n_cutoffs(source))]

    def _features(self, X: Any, response: Any) -> StructureFeatures:
        self._terms = self.terms(response, X)
        kernels, *vectors = X.source.sources
        by_block = [_of_block(kernels, b) for b in range(_n_blocks(kernels))]
        sources = [
            vectors[0].of_cutoff(b)
            if field == DIPOLE
            else NoFeatures()
            if b is None
            else by_block[b]
            for field, b in self._terms
        ]
        return StructureFeatures(X.structures, StackedSource([*sources, NoFeatures()]))

    def _fields(self, response: Any) -> list[Field]:
        fields = {field.name: field for field in super()._fields(response)}
        return [
            Field(f"constants of {name}", fields[name].enters, (), 0.0, 1.0, fields[name].mean)
            if b is None
            else Field(f"{name} {b}", fields[name].enters, fields[name].blocks, 1.0)
            for name, b in self._terms
        ]


def _n_blocks(source):
    return len(source.parent.boundaries) - 1


def _n_cutoffs(vectors):
    return len(vectors.spectra)


def _of_block(source, b):
    """The same sparse points, with the kernel of a single column block."""
    weights = np.eye(_n_blocks(source))[b]
    kernels = {group: kernel.reweighted(weights) for group, kernel in source.kernels.items()}
    return SparseSource(source.parent, kernels)
