"""Answers are the same whatever form the records are in: in memory, rows, or packed."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queries import Lexeme, query, written  # type: ignore[import-not-found]  # pytest has this folder on the path
from queries import record as random_record
from samples import NOON, record  # type: ignore[import-not-found]  # the same

from logagg.protocols.record import LEVELS, Record
from logagg.query import question as question_module
from logagg.query.answers import Filter
from logagg.query.engine import Engine
from logagg.query.evaluate import evaluate
from logagg.query.language import parse
from logagg.query.syntax import Node
from logagg.sinks import packing
from logagg.sinks.frames import SCHEMA
from logagg.sinks.store import Store

MINUTE = timedelta(minutes=1)
times = st.sampled_from([
    NOON, NOON + timedelta(microseconds=1), NOON + MINUTE - timedelta(microseconds=1), NOON + MINUTE,
    NOON + 1.5 * MINUTE, NOON + 60 * MINUTE, datetime(1960, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC),
])  # fmt: skip
#: What looks at nothing that a summary does not know is worth more tries.
summable = st.sampled_from([
    "", "level>=error", "service=api", "-service:*", "service=api or level=info", "environment=test -service=ap*",
    "severity<4 service:api",
])  # fmt: skip
#: Words that filters are asked for, and that records often have.
wordy = st.sampled_from(["a", "s", "ab or ba", "42 -b", "error level>=error", "A message:*"])
asked = st.builds(
    lambda start, end, q: Filter(start=start, end=end, q=q),
    st.none() | times,
    st.none() | times,
    summable | wordy | query.map(str),
)


def stored(drawn: dict[str, Any], at: datetime) -> Record:
    """A drawn record as one of the store. Numbers come back from jsonb without exponents and without -0."""
    attributes = drawn["attributes"]
    given = {name: drawn[name] for name in ("severity", "facility", "service", "host", "message")}
    text = None if attributes is None else written(plain(attributes), ascii_only=False)
    made: Record = record()
    return made._replace(**given, timestamp=at, attributes=text, environment=drawn["service"] and "test")


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return list(map(plain, value))
    return value.text if isinstance(value, Lexeme) and ("e" in value.text or value.text == "-0") else value


Drawn = tuple[dict[str, Any], datetime]
records = st.lists(st.tuples(random_record, times), min_size=1, max_size=12)


@pytest.mark.parametrize("short_ways", [False, True])
def test_answers_are_those_of_a_scan_of_all_records(
    database_url: str, short_ways: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if short_ways:  # as with many batches and large ones: rare words, several tables of summaries, row groups
        monkeypatch.setattr(question_module, "_RARE", 0)
        monkeypatch.setattr(question_module, "SUMMED_AT_ONCE", 1)
        monkeypatch.setattr(packing, "GROUP", 8)
    with asyncio.Runner() as runner:
        ours, others = (runner.run(Store.open(database_url)) for _ in range(2))
        engine = Engine(ours, timeout=30)
        known: list[pl.DataFrame] = []

        @given(st.lists(records, min_size=2, max_size=3), st.lists(asked, min_size=6, max_size=6))
        @settings(max_examples=10, deadline=None)
        def check(groups: list[list[Drawn]], questions: list[Filter]) -> None:
            runner.run(compare(groups, questions))

        async def compare(groups: list[list[Drawn]], questions: list[Filter]) -> None:
            for group in groups[:-1]:
                await ours.write([stored(*drawn) for drawn in group] * 6)  # so many that there is a summary
                (batch,) = [batch for batch in await ours.batches() if batch.open and batch.batch not in elsewhere]
                known.append((await ours.load(batch, list(SCHEMA))).frame)
                await ours.roll()
            await ours.pack_now()
            await others.write([stored(*drawn) for drawn in groups[-1]])
            elsewhere.update(batch.batch for batch in await others.batches() if batch.open)
            rows = [(await others.load(batch, list(SCHEMA))).frame for batch in await others.batches() if batch.open]
            for question in questions:
                await check_answers(engine, question, pl.concat([*known, *rows]))

        elsewhere: set[int] = set()
        try:
            check()
            batches = runner.run(ours.batches())
            assert {(batch.open, batch.packed) for batch in batches} == {(True, False), (False, True)}
            assert len(runner.run(ours.summaries(batches))) > len(batches) / 4
        finally:
            engine.close()
            for store in (ours, others):
                runner.run(store.close())


async def check_answers(engine: Engine, question: Filter, everything: pl.DataFrame) -> None:
    found = matching(question, everything).sort("timestamp", "id")
    ids = found["id"].to_list()
    oldest = await engine.search(question, limit=5, order="oldest")
    assert [r["id"] for r in oldest.records] == ids[:5]
    newest = await engine.search(question, limit=5, count=True, offset=2)
    assert [r["id"] for r in newest.records] == ids[::-1][2:7]
    assert newest.total == len(ids)
    assert (await engine.aggregate(question, [])).rows == [{"count": len(ids)}]
    for by in (["service", "level"], ["environment", "host"]):
        groups = (await engine.aggregate(question, by)).rows
        columns = ["severity" if name == "level" else name for name in by]
        counts = Counter(tuple(row) for row in found.select(columns).iter_rows())
        named = {tuple(LEVELS[v] if name == "level" else v for name, v in zip(by, key, strict=True)): n
                 for key, n in counts.items()}  # fmt: skip
        assert {tuple(row[name] for name in by): row["count"] for row in groups} == named
    await check_histogram(engine, question, found)


async def check_histogram(engine: Engine, question: Filter, found: pl.DataFrame) -> None:
    shown = await engine.histogram(question)
    assert shown.total == found.height
    for each in shown.bins:
        since = pl.col("timestamp") - each.start  # the end of a bin may be beyond the last time there is
        inside = found.filter(since.is_between(timedelta(0), shown.interval, closed="left"))
        assert each.levels == Counter(LEVELS[severity] for severity in inside["severity"])


def matching(question: Filter, everything: pl.DataFrame) -> pl.DataFrame:
    found = everything.filter(evaluate(tree(question), everything))
    for end, sign in ((question.start, 1), (question.end, -1)):
        if end is not None:
            found = found.filter((pl.col("timestamp") - end).dt.total_microseconds() * sign >= 0)
    return found


def tree(question: Filter) -> Node:
    return parse(question.q or "")
