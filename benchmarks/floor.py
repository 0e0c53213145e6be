"""The floor of a fit or a prediction: the time of the work that cannot be avoided.

The floor has two parts. The first part is the time of DScribe's `create`, called once per structure
and cutoff while nothing else is running. The second part is the time for the flops of kernel,
whitening and reduction at the rate of NumPy's matrix product. The floor is measured in the same run
as the time that is compared with it, because machines differ and may be shared.
"""

import os
import sys
import time
from collections import Counter

import numpy as np
from ase.data import chemical_symbols


def gemm_rate(n=2048, repeats=5):
    """Highest rate of some square matrix products, flops per second."""
    a = np.random.default_rng(0).normal(size=(n, n))
    a @ a
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def sustained_rate(seconds=10.0, n=2048):
    """Mean rate of square matrix products during some seconds, flops per second.

    It is lower than the highest rate, because processors reduce their clock rate while all cores
    are busy.
    """
    a = np.random.default_rng(0).normal(size=(n, n))
    start, done = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        a @ a
        done += 1
    return 2 * n**3 * done / (time.perf_counter() - start)


def keep_memory(gibibytes=4):
    """Restart this program with an allocator that keeps freed memory, and allocate some memory.

    A virtual machine may return free pages to its host. New pages then take 4 s per GiB, ten times
    as long as on other machines. Without this function, the time of the first case would include
    the time for new pages.
    """
    settings = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
    if any(os.environ.get(name) != value for name, value in settings.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | settings)
    np.ones(gibibytes * 2**27)


def soap_seconds(X, r_cut, n_max, l_max, restricted):
    """Time of DScribe alone for all structures and cutoffs, seconds.

    With `restricted`, DScribe gets only the elements of each structure. This is faster, and skqeq
    calls DScribe in this way. Otherwise DScribe gets all elements of the data, as usual.
    """
    from dscribe.descriptors import SOAP

    everything = tuple(sorted({z for atoms in X for z in atoms.numbers}))
    total = 0.0
    for cutoff in r_cut:
        soaps = {}
        for atoms in X:
            key = tuple(sorted(set(atoms.numbers))) if restricted else everything
            if key not in soaps:
                soaps[key] = SOAP(
                    species=[chemical_symbols[z] for z in key],
                    r_cut=cutoff, n_max=n_max, l_max=l_max, sigma=cutoff / 8,
                )  # fmt: skip
                soaps[key].create(atoms)
        start = time.perf_counter()
        for atoms in X:
            key = tuple(sorted(set(atoms.numbers))) if restricted else everything
            soaps[key].create(atoms)
        total += time.perf_counter() - start
    return total


def n_soap_features(n_species, n_cutoffs, n_max, l_max):
    """Number of features of an uncompressed power spectrum."""
    n = n_species * n_max
    return n_cutoffs * (l_max + 1) * n * (n + 1) // 2


def flops(X, points, n_features, n_rows):
    """Flops of each stage; `points` maps each atomic number to the number of its sparse points.

    ``n_rows=0`` means a prediction, which needs neither ``K_MM`` nor a reduction.
    """
    atoms = Counter(int(z) for structure in X for z in structure.numbers)
    total = sum(points.values())
    stages = {
        "kernel K_nM": sum(2 * atoms[z] * m * n_features for z, m in points.items()),
        "whitening": sum(atoms[z] * m**2 for z, m in points.items()),
    }
    if n_rows:
        # K_MM is symmetric, which halves the flops of the product.
        stages["kernel K_MM"] = sum(m**2 * n_features for m in points.values())
        stages["reduction"] = 2 * min(n_rows * total**2, n_rows**2 * total)
    return stages
