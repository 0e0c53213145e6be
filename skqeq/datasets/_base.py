"""Readers of the bundled data sets."""

from __future__ import annotations

import gzip
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

import numpy as np

from ._xyz import parse_frame, split_frames

if TYPE_CHECKING:
    from ase import Atoms

    from .._typing import Array, DataSet


# Types to which values in ``info`` are converted.
INFO_TYPES = (("charge", int), ("group", int), ("n_molecules", int), ("expansion", float))
WATER_TARGETS = ("energy", "forces", "dipole", "charges")


def load_molecules(*, return_groups: bool = False) -> DataSet:
    """Load neutral organic molecules with their dipoles and charges.

    The set has 507 molecules of H, C, N, O and F with up to 8 heavy atoms: hydrocarbons, alcohols,
    ethers, amines, amides, nitriles, acids, esters, ketones, aldehydes, aromatics, fluorides, nitro
    compounds and small amino acids. Molecules with up to three heavy atoms occur twice: with
    optimised and with rattled coordinates. The order is random, so any slice is a representative
    sample.

    Parameters
    ----------
    return_groups : bool, default=False
        Whether to return groups as well. With groups, a cross-validation keeps both copies of a
        molecule in one fold.

    Returns
    -------
    X : list of 574 ase.Atoms
        Structures, with the centre of mass at the origin. ``info`` holds ``charge`` (total charge,
        e), ``group``, ``smiles`` and ``level`` (the level of theory).
    y : ndarray of shape (574,)
        Structured array in the form of `make_targets`, with ``dipole``, the dipole vectors
        (e*Angstrom), and ``charges``, the Mulliken charges (e).
    groups : ndarray of shape (574,)
        Number of the molecule. The numbers differ from all those of `load_ions`. Only with
        `return_groups`.

    See Also
    --------
    load_ions : Data for charged species.

    Notes
    -----
    Computed for this package with PySCF (PBE0/def2-TZVP, density fitting) at geometries optimised
    with GFN2-xTB, by ``tools/make_molecules.py`` in the repository. License: BSD-3-Clause.

    Examples
    --------
    >>> from skqeq.datasets import load_molecules
    >>> X, y, groups = load_molecules(return_groups=True)
    >>> len(X), len(set(groups.tolist())), y.dtype.names
    (574, 507, ('dipole', 'charges'))
    >>> y["dipole"].shape, len(y["charges"][0]) == len(X[0])
    ((574, 3), True)
    """
    return _bundled("molecules", ("dipole", "charges"), return_groups)


def load_ions(*, return_groups: bool = False) -> DataSet:
    """Load small molecular ions with their dipoles and charges.

    The set has 86 closed-shell species of H, C, N, O and F with total charges from -2 to 2:
    ammonium and oxonium ions, carbocations, alkoxides, carboxylates, other anions, dications and
    dianions. Ions with up to three heavy atoms occur twice: with optimised and with rattled
    coordinates. The order is random, so any slice is a representative sample.

    Parameters
    ----------
    return_groups : bool, default=False
        Whether to return groups as well. With groups, a cross-validation keeps both copies of an
        ion in one fold.

    Returns
    -------
    X : list of 119 ase.Atoms
        Structures, with the centre of mass at the origin. ``info`` holds ``charge`` (total charge,
        e), ``group``, ``smiles`` and ``level`` (the level of theory).
    y : ndarray of shape (119,)
        Structured array in the form of `make_targets`, with ``dipole``, the dipole vectors about
        the centre of mass (e*Angstrom), and ``charges``, the Mulliken charges (e).
    groups : ndarray of shape (119,)
        Number of the ion. The numbers differ from all those of `load_molecules`. Only with
        `return_groups`.

    See Also
    --------
    load_molecules : Data for neutral molecules.

    Notes
    -----
    Computed as described in `load_molecules`. The basis has no diffuse functions and therefore
    confines the outermost electrons of the anions. Dianions are bound in this basis, although they
    would not be stable in vacuum.

    Examples
    --------
    >>> from skqeq.datasets import load_ions
    >>> X, y = load_ions()
    >>> len(X), sorted({atoms.info["charge"] for atoms in X})
    (119, [-2, -1, 1, 2])
    >>> all(abs(q.sum() - atoms.info["charge"]) < 1e-5 for atoms, q in zip(X, y["charges"]))
    True
    """
    return _bundled("ions", ("dipole", "charges"), return_groups)


