"""What is asked and what is answered: the plain types that the engine takes and gives."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import polars as pl

#: By timestamp, then by id.
Order = Literal["newest", "oldest"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """Which records. All conditions hold at once; None is no condition."""

    #: Earliest and latest timestamp, both inclusive, aware.
    start: datetime | None = None
    end: datetime | None = None
    #: A query in the language (`language.py`).
    q: str | None = None
    #: The name of one level: exactly this one.
    level: str | None = None
    #: Exact, with case.
    service: str | None = None
    host: str | None = None
    environment: str | None = None
    source: str | None = None
    #: Words that must all stand in the record, in any order; no syntax.
    words: str | None = None
    #: Columns, and the only values that they may have, whatever else is asked.
    only: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(slots=True)
class Stats:
    """What a question cost."""

    #: Batches that may hold records of the time range.
    batches: int = 0
    #: Batches not read, by the reason: the column that cannot match (`timestamp`, `service` ...), `filter` (a word is
    #: not in it), `order` (what was found already comes first) or `counted` (what is known of it is the answer).
    skipped: dict[str, int] = field(default_factory=dict)
    #: Batches read, by their form: `open`, `rows`, `packed`; and the records in them.
    read: dict[str, int] = field(default_factory=dict)
    records: int = 0
    #: Bytes that came from PostgreSQL for them, and the reads of packed batches for which none had to.
    fetched: int = 0
    cached: int = 0
    #: What could not be read and is missing from the answer, a sentence each.
    damaged: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def scanned(self) -> int:
        """Batches read."""
        return sum(self.read.values())

    def skip(self, reason: str, batches: int = 1) -> None:
        """Count batches that were not read."""
        if batches:
            self.skipped[reason] = self.skipped.get(reason, 0) + batches

    def as_dict(self) -> dict[str, Any]:
        """Return it as the HTTP API gives it, but for what was damaged."""
        return {
            "batches": self.batches,
            "skipped": self.skipped,
            "read": self.read,
            "records": self.records,
            "fetched_bytes": self.fetched,
            "cached_reads": self.cached,
            "took_ms": round(self.seconds * 1000, 3),
        }


@dataclass(frozen=True, slots=True)
class Found:
    """Records, in the order asked for."""

    #: Keys: id, timestamp, received_at (aware datetimes), level (name), service, host, environment, source, facility,
    #: message, attributes (dict), trace_id, span_id.
    records: list[dict[str, Any]]
    #: Give it back to read on after the last record; None when there was no more.
    cursor: str | None
    #: How many records match at all; None unless asked for.
    total: int | None
    stats: Stats


@dataclass(frozen=True, slots=True)
class Context:
    """A record and its neighbours by timestamp and id, both lists oldest first; records as in `Found`."""

    before: list[dict[str, Any]]
    record: dict[str, Any]
    after: list[dict[str, Any]]
    stats: Stats


@dataclass(frozen=True, slots=True)
class Groups:
    """Records counted by the values of some fields."""

    #: `{field: value, ..., "count": n}`, most first; with a field of numbers, `spread.RESULTS` too. With an interval,
    #: each has the start of its bin as `time`, and the first bins come first; a bin without records has no row.
    rows: list[dict[str, Any]]
    stats: Stats


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar: the records with start <= timestamp < start + interval."""

    start: datetime
    count: int
    #: Records by level name, most severe first; levels without a record are left out.
    levels: dict[str, int]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts over time: bins without gaps, aligned to the interval from 1970-01-01."""

    interval: timedelta
    bins: list[Bin]
    #: Records found before the first and after the last bin. Not 0 only where no range was asked for, and a few
    #: timestamps lie far from all others (see `histogram.py`).
    before: int
    after: int
    #: All records found: in bins, before and after.
    total: int
    stats: Stats

    @property
    def end(self) -> datetime | None:
        """The end of the last bin, or of the year 9999 if that comes first; None without bins."""
        if not self.bins:
            return None
        start, last = self.bins[-1].start, datetime.max.replace(tzinfo=UTC)
        return last if self.interval > last - start else start + self.interval


@dataclass(frozen=True, slots=True)
class Pattern:
    """Messages of one form."""

    #: The message with `<*>` for what varies.
    template: str
    count: int
    first_seen: datetime
    last_seen: datetime
    #: At most 10, most frequent first.
    services: list[str]
    #: The newest message of this form.
    example: str
    #: Records by level name, most severe first.
    levels: dict[str, int]
    #: Where it was asked what is new since a time: whether no message of this form was seen before it, how many were in
    #: a window of the same length right before it, and how many times as many there are now (None for none before).
    new: bool | None = None
    before: int | None = None
    growth: float | None = None


@dataclass(frozen=True, slots=True)
class Patterns:
    """Patterns of the newest messages that match, most frequent first."""

    patterns: list[Pattern]
    #: Messages looked at, and whether older ones were left out because of the limit.
    messages: int
    cut: bool
    stats: Stats


@dataclass(frozen=True, slots=True)
class Members:
    """Which record is of which pattern: the newest records that match, newest first."""

    #: `id`, and `label`: the place in `templates`.
    records: pl.DataFrame
    templates: list[str]
    #: Whether older ones were left out because of the limit.
    cut: bool
    stats: Stats
