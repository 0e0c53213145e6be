"""Infrared spectra from the time derivative of the dipole in molecular dynamics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.units import fs
from scipy.signal import welch

from .models import predict_born_effective_charges
from .structures import as_sequence

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ._typing import Array, Model, StructuresLike


__all__ = ["dipole_derivatives", "infrared_spectrum"]

# Speed of light in cm/fs.
LIGHT = 2.99792458e-5


def dipole_derivatives(model: Model, trajectory: StructuresLike) -> Array:
    """Time derivatives of the dipole along a trajectory, ``sum_j Z*_j v_j``.

    The product of Born effective charges Z* and velocities needs no finite differences of dipoles
    between frames. It also does not jump when a molecule is wrapped into the cell.

    Parameters
    ----------
    model : fitted estimator
        A charge model, a pipeline that ends in one, or a search over either.
    trajectory : sequence of ase.Atoms
        Frames of molecules or slabs with velocities, as written by ASE's molecular dynamics.

    Returns
    -------
    derivatives : ndarray of shape (n_frames, 3)
        In e*Angstrom/fs; NaN along the periodic axes of a slab. For ions, the derivative includes
        the total charge times the velocity of the centre of mass.

    Raises
    ------
    ValueError
        If no frame has velocities, or if the dipole of a frame is undefined.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor
    >>> from skqeq.spectra import dipole_derivatives
    >>> water = molecule("H2O")
    >>> model = QEqRegressor().fit([water], np.array([[0.0, 0.0, -0.39]]))
    >>> water.set_velocities([[0, 0, 0.1], [0, 0, 0], [0, 0, 0]])
    >>> dipole_derivatives(model, [water]).shape
    (1, 3)
    """
    frames = list(as_sequence(trajectory))
    velocities = [fs * atoms.get_velocities() for atoms in frames]
    if not any(v.any() for v in velocities):
        raise ValueError("no frame of the trajectory has velocities")
    born = predict_born_effective_charges(model, frames)
    return np.array([np.einsum("jab,jb->a", Z, v) for Z, v in zip(born, velocities, strict=True)])


def infrared_spectrum(
    derivatives: ArrayLike, timestep: float, resolution: float = 10.0
) -> tuple[Array, Array]:
    """Infrared spectrum: the power spectrum of the time derivative of the dipole.

    In the classical limit, the absorption of light is proportional to the Fourier transform of the
    autocorrelation function of ``dmu/dt`` [1]_. This Fourier transform is the power spectrum of
    ``dmu/dt``. It is computed by Welch's method, which averages over segments of the trajectory.

    Parameters
    ----------
    derivatives : array-like of shape (n_frames, 3)
        From `dipole_derivatives`, e*Angstrom/fs. Columns of NaN are ignored.
    timestep : float
        Time between frames, fs. It must be shorter than half the shortest vibrational period; 4 fs
        are short enough for O-H bonds.
    resolution : float, default=10.0
        Distance between wavenumbers, 1/cm. Segments have a length of ``3.3e4 fs / resolution``.

    Returns
    -------
    wavenumbers : ndarray of shape (n,)
        1/cm, up to ``1 / (2 timestep c)``.
    intensities : ndarray of shape (n,)
        (e*Angstrom/fs)^2 cm. The integral over wavenumbers is the variance of the derivatives.

    Raises
    ------
    ValueError
        If the trajectory is too short for the resolution, or if a component of the derivatives is
        NaN in some frames but not in all.

    References
    ----------
    .. [1] McQuarrie, Statistical Mechanics (1976), ch. 21.

    Examples
    --------
    >>> import numpy as np
    >>> from skqeq.spectra import LIGHT, infrared_spectrum
    >>> t = np.arange(20000.0)
    >>> derivatives = np.outer(np.cos(2 * np.pi * LIGHT * 1600 * t), [0.0, 0.0, 1.0])
    >>> wavenumbers, intensities = infrared_spectrum(derivatives, 1.0)
    >>> round(wavenumbers[intensities.argmax()] / 10) * 10
    1600
    """
    derivatives = np.asarray(derivatives, dtype=np.float64)
    if derivatives.ndim != 2 or derivatives.shape[1] != 3:
        raise ValueError(f"derivatives must be of shape (n, 3), got {derivatives.shape}")
    if not (np.isfinite(timestep) and timestep > 0):
        raise ValueError(f"timestep must be a positive number of fs, got {timestep!r}")
    if not (np.isfinite(resolution) and resolution > 0):
        raise ValueError(f"resolution must be a positive number of 1/cm, got {resolution!r}")
    defined = ~np.isnan(derivatives).all(axis=0)
    if not defined.any() or not np.isfinite(derivatives[:, defined]).all():
        raise ValueError("derivatives are NaN in some frames, or in all components")
    # The sampling rate in frames per cm of light path; frequencies are then wavenumbers.
    rate = 1.0 / (timestep * LIGHT)
    length = int(round(rate / resolution))
    if length < 8:
        raise ValueError(
            f"a resolution of {resolution:g} 1/cm gives segments of {length} frames, but at least "
            "8 are needed: choose a smaller value"
        )
    if length > len(derivatives):
        raise ValueError(
            f"a resolution of {resolution:g} 1/cm needs segments of {length} frames, but the "
            f"trajectory has {len(derivatives)}: choose a larger value, or run longer"
        )
    wavenumbers, power = welch(derivatives[:, defined], rate, nperseg=length, axis=0)
    return wavenumbers, power.sum(axis=1)
