"""msgpack: values of a stream found whole, unpacked, and made such that JSON and PostgreSQL take them.

https://github.com/msgpack/msgpack/blob/master/spec.md
"""

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import msgpack
import numpy as np

from logagg.protocols import jsontext
from logagg.protocols.clean import clean_text, to_text
from logagg.protocols.framing import Cut
from logagg.protocols.times import from_epoch

NIL: Final = 0xC0
#: First bytes of an array: up to 15 items, up to 65,535, up to 4,294,967,295.
ARRAYS: Final = frozenset([*range(0x90, 0xA0), 0xDC, 0xDD])
#: First bytes of a map, likewise.
MAPS: Final = frozenset([*range(0x80, 0x90), 0xDE, 0xDF])

#: The microseconds of fewer seconds (1973 and before) would be taken for milliseconds by `from_epoch`.
FEW_SECONDS: Final = 100_000_000
_NANO = 1_000_000_000
#: An EventTime of Fluent, ext type 0: seconds and nanoseconds.
_EVENT_TIME = struct.Struct(">II")
#: Seconds from here on are -1 and -2, which fluent-bit uses as marks.
_NEGATIVE = (1 << 32) - 2
#: Bytes that an Unpacker takes for itself; its own choice is a megabyte.
_READ_SIZE = 4096


def split(packed: bytes | memoryview) -> tuple[list[int], str]:
    """Return the ends of the values in `packed`, and what is wrong with the bytes behind them, empty for nothing."""
    unpacker, ends, end = _unpacker(), list[int](), 0
    unpacker.feed(packed)
    skip, tell = unpacker.skip, unpacker.tell
    try:
        while end < len(packed):
            skip()
            end = tell()
            ends.append(end)
    except msgpack.OutOfData:
        return ends, _cut_short(len(packed) - end)
    except ValueError as error:
        return ends, trouble_of(error)
    return ends, ""


def pieces(packed: bytes, size: int, starts: frozenset[int]) -> Iterator[tuple[int, int, str]]:
    """Cut values that follow each other into pieces of about `size` bytes: the end of each, and how many it has.

    The last says what is wrong with the bytes behind it, such as a value that begins with none of `starts`.
    """
    unpacker, end, many, full, trouble = _unpacker(), 0, 0, size, ""
    unpacker.feed(packed)
    skip, tell, whole = unpacker.skip, unpacker.tell, len(packed)
    try:
        while end < whole:
            if packed[end] not in starts:
                trouble = f"byte 0x{packed[end]:02x} where an event should begin"
                break
            skip()
            end = tell()
            many += 1
            if end >= full:
                yield end, many, ""
                many, full = 0, end + size
    except msgpack.OutOfData:
        trouble = _cut_short(whole - end)
    except ValueError as error:
        trouble = trouble_of(error)
    if many or trouble:
        yield end, many, trouble


def _cut_short(size: int) -> str:
    return f"msgpack of {size} bytes, cut short"


def unpack(packed: bytes, pairs: Callable[[list[tuple[Any, Any]]], Any] | None = None) -> Any:
    """Unpack one whole value: bytes that are no UTF-8 become surrogates, an EventTime a number.

    `pairs` makes a value of each map. Raises ValueError or TypeError.
    """
    return msgpack.unpackb(
        packed, ext_hook=_ext, object_pairs_hook=pairs, strict_map_key=False, unicode_errors="surrogateescape"
    )


def unpack_all(packed: list[bytes], many: int) -> list[Any]:
    """Unpack so many values. All must be whole: then no more items are made than there are bytes.

    What is of an ext type becomes a slice of its type and bytes: nothing is made with less. Raises ValueError, also
    for bytes that are no UTF-8, or TypeError.
    """
    array = b"".join([b"\xdd", many.to_bytes(4, "big"), *packed])
    values: list[Any] = msgpack.unpackb(array, ext_hook=slice, strict_map_key=False)
    return values


