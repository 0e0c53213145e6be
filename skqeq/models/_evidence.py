"""The evidence of labels that are linear in the weights, and its gradient.

Labels are in units of the noise, weights in units of the prior, and r is the difference between the
labels and the prediction of the prior mean. Then r has a normal distribution with mean zero and
covariance ``K = J J^T + 1``. With the triangle ``R^T R = J^T J + 1``, the weights v and the
residuals ``alpha = r - J v = K^-1 r``,

    log p(y) = -(|alpha|^2 + |v|^2) / 2 - sum_k log R_kk - sum_i log sigma_i - n log(2 pi) / 2,
    dL/dJ = alpha v^T - Z,    Z = J (R^T R)^-1 = K^-1 J,
    dL/dlog sigma_i = alpha_i^2 - (1 - Z_i . J_i)

(Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), eqs. 2.30 and 5.9). The
derivatives with respect to amplitudes and to parameters of the response follow from dL/dJ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols
from scipy.linalg import solve_triangular
from sklearn.base import clone

from ..solvers import Triangle
from ._atomic_dipoles import DIPOLE, take_dipoles
from ._problem import weighted_label

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .._typing import LabelsLike, Model, StructuresLike


class Evidence(NamedTuple):
    """Log marginal likelihood of the labels (the evidence), and its derivatives.

    Parameters
    ----------
    value : float
        Natural logarithm of the probability of the labels.
    gradient : dict
        For every parameter, the derivative with respect to the logarithm of the parameter; for the
        softness, a dict from element to derivative.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor
    >>> from skqeq.model_selection import log_evidence
    >>> X, y = [molecule("H2O"), molecule("NH3")], [[0.0, 0.0, -0.39], [0.0, 0.0, -0.31]]
    >>> value, gradient = log_evidence(QEqRegressor(), X, y)
    >>> sorted(gradient)
    ['amplitude_baseline', 'sigma_dipole']
    """

    value: float
    gradient: dict[str, Any]


def log_evidence(
    model: Model, X: StructuresLike, y: LabelsLike, sample_weight: ArrayLike | None = None
) -> Evidence:
    """Log marginal likelihood of the labels (the evidence), and its derivatives.

    The weights are integrated out. The evidence measures, without held-out data, how well noise,
    amplitudes and response suit the labels. Unlike a cross-validated error, it has exact
    derivatives; `maximize_evidence` uses them.

    Parameters
    ----------
    model : KQEqRegressor, GAPKQEqRegressor, QEqRegressor, or a pipeline of one
        Fitted or not; it is not changed.
    X : StructureFeatures or sequence of ase.Atoms
        As in `fit`.
    y : labels
        As in `fit`, but only targets that are linear in the charges: dipole, charges, quadrupole
        and potential.
    sample_weight : array-like of shape (n,), default=None
        As in `fit`.

    Returns
    -------
    evidence : Evidence
        The logarithm, and a dict from parameter to derivative.

    Raises
    ------
    ValueError
        If there are labels of energies or norms of dipoles.

    References
    ----------
    Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), chapter 5.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import ChargeFlow, CURSparsifier, KQEqRegressor, SOAPFeaturizer
    >>> from skqeq.datasets import load_molecules
    >>> from skqeq.model_selection import log_evidence
    >>> X, y = load_molecules()
    >>> model = KQEqRegressor(response=ChargeFlow())
    >>> model = make_pipeline(SOAPFeaturizer(), CURSparsifier(n_points=8), model)
    >>> sorted(log_evidence(model, X[:30], y["dipole"][:30]).gradient["response__softness"])
    ['C', 'F', 'H', 'N', 'O']
    """
    model, X, _ = split_pipeline(model, X)
    return evidence_of(model, X, y, sample_weight)


def split_pipeline(model: Any, X: Any) -> tuple[Any, Any, str]:
    """The charge model of a pipeline, its input, and the prefix of its parameters.

    Parameters
    ----------
    model : estimator
        A charge model, or a pipeline that ends in one.
    X : sequence
        Input of `model`.

    Returns
    -------
    model : estimator
        The charge model.
    X : object
        Input of the charge model, computed by clones of the other steps.
    prefix : str
        The pipeline puts this before the names of the model's parameters, such as ``"kqeq__"``.
    """
    if not hasattr(model, "steps"):
        return model, X, ""
    *steps, (name, regressor) = model.steps
    for _, step in steps:
        if step not in ("passthrough", None):
            X = clone(step).fit_transform(X)
    return regressor, X, f"{name}__"


def evidence_of(model: Any, X: Any, y: Any, sample_weight: Any) -> Evidence:
    """The evidence of a charge model, see `log_evidence`."""
    problem = clone(model).problem(X, y, sample_weight)
    problem.check_linear("the evidence")
    triangle = Triangle(problem.layout.n_columns, penalty=1.0)
    problem.reduce_charge_rows(triangle)
    gradient = _Gradient(problem, triangle.R, triangle.solve())
    total = -triangle.loss(gradient.v) - np.log(np.abs(np.diag(triangle.R))).sum()
    total -= 0.5 * triangle.n_rows * np.log(2 * np.pi)
    blocks = problem.features.blocks(verbose=problem.forward.verbose, desc="evidence")
    for begin, block in blocks:
        total += gradient.add(begin, block)
    return Evidence(float(total), gradient.by_parameter(model.get_params()))


class _Gradient:
    """Derivatives of the evidence, summed over structures.

    Parameters
    ----------
    problem : Problem
        The labels.
    R : ndarray of shape (n_weights, n_weights)
        Triangle of all rows and the prior.
    v : ndarray of shape (n_weights,)
        Weights at the minimum of the loss.
    """

    def __init__(self, problem, R, v):
        self.problem, self.R, self.v = problem, R, v
        self.noise = problem.noise()
        self._of_noise = dict.fromkeys(problem.labels.names, 0.0)
        self._of_columns = np.zeros(len(v))
        self._of_response = {}

    def add(self, begin, block):
        """Add the structures of a block, and return the sum of ``-log sigma`` of their labels."""
        parts = block.split(self.problem.layout.component_sizes)
        by_structure = {}
        for label in self.problem.charge_labels(block, begin):
            by_structure.setdefault(label.number, []).append(label)
        if not by_structure:
            return 0.0
        rows = [
            _StructureRows(self.problem, labels, self.noise, [part.rows_of(s) for part in parts])
            for number, labels in by_structure.items()
            for s in [number - self.problem.first - begin]
        ]
        J = np.concatenate([of_structure.J for of_structure in rows])
        # Z = J (R^T R)^-1, by two triangular solves for all structures of the block.
        Z = solve_triangular(self.R, J.T, trans="T", check_finite=False)
        Z = solve_triangular(self.R, Z, check_finite=False, overwrite_b=True).T
        ends = np.cumsum([len(of_structure.J) for of_structure in rows])[:-1]
        for of_structure, z in zip(rows, np.split(Z, ends), strict=True):
            self._add_structure(of_structure, z)
        return sum(of_structure.log_inverse_noise for of_structure in rows)

    def _add_structure(self, rows, z):
        alpha = rows.residual - rows.J @ self.v
        of_J = np.multiply.outer(alpha, self.v) - z
        self._of_columns += np.einsum("ik,ik->k", of_J, rows.J)
        of_noise = alpha**2 - 1 + np.einsum("ik,ik->i", z, rows.J)
        for name, part in zip(rows.names, np.split(of_noise, rows.ends), strict=True):
            self._of_noise[name] += part.sum()
        of_response = self.problem.forward.response.parameter_gradient(
            rows.equilibrium,
            rows.operator,
            rows.gradient_by_field(of_J),
            np.multiply.outer(alpha, rows.potential),
        )
        for name, part in of_response.items():
            self._of_response[name] = self._of_response.get(name, 0.0) + part

    def by_parameter(self, parameters):
        """A dict from the names of the model's parameters to derivatives."""
        layout = self.problem.layout
        gradient = {f"sigma_{name}": float(value) for name, value in self._of_noise.items()}
        response = self.problem.forward.response
        for place, columns in zip(layout.enters, layout.columns, strict=True):
            if place == "energy":
                continue
            names = ("amplitude_chi", "amplitude_baseline")
            if place == DIPOLE:
                names = ("amplitude_dipole",)
            elif place != "chi":
                names = [f"response__{name}" for name in response.prior_parameters.get(place, ())]
            for name, part in zip(names, columns):
                if name in parameters:
                    gradient[name] = float(self._of_columns[part].sum())
        symbols = [chemical_symbols[z] for z in layout.elements]
        for name, value in self._of_response.items():
            by_element = np.ndim(value) > 0
            gradient[f"response__{name}"] = (
                dict(zip(symbols, value.tolist(), strict=True)) if by_element else float(value)
            )
        return gradient


