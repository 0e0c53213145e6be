"""How the Coulomb interaction of a large system is divided so that every part is cheap.

    1 / r = short(r) + band(r) + smooth(r)
          = erfc(r / (sqrt(2) s)) / r                                    pairs of neighbours
          + (erf(r / (sqrt(2) s)) - erf(r / (sqrt(2) S))) / r            waves of a narrow cell
          + erf(r / (sqrt(2) S)) / r                                     few waves of a wide cell

A crystal needs no band: ``S = s``, and its own cell holds the waves of the smooth part. The waves
of a slab or a molecule need empty space around it, and in a wide cell there are many. The band,
which has the short waves, vanishes beyond some 6 S, so that a little space is enough for it; the
smooth part needs a lot of space, but only long waves.

The smooth part of a molecule of diameter D is cut off at R, beyond the farthest pair, which makes
its transform ``(4 pi / k^2) (1 - cos k R) exp(-S^2 k^2 / 2)``: without a singularity, and the exact
potential of an isolated molecule in a cell wider than D + R (Vico, Greengard, Ferrando, J. Comput.
Phys. 323, 191 (2016)). That of a slab is the one of `EwaldSum`. The division in parts of different
range is the one of Greengard and Jiang's dual-space multilevel kernel splitting (2023).

The cost of n atoms with n_p pairs and m waves is, for about a dozen products with the matrix,

    t_pair n_p + min(t_direct n m, t_atom n + t_mode m)    for each level,

and the widths s, S of least cost are taken.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec

import numpy as np

from ._splitting import real_cutoff
from ._waves import DirectTransform, FastTransform, wave_indices

# Measured, ns, for a dozen products: a pair found and kept; an atom and a wave by structure
# factors; an atom, a wave, and the overhead of a non-uniform FFT.
PAIR_COST, DIRECT_COST, ATOM_COST, MODE_COST, PLAN_COST = 350.0, 40.0, 6000.0, 1500.0, 2e7
# Below this size a molecule is all pairs.
SMALL_MOLECULE = 800
# Widths of the division to try.
N_WIDTHS = 14
# Parts of the error that may reach their bound at the same time.
SHARES = 8


@cache
def has_finufft():
    """Whether non-uniform FFTs are at hand."""
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
        """Weight g of the waves of squared length k2, 1/Angstrom, and its derivative to k2."""
        inner = np.maximum(k2, 1e-30)
        g = np.exp(-0.5 * self.sigma**2 * k2)
        slope = -0.5 * self.sigma**2 * g
        at_zero = 0.0
        if np.isfinite(self.top):
            outer = np.exp(-0.5 * self.top**2 * k2)
            g, slope = g - outer, slope + 0.5 * self.top**2 * outer
            at_zero = 0.5 * (self.top**2 - self.sigma**2)
        elif np.isfinite(self.radius):
            # The strain of a molecule follows from its forces, so this slope is not needed.
            g, slope = g * (1.0 - np.cos(self.radius * np.sqrt(k2))), np.nan
            at_zero = 0.5 * self.radius**2
        near = k2 <= self.k_max**2
        factor = 4 * np.pi / self.volume * near
        g = np.where(k2 == 0, at_zero, g / inner)
        return factor * g, factor * (slope - g) / inner

    def cost(self, n_atoms):
        """Cost of the two transforms, ns, and whether the fast one is cheaper."""
        modes = np.prod(2.0 * wave_indices(self.cell, self.k_max) + 1)
        direct = DIRECT_COST * n_atoms * np.pi / 12 * modes
        fast = ATOM_COST * n_atoms + MODE_COST * modes + PLAN_COST
        if not has_finufft() or direct < fast:
            return direct, False
        return fast, True

    def _total(self):
        """Bound of twice the sum of all weights, by which errors of the transforms are multiplied.

        It is the potential in the centre of a Gaussian; of the waves along a long cell, which is a
        crystal of sheets, that in a sheet.
        """
        length2 = np.einsum("va,va->v", self.cell, self.cell).max()
        return 2 * (0.8 / self.sigma + np.pi * length2 / (3 * self.volume))

    def transform(self, positions, tolerance):
        """The cheaper transform between atoms at positions and the waves."""
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
        """The cheapest division that keeps the promise.

        Parameters
        ----------
        geometry : CoulombOperator
            Its atoms, periodic vectors and levels.
        width : float
            Largest ``gamma_ij``, Angstrom.
        accuracy : float
            Bound of the error of any element, 1/Angstrom.

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
            # In a nearly empty cell there are no more than the other atoms, and images far away.
            ball = 2 * np.pi / 3 * real**3
            pairs = PAIR_COST * n * min(ball / spacing**3, n / 2 + n * ball / geometry.volume)
            for levels in geometry.levels(sigma, tolerance):
                cost = pairs + sum(level.cost(n)[0] for level in levels)
                if cost < best:
                    best, division = cost, cls(sigma, real, levels)
        return division
