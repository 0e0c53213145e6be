"""Kernel charge equilibration plus a short-range energy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..fields import Field
from ..response import QEq
from ._base import POSITIVE
from ._checks import check_featurised
from ._field_features import how_to_make_blocks
from ._kqeq import KQEqRegressor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .._typing import Algorithm, AtomicEnergies, ByElement, EnergyNoise, HandleUnknown, PathType
    from ..response import Response


class GAPKQEqRegressor(KQEqRegressor):
    """Kernel charge equilibration and a local energy of every atom, fitted together.

    `KQEqRegressor` plus a Gaussian approximation potential (GAP) [1]_, [2]_::

        E = sum_i e_i + min_q (chi . q + q . A q / 2 - field . sum_i q_i r_i),
        e_i = e(Z_i) + psi_i . u,    u ~ N(0, amplitude_gap^2)

    The local energies ``e_i`` describe the short-range part of the energy, such as repulsion and
    bonds. The charges describe the long-range part, for any total charge and in an electric field.
    Electronegativities and local energies have separate features, which `StructureBlocks` puts side
    by side: the block ``"chi"`` for electronegativities, the block ``"gap"`` for local energies.
    Everything else is as in `KQEqRegressor`.

    Parameters
    ----------
    amplitude_gap : float, default=1.0
        Prior standard deviation of the local energy of an atom, eV.
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
    amplitude_chi : float, default=1.0
        Prior standard deviation of the learned part of the electronegativity, V.
    baseline : bool, default=True
        Whether each element has a constant electronegativity, as in `KQEqRegressor`.
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
        ``QEq(hardness=2.7)``, the hardness in [2]_.
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
    coef_ : ndarray of shape (n_weights,)
        The weights w and the element constants b of the electronegativity, V; then, with
        `ChargeFlow`, the weights and constants of the reference charges, e; then the weights u, eV.
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
        Number of features of all blocks.
    response_ : Response
        The response, prepared for `elements_`.

    See Also
    --------
    GAPRegressor : The local energy alone.
    KQEqRegressor : Charge equilibration alone.

    References
    ----------
    .. [1] Bartók, Payne, Kondor, Csányi, Phys. Rev. Lett. 104, 136403 (2010).
    .. [2] Vondrák, Reuter, Margraf, npj Comput. Mater. (2025), s41524-025-01791-3.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, GAPKQEqRegressor, SOAPFeaturizer, StructureBlocks
    >>> from skqeq import make_targets
    >>> X = []
    >>> for seed in range(6):
    ...     X.append(molecule("H2O"))
    ...     X[-1].rattle(0.05, seed=seed)
    >>> def half(r_cut):
    ...     soap = SOAPFeaturizer(r_cut=r_cut, cutoff_width=1.0, n_max=4, l_max=3)
    ...     return make_pipeline(soap, CURSparsifier(n_points=4))
    >>> model = make_pipeline(
    ...     StructureBlocks([("chi", half(3.0)), ("gap", half(3.0))]),
    ...     GAPKQEqRegressor(sigma_energy=0.01),
    ... )
    >>> stretched = [sum(atoms.get_distances(0, [1, 2]) - 0.97) for atoms in X]
    >>> model.fit(X, make_targets(energy=stretched)).predict(X).shape
    (6,)
    """

    _parameter_constraints = {
        **KQEqRegressor._parameter_constraints,
        "amplitude_gap": [POSITIVE],
    }
    del _parameter_constraints["amplitude_dipole"]  # models with energies have no such dipoles

    def __init__(
        self,
        amplitude_gap: float = 1.0,
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
        tol: float = 1e-5,
        response: Response | None = None,
        handle_unknown: HandleUnknown = "error",
        n_jobs: int | None = None,
        checkpoint: PathType | None = None,
        store_triangles: bool = False,
        verbose: int = 0,
    ) -> None:
        self.amplitude_gap = amplitude_gap
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
        self.handle_unknown = handle_unknown
        self.n_jobs = n_jobs
        self.checkpoint = checkpoint
        self.store_triangles = store_triangles
        self.verbose = verbose

    def _fields(self, response):
        gap = Field("gap", "energy", ("gap",), self.amplitude_gap)
        return [*self._charge_fields(response), gap]

    def _blocks(self, X):
        return super()._blocks(
            check_featurised(X, type(self).__name__, how_to_make_blocks(["chi", "gap"]))
        )

    def _default_response(self):
        return QEq(hardness=2.7)
