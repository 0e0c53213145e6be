"""Observables of a structure: of its charges, and its energy with what derives from it.

Observables of the charges are a linear operator, for some followed by a smooth function.

Conventions: dipoles and quadrupoles are about the centre of mass; the dipole points from minus
to plus; the quadrupole is traceless, ``Theta_ab = sum_i q_i (3 r_a r_b - r^2 delta_ab) / 2``
(Buckingham, Q. Rev. Chem. Soc. 13, 183 (1959)), so that the widths of the charges drop out; the
potential is that of the Gaussian charges, in V; the stress is the derivative of the energy with
respect to a strain divided by the volume of the cell, positive where the cell wants to shrink, in
the order of ASE: xx, yy, zz, yz, xz, xy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..electrostatics import potential_matrix
from ..electrostatics._dipoles import radial_derivatives
from ..parameters import COULOMB

if TYPE_CHECKING:
    from .._typing import Array
    from ..models._solution import Solution
    from ..structures import Structure, Structures


VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


class Target:
    """An observable of one structure.

    Attributes
    ----------
    name : str
        Column of y.
    unit : str
        Unit of the values and of the noise.
    shape : tuple of int or None
        Shape of the value of one structure; None where it depends on the structure.
    row_shape : tuple of int
        Where it does, the shape of one of its rows, such as that of an atom.
    linear : bool
        Whether the value is linear in the charges.
    extensive : bool
        Whether the value grows with the number of atoms.
    weights : float or ndarray
        Weight of each component relative to ``1 / sigma``.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import check_structures
    >>> from skqeq.targets import TARGETS
    >>> [water] = check_structures([molecule("H2O")])
    >>> TARGETS["forces"].unit, TARGETS["forces"].size(water)
    ('eV/Angstrom', 9)
    """

    name: str
    unit: str
    shape: tuple[int, ...] | None = None
    row_shape: tuple[int, ...] = ()
    linear = False
    extensive = False
    weights: float | Array = 1.0

    def size(self, structure: Structure) -> int:
        """How many numbers the label of a structure holds.

        Parameters
        ----------
        structure : Structure
            Any structure.

        Returns
        -------
        size : int
            The product of `shape` where that is fixed.
        """
        if self.shape is None:
            raise TypeError(f"{type(self).__name__} does not say what its size is")
        return int(np.prod(self.shape))

    def defined(self, structure: Structure) -> Array:
        """Which numbers of the label have a meaning.

        Parameters
        ----------
        structure : Structure
            Any structure.

        Returns
        -------
        defined : ndarray of bool of shape (k,)
            False for what a periodic structure does not have.
        """
        return np.full(self.size(structure), True)

    def comparable(self, values: Array, structures: Structures) -> Array:
        """Values that can be compared between structures of any size: those of energies per atom.

        The total energies of different compositions differ by so much more than any error that
        their R2 says nothing.

        Parameters
        ----------
        values : ndarray of shape (n, ...)
            Labels or predictions.
        structures : Structures
            What they are of.

        Returns
        -------
        values : ndarray of shape (n, ...)
            The same, or divided by the numbers of atoms.
        """
        return values / structures.sizes if self.extensive else values

    def observe(self, solution: Solution) -> Array:
        """The numbers that a model gives for the label.

        Parameters
        ----------
        solution : Solution
            Charges, energy and derivatives of one structure, see `KQEqRegressor.solutions`.

        Returns
        -------
        values : ndarray of shape (k,)
            In the unit of the target.
        """
        raise TypeError(f"{type(self).__name__} cannot be observed")


class ChargeTarget(Target):
    """An observable of the charges.

    Charges have a meaning in any structure. Moments and potentials of a periodic structure depend
    on which of the images of an atom is meant.
    """

    linear = True

    def defined(self, structure):
        return np.full(self.size(structure), not structure.periodic)

    def observe(self, solution):
        operator, constant = solution.equilibrium.observable(self)
        return self.value(operator @ solution.charges + constant)

    def operator(self, structure, widths):
        """The matrix T of shape (k, n_atoms) of ``T q``, for charges of these widths."""
        raise TypeError(f"{type(self).__name__} defines no operator")

    def dipole_operator(self, structure, widths):
        """What dipoles of the atoms add, for dipoles of these widths: shape (k, n_atoms, 3)."""
        raise TypeError(f"{type(self).__name__} defines no operator of dipoles")

    def value(self, linear):
        """The observable from ``T q``, along the last axis."""
        return linear


class Dipole(ChargeTarget):
    """Dipole moment about the centre of mass."""

    name, unit, shape = "dipole", "e*Angstrom", (3,)

    def defined(self, structure):
        """The components along Cartesian axes that no periodic vector has a part in."""
        vectors = structure.cell[np.array(structure.pbc)]
        return (np.abs(vectors) <= 1e-10 * np.abs(vectors).max(initial=0.0)).all(axis=0)

    def operator(self, structure, widths):
        return (structure.positions - structure.center_of_mass).T

    def dipole_operator(self, structure, widths):
        return np.tile(np.eye(3)[:, None], (1, len(structure), 1))


class Charges(ChargeTarget):
    """Charge of every atom."""

    name, unit = "charges", "e"

    def size(self, structure):
        return len(structure)

    def defined(self, structure):
        return np.full(len(structure), True)

    def operator(self, structure, widths):
        return np.eye(len(structure))

    def dipole_operator(self, structure, widths):
        return np.zeros((len(structure), len(structure), 3))


class Quadrupole(ChargeTarget):
    """Traceless quadrupole moment about the centre of mass: xx, yy, zz, yz, xz, xy."""

    name, unit, shape = "quadrupole", "e*Angstrom^2", (6,)
    # Only with both of its off-diagonal elements is the norm of a tensor the same in all frames.
    weights = np.sqrt([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])

    def operator(self, structure, widths):
        r = structure.positions - structure.center_of_mass
        r2 = np.einsum("ia,ia->i", r, r)
        return np.stack([0.5 * (3.0 * r[:, a] * r[:, b] - (a == b) * r2) for a, b in VOIGT])

    def dipole_operator(self, structure, widths):
        r, axes = structure.positions - structure.center_of_mass, np.eye(3)
        outer = [np.multiply.outer(r[:, a], axes[b]) for a, b in VOIGT]
        swapped = [np.multiply.outer(r[:, b], axes[a]) for a, b in VOIGT]
        trace = [(a == b) * r for a, b in VOIGT]
        return 1.5 * (np.stack(outer) + np.stack(swapped)) - np.stack(trace)


class Potential(ChargeTarget):
    """Electrostatic potential at the points in ``info["potential_points"]``."""

    name, unit = "potential", "V"

    def size(self, structure):
        return 0 if structure.potential_points is None else len(structure.potential_points)

    def operator(self, structure, widths):
        if structure.potential_points is None:
            raise ValueError(
                f"structure {structure.symbols} has no info['potential_points'], where the "
                "potential could be taken"
            )
        return potential_matrix(structure.potential_points, structure, widths)

    def dipole_operator(self, structure, widths):
        u = structure.potential_points[:, None] - structure.positions
        slope = radial_derivatives(np.einsum("pia,pia->pi", u, u), widths[None])[1]
        return -COULOMB * slope[:, :, None] * u


class DipoleMagnitude(Dipole):
    """Norm of the dipole moment, smoothed where it vanishes.

    ``|mu| = sqrt(mu . mu + guard^2)`` has a gradient everywhere.
    """

    name, unit, shape = "dipole_magnitude", "e*Angstrom", (1,)
    linear = False
    guard = 1e-6

    def defined(self, structure):
        return ChargeTarget.defined(self, structure)

    def value(self, linear):
        return np.sqrt(np.sum(linear**2, axis=-1, keepdims=True) + self.guard**2)

    def derivative(self, linear):
        """Gradient of `value`: (..., 1, 3)."""
        return (linear / self.value(linear))[..., None, :]

    def curvature_product(self, linear, direction):
        """Second derivative of `value` times a direction of shape (..., 3)."""
        value = self.value(linear)
        unit = linear / value
        along = np.sum(unit * direction, axis=-1, keepdims=True)
        return (direction - along * unit) / value

    def nearest(self, linear, value):
        """The dipole of length `value` in the direction of `linear`."""
        return linear / self.value(linear) * value


class Energy(Target):
    """Total energy of the structure, the energies of the free atoms included."""

    name, unit, shape = "energy", "eV", (1,)
    extensive = True

    def observe(self, solution):
        return np.array([solution.energy])


class Forces(Target):
    """Negative derivatives of the energy with respect to the positions."""

    name, unit, row_shape = "forces", "eV/Angstrom", (3,)

    def size(self, structure):
        return 3 * len(structure)

    def observe(self, solution):
        return solution.forces.ravel()


class Stress(Target):
    """Derivatives of the energy with respect to a strain, over the volume: ASE's order and sign."""

    name, unit, shape = "stress", "eV/Angstrom^3", (6,)
    # As of the quadrupole.
    weights = Quadrupole.weights

    def defined(self, structure):
        """The components along axes that lie in the periodic directions.

        A molecule has no cell, and a slab whose third vector is missing has no volume.
        """
        if not structure.periodic or structure.volume == 0.0:
            return np.full(6, False)
        inside = np.full(3, True)
        if not all(structure.pbc):
            inside = np.abs(structure.cell[structure.pbc.index(False)]) < 1e-10
        return np.array([inside[a] and inside[b] for a, b in VOIGT])

    def observe(self, solution):
        return np.array([solution.virial[a, b] for a, b in VOIGT]) / solution.structure.volume


