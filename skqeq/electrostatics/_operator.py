"""The Coulomb interaction of Gaussian charges as a linear operator, for systems of any size.

`_levels` describes how the interaction is divided. Nothing of size ``n_atoms^2`` is stored: pairs
of neighbours form a sparse matrix, and the waves act through two transforms. Products of the matrix
with charges and derivatives of ``q C p`` come from the same parts.
"""

from functools import cached_property

import numpy as np
from scipy.sparse import csr_array
from vesin import NeighborList

from .._pythran import ewald_pair_gradient, ewald_pair_values
from ..structures import reduced_cell
from ._levels import Division, Level
from ._plane import project_strain
from ._splitting import real_cutoff, slab_gap, wave_cutoff

# Widths of the smooth part that are tried, in units of the width that divides pairs from waves.
BANDS = (1.0, 2.0, 3.0, 5.0, 8.0)
# Edge of the bins that are counted to estimate the volume where atoms are, Angstrom.
BIN = 4.0


def coulomb_operator(structure, widths, accuracy):
    """The operator for the boundary conditions of a structure.

    Parameters
    ----------
    structure : Structure
        A molecule, a slab or a crystal.
    widths : ndarray of shape (n_atoms,)
        Widths ``alpha`` of the charges, Angstrom.
    accuracy : float
        Upper bound on the error of every matrix element, 1/Angstrom.

    Returns
    -------
    operator : CoulombOperator
    """
    if not structure.periodic:
        kind = MoleculeOperator
    else:
        kind = CrystalOperator if all(structure.pbc) else SlabOperator
    return kind(structure, widths, accuracy)


