"""The language against its definition: random questions as text, a plain scan in Python, batches in every form."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import asyncpg
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from oracle import Asked, Row, moments, questions, rows, summable  # type: ignore[import-not-found]  # pytest has this folder on the path
from queries import Lexeme, at, leaves, words_in, written  # type: ignore[import-not-found]  # the same

from logagg.protocols.record import LEVELS, Record
from logagg.query import question as question_module
from logagg.query.answers import Filter, Order
from logagg.query.engine import Engine
from logagg.query.evaluate import evaluate
from logagg.query.language import parse
from logagg.sinks import packing
from logagg.sinks.frames import SCHEMA
from logagg.sinks.store import Store

#: How many times as many examples: LOGAGG_TEST_TIMES=20 is a run of some minutes.
TIMES = int(os.environ.get("LOGAGG_TEST_TIMES", "1"))

narrowings = st.fixed_dictionaries({}, optional={
    "start": moments,
    "end": moments,
    "level": st.sampled_from(LEVELS),
    "service": st.sampled_from(["api", "API", "", "nowhere"]),
    "host": st.sampled_from(["a", "s", "", "*"]),
    "environment": st.sampled_from(["test", ""]),
    "source": st.sampled_from(["127.0.0.1", "127.0.0.2"]),
    "words": st.sampled_from(["a", "S ab", "A-42", "*", " "]),
})  # fmt: skip


class Question(NamedTuple):
    """What is asked of the engine, and what of a list of records matches by the definition."""

    asked: Asked
    narrowed: dict[str, Any]
    order: Order

    @property
    def filter(self) -> Filter:
        return Filter(q=self.asked.text, **self.narrowed)

    def matching(self, stored: list[Row]) -> list[Row]:
        found = [row for row in stored if self.asked.meaning(row) and self._fits(row)]
        return sorted(found, key=lambda row: (row["timestamp"], row["id"]), reverse=self.order == "newest")

    def _fits(self, row: Row) -> bool:
        given = dict(self.narrowed)
        since, until, words = given.pop("start", None), given.pop("end", None), given.pop("words", None)
        level = given.pop("level", None)
        there = [words_in(text) for text in (row["message"], *leaves(row["attributes"]))]
        return (
            (since is None or row["timestamp"] >= since)
            and (until is None or row["timestamp"] <= until)
            and (level is None or LEVELS[row["severity"]] == level)
            and all(row[name] == value for name, value in given.items())
            and (words is None or not words.strip() or bool(words_in(words)))
            and (words is None or all(any(word in each for each in there) for word in words_in(words)))
        )


orders: st.SearchStrategy[Order] = st.sampled_from(["newest", "oldest"])
asked = st.builds(Question, questions | questions | summable, st.just({}) | narrowings, orders)


def record_of(row: Row, ascii_only: bool) -> Record:
    """The record, its attributes as JSON text with as many escapes as can be, or as few."""
    attributes = None if row["attributes"] is None else written(row["attributes"], ascii_only)
    given = {name: row[name] for name in Record._fields if name in row}
    return Record(**given | {"attributes": attributes}, raw=None)


@given(st.lists(rows, min_size=3, max_size=8), st.lists(questions, min_size=5, max_size=5), st.booleans())
@settings(max_examples=80 * TIMES)
def test_the_evaluator_finds_what_the_definition_says(
    drawn: list[Row], questions: list[Asked], ascii_only: bool
) -> None:
    stored = [row | {"id": number, "span_id": None} for number, row in enumerate(drawn)]
    records = [{**record_of(row, ascii_only)._asdict(), "id": row["id"]} for row in stored]
    frame = pl.DataFrame(records, schema=SCHEMA)
    for text, meaning, _ in questions:
        assert evaluate(parse(text), frame).to_list() == [meaning(row | {"level": row["severity"]}) for row in stored]


class Trial:
    """Two stores on one database, an engine on the first, and all records that were written, with their ids."""

    async def open(self, url: str) -> None:
        self.url = url
        self.ours, self.others = await Store.open(url), await Store.open(url)
        self.engine = Engine(self.ours, timeout=60)
        self.sql = await asyncpg.connect(url)
        self.stored: list[Row] = []

    async def close(self) -> None:
        self.engine.close()
        for each in (self.sql, self.ours, self.others):
            await each.close()

    async def fill(self, groups: list[list[Row]]) -> None:
        """Leave records packed, as rows of a closed batch, as rows of an open one, and in memory."""
        *packed, closed, rows, memory = groups
        for group in packed:
            await self._write(self.ours, group * 6)  # so many of each that there is a summary
            await self.ours.roll()
        await self.ours.pack_now()
        gone = await Store.open(self.url)
        await self._write(gone, closed)
        await gone.close()
        await self._write(self.others, rows)
        await self._write(self.ours, memory)
        ids = dict(await self.sql.fetch("select span_id, id from logs"))
        for row in self.stored:
            row["id"] = ids[row["span_id"]]

    async def _write(self, store: Store, group: list[Row]) -> None:
        new = [row | {"span_id": str(len(self.stored) + n), "level": row["severity"]} for n, row in enumerate(group)]
        self.stored += new
        await store.write([record_of(row, ascii_only=n % 2 == 0) for n, row in enumerate(new)])

    async def check(self, question: Question, size: int, offset: int, by: list[str]) -> None:
        """Compare pages, their order, a page further down, the count, groups, and bins of time."""
        found = question.matching(self.stored)
        ids = [row["id"] for row in found]
        assert await self._walked(question, max(size, -(-len(ids) // 2))) == ids
        page = await self.engine.search(question.filter, limit=size, offset=offset, order=question.order, count=True)
        assert [r["id"] for r in page.records] == ids[offset : offset + size]
        assert page.total == len(ids)
        groups = (await self.engine.aggregate(question.filter, by)).rows
        counts = Counter(tuple(value_of(row, name) for name in by) for row in found)
        assert {tuple(row[name] for name in by): row["count"] for row in groups} == (counts if by else {(): len(ids)})
        await self._check_histogram(question, found)

    async def _check_histogram(self, question: Question, found: list[Row]) -> None:
        shown = await self.engine.histogram(question.filter)
        assert shown.total == len(found) == shown.before + shown.after + sum(each.count for each in shown.bins)
        for each in shown.bins:  # whose end may lie beyond the last time there is
            inside = [row for row in found if timedelta(0) <= row["timestamp"] - each.start < shown.interval]
            assert each.levels == Counter(LEVELS[row["severity"]] for row in inside)

    async def _walked(self, question: Question, size: int) -> list[int]:
        walked: list[int] = []
        cursor: str | None = None
        while True:
            page = await self.engine.search(question.filter, limit=size, cursor=cursor, order=question.order)
            walked += [record["id"] for record in page.records]
            cursor = page.cursor
            if cursor is None:
                return walked


def value_of(row: Row, name: str) -> str | None:
    """What a record is counted under."""
    if name == "level":
        return LEVELS[row["severity"]]
    if name in row:
        found: str | None = row[name]
        return found
    value = at(row["attributes"] or {}, name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return json.dumps(json.loads(written(value, False)), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return value.text if isinstance(value, Lexeme) else json.dumps(value)


group = st.lists(rows, min_size=4, max_size=12)
groupings = st.sampled_from([[], ["service", "level"], ["host", "a"], ["environment", "host"]])


@contextmanager
def short_ways(taken: bool) -> Iterator[None]:
    """Ask as with many batches and large ones: words are rare, tables of summaries several, row groups small."""
    with pytest.MonkeyPatch.context() as patch:
        if taken:
            patch.setattr(question_module, "_RARE", 0)
            patch.setattr(question_module, "SUMMED_AT_ONCE", 1)
            patch.setattr(packing, "GROUP", 8)
        yield


def test_the_engine_answers_as_a_scan_of_all_records_does(database_url: str) -> None:
    trial = Trial()

    @given(st.lists(group, min_size=5, max_size=5))
    @settings(max_examples=2, phases=[Phase.generate])  # what is stored stays
    def fill(groups: list[list[Row]]) -> None:
        runner.run(trial.fill(groups))

    @given(asked, st.integers(1, 5), st.integers(0, 3), groupings, st.booleans())
    @settings(max_examples=80 * TIMES)
    def answers_are_equal(question: Question, size: int, offset: int, by: list[str], short: bool) -> None:
        with short_ways(short):
            runner.run(trial.check(question, size, offset, by))

    with asyncio.Runner() as runner:
        runner.run(trial.open(database_url))
        try:
            fill()
            answers_are_equal()
            batches = runner.run(trial.ours.batches())
            summaries = runner.run(trial.ours.summaries(batches))
        finally:
            runner.run(trial.close())
    assert {(batch.open, batch.packed) for batch in batches} == {(True, False), (False, True), (False, False)}
    assert summaries
