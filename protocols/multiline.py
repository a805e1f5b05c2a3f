"""Lines that belong together become one record again: stack traces, which most senders send a line at a time.

A line continues the record before it of the same source, host, service and process when it looks like the inside of a
stack trace: it is indented, or begins as only such lines do (`Caused by:`, `... 12 more`, `goroutine 1 [running]:`); so
do all lines of a Python traceback up to the one with the exception. It is joined to the message with a line feed.
Nothing of it is lost but its own time and level: a line with other attributes than the first is not joined.

For listeners whose senders await no answer: syslog over TCP and UDP, JSON lines over TCP. A joiner holds records back
for its window, so what stands behind an answer (HTTP, RELP, Forward) must call `flush` before it stores a batch: there
it joins only what one batch brought.

`JoinedSession` and `JoinedDatagrams` stand between such a listener and what it decodes by.
"""

import re
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, NamedTuple

import orjson

from logagg.protocols.columns import Columnar, to_records
from logagg.protocols.record import Decoded, Decoder, Origin, Record
from logagg.protocols.session import Session, Turn

#: How lines begin that continue a record, whatever it is: with an indent and text, or as Java, .NET and Node.js write
#: between the frames of a trace.
_INSIDE: Final = re.compile(
    r"\s+\S"
    r"|at [\w$.<>/\[\]]+[ (]"
    r"|Caused by: |Suppressed: |Wrapped by: |\.\.\. \d+ (?:more|common frames omitted)"
    r"|--- End of (?:inner exception stack trace|stack trace from previous location)"
)
#: Python: the first line of a traceback; the last, with the exception; what stands between two tracebacks.
_TRACEBACK: Final = re.compile(r"\s*(?:\+ Exception Group )?Traceback \(most recent call last\):\s*$")
_EXCEPTION: Final = re.compile(r"[\w.]+(?:: .*|:)?$", re.DOTALL)
_BETWEEN: Final = re.compile(r"During handling of the above exception|The above exception was the direct cause")
#: Go: the first line of a trace; the others, whose places are indented and whose names are not.
_GOROUTINE: Final = re.compile(r"goroutine \d+ \[[^\]]*\]:\s*$")
_GO_FRAME: Final = re.compile(r"[\w./*()\-\[\]{}·]+\(.*\)(?: in goroutine \d+)?$|created by |exit status \d")


class _Inside(Enum):
    """Where the last line of a record leaves off."""

    TEXT = 1
    PYTHON = 2
    GO = 3


#: Who says the lines: only lines of one are joined.
_Key = tuple[str | None, str | None, str | None, object]


class _Open(NamedTuple):
    """A record that the next lines may continue, and its lines so far."""

    record: Record
    lines: list[Record]
    #: Characters of the lines.
    size: int
    #: When it came; it is let go a window later.
    since: datetime
    inside: _Inside


class Joiner:
    """Joins the lines of one listener. It holds at most one record for each sender's process.

    `patience` is the window, from the first line on; a record that has `max_lines` lines or would grow beyond
    `max_size` characters is let go, and the next line begins another. At most `max_open` wait at a time, of `max_held`
    characters.
    """

    def __init__(
        self,
        patience: timedelta,
        max_lines: int = 500,
        max_size: int = 65_536,
        max_open: int = 4096,
        max_held: int = 1 << 20,
    ) -> None:
        self._patience = patience
        self._max_lines = max_lines
        self._max_size = max_size
        self._max_open = max_open
        self._max_held = max_held
        #: Characters of all lines.
        self._held = 0
        #: In the order in which they came, the oldest first.
        self._open: dict[_Key, _Open] = {}

    def __len__(self) -> int:
        """Return how many records wait."""
        return len(self._open)

    def feed(self, records: list[Record], now: datetime) -> list[Record]:
        """Take records in their order; return those that nothing continues any more. Each process keeps its order."""
        done = self.expire(now)
        for record in records:
            key = (record.source, record.host, record.service, _process(record))
            before = self._open.get(key)
            if before is not None:
                inside = _goes_on(before.inside, record.message) if self._fits(before, record) else None
                if inside is not None:
                    before.lines.append(record)
                    self._held += len(record.message) + 1
                    self._open[key] = before._replace(size=before.size + len(record.message) + 1, inside=inside)
                    continue
                done.append(self._let_go(key))
            inside = _goes_on(_Inside.TEXT, record.message) or _Inside.TEXT
            self._open[key] = _Open(record, [record], len(record.message), now, inside)
            self._held += len(record.message)
            while len(self._open) > self._max_open or (self._held > self._max_held and len(self._open) > 1):
                done.append(self._let_go(next(iter(self._open))))
        return done

    def expire(self, now: datetime) -> list[Record]:
        """Return the records whose window is over."""
        done = []
        for key, each in list(self._open.items()):
            if now - each.since < self._patience:
                break
            done.append(self._let_go(key))
        return done

    def flush(self) -> list[Record]:
        """Return all that waits."""
        return list(map(self._let_go, list(self._open)))

    def _let_go(self, key: _Key) -> Record:
        each = self._open.pop(key)
        self._held -= each.size
        return _joined(each)

    def _fits(self, before: _Open, record: Record) -> bool:
        """Tell whether there is room, and nothing but time and level would be lost."""
        return (
            len(before.lines) < self._max_lines
            and before.size + 1 + len(record.message) <= self._max_size
            and record[_ALIKE] == before.record[_ALIKE]
        )


