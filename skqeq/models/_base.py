"""Base class of all charge models: from fields and labels to weights and predictions."""

from __future__ import annotations

import time
from numbers import Integral, Real
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted

from .._counts import counted
from .._sklearn import Interval, StrOptions
from .._state import check_array, check_elements, check_that, check_type, is_number
from ..fields import ElementTable, Field, FieldLayout
from ..parameters import per_element
from ..persistence import Persistent
from ..response import QEq, Response, check_response
from ..solvers import linearized
from ..structures import check_same_features
from ..targets import FORMS, GRADIENTS, TARGETS, Labels
from ._atomic_dipoles import DIPOLE
from ._checkpoint import Checkpoint, NoCheckpoint
from ._checks import (
    check_defined,
    check_featurised,
    check_predictable,
    check_start,
    check_targets,
    check_weights,
    learned_columns,
)
from ._compositions import composition_basis, warn_of_compositions
from ._field_features import block_names, element_lookup, stacked_features
from ._forward import ForwardModel
from ._incremental import Incremental
from ._intervals import Intervals
from ._minimise import Options, assembled, minimise
from ._posterior import Posterior, check_triangles
from ._predictions import Predictions
from ._problem import ENERGY_NOISE, Problem
from ._resident_workers import processes_for
from ._scores import Scores
from ._training_r2 import RowSample, squares_of_rows, squares_of_triangles, warn_of_bad_fit
from ._unknown import check_fittable, check_known, extended_means, known_elements
from ._workers import reduce_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike

    from .._typing import Array, Column, History, LabelsLike, StructuresLike
    from ._structure_solution import Solution


POSITIVE = Interval(Real, 0.0, None, closed="neither")
# Prior standard deviation of the energy of a free atom, eV. Its prior mean comes from a linear fit
# of the total energies to the numbers of atoms of each element.
AMPLITUDE_OFFSET = 10.0


