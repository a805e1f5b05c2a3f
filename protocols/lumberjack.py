"""Lumberjack, the protocol of Filebeat, other Beats and Logstash: windows of events, acknowledged window by window.

Versions 1 and 2: https://github.com/elastic/go-lumber, https://github.com/logstash-plugins/logstash-input-beats.
A frame is a version, `1` or `2`, a type, and big-endian numbers of 32 bits:
    W count                      so many events follow until the sender waits for an acknowledgement
    J sequence length JSON       an event
    D sequence pairs (length key length value)*     an event of version 1, all texts
    C length zlib                frames, compressed; not within one another
and the answer A sequence, the last of those that are stored.
"""

import json
import struct
import zlib
from typing import Final

from logagg.protocols.json_columns import decode_lines
from logagg.protocols.record import Decoded, Decoder, Origin, Reject
from logagg.protocols.session import Turn

#: Bytes before the data of an event: version and type, sequence, length or number of pairs.
_EVENT: Final = struct.Struct(">2sII")
_NUMBER: Final = struct.Struct(">I")
_ANSWER: Final = struct.Struct(">2sI")
_START: Final = 2
_HEADERS: Final = {b"W": 6, b"C": 6, b"J": 10, b"D": 10}
_JSON: Final = frozenset({b"2J", b"1J"})
_VERSIONS: Final = frozenset({b"1", b"2"})
#: An event of version 1 has a handful.
_MOST_PAIRS: Final = 1000
#: Decompressed at a time; and what an event counts for, besides its bytes, against the limit.
_STEP: Final = 1 << 20
_EACH: Final = 512


class LumberjackSession:
    """One connection. The events of a read are one turn; the answer acknowledges each window that it makes whole.

    An event is at most `max_frame` bytes: of a longer one the start is a reject. What the compressed frames of one read
    hold is at most `max_unpacked` bytes, with 512 more for each event. What is no Lumberjack ends the session; there is
    no other answer to it. A window that was not acknowledged comes again over a new connection.
    """

    def __init__(self, max_frame: int, max_unpacked: int, decode: Decoder = decode_lines) -> None:
        self._max = max_frame
        self._max_unpacked = max_unpacked
        self._decode = decode
        self._outer = _Frames(max_frame)
        self._window = _Window()
        #: Of a compressed frame: its length, how much of it is to come, and its frames.
        self._packed = 0
        self._missing = 0
        self._inner = _Frames(max_frame, inner=True)
        self._zlib = zlib.decompressobj()
        self._over = False
        #: Bytes received that are in no turn yet.
        self._size = 0

    def greeting(self) -> bytes:
        """Return nothing: the sender begins."""
        return b""

    def feed(self, data: bytes, origin: Origin) -> list[Turn]:
        """Take what was read; return the turn that it makes whole. Behind the last turn nothing is taken."""
        if self._over:
            return []
        self._size += len(data)
        read = _Read(self._window)
        place = 0
        while place < len(data) and not read.broken:
            if self._missing:
                place = self._unpack(data, place, read)
            else:
                place = self._outer.take(data, place, read)
                if read.packed:
                    self._packed = self._missing = read.packed
                    self._zlib, read.packed = zlib.decompressobj(), 0
        return self._turn(read, origin)

    def close(self, origin: Origin) -> list[Turn]:
        """Return what the end of the stream leaves: a frame that was cut short is a reject."""
        if self._over:
            return []
        read = _Read(self._window)
        if self._missing:
            here = self._packed - self._missing
            read.break_off(self._inner.held, f"compressed frame of {self._packed} bytes, cut short after {here}")
        elif self._outer.held:
            read.break_off(
                self._outer.held, f"Lumberjack frame cut short, {self._outer.missing()} bytes or more to come"
            )
        self._over = True
        return self._turn(read, origin)

    def _unpack(self, data: bytes, place: int, read: "_Read") -> int:
        """Take what there is of a compressed frame; return the place behind it."""
        part = data[place : place + self._missing]
        place += len(part)
        self._missing -= len(part)
        plain = b""
        while part or len(plain) == _STEP:
            try:
                plain = self._zlib.decompress(part, _STEP)
            except zlib.error as error:
                read.break_off(part[: self._max], f"compressed frame of {self._packed} bytes is not zlib: {error}")
                break
            part = self._zlib.unconsumed_tail
            count = read.count()
            self._inner.take(plain, 0, read)
            read.unpacked += len(plain) + _EACH * (read.count() - count)
            if read.unpacked > self._max_unpacked and not read.broken:
                reason = f"compressed frame of {self._packed} bytes: one read holds more than {self._max_unpacked}"
                read.break_off(self._inner.held, reason)
            if read.broken:
                break
        unused = self._zlib.unused_data
        if not read.broken and (unused or (not self._missing and (self._inner.held or not self._zlib.eof))):
            reason = f"compressed frame of {self._packed} bytes does not end where its frames end"
            read.break_off((self._inner.held + unused)[: self._max], reason)
        return place

    def _turn(self, read: "_Read", origin: Origin) -> list[Turn]:
        self._over = self._over or read.broken
        answer = b"".join(read.answers)
        if not (read.frames or answer or read.rejects):
            return []
        decoded = self._decode(read.frames, origin) if read.frames else Decoded([], [])
        for raw, reason in read.rejects:
            decoded.rejects.append(Reject(origin.now, origin.transport, origin.peer, reason, raw))
        size, self._size = self._size, 0
        return [Turn(decoded, answer, size=size, last=self._over)]


