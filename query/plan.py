"""The plan of a question: one condition for all that was asked, and which batches cannot hold a match."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from logagg.protocols.record import LEVELS
from logagg.query.answers import Filter, Stats
from logagg.query.errors import QueryError
from logagg.query.evaluate import columns_needed
from logagg.query.language import MAX_QUERY, parse
from logagg.query.syntax import NOTHING, Compare, Equal, Field, Node, Phrase, all_of, any_of, conjuncts
from logagg.query.text import words_of
from logagg.query.words import words_in, words_needed
from logagg.sinks.store import BatchInfo

TIMESTAMP = Field("timestamp", False)
LEVEL = Field("level", False)
#: Words that a `Filter` may hold.
MAX_FILTER_WORDS = 1000

_EXACT = ("service", "host", "environment", "source")
#: Columns of which batches know the distinct values, and the name of these in `BatchInfo`.
_KNOWN = {"service": "services", "host": "hosts", "environment": "environments"}
#: Columns of the bulk of a batch, which stands apart from the others and costs most to read.
BULK = frozenset({"message", "attributes"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What to look for, and what follows from it for whole batches."""

    node: Node
    #: Bounds of the timestamp, inclusive.
    start: datetime | None
    end: datetime | None
    #: Bounds of received_at, inclusive.
    received_start: datetime | None
    received_end: datetime | None
    #: Columns and the one value that they must have.
    exact: dict[str, str]
    #: The part of the condition that does without the bulk of the columns.
    light: Node
    #: The words that a match must hold (`words.py`), and those of them to ask filters for.
    needed: Node
    words: list[str] = field(default_factory=list)

    def choose(self, batches: Iterable[BatchInfo], stats: Stats) -> list[BatchInfo]:
        """Return the batches that may hold a match, and count the others."""
        chosen = []
        for batch in batches:
            stats.batches += 1
            reason = self._excluded(batch)
            if reason:
                stats.skip(reason)
            else:
                chosen.append(batch)
        return chosen

    def _excluded(self, batch: BatchInfo) -> str | None:
        if _apart(self.start, self.end, batch.ts_min, batch.ts_max):
            return "timestamp"
        if _apart(self.received_start, self.received_end, batch.received_min, batch.received_max):
            return "received_at"
        for column, value in self.exact.items():
            known: frozenset[str | None] | None = getattr(batch, _KNOWN[column])
            if known is not None and value not in known:
                return column
        return None

    def whole(self, batch: BatchInfo) -> int | None:
        """Return how many records match when all of the batch do and nobody needs to look; else None."""
        if batch.open or batch.count is None:
            return None
        if not batch.packed and _day(batch.received_min) != _day(batch.received_max):
            return None  # rows go by the day of received_at: of two days, one may be gone
        held = all(_holds(part, batch) for part in conjuncts(self.node))
        return batch.count if held else None


def plan_for(asked: Filter, *more: Node) -> Plan:
    """Plan a filter, with further conditions. Raises QueryError."""
    node = all_of([*_conditions(asked), *more])
    start, end = _bounds(node, TIMESTAMP)
    received_start, received_end = _bounds(node, Field("received_at", False))
    exact = {
        part.field.name: part.parts[0]
        for part in conjuncts(node)
        if isinstance(part, Equal) and not part.field.attribute and part.field.name in _KNOWN and len(part.parts) == 1
    }
    light = all_of([part for part in conjuncts(node) if not columns_needed(part) & BULK])
    needed = words_needed(node)
    return Plan(node, start, end, received_start, received_end, exact, light, needed, words_in(needed))


def _conditions(asked: Filter) -> list[Node]:
    """Return the filter as conditions of the language."""
    conditions: list[Node] = [
        any_of([Equal(Field(name, False), (value,)) for value in values]) for name, values in asked.only
    ]
    if asked.start is not None:
        conditions.append(Compare(TIMESTAMP, ">=", _utc(asked.start, "start")))
    if asked.end is not None:
        conditions.append(Compare(TIMESTAMP, "<=", _utc(asked.end, "end")))
    if asked.level is not None:
        if asked.level not in LEVELS:
            raise QueryError(f"level {asked.level!r} is none of {' '.join(LEVELS)}")
        conditions.append(Compare(LEVEL, "=", asked.level))
    for name in _EXACT:
        value: str | None = getattr(asked, name)
        if value is not None:
            conditions.append(Equal(Field(name, False), (_storable(value, name),)))
    if asked.words:
        conditions += _words(asked.words)
    if asked.q is not None:
        conditions.append(parse(asked.q))
    return conditions


def _words(text: str) -> list[Node]:
    """Return a condition for each word. Text without any is found nowhere."""
    if len(text) > MAX_QUERY:
        raise QueryError(f"words of {len(text)} characters, at most {MAX_QUERY}")
    words = dict.fromkeys(words_of(_storable(text, "words").replace("*", " ")))
    if len(words) > MAX_FILTER_WORDS:
        raise QueryError(f"{len(words)} words, at most {MAX_FILTER_WORDS}")
    if words:
        return [Phrase(None, (word,)) for word in words]
    return [NOTHING] if text.strip() else []


def _utc(moment: datetime, name: str) -> datetime:
    if moment.tzinfo is None:
        raise QueryError(f"{name} has no time zone: {moment.isoformat()}")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise QueryError(f"{name} is out of the years 1 to 9999 in UTC: {moment.isoformat()}") from None


def _storable(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise QueryError(f"{name}: half of a surrogate pair is no character") from None
    return text


def _bounds(node: Node, field: Field) -> tuple[datetime | None, datetime | None]:
    """Return the least and the greatest time that a field can have, inclusive."""
    lower, upper = [], []
    for part in conjuncts(node):
        if isinstance(part, Compare) and part.field == field and isinstance(part.value, datetime):
            if part.operator in (">", ">=", "="):
                lower.append(part.value)
            if part.operator in ("<", "<=", "="):
                upper.append(part.value)
    return max(lower, default=None), min(upper, default=None)


def _apart(start: datetime | None, end: datetime | None, least: datetime | None, greatest: datetime | None) -> bool:
    if least is not None and end is not None and least > end:
        return True
    return greatest is not None and start is not None and greatest < start


def _holds(part: Node, batch: BatchInfo) -> bool:
    """Tell whether a condition holds for all of a batch, by its bounds alone."""
    least, greatest = batch.ts_min, batch.ts_max
    if not isinstance(part, Compare) or part.field != TIMESTAMP or not isinstance(part.value, datetime):
        return False
    if least is None or greatest is None:
        return False
    match part.operator:
        case ">=":
            return least >= part.value
        case ">":
            return least > part.value
        case "<=":
            return greatest <= part.value
        case "<":
            return greatest < part.value
        case _:
            return least == greatest == part.value


def _day(moment: datetime | None) -> date | None:
    return moment and moment.astimezone(UTC).date()