def load_water(level: Literal["gfn2", "pbe0"] = "gfn2", *, return_groups: bool = False) -> DataSet:
    """Load neutral and charged water clusters, some in electric fields, with energies and forces.

    The structures are snapshots of molecular dynamics at 300 to 350 K: neutral clusters, clusters
    with H3O+ and clusters with OH-. A quarter of the structures is expanded: rigid molecules were
    moved apart by a factor of up to 5. A quarter of all structures, compact or expanded, is in a
    uniform electric field. The order is random, so any slice is a representative sample.

    Parameters
    ----------
    level : {"gfn2", "pbe0"}, default="gfn2"
        Level of theory of the labels. ``"gfn2"``: GFN2-xTB, 3 to 10 molecules, 2401 structures.
        ``"pbe0"``: PBE0/def2-SVPD, 2 to 4 molecules, 282 structures, none of them in ``"gfn2"``.
    return_groups : bool, default=False
        Whether to return groups as well. With groups, a cross-validation keeps the structures of a
        trajectory in one fold.

    Returns
    -------
    X : list of n ase.Atoms
        Structures, with the centre of mass at the origin. ``info`` holds ``charge`` (total charge,
        e), ``external_field`` (V/Angstrom, only if there is a field), ``n_molecules``,
        ``expansion`` (the factor, 1 for compact clusters), ``group`` and ``level`` (the level of
        theory).
    y : ndarray of shape (n,)
        Structured array in the form of `make_targets`, with ``energy`` (eV, including the
        interaction with the field), ``forces`` (eV/Angstrom), ``dipole``, the dipole vectors about
        the centre of mass (e*Angstrom), and ``charges`` (e): Mulliken charges for GFN2-xTB,
        Hirshfeld charges for PBE0.
    groups : ndarray of shape (n,)
        Number of the trajectory. The sets of the two levels of theory have different numbers. Only
        with `return_groups`.

    See Also
    --------
    fetch_water : Download more clusters labelled with GFN2-xTB.

    Notes
    -----
    Computed for this package by ``tools/make_water.py`` in the repository, following Vondrak,
    Reuter and Margraf, "Pushing charge equilibration-based machine learning potentials to their
    limits", npj Comput. Mater. (2025). License: BSD-3-Clause.

    The energy of an ion in a field depends on the origin of the potential ``-r . F``; here the
    origin is the centre of mass. The forces on an ion sum to its charge times the field. Energies
    are total energies, which are much larger than the energy differences between structures of the
    same composition.

    Examples
    --------
    >>> from skqeq.datasets import load_water
    >>> X, y, groups = load_water("pbe0", return_groups=True)
    >>> y.dtype.names
    ('energy', 'forces', 'dipole', 'charges')
    >>> sorted({atoms.info["charge"] for atoms in X})
    [-1, 0, 1]
    >>> in_field = ["external_field" in atoms.info for atoms in X]
    >>> 0.15 < sum(in_field) / len(X) < 0.35
    True
    """
    if level not in ("gfn2", "pbe0"):
        raise ValueError(f"level must be 'gfn2' or 'pbe0', got {level!r}")
    return _bundled(f"water_{level}", WATER_TARGETS, return_groups)


def load_water_curves() -> tuple[list[Atoms], Array]:
    """Load dissociation curves and field scans of clusters of six water molecules.

    There is one cluster of each kind: neutral, with H3O+ and with OH-. On the dissociation curves,
    rigid molecules are moved apart by factors of 0.9 to 5. In the field scans, the compact cluster
    is in fields of -0.2 to 0.2 V/Angstrom along x, y and z. The curves serve for tests with
    `skqeq.validation`; none of the structures is in `load_water`.

    Returns
    -------
    X : list of 182 ase.Atoms
        Structures in the order of the curves. In addition to the keys of `load_water`, ``info``
        holds ``curve`` ("expansion" or "field").
    y : ndarray of shape (182,)
        Structured array with ``energy``, ``forces``, ``dipole`` and ``charges`` of GFN2-xTB, in the
        units of `load_water`.

    Notes
    -----
    Computed by ``tools/make_water_curves.py`` in the repository. Four expanded clusters with OH-
    are missing, because GFN2-xTB did not converge.

    Examples
    --------
    >>> from skqeq.datasets import load_water_curves
    >>> X, y = load_water_curves()
    >>> sum(atoms.info["curve"] == "expansion" for atoms in X)
    101
    """
    return _bundled("water_curves", WATER_TARGETS, False)


def _bundled(name, targets, return_groups):
    """Read one of the bundled files."""
    with (files(__package__) / "data" / f"{name}.xyz.gz").open("rb") as packed:
        return read_labelled(packed, targets, return_groups)


def read_labelled(packed, targets, return_groups):
    """Read compressed extended XYZ as (X, y) or (X, y, groups), with all labels in y."""
    # Imported here, because `targets` imports the electrostatics, which reading files does not
    # need.
    from ..targets import make_targets

    with gzip.open(packed) as file:
        X = [parse_frame(frame) for _, frame in split_frames(file, "the data set")]
    columns = {name: [] for name in WATER_TARGETS}
    for atoms in X:
        for name, column in columns.items():
            labels = atoms.arrays if name in ("forces", "charges") else atoms.info
            column.append(labels.pop(f"REF_{name}", None))
        # Python numbers instead of NumPy scalars, which print differently.
        atoms.info |= {key: kind(atoms.info[key]) for key, kind in INFO_TYPES if key in atoms.info}
    y = make_targets(**{name: columns[name] for name in targets})
    return (X, y, np.array([atoms.info["group"] for atoms in X])) if return_groups else (X, y)
