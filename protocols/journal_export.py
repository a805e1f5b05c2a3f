"""The Journal Export Format: bytes to entries.

https://systemd.io/JOURNAL_EXPORT_FORMATS/: a field is a line `NAME=text`, or a line `NAME`, eight bytes of length
(little endian), that many bytes and a LF; a blank line ends an entry.
"""

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from logagg.protocols.clean import to_text

if TYPE_CHECKING:
    from collections.abc import Callable

#: The longest field that systemd itself takes (DATA_SIZE_MAX); what says that it is longer is no journal.
LONGEST_FIELD: Final = 768 << 20
#: Memory that a field takes besides its bytes.
FIELD_COST: Final = 64

_NAME: Final = re.compile(rb"[A-Za-z0-9_.-]{1,256}")
_LF: Final = ord("\n")


class Entry(NamedTuple):
    """An entry as it was read."""

    #: Names and values, a list of them where a name comes again; None for what cannot be read.
    fields: dict[str, Any] | None
    #: Bytes in the stream.
    size: int
    #: Its bytes, the first `max_frame` of them, where something had to be replaced or it cannot be read.
    raw: bytes | None = None
    #: Why it cannot be read, or what had to be cut.
    note: str = ""


class EntryReader:
    """Bytes of a stream to entries. What has come of an entry is never looked at twice."""

    def __init__(self, max_frame: int) -> None:
        self._max = max_frame
        self._entries: list[Entry] = []
        self._size = 0
        self._broken = ""
        self._begin()

    def feed(self, data: bytes) -> list[Entry]:
        """Take what was read; return the entries that it completes."""
        at = 0
        while at < len(data):
            if not self._size:
                at = self._plain(data, at)
                if at == len(data):
                    break
            before, at = at, self._state(data, at)
            self._size += at - before
            _keep(self._raw, data[before:at], self._max)
            if self._ended:
                self._end()
        return self._take()

    def close(self) -> list[Entry]:
        """Return the entry that has begun, if any; one that is cut short cannot be read."""
        if self._size:
            if self._state == self._line:
                self._end_line()
            if self._state != self._line and not self._broken:
                self._broken = f"journal entry cut short after {self._size} bytes"
            self._end()
        return self._take()

    def _take(self) -> list[Entry]:
        entries, self._entries = self._entries, []
        return entries

    def _plain(self, data: bytes, at: int) -> int:
        """Take whole entries of text only, as most are, up to the first other one; return the place behind them."""
        while (end := data.find(b"\n\n", at)) >= 0 and end - at <= self._max:
            try:
                lines = data[at:end].decode().split("\n")
            except UnicodeDecodeError:
                break
            fields: dict[str, Any] = {
                name: value for name, equals, value in [line.partition("=") for line in lines] if equals
            }
            # A field in binary form has no "=" in its line; a name may come again.
            if len(fields) != len(lines) or data.find(b"\0", at, end) >= 0:
                break
            if end - at + FIELD_COST * len(lines) > self._max:  # something may have to be cut
                break
            self._entries.append(Entry(fields, end + 2 - at))
            at = end + 2
        return at

    # All others come piece by piece: each state takes what it can of the data and returns the place behind it.

    def _begin(self) -> None:
        self._state: Callable[[bytes, int], int] = self._line
        self._ended = False
        #: Why it cannot be read.
        self._broken = ""
        #: Bytes so far, and the first of them.
        self._size = 0
        self._raw = bytearray()
        self._fields: list[tuple[bytes, bytes]] = []
        self._notes: list[str] = []
        self._left_out = 0
        #: What fields may still take; each may take half of it, so that a large one leaves room for the message.
        self._room = 2 * self._max
        #: Of a field in binary form: its name, and how many bytes of it are still to come.
        self._name = b""
        self._missing = 0
        self._begin_part()

    def _begin_part(self) -> None:
        """Begin a line, a length or a value: its first bytes, and how many there were."""
        self._part = bytearray()
        self._part_size = 0

    def _hold(self, data: bytes, at: int, end: int) -> None:
        _keep(self._part, data[at:end], self._room // 2)
        self._part_size += end - at

    def _line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        if end < 0:
            self._hold(data, at, len(data))
            return len(data)
        self._hold(data, at, end)
        self._ended = not self._part_size
        self._end_line()
        return end + 1

    def _end_line(self) -> None:
        line, size = bytes(self._part), self._part_size
        name, equals, value = line.partition(b"=")
        if equals:
            self._add_field(name, value, size - len(name) - 1)
        elif size and (size > len(line) or not _NAME.fullmatch(line)):
            self._broken = self._broken or f"journal entry with a line of {size} bytes that is no field"
        elif size:
            self._name, self._state = line, self._length
        self._begin_part()

    def _length(self, data: bytes, at: int) -> int:
        end = min(len(data), at + 8 - len(self._part))
        self._part += data[at:end]
        if len(self._part) == 8:
            self._missing = int.from_bytes(self._part, "little")
            self._state = self._value
            self._begin_part()
            if self._missing > LONGEST_FIELD:
                self._give_up(f"journal field of {self._missing} bytes, at most {LONGEST_FIELD}")
        return end

    def _value(self, data: bytes, at: int) -> int:
        end = min(len(data), at + self._missing)
        self._hold(data, at, end)
        self._missing -= end - at
        if self._missing or end == len(data):
            return end
        if data[end] != _LF:
            self._give_up(f"journal field of {self._part_size} bytes without a line feed behind it")
            return end
        self._add_field(self._name, bytes(self._part), self._part_size)
        self._begin_part()
        self._state = self._line
        return end + 1

    def _give_up(self, reason: str) -> None:
        self._broken = self._broken or reason
        self._begin_part()
        self._state = self._skip

    def _skip(self, data: bytes, at: int) -> int:
        """Look for the blank line that ends the entry. `_part` has the byte before the data."""
        if self._part == b"\n" and data[at] == _LF:
            self._ended = True
            return at + 1
        end = data.find(b"\n\n", at)
        self._part[:] = data[-1:]
        self._ended = end >= 0
        return end + 2 if self._ended else len(data)

    def _add_field(self, name: bytes, value: bytes, size: int) -> None:
        cost = len(name) + len(value) + FIELD_COST
        if cost > self._room:
            self._left_out += 1
            return
        self._room -= cost
        if len(value) < size:
            self._notes.append(f"{to_text(name)[0]} cut: {size} bytes, kept {len(value)}")
        self._fields.append((name, value))

    def _end(self) -> None:
        """End an entry; a blank line too many is none."""
        raw, size, notes = bytes(self._raw), self._size, self._notes
        if self._left_out:
            notes.append(f"{self._left_out} fields left out: more than {2 * self._max} bytes")
        if self._broken:
            self._entries.append(Entry(None, size, raw, self._broken))
        elif self._fields or notes:
            fields, replaced = _texts(self._fields)
            self._entries.append(Entry(fields, size, raw if replaced else None, "; ".join(notes)))
        self._begin()


def _keep(into: bytearray, data: bytes, limit: int) -> None:
    """Add what there is room for."""
    if (room := limit - len(into)) > 0:
        into += data[:room]


def _texts(pairs: list[tuple[bytes, bytes]]) -> tuple[dict[str, Any], bool]:
    """Return fields as text, a list where a name comes again; and whether something had to be replaced."""
    fields: dict[str, Any] = {}
    replaced = False
    for name_bytes, value_bytes in pairs:
        name, bad_name = to_text(name_bytes)
        value, bad_value = to_text(value_bytes)
        replaced = replaced or bad_name or bad_value
        if name not in fields:
            fields[name] = value
        elif isinstance(fields[name], list):
            fields[name].append(value)
        else:
            fields[name] = [fields[name], value]
    return fields, replaced
