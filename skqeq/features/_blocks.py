"""Several descriptors of the same structures, each with a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from .._sklearn import NamedUnion
from ..structures import StructureFeatures
from ._no_frames import NoFrames

if TYPE_CHECKING:
    from .._typing import StructuresLike


class StructureBlocks(NoFrames, NamedUnion, auto_wrap_output_keys=None):  # type: ignore[call-arg]  # of a mixin without types
    """Several transformers of the same structures, whose features keep the transformers' names.

    It is a `FeatureUnion` that records which transformer computed which columns. A model can then
    use each block of columns for a different latent field: `skqeq.GAPKQEqRegressor` predicts
    electronegativities from the block ``"chi"`` and local energies from the block ``"gap"``.

    Parameters
    ----------
    transformer_list : list of (str, transformer)
        Name and transformer of each block. A transformer is usually a pipeline of
        `SOAPFeaturizer` and `CURSparsifier`.
    n_jobs : int, default=None
        Number of processes in which the transformers are fitted.
    transformer_weights : None
        Other values raise an error. The amplitudes of the model set the prior standard deviation of
        each latent field instead.
    verbose : bool, default=False
        Whether to print the time that each transformer took to fit.
    verbose_feature_names_out : bool, default=True
        A parameter of `FeatureUnion` that has no effect, since features of atoms have no names.

    See Also
    --------
    sklearn.pipeline.FeatureUnion : The base class, which names the parameters of transformers.

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
            Passed to the transformers; those of this package ignore it.
        **fit_params : dict
            See `sklearn.pipeline.FeatureUnion.fit`.

        Returns
        -------
        self : StructureBlocks
            The fitted transformers.
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
            Passed to the transformers; those of this package ignore it.
        **params : dict
            See `sklearn.pipeline.FeatureUnion.fit_transform`.

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
            See `sklearn.pipeline.FeatureUnion.transform`.

        Returns
        -------
        features : StructureFeatures
            Blocks of columns with the names of the transformers.
        """
        return super().transform(X, **params)

    def _refuse_weights(self):
        if self.transformer_weights:
            raise ValueError(
                "transformer_weights do not apply to features of structures; set the amplitudes of "
                "the model, or block_weights of CURSparsifier"
            )

    def _join(self, results):
        return StructureFeatures.stacked(results)
