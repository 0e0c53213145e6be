"""Fields of a charge model, and the features that describe them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from ..fields import ElementTable, Field, components_of
from ..parameters import qeq_electronegativities
from ..structures import NoFeatures, StackedSource, StructureFeatures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._typing import Array, Lookup
    from ..response import Response
    from ..structures import FeatureSource, Structures


def how_to_make_blocks(names: Sequence[str]) -> str:
    """Advice for users whose features are not in blocks.

    Parameters
    ----------
    names : sequence of str
        Names of the blocks.

    Returns
    -------
    advice : str
        The end of an error message.
    """
    steps = "make_pipeline(SOAPFeaturizer(), CURSparsifier())"
    blocks = ", ".join(f"('{name}', {steps})" for name in names)
    return f"make them with StructureBlocks([{blocks}])"


def block_names(X: object) -> tuple[str, ...]:
    """Names of the feature blocks of X.

    Parameters
    ----------
    X : object
        Input of a model.

    Returns
    -------
    names : tuple of str
        Empty if the blocks have no names.
    """
    return X.source.names if isinstance(X, StructureFeatures) else ()


def charge_fields(
    response: Response,
    amplitude_chi: float,
    amplitude_baseline: float,
    baseline: bool = True,
    blocks: tuple[str, ...] = ("chi",),
) -> list[Field]:
    """The fields of a response: the electronegativity, and any that only this response has.

    Parameters
    ----------
    response : Response
        Its attribute `fields` lists the names.
    amplitude_chi, amplitude_baseline : float
        Prior standard deviations of the electronegativity, V.
    baseline : bool, default=True
        Whether each element has a constant electronegativity, with that of QEq as prior mean.
    blocks : tuple of str, default=("chi",)
        Feature blocks of the electronegativity. Any other field uses the block with the name of the
        field if there is one, and otherwise these blocks.

    Returns
    -------
    fields : list of Field
    """
    fields = []
    for name in response.fields:
        if name == "chi":
            mean = ElementTable(qeq_electronegativities(), "QEq electronegativity")
            constants = (amplitude_baseline, mean) if baseline else (0.0, None)
            fields.append(Field("chi", "chi", blocks, amplitude_chi, *constants))
        else:
            own_blocks = (name, *blocks) if blocks else ()
            fields.append(Field(name, name, own_blocks, *response.prior(name)))
    return fields


def stacked_features(
    structures: Structures,
    blocks: dict[str, FeatureSource],
    fields: Sequence[Field],
    estimator: str,
    named: bool,
) -> StructureFeatures:
    """Features of all fields side by side.

    Parameters
    ----------
    structures : Structures
        The structures.
    blocks : dict of {str: FeatureSource}
        The keys are the names of the feature blocks.
    fields : sequence of Field
        Each field uses the first of its blocks that is present.
    estimator : str
        Name of the estimator, for messages.
    named : bool
        Whether the user named the blocks.

    Returns
    -------
    features : StructureFeatures
        In the order of the fields. The last field, the energies of the free atoms, has no features.

    Raises
    ------
    ValueError
        If a block is missing, or belongs to no field.
    """
    required = [f.blocks[0] for f in fields if len(f.blocks) == 1 and not f.optional]
    required = list(dict.fromkeys(required))
    # A block "reference" may be unused, so that responses can be compared on the same features.
    allowed = {"chi", "reference", *(name for field in fields for name in field.blocks)}
    missing = [field for field in fields if field.blocks and not set(field.blocks) & set(blocks)]
    if missing or not set(blocks) <= allowed:
        got = f"blocks {', '.join(blocks)}" if named else "features without names"
        raise ValueError(
            f"{estimator} takes the blocks {' and '.join(required)}, and reference if its response "
            f"is ChargeFlow, got {got}; {how_to_make_blocks(required)}"
        )
    sources = [
        next((blocks[name] for name in field.blocks if name in blocks), NoFeatures())
        for field in fields
    ]
    check_components(fields, sources)
    return StructureFeatures(structures, StackedSource([*sources, NoFeatures()]))


def check_components(fields: Sequence[Field], sources: Sequence[FeatureSource]) -> None:
    """Refuse features of numbers for a vector field, and features of vectors for a number.

    Parameters
    ----------
    fields : sequence of Field
        The fields.
    sources : sequence of FeatureSource
        The features of each.

    Raises
    ------
    ValueError
        If the features of a field have another number of components.
    """
    for field, source in zip(fields, sources, strict=True):
        if source.n_components != len(components_of(field.enters)) and field.blocks:
            right = "vectors, as VectorSOAPFeaturizer makes them"
            if source.n_components > 1:
                right = "numbers, as SOAPFeaturizer and CURSparsifier make them"
            raise ValueError(f"the features of the block {field.name!r} must be {right}")


def element_lookup(elements: Array, structures: Structures | None = None) -> Lookup:
    """Make a function that looks up some elements in tables.

    Parameters
    ----------
    elements : ndarray of shape (n_elements,)
        Atomic numbers.
    structures : Structures, default=None
        Structures with these elements; an error names the first one with a missing element.

    Returns
    -------
    lookup : callable
        ``lookup(table, name)`` returns ``table[elements]`` for a table by atomic number. It raises
        ValueError for an element whose entry is NaN.
    """

    def lookup(table: Array, name: str) -> Array:
        missing = elements[np.isnan(table[elements])]
        if len(missing):
            where = ""
            if structures is not None:
                where = f"{structures.name(structures.first_with(missing[0]))}: "
            raise ValueError(f"{where}no {name} for {chemical_symbols[missing[0]]}")
        return table[elements]

    return lookup
