"""The interaction of Gaussian charges with Gaussian dipoles, and of dipoles with one another.

A charge of width a has the density ``q (2 pi a^2)^(-3/2) exp(-r^2 / (2 a^2))``. The density of a
dipole is ``-d . grad`` of such a Gaussian with width b. The interactions are therefore derivatives
of the interaction of charges, ``C(u; g) = k_e erf(u / (sqrt(2) g)) / u``. With ``u = r_i - r_j``
and subscripts of C for derivatives with respect to Cartesian components::

    q_i . T_ij . d_j    T_ij,a  = -C_a(u; g),     g^2 = a_i^2 + b_j^2,
    d_i . D_ij . d_j    D_ij,ac = -C_ac(u; g),    g^2 = b_i^2 + b_j^2.

With the radial functions ``c_0 = C`` and ``c_m+1 = c_m' / u``, the derivatives are::

    C_a   = c_1 u_a,
    C_ac  = c_1 delta_ac + c_2 u_a u_c,
    C_ace = c_2 (delta_ac u_e + delta_ce u_a + delta_ea u_c) + c_3 u_a u_c u_e.

The interaction of a dipole with itself is ``D_ii = -c_1(0) = k_e sqrt(2 / pi) / (3 g^3)`` with
``g = sqrt(2) b``. The width b is chosen so that the self-energy ``d^2 D_ii / 2`` equals the energy
``d^2 / (2 alpha)`` of a polarisable atom. All interactions are Coulomb energies of charge
densities. The matrix ``[[A, T], [T^T, D]]`` is therefore positive definite if the matrix A of the
charges is.

In a periodic structure T and D are the corresponding derivatives of the Ewald sums in `_ewald`.
These are the sum over pairs of atoms and images, the sum over plane waves with the reciprocal-space
vectors k, and for a slab ``-(2 pi / V) (z_i - z_j)^2``. Terms that do not depend on the positions,
such as the background of a charged crystal, do not act on dipoles. In the sum over plane waves, the
structure factors of a charge and of a dipole are::

    charge: (cos(k . r), sin(k . r)),    dipole: (d . k) (-sin(k . r), cos(k . r)).

Derivatives with respect to a strain e are taken at fixed dipoles; k changes by ``-e k``.
"""

import numpy as np
from scipy.sparse import csr_array
from scipy.special import gamma, gammainc

from ..parameters import COULOMB
from ._ewald import EwaldSum
from ._strain import project_strain

# Highest order m of the radial functions c_m: gradients of T and D need c_3.
ORDER = 3
# Measured ratio of the fastest splitting width sigma for dipoles to the fastest one for charges. A
# pair of dipoles costs more than a pair of charges, so that fewer pairs are better.
NARROWER = 0.85


def dipole_widths(alpha):
    """Widths for which Gaussian dipoles have the self-energy ``d^2 / (2 alpha)``.

    Parameters
    ----------
    alpha : array-like of shape (n_atoms,)
        Isotropic polarisabilities, e*Angstrom^2/V; in Angstrom^3 they are ``COULOMB alpha``.

    Returns
    -------
    widths : ndarray of shape (n_atoms,)
        Widths of the dipoles, Angstrom.

    Raises
    ------
    ValueError
        If a polarisability is not a positive number.
    """
    alpha = np.asarray(alpha, dtype=np.float64)
    if not (np.isfinite(alpha) & (alpha > 0)).all():
        raise ValueError(f"polarisabilities must be positive numbers, got {alpha!r}")
    return np.cbrt(COULOMB * alpha * np.sqrt(2 / np.pi) / 3) / np.sqrt(2)


def radial_derivatives(r2, g):
    """Radial functions ``c_0`` to ``c_3`` of the interaction of Gaussians.

    They are ``c_m = (2 x / sqrt(pi)) (-2 x^2)^m F_m(x^2 r^2)``, where ``x = 1 / (sqrt(2) g)``. The
    Boys function ``F_m(t)`` is the integral of ``s^(2m) exp(-t s^2)`` over s from 0 to 1. The
    recursion starts at the highest order, because downwards it is stable for every t.

    Parameters
    ----------
    r2 : ndarray
        Squared distances, Angstrom^2.
    g : ndarray
        Widths, Angstrom; an infinite width gives zero.

    Returns
    -------
    c : ndarray of shape (4, ...)
        ``c_m`` in Angstrom^-(2m + 1), without the factor k_e.
    """
    x2 = 0.5 / np.square(g)
    # At r = 0 the lower bound 1e-30 gives the limit; t = 0 would divide zero by zero.
    t = np.maximum(x2 * r2, 1e-30)
    decay, half = np.exp(-t), ORDER + 0.5
    c = np.empty((ORDER + 1, *t.shape))
    c[ORDER] = gamma(half) * gammainc(half, t) / (2 * t**half)
    for m in range(ORDER, 0, -1):
        c[m - 1] = (2 * t * c[m] + decay) / (2 * m - 1)
    for m in range(ORDER + 1):
        c[m] *= np.sqrt(4 * x2 / np.pi) * (-2 * x2) ** m
    return c


