"""The Coulomb interaction of Gaussian charges as a linear operator, for systems of any size.

The interaction is divided into parts, see `_levels`. No array of size ``n_atoms^2`` is stored:
pairs of neighbours form a sparse matrix, and the sums over plane waves are computed by two
transforms, see `_waves`. Products of the matrix with charges, and derivatives of ``q C p``, are
computed from the same parts.
"""

from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from .._pythran import ewald_pair_gradient, ewald_pair_values
from ..structures import reduced_cell
from ._levels import Division, Level
from ._splitting import real_cutoff, slab_gap, wave_cutoff
from ._strain import project_strain

# Widths S of the smooth part that are tried, in units of the width s that separates pairs from
# waves.
BANDS = (1.0, 2.0, 3.0, 5.0, 8.0)
# Edge length of the cubic bins for an estimate of the volume that atoms occupy, Angstrom.
BIN = 4.0


def coulomb_operator(structure, widths, accuracy):
    """Make the operator for the boundary conditions of a structure.

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
    """The Coulomb matrix C as a linear operator, in units of ``k_e / Angstrom``.

    There is a subclass for each kind of boundary conditions. It defines the positions of the atoms,
    the possible cells for the plane waves, the terms at k = 0, and the possible strains.

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
        Positions of the atoms, which may be wrapped or shifted; Angstrom.
    volume : float
        Volume of the cell, or of the box around the atoms, Angstrom^3.
    occupied : float
        The part of the volume that contains atoms, Angstrom^3. It gives the density of the atoms.
    division : Division
        Widths, cutoffs and cells of the parts of the interaction.
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
        """Yield alternative sets of levels for the interaction of Gaussians of width sigma.

        Parameters
        ----------
        sigma : float
            The width s that separates pairs from waves, Angstrom.
        tolerance : float
            Upper bound on the error of each level, 1/Angstrom.

        Yields
        ------
        levels : tuple of Level
        """
        raise TypeError(f"{type(self).__name__} has no levels")

    def _box(self, cutoff):
        """Cell for the neighbour search, and whether the cell is periodic."""
        return self.vectors, True

    def _mean(self, q):
        """The contribution of the wave k = 0 to ``C q``."""
        return 0.0

    def _mean_gradient(self, q, p):
        """Derivatives of ``q _mean(p)`` with respect to positions and strain."""
        return 0.0, 0.0

    def _strain(self, virial, gradient):
        """The derivatives with respect to those strains that the structure can have."""
        return virial

    # ---- the sums ---------------------------------------------------------------------------

    def __matmul__(self, q):
        """``C q`` for charges q of shape (n_atoms,)."""
        # The matrix of pairs is symmetric; storing its upper triangle halves the memory.
        upper, diagonal = self._short
        phi = upper @ q + upper.T @ q + diagonal * q + self._mean(q)
        for _, transform, g in self._waves:
            phi += transform.backward(g * transform.forward(q))
        return phi

    def gradient(self, q, p):
        """Derivatives of ``q C p`` with respect to the positions and to a strain.

        A strain e moves the atoms to ``(1 + e) r``. It therefore changes k by ``-e k`` and V by
        ``V trace(e)``, and does not change the phases ``k . r``.

        Parameters
        ----------
        q, p : ndarray of shape (n_atoms,)
            Any two sets of charges.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            Derivatives with respect to the positions, e^2/Angstrom^2 if q and p are in e.
        virial : ndarray of shape (3, 3)
            Derivatives with respect to a strain, symmetric, e^2/Angstrom. For a slab, components
            out of the plane are zero.
        """
        kappa, same = 1.0 / self.division.sigma, np.array_equal(q, p)
        gradient, virial = ewald_pair_gradient(*self.pairs, self.widths, q, p, kappa)
        for level, transform, g in self._waves:
            S_q = S_p = transform.forward(q)
            # Each term is a set of charges, and the structure factors of the charges whose
            # potential acts on them.
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
        """Half of all pairs within the cutoff, including pairs of an atom with its images."""
        if np.isinf(self.division.real):
            i, j = np.triu_indices(self.n_atoms, 1)
            return i, j, self.positions[j] - self.positions[i]
        box, periodic = self._box(self.division.real)
        from vesin import NeighborList  # not at the top: it imports torch if that is installed

        neighbors = NeighborList(cutoff=self.division.real, full_list=False)
        i, j, D = neighbors.compute(self.positions, box, periodic, "ijD", copy=False)
        return i.astype(np.int64), j.astype(np.int64), D.copy()

    @cached_property
    def _short(self):
        """The sum over pairs: the strict upper triangle of its sparse matrix, and the diagonal."""
        i, j, D = self.pairs
        values = ewald_pair_values(i, j, D, self.widths, 1.0 / self.division.sigma)
        upper = csr_array((values, (i, j)), shape=(self.n_atoms, self.n_atoms))
        diagonal = 1 / (np.sqrt(np.pi) * self.widths) - np.sqrt(2 / np.pi) / self.division.sigma
        return upper, diagonal


class CrystalOperator(CoulombOperator):
    """C of a crystal: one level, with the plane waves of the crystal's cell."""

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
        # The term is proportional to 1 / V.
        return 0.0, -(q @ self._mean(p)) * np.eye(3)


class SlabOperator(CoulombOperator):
    """C of a slab: plane waves in a crystal of slabs, minus the interaction between the slabs."""

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
        # If some axes are periodic and others are not, the neighbour search takes quadratic time.
        # All axes are therefore made periodic; no pair crosses the gap, which is wider than the
        # cutoff.
        return np.stack([*self.vectors, (self.thickness + 1.1 * cutoff) * self.normal]), True

    def _smooth(self):
        """``2 pi / V`` and ``sigma^2 + L^2 / 6`` for the cell of the smooth part."""
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
        # The period L of the slabs is not a property of the structure, and is not strained.
        return -2 * factor * np.outer(along_z, self.normal), -(q @ self._mean(p)) * np.eye(3)

    def _strain(self, virial, gradient):
        return project_strain(virial, self.normal)


class MoleculeOperator(CoulombOperator):
    """C of a molecule: a sum over all pairs if it is small, otherwise plane waves.

    The smooth part of the interaction is truncated at a radius, see `_levels`.
    """

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
            # The potential is cut off at the radius, and a Gaussian smears this edge. Inside the
            # radius, the tail of the smeared edge must be below the tolerance. Unlike in
            # `real_cutoff`, the tail is not divided by the distance.
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
        # A strain moves the atoms of a molecule only: its virial follows from the forces. The cells
        # of the waves are an auxiliary quantity, and are not strained.
        return gradient.T @ self.positions


def occupied_volume(positions):
    """Volume of the bins that contain atoms, Angstrom^3."""
    bins = np.floor(positions / BIN).astype(np.int64)
    return BIN**3 * len(np.unique(bins, axis=0))


def _square(k):
    return k[0] ** 2 + k[1] ** 2 + k[2] ** 2
