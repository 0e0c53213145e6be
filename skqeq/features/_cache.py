"""A process-wide store of descriptor rows, bounded in bytes."""

import random
import threading


class RowCache:
    """Keep arrays by key until their total size reaches a limit, then drop any of them.

    A fit walks over the same structures several times, always from first to last. For such a
    walk through more data than fits, the least recently used row is the one needed next, and an
    LRU would miss every time; dropping a random one keeps the share that fits.
    """

    def __init__(self):
        self._rows = {}
        self._keys = []
        self._bytes = 0
        self._lock = threading.Lock()
        self._random = random.Random(0)

    def __len__(self):
        return len(self._rows)

    @property
    def nbytes(self):
        """Bytes held."""
        return self._bytes

    def get(self, key):
        """The array stored under `key`, or None."""
        return self._rows.get(key)

    def put(self, key, array, limit):
        """Store an array and shrink the store to `limit` bytes."""
        with self._lock:
            if key in self._rows or array.nbytes > limit:
                return
            while self._bytes + array.nbytes > limit:
                self._drop(self._random.randrange(len(self._keys)))
            self._rows[key] = array
            self._keys.append(key)
            self._bytes += array.nbytes

    def _drop(self, i):
        self._keys[i], self._keys[-1] = self._keys[-1], self._keys[i]
        self._bytes -= self._rows.pop(self._keys.pop()).nbytes

    def clear(self):
        """Forget everything."""
        with self._lock:
            self._rows.clear()
            self._keys.clear()
            self._bytes = 0


ROWS = RowCache()