class BornEffectiveCharges(Target):
    """Derivatives of the dipole ``sum_i q_i r_i`` with respect to the positions, of every atom.

    Numbers ``d mu_a / d r_jb`` at ``[j, a, b]``; those of a structure sum to its total charge times
    the unit matrix.
    """

    name, unit, row_shape = "born_effective_charges", "e", (3, 3)

    def size(self, structure):
        return 9 * len(structure)

    def defined(self, structure):
        """Where the dipole has the component a."""
        along = Dipole().defined(structure)
        return np.tile(np.repeat(along, 3), len(structure))

    def observe(self, solution):
        return solution.born_effective_charges.ravel()


ALL = (
    Dipole(),
    Charges(),
    Quadrupole(),
    Potential(),
    DipoleMagnitude(),
    Energy(),
    Forces(),
    Stress(),
    BornEffectiveCharges(),
)
TARGETS = {target.name: target for target in ALL}
ENERGIES = ("energy", "forces", "stress")
# What needs derivatives with respect to the geometry.
GRADIENTS = ("forces", "stress", "born_effective_charges")


def doubtful(structures, names):
    """Yield indices and structures for which some of these targets may be undefined.

    The others need not be read: only stress takes a cell.
    """
    some = np.arange(len(structures))
    if "stress" not in names:
        some = some[structures.periodic] if names else some[:0]
    for i in some.tolist():
        yield i, structures[i]