def event_times(times: Sequence[slice]) -> list[int]:
    """Return microseconds of EventTimes of `unpack_all`. Raises ValueError for others, and those of before 1973."""
    if {time.start for time in times} != {0} or {len(time.stop) for time in times} != {_EVENT_TIME.size}:
        raise ValueError("no EventTimes")
    seconds, nanoseconds = np.frombuffer(b"".join([time.stop for time in times]), dtype=">u4").reshape(-1, 2).T
    if seconds.min() < FEW_SECONDS or seconds.max() >= _NEGATIVE:
        raise ValueError("times for the reference")
    micros: list[int] = (seconds.astype(np.int64) * 1_000_000 + nanoseconds // 1000).tolist()
    return micros


def trouble_of(error: Exception) -> str:
    """Say why msgpack could not be read; its own errors often say nothing."""
    if isinstance(error, msgpack.StackError):
        return "msgpack nested too deeply: 1000 levels are read"
    if isinstance(error, msgpack.FormatError):
        return "not msgpack"
    return str(error)


class MsgpackFramer:
    """Bytes of a connection to arrays of msgpack, each a frame; nil between them is nothing. See `framing.py`.

    Nothing says where the frame behind a broken one begins: all that follows is broken too, and so the connection is
    best closed (`ended`). Holds at most `max_frame` bytes and one read, twice; looks at each byte once.
    """

    def __init__(self, max_frame: int) -> None:
        #: Bytes of a frame; may be changed.
        self.max_frame = max_frame
        #: Whether something was broken.
        self.ended = False
        self._unpacker = _unpacker()
        #: From the first frame that is not whole on; where that is in the stream.
        self._held = bytearray()
        self._base = 0
        self._broken: list[tuple[bytes, str]] = []

    def feed(self, data: bytes) -> list[bytes]:
        """Give the frames that `data` completes."""
        if self.ended:
            self._broken.append((data, "behind what could not be read"))
            return []
        self._held += data
        self._unpacker.feed(data)
        frames: list[bytes] = []
        end, trouble = self._find(frames)
        del self._held[:end]
        self._base += end
        if not trouble and len(self._held) > self.max_frame:
            trouble = f"message of more than {self.max_frame} bytes"
        if trouble:
            self._end(trouble)
        return frames

    def close(self) -> list[bytes]:
        """Give nothing: what is not whole at the end is broken."""
        if self._held:
            self._end(_cut_short(len(self._held)))
        return []

    def take_cut(self) -> list[Cut]:
        """Give nothing: a frame over the limit is broken."""
        return []

    def take_broken(self) -> list[tuple[bytes, str]]:
        """Give what will never be a frame, each with the reason, since this was last asked."""
        broken, self._broken = self._broken, []
        return broken

    def _find(self, frames: list[bytes]) -> tuple[int, str]:
        """Add the frames that are whole; return the place behind them, and what is wrong there."""
        held, unpacker, end = self._held, self._unpacker, 0
        try:
            while end < len(held):
                if held[end] not in ARRAYS and held[end] != NIL:
                    return end, f"byte 0x{held[end]:02x} where an array of msgpack should begin"
                unpacker.skip()
                start, end = end, unpacker.tell() - self._base
                if end - start > self.max_frame:
                    return start, f"message of more than {self.max_frame} bytes"
                if held[start] != NIL:
                    frames.append(bytes(memoryview(held)[start:end]))
        except msgpack.OutOfData:
            return end, ""
        except ValueError as error:
            return end, trouble_of(error)
        return end, ""

    def _end(self, trouble: str) -> None:
        self._broken.append((bytes(self._held[: self.max_frame]), trouble))
        self._held.clear()
        self._unpacker = _unpacker()
        self.ended = True


def _unpacker() -> Any:
    return msgpack.Unpacker(read_size=_READ_SIZE, max_buffer_size=0)


def _ext(code: int, data: bytes) -> Any:
    if code != 0 or len(data) != _EVENT_TIME.size:
        return msgpack.ExtType(code, data)
    seconds, nanoseconds = _EVENT_TIME.unpack(data)
    if seconds >= _NEGATIVE:
        return seconds - (1 << 32)
    return time_of(seconds * _NANO + nanoseconds)


def time_of(nanoseconds: int) -> float:
    """Return what `from_epoch` understands: microseconds, or seconds where those would be taken for less."""
    return nanoseconds // 1000 if nanoseconds >= FEW_SECONDS * _NANO else nanoseconds / _NANO


def name_of(value: object) -> str:
    """Say what a value is, as `jsontext.name_of` does."""
    if isinstance(value, msgpack.ExtType):
        return f"ext type {value.code} of {len(value.data)} bytes"
    return "binary" if isinstance(value, bytes) else jsontext.name_of(value)


class Cleaner:
    """Makes values that JSON and PostgreSQL take of msgpack's, and sees whether something had to be replaced."""

    def __init__(self) -> None:
        self.replaced = False

    def object(self, pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
        """Make an object with keys that are text."""
        pairs = list(pairs)
        made = {key if type(key) is str else self._key(key): value for key, value in pairs}
        self.replaced |= len(made) < len(pairs)
        return made

    def value(self, value: Any) -> Any:
        """Clean a value, whose maps were made by `object`. Raises RecursionError."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bytes):
            return self._bytes(value)
        if isinstance(value, dict):
            return self.object((self._text(key), self.value(item)) for key, item in value.items())
        if isinstance(value, msgpack.ExtType):  # before list, for it is a tuple; and so is a Timestamp not
            return value.data.hex()
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, msgpack.Timestamp):
            moment = from_epoch(value.to_unix_nano())
            return moment.isoformat() if moment else str(value.to_unix_nano())
        if isinstance(value, float) and not math.isfinite(value):
            self.replaced = True
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return value

    def _text(self, text: str) -> str:
        cleaned = clean_text(text)
        self.replaced |= cleaned != text
        return cleaned

    def _bytes(self, data: bytes) -> str:
        text, replaced = to_text(data)
        self.replaced |= replaced
        return text

    def _key(self, key: Any) -> str:
        cleaned = self.value(key)
        return cleaned if isinstance(cleaned, str) else jsontext.dumps(cleaned)
