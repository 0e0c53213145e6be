"""The data set QM9, from the files of the package qm9pack.

The files are converted once: structures to extended XYZ, which is read by index, and labels to
arrays of NumPy. The package has three files of molecules, and each is converted on its own, so that
an interrupted conversion continues with the next file.
"""

from __future__ import annotations

import csv
import hashlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.units import Bohr, Hartree
from sklearn.utils import Bunch, check_random_state
from tqdm import tqdm

from ..parameters import DEBYE
from ..persistence import replacing
from ._fetch import cache_folder
from ._graphs import graph_number
from ._open import StructureFile, XYZFile

if TYPE_CHECKING:
    from .._typing import PathType

# SHA-256 of the files of qm9pack 1.0.3.
CHECKSUMS = {
    "qm9_part1.csv": "19f0a5d595462d52cd82eef3370f3e9eb55a1f52cb14985657200349568deff3",
    "qm9_part2.csv": "2bca113fdc0b28a13563c80ed9b240e934f3da6c64c64fe74ddb4f0f36036e61",
    "qm9_part3.csv": "9c5efb5733d2af149db8d95d36ff198b4ffed12d9f7b344220a1e5877d5c6a43",
    "qm9_polarizability.csv": "1729ebca7da76850ca1091c050933901c84b90edb30d06f34df1ebd47789d23a",
}
*PARTS, TENSORS = CHECKSUMS
AXES = ("A_xx", "A_xy", "A_yy", "A_xz", "A_yz", "A_zz")
INSTALL = "pip install --no-deps qm9pack==1.0.3"
LEVEL = "B3LYP/6-31G(2df,p)"
# Is increased when the contents of converted files change.
FORMAT = 1
# Columns with one row per molecule.
COLUMNS = (
    *("dipole_magnitude", "energy", "groups", "qm9_index", "smiles"),
    *("polarizability_eigenvalues", "polarizability_in_standard_orientation"),
)


