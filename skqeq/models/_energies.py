"""Rows of a least-squares problem for energies, forces, stress and Born charges."""

from copy import copy

import numpy as np

from .._threads import blas_threads_for
from ..parameters import qeq_electronegativities
from ..solvers._gauss_newton import add_linearized
from ..targets import TARGETS
from ..targets._observables import GRADIENTS, VOIGT
from ._reduction import empty
from ._rows import MAX_ROWS, RowList

# How the noise of an energy grows with the number of atoms.
ENERGY_NOISE = {
    "per_atom": lambda n: n,
    "sqrt_n": np.sqrt,
    "per_structure": np.ones_like,
}
# Prior standard deviation of the energy of an atom around the best fit without charges, eV.
AMPLITUDE_OFFSET = 10.0
# Largest of the mean sizes of the charges of a structure at the start, e.
START_CHARGE = 0.4
# Factors on the noise of energies in the first steps.
EASE = (100.0, 10.0)
# Rows of the energies of atoms that are kept between two steps of a fit.
KEPT_BYTES = 2**31
VOIGT_ROWS = [3 * a + b for a, b in VOIGT]


class EnergyRows:
    """Labels of energies, forces, stress and Born charges, linearised at any weights.

    With ``y = chi + A q - field . r``, in charge equilibration the potential that is the same for
    all atoms, ``dq/dw = -P phi`` and ``V = P R``, the weights w of chi enter by

        dE / dw = phi^T q,
        dF_ja / dw = -q . dphi/dr_ja + (dy/dr_ja) P phi,
        dW_ab / dw = q . dphi/de_ab - (dy/de_ab) P phi,
        dZ_jab / dw = -V_a . dphi/dr_jb + (d(A V_a)/dr_jb) P phi - delta_ab (P phi)_j,

    W the derivative of the energy with respect to a strain e, and Z the Born charges. The fixed
    point of Vondrák et al. (J. Chem. Phys. 159, 054109 (2023)) leaves out the response of the
    charges to the weights, the terms of P in the forces and W. Where charge flows the same terms
    are those of `skqeq.response.FlowEquilibrium.rows`, and reference charges have others like them.
    The weights u of the energies of atoms enter linearly, by the sums of psi over the atoms and
    their derivatives.

    Between two linearisations the rows of u are kept as long as they fit in `KEPT_BYTES`, and
    nothing else but the labels.

    Parameters
    ----------
    model : ChargeModel
        Prepared for the elements of the structures.
    features : StructureFeatures
        Of consecutive structures.
    labels : Labels
        Of all structures.
    noise : dict of {str: ndarray of shape (n,)}
        Noise of every target for these structures; infinite for those without weight.
    names : sequence of str
        The targets to make rows of.
    first : int, default=0
        Number, among all, of the first structure of the features.
    """

    def __init__(self, model, features, labels, noise, names, first=0):
        self.model, self.features, self.labels, self.noise = model, features, labels, noise
        self.first, self.ease = first, 1.0
        here = slice(first, first + len(features))
        names = [name for name in labels.names if name in names]
        known = {name: labels.known(name)[here] & np.isfinite(noise[name]) for name in names}
        self.names = [[n for n in known if known[n][i]] for i in range(len(features))]
        sloped = np.any([known[n] for n in GRADIENTS if n in known] or [False], axis=0)
        sloped = np.broadcast_to(sloped, len(features))
        # Structures with labels of derivatives, and those with nothing but an energy.
        self.sloped = np.flatnonzero(sloped)
        self.plain = np.flatnonzero(known.get("energy", False) & ~sloped)
        self.kept, self.n_bytes, self.max_bytes = {}, 0, KEPT_BYTES

    @classmethod
    def without_labels(cls, model, features, names):
        """Rows of predictions, for `sensitivities` only."""
        self = cls.__new__(cls)
        self.model, self.features, self.kept = model, features, {}
        self.first = self.n_bytes = self.max_bytes = 0
        self.names = [
            [name for name in names if TARGETS[name].defined(s).any()] for s in features.structures
        ]
        self.sloped = np.flatnonzero([len(names) for names in self.names])
        return self

    def loss(self, v):
        """Half the sum of squared residuals in units of the noise."""
        return self._evaluate(v)[0]

    def settled(self, v):
        """Weights with the best energies of atoms for these charges, and their loss.

        What charges do to the energy beyond the tangent, they do to all structures alike in the
        first place. The energies of atoms make up for that at once, and steps need not be short.
        """
        loss, counts, residuals = self._evaluate(v)
        n_elements = len(self.model.elements_)
        amplitudes = self.model._scale()[-n_elements:]
        if not len(counts) or not amplitudes.any():
            return v, loss
        rows = np.concatenate([counts * amplitudes, np.eye(n_elements)])
        change = np.linalg.lstsq(rows, -np.append(residuals, v[-n_elements:]), rcond=None)[0]
        moved = v.copy()
        moved[-n_elements:] += change
        changed = residuals + counts @ (amplitudes * change)
        return moved, loss + 0.5 * (changed @ changed - residuals @ residuals)

    def _evaluate(self, v):
        """Loss, and of energies the weighted numbers of atoms (n, n_elements) and residuals."""
        total, counts, residuals = 0.0, [], []
        for index, gradients in ((self.plain, False), (self.sloped, True)):
            for _, solutions in self._solutions(v, index, gradients):
                for i, solution in solutions:
                    residual, weight = self._residual(i, solution)
                    total += 0.5 * residual @ residual
                    if "energy" in self.names[i]:
                        counts.append(weight[0] * self.model._counts(solution.structure))
                        residuals.append(residual[0])
        return total, np.array(counts), np.array(residuals)

    def linearize(self, v, response=True):
        """Yield weighted Jacobians (n, n_columns) and residuals (n,) at v.

        `response` says whether the charges respond to the weights.
        """
        for block, solutions in self._solutions(v, self.plain):
            rows = RowList()
            for s, (i, solution) in enumerate(solutions):
                residual, weight = self._residual(i, solution)
                reference = None
                if self.model.response_.learns_reference:
                    reference = weight * solution.drive[None]
                charges = weight * solution.charges[None]
                rows.add(charges, residual, block.offsets[s], weight, reference)
            yield from self.model._design(block, rows)
        pieces, size = [], 0
        structures = self.features.structures
        n_rows = [
            response * sum(TARGETS[name].size(structures[i]) for name in self.names[i])
            for i in self.sloped
        ]
        for _, [(i, solution)] in self._solutions(v, self.sloped, True, n_rows):
            with blas_threads_for(solution.structure):
                residual, weight = self._residual(i, solution)
                J, _ = self._jacobian(i, solution, response)
            J *= weight[:, None]
            J *= self.model._scale()
            pieces.append((J[weight > 0], residual[weight > 0]))
            size += len(residual)
            # Orthogonal reduction is fast for many rows at a time.
            if size > MAX_ROWS // 2:
                yield _joined(pieces)
                pieces, size = [], 0
        if pieces:
            yield _joined(pieces)

    def sensitivities(self, v):
        """What the weights do to predictions, and variances of what no weights describe.

        Yields
        ------
        i : int
            A structure with any of the targets.
        solution : Solution
        J : ndarray of shape (n, n_columns)
            Derivatives of its targets, one after the other, with respect to v.
        rest : ndarray of shape (n,)
            Variances of the targets by the rest of all fields, see `_rest`.
        """
        structures = self.features.structures
        n_rows = [
            sum(TARGETS[name].size(structures[i]) for name in self.names[i]) for i in self.sloped
        ]
        for _, [(i, solution)] in self._solutions(v, self.sloped, True, n_rows):
            with blas_threads_for(solution.structure):
                J, over = self._jacobian(i, solution, True)
                rest = self._rest(i, solution, over)
            yield i, solution, J * self.model._scale(), rest

    def eased(self):
        """Yield the same rows with more noise of energies, less and less of it.

        Charges enter the energy to second order, and so strongly that with its true noise hardly
        any step along a tangent is good before the forces are about right.
        """
        if len(self.sloped) and "energy" in self.noise:
            for factor in EASE:
                yield self.with_ease(factor)

    def with_ease(self, factor):
        """The same rows with more noise of energies."""
        rows = copy(self)
        rows.ease, rows.noise = factor, self.noise | {"energy": factor * self.noise["energy"]}
        return rows

    def start(self):
        """Electronegativities, V, and reference charges, e, of the elements to start from.

        Those of QEq, times what makes charges of common size of the charges. Forces on small
        charges take electronegativities that vary so much with the geometry that nothing is linear.
        Where charge flows, it is the reference charges that make it, in proportion to them.
        """
        model, chi = self.model, qeq_electronegativities()[self.model.elements_]
        flows, sizes = model.response_.learns_reference, []
        for i in np.concatenate([self.plain, self.sloped]):
            structure = self.features.structures[i]
            if flows:
                of_atoms = model._onehot(structure.numbers) @ chi
                sizes.append(np.abs(of_atoms - of_atoms.mean()).mean())
            else:
                equilibrium, _, slots = model._equilibrium(structure, self.first + i)
                sizes.append(np.abs(equilibrium.project(chi[slots])).mean())
        scale = START_CHARGE / max(*sizes, 1e-3 * START_CHARGE)
        return (chi, -scale * chi) if flows else (chi * max(1.0, scale), None)

    def toward_start(self):
        """Yield linear rows that pull both fields of the charges to those of `start`."""
        goals = [goal for goal in self.start() if goal is not None]
        labelled = self.features[np.concatenate([self.plain, self.sloped])]
        for _, block in labelled.blocks():
            rows = RowList()
            for structure, first in zip(block.structures, block.offsets[:-1], strict=True):
                n, onehot = len(structure), self.model._onehot(structure.numbers)
                over = np.eye(n * len(goals)).reshape(len(goals), n, len(goals), n)
                for k, goal in enumerate(goals):
                    reference = over[k, :, 1] if len(goals) > 1 else None
                    rows.add(over[k, :, 0], onehot @ goal, first, reference=reference)
            yield from self.model._design(block, rows)

    def compositions(self):
        """Numbers of atoms (n, n_elements) and labelled energies (n,), in units of the noise."""
        structures, noise = self.features.structures, self.noise["energy"]
        some = [i for i, names in enumerate(self.names) if "energy" in names]
        counts = [self.model._counts(structures[i]) / noise[i] for i in some]
        labels = self.labels.table["energy"][self.first :][some]
        return np.array(counts), labels / noise[some]

    def _solutions(self, v, index, gradients=False, n_rows=None):
        """Blocks of the structures `index`, and lists of their numbers and solutions."""
        if len(index):
            coef, some = self.model._scale() * v, self.features[index]
            numbers = self.first + index
            blocks = self.model._solutions(some, coef, gradients, numbers=numbers, n_rows=n_rows)
            for begin, block, solutions in blocks:
                yield block, [(index[begin + s], found) for s, found in enumerate(solutions)]

    def _residual(self, i, solution):
        """Weighted residuals of the labels of structure i, and weights; zero where unknown."""
        residuals, weights = [], []
        for name in self.names[i]:
            label, noise = self.labels.values(name, self.first + i), self.noise[name][i]
            weight = np.where(np.isnan(label), 0.0, TARGETS[name].weights / noise)
            residuals.append(weight * np.nan_to_num(TARGETS[name].observe(solution) - label))
            weights.append(weight)
        return np.concatenate(residuals), np.concatenate(weights)

    def _jacobian(self, i, solution, response):
        """Derivatives of the targets of structure i with respect to the weights.

        And those with respect to the fields of the charges on the atoms.
        """
        onehot = self.model._onehot(solution.structure.numbers)
        parts = self._charge_rows(solution, self.names[i], response)
        blocks, fields = [], []
        for (near, _), rows in zip(solution.slopes, zip(*(parts[n] for n in self.names[i]))):
            atoms = np.concatenate([over for over, _ in rows])
            J, start = near.contract(atoms), 0
            for over, features in rows:
                J[start : start + len(over)] += features
                start += len(over)
            blocks += [J, atoms @ onehot]
            fields.append(atoms)
        return np.concatenate([*blocks, self._local_rows(i, solution)], axis=1), fields

    def _rest(self, i, solution, over):
        """Variances of derivatives of structure i by what no weights describe of the fields.

        A derivative changes by ``sum_j (o_j f_j + c_j df_j/dr)`` with the rests f of a field, which
        are independent for every atom: o is what `over` has of the fields of the charges, and c
        the factor of the derivative of the features.
        """
        structure, names = solution.structure, self.names[i]
        n, factors = len(structure), (solution.charges, solution.drive, np.ones(len(structure)))
        # Which derivative of the fields the rows have, and with what factors of the atoms.
        which = {"forces": np.arange(3 * n), "stress": 3 * n + np.array(VOIGT_ROWS)}
        moving = {"forces": [np.tile(-f, (3 * n, 1)) for f in factors]}
        if "stress" in names:
            moving["stress"] = [np.tile(f / structure.volume, (6, 1)) for f in factors]
        if "born_effective_charges" in names:
            j, a, b = np.indices((n, 3, 3)).reshape(3, -1)
            which["born_effective_charges"] = 3 * j + b
            V, R = solution.dipole_response, solution.reference_response
            R = np.zeros_like(V) if R is None else R
            moving["born_effective_charges"] = [-V.T[a], R.T[a], np.zeros((len(a), n))]
        which = np.concatenate([which[name] for name in names])
        total, known = np.zeros(len(which)), {}
        for f, (amplitude, (near, _)) in enumerate(
            zip(self.model._field_amplitudes(), solution.slopes, strict=True)
        ):
            if amplitude == 0.0:
                continue
            if id(near) not in known:
                known[id(near)] = near.residual_variances()
            variance, covariances, variances = known[id(near)]
            o = over[f] if f < len(over) else np.zeros((len(which), n))
            c = np.concatenate([moving[name][f] for name in names])
            part = o**2 @ variance
            part += np.einsum("rj,jr->r", 2.0 * o * c, covariances[:, which])
            part += np.einsum("rj,jr->r", c**2, variances[:, which])
            total += amplitude**2 * part
        return np.maximum(total, 0.0)

    def _charge_rows(self, solution, names, response):
        """Of every target and both fields of the charges, what they do to it.

        Returns
        -------
        parts : dict of {str: list of (over, features)}
            For chi, and for the reference charges where there are any, rows over the field on the
            atoms, and rows over its weights of what changes the features.
        """
        structure, q, V = solution.structure, solution.charges, None
        n, equilibrium = len(q), solution.equilibrium
        n_fields = 1 + self.model.response_.learns_reference
        factors = [(q, solution.drive)]
        parts = {"energy": [(f[None], 0.0) for f in factors[0][:n_fields]]}
        if "born_effective_charges" in names:
            V, R = solution.dipole_response, solution.reference_response
            R = np.zeros_like(V) if R is None else R
            factors += [(-V[:, a], R[:, a]) for a in range(3)]
        jacobians = _feature_jacobians(solution.slopes[:2], zip(*factors, strict=True))
        if "forces" in names or "stress" in names:
            over = [np.zeros((3 * n + 9, n))] * n_fields
            if response:
                moved = np.concatenate(solution.potential_gradient())
                flowed = solution.reference_gradient()
                flowed = None if flowed is None else np.concatenate(flowed)
                over = equilibrium.rows(moved, flowed)
            fields = list(zip(over[:n_fields], jacobians))
            parts["forces"] = [(-rows[:-9], -J[0]) for rows, (J, _) in fields]
            if structure.volume:
                parts["stress"] = [
                    (rows[-9:][VOIGT_ROWS] / structure.volume, J[0][VOIGT_ROWS] / structure.volume)
                    for rows, (_, J) in fields
                ]
        if V is not None:
            moved, flowed = [], []
            for a in range(3):
                along = np.ascontiguousarray(V[:, a]), np.eye(3)[a]
                potential = -equilibrium.potential_gradient(*along)[0]
                potential[:, a] += np.eye(n)
                moved.append(potential)
                if equilibrium.flows is not None:
                    flowed.append(-equilibrium.flows.charge_gradient(R[:, a])[0])
            moved = np.stack(moved, axis=1).reshape(9 * n, n)
            flowed = np.stack(flowed, axis=1).reshape(9 * n, n) if flowed else None
            parts["born_effective_charges"] = [
                (rows, J[1:].reshape(3, n, 3, -1).swapaxes(0, 1).reshape(9 * n, -1))
                for rows, (J, _) in zip(equilibrium.rows(moved, flowed)[:n_fields], jacobians)
            ]
        return parts

    def _local_rows(self, i, solution):
        """Derivatives of the labelled targets with respect to u and e; the same at any weights."""
        if i in self.kept:
            return self.kept[i]
        structure, near = solution.structure, solution.slopes[2][0]
        n_columns = self.model._sizes[2]
        ones, counts = np.ones(len(structure)), self.model._counts(structure)
        parts = {"energy": near.contract(ones[None])}
        if "forces" in self.names[i] or "stress" in self.names[i]:
            forces, virial = near.jacobian(ones)
            parts["forces"] = -forces
            if structure.volume:
                parts["stress"] = virial[VOIGT_ROWS] / structure.volume
        n_rows = {name: TARGETS[name].size(structure) for name in self.names[i]}
        psi = [parts.get(name, np.zeros((n, n_columns))) for name, n in n_rows.items()]
        elements = [np.outer(np.full(n, name == "energy"), counts) for name, n in n_rows.items()]
        rows = np.concatenate([np.concatenate(psi), np.concatenate(elements)], axis=1)
        if self.n_bytes + rows.nbytes <= self.max_bytes:
            self.kept[i] = rows
            self.n_bytes += rows.nbytes
        return rows


