"""What charge models get right and wrong: fragments, fields, and the growth of clusters.

Every function takes any fitted model, or in its place a function that computes a reference: from a
list of structures a pair of energies (n,), eV, and of charges, a list of arrays, e.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase.neighborlist import build_neighbor_list, natural_cutoffs
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from .models import predict_polarizability, predict_targets
from .structures import check_structures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from numpy.typing import ArrayLike

    from ._typing import Array, Column, Model, Reference


__all__ = [
    "Dissociation",
    "FieldResponse",
    "dissociation",
    "expanded",
    "field_response",
    "find_fragments",
    "fragment_charge_error",
    "fragment_charges",
    "fragment_distance",
    "polarizability_per_fragment",
]


class Dissociation(NamedTuple):
    """Energies and charges along a path on which fragments move apart.

    Parameters
    ----------
    factors : ndarray of shape (n,)
        Of the distances from the centre.
    distances : ndarray of shape (n,)
        Shortest distance between atoms of two fragments, Angstrom.
    energies : ndarray of shape (n,)
        In eV.
    charges : ndarray of shape (n, n_fragments)
        Of the fragments, e.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor
    >>> from skqeq.validation import dissociation
    >>> pair = molecule("H2O")
    >>> pair += pair
    >>> pair.positions[3:] += [3, 0, 0]
    >>> model = QEqRegressor().fit([pair], [[0.0, 0.0, -0.78]])
    >>> factors, distances, energies, charges = dissociation(model, pair, [1.0, 1.5, 2.0])
    >>> distances
    array([3. , 4.5, 6. ])
    """

    factors: np.ndarray
    distances: np.ndarray
    energies: np.ndarray
    charges: np.ndarray


class FieldResponse(NamedTuple):
    """Energies and charges of one geometry in several fields.

    Parameters
    ----------
    fields : ndarray of shape (n, 3)
        V/Angstrom.
    energies : ndarray of shape (n,)
        In eV.
    charges : ndarray of shape (n, n_fragments)
        Of the fragments, e.
    dipoles : ndarray of shape (n, 3)
        ``sum_i q_i r_i`` of the charges about the coordinate origin, e*Angstrom. Charges of a
        reference do not hold all of its dipole.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor
    >>> from skqeq.validation import field_response
    >>> water = molecule("H2O")
    >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
    >>> fields, energies, charges, dipoles = field_response(model, water, [[0.1, 0, 0]])
    >>> energies.shape, charges.shape, dipoles.shape
    ((1,), (1, 1), (1, 3))
    """

    fields: np.ndarray
    energies: np.ndarray
    charges: np.ndarray
    dipoles: np.ndarray


def find_fragments(atoms: Atoms, stretch: float = 1.3) -> Array:
    """Which fragment every atom belongs to.

    Parameters
    ----------
    atoms : ase.Atoms
        A structure.
    stretch : float, default=1.3
        Atoms are bonded if they are closer than this times the sum of their covalent radii.

    Returns
    -------
    fragments : ndarray of shape (n_atoms,)
        Numbers from 0, in the order of the atoms.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq.validation import find_fragments
    >>> other = molecule("H2O")
    >>> other.translate([5, 0, 0])
    >>> find_fragments(molecule("H2O") + other).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    cutoffs = natural_cutoffs(atoms, mult=stretch)
    bonds = build_neighbor_list(atoms, cutoffs, self_interaction=False, skin=0.0)
    return connected_components(bonds.get_connectivity_matrix())[1].astype(int)


def fragment_charges(charges: ArrayLike, fragments: Array) -> Array:
    """Sums of the charges of each fragment.

    Parameters
    ----------
    charges : array-like of shape (n_atoms,)
        Charges of the atoms, e.
    fragments : ndarray of shape (n_atoms,)
        From `find_fragments`.

    Returns
    -------
    charges : ndarray of shape (n_fragments,)
        Charges of the fragments, e.

    Examples
    --------
    >>> import numpy as np
    >>> from skqeq.validation import fragment_charges
    >>> fragment_charges([-0.8, 0.5, 0.5, 0.1], np.array([0, 0, 0, 1])).round(2)
    array([0.2, 0.1])
    """
    return np.bincount(fragments, charges)


