"""The cache of descriptor rows."""

import numpy as np

from skqeq._memory import MemoryBudget
from skqeq.features._cache import RowCache

ROW = np.zeros(10)


def test_rows_of_the_descriptor_used_last_stay():
    limit = 8 * ROW.nbytes
    store = RowCache(MemoryBudget(limit))
    for cutoff in (3.0, 4.0, 5.0):
        for structure in range(6):
            store.put((cutoff, structure), ROW)
            assert store.nbytes <= limit
    assert all(store.get((5.0, structure)) is not None for structure in range(6))
    assert sum(store.get((4.0, structure)) is not None for structure in range(6)) == 2
    assert all(store.get((3.0, structure)) is None for structure in range(6))
    # Reading a row makes it a recently used one, too.
    store.get((4.0, next(s for s in range(6) if (4.0, s) in store._rows)))
    for structure in range(6, 9):
        store.put((4.0, structure), ROW)
    assert sum(store.get((5.0, structure)) is not None for structure in range(6)) == 3


def test_two_descriptors_share():
    """The cache holds rows of both descriptors of a double SOAP, which are requested in turn."""
    store = RowCache(MemoryBudget(20 * ROW.nbytes))
    for structure in range(100):
        for cutoff in (1.7, 3.5):
            store.put((cutoff, structure), ROW)
    counts = [sum((cutoff, s) in store._rows for s in range(100)) for cutoff in (1.7, 3.5)]
    assert sum(counts) == 20 and min(counts) >= 9
