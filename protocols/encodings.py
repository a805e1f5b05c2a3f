"""Content encodings of HTTP bodies, undone with a limit: a small body can say that it is a large one."""

import zlib
from collections.abc import Callable

import cramjam

from logagg.protocols.limits import TooLarge

#: How a stream in the framing format begins, https://github.com/google/snappy/blob/main/framing_format.txt section 4.1.
#: No block does: its second part would be a copy of what lies gigabytes before its beginning.
_SNAPPY_STREAM = b"\xff\x06\x00\x00sNaPpY"
_GZIP = b"\x1f\x8b"
#: Bytes of the first piece that is inflated; each is twice the one before. What is behind the end of a gzip member is
#: copied by zlib, and a body of many members would be copied many times if it were given whole.
_FIRST_STEP = 1024


class EncodingError(ValueError):
    """The body is not what its Content-Encoding says."""


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo `encoding`, a Content-Encoding header (RFC 9110 section 8.4), several with commas between.

    Known: gzip, deflate (RFC 9110 names the zlib format; the bare format is what some send), zstd, snappy (the
    block format, as fluent-bit sends it, and the framing format), identity. Raises EncodingError or TooLarge; never
    holds more than `limit` bytes of the result.
    """
    names = [part.strip().lower() for part in encoding.split(",") if part.strip()]
    for name in reversed(names):
        undo = _KNOWN.get(name)
        if undo is None:
            raise EncodingError(f"unknown Content-Encoding {name!r}; known: {', '.join(sorted(_KNOWN))}")
        # Some name what they might have done, such as pygelf "gzip,deflate", and did one of it.
        if len(names) == 1 or name not in ("gzip", "deflate") or (name == "gzip") == body.startswith(_GZIP):
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
    size, place, view = 0, 0, memoryview(body)
    while place < len(body):  # gzip files may be joined end to end, RFC 1952 section 2.2
        machine, step = zlib.decompressobj(window), _FIRST_STEP
        while not machine.eof and place < len(body):
            try:
                part = machine.decompress(view[place : place + step], limit - size + 1)
            except zlib.error as error:
                raise EncodingError(f"body of {len(body)} bytes is not {name}: {error}") from None
            parts.append(part)
            size += len(part)
            if size > limit:
                raise TooLarge(f"body is more than {limit} bytes once decompressed")
            place, step = min(place + step, len(body)), 2 * step
        if not machine.eof:
            raise EncodingError(f"{name} body ends too early, after {size} decompressed bytes")
        place -= len(machine.unused_data)
    return b"".join(parts)


def _zstd(body: bytes, limit: int) -> bytes:
    return _into(cramjam.zstd.decompress_into, body, limit, "zstd") if body else b""


def _snappy(body: bytes, limit: int) -> bytes:
    if body.startswith(_SNAPPY_STREAM):
        return _into(cramjam.snappy.decompress_into, body, limit, "snappy")
    try:
        size = cramjam.snappy.decompress_raw_len(body)
        if size > limit:
            raise TooLarge(f"body is {size} bytes once decompressed, at most {limit}")
        return bytes(cramjam.snappy.decompress_raw(body))
    except cramjam.DecompressionError as error:
        raise EncodingError(f"body of {len(body)} bytes is not snappy: {error}") from None


def _into(decompress_into: Callable[[bytes, bytearray], int], body: bytes, limit: int, name: str) -> bytes:
    result = bytearray(limit)  # pages that are never written take no memory
    try:
        size = decompress_into(body, result)
    except cramjam.DecompressionError as error:
        if "failed to write whole buffer" in str(error):
            raise TooLarge(f"body is more than {limit} bytes once decompressed") from None
        raise EncodingError(f"body of {len(body)} bytes is not {name}: {error}") from None
    return bytes(memoryview(result)[:size])


_KNOWN: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
    "snappy": _snappy,
    "identity": _identity,
}