class DipoleSum:
    """The Coulomb interaction of the Gaussian charges and dipoles of one structure.

    The interaction of charges with charges is not included; it is the `hardness_matrix`.

    Parameters
    ----------
    structure : Structure
        A molecule, a slab or a crystal.
    widths : ndarray of shape (n_atoms,)
        Widths of the charges, Angstrom.
    dipole_widths : ndarray of shape (n_atoms,)
        Widths of the dipoles, Angstrom.
    accuracy : float, default=1e-8
        Upper bound on the error of every element of a periodic sum, without the factor k_e and with
        lengths in Angstrom.

    Attributes
    ----------
    coupling : ndarray of shape (n_atoms, n_atoms, 3)
        ``T``: at ``[i, j, a]``, the energy of a unit charge on i and a unit dipole on j along axis
        a; eV/(e^2*Angstrom).
    dipolar : ndarray of shape (n_atoms, 3, n_atoms, 3)
        ``D``, symmetric, including the self-interaction of the dipoles; eV/(e*Angstrom)^2.
    """

    def __init__(self, structure, widths, dipole_widths, accuracy=1e-8):
        self._normal = None
        if structure.periodic:
            lattice = _lattice(structure, np.maximum(widths, dipole_widths), accuracy)
            pairs, sigma = _images(lattice), lattice.cutoffs.sigma
            self._parts = [_Pairs(*pairs, widths, dipole_widths, sigma), _Waves(lattice)]
            if lattice.normal is not None:
                self._normal = lattice.normal
                self._parts.append(_Sheets(lattice))
        else:
            i, j = np.nonzero(~np.eye(len(structure), dtype=bool))
            u = structure.positions[i] - structure.positions[j]
            self._parts = [_Pairs(i, j, u, widths, dipole_widths, np.inf)]
        coupling, dipolar = zip(*(part.matrices() for part in self._parts))
        self.coupling, self.dipolar = COULOMB * sum(coupling), COULOMB * sum(dipolar)

    def gradient(self, q, d, p, e):
        """Derivatives of ``q T e + p T d + d D e`` with respect to the geometry.

        Parameters
        ----------
        q, p : ndarray of shape (n_atoms,)
            Any two sets of charges, e.
        d, e : ndarray of shape (n_atoms, 3)
            Any two sets of dipoles, e*Angstrom.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            Derivatives with respect to the positions, eV/Angstrom.
        virial : ndarray of shape (3, 3)
            Derivatives with respect to a symmetric strain of positions and cell at fixed dipoles,
            eV. A slab has strains in its plane only; all other components are zero.
        """
        potential, field, potential_strain, field_strain = self.potential_gradient(q, d)
        gradient = potential @ p + np.tensordot(field, e, axes=2)
        return gradient, potential_strain @ p + np.tensordot(field_strain, e, axes=2)

    def potential_gradient(self, q, d):
        """Derivatives of the potentials ``T d`` and the negative electric fields ``T^T q + D d``.

        Parameters
        ----------
        q : ndarray of shape (n_atoms,)
            Charges, e.
        d : ndarray of shape (n_atoms, 3)
            Dipoles, e*Angstrom.

        Returns
        -------
        potential : ndarray of shape (n_atoms, 3, n_atoms)
            At ``[k, :, i]``, the derivative of the potential on the charge of atom i with respect
            to the position of atom k; V/Angstrom.
        field : ndarray of shape (n_atoms, 3, n_atoms, 3)
            At ``[k, :, j, a]``, the derivative of the negative electric field along axis a on the
            dipole of atom j with respect to the position of atom k; V/Angstrom^2.
        potential_strain : ndarray of shape (3, 3, n_atoms)
            Derivatives of the potentials with respect to a strain as in `gradient`, V.
        field_strain : ndarray of shape (3, 3, n_atoms, 3)
            Derivatives of the negative fields with respect to a strain, V/Angstrom.
        """
        # All results are linear in (q, d), so that one factor k_e in the sources is enough.
        q, d = COULOMB * np.asarray(q), COULOMB * np.asarray(d)
        totals = [sum(parts) for parts in zip(*(part.derivatives(q, d) for part in self._parts))]
        k = np.arange(len(q))
        for gradient in totals[:2]:
            # The parts have the derivatives with respect to the sources of the potential only. A
            # displacement of all atoms changes no potential, so that the derivative with respect to
            # the atom that feels the potential is minus the sum of the others.
            gradient[k, :, k] -= np.moveaxis(gradient.sum(axis=0), 1, 0)
        strains = [
            project_strain(0.5 * (strain + strain.swapaxes(0, 1)), self._normal)
            for strain in totals[2:]
        ]
        return *totals[:2], *strains


