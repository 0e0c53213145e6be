"""Compare every derivative of an `Equilibrium` with finite differences, for any response.

The fields depend on the geometry, as learned ones do: ``f_i = phi_i . w``. The features phi are
sums of Gaussians over the neighbours of atom i.
"""

import numpy as np
from ase.neighborlist import neighbor_list
from numpy.testing import assert_allclose

from skqeq.electrostatics import in_plane
from skqeq.structures import check_structures

from ..electrostatics.test_gradient import difference

SIGMAS = np.array([1.0, 1.3, 1.7])


def features(atoms):
    """phi of shape (n_atoms, 3), and its derivatives (n, 3, n, 3) and (3, 3, n, 3)."""
    n = len(atoms)
    i, j, D = neighbor_list("ijD", atoms, 8.0)
    values = np.exp(-np.einsum("pa,pa->p", D, D)[:, None] / SIGMAS**2)
    g = -2 * D[:, :, None] * (values / SIGMAS**2)[:, None]
    phi, gradient, virial = np.zeros((n, 3)), np.zeros((n, 3, n, 3)), np.zeros((3, 3, n, 3))
    np.add.at(phi, i, values)
    # Axes of the results: atom that moves, direction, atom of the feature, feature.
    np.add.at(gradient, (j, slice(None), i), g)
    np.subtract.at(gradient, (i, slice(None), i), g)
    np.add.at(np.moveaxis(virial, 2, 0), i, g[:, :, None] * D[:, None, :, None])
    return phi, gradient, virial


def weights_of(response, seed=0):
    """Random weights of every field: electronegativities of some V, charges of some 0.1 e."""
    rng = np.random.default_rng(seed)
    return {f: rng.normal(size=3) * (1.0 if f == "chi" else 0.1) for f in response.fields}


class Solved:
    """One structure at given weights: its fields with their derivatives, and its charges."""

    def __init__(self, response, atoms, weights):
        [structure] = check_structures([atoms])
        phi, gradient, virial = features(atoms)
        self.equilibrium = response.equilibrium(structure)
        self.fields = {name: phi @ w for name, w in weights.items()}
        self.gradients = {name: (gradient @ w, virial @ w) for name, w in weights.items()}
        self.structure = structure
        self.charges = self.equilibrium.charges(**self.fields)
        self.energy = self.equilibrium.energy(self.charges, **self.fields)
        self.potential = self.equilibrium.potential(self.charges, **self.fields)

    @property
    def dipole(self):
        """Dipole about the coordinate origin."""
        induced = self.equilibrium.induced_dipoles(self.charges)
        of_charges = self.charges @ self.equilibrium.structure.positions
        return of_charges if induced is None else of_charges + induced.sum(axis=0)

    def energy_gradient(self):
        """Derivatives of the energy, including those through the fields."""
        gradient, virial = self.equilibrium.energy_gradient(self.charges, **self.fields)
        derivatives = self.equilibrium.energy_derivatives(self.charges, **self.fields)
        for name, (of_positions, of_strain) in self.gradients.items():
            gradient = gradient + of_positions @ derivatives[name]
            virial = virial + in_plane(of_strain, self.structure) @ derivatives[name]
        return gradient, virial

    def born_charges(self):
        born = self.equilibrium.dipole_gradient(self.charges, **self.fields)
        for name, (gradient, _) in self.gradients.items():
            born = born + np.einsum("jbi,ai->jab", gradient, self.equilibrium.dipole_rows[name])
        return born


def displaced(atoms, step):
    other = atoms.copy()
    other.positions += step
    return other


def strained(atoms, strain):
    other = atoms.copy()
    other.set_cell(atoms.cell.array @ (np.eye(3) + strain))
    other.positions = atoms.positions @ (np.eye(3) + strain)
    return other


def check_derivatives(response, atoms):
    """All derivatives with respect to fields, geometry, weights and the external field."""
    weights = weights_of(response)
    solved = Solved(response, atoms, weights)
    check_fields(solved)
    check_geometry(response, atoms, weights, solved)
    check_weights(response, atoms, weights, solved)
    if not atoms.pbc.any():
        check_external_field(response, atoms, weights, solved)


