"""A fitted model as an ASE calculator, and a progress bar for ASE dynamics and optimisers."""

from __future__ import annotations

from copy import deepcopy
from os import PathLike
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
    equal,
)
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from .models import unwrap
from .persistence import load
from .structures import CHARGE_KEYS
from .targets import GRADIENTS, TARGETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from ase.optimize.optimize import Dynamics

    from ._typing import Model, PathType


__all__ = ["KQEqCalculator", "ProgressBar"]

# These are computed only on request, because they take several times as long as forces.
RESPONSES = ("born_effective_charges", "polarizability")
NO_CHARGES = "the model has local energies, but no charges"
NO_DIPOLE = (
    "a dipole moment is not defined along periodic axes; it is defined for molecules, and for "
    "slabs along a normal that is x, y or z"
)
UNDEFINED = {
    "stress": "a stress needs periodic axes, and three cell vectors that define the volume; "
    "atoms.center(vacuum=10, axis=2) adds the third vector of a slab",
    "charges": NO_CHARGES,
    "dipole": NO_DIPOLE,
    "born_effective_charges": NO_DIPOLE,
    "polarizability": NO_DIPOLE,
}


class KQEqCalculator(Calculator):
    """ASE calculator for a fitted charge model.

    Energies, forces and stress equal the results of `skqeq.predict_energy`, `skqeq.predict_forces`
    and `skqeq.predict_stress`. The total charge and the electric field are read from
    ``atoms.info``. Derivatives are computed only if forces, stress, Born charges or the
    polarisability are requested. For large structures, the iterative solver starts from the charges
    of the previous geometry.

    Parameters
    ----------
    model : fitted estimator, or str or path
        A charge model, a pipeline that ends in one, a search over either, or the name of a model
        file, which is read by `skqeq.load`.

    Attributes
    ----------
    results : dict
        Results for the last geometry:

        - ``energy`` and ``free_energy``, which are equal, eV
        - ``charges``, shape (n_atoms,), e
        - ``dipole`` about the centre of mass, shape (3,), e*Angstrom; NaN along the periodic
          axes of a slab
        - ``forces``, shape (n_atoms, 3), eV/Angstrom
        - ``stress``, shape (6,), in the sign convention and the order of ASE: xx, yy, zz, yz, xz,
          xy, eV/Angstrom^3; for a slab, components out of its plane are zero
        - ``born_effective_charges``, shape (n_atoms, 3, 3), ``d mu_a / d r_jb`` at ``[j, a, b]``
          about the coordinate origin, e; NaN along the periodic axes of a slab
        - ``polarizability``, shape (3, 3), e*Angstrom per V/Angstrom; NaN along the periodic axes
          of a slab

        Born effective charges and polarizability are computed only if
        ``calc.get_property(name, atoms)`` requests one of them. ASE cannot write Born effective
        charges to extended XYZ: use ``write(..., write_results=False)``, or a trajectory file.

    Notes
    -----
    ASE compares positions, atomic numbers, cell and pbc to decide whether results are still valid.
    This calculator also compares total charge, field and masses, and whether the model was fitted
    again.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from skqeq import KQEqCalculator, QEqRegressor
    >>> water = molecule("H2O")
    >>> model = QEqRegressor().fit([water], np.array([[0.0, 0.0, -0.39]]))
    >>> water.calc = KQEqCalculator(model)
    >>> water.get_charges().round(2)
    array([-0.65,  0.33,  0.33])
    >>> water.get_forces().shape
    (3, 3)
    """

    implemented_properties = [
        *("energy", "free_energy", "forces", "stress", "charges", "dipole"),
        *RESPONSES,
    ]
    ignored_changes = {"initial_charges", "initial_magmoms"}

    def __init__(self, model: Model | PathType) -> None:
        super().__init__(model=model)

    def set(self, model: Model | PathType) -> dict[str, Any]:  # type: ignore[override]  # ASE: any keyword
        """Use another model.

        Parameters
        ----------
        model : fitted estimator, or str or path
            As in the constructor.

        Returns
        -------
        changed : dict
            The parameter that was set.
        """
        if isinstance(model, (str, PathLike)):
            model = load(model)
        check_is_fitted(unwrap(model)[1])
        self.model = model
        self.reset()
        return {"model": model}

    def reset(self) -> None:
        """Delete the last geometry and its results."""
        super().reset()
        self._compared: dict[str, Any] | None = None
        self._last_charges: tuple[Any, Any] = None, None  # atomic numbers and charges

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """List the changes since the last calculation.

        Parameters
        ----------
        atoms : ase.Atoms
            Structure to compare.
        tol : float, default=1e-15
            Largest absolute difference that does not count as a change.

        Returns
        -------
        changes : list of str
            Names that ASE uses, such as ``"positions"``, or ``"info"`` if the total charge, the
            field, the masses or the model changed.
        """
        changes = super().check_state(atoms, tol)
        if not changes and not equal(self._state(atoms), self._compared):
            changes = ["info"]
        return changes

    def _state(self, atoms):
        """Quantities on which results depend, but which ASE does not compare."""
        info = {key: atoms.info.get(key) for key in (*CHARGE_KEYS, "external_field")}
        coef = getattr(unwrap(self.model)[1], "coef_", None)
        # Deep copies, because users may change the field in place, and Atoms.copy does not copy it.
        return {**deepcopy(info), "masses": atoms.get_masses(), "coef": coef}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute properties of a structure and store them in `results`.

        Parameters
        ----------
        atoms : ase.Atoms, default=None
            Structure; None means the structure of the last calculation.
        properties : sequence of str, default=("energy",)
            Names of the properties to compute.
        system_changes : list of str
            Ignored.

        Raises
        ------
        PropertyNotImplementedError
            If a property is requested that is not defined for the structure, such as the stress of
            a molecule or the dipole of a crystal.
        """
        atoms = self.atoms if atoms is None else atoms
        transformer, model = unwrap(self.model)
        responses = any(name in RESPONSES for name in properties)
        gradients = responses or any(name in GRADIENTS for name in properties)
        numbers, charges = self._last_charges
        start = [charges] if np.array_equal(numbers, atoms.numbers) else None
        # The energy is defined for every structure, so that no structure is refused.
        names = ["forces" if gradients else "energy"]
        [solution] = model.solutions(transformer([atoms]), names, start)
        super().calculate(atoms)
        self._compared = self._state(atoms)
        self._last_charges = atoms.numbers.copy(), solution.charges
        self.results = _results(solution, gradients, responses)
        structure = solution.structure
        for name, reason in UNDEFINED.items():
            if name in properties and name not in self.results:
                if name != "stress" and "charges" not in self.results:
                    reason = NO_CHARGES
                raise PropertyNotImplementedError(
                    f"{structure.symbols} with pbc = {structure.pbc} has no {name}: {reason}"
                )


def _results(solution, gradients, responses):
    """All defined properties of a structure, by their names in ASE."""
    structure, energy = solution.structure, solution.energy
    results = {"energy": energy, "free_energy": energy}
    defined = TARGETS["dipole"].defined(structure)
    # A response without latent fields belongs to a model of local energies; its charges are zero.
    charged = bool(solution.equilibrium.fields)
    if charged:
        results["charges"] = solution.charges
    if charged and defined.any():
        results["dipole"] = np.where(defined, TARGETS["dipole"].observe(solution), np.nan)
        if responses:
            both = np.logical_and.outer(defined, defined)
            born = np.where(defined[:, None], solution.born_effective_charges, np.nan)
            results["born_effective_charges"] = born
            results["polarizability"] = np.where(both, solution.polarizability, np.nan)
    if gradients:
        results["forces"] = solution.forces
        if structure.periodic and structure.volume > 0.0:
            results["stress"] = TARGETS["stress"].observe(solution)
    return results


class ProgressBar:
    """Progress bar for molecular dynamics or an optimisation in ASE.

    Parameters
    ----------
    dynamics : ase.optimize.optimize.Dynamics
        Dynamics or optimiser.
    n_steps : int
        Number of steps of the run.
    **options
        Options of `tqdm`: ``disable=True`` shows no bar, ``disable=None`` shows one only in a
        terminal.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase.calculators.emt import EMT
    >>> from ase.optimize import BFGS
    >>> from skqeq.calculator import ProgressBar
    >>> water = molecule("H2O")
    >>> water.calc = EMT()
    >>> optimizer = BFGS(water, logfile=None)
    >>> with ProgressBar(optimizer, 20, disable=True):
    ...     converged = optimizer.run(fmax=0.05, steps=20)
    """

    def __init__(self, dynamics: Dynamics, n_steps: int, **options: Any) -> None:
        self.dynamics, self.first = dynamics, dynamics.nsteps
        self.bar = tqdm(total=n_steps, desc=type(dynamics).__name__, **options)
        dynamics.attach(self)

    def __call__(self) -> None:
        """Update the bar; ASE calls this after every step."""
        self.bar.update(self.dynamics.nsteps - self.first - self.bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        # `dynamics` will call the bar in later runs, too; a closed bar ignores updates.
        self.bar.close()
