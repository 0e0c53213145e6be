"""The weights of several fields in one vector."""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .._state import check_array, check_elements, check_that, check_type, is_number
from ._field import Component, components_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._typing import Array, Lookup
    from ..structures import Block, Structure
    from ._field import Field
    from ._rows import AtomRows

COUNTS = ("sizes", "n_constants")


class FieldLayout:
    """Positions of the weights of several fields in one vector, and their priors.

    For one field after another, the vector holds the weights w of the features and the constants b
    of the elements (see `Field`). In units of the prior, ``v = weights / scale``, all weights have
    the prior N(0, 1).

    Parameters
    ----------
    fields : sequence of Field
        The fields, in the order of the vector.
    sizes : sequence of int
        Number of columns of the features of every field. A vector field has three columns for each
        weight.
    elements : ndarray of shape (n_elements,)
        Atomic numbers, ascending.
    lookup : callable
        ``lookup(table, name)`` returns the entries of the elements in a table indexed by atomic
        number. It raises an error for elements without an entry.

    Attributes
    ----------
    sizes : list of int
        Number of weights of the features of every field.
    means : ndarray of shape (n_fields, n_elements)
        Prior means of the fields.

    Examples
    --------
    >>> import numpy as np
    >>> from skqeq.fields import Field, FieldLayout
    >>> chi = Field("chi", enters="chi", blocks=("chi",), amplitude=1.0, baseline=10.0)
    >>> layout = FieldLayout([chi], sizes=[3], elements=np.array([1, 8]), lookup=None)
    >>> layout.scale
    array([ 1.,  1.,  1., 10., 10.])
    """

    def __init__(
        self, fields: Sequence[Field], sizes: Sequence[int], elements: Array, lookup: Lookup
    ) -> None:
        self.names = [field.name for field in fields]
        self.enters = [field.enters for field in fields]
        self.sizes = self._n_weights(sizes)
        self.amplitudes = [float(field.amplitude) for field in fields]
        self.baselines = [0.0 if f.baseline is None else float(f.baseline) for f in fields]
        self.n_constants = [0 if f.baseline is None else len(elements) for f in fields]
        self.elements = elements
        self.means = np.zeros((len(fields), len(elements)))
        for mean, field in zip(self.means, fields, strict=True):
            if field.mean is not None:
                mean[:] = lookup(field.mean.values, field.mean.name)

    def __getstate__(self) -> dict[str, Any]:
        # Cached properties are not stored in model files or sent to workers; they are computed
        # again.
        cached = ("columns", "scale")
        return {name: value for name, value in self.__dict__.items() if name not in cached}

    def check_loaded(self) -> None:
        """Check a layout that was read from a file.

        Raises
        ------
        ValueError
            If the numbers of fields, elements and weights do not fit; the message names what does
            not fit.
        """
        elements, names = check_elements(self, "elements"), check_type(self, "names", list)
        for name in ("names", "enters"):
            values = check_type(self, name, list)
            correct = len(values) == len(names) and all(isinstance(x, str) for x in values)
            check_that(correct, self, name, f"a list of {len(names)} names")
        for name in ("sizes", "n_constants", "amplitudes", "baselines"):
            values, kind = check_type(self, name, list), "i" if name in COUNTS else "f"
            correct = len(values) == len(names) and all(is_number(x, kind, 0.0) for x in values)
            expected = f"a list of {len(names)} numbers, of which none is negative"
            check_that(correct, self, name, expected)
        counts = {0, len(elements)}
        expected = f"a list of the numbers 0 and {len(elements)}"
        check_that(set(self.n_constants) <= counts, self, "n_constants", expected)
        check_array(self, "means", (len(names), len(elements)))

    def with_elements(self, elements: Array, means: Array) -> FieldLayout:
        """The same fields for more elements.

        Parameters
        ----------
        elements : ndarray of shape (n_more,)
            Atomic numbers, ascending; they include those of this layout.
        means : ndarray of shape (n_fields, n_more)
            Prior means of the fields.

        Returns
        -------
        layout : FieldLayout
            A layout with additional constants, for the new elements.
        """
        layout = copy(self)
        layout.elements, layout.means = elements, means
        layout.n_constants = [len(elements) if n else 0 for n in self.n_constants]
        return layout

    def with_sizes(self, sizes: Sequence[int]) -> FieldLayout:
        """The same fields with other numbers of features.

        Parameters
        ----------
        sizes : sequence of int
            Number of columns of the features of every field.

        Returns
        -------
        layout : FieldLayout
            A new layout.
        """
        layout = copy(self)
        layout.sizes = self._n_weights(sizes)
        for name in ("columns", "scale"):
            layout.__dict__.pop(name, None)
        return layout

    def places_in(self, layout: FieldLayout) -> Array:
        """Positions of the weights of this layout in a layout for more elements.

        Parameters
        ----------
        layout : FieldLayout
            A layout that `with_elements` has made.

        Returns
        -------
        places : ndarray of shape (n_columns,)
            Ascending positions.
        """
        old = layout.slots(self.elements)
        places = []
        for (features, constants), n in zip(layout.columns, self.n_constants, strict=True):
            places += [np.arange(features.start, features.stop), constants.start + old[:n]]
        return np.concatenate(places)

    def _n_weights(self, sizes):
        """Number of weights of every field, from the number of columns of its features."""
        both = zip(sizes, self.enters, strict=True)
        return [int(size) // len(components_of(enters)) for size, enters in both]

    @property
    def feature_sizes(self) -> list[int]:
        """Number of columns of the features of every field."""
        both = zip(self.sizes, self.enters, strict=True)
        return [size * len(components_of(enters)) for size, enters in both]

    @property
    def components(self) -> list[Component]:
        """The fields one after the other; a vector field has three components."""
        return [
            Component(f, name)
            for f, enters in enumerate(self.enters)
            for name in components_of(enters)
        ]

    @property
    def component_sizes(self) -> list[int]:
        """Number of features of every component."""
        return [self.sizes[component.field] for component in self.components]

    @property
    def has_dipoles(self) -> bool:
        """Whether the atoms have learned dipoles."""
        return "dipole" in self.enters

    @property
    def n_columns(self) -> int:
        """Number of weights."""
        return sum(self.sizes) + sum(self.n_constants)

    @cached_property
    def scale(self) -> Array:
        """Prior standard deviations of the weights, shape (n_columns,)."""
        deviations = [x for pair in zip(self.amplitudes, self.baselines) for x in pair]
        lengths = [n for pair in zip(self.sizes, self.n_constants) for n in pair]
        return np.repeat(deviations, lengths)

    @cached_property
    def columns(self) -> list[tuple[slice, slice]]:
        """Positions of the weights and of the constants of every field in the vector."""
        places, start = [], 0
        for size, n_constants in zip(self.sizes, self.n_constants, strict=True):
            places.append(
                (slice(start, start + size), slice(start + size, start + size + n_constants))
            )
            start += size + n_constants
        return places

    def entering(self, place: str) -> list[int]:
        """Indices of the fields that contribute to one quantity.

        Parameters
        ----------
        place : str
            The quantity: the name of a field of the response, or ``"energy"``.

        Returns
        -------
        indices : list of int
            In ascending order.
        """
        return [f for f, enters in enumerate(self.enters) if enters == place]

    def columns_entering(self, place: str) -> Array:
        """Positions of all weights of the fields that contribute to one quantity.

        Parameters
        ----------
        place : str
            As in `entering`.

        Returns
        -------
        positions : ndarray of int
            In ascending order. Weights that are always zero are left out.
        """
        wanted = np.zeros(self.n_columns, dtype=bool)
        for f in self.entering(place):
            for part in self.columns[f]:
                wanted[part] = True
        return np.flatnonzero(wanted & (self.scale > 0))

    def in_prior_units(self, weights: Array) -> Array:
        """Weights divided by their prior standard deviations.

        Parameters
        ----------
        weights : ndarray of shape (n_columns,)
            Weights.

        Returns
        -------
        v : ndarray of shape (n_columns,)
            Zero if the prior standard deviation is zero, because such a weight is always zero.
        """
        return np.divide(weights, self.scale, out=np.zeros_like(weights), where=self.scale > 0)

    def slots(self, numbers: Array) -> Array:
        """Index of the element of every atom in `elements`.

        Parameters
        ----------
        numbers : ndarray of shape (n_atoms,)
            Atomic numbers.

        Returns
        -------
        slots : ndarray of shape (n_atoms,)
            Indices.
        """
        return np.searchsorted(self.elements, numbers)

    def onehot(self, numbers: Array) -> Array:
        """Indicators of the element of every atom.

        Parameters
        ----------
        numbers : ndarray of shape (n_atoms,)
            Atomic numbers.

        Returns
        -------
        onehot : ndarray of shape (n_atoms, n_elements)
            1 in the column of the element of the atom, 0 in all others.
        """
        return np.eye(len(self.elements))[self.slots(numbers)]

    def counts(self, structure: Structure) -> Array:
        """Number of atoms of every element in a structure.

        Parameters
        ----------
        structure : Structure
            Any structure.

        Returns
        -------
        counts : ndarray of shape (n_elements,)
            Numbers of atoms.
        """
        return self.onehot(structure.numbers).sum(axis=0)

    def values(self, learned: Sequence[Array], weights: Array, numbers: Array) -> dict[str, Array]:
        """Values of the fields on the atoms of one structure.

        Parameters
        ----------
        learned : sequence of ndarray of shape (n_atoms,)
            ``phi . w`` for every component, see `components`.
        weights : ndarray of shape (n_columns,)
            Weights of all fields; only the constants are used.
        numbers : ndarray of shape (n_atoms,)
            Atomic numbers.

        Returns
        -------
        values : dict of {str: ndarray of shape (n_atoms,)}
            For every quantity (a field of the response, a component of the atomic dipoles, or
            ``"energy"``), the sum of the fields that contribute to it.
        """
        slots = self.slots(numbers)
        total: dict[str, Array] = {}
        for (f, place), part in zip(self.components, learned, strict=True):
            mean, (_, constants) = self.means[f], self.columns[f]
            constant = mean + weights[constants] if constants.stop > constants.start else mean
            total[place] = total.get(place, 0.0) + (constant[slots] + part)
        return total

    def prior_values(self, numbers: Array) -> dict[str, Array]:
        """Values of the fields if all weights are zero.

        Parameters
        ----------
        numbers : ndarray of shape (n_atoms,)
            Atomic numbers.

        Returns
        -------
        values : dict of {str: ndarray of shape (n_atoms,)}
            As in `values`.
        """
        nothing = np.zeros(len(numbers))
        return self.values([nothing] * len(self.components), np.zeros(self.n_columns), numbers)

    def design(
        self, block: Block, rows: AtomRows, scaled: bool = True
    ) -> Iterator[tuple[Array, Array]]:
        """Turn derivatives with respect to the fields into derivatives with respect to the weights.

        Parameters
        ----------
        block : Block
            Features of all fields side by side, in the order of the fields.
        rows : AtomRows
            Derivatives with respect to the fields on the atoms of the block.
        scaled : bool, default=True
            Whether the derivatives are with respect to weights in units of their prior.

        Yields
        ------
        J : ndarray of shape (n_rows, n_columns)
            Rows of the design matrix.
        residual : ndarray of shape (n_rows,)
            Right-hand sides.
        """
        onehot, parts = self.onehot(block.numbers), block.split(self.component_sizes)
        for factors, residual in rows.chunks(block.n_atoms):
            J = np.zeros((len(residual), self.n_columns))
            for (f, place), part in zip(self.components, parts, strict=True):
                if place not in factors:
                    continue
                of_features, of_constants = self.columns[f]
                if self.sizes[f]:
                    J[:, of_features] += part.contract(factors[place])
                if self.n_constants[f]:
                    J[:, of_constants] = factors[place] @ onehot
            if scaled:
                J *= self.scale
            yield J, residual
