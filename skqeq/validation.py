"""Physical tests of charge models: dissociation, electric fields, and polarisability.

Most functions take a fitted model or a reference calculation. A reference calculation is a function
``reference(structures)`` that returns energies and charges: an array of shape (n,) in eV, and a
list of n arrays in e.
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
        Factors by which the fragments were moved away from the centre of mass.
    distances : ndarray of shape (n,)
        Shortest distance between atoms of two fragments, Angstrom.
    energies : ndarray of shape (n,)
        Energies, eV.
    charges : ndarray of shape (n, n_fragments)
        Charges of the fragments, e.

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
        Electric fields, V/Angstrom.
    energies : ndarray of shape (n,)
        Energies, eV.
    charges : ndarray of shape (n, n_fragments)
        Charges of the fragments, e.
    dipoles : ndarray of shape (n, 3)
        ``sum_i q_i r_i`` about the coordinate origin, e*Angstrom. For a reference calculation, this
        is the dipole of the atomic charges, which differs from the true dipole.

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
    """Find fragments: groups of atoms that are connected by bonds.

    Parameters
    ----------
    atoms : ase.Atoms
        Structure.
    stretch : float, default=1.3
        Atoms are bonded if they are closer than `stretch` times the sum of their covalent radii.

    Returns
    -------
    fragments : ndarray of shape (n_atoms,)
        Number of the fragment of every atom, from 0.

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
    """Total charge of each fragment.

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
    """Shortest distance between atoms of different fragments.

    Parameters
    ----------
    atoms : ase.Atoms
        Molecule or cluster.
    fragments : ndarray of shape (n_atoms,)
        From `find_fragments`.

    Returns
    -------
    distance : float
        Distance, Angstrom; infinite if there is only one fragment.

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
    """Move rigid fragments away from the centre of mass.

    Parameters
    ----------
    atoms : ase.Atoms
        Molecule or cluster.
    factor : float
        The distance of every fragment from the centre of mass is multiplied by this factor.
    fragments : array-like of shape (n_atoms,), default=None
        Number of the fragment of every atom; None means `find_fragments`.

    Returns
    -------
    atoms : ase.Atoms
        Copy with the same ``info``.

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
    """Energies and charges of fragments along a dissociation path.

    Separated fragments should have integer charges. With charge equilibration they do not, because
    moving charge between distant atoms costs no energy.

    Parameters
    ----------
    model : fitted estimator or callable
        A charge model, or a reference as described at the top of `skqeq.validation`.
    atoms : ase.Atoms
        Compact cluster, with its total charge in ``info``.
    factors : array-like of shape (n,)
        Factors of `expanded`.
    fragments : array-like of shape (n_atoms,), default=None
        Number of the fragment of every atom; None means `find_fragments`.

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
    """Energies and charges of fragments in uniform electric fields.

    The energy of an ion in a field depends on the coordinate origin.

    Parameters
    ----------
    model : fitted estimator or callable
        A charge model, or a reference as described at the top of `skqeq.validation`.
    atoms : ase.Atoms
        Molecule or cluster; a field in its ``info`` is replaced.
    fields : array-like of shape (n, 3)
        Electric fields, V/Angstrom.
    fragments : array-like of shape (n_atoms,), default=None
        Number of the fragment of every atom; None means `find_fragments`.

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
    """Root mean square error of the total charges of fragments that are far apart.

    Parameters
    ----------
    model : fitted estimator or callable
        A charge model, or a reference as described at the top of `skqeq.validation`.
    X : sequence of ase.Atoms
        Clusters. A cluster with two fragments closer than `min_distance` is left out.
    charges : sequence of array-like of shape (n_atoms,)
        Reference charges of the atoms, e; None for a structure without reference charges.
    min_distance : float, default=6.0
        Shortest distance between atoms of different fragments, Angstrom.

    Returns
    -------
    error : float
        Root mean square over all fragments, e.

    Raises
    ------
    ValueError
        If there is no structure whose fragments are far enough apart.

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
    separated = []
    for atoms, truth in zip(X, charges, strict=True):
        if truth is None:
            continue
        fragments = find_fragments(atoms)
        # A structure with one fragment (infinite distance) is skipped: its fragment has the total
        # charge by construction.
        if min_distance <= fragment_distance(atoms, fragments) < np.inf:
            separated.append((atoms, truth, fragments))
    if not separated:
        raise ValueError(f"no structure has fragments {min_distance:g} Angstrom apart")
    _, predicted = _observe(model, [atoms for atoms, _, _ in separated])
    errors = [
        fragment_charges(q - truth, fragments)
        for q, (_, truth, fragments) in zip(predicted, separated, strict=True)
    ]
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


def polarizability_per_fragment(model: Model, X: Sequence[Atoms]) -> Array:
    """Isotropic polarisability of clusters, divided by the number of fragments.

    The polarisability of a molecular cluster is nearly proportional to the number of molecules. The
    polarisability of a metallic sphere is proportional to its volume, and that of a metallic chain
    grows faster than its length.

    Parameters
    ----------
    model : fitted estimator
        A charge model, a pipeline that ends in one, or a search over either.
    X : sequence of ase.Atoms
        Molecules and clusters.

    Returns
    -------
    polarizability : ndarray of shape (n,)
        ``tr(alpha) / 3`` divided by the number of fragments, e*Angstrom per V/Angstrom.

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
    """Compute energies, shape (n,), and a list of charges with a model or a reference."""
    check_structures(X)
    if hasattr(model, "fit"):
        table = predict_targets(model, X, ["energy", "charges"])
        return table["energy"], list(table["charges"])
    energies, charges = model(X)
    return np.asarray(energies, dtype=np.float64), [np.asarray(q, dtype=float) for q in charges]
