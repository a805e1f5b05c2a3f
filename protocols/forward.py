"""Fluent Forward, as fluent-bit, fluentd, Docker's `fluentd` driver and the fluent-logger libraries send it.

A message is an array: `[tag, time, record]` (Message), `[tag, [event, ...]]` (Forward) or `[tag, events as one binary]`
(PackedForward, and compressed), each with a map of options behind it. A message with the option `chunk` is answered
with `{"ack": chunk}`. With a shared key, server and client prove to each other that they know it, before all else.
fluentd takes messages in JSON too; a connection whose first byte is `[` or `{` is such a one.

https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1.5
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgpack
import orjson

from logagg.protocols import jsontext
from logagg.protocols.clean import clean_text, to_text
from logagg.protocols.columns import Columnar
from logagg.protocols.encodings import decompress
from logagg.protocols.fluent import MOST_UNPACKED, Events, decode, decode_plain, find_events, reject
from logagg.protocols.json_columns import FEW
from logagg.protocols.limits import TooLarge
from logagg.protocols.msgpacked import ARRAYS, MAPS, NIL, MsgpackFramer, name_of, split, trouble_of, unpack, unpack_all
from logagg.protocols.record import Decoded, Origin, Reject
from logagg.protocols.session import Turn

#: Bytes of one message before the sender has proved that it knows the key, and what is kept of such a one.
_STRANGER: Final = 65_536
_STRANGER_KEPT: Final = 1024
#: Messages of one read that are none, before the connection is ended.
_MOST_BAD: Final = 100
#: A key up to this many characters stays readable.
_LONGEST_KEY: Final = 200

#: First bytes of a text and of a binary value.
_TEXTS = frozenset([*range(0xA0, 0xC0), 0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB])
_JSON = frozenset(b"[{")
#: Bytes between the first byte of an array or map and its items: the count, where the first byte does not hold it.
_COUNT_SIZE = {0xDC: 2, 0xDD: 4}

_IN_JSON = re.compile(rb'["\[\]{}]')
_IN_TEXT = re.compile(rb'["\\]')


class _Message(NamedTuple):
    """What one message brought."""

    #: None where there is no message.
    tag: str | None
    events: list[Events]
    rejects: list[Reject]
    #: The sender's name for it, to be answered; None where it awaits no answer.
    chunk: str | bytes | None
    size: int


class ForwardSession:
    """One connection; see `session.Session`.

    A message of more than `max_frame` bytes ends it; one that gives more than `max_inflated` bytes once it is
    decompressed is a reject and is answered, for it would give as many the next time. With `shared_key`, no record is
    taken before the handshake, and with `users` (name to password) none of a sender that is not one of them.
    `nonce` gives text of 16 bytes that nobody can guess.
    """

    def __init__(
        self,
        *,
        max_frame: int,
        max_inflated: int,
        shared_key: str | None = None,
        self_hostname: str = "logagg",
        users: Mapping[str, str] | None = None,
        nonce: Callable[[], bytes] = lambda: secrets.token_urlsafe(12).encode(),
    ) -> None:
        self._max_frame = max_frame
        self._max_inflated = max_inflated
        self._key = (shared_key or "").encode()
        self._hostname = self_hostname.encode()
        self._users = {name.encode(): password.encode() for name, password in (users or {}).items()}
        self._nonce = nonce()
        self._salt = nonce() if self._users else b""
        self._trusted = shared_key is None
        self._framer: MsgpackFramer | _JsonFramer | None = None
        self._ended = False

    def greeting(self) -> bytes:
        """Return the HELO, when there is a shared key."""
        if self._trusted:
            return b""
        # As text, which every client reads: not all take a binary value.
        nonce, salt = (value.decode(errors="surrogateescape") for value in (self._nonce, self._salt))
        return _pack(["HELO", {"nonce": nonce, "auth": salt, "keepalive": True}])

    def feed(self, data: bytes, origin: Origin) -> list[Turn]:
        """Take what was read. A message with a `chunk` is a turn of its own, those between such are one together."""
        if self._ended or not (framer := self._framer_of(data)):
            return []
        frames = framer.feed(data)
        turns = []
        if not self._trusted and frames:
            turns.append(self._handshake(frames.pop(0), origin))
            if frames and not self._ended:  # the client has to wait for the answer
                turns[-1] = self._refused("message before the end of the handshake", frames[0], origin)
        if not self._ended:
            turns += self._turns(frames, origin)
        if not self._ended and (broken := framer.take_broken()):
            turns.append(self._broken(broken, origin))
        return turns

    def close(self, origin: Origin) -> list[Turn]:
        """Return the reject of a message that was cut short."""
        if self._ended or self._framer is None:
            return []
        self._framer.close()
        broken = self._framer.take_broken()
        return [self._broken(broken, origin)] if broken else []

    def _framer_of(self, data: bytes) -> "MsgpackFramer | _JsonFramer | None":
        """Return the framer for what the first byte begins, besides heartbeats."""
        if self._framer is None and (first := data.lstrip(bytes([NIL]))[:1]):
            limit = self._max_frame if self._trusted else min(self._max_frame, _STRANGER)
            self._framer = _JsonFramer(limit) if first[0] in _JSON else MsgpackFramer(limit)
        return self._framer

    def _broken(self, broken: list[tuple[bytes, str]], origin: Origin) -> Turn:
        self._ended = True
        kept = None if self._trusted else _STRANGER_KEPT
        rejects = [reject(origin, reason, raw[:kept]) for raw, reason in broken]
        return Turn(Decoded([], rejects), size=sum(len(raw) for raw, _ in broken), last=True)

    def _refused(self, why: str, frame: bytes, origin: Origin, answer: bytes = b"") -> Turn:
        self._ended = True
        return Turn(Decoded([], [reject(origin, why, frame[:_STRANGER_KEPT])]), answer, size=len(frame), last=True)

    # The handshake.

    def _handshake(self, frame: bytes, origin: Origin) -> Turn:
        """Take a PING: name, salt, digest of the key, and user and digest of the password; all as bytes."""
        try:
            ping = msgpack.unpackb(frame, raw=True)
        except (ValueError, TypeError) as error:
            return self._refused(f"no PING: {trouble_of(error)}", frame, origin)
        if len(ping) != 6 or ping[0] != b"PING" or not all(isinstance(part, bytes) for part in ping):
            return self._refused("message before the end of the handshake", frame, origin)
        _, name, salt, digest, user, password = ping
        why = self._trouble(name, salt, digest, user, password)
        if why:  # digests are not kept: they help to guess the key
            return self._refused(f"handshake refused: {why}", b"", origin, _pack(["PONG", False, why, "", ""]))
        self._trusted = True
        if isinstance(self._framer, MsgpackFramer):
            self._framer.max_frame = self._max_frame
        proof = _digest(salt, self._hostname, self._nonce, self._key)
        answer = _pack(["PONG", True, "", self._hostname.decode(), proof.decode()])
        return Turn(Decoded([], []), answer, size=len(frame))

    def _trouble(self, name: bytes, salt: bytes, digest: bytes, user: bytes, password: bytes) -> str:
        if not hmac.compare_digest(_digest(salt, name, self._nonce, self._key), digest):
            return "shared_key mismatch"
        known = _digest(self._salt, user, self._users.get(user, b""))
        if self._users and not (hmac.compare_digest(known, password) and user in self._users):
            return "username/password mismatch"
        return ""

    # Messages.

    def _turns(self, frames: list[bytes], origin: Origin) -> list[Turn]:
        size = sum(map(len, frames))
        if len(frames) >= FEW and size <= MOST_UNPACKED and isinstance(self._framer, MsgpackFramer):
            try:
                return [Turn(_single_events(frames, origin), size=size)]
            except (ValueError, TypeError):
                pass  # not all are such
        turns: list[Turn] = []
        together: list[_Message] = []
        bad = 0
        for place, frame in enumerate(frames):
            message = self._message(frame, origin)
            bad += message.tag is None
            if bad > _MOST_BAD:
                turns += self._turn(together, origin)
                rest = b"".join(frames[place:])
                return [*turns, self._broken([(rest, f"behind {_MOST_BAD} that are no messages")], origin)]
            if message.chunk is None:
                together.append(message)
            else:
                turns += [*self._turn(together, origin), *self._turn([message], origin)]
                together = []
        return turns + self._turn(together, origin)

    def _turn(self, messages: list[_Message], origin: Origin) -> list[Turn]:
        if not messages:
            return []
        decoded = decode([events for message in messages for events in message.events], origin)
        for message in messages:
            decoded.rejects.extend(message.rejects)
        chunk, size = messages[0].chunk, sum(message.size for message in messages)
        if chunk is None:
            return [Turn(decoded, size=size)]
        is_json = isinstance(self._framer, _JsonFramer)
        answer = orjson.dumps({"ack": _to_text(chunk)}) if is_json else _pack({"ack": chunk})
        return [Turn(decoded, answer, _key(chunk, messages[0].tag or ""), size)]

    def _message(self, frame: bytes, origin: Origin) -> _Message:
        """Read a message. What cannot be read is a reject, and is answered where that can be: it would come again."""
        tag = chunk = None
        try:
            packed = _packed_json(frame) if isinstance(self._framer, _JsonFramer) else frame
            if packed[0] in MAPS:  # a record alone, without a tag, as JSON only can be
                return _Message("", [Events("", packed, 1)], [], None, len(frame))
            parts = _parts(packed)
            tag, chunk = parts.tag, parts.options.get("chunk")
            chunk = chunk if isinstance(chunk, str | bytes) else None
            events, rejects = self._events(parts, origin)
        except (ValueError, TypeError, OverflowError, TooLarge) as error:
            events, rejects = [], [reject(origin, trouble_of(error), frame)]
        return _Message(tag, events, rejects, chunk, len(frame))

    def _events(self, parts: "_Parts", origin: Origin) -> tuple[list[Events], list[Reject]]:
        """Find the events; those of metrics and traces are no logs, and are answered and no more."""
        if parts.options.get("fluent_signal", 0) not in (0, None):
            return [], []
        packed = parts.packed
        if parts.within:
            packed, name = msgpack.unpackb(packed, raw=True), parts.options.get("compressed") or "text"
            if not isinstance(name, str):
                raise ValueError(f"compressed by {name!r:.100}")
            if name != "text":
                packed = decompress(packed, name, self._max_inflated)
        return find_events(parts.tag, packed, origin)


def _single_events(frames: list[bytes], origin: Origin) -> Decoded | Columnar:
    """Decode messages of one plain event each, none to be answered, as Docker sends them; raises for others."""
    messages = unpack_all(frames, len(frames))
    tags = [message[0] for message in messages if len(message) == 3 or message[3:] == [{}]]
    if len(tags) < len(messages) or set(map(type, tags)) != {str}:
        raise ValueError
    return decode_plain([message[1:3] for message in messages], tags, origin)


class _Parts(NamedTuple):
    """What a message is made of."""

    tag: str
    #: Events one after the other, or one binary value or text that they are within.
    packed: bytes
    within: bool
    options: dict[Any, Any]


def _parts(frame: bytes) -> _Parts:
    """Take an array of msgpack apart. Raises ValueError or TypeError for what is no message."""
    start = _items_at(frame)
    ends = [start + end for end in split(memoryview(frame)[start:])[0]]
    items = [frame[start:end] for start, end in pairwise([start, *ends])]
    if len(items) < 2:
        raise ValueError(f"message of {len(items)} items, at least a tag and events")
    tag, body = unpack(items[0]), items[1]
    if not isinstance(tag, str | bytes):
        raise ValueError(f"message whose tag is {name_of(tag)}, expected a text")
    tag = _to_text(tag)
    if body[0] in _TEXTS:
        return _Parts(tag, body, True, _options(items, 2))
    if body[0] in ARRAYS and not (_is_time(body) and len(items) > 2):
        return _Parts(tag, body[_items_at(body) :], False, _options(items, 2))
    if len(items) < 3:
        raise ValueError("message of a tag and a time, without a record")
    options = _options(items, 3)
    time = body
    if (metadata := options.get("metadata")) and body[0] not in ARRAYS:  # fluent-bit, of a single event
        time = b"\x92" + body + _pack(metadata)
    return _Parts(tag, b"\x92" + time + items[2], False, options)


def _options(items: list[bytes], place: int) -> dict[Any, Any]:
    options = unpack(items[place]) if len(items) > place else None
    return options if isinstance(options, dict) else {}


def _items_at(array: bytes) -> int:
    """Return the place of the first item."""
    return 1 + _COUNT_SIZE.get(array[0], 0)


def _count(array: bytes) -> int:
    """Return how many items an array has."""
    size = _COUNT_SIZE.get(array[0], 0)
    return int.from_bytes(array[1 : 1 + size], "big") if size else array[0] & 0x0F


def _is_time(array: bytes) -> bool:
    """Tell `[time, metadata]` from an array of events, which are arrays."""
    place = _items_at(array)
    return _count(array) == 2 and array[place] not in ARRAYS


def _packed_json(frame: bytes) -> bytes:
    """Turn JSON into msgpack. Raises ValueError or OverflowError."""
    try:
        return _pack(json.loads(jsontext.to_lenient(frame), strict=False))
    except (ValueError, OverflowError, RecursionError):
        return _pack(jsontext.loads(frame).value)


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, unicode_errors="surrogateescape")
    return packed


def _to_text(value: str | bytes) -> str:
    return to_text(value)[0] if isinstance(value, bytes) else clean_text(value)


def _key(chunk: str | bytes, tag: str) -> str:
    """Name a batch. The tag is a part of it: fluent-bit's chunk is a digest of the events, whatever their tag."""
    key = f"{_to_text(chunk)} {tag}"
    return key if len(key) <= _LONGEST_KEY else hashlib.sha256(key.encode()).hexdigest()


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha512(b"".join(parts)).hexdigest().encode()


