"""Hardness matrix of Gaussian charges."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.data import covalent_radii
from numpy.testing import assert_allclose, assert_array_equal

from skqeq.electrostatics import gaussian_widths, hardness_matrix

from .. import helpers


@pytest.fixture
def atoms():
    return helpers.rattled("HCOOH", 0)


def test_direct_formula(atoms):
    widths = np.linspace(0.2, 0.9, len(atoms))
    assert_allclose(
        hardness_matrix(atoms, widths), helpers.hardness_matrix(atoms, widths), rtol=1e-13
    )
    assert_allclose(hardness_matrix(atoms), hardness_matrix(atoms, gaussian_widths(atoms.numbers)))


def test_energy_is_an_integral_over_the_densities():
    """Integrate the energy of two Gaussians in reciprocal space.

    Poisson's equation is a multiplication there.
    """
    atoms, widths = Atoms("HF", [[0, 0, 0], [0, 0, 1.1]]), np.array([0.4, 0.55])
    # k_e (2 / pi) int_0^inf exp(-k^2 (a^2 + b^2) / 2) sin(k r) / (k r) dk
    k = (np.arange(400_000) + 0.5) * 1e-4
    direct = np.empty((2, 2))
    for i, j in np.ndindex(2, 2):
        shape = np.exp(-(k**2) * (widths[i] ** 2 + widths[j] ** 2) / 2)
        r = 1.1 * abs(i - j)
        direct[i, j] = helpers.COULOMB * 2 / np.pi * np.sum(shape * np.sinc(k * r / np.pi)) * 1e-4
    assert_allclose(hardness_matrix(atoms, widths), direct, rtol=1e-8)


def test_point_charges_far_away():
    atoms = Atoms("OO", [[0, 0, 0], [0, 0, 30.0]])
    assert_allclose(hardness_matrix(atoms)[0, 1], helpers.COULOMB / 30, rtol=1e-13)


def test_staacke_convention():
    """[S22] write erf(r / sqrt(a_i^2 + a_j^2)) / r with a = 0.75 R; radius_scale is 0.53."""
    from math import erf, sqrt

    atoms = molecule("CO")
    scale = 0.75 / sqrt(2)
    assert_allclose(scale, 0.53, atol=5e-4)
    a = [0.75 * helpers.RADII[s] for s in atoms.symbols]
    r = atoms.get_distance(0, 1)
    off_diagonal = helpers.COULOMB * erf(r / sqrt(a[0] ** 2 + a[1] ** 2)) / r
    diagonal = [helpers.COULOMB * sqrt(2 / np.pi) / x for x in a]
    A = hardness_matrix(atoms, gaussian_widths(atoms.numbers, radius_scale=scale))
    assert_allclose(A[0, 1], off_diagonal, rtol=1e-14)
    assert_allclose(np.diag(A), diagonal, rtol=1e-14)


@pytest.mark.parametrize(
    "hardness, added",
    [
        (2.5, [2.5, 2.5, 2.5]),
        ({"O": 3.0, "H": 1.0}, [3.0, 1.0, 1.0]),
        ({8: 3.0, "H": 1.0, "C": 9.0}, [3.0, 1.0, 1.0]),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
    ],
)
def test_hardness_is_on_the_diagonal(hardness, added):
    water = molecule("H2O")
    difference = hardness_matrix(water, hardness=hardness) - hardness_matrix(water)
    assert_allclose(difference, np.diag(added), atol=1e-13)


@pytest.mark.parametrize("name", ["C6H6", "CH3CH2OH", "H2O", "C3H4_C3v", "SiF4"])
@pytest.mark.parametrize("scale", [0.1, 0.35, 1.0])
def test_positive_definite(name, scale):
    atoms = molecule(name)
    A = hardness_matrix(atoms, gaussian_widths(atoms.numbers, radius_scale=scale))
    assert_array_equal(A, A.T)
    assert np.linalg.eigvalsh(A)[0] > 0


def test_radii():
    numbers = np.array([1, 6, 17])
    assert_allclose(gaussian_widths(numbers, radius_scale=1.0), [0.371, 0.759, 0.994])
    assert_allclose(gaussian_widths(numbers, "covalent", 0.5), 0.5 * covalent_radii[numbers])
    own = gaussian_widths(numbers, {"H": 0.3, 6: 0.7, "Cl": 1.0}, 2.0)
    assert_allclose(own, [0.6, 1.4, 2.0])


def test_one_atom():
    [[self_interaction]] = hardness_matrix(Atoms("Ne"), widths=[0.5])
    assert_allclose(self_interaction, helpers.COULOMB / (np.sqrt(np.pi) * 0.5), rtol=1e-14)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"widths": [0.5, 0.5]}, "widths must be 3 positive"),
        ({"widths": [0.5, 0.5, 0.0]}, "widths must be 3 positive"),
        ({"widths": [0.5, 0.5, np.nan]}, "widths must be 3 positive"),
        ({"hardness": {"O": 1.0}}, "no hardness for H"),
        ({"hardness": {"Hx": 1.0}}, "'Hx', which is not an element"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        hardness_matrix(molecule("H2O"), **arguments)


@pytest.mark.parametrize("radii, message", [({"H": 0.3}, "no radius for O"), ("big", "'big'")])
def test_bad_radii(radii, message):
    with pytest.raises(ValueError, match=message):
        gaussian_widths(np.array([8, 1, 1]), radii)


def test_atoms_are_left_alone(atoms):
    before = atoms.copy()
    hardness_matrix(atoms)
    assert atoms == before
