"""The distribution of the weights after a fit, and the uncertainty of predictions.

`KQEqRegressorCV` also multiplies standard deviations by a calibration from held-out errors.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import solve_triangular

from .._state import check_array, check_that, check_type, is_number
from .._threads import blas_threads_for
from ..fields import AtomRows, FieldLayout
from ..targets import GRADIENTS, TARGETS, ChargeTarget, DipoleMagnitude
from ._jacobian import TargetJacobian
from ._workers import combined

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._typing import Array
    from ..structures import Structure, StructureFeatures
    from ._forward import ForwardModel
    from ._structure_solution import Solution


class Posterior:
    """The posterior distribution of the weights, given the labels of a fit.

    The distribution is normal. Its mean is the weights of the fit, and in units of the prior its
    covariance is ``(R^T R)^-1``. The method `fit` stores it together with the noise and the
    amplitudes, so that it does not change if parameters are set after the fit.

    Parameters
    ----------
    layout : FieldLayout
        The weights and their priors.
    factor : ndarray of shape (n_weights, n_weights), default=None
        Upper triangle R.
    triangles : dict of {str: ndarray of shape (n_weights + 1, n_weights + 1)}, default=None
        The triangle of each target, see `KQEqRegressor`; an alternative to `factor`.
    sigmas : dict of {str: float}, default=None
        The noise of each target; needed with `triangles`.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor
    >>> model = QEqRegressor(store_triangles=True)
    >>> model = model.fit([molecule("H2O")], [[0.0, 0.0, -0.39]])
    >>> model.posterior_.factor.shape
    (4, 4)
    """

    def __init__(
        self,
        layout: FieldLayout,
        factor: Array | None = None,
        triangles: dict[str, Array] | None = None,
        sigmas: dict[str, float] | None = None,
    ) -> None:
        self.layout = layout
        self._factor, self._triangles, self._sigmas = factor, triangles or {}, sigmas or {}

    def check_loaded(self) -> None:
        """Check a posterior that was read from a file.

        Raises
        ------
        ValueError
            If the triangles do not fit the layout; the message names what does not fit.
        """
        check_type(self, "layout", FieldLayout).check_loaded()
        n = self.layout.n_columns
        if self._factor is not None:
            check_array(self, "_factor", (n, n))
        check_triangles(self, "_triangles", n)
        sigmas = check_type(self, "_sigmas", dict)
        correct = all(is_number(sigma) and sigma > 0 for sigma in sigmas.values())
        correct = correct and sigmas.keys() >= self._triangles.keys()
        check_that(correct, self, "_sigmas", "positive and known for every target of _triangles")

    @property
    def factor(self) -> Array:
        """Upper triangle R, shape (n_weights, n_weights)."""
        if self._factor is not None:
            return self._factor
        # Computed on demand, because it needs as much memory as the triangle of a target.
        return combined(self.layout, self._triangles, self._sigmas).R

    def variances(
        self,
        forward: ForwardModel,
        features: StructureFeatures,
        weights: Array,
        names: Sequence[str],
    ) -> Iterator[tuple[int, str, Structure, Array]]:
        """Variances of predictions.

        A variance has two parts. The first is due to the uncertainty of the weights. The second is
        due to the remainder of every field, which the features do not describe. Its variance is
        ``amplitude^2 (1 - |phi_i|^2)`` for the features of one kernel, and it is independent for
        every atom. Both parts are propagated through the response of the charges.

        Parameters
        ----------
        forward : ForwardModel
            Fields and response.
        features : StructureFeatures
            Features of all fields.
        weights : ndarray of shape (n_weights,)
            Weights of the fit.
        names : sequence of str
            Targets.

        Returns
        -------
        variances : iterator of (int, str, Structure, ndarray of shape (k,))
            Index of a structure, name of a target, the structure, and the variances in the squared
            unit of the target.
        """
        layout, R = self.layout, self.factor
        if len(forward.layout.elements) > len(layout.elements):
            # The labels say nothing about the constants of new elements. They have their prior.
            layout = layout.with_elements(forward.layout.elements, forward.layout.means)
            places = self.layout.places_in(layout)
            R = np.eye(layout.n_columns)
            R[np.ix_(places, places)] = self.factor
        gradients = [name for name in names if name in GRADIENTS]
        others = [name for name in names if name not in GRADIENTS]
        walks = []
        if others:
            walks.append(self._of_values(layout, forward, features, weights, others, R))
        if gradients:
            walks.append(self._of_gradients(layout, forward, features, weights, gradients, R))
        return chain(*walks)

    def _of_values(self, layout, forward, features, weights, names, R):
        """Variances of targets that need no derivatives with respect to the geometry."""
        n_rows = np.array([1 + 3 * len(names)] * len(features))
        for begin, block, solutions in forward.solutions(features, weights, n_rows=n_rows):
            remainders = self._remainders(features, block)
            for name in names:
                target = TARGETS[name]
                index = [s for s, x in enumerate(solutions) if target.defined(x.structure).any()]
                if not index:
                    continue
                rows, of_remainders = AtomRows(), []
                for s in index:
                    solution, first = solutions[s], block.offsets[s]
                    factors = _target_rows(target, solution)
                    n_labels = len(next(iter(factors.values())))
                    rows.add(factors, np.zeros(n_labels), first)
                    atoms = slice(first, first + len(solution.structure))
                    of_remainders.append(
                        sum(f**2 @ remainders[place][atoms] for place, f in factors.items())
                    )
                explained = [_variances_of(R, J) for J, _ in layout.design(block, rows)]
                ends = np.cumsum([len(part) for part in of_remainders])
                explained = np.split(np.concatenate(explained), ends[:-1])
                for s, more, variance in zip(index, of_remainders, explained, strict=True):
                    yield begin + s, name, solutions[s].structure, variance + more

    def _remainders(self, features, block):
        """Variances of the remainders of the fields, summed over the fields of each quantity."""
        remainders = dict.fromkeys(self.layout.enters, 0.0)
        for place, amplitude, source, part in zip(
            self.layout.enters,
            self.layout.amplitudes,
            features.source.sources,
            block.split(self.layout.sizes),
            strict=True,
        ):
            # Rounding can make the difference negative for environments in the sparse set.
            left = np.maximum(source.prior_variance - part.squared_norms(), 0.0)
            remainders[place] = remainders[place] + amplitude**2 * left
        return remainders

    def _of_gradients(self, layout, forward, features, weights, names, R):
        """Variances of forces, stress and Born charges."""
        defined = [
            [name for name in names if TARGETS[name].defined(structure).any()]
            for structure in features.structures
        ]
        index = np.flatnonzero([len(some) for some in defined])
        sizes = [
            sum(TARGETS[name].size(features.structures[i]) for name in defined[i]) for i in index
        ]
        if not len(index):
            return
        for s, _, [solution] in forward.solutions(
            features[index], weights, True, numbers=index, n_rows=np.array(sizes)
        ):
            i, structure = int(index[s]), solution.structure
            with blas_threads_for(structure):
                jacobian = TargetJacobian(layout, solution, defined[i])
                columns = jacobian.columns(range(len(layout.names)))
                J = np.concatenate(columns, axis=1) * layout.scale
                variances = _variances_of(R, J) + jacobian.residual_variances()
            ends = np.cumsum(jacobian.sizes)[:-1]
            for name, part in zip(defined[i], np.split(variances, ends), strict=True):
                yield i, name, structure, part


def check_triangles(owner: object, name: str, n_weights: int) -> None:
    """Check the triangles of targets, which were read from a file.

    Parameters
    ----------
    owner : object
        The object.
    name : str
        Name of its attribute, a dict.
    n_weights : int
        Number of weights of the model.

    Raises
    ------
    ValueError
        If there is an unknown target, or a triangle of another size.
    """
    triangles, shape = check_type(owner, name, dict), (n_weights + 1,) * 2
    correct = all(target in TARGETS for target in triangles) and all(
        isinstance(R, np.ndarray) and R.shape == shape and R.dtype == float and np.isfinite(R).all()
        for R in triangles.values()
    )
    check_that(correct, owner, name, f"arrays of finite numbers of shape {shape} by target")


def _target_rows(target: Any, solution: Solution) -> dict[str, Array]:
    """Derivatives of a target with respect to the values of the fields on the atoms."""
    if not isinstance(target, ChargeTarget):
        return {place: d[None] for place, d in solution.energy_derivatives.items()}
    operator, constant = solution.equilibrium.observable(target)
    if isinstance(target, DipoleMagnitude):
        operator = target.derivative(operator @ solution.charges + constant) @ operator
    return solution.equilibrium.rows(operator)


def _variances_of(R: Array, J: Array) -> Array:
    """Variances of ``J v`` for weights v with the covariance ``(R^T R)^-1``."""
    return np.square(solve_triangular(R, J.T, trans="T", check_finite=False)).sum(axis=0)