class _JsonFramer:
    """Bytes of a connection to arrays and objects of JSON; as `MsgpackFramer`, and none is looked at twice."""

    def __init__(self, max_frame: int) -> None:
        self._max = max_frame
        self._held = bytearray()
        #: So far it was looked at; how deep that is, and whether in a text.
        self._place = 0
        self._depth = 0
        self._in_text = False
        self._broken: list[tuple[bytes, str]] = []

    def feed(self, data: bytes) -> list[bytes]:
        """Give the frames that `data` completes."""
        self._held += data
        frames, start = [], 0
        while match := (_IN_TEXT if self._in_text else _IN_JSON).search(self._held, self._place):
            self._place = match.end()
            if self._take(match[0]):
                frames.append(bytes(self._held[start : self._place]).strip())
                start = self._place
                if len(frames[-1]) > self._max:
                    self._break(f"message of more than {self._max} bytes", frames.pop())
                    return frames
        self._place = max(self._place, len(self._held)) - start
        del self._held[:start]
        if len(self._held) > self._max:
            self._break(f"message of more than {self._max} bytes", bytes(self._held))
        return frames

    def close(self) -> list[bytes]:
        """Give nothing: what is not whole at the end is broken."""
        if rest := bytes(self._held).strip():
            self._break(f"JSON of {len(rest)} bytes, cut short", rest)
        return []

    def take_broken(self) -> list[tuple[bytes, str]]:
        """Give what will never be a frame, with the reason."""
        broken, self._broken = self._broken, []
        return broken

    def _take(self, mark: bytes) -> bool:
        """Take one of the bytes that matter; tell whether it ends a frame."""
        if mark == b"\\":
            self._place += 1
        elif mark == b'"':
            self._in_text = not self._in_text
        elif mark in b"[{":
            self._depth += 1
        else:
            self._depth = max(self._depth - 1, 0)
            return self._depth == 0
        return False

    def _break(self, reason: str, raw: bytes) -> None:
        self._held.clear()
        self._broken.append((raw[: self._max], reason))