class _StructureRows:
    """The rows of one structure, and the quantities that their derivatives need.

    Attributes
    ----------
    J : ndarray of shape (n, n_weights)
        Derivatives with respect to the weights in units of their prior.
    residual : ndarray of shape (n,)
        Labels minus the prediction of the prior mean, in units of the noise.
    operator : ndarray of shape (n, n_atoms)
        Derivatives with respect to the charges, in units of the noise.
    ends : ndarray
        Indices at which the rows of each target end, without the last target.
    """

    def __init__(self, problem, labels, noise, features):
        self.names = [label.name for label in labels]
        self.equilibrium, layout = labels[0].equilibrium, problem.layout
        numbers, number = self.equilibrium.structure.numbers, labels[0].number
        fields = layout.prior_values(numbers)
        fields.pop("energy", None)
        take_dipoles(fields)  # their prior mean is zero
        self.potential = self.equilibrium.potential(labels[0].prior_charges, **fields)
        sigmas = [noise[name][number - problem.first] for name in self.names]
        parts = [weighted_label(*x) for x in zip(labels, sigmas, strict=True)]
        residuals = [part.residual for part in parts]
        self.log_inverse_noise = np.log(np.concatenate([p.inverse_noise for p in parts])).sum()
        self.ends = np.cumsum([len(residual) for residual in residuals])[:-1]
        self.operator = np.concatenate([part.operator for part in parts])
        self.residual = np.concatenate(residuals)
        by_label, onehot = [part.rows(layout) for part in parts], layout.onehot(numbers)
        rows = {place: np.concatenate([r[place] for r in by_label]) for place in by_label[0]}
        # Derivatives of the fields on the atoms with respect to the scaled weights.
        self._values, self.J = [], np.zeros((len(self.residual), layout.n_columns))
        for (f, place), of_features in zip(layout.components, features, strict=True):
            columns = slice(layout.columns[f][0].start, layout.columns[f][1].stop)
            constants = onehot if layout.n_constants[f] else np.zeros((len(onehot), 0))
            values = np.concatenate([of_features, constants], axis=1) * layout.scale[columns]
            self._values.append((place, columns, values))
            if place in rows:
                self.J[:, columns] += rows[place] @ values

    def gradient_by_field(self, of_J):
        """Turn dL/dJ into derivatives with respect to the rows of each field, (n, n_atoms)."""
        gradient = {}
        for place, columns, values in self._values:
            if place in self.equilibrium.fields:
                gradient[place] = gradient.get(place, 0.0) + of_J[:, columns] @ values.T
        return gradient
