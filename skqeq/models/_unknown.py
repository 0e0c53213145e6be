"""Structures with elements that a model does not know: an error, or the prior."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from .._warnings import warn_once
from ..fields import ElementTable
from ..targets import ENERGIES, GRADIENTS, TARGETS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .._typing import Array, Lookup
    from ..fields import Field, FieldLayout
    from ..structures import StructureFeatures, Structures
    from ..targets import Labels

# The energy of an atom has no useful prior. These targets are undefined if an element is unknown.
UNDEFINED = tuple(name for name in TARGETS if name in ENERGIES or name in GRADIENTS)
ADVICE = (
    "add structures with it to the training data, or set handle_unknown='prior' (--handle-unknown "
    "prior on the command line), which takes charges and dipoles from the prior"
)


def known_elements(features: StructureFeatures, elements: Array) -> frozenset[int]:
    """The elements of the training data that the features describe.

    Parameters
    ----------
    features : StructureFeatures
        Features of all fields.
    elements : ndarray of int
        Atomic numbers in the training data.

    Returns
    -------
    known : frozenset of int
        Atomic numbers.
    """
    known = frozenset(map(int, elements))
    described = features.source.elements
    return known if described is None else known & described


def check_known(
    structures: Structures, known: Collection[int], names: Sequence[str], handle_unknown: str
) -> Array:
    """Find the structures with unknown elements, and refuse them or warn.

    Parameters
    ----------
    structures : Structures
        Structures to predict.
    known : collection of int
        Atomic numbers of the known elements.
    names : sequence of str
        Targets to predict.
    handle_unknown : {"error", "prior", "skip"}
        "error" refuses the structures, "prior" only targets that are undefined for them. "skip" is
        for scores, from which such targets are left out.

    Returns
    -------
    unknown : ndarray of shape (n_structures,)
        True for structures with unknown elements.

    Raises
    ------
    ValueError
        If a structure is refused; the message names it.
    """
    unknown = structures.holding_others(known)
    if not unknown.any():
        return unknown
    message = structures.unknown_elements(int(unknown.argmax()), known)
    if handle_unknown == "error":
        raise ValueError(f"{message}; {ADVICE}")
    undefined = [name for name in names if name in UNDEFINED]
    if undefined and handle_unknown == "prior":
        raise ValueError(f"{message}; {' and '.join(undefined)} cannot come from the prior")
    left_out = f"; their {' and '.join(undefined)} cannot be predicted" if undefined else ""
    warn_once(
        f"{message}. In {unknown.sum()} of {len(structures)} structures, atoms of unknown elements "
        f"and their neighbours have the electronegativity of the prior{left_out}",
        "unknown elements",
    )
    return unknown


def check_fittable(
    features: StructureFeatures, elements: Array, labels: Labels, handle_unknown: str
) -> None:
    """Refuse training structures whose features do not describe all elements, or warn.

    Parameters
    ----------
    features : StructureFeatures
        Features of the training structures.
    elements : ndarray of int
        Atomic numbers in the training data.
    labels : Labels
        Their labels.
    handle_unknown : {"error", "prior"}
        "error" refuses the structures, "prior" only their labels of energies, forces, stress and
        Born charges.

    Raises
    ------
    ValueError
        If a structure is refused; the message names it.
    """
    structures, known = features.structures, known_elements(features, elements)
    unknown = structures.holding_others(known)
    if unknown.any():
        refused = [name for name in labels.names if name in UNDEFINED]
        bad, advice = unknown, ADVICE
        if handle_unknown == "prior":
            labelled = np.zeros(len(structures), dtype=bool)
            for name in refused:
                labelled |= labels.known(name)
            bad, advice = unknown & labelled, f"{' and '.join(refused)} cannot be fitted"
        if bad.any():
            raise ValueError(f"{structures.unknown_elements(int(bad.argmax()), known)}; {advice}")
        check_known(structures, known, (), handle_unknown)
    _warn_of_constants(structures, features.source.represented)


def _warn_of_constants(structures, represented):
    """Warn of elements that the descriptor knows, but of which there are no sparse points."""
    lacking = structures.holding_others(represented) if represented is not None else np.zeros(0)
    if lacking.any():
        i = int(lacking.argmax())
        others = [chemical_symbols[z] for z in structures[i].species if z not in represented]
        warn_once(
            f"{structures.name(i)} holds {', '.join(others)}, of which there are no sparse points: "
            "the fields of these atoms are constants of the element",
            "unknown elements",
        )


def extended_means(
    layout: FieldLayout, fields: Sequence[Field], elements: Array, lookup: Lookup
) -> Array:
    """Prior means of the fields for more elements than those of a fit.

    Parameters
    ----------
    layout : FieldLayout
        The layout of the fit.
    fields : sequence of Field
        Its fields, in the same order, as far as they have a prior mean for all elements.
    elements : ndarray of shape (n_more,)
        Atomic numbers, ascending; they include those of the fit.
    lookup : callable
        Returns the entries of `elements` in a table, see `FieldLayout`.

    Returns
    -------
    means : ndarray of shape (n_fields, n_more)
        NaN for local energies of new elements, so that energies of structures with them are NaN.
    """
    means = np.zeros((len(layout.names), len(elements)))
    tables = {field.name: field.mean for field in fields}
    for mean, name, place in zip(means, layout.names, layout.enters, strict=True):
        table: ElementTable | None = tables.get(name)
        if place == "energy":
            mean[:] = np.nan
        elif table is not None:
            mean[:] = lookup(table.values, table.name)
    means[:, np.searchsorted(elements, layout.elements)] = layout.means
    return means
