"""A process-wide store of descriptor rows, bounded in bytes."""

import random
import threading


class RowCache:
    """Keep arrays by key until their total size reaches a limit, then drop some of them.

    A key is a tuple that ends with the structure; what stands before it is the descriptor. Rows of
    the descriptor that was asked for longest ago go first: in a search over cutoffs those of the
    last one are not needed any more.

    Of one descriptor any row is dropped. A fit walks over the same structures several times, always
    from first to last. For such a walk through more data than fits, the least recently used row is
    the one needed next, and an LRU would miss every time; dropping a random one keeps the share
    that fits.
    """

    def __init__(self):
        self._rows = {}
        self._keys = {}  # by descriptor, the one last used at the end
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
        found = self._rows.get(key)
        if found is not None:
            with self._lock:
                self._use(key[:-1])
        return found

    def put(self, key, array, limit):
        """Store an array and shrink the store to `limit` bytes."""
        with self._lock:
            if key in self._rows or array.nbytes > limit:
                return
            keys = self._use(key[:-1])
            while self._bytes + array.nbytes > limit:
                self._drop(next(d for d, members in self._keys.items() if members))
            self._rows[key] = array
            keys.append(key)
            self._bytes += array.nbytes

    def _use(self, descriptor):
        """The keys of a descriptor, which becomes the one last used."""
        keys = self._keys[descriptor] = self._keys.pop(descriptor, [])
        return keys

    def _drop(self, descriptor):
        keys = self._keys[descriptor]
        i = self._random.randrange(len(keys))
        keys[i], keys[-1] = keys[-1], keys[i]
        self._bytes -= self._rows.pop(keys.pop()).nbytes

    def clear(self):
        """Forget everything."""
        with self._lock:
            self._rows.clear()
            self._keys.clear()
            self._bytes = 0


ROWS = RowCache()