class ChargeModel(
    Incremental, Intervals, Predictions, Scores, Persistent, RegressorMixin, BaseEstimator
):
    """A regressor for the charges and local energies of atoms, and for all that follows from them.

    Latent fields of the atoms are linear in weights with normal priors (`skqeq.fields.Field`). The
    fields of the response, such as the electronegativity, determine the charges. Local energies are
    added to the energy of the charges. The method `_field_features` of a subclass lists its fields.
    """

    _parameter_constraints = {
        **{f"sigma_{name}": [POSITIVE] for name in TARGETS},
        "energy_noise": [StrOptions(set(ENERGY_NOISE))],
        "atomic_energies": [StrOptions({"fit"}), dict],
        "charge_bias": [dict, None],
        "amplitude_baseline": [POSITIVE],
        "handle_unknown": [StrOptions({"error", "prior"})],
        "response": "no_validation",  # `check_response` validates it, and names missing methods
        "algorithm": [StrOptions({"gauss_newton", "fixed_point"})],
        "init": ["array-like", None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [POSITIVE],
        "n_jobs": [Integral, None],
        "checkpoint": [str, PathLike, None],
        "store_triangles": ["boolean"],
        "verbose": ["verbose"],
    }

    # ---- the steps that differ between models ------------------------------------------------

    def _fields(self, response: Response) -> list[Field]:
        """The latent fields of the model, without the energies of the free atoms."""
        raise TypeError(f"{type(self).__name__} does not define its fields")

    def _blocks(self, X: Any) -> tuple[Any, dict[str, Any]]:
        """Structures of X, and a dict from the name of each feature block to its source."""
        X = check_featurised(X, type(self).__name__)
        if not X.source.names:
            return X.structures, {"chi": X.source}
        return X.structures, dict(zip(X.source.names, X.source.sources, strict=True))

    def _default_response(self) -> Response:
        """The response if the user gives none."""
        return QEq()

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the model, and of its response by ``response__<parameter>``.

        Parameters
        ----------
        **params
            Parameters by name. If `response` is None, ``response__<parameter>`` is set on a copy of
            the default response.

        Returns
        -------
        self : estimator
            The same object.
        """
        of_response = any(name.startswith("response__") for name in params)
        # None has no parameters to set, so the default response takes its place.
        if of_response and params.get("response", getattr(self, "response", 0)) is None:
            params = {**params, "response": self._default_response()}
        return super().set_params(**params)

    # ---- fit --------------------------------------------------------------------------------

    def fit(self, X: StructuresLike, y: LabelsLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the weights to the labels.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            Features from a pipeline, or structures for models without features.
        y : structured array, array of shape (n, 3), list of dict or DataFrame
            Labels, see `skqeq.make_targets`; a plain array holds dipoles in e*Angstrom.
        sample_weight : array-like of shape (n,), default=None
            Multiplies ``1 / sigma^2`` of all labels of a structure.

        Returns
        -------
        self : estimator
            Fitted.

        Raises
        ------
        ValueError
            If the labels do not fit the structures, if all of them are missing, or if they do not
            determine the weights.
        KeyboardInterrupt
            If the user interrupts an iteration. `coef_` then holds the weights of the last step; a
            fit with ``init=coef_`` continues from them.
        """
        begin = time.perf_counter()
        problem = self.problem(X, y, sample_weight)
        parallel = effective_n_jobs(self.n_jobs) > 1
        if problem.is_linear and (parallel or self.store_triangles):
            triangles = reduce_labels(problem)
            self.solve_triangles(triangles, problem.sigmas)
            squares = squares_of_triangles(problem, triangles, self.coef_)
        else:
            sample = RowSample(problem)
            with (
                self._checkpoint(problem) as checkpoint,
                processes_for(self.n_jobs) as processes,
                assembled(problem, sample, processes) as (triangle, nonlinear),
            ):
                v = self._solve(problem, triangle, nonlinear, begin, checkpoint, processes)
                squares = squares_of_rows(problem, sample, nonlinear, v)
        warn_of_bad_fit(squares)
        return self

    def problem(
        self,
        X: StructuresLike,
        y: LabelsLike,
        sample_weight: ArrayLike | None = None,
        continued: bool = False,
    ) -> Problem:
        """Check the data, and set up the fields and the response for the elements in the data.

        Fits call this method, and so do searches, which need the rows of the problem. It removes
        the results of an earlier fit.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        y : labels
            As in `fit`.
        sample_weight : array-like of shape (n,), default=None
            As in `fit`.
        continued : bool, default=False
            Whether features and elements must be those of an earlier fit.

        Returns
        -------
        problem : Problem
            The labels, and all that is needed to turn them into rows.
        """
        self._validate_params()
        response = self.checked_response()
        features = (self._known_features if continued else self._features)(X, response)
        elements = np.unique(features.structures.numbers).astype(int)
        labels = Labels(y, features.structures)
        labels.warn()
        if not labels.names:
            raise ValueError(f"all labels are missing: y holds no value of {labels.columns}")
        fields = self._used_fields(response, block_names(X))
        names = [field.name for field in fields]
        check_targets(labels.names, response, type(self).__name__, names)
        weights = check_weights(sample_weight, len(features))
        labels.names = [n for n in labels.names if (labels.known(n) & (weights > 0)).any()]
        if not labels.names:
            raise ValueError("all labels belong to structures whose sample_weight is zero")
        check_defined(labels, features.structures)
        check_fittable(features, elements, labels, self.handle_unknown)
        # If the fit fails after this line, the weights of an earlier fit must not remain.
        for name in ("coef_", "triangles_", "row_parameters_", "posterior_"):
            self.__dict__.pop(name, None)
        if not continued:
            self.n_features_in_ = features.source.n_distinct
            self.elements_ = elements
            self.features_ = features.source.signature
        sigmas = self._sigmas()
        without_noise = [name for name in labels.names if name not in sigmas]
        if without_noise:
            raise ValueError(
                f"{type(self).__name__} has no parameter sigma_{without_noise[0]} for the noise of "
                f"labels of {without_noise[0]}"
            )
        fits_offsets = "energy" in labels.names and self.atomic_energies == "fit"
        lookup = element_lookup(self.elements_, features.structures)
        self._set_layout(response, fields, features.source.sizes, lookup, fits_offsets)
        bias = None
        if self.charge_bias is not None:
            table = per_element(self.charge_bias, "charge_bias", -np.inf)
            bias = lookup(table, "charge in `charge_bias`")
        self.targets_, self.y_form_ = learned_columns(labels), labels.form
        labelled = features.structures, self.elements_, labels, weights
        self.energy_compositions_ = composition_basis(*labelled) if fits_offsets else None
        return Problem(
            self._forward(),
            features,
            labels,
            weights,
            sigmas,
            self.energy_noise,
            bias,
            fits_offsets,
            self.n_jobs,
        )

    def _checkpoint(self, problem):
        """Where an iterative fit stores its progress."""
        folder = getattr(self, "checkpoint", None)  # models that are always linear lack it
        if folder is None or problem.is_linear:
            return NoCheckpoint()
        return Checkpoint(folder, problem, self.get_params())

    def _solve(self, problem, triangle, nonlinear, begin, checkpoint, processes):
        """Find and store the weights with the smallest penalised loss, and return them."""
        if nonlinear:
            options = Options(
                *(self.algorithm, self.init, self.max_iter, self.tol, bool(self.verbose)),
                *(begin, checkpoint, processes),
            )
            try:
                v = minimise(problem, triangle, nonlinear, options, self.set_weights)
            except Exception:  # an interrupt keeps the weights of the last step, an error does not
                self.__dict__.pop("coef_", None)
                raise
        else:
            v = triangle.solve()
            self.set_weights(v, [{"loss": float(triangle.loss(v)), "decrease": 0.0, "step": 1.0}])
        if self.store_triangles:
            if nonlinear:
                triangle = linearized(triangle, nonlinear, v)[0]
            self.posterior_ = Posterior(self.layout_, triangle.R.copy())
        return v

    def set_weights(self, v: Array, history: History) -> None:
        """Store the weights of a fit.

        Parameters
        ----------
        v : ndarray of shape (n_weights,)
            Weights in units of their prior standard deviation, including the weights of the
            energies of the free atoms.
        history : list of dict
            Loss, expected decrease and step length of every step, see `fit_history_`.
        """
        weights, n_elements = self.layout_.scale * v, len(self.elements_)
        self.coef_ = weights[:-n_elements]
        self.atomic_energies_ = self.layout_.means[-1] + weights[-n_elements:]
        self.fit_history_, self.n_iter_ = history, len(history)
        self.__dict__.pop("calibration_", None)  # it belongs to earlier weights

    # ---- fields, response, features ---------------------------------------------------------

    def checked_response(self) -> Response:
        """A copy of the response, after a check of its parameters.

        Returns
        -------
        response : Response
            If the parameter `response` is None, the default response.

        Raises
        ------
        ValueError
            If a parameter is invalid, or if the algorithm does not suit the response.
        """
        response = self._default_response() if self.response is None else self.response
        check_response(response)
        response = clone(response)
        response._validate_params()
        if self.algorithm == "fixed_point" and response.fields != ("chi",):
            raise ValueError(
                "algorithm='fixed_point' is for charge equilibration only; with "
                f"{type(response).__name__} use 'gauss_newton'"
            )
        return response

    def _used_fields(self, response, names):
        """The latent fields, without optional ones that are not among these names."""
        fields = self._fields(response)
        return [field for field in fields if not field.optional or field.name in names]

    def _set_layout(self, response, fields, sizes, lookup, fits_offsets=False):
        """Look up the element parameters of the response and the prior means of the fields."""
        self.response_ = response.prepare(self.elements_, lookup)
        atoms = Field("atoms", "energy", baseline=AMPLITUDE_OFFSET if fits_offsets else 0.0)
        if self.atomic_energies != "fit":
            given = per_element(self.atomic_energies, "atomic_energies", -np.inf)
            mean = ElementTable(given, "energy in `atomic_energies`")
            atoms = Field("atoms", "energy", baseline=0.0, mean=mean)
        self.layout_ = FieldLayout([*fields, atoms], sizes, self.elements_, lookup)

    def _features(self, X, response):
        """Features of all fields side by side, in the order of the layout."""
        structures, blocks = self._blocks(X)
        names, estimator = block_names(X), type(self).__name__
        fields = self._used_fields(response, names)
        return stacked_features(structures, blocks, fields, estimator, bool(names))

    def _same_features(self, X, response):
        """Features of X, which must have the meaning of those of `fit`."""
        features, name = self._features(X, response), type(self).__name__
        n_features = features.source.n_distinct
        if n_features != self.n_features_in_:
            raise ValueError(
                f"X has {counted(n_features, 'feature')}, but {name} was fitted with "
                f"{self.n_features_in_}"
            )
        check_same_features(features, self.features_, name)
        return features

    def _known_features(self, X, response):
        """Features of X, without elements that are not in the training data."""
        features = self._same_features(X, response)
        features.structures.check_elements(self.elements_, "fit again to include it")
        return features

    def _check_compositions(self, X):
        """Warn if energies of the structures contain unknown sums of atomic energies."""
        check_is_fitted(self)
        basis = getattr(self, "energy_compositions_", None)
        if basis is not None:
            features, _ = self._checked_features(X, ["energy"], self.handle_unknown)
            warn_of_compositions(features.structures, self.elements_, basis)

    def _checked_features(self, X, names, handle_unknown):
        """Features of X, and which structures hold unknown elements, see `check_known`."""
        features = self._same_features(X, self.response_)
        known = known_elements(features, self.elements_)
        return features, check_known(features.structures, known, names, handle_unknown)

    def _forward(self, structures=None):
        """The fields and the response, also for elements of `structures` that are new."""
        layout, response = self.layout_, self.response_
        if structures is not None:
            elements = np.union1d(self.elements_, structures.numbers).astype(int)
            if len(elements) > len(self.elements_):
                lookup = element_lookup(elements, structures)
                response = clone(response).prepare(elements, lookup)
                fields = self._used_fields(response, layout.names)
                means = extended_means(layout, fields, elements, lookup)
                layout = layout.with_elements(elements, means)
        return ForwardModel(layout, response, bool(self.verbose))

    def _weights(self, layout=None):
        """All weights in the order of a layout; the last ones belong to free atoms' energies."""
        weights = np.append(self.coef_, self.atomic_energies_ - self.layout_.means[-1])
        if layout is None or layout is self.layout_:
            return weights
        # Weights of new elements have their prior mean.
        extended = np.zeros(layout.n_columns)
        extended[self.layout_.places_in(layout)] = weights
        return extended

    def _sigmas(self):
        """A dict from every target of the model to its noise."""
        return {
            name.removeprefix("sigma_"): float(value)
            for name, value in self.get_params(deep=False).items()
            if name.startswith("sigma_")
        }

    # ---- predictions ------------------------------------------------------------------------

    def solutions(
        self, X: StructuresLike, names: Sequence[str] = ("energy",), start: Column | None = None
    ) -> Iterator[Solution]:
        """Yield the solution of every structure, one by one.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        names : sequence of str, default=("energy",)
            Targets that will be read from the solutions. If all of them are undefined for a
            structure, an error is raised before any computation. Solutions have derivatives only if
            forces, stress or Born charges are among the names.
        start : sequence of array-like of shape (n_atoms,), default=None
            Charges from which the iterative solver starts, e.

        Yields
        ------
        solution : Solution
            Charges, electronegativities, energy and, if asked for, derivatives.

        Raises
        ------
        ValueError
            If all targets are undefined for a periodic structure, or if a structure holds an
            unknown element, see `handle_unknown`.
        """
        check_is_fitted(self)
        features, _ = self._checked_features(X, names, self.handle_unknown)
        check_targets(names, self.response_, type(self).__name__, self.layout_.names)
        check_predictable(features.structures, names)
        yield from self._solutions(features, names, check_start(start, features.structures))

    def _solutions(self, features, names, start=None, numbers=None):
        """Solutions for checked features; messages call the structures by `numbers`."""
        gradients = any(name in GRADIENTS for name in names)
        # Born charges need the response to an electric field along each of the three axes.
        n_rows = np.full(len(features), 3 * ("born_effective_charges" in names))
        forward = self._forward(features.structures)
        features, weights = features.for_prediction(), self._weights(forward.layout)
        for _, _, solutions in forward.solutions(
            features, weights, gradients, start, numbers, n_rows
        ):
            yield from solutions

    # ---- files ------------------------------------------------------------------------------

    def check_features(self, X: StructuresLike) -> None:
        """Refuse features that differ from those of the fit.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`. Features are not computed; only their number and meaning are compared.

        Raises
        ------
        ValueError
            If their number or meaning differs.
        """
        sizes = list(self._same_features(X, self.response_).source.sizes)
        expected = f"a layout of {' + '.join(map(str, sizes))} features"
        check_that(self.layout_.feature_sizes == sizes, self, "layout_", expected)

    def _check_fitted(self):
        elements = check_elements(self, "elements_")
        layout, n = check_type(self, "layout_", FieldLayout), len(elements)
        layout.check_loaded()
        correct = np.array_equal(layout.elements, elements)
        check_that(correct, self, "layout_", "a layout for elements_")
        response = self.response_
        correct = isinstance(response, Response) and hasattr(response, "elements_")
        correct = correct and np.array_equal(response.elements_, elements)
        check_that(correct, self, "response_", "a response that is prepared for elements_")
        response.check_loaded()
        quantities = {*response.fields, "energy"}
        expected = f"a layout of fields that enter {' and '.join(sorted(quantities))}"
        check_that(set(layout.enters) - {DIPOLE} == quantities, self, "layout_", expected)
        check_that(layout.n_constants[-1] == n, self, "layout_", "a layout with free atoms")
        check_that(is_number(self.n_features_in_, "i"), self, "n_features_in_", "an integer")
        check_array(self, "coef_", (layout.n_columns - n,))
        check_array(self, "atomic_energies_", (n,))
        if getattr(self, "energy_compositions_", None) is not None:
            check_array(self, "energy_compositions_", (None, n))
        targets = check_type(self, "targets_", list)
        correct = len(targets) > 0 and all(name in [*TARGETS] for name in targets)
        check_that(correct, self, "targets_", "a list of targets")
        check_that(self.y_form_ in [*FORMS], self, "y_form_", f"one of {', '.join(FORMS)}")
        if hasattr(self, "triangles_"):
            check_triangles(self, "triangles_", layout.n_columns)
        if hasattr(self, "posterior_"):
            posterior = check_type(self, "posterior_", Posterior)
            posterior.check_loaded()
            same = posterior.layout.n_columns == layout.n_columns
            check_that(same, self, "posterior_", "a posterior of the weights of layout_")
        self._check_loaded_calibration()

    def __getstate__(self) -> dict[str, Any]:
        # Files of `skqeq.save` hold no path objects.
        state = super().__getstate__()
        if state.get("checkpoint") is not None:
            state = state | {"checkpoint": fspath(state["checkpoint"])}
        return state

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coef_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.target_tags.multi_output = True
        tags.target_tags.required = True
        tags.no_validation = True
        return tags