class CoulombOperator:
    """C, in units of ``k_e / Angstrom``, acting on charges.

    There is a subclass for each kind of boundary conditions; it places the atoms, offers cells for
    the waves, and knows the terms at k = 0 and the strains that are possible.

    Parameters
    ----------
    structure : Structure
        A molecule, a slab or a crystal, as the subclass requires.
    widths : ndarray of shape (n_atoms,)
        Widths ``alpha`` of the charges, Angstrom.
    accuracy : float
        Upper bound on the error of every matrix element, 1/Angstrom.

    Attributes
    ----------
    vectors : ndarray of shape (n_periodic, 3)
        Reduced periodic vectors, Angstrom.
    positions : ndarray of shape (n_atoms, 3)
        Angstrom.
    volume : float
        Volume of the cell, or of the box around the atoms, Angstrom^3.
    occupied : float
        The part of it where atoms are, which gives their density; Angstrom^3.
    division : Division
        Widths, cutoffs and cells.
    pairs : tuple of ndarray
        Indices i and j of the pairs of neighbours, and the vectors from i to j.
    """

    def __init__(self, structure, widths, accuracy):
        self.widths, self.n_atoms = widths, len(structure)
        self._place(structure)
        self.occupied = occupied_volume(self.positions)
        self.division = Division.choose(self, np.sqrt(2.0) * widths.max(), accuracy)
        self._waves = []
        for level in self.division.levels:
            transform = level.transform(self.positions, accuracy / 4)
            self._waves.append((level, transform, level.weights(_square(transform.k))[0]))
        self.pairs = self._find_pairs()

    # ---- for subclasses: boundary conditions ------------------------------------------------

    vectors = np.empty((0, 3))

    def _place(self, structure):
        """Set `vectors` and `positions`."""
        raise TypeError(f"{type(self).__name__} does not place its atoms")

    def levels(self, sigma, tolerance):
        """Yield alternative ways to sum the waves of Gaussians wider than sigma.

        Parameters
        ----------
        sigma : float
            Width that divides pairs from waves, Angstrom.
        tolerance : float
            Upper bound on the error of each level, 1/Angstrom.

        Yields
        ------
        levels : tuple of Level
        """
        raise TypeError(f"{type(self).__name__} has no levels")

    def _box(self, cutoff):
        """Cell for the search of neighbours, and whether it is periodic."""
        return self.vectors, True

    def _mean(self, q):
        """The part of ``C q`` from the wave k = 0."""
        return 0.0

    def _mean_gradient(self, q, p):
        """Derivatives of ``q _mean(p)`` with respect to positions and strain."""
        return 0.0, 0.0

    def _strain(self, virial, gradient):
        """The virial, reduced to strains that the structure can have."""
        return virial

    # ---- the sums ---------------------------------------------------------------------------

    def __matmul__(self, q):
        """``C q`` for charges q of shape (n_atoms,)."""
        upper, diagonal = self._short
        phi = upper @ q + upper.T @ q + diagonal * q + self._mean(q)
        for _, transform, g in self._waves:
            phi += transform.backward(g * transform.forward(q))
        return phi

    def gradient(self, q, p):
        """Derivatives of ``q C p`` with respect to the positions and to a strain.

        A strain e moves ``r -> (1 + e) r``, hence k by ``-e k`` and V by ``V trace(e)``, and leaves
        the phases ``k . r`` alone.

        Parameters
        ----------
        q, p : ndarray of shape (n_atoms,)
            Any two sets of charges.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            e^2/Angstrom^2 if q and p are in e.
        virial : ndarray of shape (3, 3)
            Symmetric, e^2/Angstrom; for a slab zero outside the plane.
        """
        kappa, same = 1.0 / self.division.sigma, np.array_equal(q, p)
        gradient, virial = ewald_pair_gradient(*self.pairs, self.widths, q, p, kappa)
        for level, transform, g in self._waves:
            S_q = S_p = transform.forward(q)
            # Charges, and the structure factor of the charges whose potential they are in.
            terms = [(2 * q, S_p)]
            if not same:
                S_p = transform.forward(p)
                terms = [(q, S_p), (p, S_q)]
            for charges, S in terms:
                for a, k_a in enumerate(transform.k):
                    gradient[:, a] += charges * transform.backward(1j * k_a * g * S)
            energies = (S_q.conj() * S_p).real
            dg_dk2 = level.weights(_square(transform.k))[1]
            virial -= transform.total(g * energies) * np.eye(3)
            for a, b in np.ndindex(3, 3):
                k_ab = transform.k[a] * transform.k[b]
                virial[a, b] -= 2 * transform.total(dg_dk2 * energies * k_ab)
        mean_gradient, mean_virial = self._mean_gradient(q, p)
        gradient += mean_gradient
        return gradient, self._strain(virial + mean_virial, gradient)

    def _find_pairs(self):
        """Half of all pairs within the cutoff, including those of an atom with its own images."""
        if np.isinf(self.division.real):
            i, j = np.triu_indices(self.n_atoms, 1)
            return i, j, self.positions[j] - self.positions[i]
        box, periodic = self._box(self.division.real)
        neighbors = NeighborList(cutoff=self.division.real, full_list=False)
        i, j, D = neighbors.compute(self.positions, box, periodic, "ijD", copy=False)
        return i.astype(np.int64), j.astype(np.int64), D.copy()

    @cached_property
    def _short(self):
        """The sum over pairs: upper triangle of its matrix, and the diagonal."""
        i, j, D = self.pairs
        values = ewald_pair_values(i, j, D, self.widths, 1.0 / self.division.sigma)
        upper = csr_array((values, (i, j)), shape=(self.n_atoms, self.n_atoms))
        diagonal = 1 / (np.sqrt(np.pi) * self.widths) - np.sqrt(2 / np.pi) / self.division.sigma
        return upper, diagonal


class CrystalOperator(CoulombOperator):
    """C of a crystal: one level of waves, in the cell itself."""

    def _place(self, structure):
        self.vectors, _ = reduced_cell(structure)
        # The interaction is periodic, so atoms may be moved into the cell.
        self.positions = structure.positions @ np.linalg.inv(self.vectors) % 1.0 @ self.vectors
        self.volume = abs(np.linalg.det(self.vectors))

    def levels(self, sigma, tolerance):
        yield (Level(self.vectors, sigma, wave_cutoff(sigma, self.vectors, tolerance)),)

    def _mean(self, q):
        w2 = self.widths**2
        smooth = (self.division.sigma**2 - w2) * q.sum() - w2 @ q
        return -(2 * np.pi / self.volume) * smooth

    def _mean_gradient(self, q, p):
        # Proportional to 1 / V.
        return 0.0, -(q @ self._mean(p)) * np.eye(3)


