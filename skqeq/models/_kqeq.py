"""Kernel charge equilibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._atomic_dipoles import dipole_field
from ._base import POSITIVE, ChargeModel
from ._field_features import charge_fields

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .._typing import Algorithm, AtomicEnergies, ByElement, EnergyNoise, HandleUnknown, PathType
    from ..response import Response


class KQEqRegressor(ChargeModel):
    """Kernel charge equilibration: a sparse Gaussian process for the electronegativity.

    The electronegativity of atom i is ``chi_i = chi_0(Z_i) + b(Z_i) + phi_i . w``. The features
    ``phi`` come from `CURSparsifier`, and ``chi_0`` is the QEq value of the element [3]_. The
    weights have the priors::

        w ~ N(0, amplitude_chi^2),    b ~ N(0, amplitude_baseline^2).

    The charges q minimise ``chi . q + q . A q / 2`` at fixed total charge, with the hardness matrix
    A of Gaussian charges [1]_. The charges are linear in the weights, and so are dipoles,
    quadrupoles, potentials and Born charges. A fit to these labels is one linear least-squares
    problem. Labels of ``dipole_magnitude``, ``energy``, ``forces`` or ``stress`` are fitted by
    Gauss-Newton. The energy is that of the charges plus one constant per element [2]_::

        E = chi . q + q . A q / 2 - field . sum_i q_i r_i + sum_i e(Z_i)

    If the features have a block ``"dipole"`` of `VectorSOAPFeaturizer`, the atoms also have learned
    dipoles ``d_i = v_i u``, with weights ``u ~ N(0, amplitude_dipole^2)`` [4]_. They contribute to
    the dipole, the quadrupole, the potential and the Born charges, and do not act on the charges.
    A model with these dipoles cannot predict energies.

    Parameters
    ----------
    sigma_dipole : float, default=0.002
        Noise of the dipole components, e*Angstrom.
    sigma_charges : float, default=0.02
        Noise of the charges, e.
    sigma_quadrupole : float, default=0.05
        Noise of the quadrupole components, e*Angstrom^2. An off-diagonal component counts
        twice, because it occurs twice in the tensor.
    sigma_potential : float, default=0.05
        Noise of the potential, V.
    sigma_dipole_magnitude : float, default=0.002
        Noise of the norm of the dipole, e*Angstrom.
    sigma_energy : float, default=0.001
        Noise of the energy, eV; by default, of the energy per atom.
    sigma_forces : float, default=0.05
        Noise of the force components, eV/Angstrom.
    sigma_stress : float, default=0.001
        Noise of the components of the stress, eV/Angstrom^3. An off-diagonal component counts
        twice.
    sigma_born_effective_charges : float, default=0.05
        Noise of the components of the Born effective charges, e.
    energy_noise : {"per_atom", "per_structure", "sqrt_n"}, default="per_atom"
        Meaning of `sigma_energy` for a structure of n atoms:

        - "per_atom": noise of the energy per atom; the total energy has the noise
          ``n sigma_energy``;
        - "per_structure": noise of the total energy, independent of n;
        - "sqrt_n": the total energy has the noise ``sqrt(n) sigma_energy``, as if the errors of the
          atoms were independent.
    atomic_energies : "fit" or dict of {str: float}, default="fit"
        Energies of the free atoms, eV. "fit" fits them together with the weights if there are
        labels of energies, and sets them to zero otherwise.
    charge_bias : dict of {str: float}, default=None
        A charge for every element, e. In structures without labels of charges, the predicted
        charges are pulled toward these values: they act as labels with the noise `sigma_charges`.
        Labels of energies alone do not determine the sign of the charges, because the energy is the
        same for opposite charges. `charge_bias` selects the sign, as in [2]_.
    amplitude_chi : float, default=1.0
        Prior standard deviation of the learned part of the electronegativity, V.
    baseline : bool, default=True
        Whether the electronegativity has a constant for each element: the QEq value ``chi_0`` plus
        a fitted constant ``b``. False sets both to zero, as in [1]_.
    amplitude_baseline : float, default=10.0
        Prior standard deviation of the element constants ``b``, V.
    amplitude_dipole : float, default=0.15
        Prior standard deviation of the weights u of the atomic dipoles, e*Angstrom. It has no
        effect without a block ``"dipole"``.
    algorithm : {"gauss_newton", "fixed_point"}, default="gauss_newton"
        Iteration for targets that are not linear in the charges. "fixed_point" is the iteration of
        [2]_: it solves for the weights at fixed charges, takes the charges of the solution, and
        repeats until the weights change by less than `tol`. For energies it equals Gauss-Newton
        without damping; with forces it does not converge to the minimum of the loss.
    init : array-like of shape (n_weights,), default=None
        Weights from which the iteration starts, in the form of `coef_`. None means the solution for
        the linear targets. If there are no linear targets, a fit to energies starts from the
        electronegativities of classical QEq, and a fit to norms of dipoles starts from the dipoles
        of classical QEq. Energies and norms of dipoles are the same for opposite charges, so the
        start decides the sign of the charges.
    max_iter : int, default=50
        Largest number of iterations. Each assembles the rows of all labels once and takes several
        steps.
    tol : float, default=1e-5
        The iteration stops when the next step is expected to lower the loss by less than `tol`
        times the loss.
    response : Response, default=None
        Determines the charges from the electronegativities: `QEq` or `ChargeFlow`, with widths,
        hardness, accuracy and solver, see `skqeq.response`. None means ``QEq()``. Parameters of the
        response can be searched under names such as ``response__radius_scale``. With `ChargeFlow`
        the atoms also have reference charges. They are learned from the same features, or from the
        block ``"reference"`` of `StructureBlocks` if there is one.
    handle_unknown : {"error", "prior"}, default="error"
        How to treat structures with an unknown element, one that the training data or the
        descriptor lack. "error" refuses them. "prior" gives atoms of this element, and all atoms
        with such a neighbour, features of zero: their electronegativity is a constant of the
        element, and its standard deviation is that of the prior. The constant of an unknown element
        is the QEq value. A warning names the first structure. Energies, forces, stress and Born
        charges of these structures are still refused. `score` always uses "prior", and leaves out
        what is refused.
    n_jobs : int, default=None
        Number of processes that compute and reduce the rows of the labels. None means 1, or the
        number that `joblib.parallel_config` sets, for example for the workers of a cluster.
    checkpoint : str or path, default=None
        Folder in which an iterative fit stores its progress, at most once a minute. A fit to the
        same data with the same parameters that was stopped continues from there. The file is
        deleted when the fit is complete. Linear fits do not use the folder.
    store_triangles : bool, default=False
        Whether to store the triangles of the labels, which `partial_fit`, `refit` and `predict_std`
        need. The size of each triangle is the square of the number of weights.
    verbose : int, default=0
        If above 0, progress bars are shown.

    Attributes
    ----------
    coef_ : ndarray of shape (n_weights,)
        The weights w and the element constants b of the electronegativity, V; then, with
        `ChargeFlow`, the weights and constants of the reference charges, e; then the weights u of
        the atomic dipoles, e*Angstrom, if there are any.
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
    n_iter_ : int
        Length of `fit_history_`.
    n_features_in_ : int
        Number of features seen in `fit`.
    response_ : Response
        The response, prepared for `elements_`.
    posterior_ : skqeq.models.Posterior
        Distribution of the weights; only with `store_triangles`.
    triangles_ : dict of {str: ndarray of shape (n_weights + 1, n_weights + 1)}
        For every target, an upper triangle that represents all of its labels: an orthogonal
        transformation of their rows, with the labels in the last column. The weights are not in
        units of their prior. Only with `store_triangles`, for labels that are linear in the
        charges.

    References
    ----------
    .. [1] Staacke et al., Mach. Learn.: Sci. Technol. 3, 015032 (2022).
    .. [2] Vondrák, Reuter, Margraf, J. Chem. Phys. 159, 054109 (2023).
    .. [3] Rappé and Goddard, J. Phys. Chem. 95, 3358 (1991).
    .. [4] Veit, Wilkins, Yang, DiStasio, Ceriotti, J. Chem. Phys. 153, 024113 (2020).

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
        "amplitude_dipole": [POSITIVE],
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
        amplitude_dipole: float = 0.15,
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
        self.amplitude_chi = amplitude_chi
        self.baseline = baseline
        self.amplitude_baseline = amplitude_baseline
        self.amplitude_dipole = amplitude_dipole
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
        return [*self._charge_fields(response), dipole_field(self.amplitude_dipole)]

    def _charge_fields(self, response):
        """The latent fields of the response."""
        return charge_fields(
            response, self.amplitude_chi, self.amplitude_baseline, bool(self.baseline)
        )
