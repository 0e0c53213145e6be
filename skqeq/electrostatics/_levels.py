"""How the Coulomb interaction of a large system is divided into parts that are cheap to compute.

The interaction has three parts, of short, medium and long range. The short part is summed over
pairs. The other two are levels: sums over the plane waves (reciprocal-space vectors) of a cell::

    1 / r = short(r) + band(r) + smooth(r)
          = erfc(r / (sqrt(2) s)) / r                                    pairs of neighbours
          + (erf(r / (sqrt(2) s)) - erf(r / (sqrt(2) S))) / r            waves of a narrow cell
          + erf(r / (sqrt(2) S)) / r                                     few waves of a wide cell

A crystal needs no band: ``S = s``, and the waves of the smooth part are those of the crystal's
cell. For a slab or a molecule, the cell of the waves must include empty space, and a wider cell has
more waves. The band contains short wavelengths. It vanishes beyond a distance of about 6 S, so that
it needs little empty space. The smooth part needs much empty space, but has long wavelengths only.

The smooth part of a molecule of diameter D is cut off at a radius R, which exceeds the distance of
the farthest pair. Its Fourier transform ``(4 pi / k^2) (1 - cos k R) exp(-S^2 k^2 / 2)`` has no
singularity. In a cell wider than D + R it gives the exact potential of an isolated molecule (Vico,
Greengard, Ferrando, J. Comput. Phys. 323, 191 (2016)). The smooth part of a slab is treated as in
`EwaldSum`. The division into parts of different range is the dual-space multilevel kernel splitting
of Greengard and Jiang (2023).

Let n be the number of atoms, n_p the number of pairs, and m the number of waves in a level. About a
dozen products with the matrix cost::

    t_pair n_p + sum over levels of min(t_direct n m, t_atom n + t_mode m)

The widths s and S with the lowest cost are used.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec

import numpy as np

from ._splitting import real_cutoff
from ._waves import DirectTransform, FastTransform, wave_indices

# Measured times of a dozen products, ns. PAIR_COST: find and store a pair. DIRECT_COST: one atom
# and one wave, by structure factors. The last three are for a non-uniform FFT: per atom, per wave,
# and its overhead.
PAIR_COST, DIRECT_COST, ATOM_COST, MODE_COST, PLAN_COST = 350.0, 40.0, 6000.0, 1500.0, 2e7
# In a molecule with fewer atoms, the interaction is summed over all pairs, without waves.
SMALL_MOLECULE = 800
# Number of widths s that are tried.
N_WIDTHS = 14
# The accuracy is shared among this many sources of error.
SHARES = 8


@cache
def has_finufft():
    """Whether finufft, the library for non-uniform FFTs, is installed."""
    return find_spec("finufft") is not None


@dataclass(frozen=True)
class Level:
    """A part of the interaction that is summed over the plane waves of a cell.

    Attributes
    ----------
    cell : ndarray of shape (3, 3)
        Cell vectors in rows, Angstrom.
    sigma : float
        The width s, Angstrom: this part is the interaction of Gaussians of this width.
    k_max : float
        Cutoff of the waves, 1/Angstrom.
    top : float
        The width S, Angstrom: the interaction of Gaussians of this width is subtracted, because
        another level contains it. Infinite if nothing is subtracted.
    radius : float
        Distance at which the interaction is cut off, Angstrom; infinite for periodic systems.
    """

    cell: np.ndarray
    sigma: float
    k_max: float
    top: float = np.inf
    radius: float = np.inf

    @cached_property
    def volume(self):
        """Volume of the cell, Angstrom^3."""
        return abs(np.linalg.det(self.cell))

    def weights(self, k2):
        """Weights g of waves with squared lengths k2, 1/Angstrom, and the derivatives dg / dk2."""
        inner = np.maximum(k2, 1e-30)
        g = np.exp(-0.5 * self.sigma**2 * k2)
        dg = -0.5 * self.sigma**2 * g
        at_zero = 0.0
        if np.isfinite(self.top):
            outer = np.exp(-0.5 * self.top**2 * k2)
            g, dg = g - outer, dg + 0.5 * self.top**2 * outer
            at_zero = 0.5 * (self.top**2 - self.sigma**2)
        elif np.isfinite(self.radius):
            # The virial of a molecule follows from its forces, so this derivative is not needed.
            g, dg = g * (1.0 - np.cos(self.radius * np.sqrt(k2))), np.nan
            at_zero = 0.5 * self.radius**2
        within = k2 <= self.k_max**2
        factor = 4 * np.pi / self.volume * within
        g = np.where(k2 == 0, at_zero, g / inner)
        return factor * g, factor * (dg - g) / inner

    def cost(self, n_atoms):
        """Time of the faster transform, ns, and whether that is the non-uniform FFT."""
        # The FFT uses all waves in a box. Structure factors use half of the waves in the ball that
        # fits into the box, a fraction pi / 12.
        modes = np.prod(2.0 * wave_indices(self.cell, self.k_max) + 1)
        direct = DIRECT_COST * n_atoms * np.pi / 12 * modes
        fast = ATOM_COST * n_atoms + MODE_COST * modes + PLAN_COST
        if not has_finufft() or direct < fast:
            return direct, False
        return fast, True

    def _total(self):
        """Upper bound on twice the sum of all weights.

        The error of the matrix is the relative error of the transforms times this sum. The sum of
        the weights is the potential at the centre of a Gaussian of width sigma. In a long cell, the
        waves along the long vector are added; they make the potential of a crystal of sheets.
        """
        length2 = np.einsum("va,va->v", self.cell, self.cell).max()
        return 2 * (0.8 / self.sigma + np.pi * length2 / (3 * self.volume))

    def transform(self, positions, tolerance):
        """The faster of the two transforms between atoms at these positions and the waves."""
        fractions = positions @ np.linalg.inv(self.cell)
        if self.cost(len(positions))[1]:
            return FastTransform(fractions, self.cell, self.k_max, tolerance / self._total())
        return DirectTransform(fractions, self.cell, self.k_max)


@dataclass(frozen=True)
class Division:
    """Widths, cutoffs and cells of all parts of the interaction.

    Attributes
    ----------
    sigma : float
        The width s that separates pairs from waves, Angstrom; infinite if there are no waves.
    real : float
        Cutoff of the pairs, Angstrom.
    levels : tuple of Level
        The parts that are summed over waves; the smooth part is the last.
    """

    sigma: float
    real: float
    levels: tuple

    @classmethod
    def choose(cls, geometry, width, accuracy):
        """The cheapest division with the required accuracy.

        Parameters
        ----------
        geometry : CoulombOperator
            Provides the number of atoms, the periodic vectors, the volume and the `levels`.
        width : float
            Largest ``gamma_ij``, Angstrom.
        accuracy : float
            Upper bound on the error of any matrix element, 1/Angstrom.

        Returns
        -------
        division : Division
        """
        n, tolerance = geometry.n_atoms, accuracy / SHARES
        best, division = np.inf, None
        if not len(geometry.vectors):
            best, division = PAIR_COST * n * (n - 1) / 2, cls(np.inf, np.inf, ())
            if n < SMALL_MOLECULE:
                return division
        spacing = (geometry.occupied / n) ** (1 / 3)
        widest = max(3.0 * spacing, 0.2 * geometry.volume ** (1 / 3))
        sigmas = np.maximum(width, np.geomspace(0.2 * spacing, widest, N_WIDTHS))
        reals = real_cutoff(sigmas, width, geometry.vectors, tolerance)
        for sigma, real in zip(sigmas.tolist(), reals.tolist()):
            # Estimate the number of pairs from the density of the atoms. In a nearly empty cell it
            # is limited to all pairs in the cell, plus pairs with distant images.
            ball = 2 * np.pi / 3 * real**3
            pairs = PAIR_COST * n * min(ball / spacing**3, n / 2 + n * ball / geometry.volume)
            for levels in geometry.levels(sigma, tolerance):
                cost = pairs + sum(level.cost(n)[0] for level in levels)
                if cost < best:
                    best, division = cost, cls(sigma, real, levels)
        return division
