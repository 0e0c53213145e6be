"""Fits that continue an earlier one, with more labels or other noise, without the earlier data."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Self

from ._field_features import element_lookup
from ._posterior import Posterior
from ._workers import combined, merged, reduce_labels

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .._typing import Array, History, LabelsLike, StructuresLike
    from ..fields import FieldLayout
    from ._problem import Problem

# Parameters that change the fitting procedure, but not the rows.
NOT_OF_ROWS = {"init", "max_iter", "tol", "algorithm", "verbose", "n_jobs", "store_triangles"}
NOT_OF_ROWS |= {"handle_unknown", "checkpoint"}


class Incremental:
    """Methods of a charge model that use the triangles of the labels.

    A triangle represents all labels of a target that is linear in the charges, see `triangles_` of
    `KQEqRegressor`.
    """

    store_triangles: bool
    targets_: list[str]
    elements_: Array
    layout_: FieldLayout

    if TYPE_CHECKING:  # defined by `ChargeModel`

        def problem(
            self,
            X: StructuresLike,
            y: LabelsLike,
            sample_weight: ArrayLike | None = ...,
            continued: bool = ...,
        ) -> Problem: ...

        def set_weights(self, v: Array, history: History) -> None: ...

        def get_params(self, deep: bool = ...) -> dict[str, Any]: ...

        def _validate_params(self) -> None: ...

        def checked_response(self) -> Any: ...

        def _default_response(self) -> Any: ...

        def _used_fields(self, response: Any, names: Any) -> Any: ...

        def _set_layout(self, response: Any, fields: Any, sizes: Any, lookup: Any) -> None: ...

        def _sigmas(self) -> dict[str, float]: ...

    def partial_fit(
        self, X: StructuresLike, y: LabelsLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Add labels to those of earlier calls, and fit the weights to all labels.

        The weights are equal to those of a single fit to all labels. The model stores the triangles
        of the labels instead of the data, see `store_triangles`.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`. All calls must use the same sparse set, and later calls must not contain
            new elements. For a pipeline, use `skqeq.partial_fit`.
        y : labels
            As in `fit`, but only targets that are linear in the charges: dipole, charges,
            quadrupole and potential.
        sample_weight : array-like of shape (n,), default=None
            As in `fit`.

        Returns
        -------
        self : estimator
            Fitted; unchanged if an error is raised.

        Raises
        ------
        ValueError
            If the model was fitted without `store_triangles`, or if parameters other than noise
            and amplitudes have changed.
        """
        earlier = getattr(self, "triangles_", None)
        if earlier is None and hasattr(self, "coef_"):
            raise ValueError(f"{self._no_triangles()}, or call partial_fit from the start")
        if earlier is not None:
            self._check_rows_unchanged()
        trial = copy(self)  # so that self is unchanged if an error is raised
        problem = trial.problem(X, y, sample_weight, continued=earlier is not None)
        problem.check_linear("partial_fit")
        triangles = reduce_labels(problem)
        if earlier is not None:
            triangles = merged(earlier, triangles)
        trial.solve_triangles(triangles, problem.sigmas, store=True)
        columns = [*getattr(self, "targets_", ()), *trial.targets_]
        trial.targets_ = list(dict.fromkeys(columns))
        self.__dict__.update(trial.__dict__)
        return self

    def refit(self) -> Self:
        """Fit the weights again to the same labels, after a change of the noise or the amplitudes.

        This needs the triangles that `store_triangles` stores, but not the data.

        Returns
        -------
        self : estimator
            With new weights.

        Raises
        ------
        ValueError
            If there are no triangles, or if other parameters have changed as well.
        """
        if not hasattr(self, "triangles_"):
            raise ValueError(self._no_triangles())
        self._validate_params()
        self._check_rows_unchanged()
        lookup = element_lookup(self.elements_)
        response = self.checked_response()
        fields = self._used_fields(response, self.layout_.names)
        self._set_layout(response, fields, self.layout_.feature_sizes, lookup)
        self.solve_triangles(self.triangles_, self._sigmas(), store=True)
        return self

    def solve_triangles(
        self, triangles: dict[str, Array], sigmas: dict[str, float], store: bool | None = None
    ) -> Self:
        """Fit the weights to labels that were reduced to triangles.

        Parameters
        ----------
        triangles : dict of {str: ndarray of shape (n_weights + 1, n_weights + 1)}
            The triangle of each target, see `triangles_`.
        sigmas : dict of {str: float}
            The noise of each target.
        store : bool, default=None
            Whether to store the triangles; None means `store_triangles`.

        Returns
        -------
        self : estimator
            Fitted.
        """
        triangle = combined(self.layout_, triangles, sigmas)
        v = triangle.solve()
        self.set_weights(v, [{"loss": float(triangle.loss(v)), "decrease": 0.0, "step": 1.0}])
        if self.store_triangles if store is None else store:
            self.triangles_, self.row_parameters_ = triangles, self._row_parameters()
            self.posterior_ = Posterior(self.layout_, triangles=triangles, sigmas=sigmas)
        return self

    def _no_triangles(self):
        why = "fit it with store_triangles=True"
        if hasattr(self, "posterior_"):
            why = "its labels are not linear in the charges"
        return f"this {type(self).__name__} does not store the triangles of its labels: {why}"

    def _row_parameters(self):
        """The parameters on which the rows depend, except for noise and amplitudes."""
        parameters = self.get_params(deep=False)
        if parameters.get("response", 0) is None:
            parameters["response"] = self._default_response()
        if "response" in parameters:
            response = parameters["response"]
            parameters["response"] = type(response).__name__
            for name, value in response.get_params().items():
                parameters[f"response__{name}"] = value
        return {
            name: repr(value)
            for name, value in parameters.items()
            if name not in NOT_OF_ROWS and "sigma_" not in name and "amplitude" not in name
        }

    def _check_rows_unchanged(self):
        now = self._row_parameters()
        changed = [name for name, value in self.row_parameters_.items() if now.get(name) != value]
        if changed:
            raise ValueError(
                f"the labels were reduced with other values of {', '.join(changed)}: fit again"
            )
