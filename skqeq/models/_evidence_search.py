"""Choose the parameters of a charge model by maximising the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from tqdm import tqdm

from .._warnings import warn_once
from ..parameters import per_element
from ._evidence import evidence_of, split_pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from .._typing import History, LabelsLike, M, Model, StructuresLike

# Largest changes of the logarithm of a softness, and of the logarithm of any other parameter.
LARGEST_SOFTENING, LARGEST_CHANGE = np.log(10.0), np.log(1e3)


def maximize_evidence(
    model: Model,
    X: StructuresLike,
    y: LabelsLike,
    parameters: Sequence[str] | None = None,
    sample_weight: ArrayLike | None = None,
    max_iter: int = 20,
    verbose: int = 0,
) -> tuple[M, History]:
    """Choose the parameters of a charge model that maximise the evidence of linear labels.

    L-BFGS optimises the logarithms of the parameters with exact derivatives. Each step costs about
    two fits. Do not choose lengths in this way, such as cutoffs or the range of `ChargeFlow`: they
    determine how the model extrapolates, which the evidence does not measure. Choose lengths by
    grouped cross-validation.

    Parameters
    ----------
    model : KQEqRegressor, GAPKQEqRegressor, QEqRegressor, or a pipeline of one
        Fitted or not; it is not changed.
    X : StructureFeatures or sequence of ase.Atoms
        As in `fit`.
    y : labels
        As in `log_evidence`.
    parameters : sequence of str, default=None
        Names of parameters for which `log_evidence` has a derivative. In a pipeline, the prefix
        ``<step>__`` may be omitted. The softness of each element is one parameter and changes by at
        most a factor of ten; a softness of zero is not changed. None means the noise of all labels,
        and the softness if the response is `ChargeFlow`.
    sample_weight : array-like of shape (n,), default=None
        As in `fit`.
    max_iter : int, default=20
        Largest number of steps.
    verbose : int, default=0
        If above 0, a progress bar shows the evidence.

    Returns
    -------
    model : estimator
        A clone with the best parameters, not fitted.
    history : list of dict
        Evidence and parameters of every step.

    Raises
    ------
    ValueError
        If the evidence has no derivative for a parameter, if a parameter is zero, or if there are
        labels of energies or norms of dipoles.

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
    regressor, X, prefix = split_pipeline(model, X)
    with tqdm(desc="evidence", disable=not verbose, leave=False) as bar:
        ascent = _Ascent(regressor, X, y, sample_weight, bar)
        ascent.choose(_names(parameters, prefix, ascent.evidence))
        best = ascent.climb(max_iter)
    ascent.warn_at_bounds(best)
    best = {prefix + name: value for name, value in best.items() if name != "evidence"}
    return clone(model).set_params(**best), ascent.history


def _names(parameters, prefix, evidence):
    """Names of the parameters to change, without the prefix of a pipeline."""
    if parameters is None:
        return [n for n in evidence.gradient if n.startswith("sigma") or n.endswith("softness")]
    names = [parameters] if isinstance(parameters, str) else parameters
    names = [name.removeprefix(prefix) for name in names]
    missing = sorted(set(names) - set(evidence.gradient))
    if missing:
        raise ValueError(
            f"the evidence has no derivative for {', '.join(missing)}; it has one for "
            f"{', '.join(evidence.gradient)}"
        )
    return names


