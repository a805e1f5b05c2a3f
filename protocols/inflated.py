"""Connections and messages that their sender compresses without saying so: the first bytes tell.

A whole connection may be a stream of zlib or gzip, or several: rsyslog's omfwd, `compression.mode="stream:always"`.
A single message may be `z` and zlib: `compression.mode="single"`, over TCP by octet count, and over UDP.
https://www.rsyslog.com/doc/configuration/modules/omfwd.html
"""

import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final

from logagg.protocols.columns import Columnar
from logagg.protocols.record import Decoded, Decoder, Origin, Reject
from logagg.protocols.session import Session, Turn

#: How a stream begins, and its name: zlib of each level (RFC 1950 section 2.2), gzip (RFC 1952 section 2.3.1), zstd
#: (RFC 8878 section 3.1.1). No message of syslog begins so.
_STARTS: Final = {
    b"x\x01": "zlib",
    b"x^": "zlib",
    b"x\x9c": "zlib",
    b"x\xda": "zlib",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_LONGEST: Final = max(map(len, _STARTS))
#: zlib finds out by itself which of both it is.
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
#: Bytes that are inflated at a time; at most 1032 times as many come of them.
_STEP: Final = 4096
#: Plain bytes that the inner session gets at a time, about.
_PIECE: Final = 1 << 20
#: Bytes that a reject keeps of what could not be inflated.
_KEPT: Final = 1 << 16
#: How a message begins that is compressed alone.
_SINGLE: Final = b"zx"


class InflatedSession:
    """A connection that may be compressed as a whole: what is in it goes to the inner session, as do plain bytes.

    One read may give `limit` bytes, and a little more; then the session ends, as it does where the stream is damaged.
    What came before that is taken; the reject says why, with the numbers, and has the bytes that were not inflated.
    """

    def __init__(self, inner: Session, limit: int) -> None:
        self._inner = inner
        self._inflater = _Inflater(limit)
        self._over = False

    def greeting(self) -> bytes:
        """Return what the inner session says."""
        return self._inner.greeting()

    def feed(self, data: bytes, origin: Origin) -> list[Turn]:
        """Take what was read; return the turns that it makes whole. Behind the last turn nothing is taken."""
        if self._inflater.plain:
            return self._inner.feed(data, origin)
        turns: list[Turn] = []
        parts, size, trouble = list[bytes](), 0, None
        try:
            for part in () if self._over else self._inflater.feed(data):
                parts.append(part)
                size += len(part)
                if size >= _PIECE:
                    turns += self._inner.feed(b"".join(parts), origin)
                    parts, size = [], 0
        except _DamagedError as error:
            trouble = error
        if parts:
            turns += self._inner.feed(b"".join(parts), origin)
        if trouble:
            reason, rest = trouble.args
            reject = Reject(origin.now, origin.transport, origin.peer, reason, rest[:_KEPT])
            turns += self._inner.close(origin)
            turns.append(Turn(Decoded([], [reject]), size=len(rest), last=True))
        self._over = self._over or any(turn.last for turn in turns)
        return turns

    def close(self, origin: Origin) -> list[Turn]:
        """Return what the end makes whole. A stream that was cut short is as good as one that was ended."""
        if self._over:
            return []
        rest, self._inflater.held = self._inflater.held, b""
        return (self._inner.feed(rest, origin) if rest else []) + self._inner.close(origin)


class _DamagedError(Exception):
    """Nothing can be inflated any more: why, and the bytes that were not."""


class _Inflater:
    """Bytes of a connection to plain bytes. What is behind the end of a stream is another stream, or plain."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: It is no stream, or none any more, and needs not come here.
        self.plain = False
        #: The first bytes, until it is clear what they begin.
        self.held = b""
        #: What zlib.decompressobj makes, a type without a name; None: between streams.
        self._machine: Any = None
        self._name = ""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give the plain bytes in pieces, none empty. Raises _DamagedError."""
        data, self.held = self.held + data, b""
        given = place = 0
        while place < len(data):
            if self._machine is None:
                self._begin(data, place)
            if self.held:
                return
            if self.plain:
                yield data[place:]
                return
            plain, used, trouble = self._inflate(data[place : place + _STEP])
            place += used
            given += len(plain)
            if plain:
                yield plain
            if trouble:
                raise _DamagedError(f"{self._name} stream is damaged: {trouble}", data[place:])
            if given > self._limit:
                raise _DamagedError(f"{self._name} stream: one read holds more than {self._limit} bytes", data[place:])

    def _begin(self, data: bytes, place: int) -> None:
        """See what begins here."""
        start = data[place : place + _LONGEST]
        for magic, name in _STARTS.items():
            if start.startswith(magic):
                self._name = name
                self._machine = zlib.decompressobj(_GZIP_OR_ZLIB)
                if name == "zstd":  # each connection could have us hold eight megabytes, or as many as it likes
                    raise _DamagedError("zstd stream: zlib and gzip are read", data[place:])
                return
        if any(magic.startswith(start) for magic in _STARTS):
            self.held = start
        else:
            self.plain = True

    def _inflate(self, part: bytes) -> tuple[bytes, int, str]:
        """Return the plain bytes, how many were taken for them, and what is wrong with the next, empty for nothing."""
        machine = self._machine
        before = machine.copy()
        try:
            plain: bytes = machine.decompress(part)
        except zlib.error as error:
            # What was good before is lost with the error: it is found once more, byte by byte.
            good, used = bytearray(), 0
            with suppress(zlib.error):
                for used in range(len(part)):
                    good += before.decompress(part[used : used + 1])
            return bytes(good), used, str(error)
        if machine.eof:
            self._machine = None
        return plain, len(part) - len(machine.unused_data), ""


def inflating(decode: Decoder, max_message: int, limit: int) -> Decoder:
    """Return the decoder, with messages inflated before that are compressed alone.

    One may have `max_message` bytes then, and all of one call `limit` bytes: what is more is a reject. What begins so
    and is no zlib is a message as it stands.
    """
    return partial(_decode, decode, max_message, limit)


def _decode(decode: Decoder, max_message: int, limit: int, frames: list[bytes], origin: Origin) -> Decoded | Columnar:
    if _SINGLE not in {frame[:2] for frame in frames}:
        return decode(frames, origin)
    messages, rejects = list[bytes](), list[Reject]()
    for frame in frames:
        most = min(max_message, limit)
        message = _inflated(frame, most) if frame[:2] == _SINGLE else None
        if message is None:
            messages.append(frame)
        elif len(message) > most:
            reason = f"zlib message of {len(frame)} bytes holds more than {most}"
            rejects.append(Reject(origin.now, origin.transport, origin.peer, reason, frame))
        elif message:
            messages.append(message)
            limit -= len(message)
    decoded = decode(messages, origin)
    decoded.rejects.extend(rejects)
    return decoded


def _inflated(frame: bytes, limit: int) -> bytes | None:
    """Return what is in a message, at most one byte more than the limit; None if it is no zlib."""
    machine = zlib.decompressobj()
    try:
        message = machine.decompress(frame[1:], limit + 1)
    except zlib.error:
        return None
    return message if machine.eof or len(message) > limit else None
