"""The table of labels y: one row per structure, one column per target, NaN for missing labels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._counts import counted
from .._warnings import warn_once
from ..metrics import has_label
from ._all_checks import LabelChecks
from ._forms import advice_on_labels, check_no_charges
from ._names import check_names
from ._observables import TARGETS, VOIGT, possibly_undefined

if TYPE_CHECKING:
    from .._typing import Array, Column, LabelsLike
from ..structures import BOOLEAN, Structures, as_floats, holds_booleans

COLUMNS = {name: t.shape for name, t in TARGETS.items()}
RAGGED = [name for name, shape in COLUMNS.items() if shape is None]
# Difference of two components that should be equal, in units of the largest one.
MAX_ASYMMETRY = 0.1


def make_targets(**columns: Column) -> Array:
    """Gather labels in a structured array, which scikit-learn can split.

    Parameters
    ----------
    **columns : array-like
        Labels of n structures by the name of the target:

        - ``dipole``, array-like of shape (n, 3): dipole moments about the centre of mass,
          e*Angstrom.
        - ``charges``, sequence of n array-likes of shape (n_atoms,): atomic charges, e.
        - ``quadrupole``, array-like of shape (n, 6), (n, 9) or (n, 3, 3): traceless quadrupole
          moments about the centre of mass, e*Angstrom^2, in the order xx, yy, zz, yz, xz, xy.
        - ``potential``, sequence of n array-likes of shape (n_points,): electrostatic potential at
          ``atoms.info["potential_points"]``, V.
        - ``dipole_magnitude``, array-like of shape (n,): norm of the dipole moment, e*Angstrom.
        - ``energy``, array-like of shape (n,): total energy of each structure, eV.
        - ``forces``, sequence of n array-likes of shape (n_atoms, 3): negative derivatives of the
          energy, eV/Angstrom.
        - ``stress``, array-like of shape (n, 6), (n, 9) or (n, 3, 3): stress of crystals, and of
          slabs in their plane, in the sign convention and the order of ASE: xx, yy, zz, yz, xz,
          xy; eV/Angstrom^3.
        - ``born_effective_charges``, sequence of n array-likes of shape (n_atoms, 3, 3):
          derivatives ``d mu_a / d r_jb`` of the dipole about the coordinate origin, e. The shape
          (n_atoms, 9), with the rows of each tensor one after another, is accepted as well.
        - ``dipole_sigma``, ``charges_sigma``, ..., array-like of shape (n,): noise of each label,
          divided by ``sigma_dipole``, ``sigma_charges``, ... of the model (NaN means 1).

    Returns
    -------
    y : ndarray of shape (n,)
        Structured array with the given columns. NaN means that a value is missing, and None that a
        whole label is missing.

    Raises
    ------
    ValueError
        If a column is unknown, if lengths differ, if a shape is wrong, if a value is infinite or a
        boolean, if a stress or a quadrupole is a matrix that is not symmetric, or if a noise is not
        positive.

    Examples
    --------
    >>> from skqeq import make_targets
    >>> y = make_targets(dipole=[[0, 0, 0.4], None], charges=[[-0.4, 0.4], [0.1, -0.1]])
    >>> y.dtype.names, len(y)
    (('dipole', 'charges'), 2)
    """
    if not columns:
        raise ValueError(f"no targets given; known: {', '.join(COLUMNS)}")
    lengths = {}
    for name, values in columns.items():
        target = name.removesuffix("_sigma")
        if target not in COLUMNS:
            check_names([name])
        if target not in columns:
            raise ValueError(f"{name} is given without {target}")
        if values is None or not hasattr(values, "__len__"):
            raise ValueError(f"{name} must hold one value per structure, got {values!r}")
        lengths[name] = len(values)
    if len(set(lengths.values())) > 1:
        raise ValueError(f"targets have different lengths: {lengths}")
    y = np.empty(next(iter(lengths.values())), dtype=[(n, _dtype(n)) for n in columns])
    for name, values in columns.items():
        # Indexing a pandas Series looks up a label; the position is needed here.
        values = values.to_numpy() if hasattr(values, "to_numpy") else values
        for i in range(len(y)):
            y[name][i] = _entry(name, i, values[i])
    return y


def _dtype(name):
    if name.endswith("_sigma"):
        return float
    if name in RAGGED:
        return object
    shape = COLUMNS[name]
    return float if shape == (1,) else (float, shape)


def _entry(name, i, value):
    """One checked label; NaN or None for a missing one."""
    ragged = name in RAGGED
    if value is None:
        return None if ragged else np.nan
    if holds_booleans(value):
        raise ValueError(f"structure {i}: {name} = {value!r} {BOOLEAN}")
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"structure {i}: {name} = {value!r} is not numeric") from None
    if np.isinf(array).any():
        raise ValueError(f"structure {i}: {name} is infinite")
    if name.endswith("_sigma"):
        if array.size != 1 or array.item() <= 0:
            raise ValueError(f"structure {i}: {name} = {value!r} is not a positive number")
        return array.item()
    given = array.shape
    array = _without_unit_axes(array, name)
    if array.ndim == 0 and np.isnan(array):
        return None if ragged else array
    if ragged:
        row_shape = TARGETS[name].row_shape
        if not _fits(array.shape, name):
            expected = f"(n_atoms, {', '.join(map(str, row_shape))})" if row_shape else "1-D"
            raise ValueError(f"structure {i}: {name} must be {expected}, got shape {given}")
        return array.reshape(-1, *row_shape)  # files hold the rows of a tensor in one line
    if not _fits(array.shape, name):
        shape = COLUMNS[name]
        expected = "a number" if shape == (1,) else f"shape {shape}"
        raise ValueError(f"structure {i}: {name} must be {expected}, got shape {given}")
    if array.size == 9:
        array = _voigt(array.reshape(3, 3), name, i)
    if name == "dipole_magnitude" and array < 0:
        raise ValueError(f"structure {i}: {name} = {value!r} is negative")
    return array


def _fits(shape, name):
    """Whether an array of this shape can be the label of one structure."""
    expected = COLUMNS[name]
    if expected is None:
        row_shape = TARGETS[name].row_shape
        rows = {row_shape, (math.prod(row_shape),)} if row_shape else {()}
        return len(shape) > 0 and shape[1:] in rows
    return shape in {(1,): {()}, (6,): {(6,), (9,), (3, 3)}}.get(expected, {expected})


def _voigt(matrix, name, i):
    """The six components of a symmetric matrix. Programs round it, or have numerical noise."""
    difference = np.nanmax(np.abs(matrix - matrix.T), initial=0.0)
    if difference > MAX_ASYMMETRY * np.nanmax(np.abs(matrix), initial=0.0):
        raise ValueError(f"structure {i}: {name} = {matrix.tolist()} is not symmetric")
    return np.array([matrix[a, b] for a, b in VOIGT])


def _without_unit_axes(array, name):
    """Remove axes of length one, which databases and calculators add, until the shape fits.

    A number is the potential at one point: ASE writes an array of length one as a number.
    """
    while array.ndim and not _fits(array.shape, name):
        if array.shape[0] == 1:
            array = array[0]
        elif array.shape[-1] == 1:
            array = array[..., 0]
        else:
            break
    if array.ndim == 0 and not np.isnan(array) and name == "potential":
        array = array.reshape(1)
    return array


class Labels:
    """Checked labels of a data set, and the form in which the user gave them.

    Parameters
    ----------
    y : structured array, (n, 3) array, list of dict or DataFrame
        A plain array of shape (n, 3) means dipoles. It is refused if all structures have three
        atoms and the rows sum to the total charges, because these are probably charges.
    structures : Structures
        The structures to which the labels belong.
    all_checks : bool, default=False
        Whether to look for all mistakes of `skqeq.check_labels`, or only for those that fits look
        for.

    Attributes
    ----------
    table : ndarray of shape (n,)
        The structured array of `make_targets`.
    form : {"array", "table", "dicts", "frame"}
        Form in which `predict` returns its predictions.
    names : list of str
        Targets with at least one label.
    findings : list of Finding
        Results of the checks of the labels.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import check_structures, make_targets
    >>> from skqeq.structures import Structures
    >>> from skqeq.targets import Labels
    >>> X = Structures(check_structures([molecule("H2O"), molecule("NH3")]))
    >>> labels = Labels(make_targets(dipole=[[0, 0, -0.39], None]), X)
    >>> labels.names, labels.known("dipole").tolist()
    (['dipole'], [True, False])
    """

    def __init__(self, y: LabelsLike, structures: Structures, *, all_checks: bool = False) -> None:
        self.table, self.form = as_table(y)
        if len(self.table) != len(structures):
            per_atom = len(self.table) == len(structures.numbers)
            advice = "; y must have one row per structure, not per atom" if per_atom else ""
            raise ValueError(
                f"X holds {counted(len(structures), 'structure')}, but y {len(self.table)}{advice}"
            )
        if self.form == "array":
            check_no_charges(self.table["dipole"], structures)
        self.columns = [n for n in column_names(self.table) if not n.endswith("_sigma")]
        ragged = [name for name in self.columns if name in RAGGED]
        checks = LabelChecks(self.table, all_checks)
        # Without a reason, structures are not read, because they may be in a file.
        for i, structure in enumerate(structures if ragged or all_checks else ()):
            for name in ragged:
                self._check_size(name, i, structure)
            checks.add(i, structure)
        self.findings = checks.findings()
        partial = [n for n in self.columns if n in ("stress", "born_effective_charges")]
        for i, structure in possibly_undefined(structures, partial):
            for name in partial:
                value, defined = self.table[name][i], TARGETS[name].defined(structure)
                # Programs write all components, also those that are undefined for a slab.
                if value is not None and defined.any():
                    value[~defined.reshape(value.shape)] = np.nan
        self.names = [n for n in self.columns if self.known(n).any()]

    def warn(self) -> None:
        """Warn about labels that are very probably mistakes."""
        for finding in self.findings:
            if finding.severity == "warning":
                warn_once(finding.advice, kind=finding.name)

    def _check_size(self, name, i, structure):
        value = self.table[name][i]
        if value is not None:
            expected = TARGETS[name].size(structure)
            if value.size != expected:
                rows = expected // int(np.prod(TARGETS[name].row_shape))
                of = "potential point" if name == "potential" else "atom"
                raise ValueError(
                    f"structure {i} ({structure.symbols}): {name} has "
                    f"{counted(len(value), 'value')} for {counted(rows, of)}"
                )

    def values(self, name: str, i: int) -> Array | None:
        """Label of one structure.

        Parameters
        ----------
        name : str
            A column.
        i : int
            Index of the structure.

        Returns
        -------
        values : ndarray of shape (k,) or None
            In the unit of the target; None for a missing label.
        """
        value = self.table[name][i]
        return np.ravel(value) if has_label(value) else None

    def known(self, name: str) -> Array:
        """Which structures have a label.

        Parameters
        ----------
        name : str
            A column.

        Returns
        -------
        known : ndarray of bool of shape (n,)
            True if at least one component of the label is known.
        """
        return np.array([self.values(name, i) is not None for i in range(len(self.table))])

    def relative_sigma(self, name: str) -> Array:
        """Noise of the labels divided by the parameter ``sigma_<target>`` of the model.

        Parameters
        ----------
        name : str
            A column.

        Returns
        -------
        sigma : ndarray of shape (n,)
            1 for labels without a value in the table.
        """
        column = f"{name}_sigma"
        if column not in column_names(self.table):
            return np.ones(len(self.table))
        return np.where(np.isnan(self.table[column]), 1.0, self.table[column])


def column_names(table: Array) -> tuple[str, ...]:
    """Names of the columns of a structured array.

    Parameters
    ----------
    table : ndarray
        Structured array.

    Returns
    -------
    names : tuple of str
    """
    return table.dtype.names or ()


def as_table(y: Any) -> tuple[Array, str]:
    """Turn labels into a structured array, and return the name of their original form.

    Parameters
    ----------
    y : structured array, array of shape (n, 3), list of dict or DataFrame
        Labels.

    Returns
    -------
    table : ndarray of shape (n,)
        In the form of `make_targets`.
    form : {"array", "table", "dicts", "frame"}
        The form of y.
    """
    if isinstance(y, dict):
        raise TypeError(
            "y is a dict of arrays, which scikit-learn cannot split into training and test "
            "structures; use make_targets(**y)"
        )
    if hasattr(y, "columns"):
        if not any(name in COLUMNS for name in y.columns) and len(y.columns) == 3:
            names = ", ".join(map(str, y.columns))
            raise ValueError(
                f"the columns of y, {names}, are not targets; if they hold the components of "
                "dipoles, pass y.to_numpy()"
            )
        return make_targets(**{name: y[name].tolist() for name in y.columns}), "frame"
    if isinstance(y, np.ndarray) and y.dtype.names:
        # Check the table again, because the user may have edited it.
        return make_targets(**{name: y[name] for name in y.dtype.names}), "table"
    if isinstance(y, (list, tuple)) and y and isinstance(y[0], dict):
        for i, row in enumerate(y):
            if not isinstance(row, dict):
                raise TypeError(f"y[{i}] is a {type(row).__name__}, but y[0] is a dict of labels")
        names = list(dict.fromkeys(name for row in y for name in row))
        return make_targets(**{n: [row.get(n) for row in y] for n in names}), "dicts"
    kind = type(y).__name__
    if hasattr(y, "to_numpy"):
        y = y.tolist()  # a Series of vectors
    array = as_floats(y)
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(
            "y must be an (n, 3) array of dipoles or a table from make_targets, got "
            f"{kind} {advice_on_labels(y, array)}"
        )
    return make_targets(dipole=array), "array"


# Forms of labels that `as_table` accepts, and in which `to_form` returns predictions.
FORMS = ("array", "table", "dicts", "frame")


def to_form(table: Array, form: str) -> Any:
    """Turn a structured array into the form of the user's labels.

    Parameters
    ----------
    table : ndarray of shape (n,)
        In the form of `make_targets`.
    form : {"array", "table", "dicts", "frame"}
        The form that `as_table` returned.

    Returns
    -------
    y : ndarray, list of dict or DataFrame
    """
    names = column_names(table)
    if form == "array" and names == ("dipole",):
        return table["dipole"].copy()
    if form == "dicts":
        return [{name: row[name] for name in names} for row in table]
    if form == "frame":
        import pandas as pd

        return pd.DataFrame({name: list(table[name]) for name in names})
    return table
