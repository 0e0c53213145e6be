"""The store of descriptor rows, which fills the unclaimed part of the memory budget."""

import random
import threading

from .._memory import BUDGET


class RowCache:
    """Keep arrays by key until the memory budget is full, then drop some of them.

    In a key, the last item identifies the structure, and the items before it the descriptor. The
    least recently used descriptor is the first to lose rows, because a search over cutoffs does not
    return to earlier cutoffs.

    Which row of a descriptor is dropped is random. A fit goes through the same structures several
    times, always in the same order. If the rows do not all fit, the least recently used row is
    exactly the row that is needed next, and a store that drops it would never contain the row that
    is needed. A random choice keeps the fraction of rows that fits.

    Parameters
    ----------
    budget : MemoryBudget
        The store holds at most ``budget.available`` bytes.
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
        """Bytes of all rows."""
        return self._bytes

    def get(self, key):
        """The array stored under `key`, or None."""
        array = self._rows.get(key)
        if array is not None:
            with self._lock:
                self._use(key[:-1])
        return array

    def put(self, key, array):
        """Store an array, and drop others to make room for it."""
        with self._lock:
            # Read inside the lock: another thread that claims memory lowers this number first, and
            # calls `shrink` afterwards, which waits for the lock.
            limit = self._budget.available
            if key in self._rows or array.nbytes > limit:
                return
            keys = self._use(key[:-1])
            self._shrink(limit - array.nbytes)
            self._rows[key] = array
            keys.append(key)
            self._bytes += array.nbytes

    def shrink(self):
        """Drop rows until the rest fits into the budget."""
        with self._lock:
            self._shrink(self._budget.available)

    def clear(self):
        """Drop all rows."""
        with self._lock:
            self._rows.clear()
            self._keys.clear()
            self._bytes = 0

    def _use(self, descriptor):
        """The keys of a descriptor, which becomes the most recently used one."""
        keys = self._keys[descriptor] = self._keys.pop(descriptor, [])
        return keys

    def _shrink(self, limit):
        while self._bytes > limit:
            self._drop(next(d for d, keys in self._keys.items() if keys))

    def _drop(self, descriptor):
        keys = self._keys[descriptor]
        i = self._random.randrange(len(keys))
        # Removing the last item of a list is fast, removing one in the middle is not.
        keys[i], keys[-1] = keys[-1], keys[i]
        self._bytes -= self._rows.pop(keys.pop()).nbytes


ROWS = RowCache(BUDGET)