class _Pairs:
    """The sum over pairs: the interaction of Gaussians minus that of Gaussians of width sigma.

    `_Waves` sums the subtracted part over plane waves. This class, `_Waves` and `_Sheets` have the
    same two methods. `matrices` returns T and D in units of k_e. `derivatives` returns the arrays
    of `DipoleSum.potential_gradient`, with two differences: the positions are those of the sources
    of a potential only, and the strain need not be symmetric.

    Parameters
    ----------
    i, j : ndarray of shape (n_pairs,)
        All ordered pairs, without the pairs of an atom with itself.
    u : ndarray of shape (n_pairs, 3)
        Vectors from j to i, Angstrom.
    widths, dipole_widths : ndarray of shape (n_atoms,)
        Widths of the charges and of the dipoles, Angstrom.
    sigma : float
        Width of the subtracted Gaussians, Angstrom; if infinite, nothing is subtracted.
    """

    def __init__(self, i, j, u, widths, dipole_widths, sigma):
        self.i, self.j, self.u, self.n = i, j, u, len(widths)

        def short_ranged(r2, g):
            return radial_derivatives(r2, g) - radial_derivatives(r2, sigma)

        r2 = np.einsum("pa,pa->p", u, u)
        self.to_charge = short_ranged(r2, np.hypot(widths[i], dipole_widths[j]))
        self.to_dipole = short_ranged(r2, np.hypot(dipole_widths[i], dipole_widths[j]))
        # The short-ranged part of D_ii = -c_1(0). It is isotropic: one number per atom is enough.
        self.diagonal = -short_ranged(np.zeros(self.n), np.sqrt(2) * dipole_widths)[1]

    def _gather(self, values, index, *shape):
        """Sum the values of pairs that have the same flat index into an array of this shape."""
        # A product with a sparse matrix of ones is much faster than np.add.at.
        ones, pairs, components = np.ones(len(index)), np.arange(len(index)), values.shape[1:]
        add = csr_array((ones, (index, pairs)), shape=(np.prod(shape), len(index)))
        sums = add @ values.reshape(len(index), np.prod(components))
        return sums.reshape(*shape, *components)

    def matrices(self):
        pair, shape = self.i * self.n + self.j, (self.n, self.n)
        coupling = self._gather(-self.to_charge[1][:, None] * self.u, pair, *shape)
        dipolar = self._gather(-_second(self.to_dipole, self.u), pair, *shape).swapaxes(1, 2)
        k = np.arange(self.n)
        dipolar[k, :, k] += self.diagonal[:, None, None] * np.eye(3)
        return coupling, dipolar

    def derivatives(self, q, d):
        pair, shape = self.i * self.n + self.j, (self.n, self.n)
        # Derivative of the potential on atom i with respect to the source j.
        second = _second(self.to_charge, self.u)
        potential = np.einsum("pca,pa->pc", second, d[self.j])
        # Derivative of the negative field on atom j with respect to the source i.
        field = -q[self.i][:, None, None] * second - _third(self.to_dipole, self.u, d[self.i])
        strains = (
            self._gather(-potential[:, :, None] * self.u[:, None], self.i, self.n),
            self._gather(field[:, :, None] * self.u[:, None, :, None], self.j, self.n),
        )
        return (
            self._gather(potential, pair, *shape).transpose(1, 2, 0),
            self._gather(field, pair, *shape).swapaxes(1, 2),
            *(np.moveaxis(strain, 0, 2) for strain in strains),
        )


