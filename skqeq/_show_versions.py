"""Versions and hardware, for bug reports."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from threadpoolctl import threadpool_info

from . import _pythran

_PACKAGES = (
    *("skqeq", "numpy", "scipy", "scikit-learn", "ase", "dscribe", "joblib", "vesin", "tqdm"),
    *("matplotlib", "pandas", "chemiscope", "dask", "skops", "pooch", "finufft"),
)


def show_versions() -> None:
    """Print the versions of Python, skqeq and its dependencies, and the kernels in use.

    The versions are read from the metadata of the installed packages; no package is imported.

    Examples
    --------
    >>> from skqeq import show_versions
    >>> show_versions()  # doctest: +SKIP
    """
    print(f"python: {sys.version}")
    print(f"executable: {sys.executable}")
    print(f"machine: {platform.platform()}\n")
    for name in _PACKAGES:
        print(f"{name}: {_version(name)}")
    print(f"\nkernels: {_pythran.backend}")
    for library in threadpool_info():
        print(f"threads: {library['num_threads']} in {library['prefix']} {library['version']}")


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