def fetch_qm9(
    *,
    n_molecules: int | None = None,
    random_state: int | np.random.RandomState | None = 0,
    data_home: PathType | None = None,
    verbose: int = 0,
) -> Bunch:
    """Load QM9: 130,831 organic molecules with dipole magnitudes, charges and energies.

    The molecules have up to nine heavy atoms C, N, O and F [1]_ [2]_. They come from the package
    qm9pack, by an author of QM9: ``pip install --no-deps qm9pack==1.0.3`` downloads 104 MB. The
    first call converts the files of the package to files of 200 MB, which takes a minute or two.
    If the conversion is interrupted, the next call continues it.

    Parameters
    ----------
    n_molecules : int, default=None
        Number of molecules, drawn at random without replacement; None means all molecules, in the
        order of QM9.
    random_state : int, RandomState instance or None, default=0
        Seed of the random selection. With the same seed, a smaller selection is the beginning of a
        larger one.
    data_home : path-like, default=None
        Folder of converted files; None means the user's cache folder of pooch. Once the files are
        there, the package qm9pack is not needed any more.
    verbose : int, default=0
        If positive, the conversion shows a progress bar.

    Returns
    -------
    data : sklearn.utils.Bunch
        With the attributes:

        - ``X``, StructureFile of n ase.Atoms: the structures, which are read from files when they
          are indexed. ``info`` holds ``charge`` (0), ``qm9_index``, ``smiles``, ``group`` and
          ``level`` (the level of theory), and the labels ``REF_energy`` and
          ``REF_dipole_magnitude``; the arrays hold the labels ``REF_charges``.
        - ``y``, structured array of shape (n,) in the form of `make_targets`: ``dipole_magnitude``
          (e*Angstrom), ``charges``, the Mulliken charges (e), and ``energy``, the total energy
          without zero-point vibrations (eV).
        - ``groups``, ndarray of shape (n,): number of the heavy-atom graph, that is of the elements
          and bonds of the heavy atoms without bond orders and hydrogen atoms. With groups, a
          cross-validation keeps the molecules of one graph in one fold.
        - ``qm9_index``, ndarray of shape (n,): number of the molecule in QM9, 1 to 133885.
        - ``smiles``, ndarray of str of shape (n,): SMILES of QM9.
        - ``polarizability_eigenvalues``, ndarray of shape (n, 3): eigenvalues of the static
          polarisability in ascending order, Angstrom^3. Their mean is the isotropic polarisability.
        - ``polarizability_in_standard_orientation``, ndarray of shape (n, 3, 3): static
          polarisability, Angstrom^3, in other axes than those of ``X``, see Notes.

    Raises
    ------
    ImportError
        If the files are not converted yet and qm9pack is not installed, or if pooch is not
        installed and `data_home` is None.
    ValueError
        If the files are not those of qm9pack 1.0.3, if a converted file was changed, or if
        `n_molecules` is not between 1 and 130831.

    See Also
    --------
    load_molecules : A small set with dipole vectors, which is part of the package.

    Notes
    -----
    B3LYP/6-31G(2df,p). Of the 133,885 molecules of QM9, qm9pack leaves out 3,054 whose geometry
    does not agree with their SMILES. The energy is the internal energy at 0 K minus the zero-point
    energy. QM9 contains the magnitudes of dipoles but no vectors.

    The tensors of the polarisability are those of the program Gaussian, in its *standard
    orientation*, and qm9pack does not contain the coordinates in this orientation. For most
    molecules x, y and z are the principal axes of the nuclear charges, in the order of decreasing
    second moments ``sum_i Z_i x_i^2``; other rules hold for symmetric molecules, and the signs of
    the axes are unknown. Do not use the tensors together with the coordinates of ``X``. The
    eigenvalues are the same in all axes.

    The license of qm9pack is the MIT license.

    References
    ----------
    .. [1] R. Ramakrishnan, P. O. Dral, M. Rupp and O. A. von Lilienfeld, "Quantum chemistry
       structures and properties of 134 kilo molecules", Sci. Data 1, 140022 (2014).
       https://doi.org/10.1038/sdata.2014.22
    .. [2] L. Ruddigkeit, R. van Deursen, L. C. Blum and J.-L. Reymond, "Enumeration of 166 billion
       organic small molecules in the chemical universe database GDB-17", J. Chem. Inf. Model. 52,
       2864 (2012). https://doi.org/10.1021/ci300415d

    Examples
    --------
    >>> from skqeq.datasets import fetch_qm9
    >>> qm9 = fetch_qm9(n_molecules=1000, verbose=1)  # doctest: +SKIP
    >>> model.fit(qm9.X, qm9.y[["charges"]])  # doctest: +SKIP
    """
    folder = cache_folder(data_home) / "qm9"
    paths = [folder / f"{Path(name).stem}.xyz" for name in PARTS]
    parts = [_load(path) for path in paths]
    if None in parts:
        _convert(paths, [part is None for part in parts], verbose)
        parts = [_load(path) for path in paths]
    files = [XYZFile(path, part["frames"]) for path, part in zip(paths, parts)]
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return _bunch(StructureFile(files), columns, n_molecules, random_state)


def _bunch(X, columns, n_molecules, random_state):
    """Select molecules at random, and arrange their columns."""
    # Imported here, because `targets` imports the electrostatics, which reading files does not
    # need.
    from ..targets import make_targets

    if n_molecules is None:
        chosen = np.arange(len(X))
    elif 1 <= n_molecules <= len(X):
        chosen = check_random_state(random_state).permutation(len(X))[:n_molecules]
    else:
        raise ValueError(f"n_molecules must be between 1 and {len(X)}, got {n_molecules}")
    ends = np.cumsum(columns["n_atoms"])
    starts = ends - columns["n_atoms"]
    charges = [columns["charges"][starts[i] : ends[i]] for i in chosen]
    data = {key: columns[key][chosen] for key in COLUMNS}
    y = make_targets(
        dipole_magnitude=data.pop("dipole_magnitude"), charges=charges, energy=data.pop("energy")
    )
    return Bunch(X=X[chosen], y=y, **data)


def _load(path):
    """Arrays of a converted file by name; None if it is not converted yet."""
    arrays = path.with_suffix(".npz")
    if not arrays.exists():
        return None
    with np.load(arrays) as archive:
        part = dict(archive)
    if part.pop("format") != FORMAT:
        return None
    size = path.stat().st_size if path.exists() else 0
    if size != part["frames"][-1].sum():
        raise ValueError(f"{path} was changed: delete the folder {path.parent}, and try again")
    return part


