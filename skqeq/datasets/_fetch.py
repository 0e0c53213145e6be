"""Download of data sets that are too large to bundle."""

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
    """Load a larger set of water clusters, and download it first if necessary.

    The set has 3198 clusters of 3 to 10 molecules with labels of GFN2-xTB, computed in the same way
    as for `load_water`. The GFN2-xTB clusters of `load_water` are a part of this set.

    Parameters
    ----------
    data_home : path-like, default=None
        Folder of downloaded files; None means the user's cache folder of pooch. If the file already
        exists there, it is used without network access.
    base_url : str, default=None
        URL of the folder that holds ``water_large.xyz.gz``; None means the value of the environment
        variable ``SKQEQ_DATA_URL``.
    return_groups : bool, default=False
        Whether to return groups as well.
    progressbar : bool, default=False
        Whether to show a progress bar during the download.

    Returns
    -------
    X : list of ase.Atoms
        Structures, as in `load_water`.
    y : ndarray of shape (n,)
        Structured array with ``energy``, ``forces``, ``dipole`` and ``charges``.
    groups : ndarray of shape (n,)
        Number of the trajectory, the same as in `load_water`. Only with `return_groups`.

    Raises
    ------
    ImportError
        If pooch is not installed.
    ValueError
        If there is no URL, or if the checksum of the downloaded file is wrong. In the second case
        the file is deleted.
    OSError
        If the file cannot be downloaded.

    See Also
    --------
    load_water : The part that is bundled with the package.

    Notes
    -----
    The file has no public URL yet; ``tools/make_water.py`` in the repository computes it in about
    half an hour. With other versions of the programs that it runs, the resulting file has another
    checksum; read such a file with `ase.io.read`.

    Examples
    --------
    >>> from skqeq.datasets import fetch_water
    >>> X, y = fetch_water(base_url="http://localhost:8000")  # doctest: +SKIP
    """
    with _path("water_large.xyz.gz", data_home, base_url, progressbar).open("rb") as packed:
        return read_labelled(packed, WATER_TARGETS, return_groups)


def cache_folder(data_home: PathType | None) -> Path:
    """Folder of data sets.

    Parameters
    ----------
    data_home : path-like or None
        The folder; None means the user's cache folder of pooch.

    Returns
    -------
    folder : Path
        The folder, which need not exist.

    Raises
    ------
    ImportError
        If pooch is needed, but not installed.
    """
    return Path(_pooch().os_cache("skqeq") if data_home is None else data_home).expanduser()


def _pooch():
    """The module pooch."""
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            'data that are not bundled need pooch, the extra `data`: pip install "skqeq[data]"'
        ) from error
    return pooch


def _path(name, data_home, base_url, progressbar):
    """Path of a file; the file is downloaded if necessary."""
    pooch, home = _pooch(), cache_folder(data_home)
    path = home / name
    if path.exists() and pooch.file_hash(path) == REGISTRY[name]:
        return path
    base_url = base_url or os.environ.get(URL_VARIABLE)
    if not base_url:
        raise ValueError(
            f"no URL for {name}: give `base_url` or set {URL_VARIABLE} to the URL of its folder, "
            f"or put a copy into {home}; tools/make_water.py in the repository computes it"
        )
    url = f"{base_url.rstrip('/')}/{name}"
    try:
        pooch.retrieve(url, REGISTRY[name], fname=name, path=home, progressbar=progressbar)
    except OSError as error:
        raise OSError(f"{url} cannot be downloaded: {error}") from error
    return path
