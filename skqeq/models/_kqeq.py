"""Kernel charge equilibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base import POSITIVE, ChargeModel
from ._fields import charge_fields

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .._typing import Algorithm, AtomicEnergies, ByElement, EnergyNoise
    from ..response import Response


class KQEqRegressor(ChargeModel):
    """Kernel charge equilibration: a sparse Gaussian process of the electronegativity.

    The electronegativity of atom i is ``chi_i = chi_0(Z_i) + b(Z_i) + phi_i . w``. The features
    ``phi`` come from `CURSparsifier`, and ``chi_0`` is the QEq value of the element [3]_. The
    weights have the priors::

        w ~ N(0, amplitude_chi^2),    b ~ N(0, amplitude_baseline^2).

    Charges q minimise ``chi . q + q . A q / 2`` at fixed total charge, with the hardness matrix A
    of Gaussian charges [1]_. They are linear in the weights, and so are dipoles, quadrupoles,
    potentials and Born charges: to these labels the fit is one linear least-squares problem. Labels
    of ``dipole_magnitude``, ``energy``, ``forces`` or ``stress`` are fitted by Gauss-Newton. The
    energy is that of the charges plus one number per element [2]_::

        E = chi . q + q . A q / 2 - field . sum_i q_i r_i + sum_i e(Z_i)

    Parameters
    ----------
    sigma_dipole : float, default=0.002
        Noise of the dipole components, e*Angstrom.
    sigma_charges : float, default=0.02
        Noise of the charges, e.
    sigma_quadrupole : float, default=0.05
        Noise of the quadrupole components, e*Angstrom^2. An off-diagonal component counts
        twice, because it stands twice in the tensor.
    sigma_potential : float, default=0.05
        Noise of the potential, V.
    sigma_dipole_magnitude : float, default=0.002
        Noise of the norm of the dipole, e*Angstrom.
    sigma_energy : float, default=0.001
        Noise of the energy, eV; by default of the energy per atom.
    sigma_forces : float, default=0.05
        Noise of the force components, eV/Angstrom.
    sigma_stress : float, default=0.001
        Noise of the components of the stress, eV/Angstrom^3. An off-diagonal component counts
        twice.
    sigma_born_effective_charges : float, default=0.05
        Noise of the components of the Born effective charges, e.
    energy_noise : {"per_atom", "per_structure", "sqrt_n"}, default="per_atom"
        Meaning of `sigma_energy` for a structure of n atoms. "per_atom": noise of the energy per
        atom, so that the energy has the noise ``n sigma_energy``. "per_structure": noise of the
        energy, whatever n. "sqrt_n": ``sqrt(n) sigma_energy``, for independent errors of the atoms.
    atomic_energies : "fit" or dict of {str: float}, default="fit"
        Energies of the free atoms, eV. "fit" fits them together with the weights if there are
        labels of energies, and sets them to zero otherwise.
    charge_bias : dict of {str: float}, default=None
        A charge for every element, e. Atoms of structures without labels of charges are pulled
        toward it with the noise `sigma_charges`. Energies are the same for opposite charges; the
        bias chooses the sign, as in [2]_.
    amplitude_chi : float, default=1.0
        Prior standard deviation of the learned part of the electronegativity, V.
    baseline : bool, default=True
        Whether each element has a constant electronegativity: that of QEq plus a fitted shift
        ``b``. False sets both to zero, as in [1]_.
    amplitude_baseline : float, default=10.0
        Prior standard deviation of the shifts ``b``, V.
    algorithm : {"gauss_newton", "fixed_point"}, default="gauss_newton"
        Iteration for targets that are not linear. "fixed_point" is that of [2]_: it solves for the
        weights at fixed charges, takes the charges of the solution, and repeats until the weights
        change by less than `tol`. For energies it equals Gauss-Newton without damping; with
        forces it does not end at the least loss.
    init : array-like of shape (n_weights,), default=None
        Weights from which the iteration starts, in the form of `coef_`. None means the solution for
        the linear targets. If there are none, labels of energies start from the electronegativities
        of classical QEq, and norms of dipoles from the weights nearest to its dipoles. Energies and
        norms of dipoles are the same for opposite charges: the fit finds the minimum on the side
        of the start.
    max_iter : int, default=50
        Largest number of steps of the iteration.
    tol : float, default=1e-7
        Gauss-Newton stops when the norm of the gradient is below `tol` times the norms of the terms
        that cancel in it, and the expected decrease of the loss is below `tol` times the loss.
    response : Response, default=None
        How charges follow from the electronegativities: `QEq` or `ChargeFlow`, with their widths,
        hardness, accuracy and solver, see `skqeq.response`. None means ``QEq()``. Its parameters
        can be searched as ``response__radius_scale``. With `ChargeFlow` the atoms also have
        reference charges, which are learned from the same features, or from the block
        ``"reference"`` of `StructureBlocks`.
    n_jobs : int, default=None
        Number of processes that make and reduce the rows of labels. None means 1, or the number in
        a context of `joblib.parallel_config`, which may belong to a cluster.
    store_triangles : bool, default=False
        Whether to store the triangles of the labels, which `partial_fit`, `refit` and `predict_std`
        need. Each has the size of the square of the number of weights.
    verbose : int, default=0
        Above 0 progress bars are shown.

    Attributes
    ----------
    coef_ : ndarray of shape (n_weights,)
        The weights w and the shifts b of `elements_`, V; then the same for reference charges, e, if
        there are any.
    elements_ : ndarray of shape (n_elements,)
        Atomic numbers seen in `fit`.
    atomic_energies_ : ndarray of shape (n_elements,)
        Energies of the free atoms of `elements_`, eV.
    targets_ : list of str
        Targets that `predict` returns.
    fit_history_ : list of dict
        Penalised loss, relative gradient norm and step length of every iteration.
    n_iter_ : int
        Length of `fit_history_`.
    n_features_in_ : int
        Number of features seen in `fit`.
    response_ : Response
        The response, prepared for `elements_`.
    posterior_ : skqeq.models.Posterior
        Distribution of the weights, with `store_triangles`.
    triangles_ : dict of {str: ndarray of shape (n_weights + 1, n_weights + 1)}
        By target, an upper triangle that represents all its labels: an orthogonal transformation of
        their rows, over the weights before scaling, with the labels in the last column. Only with
        `store_triangles`, for labels that are linear in the charges.

    References
    ----------
    .. [1] Staacke et al., Mach. Learn.: Sci. Technol. 3, 015032 (2022).
    .. [2] Vondrák, Reuter, Margraf, J. Chem. Phys. 159, 054109 (2023).
    .. [3] Rappé and Goddard, J. Phys. Chem. 95, 3358 (1991).

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer
    >>> from skqeq.datasets import load_molecules
    >>> X, y = load_molecules()
    >>> model = make_pipeline(SOAPFeaturizer(), CURSparsifier(n_points=20), KQEqRegressor())
    >>> model = model.fit(X[:50], y["dipole"][:50])
    >>> model.predict(X[50:52]).shape
    (2, 3)
    """

    _parameter_constraints = {
        **ChargeModel._parameter_constraints,
        "amplitude_chi": [POSITIVE],
        "baseline": ["boolean"],
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
        amplitude_chi: float = 1.0,
        baseline: bool = True,
        amplitude_baseline: float = 10.0,
        algorithm: Algorithm = "gauss_newton",
        init: ArrayLike | None = None,
        max_iter: int = 50,
        tol: float = 1e-7,
        response: Response | None = None,
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
        self.amplitude_chi = amplitude_chi
        self.baseline = baseline
        self.amplitude_baseline = amplitude_baseline
        self.algorithm = algorithm
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.response = response
        self.n_jobs = n_jobs
        self.store_triangles = store_triangles
        self.verbose = verbose

    def _fields(self, response):
        return charge_fields(
            response, self.amplitude_chi, self.amplitude_baseline, bool(self.baseline)
        )