class _Waves:
    """The interaction of Gaussians of width sigma, summed over plane waves; see `_Pairs`."""

    def __init__(self, lattice):
        charges, k = lattice._make_waves()
        self.charges, self.shifted, self.k = charges, _shift(charges), np.tile(k, (2, 1))
        self.sigma = lattice.cutoffs.sigma

    def matrices(self):
        n = len(self.charges)
        dipoles = (self.shifted[:, None] * self.k.T).reshape(3 * n, -1)
        coupling = (self.charges @ dipoles.T).reshape(n, n, 3)
        return coupling, (dipoles @ dipoles.T).reshape(n, 3, n, 3)

    def derivatives(self, q, d):
        n, k = len(q), self.k
        dipoles = (d @ k.T) * self.shifted
        sources = q[:, None] * self.charges + dipoles
        potential, field = np.empty((n, 3, n)), np.empty((n, 3, n, 3))
        shifted = _shift(dipoles)
        for a in range(3):
            potential[:, a] = (shifted * k[:, a]) @ self.charges.T
            # Symmetric in a and c, because these are second derivatives.
            for c in range(a + 1):
                field[:, a, :, c] = (sources * (k[:, a] * k[:, c])) @ self.charges.T
                field[:, c, :, a] = field[:, a, :, c]
        # A strain changes the weights of the plane waves, and the factor d . k.
        squares = k.T[:, None] * k.T
        weights = (self.sigma**2 + 2 / np.trace(squares)) * squares - np.eye(3)[:, :, None]
        of_projections = -(d.T @ self.shifted)[:, None] * k.T
        on_charges = weights * dipoles.sum(axis=0) + of_projections
        on_dipoles = (weights * sources.sum(axis=0) + of_projections)[:, :, None] * k.T
        on_dipoles -= np.eye(3)[:, None, :, None] * k.T[:, None] * sources.sum(axis=0)
        strains = on_charges @ self.charges.T, on_dipoles @ self.shifted.T
        return potential, field, strains[0], strains[1].swapaxes(2, 3)


class _Sheets:
    """The term that turns the sums for a crystal of slabs into those for one slab; see `_Pairs`."""

    def __init__(self, lattice):
        self.z, self.normal = lattice.z, lattice.normal
        self.factor = 4 * np.pi / lattice.volume

    def matrices(self):
        n = len(self.z)
        coupling = np.multiply.outer(self.z[:, None] - self.z, self.factor * self.normal)
        dipolar = np.broadcast_to(self._square()[:, None], (n, 3, n, 3))
        return coupling, dipolar

    def derivatives(self, q, d):
        n, square, (coupling, dipolar) = len(q), self._square(), self.matrices()
        potential = np.broadcast_to(-(d @ square)[:, :, None], (n, 3, n))
        field = np.broadcast_to(np.multiply.outer(q, square)[:, :, None], (n, 3, n, 3))
        # The term is proportional to 1 / V, and so is its derivative with respect to a strain.
        on_charges = np.tensordot(coupling, d, axes=2)
        on_dipoles = np.tensordot(q, coupling, axes=1) + np.tensordot(dipolar, d, axes=2)
        strains = (-np.multiply.outer(np.eye(3), x) for x in (on_charges, on_dipoles))
        return potential, field, *strains

    def _square(self):
        return self.factor * np.outer(self.normal, self.normal)


def _lattice(structure, widths, accuracy):
    """Make an Ewald sum of charges whose second derivatives have the required accuracy.

    At the cutoff, a second derivative multiplies the error of the sum over plane waves by ``k^2``,
    and the error of the sum over pairs by about as much.
    """
    cutoffs = EwaldSum(structure, widths, accuracy).cutoffs
    sigma = max(NARROWER * cutoffs.sigma, np.sqrt(2) * widths.max())
    gain = (cutoffs.reciprocal / NARROWER) ** 2
    return EwaldSum(structure, widths, accuracy / max(1.0, gain), sigma)


def _images(lattice):
    """All ordered pairs i, j within the cutoff, including images, and the vectors from j to i."""
    from vesin import NeighborList  # not at the top: it imports torch if that is installed

    neighbors = NeighborList(cutoff=lattice.cutoffs.real, full_list=True)
    positions = lattice.fractions @ lattice.cell
    i, j, D = neighbors.compute(positions, lattice.cell, True, "ijD", copy=False)
    return i.astype(np.int64), j.astype(np.int64), -D


def _second(c, u):
    """``C_ac`` of every pair, (n_pairs, 3, 3)."""
    diagonal = np.multiply.outer(c[1], np.eye(3))
    return diagonal + c[2][:, None, None] * u[:, :, None] * u[:, None]


def _third(c, u, d):
    """``C_ace d_e`` of every pair, (n_pairs, 3, 3)."""
    projection, mixed = np.einsum("pa,pa->p", u, d), u[:, :, None] * d[:, None]
    diagonal = np.multiply.outer(c[2] * projection, np.eye(3))
    squares = (c[3] * projection)[:, None, None] * u[:, :, None] * u[:, None]
    return diagonal + c[2][:, None, None] * (mixed + mixed.swapaxes(1, 2)) + squares


def _shift(waves):
    """Cosines and sines with a phase increased by pi / 2."""
    cosines, sines = np.split(waves, 2, axis=-1)
    return np.concatenate([-sines, cosines], axis=-1)
