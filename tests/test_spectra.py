"""Infrared spectra against an oscillator of known frequency."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from numpy.testing import assert_allclose

from skqeq import QEq, QEqRegressor, make_targets, predict_charges
from skqeq.spectra import LIGHT, dipole_derivatives, infrared_spectrum


@pytest.fixture(scope="module")
def model():
    water = molecule("H2O")
    model = QEqRegressor(response=QEq(radius_scale=0.5))
    return model.fit([water], make_targets(charges=[[-0.7, 0.35, 0.35]]))


def vibrating(wavenumber, n, timestep):
    """Frames of an OH molecule whose bond length oscillates."""
    frames = []
    for t in timestep * np.arange(n):
        phase = 2 * np.pi * LIGHT * wavenumber * t
        speed = -0.05 * 2 * np.pi * LIGHT * wavenumber * np.sin(phase)  # Angstrom/fs
        atoms = Atoms("OH", [[0, 0, 0], [0, 0, 0.97 + 0.05 * np.cos(phase)]])
        atoms.set_velocities([[0, 0, 0], [0, 0, speed / units.fs]])
        frames.append(atoms)
    return frames


def test_derivatives_are_those_of_the_dipole(model):
    frames = vibrating(3000.0, 41, 0.02)
    derivatives = dipole_derivatives(model, frames)
    charges = predict_charges(model, frames)
    dipoles = np.array([q @ a.positions for q, a in zip(charges, frames, strict=True)])
    first, second = (dipoles[3:-1] - dipoles[1:-3]) / 0.04, (dipoles[4:] - dipoles[:-4]) / 0.08
    expected = (4 * first - second) / 3
    assert_allclose(derivatives[2:-2], expected, rtol=0, atol=1e-7 * np.abs(expected).max())


def test_the_peak_is_where_the_bond_vibrates(model):
    derivatives = dipole_derivatives(model, vibrating(3000.0, 4000, 1.0))
    wavenumbers, intensities = infrared_spectrum(derivatives, 1.0, resolution=20.0)
    assert abs(wavenumbers[intensities.argmax()] - 3000.0) <= 20.0
    assert wavenumbers[-1] == pytest.approx(1 / (2 * LIGHT), rel=1e-2)


def test_the_integral_is_the_mean_square():
    rng = np.random.default_rng(0)
    derivatives = rng.normal(size=(50_000, 3))
    wavenumbers, intensities = infrared_spectrum(derivatives, 0.5, resolution=50.0)
    integral = np.sum(intensities) * (wavenumbers[1] - wavenumbers[0])
    assert_allclose(integral, 3.0, rtol=0.02)
    # An axis without defined derivatives contributes zero.
    derivatives[:, 0] = np.nan
    _, fewer = infrared_spectrum(derivatives, 0.5, resolution=50.0)
    assert_allclose(fewer.sum() / intensities.sum(), 2 / 3, rtol=0.02)


@pytest.mark.parametrize(
    "derivatives, timestep, resolution, message",
    [
        (np.zeros((100, 2)), 1.0, 500.0, r"of shape \(n, 3\), got \(100, 2\)"),
        (np.zeros((100, 3)), 0.0, 500.0, "timestep must be a positive number of fs, got 0.0"),
        (np.zeros((100, 3)), 1.0, np.nan, "resolution must be a positive number of 1/cm, got nan"),
        (np.zeros((100, 3)), 1.0, 2e4, "gives segments of 2 frames, but at least 8"),
        (np.zeros((100, 3)), 1.0, 10.0, "segments of 3336 frames, but the trajectory has 100"),
        (np.full((100, 3), np.nan), 1.0, 500.0, "derivatives are NaN in"),
    ],
)
def test_bad_input(derivatives, timestep, resolution, message):
    with pytest.raises(ValueError, match=message):
        infrared_spectrum(derivatives, timestep, resolution)


def test_trajectories_without_a_spectrum_are_refused(model):
    with pytest.raises(ValueError, match="no frame of the trajectory has velocities"):
        dipole_derivatives(model, [molecule("H2O")])
    ice = bulk("H", "fcc", a=4.0)
    ice.set_velocities([[0.1, 0, 0]])
    with pytest.raises(ValueError, match="structure 0 .*leaves born_effective_charges undefined"):
        dipole_derivatives(model, [ice])
