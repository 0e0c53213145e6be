"""SOAP objects of DScribe, which are stored because it takes long to make them."""

from functools import lru_cache

from ase.data import chemical_symbols


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
    """
    # Imported here because it takes 3 s, most of them for numba.
    from dscribe.descriptors import SOAP

    if weights is not None:
        weights = {chemical_symbols[z]: weight for z, weight in weights}
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
