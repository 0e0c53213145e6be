"""Calibrated standard deviations and prediction intervals of a fitted charge model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from .._state import check_that, check_type, is_number
from ..targets import TARGETS, check_names, make_targets, to_form
from ._calibration import Calibration
from ._checks import check_targets
from ._cv_blocks import fold_numbers
from ._jackknife import left_out_predictions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike

    from .._typing import Array, LabelsLike, StructuresLike
    from ._jackknife import LeftOutPrediction
    from ._posterior import Posterior
    from ._prediction_rows import Predicted
    from ._problem import Problem


class Intervals:
    """Methods of a charge model that use the errors of left-out structures."""

    targets_: list[str]
    y_form_: str
    handle_unknown: str
    posterior_: Posterior
    calibration_: dict[str, Calibration]

    if TYPE_CHECKING:  # defined by `ChargeModel`
        response_: Any
        layout_: Any

        def problem(
            self, X: StructuresLike, y: LabelsLike, sample_weight: ArrayLike | None = ...
        ) -> Problem: ...

        def _check_compositions(self, X: StructuresLike) -> None: ...

        def _checked_features(
            self, X: StructuresLike, names: Sequence[str], handle_unknown: str
        ) -> tuple[Any, Array]: ...

        def _forward(self, structures: Any = ...) -> Any: ...

        def _weights(self, layout: Any = ...) -> Array: ...

    def calibrate(
        self,
        X: StructuresLike,
        y: LabelsLike,
        sample_weight: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Calibrate standard deviations and intervals by the errors of left-out structures.

        Every structure, or group of structures, is predicted by the fit that leaves it out. These
        predictions are exact for labels that are linear in the weights, and need no further fit.
        Other labels are linearised. The features are those of the fit; if the sparse set was
        chosen from the same structures, the errors are slightly too small. The function
        `skqeq.calibrate` can also fit all steps of a pipeline again in every fold.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            The data of the last `fit`.
        y : labels
            The labels of the last `fit`.
        sample_weight : array-like of shape (n,), default=None
            The weights of the last `fit`.
        groups : array-like of shape (n,), default=None
            Structures of one group, such as conformers of one molecule, are left out together.

        Returns
        -------
        self : estimator
            With ``calibration_``, which `predict_std` and `predict_interval` use.

        Raises
        ------
        ValueError
            If the model was fitted without `store_triangles`, or to other data.

        Examples
        --------
        >>> from skqeq import QEqRegressor
        >>> from skqeq.datasets import load_molecules
        >>> X, y = load_molecules()
        >>> model = QEqRegressor(store_triangles=True).fit(X[:60], y["dipole"][:60])
        >>> model = model.calibrate(X[:60], y["dipole"][:60])
        >>> lower, upper = model.predict_interval(X[60:63], coverage=0.9)
        >>> bool((lower < model.predict(X[60:63])).all())
        True
        """
        self.check_posterior()
        # The clone keeps the results of the fit, which include the mean energies of the free atoms.
        problem = replace(clone(self).problem(X, y, sample_weight), forward=self._forward())
        folds = fold_numbers(None, problem.labels.table, groups)
        predictions = left_out_predictions(problem, self.posterior_, self._weights(), folds)
        return self.set_calibration(predictions, problem, folds)

    def predict_std(self, X: StructuresLike, names: Sequence[str]) -> Array:
        """Posterior standard deviations of predictions.

        The variance has two parts. The first is due to the posterior covariance of the weights. The
        second is due to the remainder of every field, which the sparse set does not describe. Its
        variance is ``amplitude^2 (1 - |phi_i|^2)`` for the features of one kernel, and it is
        independent for every atom [1]_. Both parts are propagated through the response of the
        charges. The noise of the labels is not included: labels scatter around predictions with the
        variance ``std^2 + sigma^2``.

        After `calibrate`, both parts are multiplied by factors that fit the errors of left-out
        structures.

        The noise and the amplitudes are those of the fit. Parameters that are set after the fit do
        not change the result.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        names : sequence of str
            Targets; the model need not have been trained on them.

        Returns
        -------
        std : ndarray of shape (n,)
            Structured array in the form and units of `skqeq.make_targets`; NaN or None if the
            target is undefined for a periodic structure.

        Raises
        ------
        ValueError
            If the model was fitted without `store_triangles`, or if a target is unknown.

        Notes
        -----
        Targets that are not linear in the weights are linearised at the weights of the fit. For
        forces, stress and Born charges, the second part includes the derivatives of the remainder
        with respect to the geometry. These require the derivatives of all features of every atom,
        and take ten to twenty times as long as the prediction.

        References
        ----------
        .. [1] Snelson and Ghahramani, NIPS 18, 1257 (2006).

        Examples
        --------
        >>> from ase.build import molecule
        >>> from skqeq import QEqRegressor
        >>> water = molecule("H2O")
        >>> model = QEqRegressor(store_triangles=True).fit([water], [[0.0, 0.0, -0.39]])
        >>> model.predict_std([water], ["dipole"])["dipole"].shape
        (1, 3)
        """
        columns: dict[str, list[Any]] = {name: [None] * len(X) for name in names}
        for prediction, variances in self.variances(X, names):
            i, name, solution, _ = prediction
            std = np.sqrt(np.tensordot(self._factors(name), variances, axes=1))
            columns[name][i] = TARGETS[name].as_label(solution.structure, std)
        return make_targets(**columns)

    def predict_interval(
        self, X: StructuresLike, coverage: float = 0.95, names: Sequence[str] | None = None
    ) -> tuple[Any, Any]:
        """Intervals that contain a given fraction of the labels of new structures.

        The half length of an interval is the size of the expected error, times a quantile of the
        errors of left-out structures, in which a few large errors count as they occur. Intervals
        hold for labels, with their noise. They hold on average over structures like those of the
        fit, for every component alone. For charges and forces they hold for every element, and for
        other targets for structures of similar size [1]_ [2]_.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        coverage : float, default=0.95
            Fraction of the labels that shall be in their intervals, between 0 and 1.
        names : sequence of str, default=None
            Targets with left-out errors. None means the targets that `fit` was given.

        Returns
        -------
        lower, upper : same form as in `fit`
            Ends of the intervals, in the form of ``predict(X)``; with `names`, structured arrays in
            the form of `predict_targets`. NaN or None if the target is undefined for a structure.

        Raises
        ------
        ValueError
            If the model has no left-out errors, see `calibrate`, or too few for this coverage.

        References
        ----------
        .. [1] Papadopoulos, Gammerman and Vovk, IASTED AIA 2008, 64 (2008).
        .. [2] Barber, Candès, Ramdas and Tibshirani, Ann. Stat. 49, 486 (2021).

        Examples
        --------
        >>> from skqeq import QEqRegressor
        >>> from skqeq.datasets import load_molecules
        >>> X, y = load_molecules()
        >>> model = QEqRegressor(store_triangles=True).fit(X[:60], y["dipole"][:60])
        >>> model = model.calibrate(X[:60], y["dipole"][:60])
        >>> lower, upper = model.predict_interval(X[60:], coverage=0.9)
        >>> inside = (lower < y["dipole"][60:]) & (y["dipole"][60:] < upper)
        >>> bool(0.8 < inside.mean() < 0.97)
        True
        """
        targets = self.targets_ if names is None else list(names)
        self.check_calibrated(targets, coverage)
        if "energy" in targets:
            self._check_compositions(X)
        ends: list[dict[str, list[Any]]] = [{n: [None] * len(X) for n in targets} for _ in "ab"]
        for prediction, variances in self.variances(X, targets):
            i, name, solution, _ = prediction
            structure, target, calibration = (
                solution.structure,
                TARGETS[name],
                self.calibration_[name],
            )
            parts, kinds = calibration.parts(variances, structure), calibration.kinds(structure)
            half = calibration.half_widths(parts, kinds, coverage)
            value = target.observe(solution)
            low = value - half
            if name == "dipole_magnitude":
                low = np.maximum(low, 0.0)
            for columns, end in zip(ends, (low, value + half), strict=True):
                columns[name][i] = target.as_label(structure, end)
        tables = [make_targets(**columns) for columns in ends]
        if names is not None:
            return tables[0], tables[1]
        return to_form(tables[0], self.y_form_), to_form(tables[1], self.y_form_)

    def check_calibrated(self, names: Sequence[str], coverage: float) -> None:
        """Check that the model can predict intervals.

        Parameters
        ----------
        names : sequence of str
            Targets.
        coverage : float
            Fraction of the labels that shall be in their intervals.

        Raises
        ------
        ValueError
            If the model has no left-out errors of a target, or if the coverage is not between 0
            and 1.
        """
        check_is_fitted(self)
        check_names(names)
        if isinstance(coverage, bool) or not (is_number(coverage) and 0.0 < coverage < 1.0):
            raise ValueError(f"coverage must be a number between 0 and 1, got {coverage!r}")
        calibration = getattr(self, "calibration_", None)
        if calibration is None:
            raise ValueError(
                f"intervals need the errors of left-out structures, which this "
                f"{type(self).__name__} does not have: fit it with store_triangles=True, and call "
                "skqeq.calibrate(model, X, y) with the data of the fit; or use skqeq fit --std"
            )
        missing = [name for name in names if name not in calibration]
        if missing:
            raise ValueError(
                f"there are no left-out errors of {missing[0]}; the labels of the calibration were "
                f"{', '.join(calibration)}"
            )

    def _factors(self, name):
        """Factors of both parts of the variances of a target."""
        calibration = getattr(self, "calibration_", {})
        if name in calibration:
            return calibration[name].factors[:2]
        if not calibration:
            return np.ones(2)
        return np.mean([c.factors[:2] for c in calibration.values()], axis=0)

    def set_calibration(
        self, predictions: Iterable[LeftOutPrediction], problem: Problem, folds: Array
    ) -> Self:
        """Calibrate standard deviations and intervals by given left-out predictions.

        Parameters
        ----------
        predictions : iterable of LeftOutPrediction
            Left-out predictions.
        problem : Problem
            The labels.
        folds : ndarray of shape (n_structures,)
            Number of the group of every structure.

        Returns
        -------
        self : estimator
            With ``calibration_``.
        """
        columns: dict[str, list[tuple[Array, ...]]] = {}
        new: dict[str, Calibration] = {}
        relative = {n: s / problem.sigmas[n] for n, s in problem.noise().items()}
        for number, name, errors, variances in predictions:
            calibration = new.setdefault(name, Calibration(name, problem.energy_noise))
            structure, known = problem.features.structures[number], ~np.isnan(errors)
            parts = calibration.parts(variances, structure, relative[name][number])
            row = errors, *parts, calibration.kinds(structure)
            row = (*(x[known] for x in row), np.full(known.sum(), folds[number]))
            columns.setdefault(name, []).append(row)
        self.calibration_ = {}
        for name, rows in columns.items():
            errors, *parts, kinds, groups = map(np.concatenate, zip(*rows, strict=True))
            self.calibration_[name] = new[name].fit(errors, np.array(parts), kinds, groups)
        return self

    def check_posterior(self) -> None:
        """Refuse a model that was fitted without `store_triangles`.

        Raises
        ------
        ValueError
            The message says how to fit it.
        """
        check_is_fitted(self)
        if not hasattr(self, "posterior_"):
            raise ValueError(
                f"the uncertainty of {type(self).__name__} needs the triangles of its fit: fit it "
                "with store_triangles=True, or with skqeq fit --std"
            )

    def variances(
        self, X: StructuresLike, names: Sequence[str]
    ) -> Iterator[tuple[Predicted, Array]]:
        """Yield predictions, and both parts of their variances.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        names : sequence of str
            Targets.

        Yields
        ------
        prediction : Predicted
            The structure and the target.
        variances : ndarray of shape (2, k)
            Not calibrated, see `Posterior.variances`.
        """
        self.check_posterior()
        check_names(names)
        check_targets(names, self.response_, type(self).__name__, self.layout_.names)
        features, _ = self._checked_features(X, names, self.handle_unknown)
        features = features.for_prediction()
        forward = self._forward(features.structures)
        weights = self._weights(forward.layout)
        yield from self.posterior_.variances(forward, features, weights, names)

    def _check_loaded_calibration(self):
        """Check the calibration of a model that was read from a file."""
        if not hasattr(self, "calibration_"):
            return
        for name, calibration in check_type(self, "calibration_", dict).items():
            correct = isinstance(calibration, Calibration) and calibration.name == name
            check_that(correct, self, "calibration_", "a dict from targets to their calibrations")
            calibration.check_loaded()
