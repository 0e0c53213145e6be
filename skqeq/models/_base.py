"""The recipe that all charge models share: assemble rows, reduce, solve, predict."""

from __future__ import annotations

import warnings
from copy import copy
from itertools import chain
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from ase.data import chemical_symbols
from joblib import effective_n_jobs
from scipy.linalg import solve_triangular
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from .._sklearn import Interval, StrOptions
from .._threads import blas_threads_for
from ..electrostatics._hardness import SOLVERS, hardness_for
from ..electrostatics._splitting import ACCURACIES
from ..metrics import target_r2
from ..parameters import per_element, qeq_electronegativities, radii_table
from ..persistence import Persistent
from ..response import QEq
from ..solvers import NonlinearRows, Triangle, fixed_point, gauss_newton
from ..solvers._gauss_newton import add_linearized, linearized
from ..structures import NoFeatures, StackedSource, StructureFeatures, check_same_features
from ..targets import TARGETS, Labels, make_targets
from ..targets._labels import to_form
from ..targets._observables import ENERGIES, GRADIENTS, ChargeTarget, doubtful
from ._energies import AMPLITUDE_OFFSET, ENERGY_NOISE, EnergyRows, SharedEnergyRows
from ._reduction import Parts, combined, merge_assembled, merged, reduce_labels
from ._rows import LabelRows, RowList, weighted_label
from ._solution import Solution

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike

    from .._typing import Array, Column, LabelsLike, StructuresLike, Values


POSITIVE = Interval(Real, 0.0, None, closed="neither")


