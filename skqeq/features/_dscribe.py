"""SOAP objects of DScribe, which are stored because it takes long to make them."""

import warnings
from contextlib import contextmanager
from functools import lru_cache

from ase.data import chemical_symbols
from scipy.linalg import LinAlgWarning


@contextmanager
def short_cutoffs():
    """Ignore that the radial functions of short cutoffs are nearly linearly dependent.

    With 8 functions below 1.4 Angstrom, the relative errors of the features are still below 1e-8.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "An ill-conditioned matrix", LinAlgWarning)
        yield


@lru_cache(maxsize=256)
def dscribe_soap(species, r_cut, n_max, l_max, sigma, compression, weights, periodic):
    """Make a `dscribe.descriptors.SOAP` with GTO basis, or return a stored one.

    Parameters
    ----------
    species : tuple of int
        Atomic numbers, ascending.
    r_cut, n_max, l_max, sigma, compression
        Parameters of `skqeq.SOAPFeaturizer`, for one cutoff.
    weights : tuple of (int, float) or None
        Weight of each element.
    periodic : bool
        Whether atoms have periodic images.

    Returns
    -------
    soap : dscribe.descriptors.SOAP
        The SOAP object; equal arguments give the same object.

    Raises
    ------
    ValueError
        If the cutoff is too short for the number of radial functions.
    """
    # Imported here because it takes 3 s, most of them for numba.
    from dscribe.descriptors import SOAP

    if weights is not None:
        weights = {chemical_symbols[z]: weight for z, weight in weights}
    try:
        with short_cutoffs():
            return SOAP(
                species=[chemical_symbols[z] for z in species],
                r_cut=r_cut,
                n_max=n_max,
                l_max=l_max,
                sigma=sigma,
                rbf="gto",
                compression={"mode": compression, "species_weighting": weights},
                periodic=periodic,
            )
    except ValueError as error:
        if "normalization factors" not in str(error):
            raise
        raise ValueError(
            f"n_max={n_max} radial functions are too many for the cutoff r_cut={r_cut:.3g}, where "
            "they cannot be made orthogonal; use a longer cutoff, or fewer functions"
        ) from error
