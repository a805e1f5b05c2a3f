"""Exports: all records that a filter picks, a batch at a time, in forms for other programs.

An export holds a batch and what is made of it, however many records there are and however slowly they are read. Oldest
batches come first; within a batch, records stand by (timestamp, id). Batches overlap in time where senders were late or
several daemons write: order over all of it would mean to sort it.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Protocol

import polars as pl

from logagg.protocols.record import LEVELS
from logagg.query.answers import Filter, Stats
from logagg.query.errors import QueryLimit
from logagg.query.evaluate import Check, columns_needed, evaluate
from logagg.query.parquet import ParquetStream
from logagg.query.plan import BULK, Plan, plan_for
from logagg.query.question import RECORD
from logagg.query.records import KEYS
from logagg.query.syntax import All, Node
from logagg.query.words import may_match
from logagg.sinks.errors import BlobDamaged
from logagg.sinks.frames import TIME, empty
from logagg.sinks.store import BatchInfo, Store
from logagg.sinks.threads import read_in_thread

#: Seconds after which it is asked again which batches there are: those listed may have been packed, or dropped.
_REFRESH = 30.0
#: Rows and bytes that are turned into text at once.
_SLICE_ROWS = 1 << 13
_SLICE_BYTES = 4 << 20
_LAST = datetime.max.replace(tzinfo=UTC)


class Exporter:
    """Gives out stored records. Its exports are bounded in number, not in time."""

    def __init__(self, store: Store, *, concurrency: int = 2) -> None:
        self._store = store
        self._most = concurrency
        self._running = 0

    @asynccontextmanager
    async def records(self, asked: Filter) -> AsyncIterator[AsyncIterator[pl.DataFrame]]:
        """Begin an export: yields frames with the columns of `frames.SCHEMA`, one for each batch looked into.

        Frames may be empty. Raises QueryError, QueryLimit when too many exports run, and StoreError; what goes wrong
        later is raised by the iteration.
        """
        if self._running >= self._most:
            raise QueryLimit(f"{self._running} exports are running, at most {self._most} at once: try again later")
        self._running += 1
        ended = False

        def check() -> None:
            if ended:
                raise QueryLimit("the export was ended")

        try:
            plan = await read_in_thread(plan_for, asked)
            async with aclosing(self._frames(plan, await self._list(plan), check)) as frames:
                yield frames
        finally:
            ended = True
            self._running -= 1

    async def _list(self, plan: Plan) -> dict[int, BatchInfo]:
        """Return the batches that may hold a match, by number, oldest first."""
        batches = plan.choose(await self._store.batches(plan.start, plan.end), Stats())
        held = await self._store.may_hold(batches, plan.words) if plan.words else {}
        found = {}
        for batch in sorted(batches, key=lambda b: (b.ts_min or _LAST, b.batch)):
            answers = held.get(batch.batch)
            if answers is None or may_match(plan.needed, dict(zip(plan.words, answers, strict=True))):
                found[batch.batch] = batch
        return found

    async def _frames(
        self, plan: Plan, batches: dict[int, BatchInfo], check: Check
    ) -> AsyncGenerator[pl.DataFrame, None]:
        listed = time.monotonic()
        damaged = []
        for number in list(batches):
            if time.monotonic() - listed > _REFRESH:
                batches, listed = await self._list(plan), time.monotonic()
            if number not in batches:  # retention has dropped it
                continue
            try:
                frame = await self._matching(plan.node, batches[number], check)
            except BlobDamaged as error:
                damaged.append(str(error))
            else:
                yield frame
        if damaged:  # the rest is there, and who exports is told that it is not whole
            raise BlobDamaged("; ".join(damaged))

    async def _matching(self, node: Node, batch: BatchInfo, check: Check) -> pl.DataFrame:
        needed = columns_needed(node)
        if needed and not needed & BULK:  # look before loading ten times as much
            frame = (await self._store.load(batch, sorted(needed))).frame
            if not (await read_in_thread(evaluate, node, frame, check)).any():
                return empty(RECORD)
        frame = (await self._store.load(batch, RECORD)).frame
        return await read_in_thread(_matching, node, frame, check)


def _matching(node: Node, frame: pl.DataFrame, check: Check) -> pl.DataFrame:
    kept = frame if node == All() else frame.filter(evaluate(node, frame, check))
    return kept.sort("timestamp", "id")


def slices(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Cut a frame into pieces of some megabytes."""
    rows = _SLICE_BYTES * frame.height // (int(frame.estimated_size()) + 1)
    return frame.iter_slices(max(1, min(_SLICE_ROWS, rows)))