def check_fields(solved):
    """Charges are affine in the fields, so that differences are exact derivatives."""
    equilibrium, n = solved.equilibrium, len(solved.charges)
    rng = np.random.default_rng(1)
    Y, W = rng.normal(size=(2, 4, n))
    W -= W.mean(axis=1, keepdims=True)
    rows, rows_of_charges = equilibrium.rows(Y, W), equilibrium.rows(Y)
    derivatives = equilibrium.energy_derivatives(solved.charges, **solved.fields)
    assert set(rows) == set(derivatives) == set(equilibrium.fields)
    for name in solved.fields:
        step = rng.normal(size=n)

        def at(h, name=name, step=step):
            fields = solved.fields | {name: solved.fields[name] + h * step}
            q = equilibrium.charges(**fields)
            return q, equilibrium.potential(q, **fields), equilibrium.energy(q, **fields)

        dq, du = (one - other for one, other in zip(at(1.0)[:2], at(0.0)[:2]))
        assert_allclose(rows_of_charges[name] @ step, Y @ dq, rtol=0, atol=1e-9)
        assert_allclose(rows[name] @ step, Y @ dq + W @ du, rtol=0, atol=1e-8)
        slope = difference(lambda h: at(h)[2])
        assert_allclose(derivatives[name] @ step, slope, rtol=0, atol=1e-7)


def check_geometry(response, atoms, weights, solved):
    """Check energy and dipole for a displacement of all atoms, and for a strain of the cell."""
    rng = np.random.default_rng(2)
    step, strain = rng.normal(size=(len(atoms), 3)), rng.normal(size=(3, 3))
    gradient, virial = solved.energy_gradient()

    def along(h):
        other = Solved(response, displaced(atoms, h * step), weights)
        return np.array([other.energy, *other.dipole])

    slope, *moments = difference(along)
    assert_allclose(np.vdot(gradient, step), slope, rtol=0, atol=1e-6)
    born = np.einsum("jab,jb->a", solved.born_charges(), step)
    # The dipole of a periodic structure is only defined along its open axis.
    open_axes = np.flatnonzero(~atoms.pbc)
    assert_allclose(born[open_axes], np.array(moments)[open_axes], rtol=0, atol=1e-6)
    if atoms.pbc.any():
        plane = np.diag(atoms.pbc.astype(float))
        strain = plane @ (strain + strain.T) @ plane
        slope = difference(lambda h: Solved(response, strained(atoms, h * strain), weights).energy)
        assert_allclose(np.vdot(virial, strain), slope, rtol=0, atol=1e-5)
        assert_allclose(virial, plane @ virial @ plane, rtol=0, atol=1e-12)


def check_weights(response, atoms, weights, solved):
    """Check changes of forces, stress and Born charges; all are quadratic in the weights."""
    change = weights_of(response, seed=3)
    n, equilibrium = len(atoms), solved.equilibrium

    def at(h):
        return Solved(response, atoms, {f: w + h * change[f] for f, w in weights.items()})

    one, other = at(1.0), at(-1.0)
    dq, du = (one.charges - other.charges) / 2, (one.potential - other.potential) / 2
    Y, W = equilibrium.force_factors(solved.charges, solved.gradients, **solved.fields)
    found = Y @ dq if W is None else Y @ dq + W @ du
    derivatives = equilibrium.energy_derivatives(solved.charges, **solved.fields)
    for name in solved.fields:
        gradient, virial = ((a - b) / 2 for a, b in zip(one.gradients[name], other.gradients[name]))
        found[:-9] += (gradient @ derivatives[name]).ravel()
        found[-9:] += (in_plane(virial, solved.structure) @ derivatives[name]).ravel()
    gradient, virial = ((a - b) / 2 for a, b in zip(one.energy_gradient(), other.energy_gradient()))
    scale = max(1.0, np.abs(gradient).max())
    assert_allclose(found[:-9].reshape(n, 3), gradient, rtol=0, atol=1e-8 * scale)
    if atoms.pbc.any():
        assert_allclose(found[-9:].reshape(3, 3), virial, rtol=0, atol=1e-8 * scale)
    Y, W = equilibrium.dipole_gradient_factors()
    found = Y @ dq if W is None else Y @ dq + W @ du
    born = [s.equilibrium.dipole_gradient(s.charges, **s.fields) for s in (one, other)]
    assert_allclose(found.reshape(n, 3, 3), (born[0] - born[1]) / 2, rtol=0, atol=1e-8)


def check_external_field(response, atoms, weights, solved):
    """Check that dipole and polarisability are derivatives of the energy in the external field.

    The polarisability does not depend on the field.
    """

    def at(field):
        other = atoms.copy()
        other.info["external_field"] = atoms.info.get("external_field", np.zeros(3)) + field
        return Solved(response, other, weights)

    for axis in np.eye(3):
        plus, minus = at(0.1 * axis), at(-0.1 * axis)
        alpha = (plus.dipole - minus.dipole) / 0.2
        assert_allclose(solved.equilibrium.polarizability @ axis, alpha, rtol=0, atol=1e-9)
        slope = (plus.energy - minus.energy) / 0.2
        assert_allclose(slope, -solved.dipole @ axis, rtol=0, atol=1e-9)
