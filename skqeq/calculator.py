"""The way out to ASE: a fitted model as a calculator, and a progress bar for what it drives."""

from __future__ import annotations

from copy import deepcopy
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
from .response import NoCharges
from .structures import CHARGE_KEYS
from .targets import GRADIENTS, TARGETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from ase.optimize.optimize import Dynamics

    from ._typing import Model


__all__ = ["KQEqCalculator", "ProgressBar"]

# What only those who ask for it wait for.
RESPONSES = ("born_effective_charges", "polarizability")
NO_CHARGES = "the model is a local energy without charges"
NO_DIPOLE = (
    "charge jumps across a cell without a defined dipole moment; molecules have one, and slabs "
    "along an open x, y or z"
)
UNDEFINED = {
    "stress": "a stress needs periodic vectors, and three cell vectors for the volume; a slab "
    "whose third vector is missing gets one by atoms.center(vacuum=10, axis=2)",
    "charges": NO_CHARGES,
    "dipole": NO_DIPOLE,
    "born_effective_charges": NO_DIPOLE,
    "polarizability": NO_DIPOLE,
}


class KQEqCalculator(Calculator):
    """ASE calculator of a fitted charge model.

    Energies, forces and stress are those of `skqeq.predict_energy` and `skqeq.predict_forces`;
    total charge and field come from ``atoms.info``, as everywhere. Only what is asked for is
    computed: without forces and stress no derivatives. The charges of the last geometry start
    the iterative solver of large structures.

    Parameters
    ----------
    model : fitted estimator
        A charge model, a pipeline that ends in one, or a search over either.

    Attributes
    ----------
    results : dict
        Of the last geometry:

        - ``energy`` and ``free_energy``, which is the same, eV
        - ``charges``, shape (n_atoms,), e
        - ``dipole`` about the centre of mass, shape (3,), e*Angstrom; NaN along the periodic
          axes of a slab
        - ``forces``, shape (n_atoms, 3), eV/Angstrom
        - ``stress``, shape (6,), in the sign and the order of ASE: xx, yy, zz, yz, xz, xy,
          eV/Angstrom^3; that of a slab lies in its plane, and its other components are zero
        - ``born_effective_charges``, shape (n_atoms, 3, 3), ``d mu_a / d r_jb`` at ``[j, a, b]``
          about the coordinate origin, e, and ``polarizability``, shape (3, 3), e*Angstrom per
          V/Angstrom, where one of them was asked for by ``calc.get_property(name, atoms)``; NaN
          along the periodic axes of a slab. ASE cannot write the former to extended XYZ: use
          ``write(..., write_results=False)``, or a trajectory file

    Notes
    -----
    ASE compares positions, numbers, cell and pbc to decide whether results still hold. Here a
    changed total charge, field or mass counts too, and a model that was fitted again.

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

    def __init__(self, model: Model) -> None:
        super().__init__(model=model)

    def set(self, model: Model) -> dict[str, Any]:  # type: ignore[override]  # ASE: any keyword
        """Use another model.

        Parameters
        ----------
        model : fitted estimator
            As of the class.

        Returns
        -------
        changed : dict
            What was set.
        """
        check_is_fitted(unwrap(model)[1])
        self.model = model
        self.reset()
        return {"model": model}

    def reset(self) -> None:
        """Forget the last geometry and its results."""
        super().reset()
        self._seen = None
        self._last: tuple[Any, Any] = None, None

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation.

        Parameters
        ----------
        atoms : ase.Atoms
            The structure now.
        tol : float, default=1e-15
            Differences that do not matter.

        Returns
        -------
        changes : list of str
            Names of ASE, or ``"info"`` for the total charge, the field, masses or the model.
        """
        changes = super().check_state(atoms, tol)
        if not changes and not equal(self._watched(atoms), self._seen):
            changes = ["info"]
        return changes

    def _watched(self, atoms):
        """What results depend on and ASE does not compare."""
        info = {key: atoms.info.get(key) for key in (*CHARGE_KEYS, "external_field")}
        coef = getattr(unwrap(self.model)[1], "coef_", None)
        # Atoms.copy shares the field, which may be changed in place.
        return {**deepcopy(info), "masses": atoms.get_masses(), "coef": coef}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill `results`.

        Parameters
        ----------
        atoms : ase.Atoms, default=None
            The structure; None means that of the last calculation.
        properties : sequence of str, default=("energy",)
            What is wanted.
        system_changes : list of str
            Not looked at.

        Raises
        ------
        PropertyNotImplementedError
            If the structure has no stress or no dipole, and it or what derives from it is wanted.
        """
        atoms = self.atoms if atoms is None else atoms
        transformer, model = unwrap(self.model)
        responses = any(name in RESPONSES for name in properties)
        gradients = responses or any(name in GRADIENTS for name in properties)
        numbers, charges = self._last
        start = [charges] if np.array_equal(numbers, atoms.numbers) else None
        names = ["forces" if gradients else "energy"]
        [solution] = model.solutions(transformer([atoms]), names, start)
        super().calculate(atoms)
        self._seen = self._watched(atoms)
        self._last = atoms.numbers.copy(), solution.charges
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
    """What there is to know of a structure, by the names of ASE."""
    structure, energy = solution.structure, solution.energy
    results = {"energy": energy, "free_energy": energy}
    defined = TARGETS["dipole"].defined(structure)
    charged = not isinstance(solution.equilibrium, NoCharges)
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
    """Progress of a run of ASE: molecular dynamics or an optimisation.

    Parameters
    ----------
    dynamics : ase.optimize.optimize.Dynamics
        What runs.
    n_steps : int
        How many steps it is going to make.
    **options
        Of `tqdm`: ``disable=True`` shows nothing, ``disable=None`` nothing where the output is
        no terminal.

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
        """Show how far the run is; dynamics call it after every step."""
        self.bar.update(self.dynamics.nsteps - self.first - self.bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        # A closed bar takes no further notice of the dynamics.
        self.bar.close()