class Form(Protocol):
    """How frames become the bytes of one document; any of them may be none."""

    media_type: str

    def begin(self) -> bytes:
        """Return what stands before all records."""

    def add(self, frame: pl.DataFrame) -> bytes:
        """Return records, or keep them for the next call."""

    def end(self) -> bytes:
        """Return what is left."""


class JsonLines:
    """One JSON object a line, with the keys of `records.KEYS`: what `records.to_records` gives, made by columns."""

    media_type = "application/x-ndjson"

    def begin(self) -> bytes:
        """Return nothing."""
        return b""

    def add(self, frame: pl.DataFrame) -> bytes:
        """Return a line for each record."""
        lines = _written(frame).select(_object(_BEFORE, _AFTER)).to_series()
        text: str = (lines + "\n").str.join("").item()
        return text.encode()

    def end(self) -> bytes:
        """Return nothing."""
        return b""


class Csv:
    """Comma-separated values (RFC 4180, with LF line ends) under a header; attributes as JSON."""

    media_type = "text/csv"

    def begin(self) -> bytes:
        """Return the header."""
        return f"{','.join(KEYS)}\n".encode()

    def add(self, frame: pl.DataFrame) -> bytes:
        """Return a line for each record, or several where a value has line ends."""
        return _written(frame).write_csv(include_header=False).encode()

    def end(self) -> bytes:
        """Return nothing."""
        return b""


class Parquet:
    """One Parquet file: the same columns, times as UTC microseconds, and `severity` behind `level`."""

    media_type = "application/vnd.apache.parquet"

    def __init__(self) -> None:
        self._stream = ParquetStream(_named(empty(RECORD)).schema)

    def begin(self) -> bytes:
        """Return nothing."""
        return b""

    def add(self, frame: pl.DataFrame) -> bytes:
        """Return row groups, once there are records enough."""
        return self._stream.add(_named(frame))

    def end(self) -> bytes:
        """Return the last row group and the footer."""
        return self._stream.finish()


FORMS: Mapping[str, type[Form]] = {"jsonl": JsonLines, "csv": Csv, "parquet": Parquet}

_BEFORE = KEYS[: KEYS.index("attributes")]
_AFTER = KEYS[KEYS.index("attributes") + 1 :]


def _named(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the columns of KEYS, and severity behind level; attributes is the text of an object in one line."""
    text = pl.col("attributes").fill_null("{}").str.replace_all(r"[\r\n]", " ").str.strip_chars()
    level = pl.col("severity").replace_strict(range(len(LEVELS)), LEVELS, return_dtype=pl.String)
    names = [name for key in KEYS for name in ((key, "severity") if key == "level" else (key,))]
    # Somebody's own INSERT may have stored what is no object.
    whole = pl.when(text.str.starts_with("{")).then(text).otherwise(pl.concat_str(pl.lit('{"":'), text, pl.lit("}")))
    return frame.with_columns(level=level, attributes=whole).select(names)


def _written(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the columns of KEYS with times in RFC 3339."""
    times = [_rfc3339(name) for name, kind in frame.schema.items() if kind == TIME]
    return _named(frame).with_columns(times).select(KEYS)


def _rfc3339(name: str) -> pl.Expr:
    time = pl.col(name)
    whole = time.dt.microsecond() == 0
    return (
        pl.when(whole)
        .then(time.dt.to_string("%Y-%m-%dT%H:%M:%SZ"))
        .otherwise(time.dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ"))
        .alias(name)
    )


def _object(before: tuple[str, ...], after: tuple[str, ...]) -> pl.Expr:
    """Write a JSON object a row, with the text of attributes, which is JSON already, between the other columns."""
    head = pl.struct(before).struct.json_encode().str.strip_suffix("}")
    tail = pl.struct(after).struct.json_encode().str.strip_prefix("{")
    return pl.concat_str(head, pl.lit(',"attributes":'), pl.col("attributes"), pl.lit(","), tail)
