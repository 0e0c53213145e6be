"""A local energy of every atom, without charges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..fields import Field
from ..response import NoCharges
from ._base import POSITIVE, ChargeModel
from ._checks import check_featurised

if TYPE_CHECKING:
    from .._typing import AtomicEnergies, EnergyNoise


class GAPRegressor(ChargeModel):
    """Gaussian approximation potential: a local energy of every atom, and no charges.

    This is the short-range part of `GAPKQEqRegressor` [1]_. It serves as a baseline for models with
    charges::

        E = sum_i e_i,    e_i = e(Z_i) + psi_i . u,    u ~ N(0, amplitude_gap^2)

    The energy is linear in the weights, so the fit takes one step. The energy depends neither on
    the total charge nor on an electric field.

    Parameters
    ----------
    amplitude_gap : float, default=1.0
        Prior standard deviation of the local energy of an atom, eV.
    sigma_energy : float, default=0.001
        Noise of the energy, eV; by default, of the energy per atom.
    sigma_forces : float, default=0.05
        Noise of the force components, eV/Angstrom.
    sigma_stress : float, default=0.001
        Noise of the components of the stress, eV/Angstrom^3.
    energy_noise : {"per_atom", "per_structure", "sqrt_n"}, default="per_atom"
        Meaning of `sigma_energy`, as in `KQEqRegressor`.
    atomic_energies : "fit" or dict of {str: float}, default="fit"
        Energies of the free atoms, eV, as in `KQEqRegressor`.
    n_jobs : int, default=None
        Number of processes, as in `KQEqRegressor`.
    store_triangles : bool, default=False
        Whether to store the triangle that `predict_std` needs.
    verbose : int, default=0
        If above 0, progress bars are shown.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,)
        The weights u, eV.
    elements_ : ndarray of shape (n_elements,)
        Atomic numbers seen in `fit`.
    atomic_energies_ : ndarray of shape (n_elements,)
        Energies of the free atoms of `elements_`, eV.
    targets_ : list of str
        Targets that `predict` returns.
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

    # There are no charges to which `charge_bias` could apply.
    charge_bias = None
    # Energies of structures with unknown elements are undefined.
    handle_unknown = "error"

    def _fields(self, response):
        return [Field("gap", "energy", ("gap",), self.amplitude_gap)]

    def _blocks(self, X):
        X = check_featurised(X, type(self).__name__)
        return X.structures, {"gap": X.source}

    def checked_response(self) -> NoCharges:
        return NoCharges()
