"""The evidence of a model that is linear in its weights, and what raises it.

In units of noise and prior, the labels are normal with covariance ``K = J J^T + 1`` around those of
the prior mean, from which they differ by r. With the triangle ``R^T R = J^T J + 1``, the weights v
and the residuals ``alpha = r - J v = K^-1 r``,

    log p(y) = -(|alpha|^2 + |v|^2) / 2 - sum_k log R_kk - sum_i log sigma_i - n log(2 pi) / 2,
    dL/dJ = alpha v^T - Z,    Z = J (R^T R)^-1 = K^-1 J,
    dL/dlog sigma_i = alpha_i^2 - (1 - Z_i . J_i)

(Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), eqs. 2.30 and 5.9). From
dL/dJ follow the derivatives by the amplitudes, and by whatever changes the response.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from tqdm import tqdm

from ..parameters import per_element
from ..targets import TARGETS
from ..targets._observables import ChargeTarget
from ._rows import weighted_label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from .._typing import History, LabelsLike, M, Model, StructuresLike


# Of the logarithm of a softness, and of other parameters.
LARGEST_SOFTENING, LARGEST_CHANGE = np.log(10.0), np.log(1e3)


class Evidence(NamedTuple):
    """Logarithm of the probability of labels, and its derivatives.

    Parameters
    ----------
    value : float
        Natural logarithm.
    gradient : dict
        By the name of a parameter, the derivative with respect to its logarithm; of the softness a
        dict by element.

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
    gradient: dict