class _Ascent:
    """The evidence as a function of the logarithms of parameters, and its maximisation.

    Parameters
    ----------
    regressor : ChargeModel
        The model at the start.
    X, y, sample_weight
        As in `maximize_evidence`.
    bar : tqdm
        Progress bar.

    Attributes
    ----------
    history : list of dict
        Evidence and parameters of every step.
    """

    def __init__(self, regressor, X, y, sample_weight, bar):
        self.regressor, self.data, self.bar = regressor, (X, y, sample_weight), bar
        self.evidence = evidence_of(regressor, *self.data)
        self.history, self._given = [], regressor.get_params()

    def choose(self, names):
        """Set the parameters to change; the softness of each element is a separate parameter."""
        self.places, start = [], []
        for name in names:
            of_elements = self.evidence.gradient[name]
            if not isinstance(of_elements, dict):
                self.places.append((name, None))
                start.append(self._given[name])
                continue
            table = per_element(self._given[name], name)
            for symbol in of_elements:
                if table[atomic_numbers[symbol]] > 0:
                    self.places.append((name, symbol))
                    start.append(table[atomic_numbers[symbol]])
        self.start = np.array(start, dtype=np.float64)
        if not len(start) or not (self.start > 0).all():
            zero = names[0] if not len(start) else self.places[int((self.start <= 0).argmax())][0]
            raise ValueError(f"{zero} is zero; only positive parameters can be optimised")
        self._of_softness = np.array([symbol is not None for _, symbol in self.places])
        self.bounds = np.where(self._of_softness, LARGEST_SOFTENING, LARGEST_CHANGE)
        self._evaluated = {self.start.tobytes(): self.evidence}

    def climb(self, max_iter):
        """Maximise the evidence, and return the best step of the history."""
        x = np.zeros(len(self.start))
        if self._of_softness.any() and not self._of_softness.all():
            # Optimise the other parameters first: with a wrong noise, the labels do not determine
            # the softness.
            x = self._climb(~self._of_softness, x, max_iter)
        self._climb(np.full(len(x), True), x, max_iter)
        return max(self.history, key=lambda step: step["evidence"])

    def _climb(self, active, x, max_iter):
        """Optimise the `active` logarithms, starting from x."""
        # The first step of L-BFGS is the gradient; scaled, it has at most unit length.
        scale = 1.0 / max(1.0, np.linalg.norm(self._loss(x)[1][active]))

        def scaled(part):
            moved = x.copy()
            moved[active] = part
            value, gradient = self._loss(moved)
            return scale * value, scale * gradient[active]

        box = [(-bound, bound) for bound in self.bounds[active]]
        options = {"maxiter": max_iter, "gtol": 1e-5 * scale}
        result = minimize(
            scaled, x[active], jac=True, method="L-BFGS-B", bounds=box, options=options
        )
        x = x.copy()
        x[active] = result.x
        return x

    def _loss(self, logarithms):
        """Negative evidence and its gradient."""
        values = self.start * np.exp(logarithms)
        parameters = self._parameters(values)
        if values.tobytes() not in self._evaluated:
            trial = clone(self.regressor).set_params(**parameters)
            self._evaluated[values.tobytes()] = evidence_of(trial, *self.data)
        evidence = self._evaluated[values.tobytes()]
        self.history.append({"evidence": evidence.value, **parameters})
        self.bar.update()
        self.bar.set_postfix(evidence=f"{evidence.value:.6g}")
        gradient = np.array([_value(evidence.gradient, place) for place in self.places])
        return -evidence.value, -gradient

    def _parameters(self, values):
        """Turn values in the order of `places` into a dict of parameters of the model."""
        parameters = {}
        for (name, symbol), value in zip(self.places, values.tolist(), strict=True):
            if symbol is None:
                parameters[name] = value
            else:
                parameters.setdefault(name, self._unchanged(name))[symbol] = value
        return parameters

    def _unchanged(self, name):
        """Values of a parameter by element symbol, before any element is changed.

        Elements that are absent from the data, and elements whose value is zero, keep these values.
        """
        table, in_data = per_element(self._given[name], name), self.evidence.gradient[name]
        symbols = [chemical_symbols[z] for z in np.flatnonzero(~np.isnan(table))]
        return {
            symbol: float(table[atomic_numbers[symbol]])
            for symbol in symbols
            if isinstance(self._given[name], dict) or symbol in in_data
        }

    def warn_at_bounds(self, best):
        """Warn about parameters whose best value is at the end of the searched range."""
        ends = np.array([np.log(_value(best, place)) for place in self.places])
        for (name, symbol), end, bound in zip(
            self.places, ends - np.log(self.start), self.bounds, strict=True
        ):
            if abs(end) > 0.99 * bound:
                of_element = f" of {symbol}" if symbol else ""
                warn_once(
                    f"the best {name}{of_element} is at the end of the range that was searched, "
                    f"{np.exp(end):.3g} times its initial value: either the labels do not "
                    "determine it, or the initial value is far from the best one",
                    f"end of the range of {name}{of_element}",
                    ConvergenceWarning,
                )


def _value(step, place):
    """Look up a parameter, or its value for one chemical element, in values or a gradient."""
    name, symbol = place
    return step[name] if symbol is None else step[name][symbol]
