"""Several sets of features side by side, told apart by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from .._sklearn import NamedUnion
from ..structures import StructureFeatures

if TYPE_CHECKING:
    from .._typing import StructuresLike


class StructureBlocks(NamedUnion, auto_wrap_output_keys=None):  # type: ignore[call-arg]  # of a mixin without types
    """Features of the same structures in blocks that keep their names.

    A `FeatureUnion` whose result remembers which columns came from which transformer, so that a
    model can use each block for another purpose: `skqeq.GAPKQEqRegressor` takes electronegativities
    from the block ``"chi"`` and local energies from the block ``"gap"``.

    Parameters
    ----------
    transformer_list : list of (str, transformer)
        Names and the transformers of structures, each usually a pipeline of `SOAPFeaturizer` and
        `CURSparsifier`.
    n_jobs : int, default=None
        Number of processes to fit the transformers in.
    transformer_weights : None
        Features have no weights; how large the fields that they make may become is a matter of the
        model's amplitudes.
    verbose : bool, default=False
        Whether to print the time that each transformer took to fit.
    verbose_feature_names_out : bool, default=True
        Of `FeatureUnion`; features of atoms have no names.

    See Also
    --------
    sklearn.pipeline.FeatureUnion : Parameters of the transformers are reached in the same way.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, SOAPFeaturizer, StructureBlocks
    >>> blocks = StructureBlocks(
    ...     [
    ...         ("chi", make_pipeline(SOAPFeaturizer(r_cut=3.0), CURSparsifier(n_points=1))),
    ...         ("gap", make_pipeline(SOAPFeaturizer(r_cut=4.0), CURSparsifier(n_points=2))),
    ...     ]
    ... )
    >>> blocks.fit_transform([molecule("CH3OH"), molecule("CO2")])
    <StructureFeatures: 2 structures, 9 atoms, chi: 3 features, gap: 6 features>
    """

    def fit(self, X: StructuresLike, y: object = None, **fit_params: Any) -> Self:
        """Fit all transformers to the same structures.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Structures, see `skqeq.check_structures`.
        y : object, default=None
            Handed to the transformers; those of this package ignore it.
        **fit_params : dict
            As of `sklearn.pipeline.FeatureUnion.fit`.

        Returns
        -------
        self : StructureBlocks
            With fitted transformers.
        """
        self._refuse_weights()
        return super().fit(X, y, **fit_params)

    def fit_transform(
        self, X: StructuresLike, y: object = None, **params: Any
    ) -> StructureFeatures:
        """Fit all transformers and describe the same structures.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Structures, see `skqeq.check_structures`.
        y : object, default=None
            Handed to the transformers; those of this package ignore it.
        **params : dict
            As of `sklearn.pipeline.FeatureUnion.fit_transform`.

        Returns
        -------
        features : StructureFeatures
            Blocks of columns with the names of the transformers.
        """
        self._refuse_weights()
        return super().fit_transform(X, y, **params)

    def transform(self, X: StructuresLike, **params: Any) -> StructureFeatures:
        """Describe structures.

        Parameters
        ----------
        X : sequence of ase.Atoms
            Structures, see `skqeq.check_structures`.
        **params : dict
            As of `sklearn.pipeline.FeatureUnion.transform`.

        Returns
        -------
        features : StructureFeatures
            Blocks of columns with the names of the transformers.
        """
        return super().transform(X, **params)

    def _refuse_weights(self):
        if self.transformer_weights:
            raise ValueError(
                "transformer_weights are not for features of structures; use the amplitudes of the "
                "model, or block_weights of CURSparsifier"
            )

    def _join(self, results):
        return StructureFeatures.beside(results)
