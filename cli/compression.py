"""Compression of what is written to a file, piece by piece."""

from typing import Protocol


class Compression(Protocol):
    """Pieces in, and out what may be written of them already."""

    def add(self, data: bytes) -> bytes:
        """Take a piece."""

    def end(self) -> bytes:
        """Return what is left."""


class Plain:
    """Compresses nothing."""

    def add(self, data: bytes) -> bytes:
        """Return the piece."""
        return data

    def end(self) -> bytes:
        """Return nothing."""
        return b""


class Gzip:
    """RFC 1952."""

    def __init__(self) -> None:
        import zlib

        self._machine = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)

    def add(self, data: bytes) -> bytes:
        """Compress a piece."""
        return self._machine.compress(data)

    def end(self) -> bytes:
        """Return what is left."""
        return self._machine.flush()


class Zstd:
    """RFC 8878."""

    #: Bytes that are gathered for a block: many small ones take more room.
    _BLOCK = 1 << 20

    def __init__(self) -> None:
        import cramjam

        self._machine = cramjam.zstd.Compressor()
        self._held = 0

    def add(self, data: bytes) -> bytes:
        """Compress a piece."""
        self._machine.compress(data)
        self._held += len(data)
        if self._held < self._BLOCK:
            return b""
        self._held = 0
        return bytes(self._machine.flush())

    def end(self) -> bytes:
        """Return what is left."""
        return bytes(self._machine.finish())


#: By the last ending of a file.
COMPRESSIONS: dict[str, type[Compression]] = {".gz": Gzip, ".zst": Zstd}