class ChargeModel(Persistent, RegressorMixin, BaseEstimator):
    """Electronegativities linear in weights, charges and energies from them by equilibration.

    Local fields are linear in weights with normal priors, the electronegativity and the energy of
    an atom, and its reference charge where the response of the charges knows one::

        chi_i = chi_0(Z_i) + b(Z_i) + phi_i . w,    e_i = e(Z_i) + psi_i . u,
        r_i = c(Z_i) + rho_i . v.

    Charges follow from chi and r; the energy is theirs plus that of the atoms. Subclasses say in
    `_features` what ``phi``, ``rho`` and ``psi`` are, and in `_amplitudes` how large w, b and u may
    become; the response says it of v and c.
    """

    _parameter_constraints = {
        **{f"sigma_{name}": [POSITIVE] for name in TARGETS},
        "hardness": [Interval(Real, 0.0, None, closed="left"), dict],
        "radius_scale": [POSITIVE],
        "radii": [StrOptions({"qeq", "covalent"}), dict],
        "accuracy": [Interval(Real, *ACCURACIES, closed="both")],
        "solver": [StrOptions(set(SOLVERS))],
        "energy_noise": [StrOptions(set(ENERGY_NOISE))],
        "atomic_energies": [StrOptions({"fit"}), dict],
        "charge_bias": [dict, None],
        "algorithm": [StrOptions({"gauss_newton", "fixed_point"})],
        "init": ["array-like", None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [POSITIVE],
        "n_jobs": [Integral, None],
        "store_triangles": ["boolean"],
        "verbose": ["verbose"],
    }

    def fit(self, X: StructuresLike, y: LabelsLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the weights to labels.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            What `predict` is given the like of.
        y : structured array, array of shape (n, 3), list of dict or DataFrame
            Labels, see `skqeq.make_targets`; a plain array holds dipoles in e*Angstrom.
        sample_weight : array-like of shape (n,), default=None
            Scales ``1 / sigma^2`` of all labels of a structure.

        Returns
        -------
        self : estimator
            Fitted.

        Raises
        ------
        ValueError
            If labels do not fit the structures, are all missing, or do not determine the weights.
        """
        features, labels, weights = self._prepare(X, y, sample_weight)
        several = effective_n_jobs(self.n_jobs) > 1
        if (several or self.store_triangles) and self._is_linear(labels):
            triangles = reduce_labels(self, features, labels, weights)
            if self.store_triangles:
                self._keep(triangles)
            self._solve(combined(self, triangles), [])
        elif several:
            sloped = set(labels.names) & set(GRADIENTS)
            n_centers = features.structures.offsets[-1] if sloped else len(features)
            with Parts(self, features, labels, weights, 3 * int(n_centers)) as parts:
                self._solve(*self._assemble(features, labels, weights, parts))
        else:
            self._solve(*self._assemble(features, labels, weights))
        self.targets_ = labels.columns
        self.y_form_ = labels.form
        return self

    def partial_fit(
        self, X: StructuresLike, y: LabelsLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Add labels to those that were fitted, and fit the weights to all of them.

        The weights are those of one fit to all labels. Data are not kept: what they say of the
        weights is, see `store_triangles`.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`; with the same sparse set each time, and no elements that were not in the
            first part. `skqeq.partial_fit` does it for a pipeline.
        y : labels
            As in `fit`; those that are linear in the charges: dipole, charges, quadrupole and
            potential.
        sample_weight : array-like of shape (n,), default=None
            As in `fit`.

        Returns
        -------
        self : estimator
            If anything fails, what it was before.

        Raises
        ------
        ValueError
            If the model was fitted without `store_triangles`, or its parameters have changed in
            more than noise and amplitudes.
        """
        known = getattr(self, "triangles_", None)
        if known is None and hasattr(self, "coef_"):
            raise ValueError(f"{self._unknown_labels()}, or call partial_fit from the start")
        trial = copy(self)
        if known is not None:
            self._check_rows_unchanged()
        features, labels, weights = trial._prepare(X, y, sample_weight, known is not None)
        trial._check_linear(labels, "partial_fit")
        triangles = reduce_labels(trial, features, labels, weights)
        trial._keep(triangles if known is None else merged(known, triangles))
        trial._solve(combined(trial, trial.triangles_), [])
        trial.targets_ = list(dict.fromkeys([*getattr(self, "targets_", ()), *labels.columns]))
        trial.y_form_ = labels.form
        self.__dict__.update(trial.__dict__)
        return self

    def refit(self) -> Self:
        """Fit the weights once more to the same labels, after noise or amplitudes were changed.

        It takes what `store_triangles` has kept, and not the data.

        Returns
        -------
        self : estimator
            With other weights.

        Raises
        ------
        ValueError
            If other parameters have changed as well.
        """
        if not hasattr(self, "triangles_"):
            raise ValueError(self._unknown_labels())
        self._validate_params()
        self._check_rows_unchanged()
        self.response_ = self._make_response()
        self._solve(combined(self, self.triangles_), [])
        return self

    def _solve(self, triangle, nonlinear):
        """Find the weights."""
        v, self.fit_history_ = self._minimise(triangle, nonlinear)
        if self.store_triangles and nonlinear:
            self.posterior_ = linearized(triangle, nonlinear, v)[0].R.copy()
        coef = self._scale() * v
        self.coef_, offsets = np.split(coef, [len(coef) - len(self.elements_)])
        self.atomic_energies_ = self.atomic_energies_ + offsets
        self.n_iter_ = len(self.fit_history_)

    def _is_linear(self, labels):
        linear = (isinstance(TARGETS[n], ChargeTarget) and TARGETS[n].linear for n in labels.names)
        return all(linear) and self._bias is None

    def _check_linear(self, labels, what):
        if not self._is_linear(labels):
            raise ValueError(
                f"{what} is for labels that are linear in the charges: dipole, charges, quadrupole "
                f"and potential, without charge_bias; got {', '.join(labels.names)}"
            )

    def _unknown_labels(self):
        why = "fit it with store_triangles=True"
        if hasattr(self, "posterior_"):
            why = "its labels are not linear in the charges"
        return f"this {type(self).__name__} does not know what it was fitted to: {why}"

    def _keep(self, triangles):
        self.triangles_, self.row_parameters_ = triangles, self._row_parameters()

    def _row_parameters(self):
        """What the rows depend on, beside the data."""
        others = {"init", "max_iter", "tol", "algorithm", "verbose", "n_jobs", "store_triangles"}
        return {
            name: type(value).__name__ if hasattr(value, "get_params") else repr(value)
            for name, value in self.get_params().items()
            if name not in others and "sigma_" not in name and "amplitude" not in name
        }

    def _check_rows_unchanged(self):
        now = self._row_parameters()
        changed = [name for name, value in self.row_parameters_.items() if now.get(name) != value]
        if changed:
            raise ValueError(
                f"the labels were reduced with other values of {', '.join(changed)}: fit anew"
            )

    def _prepare(self, X, y, sample_weight, continued=False):
        """Check everything, and look up what the elements need: features, labels, weights.

        `continued` says that features and elements must be those of an earlier fit.
        """
        self._validate_params()
        response = self._make_response()
        features = self._features(X, response)
        if continued:
            self._check_features(features)
        labels = Labels(y, features.structures)
        if not labels.names:
            raise ValueError(f"all labels are missing: y holds no value of {labels.columns}")
        self._check_known(labels.names)
        weights = check_weights(sample_weight, len(features))
        labels.names = [n for n in labels.names if (labels.known(n) & (weights > 0)).any()]
        if not labels.names:
            raise ValueError("all labels belong to structures whose sample_weight is zero")
        check_defined(labels, features.structures)
        # A fit that fails from here on must not leave the weights of another one.
        for name in ("coef_", "triangles_", "row_parameters_", "posterior_"):
            self.__dict__.pop(name, None)
        self.response_ = response
        self._fit_offsets = "energy" in labels.names and self.atomic_energies == "fit"
        if continued:
            return features, labels, weights
        self.n_features_in_ = features.source.n_distinct
        self._sizes = features.source.sizes
        self.elements_ = np.unique(features.structures.numbers).astype(int)
        self.features_ = features.source.signature
        self._prepare_tables(features.structures)
        return features, labels, weights

    # ---- what a subclass decides ------------------------------------------------------------

    def _make_response(self):
        """How charges follow from the fields."""
        return QEq()

    def _features(self, X, response):
        """X as StructureFeatures in three blocks, phi, rho and psi, see `fields`."""
        raise TypeError(f"{type(self).__name__} does not say what its features are")

    def _amplitudes(self):
        """Prior standard deviations of w and b (V) and u (eV).

        0 for b means that chi_0 is zero too.
        """
        raise TypeError(f"{type(self).__name__} does not say what its priors are")

    # ---- assembly ---------------------------------------------------------------------------

    def _prepare_tables(self, structures):
        """Per-element numbers, complete for the elements seen."""

        def lookup(table, name):
            missing = self.elements_[np.isnan(table[self.elements_])]
            if len(missing):
                raise ValueError(
                    f"{structures.name(structures.first_with(missing[0]))}: no {name} for "
                    f"{chemical_symbols[missing[0]]}"
                )
            return table[self.elements_]

        self.atomic_energies_ = np.zeros(len(self.elements_))
        if self.atomic_energies != "fit":
            given = per_element(self.atomic_energies, "atomic_energies", -np.inf)
            self.atomic_energies_ = lookup(given, "energy in `atomic_energies`")
        self._prepare_charges(lookup)

    def _prepare_charges(self, lookup):
        """What charges depend on, by element; ``lookup(table, name)`` refuses missing ones."""
        self._hardness = lookup(per_element(self.hardness, "hardness"), "hardness in `hardness`")
        self._widths = self.radius_scale * lookup(radii_table(self.radii), "radius in `radii`")
        self._chi_0 = np.zeros(len(self.elements_))
        if self._amplitudes()[1] > 0:
            self._chi_0 = lookup(qeq_electronegativities(), "QEq electronegativity")
        self._bias = None
        if self.charge_bias is not None:
            given = per_element(self.charge_bias, "charge_bias", -np.inf)
            self._bias = lookup(given, "charge in `charge_bias`")
        self._response_tables = self.response_.tables(lookup)

    def _scale(self):
        """Prior standard deviation of the weights: w and b, v and c, u and e."""
        chi, baseline, energy = self._amplitudes()
        offsets = AMPLITUDE_OFFSET * self._fit_offsets
        amplitudes = chi, baseline, *self.response_.amplitudes, energy, offsets
        return np.repeat(amplitudes, self._lengths())

    def _lengths(self):
        """Numbers of weights w and b, v and c, u and e."""
        n_elements = len(self.elements_)
        chi, reference, energy = self._sizes
        n_reference = n_elements * self.response_.learns_reference
        return chi, n_elements, reference, n_reference, energy, n_elements

    def _unpack(self, weights):
        """Weights as w and b, v and c, u and e."""
        return np.split(weights, np.cumsum(self._lengths())[:-1])

    def _check_known(self, names):
        """Refuse targets that the model does not know."""

    def _check_features(self, features):
        """Refuse other features than those of `fit`, and elements of which nothing was learned."""
        found, name = features.source.n_distinct, type(self).__name__
        if found != self.n_features_in_:
            raise ValueError(
                f"X has {found} features, but {name} was fitted with {self.n_features_in_}"
            )
        check_same_features(features, self.features_, name)
        known = ", ".join(chemical_symbols[z] for z in self.elements_)
        features.structures.check_elements(self.elements_, f", not in the training data ({known})")

    def _equilibrium(self, structure, i, n_solutions=1):
        """Charge response of structure i, its widths and element slots."""
        slots = np.searchsorted(self.elements_, structure.numbers)
        widths, hardness = self._widths[slots], self._hardness[slots]
        solver = self.solver
        if solver == "auto" and getattr(self.response_, "polarizability", None) is not None:
            solver = "dense"
        effort = n_solutions, self.response_.factorisations
        A = hardness_for(structure, widths, hardness, self.accuracy, solver, *effort)
        name = f"structure {i} ({structure.symbols})"
        tables = (table[slots] for table in self._response_tables)
        response = self.response_.equilibrium(structure, A, name, widths, self.accuracy, *tables)
        return response, widths, slots

    def _onehot(self, numbers):
        """Which element every atom is: (n_atoms, n_elements)."""
        return np.eye(len(self.elements_))[np.searchsorted(self.elements_, numbers)]

    def _counts(self, structure):
        """Number of atoms of every element."""
        return self._onehot(structure.numbers).sum(axis=0)

    def _solutions(self, features, coef, gradients=False, start=None, numbers=None, n_rows=None):
        """Solve all structures for the weights `coef`, see `_unpack`.

        Messages call them by `numbers`, which are consecutive by default. `n_rows` says how many
        more right-hand sides each will be solved for, which decides how.

        Yields
        ------
        first : int
            Number of the first structure of a block.
        block : Block or None
            Its features; None for derivatives, which make their own.
        solutions : list of Solution
        """
        w, b, v, c, u, e = self._unpack(coef)
        constants = self._chi_0 + b, c, self.atomic_energies_ + e
        start = [None] * len(features) if start is None else start
        numbers = range(len(features)) if numbers is None else numbers
        n_rows = np.zeros(len(features), dtype=int) if n_rows is None else n_rows

        def solve(i, structure, learned, slopes=None):
            equilibrium, widths, slots = self._equilibrium(structure, numbers[i], n_rows[i] + 1)
            chi, reference, energies = (
                constant[slots] + field if len(constant) else field
                for constant, field in zip(constants, learned, strict=True)
            )
            reference = equilibrium.reference(reference)
            charges = equilibrium.charges(chi, start[i], reference)
            fields = chi, reference, energies
            return Solution(structure, widths, equilibrium, fields, charges, slopes)

        if gradients:
            duals = features.source.split(features.dual(np.concatenate([w, v, u])))
            walk = tqdm(features.structures, "derivatives", disable=not self.verbose, leave=False)
            for i, structure in enumerate(walk):
                with blas_threads_for(structure):
                    slopes = list(zip(features.gradient(structure).parts, duals, strict=True))
                    learned = [near.field(dual) for near, dual in slopes]
                    solution = solve(i, structure, learned, slopes)
                yield i, None, [solution]
            return
        for first, block in features.blocks(verbose=self.verbose, desc="charges"):
            parts = zip(block.split(self._sizes), (w, v, u), strict=True)
            learned = (np.split(part.dot(x), block.offsets[1:-1]) for part, x in parts)
            members = zip(block.structures, zip(*learned, strict=True), strict=True)
            yield first, block, [solve(first + s, *member) for s, member in enumerate(members)]

    def _assemble(self, features, labels, weights, parts=None):
        """Reduce the rows of all linear targets to a triangle, keep those of the others.

        If `parts` is given, its workers do it, and keep the rows of energies.
        """
        triangle, nonlinear = Triangle(len(self._scale()), penalty=1.0), []
        noise = self._noise(features.structures, labels, weights)

        def energy_rows(names):
            if parts is None:
                return EnergyRows(self, features, labels, noise, names)
            return SharedEnergyRows(parts, noise, names)

        if set(labels.names) & set(ENERGIES):
            nonlinear.append(energy_rows(ENERGIES))
            self._center_energies(nonlinear[0])  # before workers are told of them
        if "born_effective_charges" in labels.names:
            # Linear in the weights, with rows like those of forces.
            born = energy_rows(["born_effective_charges"])
            add_linearized(born, triangle, np.zeros(triangle.n_columns))
        if self._charge_names(labels):
            if parts is None:
                kept = self._assemble_charges(triangle, features, labels, weights)
            else:
                kept = merge_assembled(triangle, parts)
            nonlinear = [rows.gathered() for rows in kept.values()] + nonlinear
        return triangle, nonlinear

    def _charge_names(self, labels):
        """The targets of labels that charges alone make, and what they are biased to."""
        names = [name for name in labels.names if isinstance(TARGETS[name], ChargeTarget)]
        biased = self._bias is not None and "charges" not in names
        return names + ["charges"] * biased

    def _assemble_charges(self, triangle, features, labels, weights, first=0):
        """Add the rows of linear targets of charges to a triangle; those of others, by target.

        The first structure has the number `first`.
        """
        noise = self._noise(features.structures, labels, weights, first)
        names = self._charge_names(labels)
        kept = {n: NonlinearRows(TARGETS[n]) for n in names if not TARGETS[n].linear}
        for begin, block in features.blocks(verbose=self.verbose, desc="fit"):
            reduced, pending = RowList(), {name: RowList() for name in kept}
            for i, here, name, value, equilibrium, q_prior in self._charge_labels(
                block, first + begin, labels, names, weights
            ):
                target, sigma = TARGETS[name], noise[name][i - first]
                if name in kept:
                    operator, constant = equilibrium.observable(target)
                    rows, reference = equilibrium.rows(operator)
                    prior = operator @ q_prior + constant
                    start = operator @ start_charges(equilibrium) + constant
                    pending[name].add(rows, prior, here, reference=reference)
                    kept[name].add(prior, value, sigma, start)
                else:
                    label = weighted_label(equilibrium, target, value, sigma, q_prior)
                    rows, reference = equilibrium.rows(label[0])
                    reduced.add(rows, label[1], here, reference=reference)
            for J, residual in self._design(block, reduced):
                triangle.update(J, residual)
            for name, rows in pending.items():
                kept[name].jacobians += [J for J, _ in self._design(block, rows)]
        return kept

    def _linear_rows(self, features, labels, weights, first):
        """Yield `LabelRows` of linear labels, with their noise relative to that of the model.

        The first structure has the number `first`.
        """
        with np.errstate(divide="ignore"):
            of_weights = 1.0 / np.sqrt(weights)
        noise = {name: labels.relative_sigma(name) * of_weights for name in labels.names}
        for begin, block in features.blocks(verbose=self.verbose, desc="fit"):
            rows = {name: RowList() for name in labels.names}
            owners = {name: ([], []) for name in labels.names}
            for i, here, name, value, equilibrium, q_prior in self._charge_labels(
                block, first + begin, labels, labels.names, weights
            ):
                label = weighted_label(equilibrium, TARGETS[name], value, noise[name][i], q_prior)
                over, reference = equilibrium.rows(label[0])
                rows[name].add(over, label[1], here, reference=reference)
                owners[name][0].append(np.full(len(over), i))
                owners[name][1].append(label[2])
            for name, found in rows.items():
                if found.pieces:
                    structures, inverse_noise = map(np.concatenate, owners[name])
                start = 0
                for J, residual in self._design(block, found, scaled=False):
                    here = slice(start, start + len(J))
                    yield LabelRows(
                        name, J, residual, inverse_noise[here], structures[here], first + begin
                    )
                    start = here.stop

    def _charge_labels(self, block, first, labels, names, weights):
        """Yield the labels of charges in a block whose first structure has the number `first`.

        The number of the structure, its first atom in the block, target, label, response, and the
        charges of the prior mean.
        """
        for s, structure in enumerate(block.structures):
            i = first + s
            values = self._values(labels, names, i, structure)
            if weights[i] == 0.0 or not values:
                continue
            n_rows = sum(TARGETS[name].size(structure) for name in values)
            equilibrium, _, slots = self._equilibrium(structure, i, n_rows + 1)
            q_prior = equilibrium.charges(self._chi_0[slots])
            for name, value in values.items():
                yield i, block.offsets[s], name, value, equilibrium, q_prior

    def _noise(self, structures, labels, weights, first=0):
        """Standard deviation of the labels of consecutive structures: dict of arrays.

        The first of them has the number `first`.
        """
        here = slice(first, first + len(structures))
        with np.errstate(divide="ignore"):
            relative = 1.0 / np.sqrt(weights[here])
        noise = {
            name: getattr(self, f"sigma_{name}") * labels.relative_sigma(name)[here] * relative
            for name in labels.names + ["charges"] * (self._bias is not None)
        }
        if "energy" in noise:
            noise["energy"] *= ENERGY_NOISE[self.energy_noise](structures.sizes.astype(float))
        return noise

    def _values(self, labels, names, i, structure):
        """The labels of structure i, and the charges that it is biased to."""
        values = {name: labels.values(name, i) for name in names if name in labels.names}
        values = {name: value for name, value in values.items() if value is not None}
        if self._bias is not None and "charges" not in values:
            values["charges"] = self._onehot(structure.numbers) @ self._bias
        return values

    def _design(self, block, rows, scaled=True):
        """Turn rows over atoms into rows over weights, by default scaled ones, some at a time."""
        onehot = self._onehot(block.numbers)
        parts = block.split(self._sizes)
        for fields, residual in rows.chunks(block.n_atoms):
            known = [(p, f) for p, f in zip(parts, fields, strict=True) if f is not None]
            J = np.concatenate([x for p, f in known for x in (p.contract(f), f @ onehot)], axis=1)
            if scaled:
                J *= self._scale()
            yield J, residual

    # ---- solution ---------------------------------------------------------------------------

    def _minimise(self, triangle, nonlinear):
        """Scaled weights of least penalised loss, and the history of the iteration."""
        if not nonlinear:
            v = triangle.solve()
            return v, [{"loss": float(triangle.loss(v)), "gradient": 0.0, "step": 1.0}]
        v = self._start(triangle, nonlinear)
        reached, history, converged = v, [], False

        def report(v, entry):
            nonlocal reached
            reached = v
            history.append(entry)
            bar.update()
            bar.set_postfix(loss=f"{entry['loss']:.6g}", gradient=f"{entry['gradient']:.1e}")

        minimise = {"gauss_newton": gauss_newton, "fixed_point": fixed_point}[self.algorithm]
        how = "stopped"
        with tqdm(desc=self.algorithm, disable=not self.verbose, leave=False) as bar:
            try:
                reached, _, converged = minimise(
                    triangle, nonlinear, v, self.max_iter, self.tol, report
                )
            except KeyboardInterrupt:
                if not history:
                    raise
                how = "was interrupted"
        if not converged:
            warnings.warn(
                f"{self.algorithm} {how} after {len(history) - 1} steps at a relative gradient of "
                f"{history[-1]['gradient']:.1e} (tol={self.tol:g}); raise max_iter or sigma, or go "
                "on from these weights with init=coef_",
                ConvergenceWarning,
                stacklevel=3,
            )
        return reached, history

    def _start(self, triangle, nonlinear):
        """Where the iteration starts, which decides the sign of the charges.

        Energies and norms of dipoles are the same for the opposite charges.
        """
        energies = [rows for rows in nonlinear if isinstance(rows, EnergyRows)]
        if self.init is not None:
            v = self._check_init()
        elif triangle.n_rows:
            v = triangle.solve()
        elif energies and all(x.all() for x in self._unpack(self._scale())[1:4:2]):
            chi, reference = energies[0].start()
            v, scale = np.zeros(triangle.n_columns), self._scale()
            # Views of the numbers of the elements.
            _, b, _, c, _, _ = self._unpack(v)
            b[:] = chi - self._chi_0
            if reference is not None:
                c[:] = reference
            v = np.divide(v, scale, out=np.zeros_like(v), where=scale > 0)
        else:
            guess = triangle.copy()
            for rows in nonlinear:
                for J, residual in rows.toward_start():
                    guess.update(J, residual)
            v = guess.solve()
        # Local energies that are learned take up what charges do to the energy beyond the tangent.
        if energies and self.init is None and not self._sizes[2]:
            others = [rows for rows in nonlinear if rows not in energies]
            for eased in energies[0].eased():
                v, _, _ = gauss_newton(triangle, [*others, eased], v, max_iter=3, tol=1e-2)
        return v

    def _center_energies(self, rows):
        """Prior means of the energies of atoms: the best fit without charges.

        Of all that fit equally well the smallest; they must not depend on the start.
        """
        if self._fit_offsets:
            counts, labels = rows.compositions()
            self.atomic_energies_ = np.linalg.lstsq(counts, labels, rcond=1e-10)[0]

    def _check_init(self):
        n_elements = len(self.elements_)
        scale = self._scale()[:-n_elements]
        init = np.asarray(self.init, dtype=np.float64)
        if init.shape != scale.shape or not np.isfinite(init).all():
            raise ValueError(
                f"init must be {len(scale)} finite weights in the form of coef_, got shape "
                f"{init.shape}"
            )
        # A weight without prior width cannot be anything but zero.
        v = np.divide(init, scale, out=np.zeros_like(scale), where=scale > 0)
        return np.append(v, np.zeros(n_elements))

    # ---- prediction -------------------------------------------------------------------------

    def solutions(
        self, X: StructuresLike, names: Sequence[str] = ("energy",), start: Column | None = None
    ) -> Iterator[Solution]:
        """Yield what there is to know of every structure, one by one.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        names : sequence of str, default=("energy",)
            Targets that are wanted. A structure that has none of them is refused before any work;
            derivatives are available if forces, stress or Born charges are among them.
        start : sequence of array-like of shape (n_atoms,), default=None
            Charges from which the iterative solver starts, e.

        Yields
        ------
        solution : Solution
            Charges, electronegativities, energy and, if asked for, derivatives.

        Raises
        ------
        ValueError
            If a periodic structure has none of the targets.
        """
        check_is_fitted(self)
        features = self._features(X, self.response_)
        self._check_features(features)
        self._check_known(names)
        for i, structure in doubtful(features.structures, names):
            defined = np.concatenate([TARGETS[name].defined(structure) for name in names])
            if len(defined) and not defined.any():
                raise ValueError(_undefined(i, structure, " and ".join(names)))
        start = _check_start(start, features.structures)
        gradients = any(name in GRADIENTS for name in names)
        coef = np.concatenate([self.coef_, np.zeros(len(self.elements_))])
        # Born charges take the answer to three fields.
        n_rows = np.full(len(features), 3 * ("born_effective_charges" in names))
        for _, _, solutions in self._solutions(features, coef, gradients, start, n_rows=n_rows):
            yield from solutions

    def predict(self, X: StructuresLike, return_std: bool = False) -> Any:
        """Predict the targets that `fit` was given.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        return_std : bool, default=False
            Whether to return the standard deviations of `predict_std` as well.

        Returns
        -------
        y : same form as in `fit`
            An array (n, 3) of dipoles, a structured array, a list of dict or a DataFrame.
        std : same form as in `fit`
            Only with `return_std`.
        """
        check_is_fitted(self)
        y = to_form(self.predict_targets(X, self.targets_), self.y_form_)
        if not return_std:
            return y
        return y, to_form(self.predict_std(X, self.targets_), self.y_form_)

    def predict_std(self, X: StructuresLike, names: Sequence[str]) -> Array:
        """Standard deviations of what the model would predict, given its labels.

        Of the weights ``v`` with the covariance ``(R^T R)^-1`` that the labels leave, and of the
        part of every field that no weights describe, ``amplitude^2 (1 - |phi_i|^2)`` for the
        features of one kernel, which is independent for every atom [1]_. Both go through the
        response of the charges. The noise of labels is not part of it: labels scatter around
        predictions with ``std^2 + sigma^2``.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        names : sequence of str
            Targets, whether they were trained on or not.

        Returns
        -------
        std : ndarray of shape (n,)
            Structured array in the form and units of `skqeq.make_targets`; NaN or None what a
            periodic structure does not have.

        Raises
        ------
        ValueError
            If the model was fitted without `store_triangles`, or for unknown targets.

        Notes
        -----
        Targets that are not linear in the weights are linearised where the weights are. Of forces,
        stress and Born charges the second part is that of the fields and of their derivatives with
        respect to the geometry, which takes the derivatives of all features of every atom, and ten
        to twenty times as long as the prediction.

        References
        ----------
        .. [1] Snelson and Ghahramani, NIPS 18, 1257 (2006).
        """
        check_is_fitted(self)
        if not hasattr(self, "triangles_") and not hasattr(self, "posterior_"):
            raise ValueError(
                f"the uncertainty of {type(self).__name__} comes from triangles: fit it with "
                "store_triangles=True, or by skqeq fit --std"
            )
        for name in names:
            if name not in TARGETS:
                raise ValueError(f"unknown target {name!r}; known: {', '.join(TARGETS)}")
        features = self._features(X, self.response_)
        self._check_features(features)
        R = self.posterior_ if hasattr(self, "posterior_") else combined(self, self.triangles_).R
        columns = {name: [None] * len(features) for name in names}
        sloped = [name for name in names if name in GRADIENTS]
        others = [name for name in names if name not in GRADIENTS]
        variances = [self._variances(features, others, R)] if others else []
        variances += [self._slope_variances(features, sloped, R)] if sloped else []
        for i, name, structure, variance in chain(*variances):
            columns[name][i] = _shaped(TARGETS[name], structure, np.sqrt(variance))
        return make_targets(**columns)

    def _variances(self, features, names, R):
        """Yield number, target, structure and variances of what charges and atoms make."""
        amplitudes = self._field_amplitudes()
        coef = np.concatenate([self.coef_, np.zeros(len(self.elements_))])
        n_rows = np.array([1 + 3 * len(names)] * len(features))
        for begin, block, solutions in self._solutions(features, coef, n_rows=n_rows):
            unknown = [
                amplitude**2 * np.maximum(source.prior_variance - part.squared_norms(), 0.0)
                for amplitude, source, part in zip(
                    amplitudes, features.source.sources, block.split(self._sizes), strict=True
                )
            ]
            for name in names:
                target, rows, beyond = TARGETS[name], RowList(), []
                for solution, first in zip(solutions, block.offsets[:-1], strict=True):
                    over = _field_rows(target, solution)
                    n, energies = len(over[0]), 0.0 if over[2] is None else 1.0
                    rows.add(over[0], np.zeros(n), first, energies, over[1])
                    here = slice(first, first + len(solution.structure))
                    pairs = [(f, u[here]) for f, u in zip(over, unknown) if f is not None]
                    beyond.append(sum(f**2 @ u for f, u in pairs))
                known = np.concatenate([_explained(R, J) for J, _ in self._design(block, rows)])
                ends = np.cumsum([len(part) for part in beyond])
                parts = zip(solutions, beyond, np.split(known, ends[:-1]), strict=True)
                for s, (solution, more, variance) in enumerate(parts):
                    yield begin + s, name, solution.structure, variance + more

    def _slope_variances(self, features, names, R):
        """The same of derivatives."""
        coef = np.concatenate([self.coef_, np.zeros(len(self.elements_))])
        scale = self._scale()
        v = np.divide(coef, scale, out=np.zeros_like(coef), where=scale > 0)
        rows = EnergyRows.without_labels(self, features, names)
        for i, solution, J, rest in rows.sensitivities(v):
            variance = _explained(R, J) + rest
            sizes = [TARGETS[name].size(solution.structure) for name in rows.names[i]]
            for name, part in zip(rows.names[i], np.split(variance, np.cumsum(sizes)[:-1])):
                yield i, name, solution.structure, part

    def _field_amplitudes(self):
        """Prior standard deviations of the learned parts of chi, reference charge and energy."""
        chi, _, energy = self._amplitudes()
        return chi, self.response_.amplitudes[0], energy

    def predict_targets(self, X: StructuresLike, names: Sequence[str]) -> Array:
        """Predict several targets at once, whether they were trained on or not.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        names : sequence of str
            Columns of `skqeq.make_targets`.

        Returns
        -------
        y : ndarray of shape (n,)
            Structured array as from `skqeq.make_targets`; NaN or None what a periodic structure
            does not have.

        Raises
        ------
        ValueError
            If a periodic structure has none of the targets.
        """
        for name in names:
            if name not in TARGETS:
                raise ValueError(f"unknown target {name!r}; known: {', '.join(TARGETS)}")
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for solution in self.solutions(X, names):
            for name, values in columns.items():
                values.append(_observe(TARGETS[name], solution))
        return make_targets(**columns)

    def predict_target(self, X: StructuresLike, name: str) -> Values:
        """Predict one target.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        name : str
            A column of `skqeq.make_targets`.

        Returns
        -------
        values : ndarray of shape (n,) or (n, k), or list of ndarray
            A list where the size depends on the structure.
        """
        column = self.predict_targets(X, [name])[name]
        return list(column) if column.dtype == object else column

    def predict_charges(self, X: StructuresLike, start: Column | None = None) -> list[Array]:
        """Charges of all atoms.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        start : sequence of array-like of shape (n_atoms,), default=None
            Charges from which the iterative solver starts, e; those of an earlier step of a
            trajectory save it work.

        Returns
        -------
        charges : list of ndarray of shape (n_atoms,)
            In e; each sums to the structure's total charge.
        """
        return [solution.charges for solution in self.solutions(X, ["charges"], start)]

    def predict_electronegativities(self, X: StructuresLike) -> list[Array]:
        """Electronegativities of all atoms.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.

        Returns
        -------
        chi : list of ndarray of shape (n_atoms,)
            In V. Only differences within a structure matter.
        """
        return [solution.chi for solution in self.solutions(X, ["charges"])]

    def predict_energy(self, X: StructuresLike) -> Array:
        """Energy of the charges and of the atoms.

        ``chi . q + q . A q / 2 - field . sum_i q_i r_i + sum_i e_i``, and what flows of charge
        cost, see `skqeq.ChargeFlow`. If the model was not trained on energies, only differences
        between structures of the same composition have a meaning. In a field the energy of a
        charged structure depends on the coordinate origin.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.

        Returns
        -------
        energy : ndarray of shape (n,)
            In eV.
        """
        return np.array([solution.energy for solution in self.solutions(X)])

    def predict_forces(self, X: StructuresLike) -> list[Array]:
        """Negative derivatives of `predict_energy` with respect to the positions.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`; features must come from SOAPFeaturizer and CURSparsifier.

        Returns
        -------
        forces : list of ndarray of shape (n_atoms, 3)
            In eV/Angstrom. They sum to the total charge times the field.
        """
        return [solution.forces for solution in self.solutions(X, ["forces"])]

    def predict_stress(self, X: StructuresLike) -> Array:
        """Derivatives of `predict_energy` with respect to a strain, over the volume.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            Crystals, and slabs, which have a stress in their plane.

        Returns
        -------
        stress : ndarray of shape (n, 6)
            In the sign and the order of ASE, xx, yy, zz, yz, xz, xy; eV/Angstrom^3. NaN for
            components that a slab does not have.
        """
        return self.predict_target(X, "stress")

    def predict_polarizability(self, X: StructuresLike) -> Array:
        """What a uniform field does to the dipole, ``R^T P R``.

        It depends on the geometry, on the widths of the charges, on `hardness` and on the
        parameters of the response only: no label changes it.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            Molecules, and slabs, which have a polarisability along their open axis.

        Returns
        -------
        polarizability : ndarray of shape (n, 3, 3)
            ``d mu_a / d field_b``, e*Angstrom per V/Angstrom (times `skqeq.parameters.COULOMB` that
            is a volume in Angstrom^3); NaN for components along periodic axes.
        """
        tensors = []
        for solution in self.solutions(X, ["dipole"]):
            open_axes = TARGETS["dipole"].defined(solution.structure)
            both = np.logical_and.outer(open_axes, open_axes)
            tensors.append(np.where(both, solution.polarizability, np.nan))
        return np.array(tensors)

    def predict_born_effective_charges(self, X: StructuresLike) -> list[Array]:
        """Derivatives of the dipole with respect to the positions.

        The dipole is ``sum_i q_i r_i`` about the coordinate origin, so that the Born charges of a
        structure sum to its total charge times the unit matrix, and ``d F_jb / d field_a`` is the
        same number. For the dipole about the centre of mass, take ``Q m_j / M`` off the diagonal.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            Molecules, and slabs, whose dipole has a component along their open axis.

        Returns
        -------
        born_effective_charges : list of ndarray of shape (n_atoms, 3, 3)
            ``d mu_a / d r_jb`` at ``[j, a, b]``, e; NaN for a along periodic axes.
        """
        return self.predict_target(X, "born_effective_charges")

    def score(
        self, X: StructuresLike, y: LabelsLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Mean over the labelled targets of the coefficient of determination R2.

        The R2 of a target is ``1 - sum |error|^2 / sum |y - mean|^2`` over all its components
        and structures; it does not depend on any sigma. That of energies is of energies per atom.
        A target with fewer than two labelled structures has none, with a warning; if all targets
        lack it, the score is NaN.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        y : labels
            As in `fit`.
        sample_weight : array-like of shape (n,), default=None
            Weights of the structures.

        Returns
        -------
        score : float
            At most 1.
        """
        check_is_fitted(self)
        features = self._features(X, self.response_)
        labels = Labels(y, features.structures)
        weights = check_weights(sample_weight, len(features))
        check_defined(labels, features.structures)
        if not labels.names:
            return target_r2([], [])
        predicted = self.predict_targets(X, with_energy(labels.names))
        scores = []
        for name in labels.names:
            truth, values = (
                TARGETS[name].comparable(table[name], features.structures)
                for table in (labels.table, predicted)
            )
            scores.append(target_r2(truth, values, weights))
        return float(np.mean(scores))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coef_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.target_tags.multi_output = True
        tags.target_tags.required = True
        tags.no_validation = True
        return tags


def _field_rows(target, solution):
    """What changes of chi, reference charges and energies of atoms do to a target.

    Rows over the atoms; None where they do nothing.
    """
    if not isinstance(target, ChargeTarget):
        # The energy: charges are those of its least value.
        reference = solution.drive[None] if solution.equilibrium.flows is not None else None
        return solution.charges[None], reference, np.ones((1, len(solution.structure)))
    operator, constant = solution.equilibrium.observable(target)
    if not target.linear:
        operator = target.derivative(operator @ solution.charges + constant) @ operator
    return (*solution.equilibrium.rows(operator), None)


def _explained(R, J):
    """Variances of the rows of J, whose weights have the covariance ``(R^T R)^-1``."""
    return np.square(solve_triangular(R, J.T, trans="T", check_finite=False)).sum(axis=0)


def _observe(target, solution):
    """Value of a target; a scalar where the label is one, None where it is undefined."""
    if not target.defined(solution.structure).any():
        return None
    return _shaped(target, solution.structure, target.observe(solution))


def _shaped(target, structure, value):
    """Numbers of a target in the form of its label; NaN or None what is undefined."""
    defined = target.defined(structure)
    if not defined.any():
        return None
    value = np.where(defined, value, np.nan)
    if target.shape is None:
        return value.reshape(-1, *target.row_shape)
    return value[0] if target.shape == (1,) else value


def start_charges(equilibrium):
    """Charges by classical electronegativities, as a guess of the directions of dipoles.

    Where charge flows they are those of reference charges that go with them.
    """
    chi = qeq_electronegativities()[equilibrium.structure.numbers]
    reference = equilibrium.reference(-0.1 * chi)
    return equilibrium.charges(chi, reference=reference)


def check_defined(labels, structures):
    """Refuse labels of what a periodic structure does not have."""
    for i, structure in doubtful(structures, labels.names):
        for name in labels.names:
            value = labels.values(name, i)
            if value is not None and (~np.isnan(value) & ~TARGETS[name].defined(structure)).any():
                raise ValueError(_undefined(i, structure, name))


def with_energy(names):
    """The targets to predict so that a structure with none of `names` is not refused."""
    return list(dict.fromkeys([*names, "energy"]))


def _check_start(start, structures):
    """One array, or None, for every structure."""
    if start is None:
        return [None] * len(structures)
    if len(start) != len(structures):
        raise ValueError(
            f"start holds {len(start)} arrays, but there are {len(structures)} structures"
        )
    start = [np.asarray(q, dtype=np.float64) for q in start]
    for i, (q, n) in enumerate(zip(start, structures.sizes)):
        if q.shape != (n,) or not np.isfinite(q).all():
            raise ValueError(
                f"start[{i}] must be {n} finite charges for {structures.name(i)}, got shape "
                f"{q.shape}"
            )
    return start


def _undefined(i, structure, what):
    return (
        f"structure {i} ({structure.symbols}) has pbc = {structure.pbc}, which leaves {what} "
        "undefined; periodic structures have charges, energy and forces, crystals have a stress, "
        "and slabs that x, y or z leaves have the dipole along it, with its derivatives, and, if "
        "they have a cell, a stress"
    )


def check_weights(sample_weight, n):
    if sample_weight is None:
        return np.ones(n)
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (n,):
        raise ValueError(f"sample_weight has shape {weights.shape}, but there are {n} structures")
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        raise ValueError(f"sample_weight[{bad.argmax()}] = {weights[bad.argmax()]}")
    if not weights.any():
        raise ValueError("sample_weight is zero everywhere")
    return weights


def fields(structures, chi=None, reference=None, energy=None):
    """Features of the electronegativity, reference charge and energy of an atom, side by side.

    Parameters
    ----------
    structures : sequence of Structure
        Of the features.
    chi, reference, energy : object, default=None
        Sources of features, see `StructureFeatures`; None for a field that is not learned.

    Returns
    -------
    features : StructureFeatures
    """
    sources = [NoFeatures() if s is None else s for s in (chi, reference, energy)]
    return StructureFeatures(structures, StackedSource(sources))


def check_featurised(X, estimator, advice=None):
    """Features for an estimator that cannot make its own."""
    if isinstance(X, StructureFeatures):
        return X
    advice = advice or (
        "use it behind SOAPFeaturizer and CURSparsifier, e.g. "
        f"make_pipeline(SOAPFeaturizer(), CURSparsifier(), {estimator}())"
    )
    found = type(X).__name__
    raise TypeError(f"{estimator} takes the features of structures, got {found}; {advice}")
