"""Operators of the observables against direct sums."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skqeq import check_structures
from skqeq.targets import TARGETS

from .. import helpers


@pytest.fixture
def case():
    atoms = helpers.rattled("CH3OH", 0)
    atoms.info["potential_points"] = np.array([[3.0, 0.0, 0.0], [0.1, -4.0, 2.0]])
    charges = np.random.default_rng(0).normal(size=len(atoms))
    [structure] = check_structures([atoms])
    return atoms, charges, structure, helpers.gaussian_widths(atoms)


def observe(name, structure, widths, charges):
    target = TARGETS[name]
    T = target.operator(structure, widths)
    if target.name != "dipole_magnitude":
        assert T.shape == (target.size(structure), len(charges))
    return target.value(T @ charges)


def test_direct_sums(case):
    atoms, q, structure, widths = case
    mu = helpers.dipole(atoms, q)
    assert_allclose(observe("dipole", structure, widths, q), mu, atol=1e-13)
    norm = observe("dipole_magnitude", structure, widths, q)
    assert_allclose(norm, [np.linalg.norm(mu)], rtol=1e-9)
    assert_allclose(observe("charges", structure, widths, q), q)
    theta = helpers.quadrupole(atoms, q)
    xx, yy, zz, yz, xz, xy = observe("quadrupole", structure, widths, q)
    assert_allclose([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], theta, atol=1e-12)
    V = helpers.potential(atoms.info["potential_points"], atoms, q, widths)
    assert_allclose(observe("potential", structure, widths, q), V, rtol=1e-12)


def test_dipole_points_from_minus_to_plus():
    atoms = helpers.rattled("HF", 0, amplitude=0.0)
    [structure] = check_structures([atoms])
    hydrogen = atoms.symbols.search("H")[0]
    charges = np.where(np.arange(2) == hydrogen, 0.5, -0.5)
    mu = observe("dipole", structure, np.ones(2), charges)
    bond = atoms.positions[hydrogen] - atoms.positions[1 - hydrogen]
    assert_allclose(mu, 0.5 * bond, atol=1e-14)


def test_center_of_mass_of_isotopes():
    """The centre of mass matters for ions, and uses masses that the user has set."""
    atoms = helpers.rattled("HF", 0, charge=1)
    charges = np.array([0.7, 0.3])
    light = observe("dipole", check_structures([atoms])[0], np.ones(2), charges)
    atoms.set_masses([2.0 if s == "H" else 19.0 for s in atoms.symbols])
    heavy = observe("dipole", check_structures([atoms])[0], np.ones(2), charges)
    assert_allclose(heavy, helpers.dipole(atoms, charges), atol=1e-14)
    assert np.abs(heavy - light).max() > 1e-3


def test_potential_needs_points():
    [structure] = check_structures([helpers.rattled("HF", 0)])
    assert TARGETS["potential"].size(structure) == 0
    with pytest.raises(ValueError, match="FH has no info\\['potential_points'\\]"):
        TARGETS["potential"].operator(structure, np.ones(2))


@pytest.mark.parametrize("length", [4.0, 40.0])
@pytest.mark.parametrize(("tilt", "along_z"), [(0.0, True), (1e-11, True), (1e-9, False)])
def test_axes_along_which_a_slab_has_a_dipole(length, tilt, along_z):
    """The tilt of the plane is compared in units of the cell.

    Rounding errors of long vectors must not count as a tilt.
    """
    atoms = helpers.rattled("HF", 0)
    atoms.set_cell([[length, 0.0, 0.0], [0.0, length, tilt * length], [0.0, 0.0, 20.0]])
    atoms.pbc = (True, True, False)
    [structure] = check_structures([atoms])
    assert TARGETS["dipole"].defined(structure).tolist() == [False, False, along_z]
