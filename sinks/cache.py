"""A cache that is bounded by the size of what it holds."""

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Keeps what was used last, up to `most` bytes. Not for several threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        #: Bytes of what is held.
        self.size = 0
        self._held: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return what is held under a key, None for nothing."""
        found = self._held.get(key)
        if found is None:
            return None
        self._held.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Hold a value of so many bytes, instead of what was used longest ago; not one larger than the cache."""
        self._drop(key)
        if size > self._most:
            return
        self._held[key] = value, size
        self.size += size
        while self.size > self._most:
            self._drop(next(iter(self._held)))

    def _drop(self, key: K) -> None:
        if (found := self._held.pop(key, None)) is not None:
            self.size -= found[1]
