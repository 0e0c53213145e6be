"""Classical charge equilibration, fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..structures._collection import collect
from ._base import POSITIVE, ChargeModel, fields

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .._typing import (
        Algorithm,
        AtomicEnergies,
        ByElement,
        EnergyNoise,
        PerElement,
        Radii,
        Solver,
    )


class QEqRegressor(ChargeModel):
    """Charge equilibration with one electronegativity per element: the classical baseline.

    The same model and solver as `KQEqRegressor`, without the part that looks at the
    surroundings [1]_: ``chi_i = chi_0(Z_i) + b(Z_i)``. It takes structures directly.

    Parameters
    ----------
    sigma_dipole, sigma_charges, sigma_quadrupole, sigma_potential, sigma_dipole_magnitude : float
        Noise of the labels, as in `KQEqRegressor`.
    sigma_energy, sigma_forces, sigma_stress, sigma_born_effective_charges : float
        Likewise.
    energy_noise : {"per_atom", "per_structure", "sqrt_n"}, default="per_atom"
        What `sigma_energy` is the noise of, as in `KQEqRegressor`.
    atomic_energies : "fit" or dict of {str: float}, default="fit"
        Energies of the free atoms, eV, as in `KQEqRegressor`.
    charge_bias : dict of {str: float}, default=None
        Charges that atoms without labels of charges are pulled to, e, as in `KQEqRegressor`.
    amplitude_baseline : float, default=10.0
        Prior standard deviation of ``b``, V.
    hardness : float or dict of {str: float}, default=0.0
        Hardness J added to the self-interaction of the Gaussian charges, eV/e^2.
    radius_scale : float, default=0.2
        Width of the Gaussian charges in units of the atomic radius.
    radii : {"qeq", "covalent"} or dict of {str: float}, default="qeq"
        Atomic radii, Angstrom.
    accuracy : float, default=1e-8
        As in `skqeq.electrostatics.hardness_matrix`.
    solver : {"auto", "dense", "iterative"}, default="auto"
        How charges are found, as in `KQEqRegressor`.
    algorithm : {"gauss_newton", "fixed_point"}, default="gauss_newton"
        How targets that are not linear are fitted, as in `KQEqRegressor`.
    init : array-like of shape (n_weights,), default=None
        Where the iteration starts, in the form of `coef_`, as in `KQEqRegressor`.
    max_iter : int, default=50
        Largest number of steps.
    tol : float, default=1e-7
        When the iteration stops, as in `KQEqRegressor`.
    n_jobs : int, default=None
        Number of processes that reduce labels, as in `KQEqRegressor`.
    store_triangles : bool, default=False
        Whether `fit` keeps what `partial_fit`, `refit` and `predict_std` need.
    verbose : int, default=0
        Above 0 progress bars are shown.

    Attributes
    ----------
    coef_ : ndarray of shape (n_elements,)
        The shifts b of `elements_`; V.
    elements_ : ndarray of shape (n_elements,)
        Atomic numbers seen in `fit`.
    atomic_energies_ : ndarray of shape (n_elements,)
        Energies of their free atoms, eV.
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
        sigma_dipole: float = 0.002,
        sigma_charges: float = 0.02,
        sigma_quadrupole: float = 0.05,
        sigma_potential: float = 0.05,
        sigma_dipole_magnitude: float = 0.002,
        sigma_energy: float = 0.001,
        sigma_forces: float = 0.05,
        sigma_stress: float = 0.001,
        sigma_born_effective_charges: float = 0.05,
        energy_noise: EnergyNoise = "per_atom",
        atomic_energies: AtomicEnergies = "fit",
        charge_bias: ByElement | None = None,
        amplitude_baseline: float = 10.0,
        hardness: PerElement = 0.0,
        radius_scale: float = 0.2,
        radii: Radii = "qeq",
        accuracy: float = 1e-8,
        solver: Solver = "auto",
        algorithm: Algorithm = "gauss_newton",
        init: ArrayLike | None = None,
        max_iter: int = 50,
        tol: float = 1e-7,
        n_jobs: int | None = None,
        store_triangles: bool = False,
        verbose: int = 0,
    ) -> None:
        self.sigma_dipole = sigma_dipole
        self.sigma_charges = sigma_charges
        self.sigma_quadrupole = sigma_quadrupole
        self.sigma_potential = sigma_potential
        self.sigma_dipole_magnitude = sigma_dipole_magnitude
        self.sigma_energy = sigma_energy
        self.sigma_forces = sigma_forces
        self.sigma_stress = sigma_stress
        self.sigma_born_effective_charges = sigma_born_effective_charges
        self.energy_noise = energy_noise
        self.atomic_energies = atomic_energies
        self.charge_bias = charge_bias
        self.amplitude_baseline = amplitude_baseline
        self.hardness = hardness
        self.radius_scale = radius_scale
        self.radii = radii
        self.accuracy = accuracy
        self.solver = solver
        self.algorithm = algorithm
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.n_jobs = n_jobs
        self.store_triangles = store_triangles
        self.verbose = verbose

    def _features(self, X, response):
        return fields(collect(X))

    def _amplitudes(self):
        return 0.0, self.amplitude_baseline, 0.0