def _convert(paths, missing, verbose):
    """Convert the files of qm9pack that are missing in the cache folder."""
    source = _package_folder()
    for name, checksum in CHECKSUMS.items():
        _check_file(source / name, checksum)
    tensors = _read_tensors(source)
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(tensors), desc="QM9", disable=not verbose, leave=False) as bar:
        for path, is_missing in zip(paths, missing):
            if is_missing:
                _convert_part(source / f"{path.stem}.csv", path, tensors, bar)


def _package_folder():
    """Folder of the data of qm9pack, which is not imported: it needs packages that are outdated."""
    package = find_spec("qm9pack")
    if package is None:
        raise ImportError(f"the molecules are in the package qm9pack: {INSTALL}")
    return Path(package.submodule_search_locations[0]) / "data"


def _check_file(path, checksum):
    """Refuse files of other versions, whose columns and units may differ."""
    if path.is_file():
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found == checksum:
            return
    raise ValueError(f"{path} is not the file of qm9pack 1.0.3: {INSTALL}")


def _read_tensors(source):
    """Components of the polarisability, Bohr^3, by the name of the molecule."""
    with open(source / TENSORS, newline="", encoding="utf-8") as file:
        return {
            row["XYZ_file"]: [_number(row[key]) for key in AXES] for row in csv.DictReader(file)
        }


def _convert_part(source, path, tensors, bar):
    """Write the structures and the arrays of one file."""
    # The arrays are written last: they exist only if the structures are complete.
    with (
        replacing(path) as temporary,
        open(temporary, "wb") as file,
        open(source, newline="", encoding="utf-8") as table,
    ):
        rows = []
        place = 0
        for row in csv.DictReader(table):
            columns = _columns(row, tensors)
            frame = _frame(columns)
            file.write(frame)
            columns["frames"] = (place, len(frame))
            place += len(frame)
            rows.append(columns)
            bar.update()
    charges = np.concatenate([row.pop("charges") for row in rows])
    arrays = {key: np.array([row[key] for row in rows]) for key in (*COLUMNS, "frames", "n_atoms")}
    with replacing(path.with_suffix(".npz")) as temporary:
        np.savez(temporary, format=FORMAT, charges=charges, **arrays)


def _columns(row, tensors):
    """Values of one molecule by name, in the units of skqeq."""
    xx, xy, yy, xz, yz, zz = tensors[row["XYZ_file"]]
    tensor = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]) * Bohr**3
    symbols = re.findall("[A-Z][a-z]?", row["Elements"])
    charges = _numbers(row["Mulliken_pop"])
    energy = _number(row["InternalEnergy_0K_au"]) - _number(row["ZPVE_au"])
    return {
        "qm9_index": int(row["Index"]),
        "smiles": row["SMILES"],
        "groups": graph_number(row["SMILES"]),
        "dipole_magnitude": _number(row["Dipole_debye"]) / DEBYE,
        "charges": charges,
        "energy": energy * Hartree,
        "polarizability_eigenvalues": np.linalg.eigvalsh(tensor),
        "polarizability_in_standard_orientation": tensor,
        "n_atoms": len(symbols),
        "symbols": symbols,
        "positions": _numbers(row["XYZ_Ang"]).reshape(len(symbols), 3),
    }


def _numbers(text):
    """Array of the numbers in nested lists."""
    return np.array([_number(word) for word in re.sub(r"[][]", "", text).split(",")])


def _number(word):
    """A number as Mathematica writes it: 0., -.5 or 1.2*^-6."""
    return float(word.replace("*^", "e"))


def _frame(columns):
    """Text of a structure with labels in extended XYZ."""
    rows = [
        f"{symbol} {x:.10f} {y:.10f} {z:.10f} {charge:.6f}"
        for symbol, (x, y, z), charge in zip(
            columns["symbols"], columns["positions"].tolist(), columns["charges"].tolist()
        )
    ]
    comment = (
        "Properties=species:S:1:pos:R:3:REF_charges:R:1 charge=0 "
        f'qm9_index={columns["qm9_index"]} smiles="{columns["smiles"]}" '
        f'group={columns["groups"]} level="{LEVEL}" REF_energy={columns["energy"]:.8f} '
        f'REF_dipole_magnitude={columns["dipole_magnitude"]:.8f} pbc="F F F"'
    )
    return "\n".join([str(len(rows)), comment, *rows, ""]).encode()