def fragment_distance(atoms: Atoms, fragments: Array) -> float:
    """Shortest distance between atoms of two fragments.

    Parameters
    ----------
    atoms : ase.Atoms
        A molecule or a cluster.
    fragments : ndarray of shape (n_atoms,)
        From `find_fragments`.

    Returns
    -------
    distance : float
        Angstrom; infinite for one fragment.

    Examples
    --------
    >>> import numpy as np
    >>> from ase import Atoms
    >>> from skqeq.validation import fragment_distance
    >>> fragment_distance(Atoms("He3", [[0, 0, 0], [1, 0, 0], [5, 0, 0]]), np.array([0, 0, 1]))
    4.0
    """
    distances = cdist(atoms.positions, atoms.positions)
    return float(distances[fragments[:, None] != fragments].min(initial=np.inf))


def expanded(atoms: Atoms, factor: float, fragments: ArrayLike | None = None) -> Atoms:
    """Move fragments, as they are, away from the centre of mass.

    Parameters
    ----------
    atoms : ase.Atoms
        A molecule or a cluster.
    factor : float
        By which the distances of their centres of mass from that of all are multiplied.
    fragments : array-like of shape (n_atoms,), default=None
        None means `find_fragments`.

    Returns
    -------
    atoms : ase.Atoms
        A copy, with the same ``info``.

    Examples
    --------
    >>> from ase import Atoms
    >>> from skqeq.validation import expanded
    >>> expanded(Atoms("He2", [[-2, 0, 0], [2, 0, 0]]), 1.5).positions[:, 0]
    array([-3.,  3.])
    """
    fragments = find_fragments(atoms) if fragments is None else np.asarray(fragments)
    masses, moved = atoms.get_masses(), atoms.copy()
    moved.calc = None
    weights = np.bincount(fragments, masses)
    centers = [np.bincount(fragments, masses * x) / weights for x in atoms.positions.T]
    shifts = (factor - 1.0) * (np.transpose(centers) - atoms.get_center_of_mass())
    moved.positions += shifts[fragments]
    return moved


def dissociation(
    model: Model | Reference, atoms: Atoms, factors: ArrayLike, fragments: ArrayLike | None = None
) -> Dissociation:
    """Energies, and charges of the fragments, while a cluster is taken apart.

    Separated fragments ought to carry integer charges. Those of charge equilibration do not: any
    atom exchanges charge with any other at no cost.

    Parameters
    ----------
    model : fitted estimator or callable
        See the module.
    atoms : ase.Atoms
        A compact cluster, with its total charge in ``info``.
    factors : array-like of shape (n,)
        As in `expanded`.
    fragments : array-like of shape (n_atoms,), default=None
        None means `find_fragments`.

    Returns
    -------
    result : Dissociation
        Distances, energies and charges for every factor.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor
    >>> from skqeq.validation import dissociation
    >>> other = molecule("NH3")
    >>> other.translate([3, 0, 0])
    >>> pair = molecule("H2O") + other
    >>> model = QEqRegressor().fit([molecule("H2O"), molecule("NH3")], np.eye(3)[:2])
    >>> dissociation(model, pair, [1.0, 2.0]).charges.shape
    (2, 2)
    """
    fragments = find_fragments(atoms) if fragments is None else np.asarray(fragments)
    factors = np.asarray(factors, dtype=np.float64)
    path = [expanded(atoms, factor, fragments) for factor in factors]
    energies, charges = _observe(model, path)
    return Dissociation(
        factors,
        np.array([fragment_distance(step, fragments) for step in path]),
        energies,
        np.array([fragment_charges(q, fragments) for q in charges]),
    )


