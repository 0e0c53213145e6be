"""Classical charge equilibration, fitted."""

import numpy as np

from ..structures import StructureFeatures, check_structures
from ._base import POSITIVE, ChargeModel


class QEqRegressor(ChargeModel):
    """Charge equilibration with one electronegativity per element: the classical baseline.

    The same model and solver as `KQEqRegressor`, without the part that looks at the
    surroundings [1]_: ``chi_i = chi_0(Z_i) + b(Z_i)``. It takes structures directly.

    Parameters
    ----------
    sigma_dipole, sigma_charges, sigma_quadrupole, sigma_potential, sigma_dipole_magnitude : float
        Noise of the labels, as in `KQEqRegressor`.
    amplitude_baseline : float, default=10.0
        Prior standard deviation of ``b``, V.
    hardness, radius_scale, radii, accuracy, solver, init, max_iter, tol, verbose
        As in `KQEqRegressor`.

    Attributes
    ----------
    coef_ : ndarray of shape (n_elements,)
        The shifts b of `elements_`; V.
    elements_ : ndarray of shape (n_elements,)
        Atomic numbers seen in `fit`.
    targets_ : list of str
        What `predict` returns.
    fit_history_ : list of dict
        Penalised loss, relative gradient norm and step length of every iteration.

    References
    ----------
    .. [1] Staacke et al., Mach. Learn.: Sci. Technol. 3, 015032 (2022), sec. 3.1.

    Examples
    --------
    >>> from skqeq import QEqRegressor
    >>> from skqeq.datasets import load_molecules
    >>> X, y = load_molecules()
    >>> QEqRegressor().fit(X[:50], y["dipole"][:50]).predict(X[50:52]).shape
    (2, 3)
    """

    _parameter_constraints = {
        **ChargeModel._parameter_constraints,
        "amplitude_baseline": [POSITIVE],
    }

    def __init__(
        self,
        sigma_dipole=0.002,
        sigma_charges=0.02,
        sigma_quadrupole=0.05,
        sigma_potential=0.05,
        sigma_dipole_magnitude=0.002,
        amplitude_baseline=10.0,
        hardness=0.0,
        radius_scale=0.2,
        radii="qeq",
        accuracy=1e-8,
        solver="auto",
        init=None,
        max_iter=50,
        tol=1e-7,
        verbose=0,
    ):
        self.sigma_dipole = sigma_dipole
        self.sigma_charges = sigma_charges
        self.sigma_quadrupole = sigma_quadrupole
        self.sigma_potential = sigma_potential
        self.sigma_dipole_magnitude = sigma_dipole_magnitude
        self.amplitude_baseline = amplitude_baseline
        self.hardness = hardness
        self.radius_scale = radius_scale
        self.radii = radii
        self.accuracy = accuracy
        self.solver = solver
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.verbose = verbose

    def _features(self, X):
        return StructureFeatures(check_structures(X), NoFeatures())

    def _amplitudes(self):
        return 0.0, self.amplitude_baseline


class NoFeatures:
    """The source of features without columns."""

    boundaries = (0, 0)
    row_bytes = 1024
    signature = None
    verbose = False

    def tiles(self, structures):
        """Nothing."""
        return []

    def gradient(self, structure):
        """Nothing depends on the geometry."""
        return self

    def pull_back(self, cotangents):
        """No forces and no stress."""
        return np.zeros((len(cotangents), 3)), np.zeros((3, 3))
