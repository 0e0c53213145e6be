"""The size of errors as a function of the standard deviations that a model predicts.

The *spread* of a label is the size of its expected error,

    spread^2 = a v_weights + b v_remainders + c u^2,

with the variances due to the weights and due to the remainders of the fields (`Posterior`), and the
relative noise u of the label. The factors a, b and c maximise the likelihood of errors of
predictions for structures that were left out of the fit. The likelihood is that of Student's t
distribution, because a few large errors must not determine the factors.

An interval is a prediction plus or minus the spread times a quantile of ``|error| / spread`` of the
left-out errors: a normalised conformal predictor [1]_ with left-out errors of cross-validation
[2]_. There is a quantile for each class of labels [3]_: for each element, or for structures with
similar numbers of atoms.

.. [1] Papadopoulos, Gammerman and Vovk, IASTED AIA 2008, 64 (2008).
.. [2] Barber, Candès, Ramdas and Tibshirani, Ann. Stat. 49, 486 (2021).
.. [3] Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005), section 4.5.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from .._state import check_array, check_that, check_type, is_number
from ..targets import TARGETS
from ._problem import ENERGY_NOISE

if TYPE_CHECKING:
    from .._typing import Array
    from ..structures import Structure

# Targets with the same number of labels for every atom.
OF_ATOMS = ("charges", "forces", "born_effective_charges")
# Degrees of freedom of Student's t distribution in the likelihood.
DEGREES = 4.0
# Fraction of a normal distribution within one standard deviation.
ONE_SIGMA = 0.6827
# Smallest spread, in units of the median error: labels that are zero by symmetry have no error.
SMALLEST = 1e-3
# Smallest ratio b / a. Sparse points are training environments, so that the remainders of left-out
# structures are too small to determine b; but those of unknown environments must count.
SMALLEST_RATIO = 0.01
# Number of groups of each class of sizes, and the largest number of these classes.
GROUPS_PER_CLASS, MAX_CLASSES = 80, 4
# Largest number of scores in a model file; the others are left out evenly.
MAX_SCORES = 4000


class Calibration:
    """The calibration of one target, see the module.

    Parameters
    ----------
    name : str
        The target.
    energy_noise : {"per_atom", "per_structure", "sqrt_n"}
        How the noise of an energy grows with the number of atoms.

    Attributes
    ----------
    factors : ndarray of shape (3,)
        The factors a, b and c.
    edges : ndarray of shape (n_classes,)
        Atomic number of every class, or the smallest number of atoms of every class, ascending.
    scores : list of ndarray
        For every class, and then for all labels together, ``|error| / spread`` in ascending order.
    n_groups : list of int
        Number of left-out groups of structures of every class, and of all of them.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer, calibrate
    >>> from skqeq.datasets import load_molecules
    >>> X, y = load_molecules()
    >>> X, D = X[:60], y["dipole"][:60]
    >>> model = KQEqRegressor(sigma_dipole=0.01, store_triangles=True)
    >>> model = make_pipeline(SOAPFeaturizer(n_max=3, l_max=2), CURSparsifier(n_points=8), model)
    >>> calibration = calibrate(model.fit(X, D), X, D)[-1].calibration_["dipole"]
    >>> calibration.factors.shape, calibration.n_groups
    ((3,), [60, 60])
    """

    def __init__(self, name: str, energy_noise: str) -> None:
        self.name, self.energy_noise = name, energy_noise

    @property
    def by_element(self) -> bool:
        """Whether there is a class for every element, or for every range of sizes."""
        return self.name in OF_ATOMS

    def kinds(self, structure: Structure) -> Array:
        """The element or the size by which every label of a structure is assigned to a class.

        Parameters
        ----------
        structure : Structure
            The structure.

        Returns
        -------
        kinds : ndarray of shape (k,)
            Atomic numbers, or the number of atoms.
        """
        k, n = TARGETS[self.name].size(structure), len(structure)
        return np.repeat(structure.numbers, k // n) if self.by_element else np.full(k, n)

    def parts(
        self, variances: Array, structure: Structure, relative_noise: float | None = None
    ) -> Array:
        """The variances and the squared relative noise of the labels of a structure.

        Parameters
        ----------
        variances : ndarray of shape (2, k)
            Variances due to the weights and due to the remainders of the fields.
        structure : Structure
            The structure.
        relative_noise : float, default=None
            Noise of the label, divided by ``sigma_<target>``. None means that of a label without a
            noise of its own.

        Returns
        -------
        parts : ndarray of shape (3, k)
            The variances due to the weights and to the remainders, and the squared relative noise.
        """
        if relative_noise is None:
            of_energy = ENERGY_NOISE[self.energy_noise](float(len(structure)))
            relative_noise = of_energy if self.name == "energy" else 1.0
        noise = np.broadcast_to(relative_noise / TARGETS[self.name].weights, variances.shape[1:])
        return np.concatenate([variances, noise[None] ** 2])

    def fit(self, errors: Array, parts: Array, kinds: Array, groups: Array) -> Calibration:
        """Choose the factors and the scores.

        Parameters
        ----------
        errors : ndarray of shape (n,)
            Left-out errors of labels.
        parts : ndarray of shape (3, n)
            The results of `parts`.
        kinds : ndarray of shape (n,)
            The results of `kinds`.
        groups : ndarray of shape (n,)
            The group of structures that was left out for each label.

        Returns
        -------
        self : Calibration
            With the factors and the scores.
        """
        errors = np.abs(errors)
        self.factors = _robust_factors(errors, parts)
        scores = errors / self.spread(parts)
        self.factors *= np.quantile(scores, ONE_SIGMA) ** 2
        scores = errors / self.spread(parts)
        self.edges = (
            np.unique(kinds).astype(float) if self.by_element else _size_edges(kinds, groups)
        )
        classes = self._classes(kinds)
        everything = np.arange(len(scores))
        members = [*(np.flatnonzero(classes == k) for k in range(len(self.edges))), everything]
        self.scores = [_thinned(np.sort(scores[some])) for some in members]
        self.n_groups = [len(np.unique(groups[some])) for some in members]
        return self

    def spread(self, parts: Array) -> Array:
        """Size of the expected error.

        Parameters
        ----------
        parts : ndarray of shape (3, ...)
            As in `fit`.

        Returns
        -------
        spread : ndarray
            In the unit of the target.
        """
        return np.sqrt(np.tensordot(self.factors, parts, axes=1))

    def half_widths(self, parts: Array, kinds: Array, coverage: float) -> Array:
        """Half of the length of every interval.

        Parameters
        ----------
        parts : ndarray of shape (3, n)
            As in `fit`.
        kinds : ndarray of shape (n,)
            As in `fit`.
        coverage : float
            Fraction of the labels that shall be in their intervals.

        Returns
        -------
        half_widths : ndarray of shape (n,)
            In the unit of the target.

        Raises
        ------
        ValueError
            If there are too few left-out errors for this coverage.
        """
        classes = self._classes(kinds)
        quantiles = np.empty(len(kinds))
        for k in np.unique(classes):
            quantiles[classes == k] = self._quantile(k, coverage)
        return self.spread(parts) * quantiles

    def _classes(self, kinds):
        """The class of every label; -1 for elements without left-out errors."""
        if not self.by_element:
            return np.maximum(np.searchsorted(self.edges, kinds, side="right") - 1, 0)
        places = np.minimum(np.searchsorted(self.edges, kinds), len(self.edges) - 1)
        return np.where(self.edges[places] == kinds, places, -1)

    def _quantile(self, k, coverage):
        """The quantile of a class, or of all labels if the class is too small for this coverage."""
        # The new structure counts as one more group, with an unknown score.
        if k >= 0 and self.n_groups[k] * (1.0 - coverage) < coverage:
            k = -1
        scores, n = self.scores[k], self.n_groups[k]
        level = coverage * (n + 1) / n
        if level > 1.0:
            raise ValueError(
                f"an interval with coverage={coverage:g} needs the errors of at least "
                f"{ceil(coverage / (1.0 - coverage))} left-out groups, and there are {n}: ask for "
                "a smaller coverage, or calibrate with more structures"
            )
        return scores[ceil(level * len(scores)) - 1]

    def check_loaded(self) -> None:
        """Check a calibration that was read from a file.

        Raises
        ------
        ValueError
            If its parts do not fit together; the message names what does not fit.
        """
        check_that(self.name in [*TARGETS], self, "name", "a target")
        correct = self.energy_noise in [*ENERGY_NOISE]
        check_that(correct, self, "energy_noise", f"one of {', '.join(ENERGY_NOISE)}")
        check_array(self, "factors", (3,))
        check_that(bool((self.factors >= 0.0).all()), self, "factors", "not negative")
        edges = check_array(self, "edges", (None,))
        check_that(bool((np.diff(edges) > 0).all()), self, "edges", "in ascending order")
        for name in ("scores", "n_groups"):
            values, n = check_type(self, name, list), len(edges) + 1
            check_that(len(values) == n, self, name, f"a list of length {n}")
        correct = all(is_number(n, "i", least=1) for n in self.n_groups)
        check_that(correct, self, "n_groups", "a list of positive integers")
        correct = all(
            isinstance(s, np.ndarray) and s.ndim == 1 and len(s) and np.isfinite(s).all()
            for s in self.scores
        )
        check_that(correct, self, "scores", "a list of arrays of finite numbers")


def _robust_factors(errors, parts):
    """The factors that maximise the likelihood of the errors."""
    median = np.median(errors) or 1.0
    floor = SMALLEST * median
    some = (errors > floor) | (parts[:2].sum(axis=0) > 0.0)
    errors, parts = errors[some], parts[:, some]
    means = parts.mean(axis=1)
    units = np.divide(median**2, means, out=np.zeros(3), where=means > 0.0)

    def factors_of(logs):
        of_weights = units[0] * np.exp(logs[0])
        return np.array([of_weights, of_weights * np.exp(logs[1]), units[2] * np.exp(logs[2])])

    def loss(logs):
        terms = factors_of(logs)[:, None] * parts
        square = terms.sum(axis=0)
        ratio = errors**2 / (DEGREES * square)
        value = np.log(square) + (DEGREES + 1.0) * np.log1p(ratio)
        slope = (1.0 - (DEGREES + 1.0) * ratio / (1.0 + ratio)) / square
        by_term = terms @ slope / len(errors)
        return value.mean(), by_term + np.array([by_term[1], 0.0, 0.0])

    widest = 2.0 * np.log(SMALLEST)
    bounds = [(widest, -widest), (np.log(SMALLEST_RATIO), -widest), (widest, -widest)]
    best = minimize(loss, [-1.0, -1.0, -1.0], jac=True, method="L-BFGS-B", bounds=bounds)
    return factors_of(best.x)


def _size_edges(sizes, groups):
    """Smallest number of atoms of every class, so that every class has enough groups."""
    members = np.unique(groups, return_inverse=True)[1]
    size_of_group = np.bincount(members, sizes) / np.bincount(members)
    n_classes = int(np.clip(len(size_of_group) // GROUPS_PER_CLASS, 1, MAX_CLASSES))
    inner = np.quantile(size_of_group, np.arange(1, n_classes) / n_classes)
    return np.unique([0.0, *np.ceil(inner)])


def _thinned(scores):
    """At most `MAX_SCORES` of the scores, with the same quantiles; never smaller ones."""
    if len(scores) <= MAX_SCORES:
        return scores
    places = np.ceil(np.arange(1, MAX_SCORES + 1) * len(scores) / MAX_SCORES).astype(int) - 1
    return scores[places]