def log_evidence(
    model: Model, X: StructuresLike, y: LabelsLike, sample_weight: ArrayLike | None = None
) -> Evidence:
    """Logarithm of the probability of labels, the weights integrated out, and its derivatives.

    It tells how well noise, amplitudes and response suit the labels without any held-out data, and
    unlike a cross-validated error it can be climbed: see `maximize_evidence`.

    Parameters
    ----------
    model : KQEqRegressor, GAPKQEqRegressor, QEqRegressor, or a pipeline of one
        Need not be fitted, and is left as it is.
    X : StructureFeatures or sequence of ase.Atoms
        As in `fit`.
    y : labels
        As in `fit`; those that are linear in the charges: dipole, charges, quadrupole, potential.
    sample_weight : array-like of shape (n,), default=None
        As in `fit`.

    Returns
    -------
    evidence : Evidence
        The logarithm, and its derivatives by the names of the parameters.

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
    model, X, _ = _featurised(model, X)
    return _log_evidence(model, X, y, sample_weight)


def maximize_evidence(
    model: Model,
    X: StructuresLike,
    y: LabelsLike,
    parameters: Sequence[str] | None = None,
    sample_weight: ArrayLike | None = None,
    max_iter: int = 20,
    verbose: int = 0,
) -> tuple[M, History]:
    """Choose parameters of a charge model by the evidence of linear labels.

    The logarithms of the parameters are changed by L-BFGS with exact derivatives; each step costs
    about two fits. Lengths, such as cutoffs and the range of `ChargeFlow`, change what is
    extrapolated, which no evidence sees: choose them by grouped cross-validation.

    Parameters
    ----------
    model : KQEqRegressor, GAPKQEqRegressor, QEqRegressor, or a pipeline of one
        Need not be fitted, and is left as it is.
    X : StructureFeatures or sequence of ase.Atoms
        As in `fit`.
    y : labels
        As in `log_evidence`.
    parameters : sequence of str, default=None
        Names of what `log_evidence` has a derivative for, with or without the name of the step of a
        pipeline before them. The softness of each element is one parameter, unless it is zero, and
        changes by a factor of ten at most. None means the noise of all labels, and the softness
        where charge flows.
    sample_weight : array-like of shape (n,), default=None
        As in `fit`.
    max_iter : int, default=20
        Largest number of steps.
    verbose : int, default=0
        Above 0 a progress bar shows the evidence.

    Returns
    -------
    model : estimator
        A clone with the best parameters that were found, not fitted. An interrupt of the keyboard
        ends the search early.
    history : list of dict
        Evidence and parameters of every step.

    Raises
    ------
    ValueError
        If the evidence has no derivative by a parameter, if one is zero, or if there are labels of
        energies or norms of dipoles.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import ChargeFlow, CURSparsifier, KQEqRegressor, SOAPFeaturizer
    >>> from skqeq.datasets import load_molecules
    >>> from skqeq.model_selection import maximize_evidence
    >>> X, y = load_molecules()
    >>> model = KQEqRegressor(response=ChargeFlow())
    >>> model = make_pipeline(SOAPFeaturizer(), CURSparsifier(n_points=8), model)
    >>> better, history = maximize_evidence(model, X[:30], y["dipole"][:30], max_iter=3)
    >>> history[-1]["evidence"] > history[0]["evidence"]
    True
    """
    regressor, X, prefix = _featurised(model, X)
    evidence = _log_evidence(regressor, X, y, sample_weight)
    names = [parameters] if isinstance(parameters, str) else parameters
    if names is None:
        names = [n for n in evidence.gradient if n.startswith("sigma") or n.endswith("softness")]
    names = [name.removeprefix(prefix) for name in names]
    missing = sorted(set(names) - set(evidence.gradient))
    if missing:
        raise ValueError(
            f"the evidence has no derivative by {', '.join(missing)}; it has by "
            f"{', '.join(evidence.gradient)}"
        )
    given = regressor.get_params()
    places, start = [], []
    for name in names:
        of_elements = evidence.gradient[name]
        if not isinstance(of_elements, dict):
            places.append((name, None))
            start.append(given[name])
            continue
        table = per_element(given[name], name)
        for symbol in of_elements:
            if table[atomic_numbers[symbol]] > 0:
                places.append((name, symbol))
                start.append(table[atomic_numbers[symbol]])
    start = np.array(start, dtype=np.float64)
    if not len(start) or not (start > 0).all():
        zero = ", ".join(names) if not len(start) else places[int((start <= 0).argmax())][0]
        raise ValueError(f"{zero} is zero, which has no logarithm")
    history, known = [], {start.tobytes(): evidence}

    def settings(values):
        found = {}
        for (name, symbol), value in zip(places, values.tolist(), strict=True):
            if symbol is None:
                found[name] = value
            else:
                # Elements that do not occur, or have none, keep what they have.
                table = per_element(given[name], name)
                others = {
                    chemical_symbols[z]: float(table[z])
                    for z in np.flatnonzero(~np.isnan(table))
                    if isinstance(given[name], dict)
                    or chemical_symbols[z] in evidence.gradient[name]
                }
                found.setdefault(name, others)[symbol] = value
        return found

    def loss(logarithms):
        values = start * np.exp(logarithms)
        if values.tobytes() not in known:
            trial = clone(regressor).set_params(**settings(values))
            known[values.tobytes()] = _log_evidence(trial, X, y, sample_weight)
        found = known[values.tobytes()]
        history.append({"evidence": found.value, **settings(values)})
        bar.update()
        bar.set_postfix(evidence=f"{found.value:.6g}")
        return -found.value, -np.array([_value(found.gradient, place) for place in places])

    def climb(active, x, steps):
        """Change some of the logarithms, the first step by at most one."""
        scale = 1.0 / max(1.0, np.linalg.norm(loss(x)[1][active]))

        def scaled(part):
            moved = x.copy()
            moved[active] = part
            value, gradient = loss(moved)
            return scale * value, scale * gradient[active]

        box = [(-b, b) for b in bounds[active]]
        options = {"maxiter": steps, "gtol": 1e-5 * scale}
        found = minimize(
            scaled, x[active], jac=True, method="L-BFGS-B", bounds=box, options=options
        )
        x = x.copy()
        x[active] = found.x
        return x

    softness = np.array([symbol is not None for _, symbol in places])
    bounds = np.where(softness, LARGEST_SOFTENING, LARGEST_CHANGE)
    x = np.zeros(len(start))
    with (
        tqdm(desc="evidence", disable=not verbose, leave=False) as bar,
        suppress(KeyboardInterrupt),
    ):
        if softness.any() and not softness.all():
            # With a noise that is far off, the softness is not what the labels say.
            x = climb(~softness, x, max_iter)
        x = climb(np.full(len(x), True), x, max_iter)
    best = max(history, key=lambda step: step["evidence"])
    ends = np.array([np.log(_value(best, place)) for place in places]) - np.log(start)
    for (name, symbol), end, bound in zip(places, ends, bounds, strict=True):
        if abs(end) > 0.99 * bound:
            of_element = f" of {symbol}" if symbol else ""
            warnings.warn(
                f"the best {name}{of_element} that was found is at the end of what was searched, "
                f"{np.exp(end):.3g} times its start: the labels do not tell it, or the start is "
                "far off",
                ConvergenceWarning,
                stacklevel=2,
            )
    best = {prefix + name: value for name, value in best.items() if name != "evidence"}
    return clone(model).set_params(**best), history


def _value(step, place):
    """What a step of the history, or a gradient, holds of a parameter, or of it for an element."""
    name, symbol = place
    return step[name] if symbol is None else step[name][symbol]


def _featurised(model, X):
    """The charge model of a pipeline, what X is to it, and what its parameters are called there."""
    if not hasattr(model, "steps"):
        return model, X, ""
    *steps, (name, regressor) = model.steps
    for _, step in steps:
        if step not in ("passthrough", None):
            X = clone(step).fit_transform(X)
    return regressor, X, f"{name}__"


def _log_evidence(model, X, y, sample_weight):
    model = clone(model)
    features, labels, weights = model._prepare(X, y, sample_weight)
    unusable = [
        name
        for name in labels.names
        if not (isinstance(TARGETS[name], ChargeTarget) and TARGETS[name].linear)
    ]
    if unusable or model._bias is not None:
        raise ValueError(
            "the evidence is that of labels that are linear in the charges: dipole, charges, "
            f"quadrupole and potential, without charge_bias; got {', '.join(labels.names)}"
        )
    triangle, _ = model._assemble(features, labels, weights)
    R, v = triangle.R, triangle.solve()
    total = -triangle.loss(v) - np.log(np.abs(np.diag(R))).sum()
    total -= 0.5 * triangle.n_rows * np.log(2 * np.pi)
    noise = model._noise(features.structures, labels, weights)
    flows = model.response_.learns_reference
    by_sigma = dict.fromkeys(labels.names, 0.0)
    by_column, by_range = np.zeros(len(v)), 0.0
    by_softness = np.zeros(len(model.elements_))
    for first, block in features.blocks(verbose=model.verbose, desc="evidence"):
        parts, pieces = block.split(model._sizes)[:2], []
        for s, structure in enumerate(block.structures):
            i = first + s
            values = model._values(labels, labels.names, i, structure)
            if weights[i] > 0 and values:
                sigmas = {name: noise[name][i] for name in values}
                pieces.append(
                    _Rows(model, i, structure, values, sigmas, [part.rows_of(s) for part in parts])
                )
        if not pieces:
            continue
        J = np.concatenate([piece.J for piece in pieces])
        Z = solve_triangular(R, J.T, trans="T", check_finite=False)
        Z = solve_triangular(R, Z, check_finite=False, overwrite_b=True).T
        ends = np.cumsum([len(piece.J) for piece in pieces])[:-1]
        for piece, z in zip(pieces, np.split(Z, ends), strict=True):
            alpha = piece.residual - piece.J @ v
            slope = np.multiply.outer(alpha, v) - z
            total += piece.log_weights
            by_column += np.einsum("ik,ik->k", slope, piece.J)
            change = alpha**2 - 1 + np.einsum("ik,ik->i", z, piece.J)
            for name, part in zip(piece.names, np.split(change, piece.ends), strict=True):
                by_sigma[name] += part.sum()
            if flows:
                by_scale, by_element = piece.softness_slopes(alpha, slope, len(by_softness))
                by_range += by_scale
                by_softness += by_element
    gradient = {f"sigma_{name}": float(value) for name, value in by_sigma.items()}
    sums = [float(part.sum()) for part in model._unpack(by_column)]
    fields = ["amplitude_chi", "amplitude_baseline"]
    fields += ["response__amplitude", "response__amplitude_baseline"] if flows else []
    parameters = model.get_params()
    gradient |= {name: x for name, x in zip(fields, sums) if name in parameters}
    if flows:
        symbols = [chemical_symbols[z] for z in model.elements_]
        gradient["response__softness"] = dict(zip(symbols, by_softness.tolist(), strict=True))
        gradient["response__range"] = by_range
    return Evidence(float(total), gradient)


class _Rows:
    """The rows of one structure, and what goes into them."""

    def __init__(self, model, i, structure, values, sigmas, features):
        self.names = list(values)
        n_rows = sum(TARGETS[name].size(structure) for name in values)
        self.equilibrium, _, self.slots = model._equilibrium(structure, i, 4 * n_rows)
        chi = model._chi_0[self.slots]
        q = self.equilibrium.charges(chi)
        self.potential = self.equilibrium.potential(chi, q)
        operators, residuals, all_weights = zip(
            *(
                weighted_label(self.equilibrium, TARGETS[name], value, sigmas[name], q)
                for name, value in values.items()
            ),
            strict=True,
        )
        self.log_weights = np.log(np.concatenate(all_weights)).sum()
        sizes = [len(residual) for residual in residuals]
        self.ends = np.cumsum(sizes)[:-1]
        self.operator, self.residual = np.concatenate(operators), np.concatenate(residuals)
        over = [rows for rows in self.equilibrium.rows(self.operator) if rows is not None]
        onehot, scale = model._onehot(structure.numbers), model._scale()
        scales = np.split(scale, np.cumsum(model._lengths())[:-1])
        self.fields = [
            np.concatenate([own * scales[2 * f], onehot * scales[2 * f + 1]], axis=1)
            for f, own in enumerate(features[: len(over)])
        ]
        parts = [rows @ field for rows, field in zip(over, self.fields, strict=True)]
        rest = np.zeros((len(self.residual), len(scale) - sum(p.shape[1] for p in parts)))
        self.J = np.concatenate([*parts, rest], axis=1)

    def softness_slopes(self, alpha, slope, n_elements):
        """Derivatives by the logarithms of the range, and of the softness of the elements."""
        split = self.fields[0].shape[1]
        chi, reference = slope[:, :split], slope[:, split : split + self.fields[1].shape[1]]
        H = self.equilibrium.softness_response(
            self.operator,
            chi @ self.fields[0].T,
            reference @ self.fields[1].T,
            np.multiply.outer(alpha, self.potential),
        )
        return self.equilibrium.flows.derivatives(H, self.slots, n_elements)
