"""Content encodings of HTTP bodies, undone with a limit: a small body can say that it is a large one."""

import zlib
from collections.abc import Callable

import cramjam


class EncodingError(ValueError):
    """The body is not what its Content-Encoding says."""


class TooLarge(ValueError):
    """The body is more than the limit once it is decompressed."""


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo `encoding`, a Content-Encoding header (RFC 9110 section 8.4), several with commas between.

    Known: gzip, deflate (RFC 9110 names the zlib format; the bare format is what some send), zstd, snappy (block
    format), identity. Raises EncodingError or TooLarge; never holds more than `limit` bytes of the result.
    """
    for name in reversed([part.strip().lower() for part in encoding.split(",") if part.strip()]):
        undo = _KNOWN.get(name)
        if undo is None:
            raise EncodingError(f"unknown Content-Encoding {name!r}; known: {', '.join(sorted(_KNOWN))}")
        body = undo(body, limit)
    return body


def _identity(body: bytes, limit: int) -> bytes:
    return body


def _gzip(body: bytes, limit: int) -> bytes:
    return _inflate(body, limit, zlib.MAX_WBITS | 16, "gzip")


def _deflate(body: bytes, limit: int) -> bytes:
    # RFC 1950: the low four bits of a zlib stream's first byte are 8, and the first two bytes divide by 31.
    is_zlib = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    return _inflate(body, limit, zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS, "deflate")


def _inflate(body: bytes, limit: int, window: int, name: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    while body:  # gzip files may be joined end to end, RFC 1952 section 2.2
        machine = zlib.decompressobj(window)
        try:
            part = machine.decompress(body, limit - size + 1)
        except zlib.error as error:
            raise EncodingError(f"body of {len(body)} bytes is not {name}: {error}") from None
        parts.append(part)
        size += len(part)
        if size > limit:
            raise TooLarge(f"body is more than {limit} bytes once decompressed")
        if not machine.eof:
            raise EncodingError(f"{name} body ends too early, after {size} decompressed bytes")
        body = machine.unused_data
    return b"".join(parts)


def _zstd(body: bytes, limit: int) -> bytes:
    result = bytearray(limit)  # pages that are never written take no memory
    try:
        size = cramjam.zstd.decompress_into(body, result) if body else 0
    except cramjam.DecompressionError as error:
        if "failed to write whole buffer" in str(error):
            raise TooLarge(f"body is more than {limit} bytes once decompressed") from None
        raise EncodingError(f"body of {len(body)} bytes is not zstd: {error}") from None
    return bytes(memoryview(result)[:size])


def _snappy(body: bytes, limit: int) -> bytes:
    try:
        size = cramjam.snappy.decompress_raw_len(body)
        if size > limit:
            raise TooLarge(f"body is {size} bytes once decompressed, at most {limit}")
        return bytes(cramjam.snappy.decompress_raw(body))
    except cramjam.DecompressionError as error:
        raise EncodingError(f"body of {len(body)} bytes is not snappy: {error}") from None


_KNOWN: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
    "snappy": _snappy,
    "identity": _identity,
}
