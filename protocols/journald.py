"""The journal of systemd to records, as systemd-journal-upload sends it: the Journal Export Format, without an end.

https://systemd.io/JOURNAL_EXPORT_FORMATS/: a field is a line `NAME=text`, or a line `NAME`, eight bytes of length
(little endian), that many bytes and a LF; a blank line ends an entry. `JournalDecoder` takes a stream of any length in
any pieces, and holds one entry and one batch at most.

**A repeat is stored once.** systemd-journal-upload sends all that its journal has in one request, and remembers the
cursor of the last entry when the answer is 2xx. After any failure it sends everything behind that again, and by then
more: a request is never repeated as it was. But batches are, because an entry's own cursor decides whether it ends one,
wherever the request began; the key of a batch is made of the cursors in it. Three pieces come again otherwise:

- the last batch of a request, which its end cut short, as the head of a longer one;
- the last entry of an answered request, as the first of the next one, when the program starts (seen in 252);
- so the first batch of a request, with or without that entry before it.

Therefore `forms` of a batch has the keys under which parts of it may be stored already, and `rest` leaves these out.
Two keys are to be stored: that of what `rest` returns, in the transaction that stores its records; and, before a
request is answered, `key_of` its last cursor.
"""

import hashlib
import re
import zlib
from collections.abc import Callable, Collection, Mapping
from itertools import chain
from typing import Any, Final, NamedTuple

from logagg.protocols.clean import to_text
from logagg.protocols.mapping import add_note, from_object
from logagg.protocols.record import Decoded, Origin, Record, Reject

#: One cursor of so many ends a batch, of large entries more: one of so many KiB. So many entries or bytes end it too,
#: which hardly ever happens: such an end depends on where the batch began.
ONE_OF: Final = 512
MOST_ENTRIES: Final = 8192
MOST_BYTES: Final = 8 << 20
#: The longest field that systemd itself takes (DATA_SIZE_MAX); what says that it is longer is no journal.
LONGEST_FIELD: Final = 768 << 20
#: Memory that a field takes besides its bytes.
FIELD_COST: Final = 64

_CURSOR = "__CURSOR"
#: What the cursor says too: the place in the journal, and its clock.
_ADDRESS = ("__MONOTONIC_TIMESTAMP", "__SEQNUM", "__SEQNUM_ID")
_TIME, _SOURCE_TIME = "__REALTIME_TIMESTAMP", "_SOURCE_REALTIME_TIMESTAMP"
_NAME = re.compile(rb"[A-Za-z0-9_.-]{1,256}")
_LF = ord("\n")


class Batch(NamedTuple):
    """A `session.Turn` with what tells of a repeat."""

    decoded: Decoded
    #: Always empty: the one answer to the request is sent when all its batches are durable.
    answer: bytes = b""
    #: Made of the cursors of all entries, 16 bytes in hexadecimal digits; None when one has none.
    key: str | None = None
    size: int = 0
    last: bool = False
    #: In the first batch of a request, the key that it has without its first entry.
    second: str | None = None
    #: Parts that may be stored already: from which record up to which (not included) are, if this key is stored.
    forms: Mapping[str, tuple[int, int]] = {}
    #: The first and the last cursor in it; empty where there is none.
    first: str = ""
    final: str = ""

    def rest(self, stored: Collection[str]) -> "Batch":
        """Return what is not stored yet, and its key. `stored` are those keys of `forms` that are."""
        if not stored:
            return self
        records, rejects = self.decoded.records, self.decoded.rejects
        known = set(chain.from_iterable(range(*self.forms[key]) for key in stored))
        left = [record for place, record in enumerate(records) if place not in known]
        # The first entry alone: it was the last of an answered request, and all requests begin behind it but this one.
        again = self.first and key_of(self.first) in stored
        return self._replace(
            decoded=Decoded(left, rejects if left else []),
            key=self.second if again and self.second else self.key,
            size=self.size * len(left) // len(records),
        )


class _Entry(NamedTuple):
    """An entry as it was read."""

    #: Names and values, a list of them where a name comes again; None for what cannot be read.
    fields: dict[str, Any] | None
    #: Bytes in the stream.
    size: int
    #: Its bytes, the first `max_frame` of them, where something had to be replaced or it cannot be read.
    raw: bytes | None = None
    #: Why it cannot be read, or what had to be cut.
    note: str = ""


