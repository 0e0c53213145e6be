"""A short-range energy beside kernel charge equilibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base import POSITIVE, check_featurised, fields
from ._kqeq import KQEqRegressor

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
    from ..response import ChargeFlow, QEq


class GAPKQEqRegressor(KQEqRegressor):
    """Kernel charge equilibration with a local energy of every atom, fitted together.

    `KQEqRegressor` plus a Gaussian approximation potential (GAP) [1]_, [2]_::

        E = sum_i e_i + min_q (chi . q + q . A q / 2 - field . sum_i q_i r_i),
        e_i = e(Z_i) + psi_i . u,    u ~ N(0, amplitude_gap^2)

    The local energy holds what is short-ranged, repulsion and bonds; electrostatics holds what is
    not, whatever the total charge, also in a field. Both have features of their own, which come
    side by side from `StructureBlocks`: electronegativities from the block ``"chi"``, energies of
    atoms from ``"gap"``. Everything else is as in `KQEqRegressor`: one least-squares problem of
    energies, forces, stress, and whatever says more of the charges.

    Parameters
    ----------
    amplitude_gap : float, default=1.0
        Prior standard deviation of the learned part of the energy of an atom, eV.
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
    amplitude_chi : float, default=1.0
        Prior standard deviation of the learned part of the electronegativity, V.
    baseline : bool, default=True
        Whether each element has a constant electronegativity, as in `KQEqRegressor`.
    amplitude_baseline : float, default=10.0
        Prior standard deviation of its difference from that of QEq, V.
    hardness : float or dict of {str: float}, default=2.7
        As in `KQEqRegressor`, where it is zero by default; 2.7 eV/e^2 is that of [2]_.
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
    response : QEq or ChargeFlow, default=None
        How charges follow from the electronegativities; None means `skqeq.QEq`.
    n_jobs : int, default=None
        Number of processes that reduce labels, as in `KQEqRegressor`.
    store_triangles : bool, default=False
        Whether `fit` keeps what `partial_fit`, `refit` and `predict_std` need.
    verbose : int, default=0
        Above 0 progress bars are shown.

    Attributes
    ----------
    coef_ : ndarray of shape (n_weights,)
        The weights w of chi, the shifts b of `elements_`, V, as many of reference charges, e, if
        there are any, and the weights u, eV.
    elements_ : ndarray of shape (n_elements,)
        Atomic numbers seen in `fit`.
    atomic_energies_ : ndarray of shape (n_elements,)
        Energies of their free atoms, eV.
    targets_ : list of str
        What `predict` returns.
    fit_history_ : list of dict
        Penalised loss, relative gradient norm and step length of every iteration.
    n_iter_ : int
        Its length.
    n_features_in_ : int
        Number of features of all blocks.
    response_ : QEq or ChargeFlow
        How charges follow.

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
        hardness: PerElement = 2.7,
        radius_scale: float = 0.2,
        radii: Radii = "qeq",
        accuracy: float = 1e-8,
        solver: Solver = "auto",
        algorithm: Algorithm = "gauss_newton",
        init: ArrayLike | None = None,
        max_iter: int = 50,
        tol: float = 1e-7,
        response: QEq | ChargeFlow | None = None,
        n_jobs: int | None = None,
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
        self.hardness = hardness
        self.radius_scale = radius_scale
        self.radii = radii
        self.accuracy = accuracy
        self.solver = solver
        self.algorithm = algorithm
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.response = response
        self.n_jobs = n_jobs
        self.store_triangles = store_triangles
        self.verbose = verbose

    def _features(self, X, response):
        X = check_featurised(X, type(self).__name__, BLOCKS)
        chi, reference, gap = self._sources(X, ["gap"], f"; {BLOCKS}")
        return fields(X.structures, chi, reference if response.learns_reference else None, gap)

    def _amplitudes(self):
        return *super()._amplitudes()[:2], self.amplitude_gap


BLOCKS = (
    "make them by StructureBlocks([('chi', make_pipeline(SOAPFeaturizer(), CURSparsifier())), "
    "('gap', make_pipeline(SOAPFeaturizer(), CURSparsifier()))])"
)