class _Window:
    """What the sender waits for."""

    def __init__(self) -> None:
        #: Events that are to come, and the acknowledgement of those that have.
        self.missing = 0
        self.answer = b""

    def begin(self, count: int, version: bytes) -> bytes:
        """Begin a window; answer the one before if it is not whole, as Logstash does, and one of nothing at once."""
        answer = self.answer if self.missing else b""
        self.missing, self.answer = count, b""
        return answer if count else answer + _ANSWER.pack(version + b"A", 0)

    def add(self, version: bytes, sequence: int) -> bytes:
        """Count an event; answer if it is the last one, or in no window."""
        self.answer = _ANSWER.pack(version + b"A", sequence)
        self.missing -= 1
        if self.missing > 0:
            return b""
        self.missing = 0
        return self.answer


class _Read:
    """What one read brings."""

    def __init__(self, window: _Window) -> None:
        self.window = window
        self.frames: list[bytes] = []
        self.answers: list[bytes] = []
        self.rejects: list[tuple[bytes, str]] = []
        self.broken = False
        #: Length of the compressed frame that follows; and what those so far count for against the limit.
        self.packed = 0
        self.unpacked = 0

    def count(self) -> int:
        """Return how many events and answers there are."""
        return len(self.frames) + len(self.answers)

    def break_off(self, raw: bytes | bytearray, reason: str) -> None:
        """Say why nothing can be read any more."""
        self.rejects.append((bytes(raw), reason))
        self.broken = True


