"""Readers of the bundled data sets."""

from __future__ import annotations

import gzip
from importlib.resources import files
from io import StringIO
from typing import TYPE_CHECKING, Literal

import numpy as np
from ase.io import read

if TYPE_CHECKING:
    from ase import Atoms

    from .._typing import Array, DataSet


KINDS = (("charge", int), ("group", int), ("n_molecules", int), ("expansion", float))
WATER_TARGETS = ("energy", "forces", "dipole", "charges")


def load_molecules(*, return_groups: bool = False) -> DataSet:
    """Load neutral organic molecules with their dipoles and charges.

    507 molecules of H, C, N, O and F with up to 8 heavy atoms: hydrocarbons, alcohols, ethers,
    amines, amides, nitriles, acids, esters, ketones, aldehydes, aromatics, fluorides, nitro
    compounds, small amino acids. Molecules with up to three heavy atoms occur twice, as optimised
    and with rattled coordinates. The order is random, so any slice is a fair sample.

    Parameters
    ----------
    return_groups : bool, default=False
        Whether to return the groups too, which keep the two copies of a molecule together in
        cross-validation.

    Returns
    -------
    X : list of 574 ase.Atoms
        Structures, the centre of mass at the origin. ``info`` holds ``charge`` (total charge, e),
        ``group``, ``smiles`` and ``level`` (the level of theory).
    y : ndarray of shape (574,)
        Structured array as from `make_targets`, with ``dipole``, the dipole vectors
        (e*Angstrom), and ``charges``, the Mulliken charges (e).
    groups : ndarray of shape (574,)
        One int per molecule, no two alike in this set and `load_ions`. Only if `return_groups`.

    See Also
    --------
    load_ions : The same for charged species.

    Notes
    -----
    Computed for this package with PySCF (PBE0/def2-TZVP, density fitting) at geometries optimised
    with GFN2-xTB; ``tools/make_molecules.py`` in the repository repeats it. BSD-3-Clause.

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

    86 closed-shell species of H, C, N, O and F with total charges from -2 to 2: ammonium and
    oxonium ions, carbocations, alkoxides, carboxylates, other anions, dications and dianions.
    Ions with up to three heavy atoms occur twice, as optimised and with rattled coordinates. The
    order is random, so any slice is a fair sample.

    Parameters
    ----------
    return_groups : bool, default=False
        Whether to return the groups too, which keep the two copies of an ion together in
        cross-validation.

    Returns
    -------
    X : list of 119 ase.Atoms
        Structures, the centre of mass at the origin. ``info`` holds ``charge`` (total charge, e),
        ``group``, ``smiles`` and ``level`` (the level of theory).
    y : ndarray of shape (119,)
        Structured array as from `make_targets`, with ``dipole``, the dipole vectors about the
        centre of mass (e*Angstrom), and ``charges``, the Mulliken charges (e).
    groups : ndarray of shape (119,)
        One int per ion, no two alike in this set and `load_molecules`. Only if `return_groups`.

    See Also
    --------
    load_molecules : The same for neutral molecules.

    Notes
    -----
    Made as described in `load_molecules`. The basis has no diffuse functions: it holds the
    outermost electrons of the anions in place, in particular those of the dianions, which would
    not be stable in vacuum.

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
    """Load clusters of water, part of them charged or in a field, with energies and forces.

    Snapshots of molecular dynamics at 300 to 350 K: neutral clusters, clusters with H3O+ and
    clusters with OH-. A quarter of the structures is expanded: their molecules, as they are, stand
    further apart by a factor of up to 5. A quarter, compact or expanded, is in a uniform electric
    field. The order is random, so any slice is a fair sample.

    Parameters
    ----------
    level : {"gfn2", "pbe0"}, default="gfn2"
        Level of theory of the labels. ``"gfn2"``: GFN2-xTB, 3 to 10 molecules, 2401 structures.
        ``"pbe0"``: PBE0/def2-SVPD, 2 to 4 molecules, 282 structures, other ones.
    return_groups : bool, default=False
        Whether to return the groups too, which keep the structures of a trajectory together in
        cross-validation.

    Returns
    -------
    X : list of n ase.Atoms
        Structures, the centre of mass at the origin. ``info`` holds ``charge`` (total charge, e),
        ``external_field`` (V/Angstrom, only if there is one), ``n_molecules``, ``expansion`` (the
        factor, 1 for compact ones), ``group`` and ``level`` (the level of theory).
    y : ndarray of shape (n,)
        Structured array as from `make_targets`, with ``energy`` (eV, in the field), ``forces``
        (eV/Angstrom), ``dipole``, the dipole vectors about the centre of mass (e*Angstrom), and
        ``charges`` (e): Mulliken charges of GFN2-xTB, Hirshfeld charges of PBE0.
    groups : ndarray of shape (n,)
        One int per trajectory, no two alike in the sets of both levels. Only if `return_groups`.

    See Also
    --------
    fetch_water : More clusters labelled with GFN2-xTB, to be downloaded.

    Notes
    -----
    Made for this package in the manner of Vondrak, Reuter and Margraf, "Pushing charge
    equilibration-based machine learning potentials to their limits", npj Comput. Mater. (2025);
    ``tools/make_water.py`` in the repository repeats it. BSD-3-Clause.

    The energy of an ion in a field depends on the origin: it contains the energy of all charge in
    the potential ``-r . F``, which is zero at the centre of mass. The forces on it sum to the
    charge times the field. Energies are total ones: differences between structures of the same
    composition are small beside them.

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
    """Load clusters of six molecules of water that are taken apart, and in fields.

    One cluster of each charge state. Its molecules are moved apart, as they are, by factors of 0.9
    to 5, and in its own geometry it stands in fields of -0.2 to 0.2 V/Angstrom along x, y and z.
    They are for `skqeq.validation`, and none of them is in `load_water`.

    Returns
    -------
    X : list of 182 ase.Atoms
        Structures in the order of the curves. ``info`` holds ``charge``, ``curve`` ("expansion" or
        "field"), ``expansion`` and ``external_field``, and what `load_water` has.
    y : ndarray of shape (182,)
        Structured array with ``energy``, ``forces``, ``dipole`` and ``charges`` of GFN2-xTB, in the
        units of `load_water`.

    Notes
    -----
    Made by ``tools/make_water_curves.py`` in the repository. Four expanded clusters with OH- are
    missing, for which GFN2-xTB did not converge.

    Examples
    --------
    >>> from skqeq.datasets import load_water_curves
    >>> X, y = load_water_curves()
    >>> sum(atoms.info["curve"] == "expansion" for atoms in X)
    101
    """
    return _bundled("water_curves", WATER_TARGETS, False)


def _bundled(name, targets, return_groups):
    """One of the bundled files."""
    with (files(__package__) / "data" / f"{name}.xyz.gz").open("rb") as packed:
        return read_labelled(packed, targets, return_groups)


def read_labelled(packed, targets, return_groups):
    """Compressed extended XYZ as (X, y) or (X, y, groups); no label stays on the structures."""
    # Lazily: targets import the electrostatics, which nothing else here needs.
    from ..targets import make_targets

    # As a whole, because ASE's reader seeks, for which a compressed file starts from the beginning.
    lines = StringIO(gzip.decompress(packed.read()).decode())
    X = read(lines, index=":", format="extxyz")
    columns = {name: [] for name in WATER_TARGETS}
    for atoms in X:
        for name, column in columns.items():
            kept = atoms.arrays if name in ("forces", "charges") else atoms.info
            column.append(kept.pop(f"REF_{name}", None))
        # Plain numbers, which print and compare like those that users set.
        atoms.info |= {key: kind(atoms.info[key]) for key, kind in KINDS if key in atoms.info}
    y = make_targets(**{name: columns[name] for name in targets})
    return (X, y, np.array([atoms.info["group"] for atoms in X])) if return_groups else (X, y)