class SharedEnergyRows(EnergyRows):
    """The same rows, made and reduced by workers.

    Parameters
    ----------
    parts : Parts
        Of the structures.
    noise, names
        As in `EnergyRows`.
    """

    def __init__(self, parts, noise, names):
        super().__init__(parts.model, parts.features, parts.labels, noise, names)
        self.parts, self.targets = parts, tuple(names)

    def _evaluate(self, v):
        losses, counts, residuals = zip(*self._map(EnergyRows._evaluate, v), strict=True)
        # Parts without labels of energies have arrays of no shape.
        counts = [part for part in counts if len(part)] or counts[:1]
        return sum(losses), np.concatenate(counts), np.concatenate(residuals)

    def add_to(self, triangle, v, **options):
        """See `skqeq.solvers._gauss_newton.add_linearized`."""
        gradient, scale = np.zeros_like(v), 0.0
        for R, n_rows, slope, size in self._map(_reduced_rows, v, options):
            triangle.merge(R, n_rows)
            gradient += slope
            scale += size
        return gradient, scale

    def _map(self, function, *arguments):
        budget = self.max_bytes // (self.parts.n_jobs * len(self.parts))
        return self.parts.map(_on_rows, self.targets, self.ease, budget, function, arguments)


def _on_rows(part, names, ease, max_bytes, function, arguments):
    """Call a function of the rows of a part, which the worker keeps for the next call."""
    if names not in part.store:
        model, features, labels, weights, first, _ = part
        noise = model._noise(features.structures, labels, weights, first)
        part.store[names] = EnergyRows(model, features, labels, noise, names, first)
        part.store[names].max_bytes = max_bytes
    rows = part.store[names]
    return function(rows if ease == 1.0 else rows.with_ease(ease), *arguments)


def _reduced_rows(rows, v, options):
    triangle = empty(len(v))
    gradient, scale = add_linearized(rows, triangle, v, **options)
    return triangle.augmented, triangle.n_rows, gradient, scale


def _feature_jacobians(slopes, factors):
    """Jacobians of both fields for some sets of factors; of the same features at once."""
    (first, _), (second, _) = slopes
    sets = [np.stack(f) for f in factors]
    if first is not second:
        return first.jacobian(sets[0]), second.jacobian(sets[1])
    both = first.jacobian(np.concatenate(sets))
    return tuple(zip(*(np.split(part, 2) for part in both), strict=True))


def _joined(pieces):
    jacobians, residuals = zip(*pieces, strict=True)
    return np.concatenate(jacobians), np.concatenate(residuals)
