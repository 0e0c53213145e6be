"""Rows of a least-squares problem for energies, forces and stress."""

from copy import copy

import numpy as np

from ..parameters import qeq_electronegativities
from ..targets import TARGETS
from ..targets._observables import ENERGIES, GRADIENTS, VOIGT
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


class EnergyRows:
    """Labels of energies, forces and stress, linearised at any weights.

    With ``u = chi + A q - field . r``, the potential that is the same for all atoms at the
    equilibrium, and ``dq/dw = -P phi``,

        dE / dw = phi^T q,
        dF_ja / dw = -q . dphi/dr_ja + (du/dr_ja) P phi,
        dW_ab / dw = q . dphi/de_ab - (du/de_ab) P phi,

    W the derivative of the energy with respect to a strain e. The fixed point of Vondrák et al.
    (J. Chem. Phys. 159, 054109 (2023)) leaves out the terms of P, the response of the charges.

    Nothing is kept between two linearisations but the labels.

    Parameters
    ----------
    model : ChargeModel
        Prepared for the elements of the structures.
    features : StructureFeatures
        Of all structures.
    labels : Labels
        Their labels.
    noise : dict of {str: ndarray of shape (n_structures,)}
        Noise of every target; infinite for structures without weight.
    """

    def __init__(self, model, features, labels, noise):
        self.model, self.features, self.labels, self.noise = model, features, labels, noise
        known = {n: labels.known(n) & np.isfinite(noise[n]) for n in ENERGIES if n in labels.names}
        self.names = [[n for n in known if known[n][i]] for i in range(len(features))]
        sloped = np.any([known[n] for n in GRADIENTS if n in known] or [False], axis=0)
        sloped = np.broadcast_to(sloped, len(features))
        # Structures with forces or stress, and those with nothing but an energy.
        self.sloped = np.flatnonzero(sloped)
        self.plain = np.flatnonzero(known.get("energy", False) & ~sloped)

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
            rows = RowList(len(self.model.elements_))
            for s, (i, solution) in enumerate(solutions):
                residual, weight = self._residual(i, solution)
                counts = weight * self.model._counts(solution.structure)
                rows.add(weight * solution.charges[None], residual, block.offsets[s], counts)
            yield from self.model._design(block, rows)
        pieces, size = [], 0
        for _, [(i, solution)] in self._solutions(v, self.sloped, gradients=True):
            residual, weight = self._residual(i, solution)
            J = self._jacobian(solution, self.names[i], response)
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

    def eased(self):
        """Yield the same rows with more noise of energies, less and less of it.

        Charges enter the energy to second order, and so strongly that with its true noise hardly
        any step along a tangent is good before the forces are about right.
        """
        if len(self.sloped) and "energy" in self.noise:
            for factor in EASE:
                rows = copy(self)
                rows.noise = self.noise | {"energy": factor * self.noise["energy"]}
                yield rows

    def start(self):
        """Electronegativities of the elements to start from, V.

        Those of QEq, times what makes charges of common size of the charges. Forces on small
        charges take electronegativities that vary so much with the geometry that nothing is linear.
        """
        model, chi = self.model, qeq_electronegativities()[self.model.elements_]
        sizes = []
        for i in np.concatenate([self.plain, self.sloped]):
            equilibrium, _, slots = model._equilibrium(self.features.structures[i], i)
            sizes.append(np.abs(equilibrium.project(chi[slots])).mean())
        return chi * max(1.0, START_CHARGE / max(*sizes, 1e-3 * START_CHARGE))

    def toward_start(self):
        """Yield linear rows that pull the electronegativities to those of `start`."""
        chi = self.start()
        labelled = self.features[np.concatenate([self.plain, self.sloped])]
        for _, block in labelled.blocks():
            rows = RowList(len(self.model.elements_))
            for structure, first in zip(block.structures, block.offsets[:-1], strict=True):
                goal = self.model._onehot(structure.numbers) @ chi
                rows.add(np.eye(len(structure)), goal, first)
            yield from self.model._design(block, rows)

    def compositions(self):
        """Numbers of atoms (n, n_elements) and labelled energies (n,), in units of the noise."""
        structures, noise = self.features.structures, self.noise["energy"]
        some = [i for i, names in enumerate(self.names) if "energy" in names]
        counts = [self.model._counts(structures[i]) / noise[i] for i in some]
        return np.array(counts), self.labels.table["energy"][some] / noise[some]

    def _solutions(self, v, index, gradients=False):
        """Blocks of the structures `index`, and lists of their numbers and solutions."""
        if len(index):
            coef, some = self.model._scale() * v, self.features[index]
            blocks = self.model._solutions(some, coef, gradients, numbers=index)
            for first, block, solutions in blocks:
                yield block, [(index[first + s], found) for s, found in enumerate(solutions)]

    def _residual(self, i, solution):
        """Weighted residuals of the labels of structure i, and weights; zero where unknown."""
        residuals, weights = [], []
        for name in self.names[i]:
            label, noise = self.labels.values(name, i), self.noise[name][i]
            weight = np.where(np.isnan(label), 0.0, TARGETS[name].weights / noise)
            residuals.append(weight * np.nan_to_num(TARGETS[name].observe(solution) - label))
            weights.append(weight)
        return np.concatenate(residuals), np.concatenate(weights)

    def _jacobian(self, solution, names, response):
        """Derivatives of the named targets with respect to the weights."""
        q, near, structure = solution.charges, solution.near, solution.structure
        forces, virial = near.jacobian(q)
        # What charges do, as rows over atoms.
        move, strain = np.zeros((3 * len(q), len(q))), np.zeros((9, len(q)))
        if response:
            both = np.concatenate(solution.potential_gradient())
            both = solution.equilibrium.project(np.ascontiguousarray(both.T)).T
            move, strain = both[:-9], both[-9:]
        voigt = [3 * a + b for a, b in VOIGT]
        parts = {
            "energy": (q[None], 0.0, self.model._counts(structure)[None]),
            "forces": (move, -forces, 0.0),
        }
        if structure.volume:
            volume = structure.volume
            parts["stress"] = (-strain[voigt] / volume, virial[voigt] / volume, 0.0)
        atoms = np.concatenate([parts[name][0] for name in names])
        counts = np.zeros((len(atoms), len(self.model.elements_)))
        J = near.contract(atoms)
        start = 0
        for name in names:
            some = slice(start, start + len(parts[name][0]))
            J[some] += parts[name][1]
            counts[some] = parts[name][2]
            start = some.stop
        return np.concatenate([J, atoms @ self.model._onehot(structure.numbers), counts], axis=1)


def _joined(pieces):
    jacobians, residuals = zip(*pieces, strict=True)
    return np.concatenate(jacobians), np.concatenate(residuals)
