"""Derivatives of features along one direction in the space of geometries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .._typing import Array
    from ._base import FeatureGradient


class DirectionalFeatures:
    """Derivatives of the features of one structure along one direction.

    This class computes them from the methods that every `FeatureGradient` has.

    Parameters
    ----------
    gradient : FeatureGradient
        The derivatives with respect to all coordinates.
    displacement : ndarray of shape (n_atoms, 3)
        Displacements of the atoms, Angstrom.
    strain : ndarray of shape (3, 3)
        Strain of positions and cell.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, SOAPFeaturizer
    >>> pipeline = make_pipeline(SOAPFeaturizer(n_max=2, l_max=2), CURSparsifier(n_points=1))
    >>> features = pipeline.fit_transform([molecule("H2O")])
    >>> gradient = features.gradient(features.structures[0])
    >>> stretched = gradient.directional(np.zeros((3, 3)), np.eye(3))
    >>> dual = features.dual(np.ones(features.n_features))
    >>> virial = gradient.field_gradient(np.ones(3), dual)[1]
    >>> bool(np.isclose(stretched.field(dual).sum(), np.trace(virial)))
    True
    """

    def __init__(self, gradient: FeatureGradient, displacement: Array, strain: Array) -> None:
        self._gradient, self._displacement, self._strain = gradient, displacement, strain

    def field(self, dual: Array) -> Array:
        """The change of the latent field of every atom to first order.

        Parameters
        ----------
        dual : ndarray of shape (n_columns,)
            Dual weights of the field.

        Returns
        -------
        change : ndarray of shape (n_atoms,)
            One number per atom.
        """
        change = np.zeros(self._gradient.n_atoms)
        for neighborhood, g in self._gradient.pair_gradients(dual):
            moved = neighborhood.moved(self._displacement, self._strain)
            products = np.einsum("pa,pa->p", g, moved)
            change += np.bincount(neighborhood.i, products, len(change))
        return change

    def contract(self, cotangents: Array) -> Array:
        """Cotangents times the change of the features.

        Parameters
        ----------
        cotangents : ndarray of shape (n_rows, n_atoms)
            Factors that multiply the features of the atoms.

        Returns
        -------
        rows : ndarray of shape (n_rows, n_columns)
            ``cotangents @ dphi``.
        """
        jacobian, virial = self._gradient.jacobian(cotangents)
        direction = self._displacement.ravel(), self._strain.ravel()
        return np.tensordot(direction[0], jacobian, (0, 1)) + np.tensordot(
            direction[1], virial, (0, 1)
        )
