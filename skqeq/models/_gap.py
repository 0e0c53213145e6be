"""The local energy alone: what a model without charges can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..response import NoCharges
from ..solvers._gauss_newton import add_linearized
from ..targets._observables import ENERGIES
from ._base import POSITIVE, ChargeModel, check_featurised, fields

if TYPE_CHECKING:
    from .._typing import AtomicEnergies, EnergyNoise


class GAPRegressor(ChargeModel):
    """Gaussian approximation potential: a local energy of every atom, and no charges.

    The short-range half of `GAPKQEqRegressor` alone [1]_, the baseline that charges have to beat::

        E = sum_i e_i,    e_i = e(Z_i) + psi_i . u,    u ~ N(0, amplitude_gap^2)

    It is linear in its weights. Total charges and fields mean nothing to it.

    Parameters
    ----------
    amplitude_gap : float, default=1.0
        Prior standard deviation of the learned part of the energy of an atom, eV.
    sigma_energy : float, default=0.001
        Noise of the energy, eV; by default of the energy per atom.
    sigma_forces : float, default=0.05
        Noise of the force components, eV/Angstrom.
    sigma_stress : float, default=0.001
        Noise of the components of the stress, eV/Angstrom^3.
    energy_noise : {"per_atom", "per_structure", "sqrt_n"}, default="per_atom"
        What `sigma_energy` is the noise of, as in `KQEqRegressor`.
    atomic_energies : "fit" or dict of {str: float}, default="fit"
        Energies of the free atoms, eV, as in `KQEqRegressor`.
    n_jobs : int, default=None
        Number of processes that reduce labels, as in `KQEqRegressor`.
    store_triangles : bool, default=False
        Whether `fit` keeps what `predict_std` needs.
    verbose : int, default=0
        Above 0 progress bars are shown.

    Attributes
    ----------
    coef_ : ndarray of shape (n_elements + n_features,)
        Shifts of the electronegativities of `elements_`, which are zero here, then the weights u,
        eV.
    elements_ : ndarray of shape (n_elements,)
        Atomic numbers seen in `fit`.
    atomic_energies_ : ndarray of shape (n_elements,)
        Energies of their free atoms, eV.
    targets_ : list of str
        What `predict` returns.
    n_features_in_ : int
        Number of features seen in `fit`.

    References
    ----------
    .. [1] Bartók, Payne, Kondor, Csányi, Phys. Rev. Lett. 104, 136403 (2010).

    Examples
    --------
    >>> from ase.build import molecule
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqeq import CURSparsifier, GAPRegressor, SOAPFeaturizer, make_targets
    >>> X = []
    >>> for seed in range(6):
    ...     X.append(molecule("H2O"))
    ...     X[-1].rattle(0.05, seed=seed)
    >>> soap = SOAPFeaturizer(r_cut=3.0, cutoff_width=1.0, n_max=4, l_max=3)
    >>> model = make_pipeline(soap, CURSparsifier(n_points=4), GAPRegressor())
    >>> stretched = [sum(atoms.get_distances(0, [1, 2]) - 0.97) for atoms in X]
    >>> model.fit(X, make_targets(energy=stretched)).score(X, make_targets(energy=stretched)) > 0.9
    True
    """

    _parameter_constraints = {
        "amplitude_gap": [POSITIVE],
        **{
            name: ChargeModel._parameter_constraints[name]
            for name in (
                *("sigma_energy", "sigma_forces", "sigma_stress"),
                *("energy_noise", "atomic_energies", "n_jobs", "store_triangles", "verbose"),
            )
        },
    }

    def __init__(
        self,
        amplitude_gap: float = 1.0,
        sigma_energy: float = 0.001,
        sigma_forces: float = 0.05,
        sigma_stress: float = 0.001,
        energy_noise: EnergyNoise = "per_atom",
        atomic_energies: AtomicEnergies = "fit",
        n_jobs: int | None = None,
        store_triangles: bool = False,
        verbose: int = 0,
    ) -> None:
        self.amplitude_gap = amplitude_gap
        self.sigma_energy = sigma_energy
        self.sigma_forces = sigma_forces
        self.sigma_stress = sigma_stress
        self.energy_noise = energy_noise
        self.atomic_energies = atomic_energies
        self.n_jobs = n_jobs
        self.store_triangles = store_triangles
        self.verbose = verbose

    def _features(self, X, response):
        X = check_featurised(X, type(self).__name__)
        return fields(X.structures, energy=X.source)

    def _amplitudes(self):
        return 0.0, 0.0, self.amplitude_gap

    def _prepare_charges(self, lookup):
        self._chi_0, self._bias = np.zeros(len(self.elements_)), None

    def _equilibrium(self, structure, i, n_solutions=1):
        return NoCharges(structure), None, np.searchsorted(self.elements_, structure.numbers)

    def _minimise(self, triangle, nonlinear):
        [rows] = nonlinear
        rows.max_bytes = 0  # they are needed once
        triangle = triangle.copy()
        add_linearized(rows, triangle, np.zeros(triangle.n_columns), response=False)
        v = triangle.solve()
        return v, [{"loss": float(triangle.loss(v)), "gradient": 0.0, "step": 1.0}]

    def _check_known(self, names):
        for name in names:
            if name not in ENERGIES:
                raise ValueError(
                    f"{type(self).__name__} has no charges and knows nothing of {name}; its "
                    f"targets are {', '.join(ENERGIES)}"
                )
