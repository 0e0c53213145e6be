"""Gaussian dipoles: finite differences of charges, closed forms, and invariances."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from numpy.testing import assert_allclose
from scipy.linalg import null_space

from skqeq.electrostatics import (
    DipoleSum,
    dipole_widths,
    hardness_matrix,
    radial_derivatives,
)
from skqeq.structures import check_structures

from .. import helpers
from .test_gradient import WIDTHS, charges, difference, geometry, move, strain

K = helpers.COULOMB
DIPOLE_WIDTHS = np.array([0.5, 0.35, 0.6, 0.45])
KINDS = ["molecule", "crystal", "slab", "slab yz", "sharp", "left-handed"]


def dipole_sum(atoms, widths=None, broad=None, accuracy=1e-8):
    [structure] = check_structures([atoms])
    widths = WIDTHS if widths is None else widths
    return DipoleSum(structure, widths, DIPOLE_WIDTHS if broad is None else broad, accuracy)


def moments():
    """Two sets of charges, each with a net charge, and two sets of dipoles."""
    rng = np.random.default_rng(3)
    q, p = charges(1.0)
    return q, rng.normal(size=(4, 3)), p, rng.normal(size=(4, 3))


def second_difference(function, step):
    """Central difference of sixth order for the second derivative."""
    terms = zip(range(-3, 4), (2, -27, 270, -490, 270, -27, 2))
    return sum(c * function(n * step) for n, c in terms) / (180 * step**2)


def whole_matrix(atoms, widths, broad):
    n, dipoles = len(atoms), dipole_sum(atoms, widths, broad)
    T = dipoles.coupling.reshape(n, 3 * n)
    A = hardness_matrix(atoms, widths)
    return np.block([[A, T], [T.T, dipoles.dipolar.reshape(3 * n, 3 * n)]])


@pytest.mark.parametrize("m", [0, 1, 2])
@pytest.mark.parametrize("r2", [0.01, 0.3, 4.0, 60.0])
def test_radial_derivatives(m, r2):
    """Applied to one function, ``d / (r dr) = 2 d / d(r^2)`` gives the next function."""
    slope = difference(lambda step: radial_derivatives(np.array(r2 + step), 0.7)[m])
    assert_allclose(2 * slope, radial_derivatives(np.array(r2), 0.7)[m + 1], rtol=1e-9, atol=1e-12)


def test_radial_derivatives_at_zero():
    near, zero = (radial_derivatives(np.array(r2), 0.7) for r2 in (1e-12, 0.0))
    assert_allclose(near, zero, rtol=1e-11)
    assert_allclose(zero[:2] / np.sqrt(2 / np.pi), [1 / 0.7, -1 / (3 * 0.7**3)], rtol=1e-14)


@pytest.mark.parametrize("kind", [*KINDS, "one atom"])
def test_differences_of_charges(kind):
    """Interactions of dipoles are derivatives of interactions of charges.

    Every atom has three charges: its own, and two charges with the width of its dipole. The test
    shifts one of these two, and computes derivatives by finite differences.
    """
    atoms = geometry(kind)
    n, [structure] = len(atoms), check_structures([atoms])
    widths, broad = WIDTHS[:n], DIPOLE_WIDTHS[:n]
    dipoles = dipole_sum(atoms, widths, broad, accuracy=1e-11)

    def elements(shift):
        positions = np.concatenate([atoms.positions, atoms.positions, atoms.positions + shift])
        sites = replace(structure, positions=positions, numbers=np.tile(atoms.numbers, 3))
        A = hardness_matrix(sites, np.concatenate([widths, broad, broad]), accuracy=1e-12)
        return A[: 2 * n, 2 * n :]

    # A symmetric tensor follows from its quadratic form in these six directions.
    for v in np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]]):
        slope = difference(lambda x, v=v: elements(x * v)[:n], step=0.02)
        assert_allclose(dipoles.coupling @ v, slope, rtol=0, atol=1e-6)
        curvature = second_difference(lambda x, v=v: elements(x * v)[n:], step=0.02)
        found = np.einsum("iajb,a,b->ij", dipoles.dipolar, v, v)
        assert_allclose(found, -curvature, rtol=0, atol=2e-6)
    assert_allclose(dipoles.dipolar, dipoles.dipolar.swapaxes(1, 3), rtol=0, atol=1e-10)
    assert_allclose(dipoles.dipolar, dipoles.dipolar.transpose(2, 3, 0, 1), rtol=0, atol=1e-10)


def test_self_term():
    alpha = np.array([0.02, 0.05, 0.09])
    dipoles = dipole_sum(molecule("H2O"), WIDTHS[:3], dipole_widths(alpha))
    own = dipoles.dipolar[np.arange(3), :, np.arange(3)]
    assert_allclose(own, np.eye(3) / alpha[:, None, None], rtol=1e-13)
    assert_allclose(dipoles.coupling[np.arange(3), np.arange(3)], 0, atol=1e-14)


def test_lone_atom():
    dipoles = dipole_sum(Atoms("Ar"), WIDTHS[:1], dipole_widths([0.1]))
    assert_allclose(dipoles.dipolar, 10 * np.eye(3).reshape(1, 3, 1, 3), rtol=1e-13)
    for derivatives in dipoles.potential_gradient(np.ones(1), np.ones((1, 3))):
        assert_allclose(derivatives, 0, atol=0)


@pytest.mark.parametrize("alpha", [0.0, [0.1, -0.1], np.nan])
def test_bad_polarisabilities(alpha):
    with pytest.raises(ValueError, match="polarisabilities must be positive"):
        dipole_widths(alpha)


@pytest.mark.parametrize("seed", range(5))
def test_positive_definite_molecules(seed):
    """The matrix is positive definite even if polarisable atoms are very close."""
    rng = np.random.default_rng(seed)
    atoms = Atoms("H12", 2.0 * rng.normal(size=(12, 3)))
    B = whole_matrix(atoms, rng.uniform(0.2, 0.6, 12), dipole_widths(rng.uniform(0.02, 0.2, 12)))
    assert np.linalg.eigvalsh(B).min() > 0.01


@pytest.mark.parametrize("kind", ["crystal", "slab"])
def test_positive_definite_periodic(kind):
    B = whole_matrix(geometry(kind), WIDTHS, dipole_widths(np.full(4, 0.1)))
    neutral = null_space(np.repeat([1.0, 0.0], [4, 12])[None])
    assert np.linalg.eigvalsh(neutral.T @ B @ neutral).min() > 0.01


@pytest.mark.parametrize("kind", KINDS[:4])
def test_derivatives(kind):
    atoms, (q, d, p, e) = geometry(kind), moments()
    dipoles = dipole_sum(atoms, accuracy=1e-11)
    found = dipoles.potential_gradient(q, d)
    contracted = dipoles.gradient(q, d, p, e)

    def potentials(atoms):
        dipoles = dipole_sum(atoms, accuracy=1e-11)
        field = np.tensordot(q, dipoles.coupling, axes=1) + np.tensordot(dipoles.dipolar, d)
        return np.column_stack([np.tensordot(dipoles.coupling, d), field])

    for i, change in enumerate((move, strain)):
        potential, field = found[2 * i : 2 * i + 2]
        numeric = np.empty((*potential.shape, 4))
        for a, b in np.ndindex(potential.shape[:2]):
            numeric[a, b] = difference(
                lambda step, a=a, b=b, change=change: potentials(change(atoms, a, b, step)), 5e-3
            )
        scale = np.abs(numeric).max()
        assert_allclose(potential, numeric[..., 0], rtol=0, atol=1e-7 * scale)
        assert_allclose(field, numeric[..., 1:], rtol=0, atol=1e-7 * scale)
        by_hand = np.tensordot(numeric, np.column_stack([p, e]), axes=2)
        assert_allclose(contracted[i], by_hand, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("kind", KINDS)
def test_contracted(kind):
    """Contractions of the potential gradient give the gradient of the bilinear form.

    The bilinear form is symmetric, and does not change if all atoms move together.
    """
    q, d, p, e = moments()
    dipoles = dipole_sum(geometry(kind))
    gradient, virial = dipoles.gradient(q, d, p, e)
    potential, field, potential_strain, field_strain = dipoles.potential_gradient(q, d)
    assert potential.shape == (4, 3, 4) and field.shape == (4, 3, 4, 3)
    assert potential_strain.shape == (3, 3, 4) and field_strain.shape == (3, 3, 4, 3)
    by_hand = potential @ p + np.einsum("kcja,ja->kc", field, e)
    assert_allclose(gradient, by_hand, rtol=0, atol=1e-10)
    by_hand = potential_strain @ p + np.einsum("cbja,ja->cb", field_strain, e)
    assert_allclose(virial, by_hand, rtol=0, atol=1e-10)
    for one, other in zip(dipoles.gradient(p, e, q, d), (gradient, virial)):
        assert_allclose(one, other, rtol=0, atol=1e-6)
    assert_allclose(gradient.sum(axis=0), 0, atol=1e-10)
    assert_allclose(virial, virial.T, rtol=0, atol=1e-10)


def everything(atoms):
    """The matrices, and the derivatives of the bilinear form."""
    dipoles = dipole_sum(atoms)
    return dipoles.coupling, dipoles.dipolar, *dipoles.gradient(*moments())


@pytest.mark.parametrize("kind", KINDS)
def test_translation(kind):
    """Translations leave the result unchanged, even if atoms leave the cell."""
    atoms = geometry(kind)
    expected = everything(atoms)
    atoms.positions += [1.3, -7.2, 2.9]
    shifts = np.array([[3, 1, 0], [-2, 0, 5], [0, 0, -1], [7, -7, 1]]) * atoms.pbc
    atoms.positions += shifts @ atoms.cell.array
    for one, other in zip(everything(atoms), expected):
        assert_allclose(one, other, rtol=0, atol=2e-7)


@pytest.mark.parametrize("kind", ["molecule", "slab", "crystal"])
def test_rotation(kind):
    atoms, (q, d, p, e) = geometry(kind), moments()
    other = atoms.copy()
    other.rotate(50.0, (1, 2, 3), rotate_cell=True)
    turn = np.linalg.lstsq(atoms.positions, other.positions, rcond=None)[0]
    one, two = dipole_sum(atoms), dipole_sum(other)
    assert_allclose(two.coupling, one.coupling @ turn, rtol=0, atol=1e-8)
    turned = np.einsum("iajb,ac,bd->icjd", one.dipolar, turn, turn)
    assert_allclose(two.dipolar, turned, rtol=0, atol=1e-8)
    gradient, virial = one.gradient(q, d, p, e)
    turned = two.gradient(q, d @ turn, p, e @ turn)
    assert_allclose(turned[0], gradient @ turn, rtol=0, atol=1e-7)
    assert_allclose(turned[1], turn.T @ virial @ turn, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["crystal", "slab", "sharp"])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_accuracy(kind, scale):
    """The errors stay below the accuracy for every splitting, even with broad Gaussians."""
    atoms = geometry(kind)
    exact = dipole_sum(atoms, scale * WIDTHS, scale * DIPOLE_WIDTHS, accuracy=1e-12)
    for accuracy in 10.0 ** -np.arange(2, 11, 2):
        found = dipole_sum(atoms, scale * WIDTHS, scale * DIPOLE_WIDTHS, accuracy=accuracy)
        assert_allclose(found.coupling, exact.coupling, rtol=0, atol=K * accuracy)
        assert_allclose(found.dipolar, exact.dipolar, rtol=0, atol=K * accuracy)
        derivatives = zip(found.gradient(*moments()), exact.gradient(*moments()))
        for one, other in derivatives:
            assert_allclose(one, other, rtol=0, atol=10 * K * accuracy)


@pytest.mark.parametrize("kind", ["crystal", "slab"])
def test_supercell(kind):
    atoms, (q, d, p, e) = geometry(kind), moments()
    large = atoms * (2, 3, 1)
    gradient, virial = dipole_sum(atoms, accuracy=1e-10).gradient(q, d, p, e)
    tiled = (np.tile(x, 6).reshape(24) for x in (WIDTHS, DIPOLE_WIDTHS))
    Q, P, D, E = np.tile(q, 6), np.tile(p, 6), np.tile(d, (6, 1)), np.tile(e, (6, 1))
    repeated, strained = dipole_sum(large, *tiled, accuracy=1e-10).gradient(Q, D, P, E)
    assert_allclose(repeated, np.tile(gradient, (6, 1)), rtol=0, atol=1e-6)
    assert_allclose(strained, 6 * virial, rtol=0, atol=1e-6)


def test_points():
    """Very narrow dipoles and charges have the interactions of point dipoles and point charges."""
    r, (d, e) = np.array([1.2, -0.7, 1.9]), np.random.default_rng(0).normal(size=(2, 3))
    dipoles = dipole_sum(Atoms("H2", [r, [0, 0, 0]]), np.full(2, 1e-3), np.full(2, 1e-3))
    length = np.linalg.norm(r)
    expected = K * (d @ e / length**3 - 3 * (d @ r) * (e @ r) / length**5)
    assert_allclose(d @ dipoles.dipolar[0, :, 1] @ e, expected, rtol=1e-13)
    assert_allclose(dipoles.coupling[0, 1] @ e, K * (e @ r) / length**3, rtol=1e-13)


def test_silberstein():
    """The polarisability of a pair of polarisable atoms (Phil. Mag. 33, 521 (1917))."""
    alpha, r = 0.06, 6.0
    dipoles = dipole_sum(
        Atoms("Ar2", [[0, 0, 0], [0, 0, r]]), WIDTHS[:2], dipole_widths([alpha] * 2)
    )
    response = np.linalg.inv(dipoles.dipolar.reshape(6, 6)).reshape(2, 3, 2, 3).sum(axis=(0, 2))
    across, along = 2 * alpha / (1 + K * alpha / r**3), 2 * alpha / (1 - 2 * K * alpha / r**3)
    assert_allclose(response, np.diag([across, across, along]), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("b", [0.2, 0.35])
def test_lorentz_field(b):
    """The field on parallel dipoles of a cubic lattice is the Lorentz field ``4 pi / 3 k_e d / V``.

    The expected value also contains the interaction of each dipole with itself.
    """
    atoms = Atoms("Ar", cell=[4.0] * 3, pbc=True)
    found = dipole_sum(atoms, WIDTHS[:1], np.array([b]), accuracy=1e-12).dipolar[0, :, 0]
    own = np.sqrt(2 / np.pi) / (3 * (np.sqrt(2) * b) ** 3)
    expected = K * (own - 4 * np.pi / 3 / 4.0**3)
    assert_allclose(found, expected * np.eye(3), rtol=0, atol=1e-10)


def test_double_layer():
    """On either side of a sheet of dipoles d per area S the potential is ``2 pi k_e d / S``."""
    cell = [[4.0, 0, 0], [1.0, 5.0, 0], [0, 0, 0]]
    atoms = Atoms("HOH", [[0, 0, -20], [1, 2, 0], [3, 0, 20]], cell=cell, pbc=(1, 1, 0))
    coupling = dipole_sum(atoms, WIDTHS[:3], DIPOLE_WIDTHS[:3]).coupling
    step = 2 * np.pi * K / 20.0
    assert_allclose(coupling[[0, 2], 1], [[0, 0, -step], [0, 0, step]], rtol=0, atol=1e-7)