class JoinedSession:
    """A connection whose lines are joined. For senders that await no answer.

    The listener calls `expire` once a second or so; `close` gives all that waits.
    """

    def __init__(self, inner: Session, joiner: Joiner) -> None:
        self._inner = inner
        self._joiner = joiner
        #: Bytes received whose records wait.
        self._size = 0

    def greeting(self) -> bytes:
        """Return what the inner session says."""
        return self._inner.greeting()

    def feed(self, data: bytes, origin: Origin) -> list[Turn]:
        """Take what was read; return the records that nothing continues any more."""
        return [self._joined(turn, origin) for turn in self._inner.feed(data, origin)]

    def expire(self, now: datetime) -> list[Turn]:
        """Return the records whose window is over."""
        return self._turns(self._joiner.expire(now))

    def close(self, origin: Origin) -> list[Turn]:
        """Return all records that are left."""
        turns = [self._joined(turn, origin) for turn in self._inner.close(origin)]
        return turns + self._turns(self._joiner.flush())

    def _joined(self, turn: Turn, origin: Origin) -> Turn:
        decoded = _decoded(turn.decoded, self._joiner, origin.now)
        size, self._size = self._size + turn.size, 0
        if not (decoded.records or decoded.rejects):
            self._size, size = size, 0
        return turn._replace(decoded=decoded, size=size)

    def _turns(self, records: list[Record]) -> list[Turn]:
        if not records:
            return []
        size, self._size = self._size, 0
        return [Turn(Decoded(records, []), size=size)]


class JoinedDatagrams:
    """A decoder of datagrams whose lines are joined, and what a listener of datagrams calls now and then: `expire`."""

    def __init__(self, decode: Decoder, joiner: Joiner) -> None:
        self._decode = decode
        self._joiner = joiner

    def __call__(self, frames: list[bytes], origin: Origin) -> Decoded:
        """Decode the datagrams of one sender; return the records that nothing continues any more."""
        return _decoded(self._decode(frames, origin), self._joiner, origin.now)

    def expire(self, now: datetime | None) -> Decoded:
        """Return the records whose window is over; with None all that is left."""
        return Decoded(self._joiner.flush() if now is None else self._joiner.expire(now), [])


def _decoded(decoded: Decoded | Columnar, joiner: Joiner, now: datetime) -> Decoded:
    records = decoded.records if isinstance(decoded, Decoded) else to_records(decoded.records)
    return Decoded(joiner.feed(records, now), decoded.rejects)


#: Fields that joined records have in common besides those of their key: attributes, trace and span.
_ALIKE: Final = slice(Record._fields.index("attributes"), Record._fields.index("raw"))


def _goes_on(inside: _Inside, line: str) -> _Inside | None:
    """Return where a line leaves off if it continues a record that left off `inside`; None if it does not."""
    if _TRACEBACK.match(line):
        return _Inside.PYTHON
    if _GOROUTINE.match(line):
        return _Inside.GO
    if inside is _Inside.PYTHON and not line[:1].isspace():
        return _Inside.TEXT if _EXCEPTION.match(line) else None
    if inside is _Inside.GO and _GO_FRAME.match(line):
        return _Inside.GO
    return inside if _INSIDE.match(line) or _BETWEEN.match(line) else None


def _joined(each: _Open) -> Record:
    if len(each.lines) == 1:
        return each.record
    raw = None
    if any(line.raw is not None for line in each.lines):
        raw = b"\n".join(line.message.encode() if line.raw is None else line.raw for line in each.lines)
    return each.record._replace(message="\n".join(line.message for line in each.lines), raw=raw)


def _process(record: Record) -> object:
    """Return the number of the process, if the record says it."""
    attributes = record.attributes
    if attributes is None or '"procid"' not in attributes:
        return None
    try:
        return str(orjson.loads(attributes).get("procid"))
    except ValueError:  # deeper than orjson reads
        return attributes
