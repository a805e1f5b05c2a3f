"""GELF 1.1 to records, over UDP, TCP and HTTP: https://go2docs.graylog.org/current/getting_in_log_data/gelf.html.

A payload is one JSON object. Over UDP it may be compressed (gzip, zlib or zstd, told by its first bytes) and come in up
to 128 chunks, which `GelfAssembler` puts together; over TCP a NUL or a LF ends it; over HTTP a body may have several, a
line each, as fluent-bit sends them.

`short_message` is the message, `_name` is the field or attribute `name`; where the object has that name already, it
keeps its underscore. A level that is not there is 1, alert, as the specification has it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from logagg.protocols import jsontext
from logagg.protocols.columns import Columnar
from logagg.protocols.encodings import EncodingError, decompress
from logagg.protocols.framing import LineFramer
from logagg.protocols.http import Answer, HttpProtocol, Malformed, Request, Taken
from logagg.protocols.json_columns import FEW, decode_pieces, objects_of
from logagg.protocols.limits import TooLarge, few_enough
from logagg.protocols.mapping import from_object
from logagg.protocols.record import Decoded, Origin, Reject

#: Chunks begin with this, then eight bytes of message id, number of the chunk from 0, count of chunks.
CHUNK: Final = b"\x1e\x0f"
HEADER: Final = 12
MOST_CHUNKS: Final = 128
#: Memory that a chunk and a message take besides their bytes.
CHUNK_COST: Final = 128
MESSAGE_COST: Final = 512

#: The level of a message that names none: 1, alert.
_NO_LEVEL = 1
_VERSIONS = ("1.1", "1.0")
#: The first byte of what is compressed, and how; JSON begins with none of them.
_ENCODINGS = {0x1F: "gzip", 0x78: "deflate", 0x28: "zstd"}
_NUL_ESCAPE = jsontext.NUL_ESCAPE


class GelfFramer(LineFramer):
    """Frames end with NUL, as GELF over TCP has it, or with LF, which some senders are set to. JSON has neither."""

    def feed(self, data: bytes) -> list[bytes]:
        """Give the frames that `data` completes."""
        return super().feed(data.replace(b"\0", b"\n"))


def decode_gelf(frames: Sequence[bytes], origin: Origin) -> Decoded | Columnar:
    """Decode payloads of one object each, not compressed. Never raises; a payload of blanks is nothing."""
    if len(frames) >= FEW:
        try:
            return decode_pieces((list(map(_renamed, objects)) for objects in objects_of(frames)), origin)
        except ValueError:
            pass  # one that cannot be read: it costs no neighbour
    return decode_one_by_one(frames, origin)


def decode_one_by_one(frames: Iterable[bytes], origin: Origin) -> Decoded:
    """Decode each payload for itself: the reference."""
    decoded = Decoded([], [])
    add = decoded.records.append
    for frame in frames:
        try:
            obj = None if _NUL_ESCAPE in frame else orjson.loads(frame)
            if type(obj) is dict:
                add(from_object(_renamed(obj), origin))
                continue
        except ValueError:
            pass  # the lenient reader has the last word
        if frame.strip(b" \t\r\n\0"):
            _decode_odd(frame, origin, decoded)
    return decoded


def _decode_odd(frame: bytes, origin: Origin, decoded: Decoded) -> None:
    try:
        value, replaced = jsontext.loads(frame.rstrip(b"\r\n\0"))
        if not isinstance(value, dict):
            raise ValueError(f"JSON {jsontext.name_of(value)}, expected an object")
        decoded.records.append(from_object(_renamed(value), origin, frame if replaced else None))
    except ValueError as error:
        decoded.rejects.append(Reject(origin.now, origin.transport, origin.peer, str(error), frame))


def _renamed(obj: dict[str, Any]) -> dict[str, Any]:
    """Return the object under the names that `mapping` knows. Takes it over."""
    message = obj.pop("short_message", None)
    if message is not None:
        if "message" in obj:  # not of GELF, and not to be lost
            obj["_message"] = obj.pop("message")
        obj["message"] = message
    if obj.get("version") in _VERSIONS:
        del obj["version"]
    for name in [name for name in obj if name[:1] == "_"]:
        plain = name[1:]
        if plain and plain not in obj:
            obj[plain] = obj.pop(name)
    if "level" not in obj:
        obj["level"] = _NO_LEVEL
    return obj


@dataclass(slots=True)
class _Message:
    """A message of which chunks are missing."""

    #: Of the first chunk that came.
    origin: Origin
    count: int
    chunks: dict[int, bytes] = field(default_factory=dict)
    #: Bytes that it takes.
    size: int = MESSAGE_COST

    def missing(self) -> str:
        return ", ".join(str(number) for number in range(self.count) if number not in self.chunks)


class GelfAssembler:
    """Datagrams in, records out: a `record.Decoder` that remembers the chunks of messages that are not whole yet.

    It holds at most `limit_bytes` of them; for more, the oldest message is given up. One that is not whole `patience`
    seconds after its first chunk came is given up too. What is given up is a reject with the bytes of the chunks that
    came, in their order, without their headers. A message may be `max_message` bytes once decompressed.
    """

    def __init__(self, limit_bytes: int, patience: float = 5.0, max_message: int = 1 << 20) -> None:
        self._limit = limit_bytes
        self._patience = timedelta(seconds=patience)
        self._max_message = max_message
        #: By sender and message id, in the order in which they began.
        self._begun: dict[tuple[str, bytes], _Message] = {}
        self._size = 0

    @property
    def held(self) -> int:
        """Bytes of messages that are not whole."""
        return self._size

    def __call__(self, frames: list[bytes], origin: Origin) -> Decoded | Columnar:
        """Decode the datagrams of one sender; give up what is too old."""
        rejects = self.expire(origin.now).rejects
        payloads = []
        for frame in frames:
            whole = self._add(frame, origin, rejects) if frame[:2] == CHUNK else frame
            payload = whole and self._inflated(whole, origin, rejects)
            if payload:
                payloads.append(payload)
        decoded = decode_gelf(payloads, origin)
        decoded.rejects.extend(rejects)
        return decoded

    def expire(self, now: datetime) -> Decoded:
        """Give up the messages that are too old. Asked for now and then, so that they are not kept by silence."""
        rejects: list[Reject] = []
        while self._begun:
            key, message = next(iter(self._begun.items()))
            if now - message.origin.now <= self._patience:
                break
            rejects.append(self._give_up(key, f"not whole after {self._patience.total_seconds():g} s"))
        return Decoded([], rejects)

    def close(self) -> Decoded:
        """Give up all that is not whole: nothing more will come."""
        return Decoded([], [self._give_up(key, "not whole at the end") for key in list(self._begun)])

    def _add(self, chunk: bytes, origin: Origin, rejects: list[Reject]) -> bytes | None:
        """Keep a chunk; return the message if that makes it whole."""
        if len(chunk) < HEADER:
            return self._refuse(chunk, f"GELF chunk of {len(chunk)} bytes, at least {HEADER}", origin, rejects)
        number, count = chunk[10], chunk[11]
        if not number < count <= MOST_CHUNKS:
            reason = f"GELF chunk {number} of {count}: numbers are from 0, at most {MOST_CHUNKS} chunks"
            return self._refuse(chunk, reason, origin, rejects)
        part = chunk[HEADER:]
        if count == 1:
            return part
        key = (origin.peer, chunk[2:10])
        message = self._begun.get(key)
        if message is None:
            message = self._begun[key] = _Message(origin, count)
            self._size += MESSAGE_COST
        known = message.chunks.get(number)
        if message.count != count or (known is not None and known != part):
            reason = f"GELF chunk {number} of {count}: its message has another such chunk, of {message.count}"
            return self._refuse(chunk, reason, origin, rejects)
        if known is not None:
            return None  # a network may deliver a datagram twice
        message.chunks[number] = part
        self._grow(message, len(part) + CHUNK_COST)
        if len(message.chunks) == count:
            del self._begun[key]
            self._size -= message.size
            return b"".join(message.chunks[number] for number in range(count))
        while self._size > self._limit:
            oldest = next(iter(self._begun))
            rejects.append(self._give_up(oldest, f"no room: {self._size} bytes are not whole, at most {self._limit}"))
        return None

    def _grow(self, message: _Message, size: int) -> None:
        message.size += size
        self._size += size

    def _give_up(self, key: tuple[str, bytes], why: str) -> Reject:
        message = self._begun.pop(key)
        self._size -= message.size
        came = f"{len(message.chunks)} of {message.count} chunks came, missing: {message.missing()}"
        raw = b"".join(part for _, part in sorted(message.chunks.items()))
        now, transport, peer, _ = message.origin
        return Reject(now, transport, peer, f"GELF message {key[1].hex()} {why}: {came}", raw)

    def _inflated(self, payload: bytes, origin: Origin, rejects: list[Reject]) -> bytes | None:
        encoding = _ENCODINGS.get(payload[0])
        if encoding is None:
            return payload
        try:
            return decompress(payload, encoding, self._max_message)
        except (EncodingError, TooLarge) as error:
            return self._refuse(payload, str(error), origin, rejects)

    @staticmethod
    def _refuse(raw: bytes, reason: str, origin: Origin, rejects: list[Reject]) -> None:
        rejects.append(Reject(origin.now, origin.transport, origin.peer, reason, raw))


def _take(request: Request, origin: Origin) -> Taken:
    """Decode one object, an array of them, or one a line. Raises Malformed when there is none, and TooLarge."""
    body = request.body
    if body and (encoding := _ENCODINGS.get(body[0])):  # some compress, and do not say so
        try:
            body = decompress(body, encoding, request.limit)
        except EncodingError as error:
            raise Malformed(f"no GELF in a body of {len(body)} bytes: {error}") from None
    decoded = decode_gelf(_payloads(body), origin)
    if not len(decoded.records):
        why = decoded.rejects[0].reason if decoded.rejects else "it is empty"
        raise Malformed(f"no GELF in a body of {len(body)} bytes: {why}")
    return Taken(decoded, Answer(202, content_type="text/plain"))


def _payloads(body: bytes) -> list[bytes]:
    try:
        value = orjson.loads(body)
    except ValueError:
        lines = [*filter(None, body.replace(b"\r", b"\n").replace(b"\0", b"\n").split(b"\n"))]
        return few_enough(lines) if lines and lines[0].rstrip().endswith(b"}") else [body]
    return list(map(orjson.dumps, few_enough(value))) if isinstance(value, list) else [body]


def _refuse(status: int, why: str, _: Mapping[str, str]) -> Answer:
    return Answer(status, why.encode(), "text/plain")


GELF: Final = HttpProtocol(
    transport="gelf-http",
    routes=(("POST", "/gelf", "Store GELF messages, one or one a line"),),
    take=_take,
    refuse=_refuse,
)