def field_response(
    model: Model | Reference, atoms: Atoms, fields: ArrayLike, fragments: ArrayLike | None = None
) -> FieldResponse:
    """Energies, and charges of the fragments, in uniform fields.

    The energy of an ion in a field depends on the coordinate origin.

    Parameters
    ----------
    model : fitted estimator or callable
        See the module.
    atoms : ase.Atoms
        A molecule or a cluster; a field in its ``info`` is replaced.
    fields : array-like of shape (n, 3)
        V/Angstrom.
    fragments : array-like of shape (n_atoms,), default=None
        None means `find_fragments`.

    Returns
    -------
    result : FieldResponse
        Energies, charges and dipoles for every field.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor
    >>> from skqeq.validation import field_response
    >>> water = molecule("H2O")
    >>> model = QEqRegressor().fit([water], np.array([[0.0, 0.0, -0.39]]))
    >>> result = field_response(model, water, [[0, 0, 0], [0, 0, 0.1]])
    >>> bool(result.dipoles[1, 2] > result.dipoles[0, 2])
    True
    """
    fragments = find_fragments(atoms) if fragments is None else np.asarray(fragments)
    fields = np.asarray(fields, dtype=np.float64)
    X = []
    for field in fields:
        X.append(atoms.copy())
        X[-1].info["external_field"] = field
    energies, charges = _observe(model, X)
    return FieldResponse(
        fields,
        energies,
        np.array([fragment_charges(q, fragments) for q in charges]),
        np.array([q @ atoms.positions for q in charges]),
    )


def fragment_charge_error(
    model: Model | Reference, X: Sequence[Atoms], charges: Column, min_distance: float = 6.0
) -> float:
    """Root mean square error of the charges of fragments that stand far apart.

    Parameters
    ----------
    model : fitted estimator or callable
        See the module.
    X : sequence of ase.Atoms
        Clusters; those whose fragments are nearer than `min_distance` are left out.
    charges : sequence of array-like of shape (n_atoms,)
        Of the reference, e; None where they are not known.
    min_distance : float, default=6.0
        Shortest distance between atoms of two fragments, Angstrom.

    Returns
    -------
    error : float
        Per fragment, e.

    Raises
    ------
    ValueError
        If no structure has fragments that far apart.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor
    >>> from skqeq.validation import fragment_charge_error
    >>> other = molecule("NH3")
    >>> other.translate([9, 0, 0])
    >>> pair = molecule("H2O") + other
    >>> model = QEqRegressor().fit([pair], [[0.0, 0.0, -0.7]])
    >>> fragment_charge_error(model, [pair], [[-0.8, 0.4, 0.4, -0.9, 0.3, 0.3, 0.3]]) > 0
    True
    """
    known = [(atoms, q) for atoms, q in zip(X, charges, strict=True) if q is not None]
    pairs = [(atoms, q, find_fragments(atoms)) for atoms, q in known]
    pairs = [pair for pair in pairs if min_distance <= fragment_distance(pair[0], pair[2]) < np.inf]
    if not pairs:
        raise ValueError(f"no structure has fragments {min_distance:g} Angstrom apart")
    _, predicted = _observe(model, [atoms for atoms, _, _ in pairs])
    errors = [
        fragment_charges(q - truth, fragments)
        for q, (_, truth, fragments) in zip(predicted, pairs, strict=True)
    ]
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


def polarizability_per_fragment(model: Model, X: Sequence[Atoms]) -> Array:
    """Isotropic polarisability of clusters, divided by the number of their fragments.

    That of a cluster of molecules is nearly proportional to their number; that of a metal grows as
    the cube of the diameter for a ball, and faster for a chain.

    Parameters
    ----------
    model : fitted estimator
        A charge model, a pipeline that ends in one, or a search over either.
    X : sequence of ase.Atoms
        Molecules and clusters.

    Returns
    -------
    polarizability : ndarray of shape (n,)
        ``tr(alpha) / 3`` over the number of fragments, e*Angstrom per V/Angstrom.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor
    >>> from skqeq.validation import polarizability_per_fragment
    >>> water = molecule("H2O")
    >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
    >>> polarizability_per_fragment(model, [water]).round(3)
    array([0.005])
    """
    alpha = np.trace(predict_polarizability(model, X), axis1=1, axis2=2) / 3.0
    return alpha / np.array([find_fragments(atoms).max() + 1 for atoms in X])


def _observe(model, X):
    """Energies (n,) and charges of structures, by a model or a reference."""
    check_structures(X)
    if hasattr(model, "fit"):
        table = predict_targets(model, X, ["energy", "charges"])
        return table["energy"], list(table["charges"])
    energies, charges = model(X)
    return np.asarray(energies, dtype=np.float64), [np.asarray(q, dtype=float) for q in charges]