class JournalDecoder:
    """Reads one stream. Never raises, whatever the bytes; keeps at most three times `max_frame` bytes of an entry.

    A field of more than `max_frame` bytes is cut, with a note in the record. An entry that cannot be read is a reject,
    and reading goes on behind the next blank line.
    """

    def __init__(self, max_frame: int) -> None:
        self._reader = _Reader(max_frame)
        self._batches: list[Batch] = []
        #: Of the first batch, what its key is without its first record; None in all others.
        self._second: str | None = ""
        self._begin()

    def feed(self, data: bytes, origin: Origin) -> list[Batch]:
        """Take what was read; return the batches that it completes."""
        return self._add(self._reader.feed(data), origin)

    def flush(self) -> list[Batch]:
        """End the batch that has begun: its records have waited long enough. The entry that has begun goes on."""
        self._end()
        batches, self._batches = self._batches, []
        return batches

    def close(self, origin: Origin) -> list[Batch]:
        """Return what is left at the end that the sender meant. Not for a stream that breaks off: it comes again."""
        return self._add(self._reader.close(), origin) + self.flush()

    def _begin(self) -> None:
        self._decoded = Decoded([], [])
        self._count = self._size = 0
        #: Of the entries so far; None once one had no cursor.
        self._key: str | None = ""
        self._forms: dict[str, tuple[int, int]] = {}
        self._first = self._final = ""

    def _add(self, entries: list[_Entry], origin: Origin) -> list[Batch]:
        for entry in entries:
            self._count += 1
            self._size += entry.size
            cursor = self._decode(entry, origin)
            if self._count >= MOST_ENTRIES or self._size >= MOST_BYTES or (cursor and _ends(cursor, entry.size)):
                self._end()
        batches, self._batches = self._batches, []
        return batches

    def _decode(self, entry: _Entry, origin: Origin) -> str:
        """Add a record or a reject; return its cursor, empty for none. A reject changes no key: it has no cursor."""
        fields = entry.fields
        if fields is None:
            reject = Reject(origin.now, origin.transport, origin.peer, entry.note, entry.raw or b"")
            self._decoded.rejects.append(reject)
            return ""
        cursor = fields.get(_CURSOR)
        self._decoded.records.append(_record(entry, fields, origin))
        if type(cursor) is not str or not cursor or self._key is None:
            self._key = None
            return ""
        count = len(self._decoded.records)
        self._key = _chained(self._key, cursor)
        self._forms[self._key] = (0, count)
        if self._second is not None and count > 1:
            self._second = _chained(self._second, cursor)
            self._forms[self._second] = (1, count)
        self._first = self._first or cursor
        self._final = cursor
        return cursor

    def _end(self) -> None:
        if self._count:
            batch = Batch(self._decoded, size=self._size, first=self._first, final=self._final)
            if self._key:
                batch = batch._replace(key=self._key, second=self._second or None, forms=self._forms)
            self._batches.append(batch)
            self._second = None
            self._begin()


def key_of(cursor: str) -> str:
    """Return the key of an entry alone."""
    return _chained("", cursor)


def _chained(key: str, cursor: str) -> str:
    """Return the key of a batch with one more cursor."""
    return hashlib.blake2b(f"{key} {cursor}".encode(), digest_size=16).hexdigest()


def _ends(cursor: str, size: int) -> bool:
    """Tell whether an entry with this cursor ends a batch; the same in every request."""
    return zlib.crc32(cursor.encode()) % ONE_OF <= size >> 10


def _record(entry: _Entry, fields: dict[str, Any], origin: Origin) -> Record:
    """Make a record. What the cursor tells too is left out."""
    if _CURSOR in fields:
        for name in _ADDRESS:
            fields.pop(name, None)
        if str(fields.get(_SOURCE_TIME)).isdecimal():
            fields.pop(_TIME, None)
    record = from_object(fields, origin, entry.raw)
    return add_note(record, entry.note) if entry.note else record


class _Reader:
    """Bytes of a stream to entries. What has come of an entry is never looked at twice."""

    def __init__(self, max_frame: int) -> None:
        self._max = max_frame
        self._entries: list[_Entry] = []
        self._size = 0
        self._broken = ""
        self._begin()

    def feed(self, data: bytes) -> list[_Entry]:
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

    def close(self) -> list[_Entry]:
        if self._size:
            if self._state == self._line:
                self._end_line()
            if self._state != self._line and not self._broken:
                self._broken = f"journal entry cut short after {self._size} bytes"
            self._end()
        return self._take()

    def _take(self) -> list[_Entry]:
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
            self._entries.append(_Entry(fields, end + 2 - at))
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
            self._entries.append(_Entry(None, size, raw, self._broken))
        elif self._fields or notes:
            fields, replaced = _texts(self._fields)
            self._entries.append(_Entry(fields, size, raw if replaced else None, "; ".join(notes)))
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
