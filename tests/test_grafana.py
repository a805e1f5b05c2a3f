"""The dashboard of docs/grafana: each of its statements is run by a PostgreSQL, as Grafana would send it."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg
import pytest

from logagg.protocols.record import LEVELS, Record
from logagg.sinks.store import Store

if TYPE_CHECKING:
    from logagg.tests.boards import check_board
else:
    from boards import check_board

BOARD = json.loads((Path(__file__).parents[1] / "docs" / "grafana" / "logagg.json").read_text(encoding="utf-8"))
NOW = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


class Statement(NamedTuple):
    """A statement of the dashboard, and where it stands."""

    place: str
    format: str
    sql: str


def statements() -> Iterator[Statement]:
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            yield Statement(panel["title"], target["format"], target["rawSql"])
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield Statement(variable["name"], "variable", variable["query"])


def by_title(title: str) -> str:
    (sql,) = [each.sql for each in statements() if each.place == title]
    return sql


def expanded(sql: str, **picked: list[str]) -> str:
    """Do what Grafana does: its documented macros, an interval of a minute, and variables as lists of texts."""
    since, until = (f"'{at.strftime('%Y-%m-%dT%H:%M:%SZ')}'" for at in (NOW - HOUR, NOW + HOUR))
    chosen = {"service": ["web", "billing", ""], "host": ["h1", "h2", ""], "environment": ["test", ""], "level": LEVELS}
    for name, values in (chosen | picked).items():
        sql = sql.replace(f"${name}", ",".join("'" + value.replace("'", "''") + "'" for value in values))
    sql = sql.replace("$__interval", "1m").replace("$__timeFrom()", since).replace("$__timeTo()", until)
    sql = re.sub(r"\$__timeFilter\(([^)]+)\)", rf"\1 BETWEEN {since} AND {until}", sql)
    group = r'floor(extract(epoch from \1)/60)*60 AS "time"'
    sql = re.sub(r"\$__timeGroupAlias\(([^),]+), *'?1m'?\)", group, sql)
    assert "$" not in sql, sql
    return sql


def record(minutes: float, severity: int = 6, **fields: Any) -> Record:
    at = NOW + minutes * MINUTE
    made = Record(at, at + timedelta(seconds=2), severity, None, "test", "h1", "web", "s", "m", None, None, None, None)
    return made._replace(**fields)


@pytest.fixture
async def filled(store: Store, sql: asyncpg.Connection) -> asyncpg.Connection:
    """A database with records in the hour that is shown, and of other days."""
    await store.write([
        record(0), record(0.5, 3, message="bad"), record(2, 4, service="billing", host="h2"),
        record(3, service=None, host=None, environment=None), record(4, service="it's"),
        record(0, received_at=NOW + HOUR),
        *(record(-1440 * day, service="old") for day in range(1, 6)),
    ])  # fmt: skip
    await sql.execute("analyze logs")
    return sql


def test_it_can_be_imported() -> None:
    (source,) = BOARD["__inputs"]
    assert source["pluginId"] == "grafana-postgresql-datasource"
    check_board(BOARD)
    variables = {each["name"]: each for each in BOARD["templating"]["list"]}
    assert set(variables) == {"service", "host", "environment", "level"}
    assert all(each["includeAll"] and each["multi"] for each in variables.values())


#: What Grafana takes each type of a column for.
TIME, NUMBER, TEXT = "time", "number", "text"
KINDS = {"timestamptz": TIME, "int8": NUMBER, "int4": NUMBER, "float8": NUMBER, "numeric": NUMBER, "text": TEXT}
BY_TIME = {"time": NUMBER, "metric": TEXT, "value": NUMBER}
COLUMNS = {
    "Records by level": BY_TIME,
    "Errors by service": BY_TIME,
    "Top services": {"service": TEXT, "records": NUMBER, "errors": NUMBER, "error_percent": NUMBER},
    "Newest records": {
        "time": TIME,
        **dict.fromkeys(["body", "level", "service", "host", "environment", "trace_id", "id"], TEXT),
    },
    "Hosts": {"host": TEXT, "records": NUMBER, "errors": NUMBER, "last_seen": TIME},
    "Delay": {"time": NUMBER, "50 %": NUMBER, "95 %": NUMBER, "most": NUMBER},
    **{name: {"__value": TEXT, "__text": TEXT} for name in ("service", "host", "environment")},
}  # fmt: skip


async def test_columns_are_of_the_kinds_that_panels_take(filled: asyncpg.Connection) -> None:
    assert {each.place for each in statements()} == set(COLUMNS)
    for each in statements():
        prepared = await filled.prepare(expanded(each.sql))
        kinds = {attribute.name: KINDS[attribute.type.name] for attribute in prepared.get_attributes()}
        assert kinds == COLUMNS[each.place], each.place
        assert await prepared.fetch(), f"{each.place} shows nothing"


async def shown(sql: asyncpg.Connection, title: str, **picked: list[str]) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await sql.fetch(expanded(by_title(title), **picked))]


async def test_panels_show_what_is_there(filled: asyncpg.Connection) -> None:
    everyone = ["web", "billing", "it's", ""]
    start = Decimal(int(NOW.timestamp()))
    assert await shown(filled, "Records by level", service=everyone) == [
        (start, "ERROR", 1), (start, "INFO", 2), (start + 120, "WARNING", 1), (start + 180, "INFO", 1),
        (start + 240, "INFO", 1),
    ]  # fmt: skip
    assert await shown(filled, "Records by level", level=["ERROR"]) == [(start, "ERROR", 1)]
    assert await shown(filled, "Top services", service=["web"]) == [("web", 3, 1, 33.3)]
    assert await shown(filled, "Top services", service=["it's"]) == [("it's", 1, 0, 0.0)]
    assert await shown(filled, "Errors by service") == [(start, "web", 1)]
    newest = await shown(filled, "Newest records")
    assert [row[1] for row in newest] == ["m", "m", "bad", "m", "m"]
    assert newest[2][2] == "error"
    assert await shown(filled, "Hosts", host=["h2"]) == [("h2", 1, 0, NOW + 2 * MINUTE)]
    assert (start + 120, 2.0, 2.0, 2.0) in await shown(filled, "Delay")
    assert (await shown(filled, "Delay"))[0][3] == 3600.0
    assert await shown(filled, "service") == [("", "(none)"), ("billing", "billing"), ("it's", "it's"), ("web", "web")]


async def test_they_leave_out_other_days_and_have_an_index_for_the_time(filled: asyncpg.Connection) -> None:
    days = [name for (name,) in await filled.fetch("select relid::text from pg_partition_tree('logs') where isleaf")]
    assert len(days) > 5
    await filled.execute("set enable_seqscan = off")  # for so few records no index is worth it
    for each in statements():
        plan = "\n".join(row[0] for row in await filled.fetch("explain " + expanded(each.sql)))
        read = {day for day in days if re.search(rf"\b{day}\b", plan)}
        assert read, each.place
        before = {day for day in days if (found := re.search(r"\d{8}$", day)) and found[0] < f"{NOW - 2 * HOUR:%Y%m%d}"}
        assert not read & before, each.place
        assert "Bitmap Index Scan" in plan, each.place
