"""DScribe's descriptors, each made once."""

from functools import lru_cache

from ase.data import chemical_symbols


@lru_cache(maxsize=256)
def dscribe_soap(species, r_cut, n_max, l_max, sigma, compression, weights, periodic):
    from dscribe.descriptors import SOAP  # 3 s, most of them numba

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
