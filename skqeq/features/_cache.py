"""A store of descriptor rows, one per process, in what others leave of the memory budget."""

import random
import threading

from .._memory import BUDGET


class RowCache:
    """Keep arrays by key until the memory budget is full, then drop some of them.

    A key is a tuple that ends with the structure; all before it is the descriptor. Rows of the
    descriptor that was used least recently are dropped first: a search over cutoffs has no more
    use for those of an earlier cutoff.

    Among rows of one descriptor a random one is dropped. A fit walks over the same structures
    several times, always from first to last. If they do not all fit, the least recently used row
    is the one that is needed next, so that dropping it would miss every time; dropping a random one
    keeps as large a share as fits.

    Parameters
    ----------
    budget : MemoryBudget
        The store never holds more than ``budget.available`` bytes.
    """

    def __init__(self, budget):
        self._budget = budget
        self._rows = {}
        self._keys = {}  # lists of keys by descriptor; the most recently used descriptor is last
        self._bytes = 0
        self._lock = threading.Lock()
        self._random = random.Random(0)
        budget.on_change(self.shrink)

    def __len__(self):
        return len(self._rows)

    @property
    def nbytes(self):
        """Bytes held."""
        return self._bytes

    def get(self, key):
        """The array stored under `key`, or None."""
        array = self._rows.get(key)
        if array is not None:
            with self._lock:
                self._use(key[:-1])
        return array

    def put(self, key, array):
        """Store an array, and drop others if there is no room for it."""
        with self._lock:
            # Read under the lock: a claim in another thread first lowers it and then shrinks.
            limit = self._budget.available
            if key in self._rows or array.nbytes > limit:
                return
            keys = self._use(key[:-1])
            self._shrink(limit - array.nbytes)
            self._rows[key] = array
            keys.append(key)
            self._bytes += array.nbytes

    def shrink(self):
        """Drop rows until the others fit into the budget."""
        with self._lock:
            self._shrink(self._budget.available)

    def clear(self):
        """Drop all rows."""
        with self._lock:
            self._rows.clear()
            self._keys.clear()
            self._bytes = 0

    def _use(self, descriptor):
        """The keys of a descriptor, which is from now on the most recently used one."""
        keys = self._keys[descriptor] = self._keys.pop(descriptor, [])
        return keys

    def _shrink(self, limit):
        while self._bytes > limit:
            self._drop(next(d for d, keys in self._keys.items() if keys))

    def _drop(self, descriptor):
        keys = self._keys[descriptor]
        i = self._random.randrange(len(keys))
        # Removing the last key of a list takes no time, removing any other one does.
        keys[i], keys[-1] = keys[-1], keys[i]
        self._bytes -= self._rows.pop(keys.pop()).nbytes


ROWS = RowCache(BUDGET)
