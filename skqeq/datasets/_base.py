"""Readers of the bundled data sets."""

import gzip
from importlib.resources import files

import numpy as np
from ase.io import read


def load_molecules(*, return_groups=False):
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
    return _load("molecules", return_groups)


def load_ions(*, return_groups=False):
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
    return _load("ions", return_groups)


def _load(name, return_groups):
    """One file as (X, y) or (X, y, groups); no label stays on the structures."""
    # Lazily: targets import the electrostatics, which nothing else here needs.
    from ..targets import make_targets

    with (files(__package__) / "data" / f"{name}.xyz.gz").open("rb") as packed:
        with gzip.open(packed, "rt", encoding="utf-8") as lines:
            X = read(lines, index=":", format="extxyz")
    dipole = np.array([atoms.info.pop("REF_dipole") for atoms in X])
    charges = [atoms.arrays.pop("REF_charges") for atoms in X]
    for atoms in X:
        del atoms.info["REF_energy"]
        atoms.info |= {key: int(atoms.info[key]) for key in ("charge", "group")}
    y = make_targets(dipole=dipole, charges=charges)
    return (X, y, np.array([atoms.info["group"] for atoms in X])) if return_groups else (X, y)
