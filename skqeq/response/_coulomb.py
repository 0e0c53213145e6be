"""Parameters that all responses with interacting charges share."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

from .._sklearn import Interval, StrOptions
from ..electrostatics import ACCURACIES, SOLVERS, make_hardness
from ..parameters import per_element, radii_table
from ._dipoles import InducedDipoles
from ._response import Response

if TYPE_CHECKING:
    from .._typing import Array, PerElement, Radii, Solver
    from ..electrostatics import Hardness
    from ..structures import Structure


class CoulombResponse(Response):
    """A response whose charges interact through the hardness matrix.

    Subclasses have the parameters `hardness`, `radius_scale`, `radii`, `accuracy`, `solver` and
    `polarizability`, which `QEq` describes. This class looks up their values for each element, and
    sets up the hardness matrix and the polarisable atoms of a structure.

    Attributes
    ----------
    widths_ : ndarray of shape (n_elements,)
        Widths of the Gaussian charges, Angstrom.
    hardness_ : ndarray of shape (n_elements,)
        Hardness added to the self-interaction of the charges, eV/e^2.
    polarizability_ : ndarray of shape (n_elements,) or None
        Polarisabilities of the atoms, Angstrom^3; None if `polarizability` is None.
    factorisations : float
        Cost of a direct solution, in units of a Cholesky factorisation of the hardness matrix.
    """

    factorisations: ClassVar[float] = 1.0
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "hardness": [Interval(Real, 0.0, None, closed="left"), dict],
        "radius_scale": [Interval(Real, 0.0, None, closed="neither")],
        "radii": [StrOptions({"qeq", "covalent"}), dict],
        "accuracy": [Interval(Real, *ACCURACIES, closed="both")],
        "solver": [StrOptions(set(SOLVERS))],
        "polarizability": [Interval(Real, 0.0, None, closed="left"), dict, None],
    }

    hardness: PerElement
    radius_scale: float
    radii: Radii
    accuracy: float
    solver: Solver
    polarizability: PerElement | None

    def _prepare(self, lookup):
        self.hardness_ = lookup(per_element(self.hardness, "hardness"), "hardness in `hardness`")
        self.widths_ = self.radius_scale * lookup(radii_table(self.radii), "radius in `radii`")
        self.polarizability_ = None
        if self.polarizability is not None:
            table = per_element(self.polarizability, "polarizability")
            self.polarizability_ = lookup(table, "polarisability in `polarizability`")

    def _interactions(
        self, structure: Structure, elements: Array, name: str, n_solutions: int
    ) -> tuple[Hardness, InducedDipoles | None]:
        """Return the hardness matrix of a structure, and its polarisable atoms if it has any.

        Parameters
        ----------
        structure : Structure
            Geometry, total charge and external field.
        elements : ndarray of shape (n_atoms,)
            The `element_indices` of the structure.
        name : str
            Name of the structure in error messages.
        n_solutions : int
            Number of right-hand sides that will be solved.

        Returns
        -------
        hardness : Hardness
        dipoles : InducedDipoles or None
        """
        # Induced dipoles add a dense matrix to A, so that products with A would not be cheaper than
        # a factorisation.
        widths, solver = self.widths_[elements], self.solver
        if self.polarizability_ is not None:
            if solver == "iterative":
                raise ValueError(
                    f"{name}: induced dipoles are solved for by factorisation: use solver='dense'"
                )
            solver = "dense"
        hardness = make_hardness(
            structure,
            widths,
            self.hardness_[elements],
            self.accuracy,
            solver,
            n_solutions,
            self.factorisations,
        )
        if self.polarizability_ is None:
            return hardness, None
        alpha = self.polarizability_[elements]
        return hardness, InducedDipoles(structure, widths, alpha, self.accuracy)
