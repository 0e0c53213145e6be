"""The base class for the charges of one structure as a function of the latent fields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..electrostatics import in_plane
from ._dipoles import NoDipoles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._typing import Array
    from ..electrostatics import Hardness
    from ..structures import Structure
    from ._dipoles import InducedDipoles


class Observable(Protocol):
    """A target with linear operators on charges and dipoles, see `Equilibrium.observable`."""

    def operator(self, structure: Structure, widths: Array, /) -> Array:
        """Matrix of shape (k, n_atoms) that acts on charges with the given widths."""

    def dipole_operator(self, structure: Structure, widths: Array, /) -> Array:
        """Array of shape (k, n_atoms, 3) that acts on dipoles with the given widths."""


class Equilibrium(ABC):
    """The charges of one structure, its energy, and the derivatives of both.

    A response makes one `Equilibrium` for every structure. The charges q are an affine function of
    the latent fields, such as the electronegativities ``chi``. They interact through the hardness
    matrix A. With the external electric field ``field``, their potential u and their energy E are::

        u = chi + A q - R field,    E = chi . q + q . A q / 2 - field . R^T q.

    Responses without electronegativities have ``chi = 0``. R are the positions or, with
    polarisable atoms, the `dipole_factors`.

    A subclass must define `charges` and `rows`. The defaults of all other methods are right in two
    cases: if the charges minimise E at fixed latent fields, or if they depend on the geometry
    through the latent fields only. In other cases, override these methods.

    Parameters
    ----------
    hardness : Hardness
        Hardness matrix of the structure.
    dipoles : InducedDipoles or NoDipoles, default=None
        Polarisable atoms; None means that no atom is polarisable.

    Attributes
    ----------
    fields : tuple of str
        Names of the latent fields, as in `Response.fields`.
    structure : Structure
        Geometry, total charge and external field.
    widths : ndarray of shape (n_atoms,)
        Widths of the Gaussian charges, Angstrom.
    hardness : Hardness
        The hardness matrix, including the screening by the induced dipoles.
    dipoles : InducedDipoles or NoDipoles
        The polarisable atoms.
    dipole_factors : ndarray of shape (n_atoms, 3)
        Derivatives of the dipole moment with respect to the charges, Angstrom: the positions plus
        the dipole moment that a unit charge induces on the atoms.
    n_iterations : int
        Number of iterations of the last solution; 0 for direct solvers.

    See Also
    --------
    QEqEquilibrium : Charge equilibration.
    FlowEquilibrium : Charge that flows between neighbours at an energy cost.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import check_structures
    >>> from skqeq.response import QEq
    >>> [water] = check_structures([molecule("H2O")])
    >>> equilibrium = QEq().prepare([1, 8]).equilibrium(water)
    >>> equilibrium.charges(chi=[8.741, 4.528, 4.528]).round(3)
    array([-0.047,  0.023,  0.023])
    >>> equilibrium.dipole_rows["chi"].shape
    (3, 3)
    """

    fields: tuple[str, ...] = ("chi",)
    n_iterations = 0

    def __init__(
        self, hardness: Hardness, dipoles: InducedDipoles | NoDipoles | None = None
    ) -> None:
        self.structure, self.widths = hardness.structure, hardness.widths
        self.dipoles = NoDipoles() if dipoles is None else dipoles
        self.hardness = self.dipoles.screen(hardness)
        self.dipole_factors = self.structure.positions - self.dipoles.dipole_shift
        self._external = self.dipole_factors @ self.structure.field
        self._last_product: tuple[Array, Array] | None = None

    # ---- for a subclass to define -----------------------------------------------------------

    @abstractmethod
    def charges(self, *, start: Array | None = None, **fields: Array) -> Array:
        """Charges for given latent fields.

        Parameters
        ----------
        start : ndarray of shape (n_atoms,), default=None
            Charges from which iterations start, e; for instance those of a similar geometry.
        **fields : ndarray of shape (n_atoms,)
            The latent fields by name; a latent field that is not given is zero.

        Returns
        -------
        charges : ndarray of shape (n_atoms,)
            Charges, e; they sum to the total charge.
        """

    @abstractmethod
    def rows(self, Y: Array, W: Array | None = None) -> dict[str, Array]:
        """Derivatives of ``Y q + W u`` with respect to the latent fields.

        Parameters
        ----------
        Y, W : ndarray of shape (k, n_atoms)
            Factors that multiply the charges q and the potential u; None for W means zeros.

        Returns
        -------
        rows : dict of {str: ndarray of shape (k, n_atoms)}
            One matrix per latent field.
        """

    # ---- energy -----------------------------------------------------------------------------

    def potential(self, charges: Array, **fields: Array) -> Array:
        """Derivatives of E with respect to the charges.

        Parameters
        ----------
        charges : ndarray of shape (n_atoms,)
            Charges, e.
        **fields : ndarray of shape (n_atoms,)
            As in `charges`.

        Returns
        -------
        u : ndarray of shape (n_atoms,)
            ``chi + A q - R field``, V.
        """
        return self._linear(fields) + self._hardness_times(charges)

    def energy(self, charges: Array, **fields: Array) -> float:
        """Electrostatic energy.

        In an external field, the energy of a charged structure refers to the coordinate origin.

        Parameters
        ----------
        charges : ndarray of shape (n_atoms,)
            Charges, e.
        **fields : ndarray of shape (n_atoms,)
            As in `charges`.

        Returns
        -------
        energy : float
            ``chi . q + q . A q / 2 - field . R^T q`` plus the energy of the dipoles that the
            external field induces, eV.
        """
        field = self.structure.field
        of_charges = charges @ (self._linear(fields) + 0.5 * self._hardness_times(charges))
        return float(of_charges - 0.5 * (field @ self.dipoles.polarizability @ field))

    def energy_derivatives(self, charges: Array, **fields: Array) -> dict[str, Array]:
        """Derivatives of the energy with respect to the latent fields; the charges follow.

        Parameters
        ----------
        charges : ndarray of shape (n_atoms,)
            Charges, e, as `charges` returns them for these latent fields.
        **fields : ndarray of shape (n_atoms,)
            As in `charges`.

        Returns
        -------
        derivatives : dict of {str: ndarray of shape (n_atoms,)}
            One array per latent field, eV per unit of the latent field.
        """
        # dE = q . dchi + u . dq, and u . dq is the product of u with `rows`.
        u = self.potential(charges, **fields)
        derivatives = {name: row[0] for name, row in self.rows(u[None]).items()}
        if "chi" in derivatives:
            derivatives["chi"] = derivatives["chi"] + charges
        return derivatives

    def energy_gradient(self, charges: Array, **fields: Array) -> tuple[Array, Array]:
        """Derivatives of the energy with respect to the geometry, at fixed latent fields.

        Parameters
        ----------
        charges : ndarray of shape (n_atoms,)
            Charges, e, as `charges` returns them for these latent fields.
        **fields : ndarray of shape (n_atoms,)
            As in `charges`.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            Derivatives with respect to the positions, eV/Angstrom.
        virial : ndarray of shape (3, 3)
            Derivatives with respect to a strain that the structure can have, see
            `skqeq.electrostatics.in_plane`; eV.
        """
        # Either factor q of q . A q / 2 may move; the derivatives of q . A p contain both.
        gradient, virial = self.coulomb_gradient(charges, charges)
        gradient = 0.5 * gradient - np.multiply.outer(charges, self.structure.field)
        return gradient, 0.5 * virial

    # ---- the change of forces, stress and Born charges with the weights -----------------------

    def force_factors(
        self, charges: Array, gradients: Mapping[str, tuple[Array, Array]], **fields: Array
    ) -> tuple[Array, Array | None]:
        """Factors Y and W that make forces and stress linear in the weights.

        The latent fields are linear in the weights. A change of the weights changes the charges by
        dq and the potential by du. The derivatives of the energy with respect to positions and
        strain then change by the sum of two parts: ``Y dq + W du``, and `energy_derivatives` times
        the change of the gradients of the latent fields. `rows` turns the first part into rows of
        the design matrix.

        Parameters
        ----------
        charges : ndarray of shape (n_atoms,)
            Charges, e, as `charges` returns them for these latent fields.
        gradients : dict of {str: (gradient, virial)}
            Derivatives of the latent fields with respect to positions and strain at fixed weights,
            (n_atoms, 3, n_atoms) and (3, 3, n_atoms), with ``d field_i / d r_ja`` at
            ``[j, a, i]``. Latent fields that do not depend on the geometry may be missing.
        **fields : ndarray of shape (n_atoms,)
            As in `charges`.

        Returns
        -------
        Y : ndarray of shape (3 n_atoms + 9, n_atoms)
            Derivatives of the potential at fixed charges, ``d u_i / d r_ja`` in row 3 j + a. The
            last nine rows are derivatives with respect to a strain.
        W : ndarray of shape (3 n_atoms + 9, n_atoms) or None
            Derivatives of the charges at fixed potential; None means zeros.
        """
        Y = self._potential_factors(charges, gradients)
        if not gradients:
            return Y, None
        # By default, the charges depend on the geometry through the latent fields only. Row i of
        # these matrices has the derivatives of q_i with respect to a latent field.
        of_fields = self.rows(np.eye(len(charges)))
        W = [self._stacked(*g) @ of_fields[name].T for name, g in gradients.items()]
        return Y, np.sum(W, axis=0)

    def directional_factors(
        self,
        charges: Array,
        changes: Mapping[str, Array],
        displacement: Array,
        strain: Array,
        **fields: Array,
    ) -> tuple[Array, Array | None]:
        """Products of the `force_factors` with one direction in the space of geometries.

        Parameters
        ----------
        charges : ndarray of shape (n_atoms,)
            Charges, e, as `charges` returns them for these latent fields.
        changes : dict of {str: ndarray of shape (n_atoms,)}
            Change of every latent field along the direction, at fixed weights.
        displacement : ndarray of shape (n_atoms, 3)
            Displacements of the atoms, Angstrom.
        strain : ndarray of shape (3, 3)
            Strain of positions and cell, symmetric; in the plane for a slab.
        **fields : ndarray of shape (n_atoms,)
            As in `charges`.

        Returns
        -------
        y : ndarray of shape (n_atoms,)
            ``(displacement, strain) Y``, the change of the potential at fixed charges.
        z : ndarray of shape (n_atoms,) or None
            ``(displacement, strain) W``, the change of the charges at fixed potential.
        """
        y = self._potential_change(charges, changes, displacement, strain)
        of_fields, z = self.rows(np.eye(len(charges))), np.zeros(len(charges))
        for name, change in changes.items():
            z += of_fields[name] @ change
        return y, z

    def dipole_gradient(self, charges: Array, **fields: Array) -> Array:
        """Derivatives of the dipole moment with respect to the positions, at fixed latent fields.

        A displacement changes the potential u at fixed charges, and thereby the charges by
        ``-P du/dr``. The dipole moment changes by the product of this change with R, for which only
        ``V = P R`` is needed, the `field_response`.

        Parameters
        ----------
        charges : ndarray of shape (n_atoms,)
            Charges, e, as `charges` returns them for these latent fields.
        **fields : ndarray of shape (n_atoms,)
            As in `charges`.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3, 3)
            ``d mu_a / d r_jb`` at ``[j, a, b]``, e: the part of the Born charges that does not
            come from the gradients of the latent fields.
        """
        V = self.field_response
        born = np.multiply.outer(charges, np.eye(3)) + V[:, :, None] * self.structure.field
        for a, axis in enumerate(np.eye(3)):
            born[:, a] -= self.coulomb_gradient(V[:, a], charges, axis)[0]
        return born

    def dipole_gradient_factors(self) -> tuple[Array, Array | None]:
        """Factors Y and W that make the `dipole_gradient` linear in the weights.

        Returns
        -------
        Y, W : ndarray of shape (9 n_atoms, n_atoms)
            A change of the weights changes the `dipole_gradient` by ``Y dq + W du``, see
            `force_factors`; ``d mu_a / d r_jb`` is in row 9 j + 3 a + b. None for W means zeros.
        """
        n = len(self.structure)
        Y = np.empty((n, 3, 3, n))
        # A unit external field along an axis moves the charges `field_response`. The potential of
        # these charges, and of the dipoles that the same field induces, acts on the charges q.
        for a, axis in enumerate(np.eye(3)):
            gradient, _ = self.potential_gradient(self.field_response[:, a], axis)
            np.negative(gradient, out=Y[:, a])
            Y[:, a, a] += np.eye(n)
        return Y.reshape(9 * n, n), None

    # ---- dipole and other observables -------------------------------------------------------

    @cached_property
    def dipole_rows(self) -> dict[str, Array]:
        """For each latent field, the derivatives (3, n_atoms) of the dipole moment."""
        return self.rows(np.ascontiguousarray(self.dipole_factors.T))

    @cached_property
    def field_response(self) -> Array:
        """Derivatives (n_atoms, 3) of the charges with respect to the external field, e*Angstrom/V.

        An external field acts on the charges like a change of the electronegativities by
        ``-R field``.
        """
        if "chi" not in self.fields:
            return np.zeros_like(self.dipole_factors)
        return -self.dipole_rows["chi"].T

    @cached_property
    def polarizability(self) -> Array:
        """Derivatives (3, 3) of the dipole moment with respect to the external field.

        The unit is e^2 Angstrom^2 / eV.
        """
        return self.dipole_factors.T @ self.field_response + self.dipoles.polarizability

    def induced_dipoles(self, charges: Array) -> Array | None:
        """Dipoles that the charges and the external field induce on the atoms.

        Parameters
        ----------
        charges : ndarray of shape (n_atoms,)
            Charges, e.

        Returns
        -------
        dipoles : ndarray of shape (n_atoms, 3) or None
            Dipoles, e*Angstrom; None if no atom is polarisable.
        """
        return self.dipoles.induced(charges, self.structure.field)

    def observable(self, target: Observable) -> tuple[Array, Array]:
        """Express a target as an affine function of the charges: ``T q`` plus a constant.

        Parameters
        ----------
        target : ChargeTarget
            An observable of the charges, see `skqeq.targets`.

        Returns
        -------
        operator : ndarray of shape (k, n_atoms)
            The matrix T.
        constant : ndarray of shape (k,)
            The contribution of the dipoles that the external field induces.
        """
        operator = target.operator(self.structure, self.widths)
        return self.dipoles.observable(target, self.structure, operator)

    @property
    def dipole_widths(self) -> Array:
        """Widths of learned dipoles of the atoms, shape (n_atoms,), Angstrom.

        A dipole is as wide as the dipole that a field induces on the same atom, or, if the atom is
        not polarisable, as its charge.
        """
        return np.where(self.dipoles.polarizable, self.dipoles.widths, self.widths)

    def dipole_operator(self, target: Observable) -> Array:
        """Derivatives of a target with respect to dipoles of the atoms that do not act on charges.

        Parameters
        ----------
        target : ChargeTarget
            An observable of charges and dipoles, see `skqeq.targets`.

        Returns
        -------
        operator : ndarray of shape (k, n_atoms, 3)
            In the unit of the target per e*Angstrom.
        """
        return target.dipole_operator(self.structure, self.dipole_widths)

    # ---- derivatives of the interaction -------------------------------------------------------

    def coulomb_gradient(
        self, q: Array, p: Array, field: Array | None = None
    ) -> tuple[Array, Array]:
        """Derivatives of ``q . A p`` at fixed charges with respect to the geometry.

        With polarisable atoms the derivatives include the interactions of the induced dipoles,
        which are held fixed. The dipoles of q are induced in the external field `field`, those of
        p in the external field of the structure.

        Parameters
        ----------
        q, p : ndarray of shape (n_atoms,)
            Two sets of charges, e.
        field : ndarray of shape (3,), default=None
            External field, V/Angstrom; None means the one of the structure.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3)
            Derivatives with respect to the positions, eV/Angstrom.
        virial : ndarray of shape (3, 3)
            Derivatives with respect to a strain, eV, see `skqeq.electrostatics.hardness_gradient`.
        """
        field = self.structure.field if field is None else field
        gradient, virial = self.hardness.gradient(q, p)
        of_dipoles = self.dipoles.gradient(q, p, field, self.structure.field)
        return gradient + of_dipoles[0], virial + of_dipoles[1]

    def potential_gradient(self, q: Array, field: Array | None = None) -> tuple[Array, Array]:
        """Derivatives of the potential ``A q`` at fixed charges with respect to the geometry.

        With polarisable atoms the derivatives include the potential of the dipoles that q and the
        external field `field` induce. These dipoles change with the geometry.

        Parameters
        ----------
        q : ndarray of shape (n_atoms,)
            Charges, e.
        field : ndarray of shape (3,), default=None
            External field, V/Angstrom; None means the one of the structure.

        Returns
        -------
        gradient : ndarray of shape (n_atoms, 3, n_atoms)
            Derivatives with respect to the positions, V/Angstrom, in the order of
            `skqeq.electrostatics.potential_gradient`.
        virial : ndarray of shape (3, 3, n_atoms)
            Derivatives with respect to a strain, V.
        """
        gradient, virial = self.hardness.potential_gradient(q)
        field = self.structure.field if field is None else field
        self.dipoles.add_potential_gradient(gradient, virial, q, field)
        return gradient, virial

    # ---- for subclasses ---------------------------------------------------------------------

    def _linear(self, fields: Mapping[str, Any]) -> Array:
        """``chi - R field``, V; raises an error for latent fields that the response lacks."""
        if not fields.keys() <= set(self.fields):
            unknown = ", ".join(sorted(fields.keys() - set(self.fields)))
            raise TypeError(f"{type(self).__name__} has no latent field {unknown}")
        return fields["chi"] - self._external if "chi" in fields else -self._external

    def _hardness_times(self, charges: Array) -> Array:
        """``A q``, stored for the last charges because energy and derivatives both need it."""
        if self._last_product is None or not np.array_equal(charges, self._last_product[0]):
            self._last_product = np.array(charges), self.hardness @ charges
        return self._last_product[1]

    def _charge_factors(self, Y, W):
        """``Y + W A``: derivatives of ``Y q + W u`` with respect to q, at fixed latent fields."""
        return Y if W is None else Y + W @ self.hardness

    def _potential_factors(self, charges, gradients):
        """Derivatives of u at fixed charges and weights, in the form of `force_factors`."""
        gradient, virial = self.potential_gradient(charges)
        # The potential -R field of the external field changes with an atom's own position only.
        atoms = np.arange(len(charges))
        gradient[atoms, :, atoms] -= self.structure.field
        if "chi" in gradients:
            gradient += gradients["chi"][0]
            virial = virial + gradients["chi"][1]
        return self._stacked(gradient, virial)

    def _potential_change(self, charges, changes, displacement, strain):
        """Change of u at fixed charges and weights, the product of `_potential_factors`."""
        change = self.hardness.directional(charges, displacement, strain)
        change += self.dipoles.directional(charges, self.structure.field, displacement, strain)
        return change + changes.get("chi", 0.0) - displacement @ self.structure.field

    def _stacked(self, gradient, virial):
        """Stack derivatives (n, 3, n) and (3, 3, n) as rows (3 n + 9, n)."""
        n = len(self.structure)
        virial = in_plane(virial, self.structure)
        return np.concatenate([gradient.reshape(3 * n, n), virial.reshape(9, n)])
