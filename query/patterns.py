"""Patterns of the records that match: what `templates.Miner` makes of their messages, with counts and times.

Messages are read batch by batch, and not kept: of each record the number of its line, of each line its newest message.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import orjson
import polars as pl

from logagg.protocols.record import LEVELS
from logagg.query.answers import Filter, Members, Pattern, Patterns
from logagg.query.errors import QueryError, QueryLimit
from logagg.query.question import Question
from logagg.query.search import Top
from logagg.query.templates import Miner
from logagg.sinks.store import BatchInfo

SERVICES = 10
#: Characters of different lines and of their newest messages that are held; a batch may exceed it.
MAX_TEXT = 1 << 25
#: Records that are written at once.
_LINES = 1 << 13
_COLUMNS = ("id", "timestamp", "severity", "service", "message")
_FIRST = datetime.min.replace(tzinfo=UTC)


class Windows(NamedTuple):
    """What is compared: the messages since `middle`, and those of a window of the same length right before."""

    first: datetime
    middle: datetime


class _Newest(NamedTuple):
    """The newest message of a line, as they are ordered."""

    timestamp: datetime
    id: int
    message: str


class _Read(NamedTuple):
    """Records, newest first: id, timestamp, severity, service and `label`, the index of the template."""

    records: pl.DataFrame
    templates: list[str]
    #: By label.
    examples: dict[int, str]
    #: There are more.
    cut: bool


class _Reader:
    """Takes records in any portions, and keeps the newest `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._miner = Miner()
        self._newest: dict[int, _Newest] = {}
        self._size = 0
        self._full = False
        #: One more, to know whether there are more.
        self.top = Top(most + 1, "newest")

    def wants(self, batch: BatchInfo) -> bool:
        """Tell whether the batch may hold records to keep, and there is room for them."""
        wanted = self.top.wants(batch)
        self._full |= wanted and self._size + self._miner.size > MAX_TEXT
        return wanted and not self._full

    def add(self, records: pl.DataFrame) -> None:
        """Take records in `_COLUMNS`."""
        line = pl.Series("line", self._miner.add(records["message"].to_list()), dtype=pl.Int64)
        records = records.with_columns(line)
        newest = records.sort("timestamp", "id", descending=True).unique("line", keep="first")
        for number, *values in newest.select("line", *_Newest._fields).iter_rows():
            self._keep(number, _Newest(*values))
        self.top.add(records.drop("message"))

    def _keep(self, line: int, newest: _Newest) -> None:
        held = self._newest.get(line)
        if held is None or held < newest:
            self._newest[line] = newest
            self._size += len(newest.message) - (len(held.message) if held else 0)

    def read(self) -> _Read:
        """Return all, with the templates of what is kept: no other message has a say in them."""
        found = self.top.records
        if found is None:
            return _Read(pl.DataFrame(schema={"id": pl.Int64, "label": pl.Int64}), [], {}, self._full)
        kept = found.head(self._most)
        lines = kept["line"].unique(maintain_order=True)  # the newest of each label comes first
        labels, templates = self._miner.mined(lines.to_list())
        examples: dict[int, str] = {}
        for line, label in zip(lines, labels, strict=True):
            examples.setdefault(label, self._newest[line].message)
        label_of = kept["line"].replace_strict(lines, pl.Series(labels, dtype=pl.Int64))
        records = kept.drop("line").with_columns(label_of.alias("label"))
        return _Read(records, templates, examples, self._full or found.height > self._most)


async def patterns(
    question: Question, asked: Filter, limit: int, most: int, new_since: datetime | None = None
) -> Patterns:
    """Answer `Engine.patterns`."""
    windows = None if new_since is None else _windows(asked, new_since)
    if windows and asked.start:
        asked = replace(asked, start=min(asked.start, windows.first))
    read = await _read(question, asked, most)
    if windows and read.cut and read.records["timestamp"][-1] > windows.first:
        raise QueryLimit(
            f"more than {read.records.height} messages since {windows.first:%Y-%m-%dT%H:%M:%SZ}, where the window"
            " before begins; ask for fewer, or a shorter time"
        )
    found = await question.run(partial(_patterns, read, limit, windows)) if read.records.height else []
    return Patterns(found, read.records.height, read.cut, question.stats)


async def members(question: Question, asked: Filter, most: int) -> Members:
    """Answer `Engine.members`."""
    records, templates, _, cut = await _read(question, asked, most)
    return Members(records.select("id", "label"), templates, cut, question.stats)


def member_lines(found: Members) -> Iterator[bytes]:
    """Yield pieces of `{"id": ..., "pattern": ...}` a line for each record; at the end, what is missing, if any is."""
    patterns = pl.Series([orjson.dumps(template).decode() for template in found.templates], dtype=pl.String)
    for part in found.records.iter_slices(_LINES):
        pattern = patterns.gather(part["label"])
        lines = part.select(pl.concat_str(pl.lit('{"id":'), "id", pl.lit(',"pattern":'), pattern, pl.lit("}\n")))
        yield "".join(lines.to_series().to_list()).encode()
    missing = [f"only the newest {found.records.height} records that match"] if found.cut else []
    if missing := [*missing, *found.stats.damaged]:
        yield orjson.dumps({"incomplete": "; ".join(missing)}) + b"\n"


async def _read(question: Question, asked: Filter, most: int) -> _Read:
    plan, batches = await question.plan(asked)
    reader = _Reader(most)

    async def work(batch: BatchInfo) -> pl.DataFrame | None:
        return await question.reduce(plan, batch, _COLUMNS, reader.top.chosen)

    await question.each(plan, reader.top.order(batches), work, reader.add, reader.wants)
    return await question.run(reader.read)


def _windows(asked: Filter, new_since: datetime) -> Windows:
    length = (asked.end or datetime.now(UTC)) - new_since
    if length <= timedelta(0):
        raise QueryError(f"new_since, {new_since.isoformat()}, is not before the end of the time asked for")
    return Windows(new_since - length if new_since - _FIRST > length else _FIRST, new_since)


def _patterns(read: _Read, limit: int, windows: Windows | None) -> list[Pattern]:
    """Return the most frequent patterns; with windows, of the second one, what is new and what rose most first."""
    # Labels are in the order of templates: the result does not depend on how records came in.
    if windows is None:
        groups = _groups(read.records).sort(["count", "label"], descending=[True, False])
    else:
        time = pl.col("timestamp")
        past = read.records.filter(time < windows.middle).group_by("label")
        before = past.agg((time >= windows.first).sum().cast(pl.Int64).alias("before"), time.min().alias("began"))
        groups = _groups(read.records.filter(time >= windows.middle)).join(before, on="label", how="left")
        groups = groups.with_columns(
            pl.min_horizontal("first_seen", "began").alias("first_seen"),
            pl.col("began").is_null().alias("new"),
            pl.col("before").fill_null(0),
        )
        rise = pl.col("count") - pl.col("before")
        groups = groups.sort(["new", rise, "label"], descending=[True, True, False])
    return [_pattern(read, group) for group in groups.head(limit).iter_rows(named=True)]


def _groups(records: pl.DataFrame) -> pl.DataFrame:
    time = pl.col("timestamp")
    return records.group_by("label").agg(
        pl.len().cast(pl.Int64).alias("count"),
        time.min().alias("first_seen"),
        time.max().alias("last_seen"),
        pl.col("service").drop_nulls().value_counts(sort=True).alias("services"),
        pl.col("severity").value_counts().alias("severities"),
    )


def _pattern(read: _Read, group: dict[str, Any]) -> Pattern:
    services = sorted(group["services"], key=lambda each: (-each["count"], each["service"]))
    severities = sorted(group["severities"], key=lambda each: each["severity"])
    before = group.get("before")
    return Pattern(
        template=read.templates[group["label"]],
        count=group["count"],
        first_seen=group["first_seen"],
        last_seen=group["last_seen"],
        services=[each["service"] for each in services[:SERVICES]],
        example=read.examples[group["label"]],
        levels={LEVELS[each["severity"]]: each["count"] for each in severities},
        new=group.get("new"),
        before=before,
        growth=group["count"] / before if before else None,
    )
