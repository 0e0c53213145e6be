"""Observables of a structure: observables of its charges, its energy, and derivatives of both.

An observable of the charges is a linear operator applied to the charges. Some observables then
apply a smooth function to the result.

Conventions
-----------
dipole
    About the centre of mass; it points from negative to positive charge.
quadrupole
    About the centre of mass, traceless: ``Theta_ab = sum_i q_i (3 r_a r_b - r^2 delta_ab) / 2``
    (Buckingham, Q. Rev. Chem. Soc. 13, 183 (1959)). It does not depend on the widths of the
    Gaussian charges.
potential
    Electrostatic potential of the Gaussian charges, V.
stress
    Derivative of the energy with respect to a strain, divided by the volume of the cell. It is
    positive if the cell tends to shrink. The components are in the order of ASE: xx, yy, zz, yz,
    xz, xy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..electrostatics import potential_matrix, radial_derivatives
from ..parameters import COULOMB

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._typing import Array
    from ..response import Equilibrium
    from ..structures import Structure, Structures


VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


class Solution(Protocol):
    """The solution of one structure by a charge model: the attributes that targets use."""

    structure: Structure
    equilibrium: Equilibrium
    charges: Array
    atomic_dipoles: Array | None

    @property
    def energy(self) -> float: ...

    @property
    def forces(self) -> Array: ...

    @property
    def virial(self) -> Array: ...

    @property
    def born_effective_charges(self) -> Array: ...


class Target:
    """An observable of one structure.

    Attributes
    ----------
    name : str
        Name of the column of y.
    unit : str
        Unit of the values and of the noise.
    shape : tuple of int or None
        Shape of the label of one structure; None if it depends on the structure.
    row_shape : tuple of int
        If `shape` is None, the shape of one row of the label, for example of one atom.
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
        """Number of components of the label of a structure.

        Parameters
        ----------
        structure : Structure
            Any structure.

        Returns
        -------
        size : int
            Number of components; the product of `shape` if `shape` is not None.
        """
        if self.shape is None:
            raise TypeError(f"{type(self).__name__} does not define its size")
        return int(np.prod(self.shape))

    def defined(self, structure: Structure) -> Array:
        """Which components of the label are defined.

        Parameters
        ----------
        structure : Structure
            Any structure.

        Returns
        -------
        defined : ndarray of bool of shape (k,)
            False for components that are undefined for a periodic structure.
        """
        return np.full(self.size(structure), True)

    def comparable(self, values: Array, structures: Structures) -> Array:
        """Values in a form that can be compared between structures, such as energies per atom.

        Total energies of structures with different compositions differ by much more than any error.
        Without the division, their R2 would always be close to 1.

        Parameters
        ----------
        values : ndarray of shape (n, ...)
            Labels or predictions.
        structures : Structures
            The structures of the values.

        Returns
        -------
        values : ndarray of shape (n, ...)
            Divided by the number of atoms if the target is extensive.
        """
        return values / structures.sizes if self.extensive else values

    def as_label(self, structure: Structure, values: Array) -> Any:
        """Bring the components of a prediction into the form of a label.

        Parameters
        ----------
        structure : Structure
            The structure of the values.
        values : ndarray of shape (k,)
            Components.

        Returns
        -------
        label : ndarray or float or None
            NaN for undefined components; None if all are undefined.
        """
        defined = self.defined(structure)
        if not defined.any():
            return None
        values = np.where(defined, values, np.nan)
        if self.shape is None:
            return values.reshape(-1, *self.row_shape)
        return values[0] if self.shape == (1,) else values

    def observe(self, solution: Solution) -> Array:
        """Compute the prediction for the label from a solution.

        Parameters
        ----------
        solution : Solution
            Charges, energy and derivatives of one structure, see `KQEqRegressor.solutions`.

        Returns
        -------
        values : ndarray of shape (k,)
            In the unit of the target.
        """
        raise TypeError(f"{type(self).__name__} does not define observe")