class _Frames:
    """A stream of frames, in pieces. Holds one frame at most, of a long one `max_frame` bytes of data."""

    def __init__(self, max_frame: int, *, inner: bool = False) -> None:
        self._max = max_frame
        self._inner = inner
        #: Of the frame that has begun: what has come of it, how much of it must have come to be looked at again, and
        #: how much follows that is not kept.
        self.held = bytearray()
        self._need = _START
        self._rest = 0

    def take(self, data: bytes, place: int, read: _Read) -> int:
        """Take frames up to the end, or a compressed one; return the place behind them."""
        size, longest, add, window = len(data), self._max, read.frames.append, read.window
        while place < size and not read.packed and not read.broken:
            if self.held or size - place < _EVENT.size:
                place = self._go_on(data, place, read)
                continue
            kind, sequence, length = _EVENT.unpack_from(data, place)
            start = place + _EVENT.size
            end = start + length
            if kind in _JSON and end <= size and length <= longest:
                if length:
                    add(data[start:end])
                if answer := window.add(kind[:1], sequence):
                    read.answers.append(answer)
                place = end
            else:
                place = self._go_on(data, place, read)
        return place

    def missing(self) -> int:
        """Return how many bytes the frame that has begun lacks, as far as it is known yet."""
        return self._need - len(self.held) + self._rest

    def _go_on(self, data: bytes, place: int, read: _Read) -> int:
        """Take what there is of a frame that has begun, or begins here; return the place behind it."""
        if self._rest and len(self.held) == self._need:
            end = min(place + self._rest, len(data))
            self._rest -= end - place
            if not self._rest:
                self._end_frame(read)
            return end
        end = min(place + self._need - len(self.held), len(data))
        self.held += data[place:end]
        if len(self.held) == self._need:
            try:
                self._need = self._needed()
            except ValueError as error:
                read.break_off((self.held + data[end : end + self._max])[: self._max], str(error))
            else:
                if len(self.held) == self._need and not self._rest:
                    self._end_frame(read)
        return end

    def _needed(self) -> int:
        """Return how much of the frame must have come to go on. Raises ValueError for what is no frame."""
        version, kind = bytes(self.held[:1]), bytes(self.held[1:2])
        header = _HEADERS.get(kind)
        if version not in _VERSIONS or header is None or (self._inner and kind == b"C"):
            where = "in a compressed frame" if self._inner else "as a Lumberjack frame"
            raise ValueError(f"bytes 0x{self.held[:_START].hex()} {where}, which has none such")
        if len(self.held) < header:
            return header
        if kind == b"D":
            return self._pairs_end()
        if kind == b"J":
            length = self._number(6)
            self._rest = max(length - self._max, 0)
            return header + length - self._rest
        return header

    def _pairs_end(self) -> int:
        count, end = self._number(6), _EVENT.size
        if count > _MOST_PAIRS:
            raise ValueError(f"Lumberjack event of {count} pairs, at most {_MOST_PAIRS}")
        for _ in range(2 * count):
            if end + _NUMBER.size > len(self.held):
                return end + _NUMBER.size
            end += _NUMBER.size + self._number(end)
            if end > self._max:
                raise ValueError(f"Lumberjack event of {end} bytes or more, at most {self._max}")
            if end > len(self.held):
                return end
        return end

    def _number(self, place: int) -> int:
        number: int = _NUMBER.unpack_from(self.held, place)[0]
        return number

    def _end_frame(self, read: _Read) -> None:
        """Do what a frame says that is whole, or is longer than allowed."""
        version, kind, number, frame = bytes(self.held[:1]), self.held[1:2], self._number(2), self.held
        self.held, self._need = bytearray(), _START
        if kind == b"W":
            read.answers.append(read.window.begin(number, version))
            return
        if kind == b"C":
            read.packed = number
            return
        if kind == b"D":
            read.frames.append(_to_json(frame))
        else:
            length = _NUMBER.unpack_from(frame, 6)[0]
            event = bytes(frame[_EVENT.size :])
            if length > self._max:
                read.rejects.append((event, f"event of {length} bytes, at most {self._max}"))
            elif event:
                read.frames.append(event)
        read.answers.append(read.window.add(version, number))


def _to_json(frame: bytearray) -> bytes:
    """Write an event of version 1 as JSON, its bytes as they are; `line` is the message."""
    texts, place = [], _EVENT.size
    while place < len(frame):
        start = place + _NUMBER.size
        place = start + _NUMBER.unpack_from(frame, place)[0]
        texts.append(frame[start:place].decode("latin-1"))
    event = dict(zip(texts[::2], texts[1::2], strict=True))
    if "line" in event:
        event.setdefault("message", event.pop("line"))
    return json.dumps(event, ensure_ascii=False).encode("latin-1")
