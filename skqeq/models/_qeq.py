"""Classical charge equilibration with fitted electronegativities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ase import Atoms

from ..structures import collect
from ._base import ChargeModel
from ._field_features import charge_fields

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .._typing import Algorithm, AtomicEnergies, ByElement, EnergyNoise, HandleUnknown, PathType
    from ..response import Response


class QEqRegressor(ChargeModel):
    """Charge equilibration with one electronegativity per element: the classical baseline.

    The electronegativity of an atom is ``chi_i = chi_0(Z_i) + b(Z_i)`` and does not depend on its
    neighbourhood [1]_. The model therefore needs no features: X is a sequence of structures.
    Everything else is as in `KQEqRegressor`.

    Parameters
    ----------
    sigma_dipole, sigma_charges, sigma_quadrupole, sigma_potential, sigma_dipole_magnitude : float
        Noise of the labels, as in `KQEqRegressor`.
    sigma_energy, sigma_forces, sigma_stress, sigma_born_effective_charges : float
        Noise of the labels, as in `KQEqRegressor`.
    energy_noise : {"per_atom", "per_structure", "sqrt_n"}, default="per_atom"
        Meaning of `sigma_energy`, as in `KQEqRegressor`.
    atomic_energies : "fit" or dict of {str: float}, default="fit"
        Energies of the free atoms, eV, as in `KQEqRegressor`.
    charge_bias : dict of {str: float}, default=None
        Charges toward which the predicted charges are pulled in structures without labels of
        charges, e, as in `KQEqRegressor`.
    amplitude_baseline : float, default=10.0
        Prior standard deviation of the element constants ``b``, V.
    algorithm : {"gauss_newton", "fixed_point"}, default="gauss_newton"
        Iteration for targets that are not linear in the charges, as in `KQEqRegressor`.
    init : array-like of shape (n_weights,), default=None
        Weights from which the iteration starts, in the form of `coef_`.
    max_iter : int, default=50
        Largest number of iterations, as in `KQEqRegressor`.
    tol : float, default=1e-5
        Relative decrease of the loss at which the iteration stops, as in `KQEqRegressor`.
    response : Response, default=None
        Determines the charges from the electronegativities, as in `KQEqRegressor`. None means
        ``QEq()``.
    handle_unknown : {"error", "prior"}, default="error"
        How to treat structures with an element that the training data lack, as in
        `KQEqRegressor`.
    n_jobs : int, default=None
        Number of processes, as in `KQEqRegressor`.
    checkpoint : str or path, default=None
        Folder in which an iterative fit stores its progress, as in `KQEqRegressor`.
    store_triangles : bool, default=False
        Whether to store the triangles that `partial_fit`, `refit` and `predict_std` need.
    verbose : int, default=0
        If above 0, progress bars are shown.

    Attributes
    ----------
    coef_ : ndarray of shape (n_elements,)
        The constants b of `elements_`, V.
    elements_ : ndarray of shape (n_elements,)
        Atomic numbers seen in `fit`.
    atomic_energies_ : ndarray of shape (n_elements,)
        Energies of the free atoms of `elements_`, eV.
    targets_ : list of str
        Targets that `predict` returns.
    fit_history_ : list of dict
        For every step: the penalised loss before it (key "loss"), the expected decrease of the loss
        ("decrease"), the length of the step before ("step"), and, in an iterative fit, the time
        since the beginning of `fit` ("seconds"). Steps of smaller problems are left out.

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
        algorithm: Algorithm = "gauss_newton",
        init: ArrayLike | None = None,
        max_iter: int = 50,
        tol: float = 1e-5,
        response: Response | None = None,
        handle_unknown: HandleUnknown = "error",
        n_jobs: int | None = None,
        checkpoint: PathType | None = None,
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
        self.algorithm = algorithm
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.response = response
        self.handle_unknown = handle_unknown
        self.n_jobs = n_jobs
        self.checkpoint = checkpoint
        self.store_triangles = store_triangles
        self.verbose = verbose

    def _fields(self, response):
        return charge_fields(response, 0.0, self.amplitude_baseline, blocks=())

    def _check_fitted(self):
        super()._check_fitted()
        self.check_features([Atoms("H")])

    def _blocks(self, X):
        return collect(X), {}
