"""The journal of systemd to records, as systemd-journal-upload sends it: the Journal Export Format, without an end.

`JournalDecoder` takes a stream of any length in any pieces, and holds one entry and one batch at most.

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
import zlib
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from logagg.protocols.columns import Columnar
from logagg.protocols.journal_export import Entry, EntryReader
from logagg.protocols.json_columns import FEW, decode_objects
from logagg.protocols.mapping import add_note, from_object
from logagg.protocols.record import Decoded, Origin, Record, Reject

#: One cursor of so many ends a batch, of large entries more: one of so many KiB. So many entries or bytes end it too,
#: which hardly ever happens: such an end depends on where the batch began.
ONE_OF: Final = 512
MOST_ENTRIES: Final = 8192
MOST_BYTES: Final = 8 << 20

_CURSOR = "__CURSOR"
#: What the cursor says too: the place in the journal, and its clock.
_ADDRESS = ("__MONOTONIC_TIMESTAMP", "__SEQNUM", "__SEQNUM_ID")
_TIME, _SOURCE_TIME = "__REALTIME_TIMESTAMP", "_SOURCE_REALTIME_TIMESTAMP"


class Batch(NamedTuple):
    """A `session.Turn` with what tells of a repeat."""

    decoded: Decoded | Columnar
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
        left = [place for place in range(len(records)) if place not in known]
        # The first entry alone: it was the last of an answered request, and all requests begin behind it but this one.
        again = self.first and key_of(self.first) in stored
        rest = [records[place] for place in left] if isinstance(records, list) else records[left]
        return self._replace(
            decoded=self.decoded._replace(records=rest, rejects=rejects if left else []),  # type: ignore[arg-type]  # of one kind
            key=self.second if again and self.second else self.key,
            size=self.size * len(left) // len(records),
        )


class JournalDecoder:
    """Reads one stream. Never raises, whatever the bytes; keeps at most three times `max_frame` bytes of an entry.

    A field of more than `max_frame` bytes is cut, with a note in the record. An entry that cannot be read is a reject,
    and reading goes on behind the next blank line.
    """

    def __init__(self, max_frame: int) -> None:
        self._reader = EntryReader(max_frame)
        self._batches: list[Batch] = []
        self._origin: Origin
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
        self._entries: list[Entry] = []
        self._rejects: list[Reject] = []
        self._count = self._size = 0
        #: Of the entries so far; None once one had no cursor.
        self._key: str | None = ""
        self._forms: dict[str, tuple[int, int]] = {}
        self._first = self._final = ""

    def _add(self, entries: list[Entry], origin: Origin) -> list[Batch]:
        self._origin = origin
        for entry in entries:
            self._count += 1
            self._size += entry.size
            cursor = self._take(entry)
            if self._count >= MOST_ENTRIES or self._size >= MOST_BYTES or (cursor and _ends(cursor, entry.size)):
                self._end()
        batches, self._batches = self._batches, []
        return batches

    def _take(self, entry: Entry) -> str:
        """Add a record or a reject; return its cursor, empty for none. A reject changes no key: it has no cursor."""
        if entry.fields is None:
            now, transport, peer, _ = self._origin
            self._rejects.append(Reject(now, transport, peer, entry.note, entry.raw or b""))
            return ""
        cursor = entry.fields.get(_CURSOR)
        self._entries.append(entry)
        if type(cursor) is not str or not cursor or self._key is None:
            self._key = None
            return ""
        count = len(self._entries)
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
            decoded = _decoded(self._entries, self._rejects, self._origin)
            batch = Batch(decoded, size=self._size, first=self._first, final=self._final)
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


def _decoded(entries: Sequence[Entry], rejects: list[Reject], origin: Origin) -> Decoded | Columnar:
    """Make records, by columns where they are many and nothing is noted of any."""
    if len(entries) >= FEW and not any(entry.raw or entry.note for entry in entries):
        try:
            decoded = decode_objects([_fields(entry) for entry in entries], origin)
        except ValueError:
            pass  # one of them is for the reference, which takes all
        else:
            return decoded._replace(rejects=rejects)
    return Decoded([_record(entry, origin) for entry in entries], rejects)


def _record(entry: Entry, origin: Origin) -> Record:
    record = from_object(_fields(entry), origin, entry.raw)
    return add_note(record, entry.note) if entry.note else record


def _fields(entry: Entry) -> dict[str, Any]:
    """Return the fields as an object of its own, without what the cursor tells too."""
    fields = dict(entry.fields or {})
    if _CURSOR in fields:
        for name in _ADDRESS:
            fields.pop(name, None)
        if str(fields.get(_SOURCE_TIME)).isdecimal():
            fields.pop(_TIME, None)
    return fields
