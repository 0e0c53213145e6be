"""The store of descriptor rows, which may use the unclaimed part of the memory budget."""

import random
from threading import Lock

from .._locks import fork_safe
from .._memory import BUDGET


class RowCache:
    """Keep arrays by key until the memory budget is full, then drop some of them.

    The last item of a key identifies the structure, and the other items identify the descriptor.
    Rows of the least recently used descriptor are dropped first, because a search over cutoffs does
    not return to earlier cutoffs.

    Within a descriptor, random rows are dropped. A fit reads the rows of the same structures
    several times, always in the same order. Suppose that not all rows fit into memory. Then the
    least recently used row is the one that will be needed next. A store that dropped this row would
    never contain the row that is needed. If random rows are dropped, the share of rows that are
    found equals the share of rows that fit.

    Rows that only predictions needed take at most as much memory as rows of fits. In a
    cross-validation, the structures of one fold are predicted before another fit needs them. Other
    predictions never return to a structure, and a program that makes millions of them must not
    fill the memory.

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
        self._predicted = {}  # sizes of the rows that only predictions needed, by key
        self._predicted_bytes = 0
        self._lock = fork_safe(Lock())
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

    def put(self, key, array, predicted=False):
        """Store an array, and drop others to make room for it.

        If only a prediction needs the array, it is not stored when such arrays already take as much
        memory as the others.
        """
        with self._lock:
            # Read the limit inside the lock. Another thread that claims memory first lowers the
            # limit and then calls `shrink`, which waits for the lock: no new row can be missed.
            limit = self._budget.available
            if key in self._rows or array.nbytes > limit:
                return
            if predicted:
                if 2 * self._predicted_bytes + array.nbytes > self._bytes:
                    return
                self._predicted[key] = array.nbytes
                self._predicted_bytes += array.nbytes
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
            self._predicted.clear()
            self._bytes = self._predicted_bytes = 0

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
        # Swap with the last item, because only the end of a list can be removed quickly.
        keys[i], keys[-1] = keys[-1], keys[i]
        key = keys.pop()
        self._bytes -= self._rows.pop(key).nbytes
        self._predicted_bytes -= self._predicted.pop(key, 0)


ROWS = RowCache(BUDGET)