class SlabOperator(CoulombOperator):
    """C of a slab: waves in a crystal of slabs, less the interaction between the slabs."""

    def _place(self, structure):
        cell, _ = reduced_cell(structure)
        self.vectors, self.normal = cell[:2], cell[2]
        fractions = structure.positions @ np.linalg.inv(cell)
        fractions[:, :2] %= 1.0
        self.positions = fractions @ cell
        self.z = fractions[:, 2] - fractions[:, 2].mean()
        self.area = abs(np.linalg.det(cell))
        self.thickness = np.ptp(self.z)
        self.volume = self.area * max(self.thickness, BIN)

    def levels(self, sigma, tolerance):
        for factor in BANDS:
            top = factor * sigma
            smooth = self._level(slab_gap(self.vectors, top, tolerance), top, tolerance)
            if factor == 1.0:
                yield (smooth,)
            else:
                reach = real_cutoff(top, 0.0, self.vectors, tolerance)
                yield self._level(reach, sigma, tolerance, top), smooth

    def _level(self, gap, sigma, tolerance, top=np.inf):
        cell = np.stack([*self.vectors, (self.thickness + gap) * self.normal])
        return Level(cell, sigma, wave_cutoff(sigma, cell, tolerance), top)

    def _box(self, cutoff):
        # With an open axis beside periodic ones the search would take quadratic time. The gap is
        # wider than the cutoff, so that no pair crosses it.
        return np.stack([*self.vectors, (self.thickness + 1.1 * cutoff) * self.normal]), True

    def _smooth(self):
        """``2 pi / V`` and ``sigma^2 + L^2 / 6`` of the cell of the smooth part."""
        level = self.division.levels[-1]
        length = np.linalg.norm(level.cell[2])
        return 2 * np.pi / level.volume, level.sigma**2 + length**2 / 6

    def _mean(self, q):
        factor, constant = self._smooth()
        z = self.z
        return -factor * ((constant + z**2) * q.sum() - 2 * z * (z @ q) + z**2 @ q)

    def _mean_gradient(self, q, p):
        factor, _ = self._smooth()
        z, Q, P = self.z, q.sum(), p.sum()
        along_z = q * (P * z - p @ z) + p * (Q * z - q @ z)
        # The distance of the slabs is no property of the structure, and is not strained.
        return -2 * factor * np.outer(along_z, self.normal), -(q @ self._mean(p)) * np.eye(3)

    def _strain(self, virial, gradient):
        return project_strain(virial, self.normal)


class MoleculeOperator(CoulombOperator):
    """C of a molecule: all pairs if it is small, else waves of a truncated interaction."""

    def _place(self, structure):
        low, high = structure.positions.min(axis=0), structure.positions.max(axis=0)
        self.positions = structure.positions - 0.5 * (low + high)
        self.extent = high - low
        self.volume = np.prod(np.maximum(self.extent, BIN))
        self.diameter = 2 * np.sqrt(_square(self.positions.T).max())

    def levels(self, sigma, tolerance):
        for factor in BANDS:
            top = factor * sigma
            reach = real_cutoff(top, 0.0, self.vectors, tolerance)
            # The potential is cut off at the radius. A Gaussian smears this edge, and inside the
            # radius its tail is not divided by the distance, as it is in `real_cutoff`.
            tail = np.sqrt(max(4.0, 2 * np.log(np.sqrt(2 / np.pi) / (top * tolerance))))
            radius = self.diameter + max(reach, top * tail)
            smooth = self._level(radius + reach, top, tolerance / 2, radius=radius)
            if factor == 1.0:
                yield (smooth,)
            else:
                yield self._level(reach, sigma, tolerance, top=top), smooth

    def _box(self, cutoff):
        return np.eye(3), False

    def _level(self, space, sigma, tolerance, **limits):
        cell = np.diag(self.extent + space)
        return Level(cell, sigma, wave_cutoff(sigma, cell, tolerance), **limits)

    def _strain(self, virial, gradient):
        # The cells of the waves are no property of a molecule: its virial follows from the forces.
        return gradient.T @ self.positions


def occupied_volume(positions):
    """Volume of the bins that hold atoms, Angstrom^3."""
    bins = np.floor(positions / BIN).astype(np.int64)
    return BIN**3 * len(np.unique(bins, axis=0))


def _square(k):
    return k[0] ** 2 + k[1] ** 2 + k[2] ** 2
