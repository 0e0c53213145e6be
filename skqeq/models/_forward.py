"""From weights to the charges and energies of structures."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from .._threads import blas_threads_for
from ..fields import components_of
from ._atomic_dipoles import take_dipoles
from ._geometry_store import Geometry
from ._structure_solution import FieldGradient, Solution

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._typing import Array
    from ..fields import FieldLayout
    from ..response import Equilibrium, Response
    from ..structures import Block, Structure, StructureFeatures
    from ._geometry_store import GeometryStore


class ForwardModel:
    """Fields that are linear in weights, and the response of the charges to them.

    Parameters
    ----------
    layout : FieldLayout
        The fields and their weights.
    response : Response
        Determines the charges from the fields; prepared for the elements of the layout.
    verbose : bool, default=False
        Whether to show progress bars.
    """

    def __init__(self, layout: FieldLayout, response: Response, verbose: bool = False) -> None:
        self.layout, self.response, self.verbose = layout, response, verbose

    def equilibrium(self, structure: Structure, number: int, n_solutions: int = 1) -> Equilibrium:
        """The response of the charges of one structure.

        Parameters
        ----------
        structure : Structure
            The structure.
        number : int
            Number of the structure in error messages.
        n_solutions : int, default=1
            Number of linear systems that will be solved. Many systems are solved by factorisation,
            few of them by iteration.

        Returns
        -------
        equilibrium : Equilibrium
        """
        name = f"structure {number} ({structure.symbols})"
        return self.response.equilibrium(structure, name, n_solutions)

    def solutions(
        self,
        features: StructureFeatures,
        weights: Array,
        gradients: bool = False,
        start: Sequence[Array | None] | None = None,
        numbers: Sequence[int] | None = None,
        n_rows: Array | None = None,
        store: GeometryStore | None = None,
    ) -> Iterator[tuple[int, Block | None, list[Solution]]]:
        """Solve all structures.

        Parameters
        ----------
        features : StructureFeatures
            Features of all fields, in the order of the layout.
        weights : ndarray of shape (n_columns,)
            Weights of all fields.
        gradients : bool, default=False
            Whether solutions need derivatives with respect to the geometry.
        start : sequence of ndarray or None, default=None
            Charges from which the iterative solver starts, e.
        numbers : sequence of int, default=None
            Numbers of the structures in error messages; None means 0, 1, 2, ...
        n_rows : ndarray of shape (n_structures,), default=None
            Number of further linear systems that the caller will solve for each structure.
        store : GeometryStore, default=None
            Stores geometries for further calls with other weights and `gradients`. The numbers of
            the structures identify them.

        Yields
        ------
        first : int
            Index of the first structure of a block.
        block : Block or None
            Features of the block. None with `gradients`: each solution then has its features and
            their derivatives.
        solutions : list of Solution
            One per structure of the block.
        """
        start = [None] * len(features) if start is None else start
        numbers = range(len(features)) if numbers is None else numbers
        n_rows = np.zeros(len(features), dtype=int) if n_rows is None else n_rows
        components = self.layout.components
        w = [weights[self.layout.columns[f][0]] for f, _ in components]

        def solve(i, equilibrium, learned, field_gradients=None):
            structure = equilibrium.structure
            fields = self.layout.values(learned, weights, structure.numbers)
            energies, dipoles = fields.pop("energy"), take_dipoles(fields)
            charges = equilibrium.charges(start=start[i], **fields)
            return Solution(
                structure, equilibrium, fields, energies, charges, field_gradients, dipoles
            )

        if gradients:
            sources = features.source.sources
            duals = [sources[f].dual(x) for (f, _), x in zip(components, w, strict=True)]
            recalled = [] if store is None else [store.recall(c, x) for c, x in enumerate(w)]
            walk = tqdm(features.structures, "derivatives", disable=not self.verbose, leave=False)
            for i, structure in enumerate(walk):
                number = int(numbers[i])
                make = partial(self._geometry, sources, structure, number, int(n_rows[i]) + 1)
                with blas_threads_for(structure):
                    geometry = make() if store is None else store.get(number, make)
                    fields = []
                    for c, (component, dual) in enumerate(zip(components, duals, strict=True)):
                        part, known = geometry.features[c], None
                        if store is not None:
                            known = store.evaluate(number, c, recalled[c], part, dual)
                        fields.append(FieldGradient(*component, part, dual, known))
                    learned = [field.values for field in fields]
                    solution = solve(i, geometry.equilibrium, learned, fields)
                yield i, None, [solution]
            return
        for first, block in features.blocks(verbose=self.verbose, desc="charges"):
            parts = zip(block.split(self.layout.component_sizes), w, strict=True)
            learned = [np.split(part.dot(x), block.offsets[1:-1]) for part, x in parts]
            solutions = []
            for s, (structure, values) in enumerate(
                zip(block.structures, zip(*learned, strict=True), strict=True)
            ):
                i = first + s
                equilibrium = self.equilibrium(structure, numbers[i], int(n_rows[i]) + 1)
                solutions.append(solve(i, equilibrium, values))
            yield first, block, solutions

    def _geometry(self, sources, structure, number, n_solutions):
        # Fields with the same source share the gradient of its features.
        made = {id(source): source.gradient(structure) for source in sources}
        equilibrium = self.equilibrium(structure, number, n_solutions)
        features = []
        for source, enters in zip(sources, self.layout.enters, strict=True):
            gradient = made[id(source)]
            # The gradient of vector features has a part for every component.
            features += gradient.parts if len(components_of(enters)) > 1 else [gradient]
        return Geometry(equilibrium, features)
