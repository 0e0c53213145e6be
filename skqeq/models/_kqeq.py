"""Kernel charge equilibration."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

from sklearn.base import clone

from .._sklearn import HasMethods, Interval
from ..response import QEq
from ._base import POSITIVE, ChargeModel, check_featurised, fields

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
    from ..response import ChargeFlow


class KQEqRegressor(ChargeModel):
    """Kernel charge equilibration: a sparse Gaussian process of the electronegativity.

    Each atom's electronegativity is ``chi_i = chi_0(Z_i) + b(Z_i) + phi_i . w``, where ``phi``
    comes from `CURSparsifier` and ``chi_0`` is the element's QEq value. The priors are::

        w ~ N(0, amplitude_chi^2),    b ~ N(0, amplitude_baseline^2).

    Charges follow by minimising ``chi . q + q . A q / 2`` at fixed total charge [1]_, and are
    linear in the weights; so are dipoles, quadrupoles, potentials and Born charges, and the fit is
    one linear least-squares problem. With ``dipole_magnitude``, ``energy``, ``forces`` or
    ``stress`` it is solved by Gauss-Newton. The energy is that of the charges, plus one number per
    element [2]_::

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
        What `sigma_energy` is the noise of: the energy per atom, so that the noise of the energy of
        n atoms is n times as large; the energy of a structure of any size; or the energy of n
        atoms with independent errors, sqrt(n) times as large.
    atomic_energies : "fit" or dict of {str: float}, default="fit"
        Energies of the free atoms, eV. With "fit" they are found together with the weights if
        energies are among the labels, and are zero otherwise.
    charge_bias : dict of {str: float}, default=None
        A charge of every element, e, toward which the atoms of structures without labels of
        charges are pulled, with the noise `sigma_charges`. Energies do not tell the sign of the
        charges; this does, as in [2]_.
    amplitude_chi : float, default=1.0
        Prior standard deviation of the learned part of the electronegativity, V.
    baseline : bool, default=True
        Whether each element has a constant electronegativity around QEq's. False sets ``chi_0``
        and ``b`` to zero, as [1]_ did.
    amplitude_baseline : float, default=10.0
        Prior standard deviation of ``b``, V.
    hardness : float or dict of {str: float}, default=0.0
        Hardness J added to the self-interaction of the Gaussian charges, eV/e^2, for all
        elements or for each.
    radius_scale : float, default=0.2
        Width of the Gaussian charges in units of the atomic radius. The default suits dipoles
        and charges of several data sets in cross-validation; it is worth a search.
    radii : {"qeq", "covalent"} or dict of {str: float}, default="qeq"
        Atomic radii, Angstrom.
    accuracy : float, default=1e-8
        Bound of the error of the interactions in periodic and in large structures, see
        `skqeq.electrostatics.hardness_matrix`.
    solver : {"auto", "dense", "iterative"}, default="auto"
        How charges are found: by factorisation of the hardness matrix, or by conjugate gradients
        without storing it. "auto" estimates which is faster; beyond a few thousand atoms that is
        the iteration.
    algorithm : {"gauss_newton", "fixed_point"}, default="gauss_newton"
        How targets that are not linear are fitted. "fixed_point" is the iteration of [2]_: it
        solves for the weights at fixed charges and takes the charges of the solution, until the
        weights change by less than `tol`. For energies it is Gauss-Newton without damping; with
        forces it does not end at the least loss.
    init : array-like of shape (n_weights,), default=None
        Where the iteration starts, in the form of `coef_`. None means the solution for the linear
        targets, or if there are none, the electronegativities of classical QEq, for norms of
        dipoles the weights nearest to its dipoles. Energies and norms of dipoles do not tell the
        sign of the charges: of two mirrored minima the one nearer to the start is found.
    max_iter : int, default=50
        Largest number of steps.
    tol : float, default=1e-7
        Gauss-Newton stops when the gradient is this much smaller than its parts, and the loss would
        not fall by more than this part of it.
    response : QEq or ChargeFlow, default=None
        How charges follow from the electronegativities, see `skqeq.response`. None means `QEq`,
        charge equilibration. With `ChargeFlow` the atoms also have reference charges, which are
        learned from the same features, or from the block ``"reference"`` of `StructureBlocks`
        beside ``"chi"``.
    n_jobs : int, default=None
        Number of processes that make rows of labels and reduce them. None means 1, or what
        `joblib.parallel_config` says, which may be a cluster.
    store_triangles : bool, default=False
        Whether `fit` keeps in `triangles_` what `partial_fit` and `refit` need to go on, and
        `predict_std` to say how sure it is; of other labels than linear ones what the latter
        needs, in `posterior_`. They are of the size of the square of the number of weights.
    verbose : int, default=0
        Above 0 progress bars are shown.

    Attributes
    ----------
    coef_ : ndarray of shape (n_weights,)
        The weights w, then the shifts b of `elements_`; V. Reference charges have as many more, e.
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
        Number of features seen in `fit`.
    response_ : QEq or ChargeFlow
        How charges follow.
    triangles_ : dict of {str: ndarray of shape (n_rows, n_rows)}
        By target, all its labels as an orthogonal transformation makes them: an upper triangle over
        the weights before they are scaled, and with the labels in the last column. Only after
        `partial_fit`, or with `store_triangles`, for labels that are linear in the charges.
    posterior_ : ndarray of shape (n_weights, n_weights)
        With `store_triangles`, for other labels: an upper triangle R, and ``(R^T R)^-1`` is the
        covariance of the weights in units of their prior, where the labels are linearised.

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
        "amplitude_baseline": [Interval(Real, 0.0, None, closed="neither")],
        "response": [HasMethods(["equilibrium", "tables"]), None],
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
        hardness: PerElement = 0.0,
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

    def _make_response(self):
        if self.response is None:
            return QEq()
        response = clone(self.response)
        response._validate_params()
        if self.algorithm == "fixed_point" and response.learns_reference:
            raise ValueError(
                "algorithm='fixed_point' is for charge equilibration; with "
                f"{type(response).__name__} use 'gauss_newton'"
            )
        return response

    def _features(self, X, response):
        X = check_featurised(X, type(self).__name__)
        chi = reference = X.source
        if X.source.names:
            chi, reference = self._sources(X)
        return fields(X.structures, chi, reference if response.learns_reference else None)

    def _sources(self, X, others=(), advice=""):
        """Features of both fields of the charges, and of the other blocks, by their names.

        Charge equilibration leaves the block of the reference charges alone.
        """
        names = X.source.names
        needed = ["chi", *others]
        if sorted(names) not in (sorted(needed), sorted([*needed, "reference"])):
            found = f"blocks {', '.join(names)}" if names else "features without names"
            raise ValueError(
                f"{type(self).__name__} takes the blocks {' and '.join(needed)}, and reference if "
                f"its response is ChargeFlow, got {found}{advice}"
            )
        sources = dict(zip(names, X.source.sources, strict=True))
        sources.setdefault("reference", sources["chi"])
        return [sources[name] for name in ("chi", "reference", *others)]

    def _amplitudes(self):
        return self.amplitude_chi, self.amplitude_baseline if self.baseline else 0.0, 0.0