class ChargeTarget(Target):
    """An observable of the charges.

    By default it is defined for molecules only, because moments and potentials of a periodic
    structure depend on which image of each atom is chosen.
    """

    linear = True

    def defined(self, structure):
        return np.full(self.size(structure), not structure.periodic)

    def observe(self, solution):
        return self.value(self.linear_value(solution))

    def linear_value(self, solution: Solution) -> Array:
        """The part of the observable that is linear in charges and atomic dipoles: shape (k,)."""
        operator, constant = solution.equilibrium.observable(self)
        value = operator @ solution.charges + constant
        if solution.atomic_dipoles is not None:
            of_dipoles = solution.equilibrium.dipole_operator(self)
            value = value + np.tensordot(of_dipoles, solution.atomic_dipoles, 2)
        return value

    def operator(self, structure, widths):
        """The matrix T of the observable ``T q``, for charges of these widths: (k, n_atoms)."""
        raise TypeError(f"{type(self).__name__} defines no operator")

    def dipole_operator(self, structure, widths):
        """The operator for dipoles of these widths on the atoms: shape (k, n_atoms, 3)."""
        raise TypeError(f"{type(self).__name__} defines no operator for dipoles")

    def value(self, linear):
        """Compute the observable from ``T q``, along the last axis."""
        return linear


class Dipole(ChargeTarget):
    """Dipole moment about the centre of mass."""

    name, unit, shape = "dipole", "e*Angstrom", (3,)

    def defined(self, structure):
        """The Cartesian components that are orthogonal to all periodic vectors."""
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
    # An off-diagonal component occurs twice in the tensor. If it counts twice, the norm of the
    # label does not depend on the orientation of the molecule.
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
                f"structure {structure.symbols} has no info['potential_points']: give the points "
                "at which the potential is computed"
            )
        return potential_matrix(structure.potential_points, structure, widths)

    def dipole_operator(self, structure, widths):
        u = structure.potential_points[:, None] - structure.positions
        gradient = radial_derivatives(np.einsum("pia,pia->pi", u, u), widths[None])[1]
        return -COULOMB * gradient[:, :, None] * u


class DipoleMagnitude(Dipole):
    """Norm of the dipole moment, smoothed at zero.

    The function ``|mu| = sqrt(mu . mu + guard^2)`` is differentiable also at zero.
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
    """Total energy of the structure, including the energies of the free atoms."""

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
    """Derivatives of the energy with respect to a strain, divided by the volume.

    Order and sign are those of ASE.
    """

    name, unit, shape = "stress", "eV/Angstrom^3", (6,)
    # Off-diagonal components count twice, as for the quadrupole.
    weights = Quadrupole.weights

    def defined(self, structure):
        """The components along axes in the periodic directions.

        They are undefined for a molecule, which has no cell, and for a slab without a third cell
        vector, which has no volume.
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
    """Derivatives of the dipole ``sum_i q_i r_i`` with respect to the position of every atom.

    The derivative ``d mu_a / d r_jb`` is at ``[j, a, b]``. The sum over all atoms is the total
    charge times the unit matrix.
    """

    name, unit, row_shape = "born_effective_charges", "e", (3, 3)

    def size(self, structure):
        return 9 * len(structure)

    def defined(self, structure):
        """Component ``[j, a, b]`` is defined if the component a of the dipole is defined."""
        along = Dipole().defined(structure)
        return np.tile(np.repeat(along, 3), len(structure))

    def observe(self, solution):
        return solution.born_effective_charges.ravel()


# A new target also needs a parameter ``sigma_<name>`` in the estimators that predict it, and names
# of its components in `_component_name` of ``_cli/report.py``.
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
TARGETS: dict[str, Any] = {target.name: target for target in ALL}
ENERGIES = ("energy", "forces", "stress")
# Targets that need derivatives with respect to the geometry.
GRADIENTS = ("forces", "stress", "born_effective_charges")


def possibly_undefined(
    structures: Structures, names: Sequence[str]
) -> Iterator[tuple[int, Structure]]:
    """Yield the structures for which some of the targets may be undefined.

    All targets except the stress are defined for a molecule. Molecules are skipped if possible,
    because structures may have to be read from a file.

    Parameters
    ----------
    structures : Structures
        All structures.
    names : sequence of str
        Targets.

    Yields
    ------
    i : int
        Index of a structure.
    structure : Structure
        The structure.
    """
    index = np.arange(len(structures))
    if "stress" not in names:
        index = index[structures.periodic] if names else index[:0]
    for i in index.tolist():
        yield i, structures[i]
