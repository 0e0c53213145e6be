"""Data sets that are too large to bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ._base import WATER_TARGETS, read_labelled

if TYPE_CHECKING:
    from .._typing import DataSet, PathType


# SHA-256 of each file.
REGISTRY = {
    "water_large.xyz.gz": "0e61c404c438dc95b0c662f8c849b16d7b5912bf176787951cd10f2c4a51fd56",
}
URL_VARIABLE = "SKQEQ_DATA_URL"


def fetch_water(
    *,
    data_home: PathType | None = None,
    base_url: str | None = None,
    return_groups: bool = False,
    progressbar: bool = False,
) -> DataSet:
    """Load the larger set of water clusters; download it if it is not there yet.

    3198 clusters of 3 to 10 molecules labelled with GFN2-xTB, made like those of `load_water`,
    which are among them.

    Parameters
    ----------
    data_home : path-like, default=None
        Folder of downloaded files; None means pooch's cache folder of the user. A file that is
        there already is used without network.
    base_url : str, default=None
        Address of the folder that holds ``water_large.xyz.gz``; None means that in the environment
        variable ``SKQEQ_DATA_URL``.
    return_groups : bool, default=False
        Whether to return the groups too.
    progressbar : bool, default=False
        Whether to show a progress bar while the file comes.

    Returns
    -------
    X : list of ase.Atoms
        Structures, as from `load_water`.
    y : ndarray of shape (n,)
        Structured array with ``energy``, ``forces``, ``dipole`` and ``charges``.
    groups : ndarray of shape (n,)
        One int per trajectory; those of `load_water` are the same here. Only if `return_groups`.

    Raises
    ------
    ImportError
        Without pooch.
    ValueError
        If it is not known where the file is, or if what came is another one; it is not kept.
    OSError
        If the file cannot be downloaded.

    See Also
    --------
    load_water : The part that comes with the package.

    Notes
    -----
    The file has no public address yet: ``tools/make_water.py`` in the repository makes it in about
    half an hour. What other versions of its programs give has another checksum, and is to be read
    with `ase.io.read`.

    Examples
    --------
    >>> from skqeq.datasets import fetch_water
    >>> X, y = fetch_water(base_url="http://localhost:8000")  # doctest: +SKIP
    """
    with _path("water_large.xyz.gz", data_home, base_url, progressbar).open("rb") as packed:
        return read_labelled(packed, WATER_TARGETS, return_groups)


def _path(name, data_home, base_url, progressbar):
    """Where the file is, which is downloaded if need be."""
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            'downloads need pooch, the extra `data`: pip install "skqeq[data]"'
        ) from error
    home = pooch.os_cache("skqeq") if data_home is None else Path(data_home).expanduser()
    path = home / name
    if path.exists() and pooch.file_hash(path) == REGISTRY[name]:
        return path
    base_url = base_url or os.environ.get(URL_VARIABLE)
    if not base_url:
        raise ValueError(
            f"it is not known where {name} is: give `base_url` or set {URL_VARIABLE} to the "
            f"address of its folder, or put a copy into {home}; tools/make_water.py in the "
            "repository makes it"
        )
    url = f"{base_url.rstrip('/')}/{name}"
    try:
        pooch.retrieve(url, REGISTRY[name], fname=name, path=home, progressbar=progressbar)
    except OSError as error:
        raise OSError(f"{url} cannot be downloaded: {error}") from error
    return path
