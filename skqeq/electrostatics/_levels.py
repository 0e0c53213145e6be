"""How the Coulomb interaction of a large system is divided so that every part is cheap.

It has three parts, of short, medium and long range::

    1 / r = short(r) + band(r) + smooth(r)
          = erfc(r / (sqrt(2) s)) / r                                    pairs of neighbours
          + (erf(r / (sqrt(2) s)) - erf(r / (sqrt(2) S))) / r            waves of a narrow cell
          + erf(r / (sqrt(2) S)) / r                                     few waves of a wide cell

A crystal needs no band: ``S = s``, and its own cell holds the waves of the smooth part. A slab or a
molecule needs empty space around it in the cell of the waves, and the wider the cell, the more
waves there are. The band contains the short waves, and vanishes beyond some 6 S, so that it needs
little space; the smooth part needs much space, but has long waves only.

The smooth part of a molecule of diameter D is cut off at a radius R beyond the farthest pair. Its
transform is then ``(4 pi / k^2) (1 - cos k R) exp(-S^2 k^2 / 2)``, which has no singularity, and in
a cell wider than D + R it gives the exact potential of an isolated molecule (Vico, Greengard,
Ferrando, J. Comput. Phys. 323, 191 (2016)). The smooth part of a slab is treated as in `EwaldSum`.
The division into parts of different range is Greengard and Jiang's dual-space multilevel kernel
splitting (2023).

The cost of about a dozen products with the matrix of n atoms, with n_p pairs and m waves in each
level, is::

    t_pair n_p + sum over levels of min(t_direct n m, t_atom n + t_mode m)

The widths s and S of least cost are used.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec

import numpy as np

from ._splitting import real_cutoff
from ._waves import DirectTransform, FastTransform, wave_indices

# Costs of a dozen products in ns, measured: a pair, found and stored; an atom times a wave by
# structure factors; an atom, a wave, and the overhead of a non-uniform FFT.
PAIR_COST, DIRECT_COST, ATOM_COST, MODE_COST, PLAN_COST = 350.0, 40.0, 6000.0, 1500.0, 2e7
# A molecule with fewer atoms is a sum over all pairs, without waves.
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
    """A part of the interaction that is summed over the waves of a cell.

    Attributes
    ----------
    cell : ndarray of shape (3, 3)
        Angstrom.
    sigma : float
        Width below which the part is smooth, Angstrom.
    k_max : float
        Cutoff of the waves, 1/Angstrom.
    top : float
        Width above which another level takes over, Angstrom; infinite if there is none.
    radius : float
        Distance up to which the interaction is needed, Angstrom; infinite for periodic systems.
    """

    cell: np.ndarray
    sigma: float
    k_max: float
    top: float = np.inf
    radius: float = np.inf

    @cached_property
    def volume(self):
        """Angstrom^3."""
        return abs(np.linalg.det(self.cell))

    def weights(self, k2):
        """Weight g of waves of squared length k2, 1/Angstrom, and its derivative by k2."""
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
        """Cost of the cheaper transform, ns, and whether that is the non-uniform FFT."""
        # The FFT has all waves in a box; structure factors need half of the ball in it, pi / 12.
        modes = np.prod(2.0 * wave_indices(self.cell, self.k_max) + 1)
        direct = DIRECT_COST * n_atoms * np.pi / 12 * modes
        fast = ATOM_COST * n_atoms + MODE_COST * modes + PLAN_COST
        if not has_finufft() or direct < fast:
            return direct, False
        return fast, True

    def _total(self):
        """Bound of twice the sum of all weights.

        Errors of the transforms enter the matrix multiplied by it. The sum of the weights is the
        potential in the centre of a Gaussian of width sigma. A long cell adds the waves along it,
        which make the potential in a crystal of sheets.
        """
        length2 = np.einsum("va,va->v", self.cell, self.cell).max()
        return 2 * (0.8 / self.sigma + np.pi * length2 / (3 * self.volume))

    def transform(self, positions, tolerance):
        """The cheaper of the two transforms between atoms at these positions and the waves."""
        fractions = positions @ np.linalg.inv(self.cell)
        if self.cost(len(positions))[1]:
            return FastTransform(fractions, self.cell, self.k_max, tolerance / self._total())
        return DirectTransform(fractions, self.cell, self.k_max)


@dataclass(frozen=True)
class Division:
    """Widths, cutoffs and cells of all parts.

    Attributes
    ----------
    sigma : float
        Width that divides pairs from waves, Angstrom; infinite if there are no waves.
    real : float
        Cutoff of the pairs, Angstrom.
    levels : tuple of Level
        The waves, the smooth part last.
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
            # The density within the cutoff; in a nearly empty cell at most all other atoms of the
            # cell, plus their distant images.
            ball = 2 * np.pi / 3 * real**3
            pairs = PAIR_COST * n * min(ball / spacing**3, n / 2 + n * ball / geometry.volume)
            for levels in geometry.levels(sigma, tolerance):
                cost = pairs + sum(level.cost(n)[0] for level in levels)
                if cost < best:
                    best, division = cost, cls(sigma, real, levels)
        return division
