"""`logagg db pack`, `unpack`, `prune`, and what `status` says of the two forms, against a real PostgreSQL."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncpg
import pytest
from click.testing import CliRunner, Result

from logagg.cli.main import cli
from logagg.sinks import partitions
from logagg.sinks.store import Store

if TYPE_CHECKING:
    from logagg.tests.batches import DAY, leave, leave_packed, record
else:
    from batches import DAY, leave, leave_packed, record

OLD = datetime(2020, 3, 4, 5, 6, 7, tzinfo=UTC)
Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def db(database_url: str) -> Run:
    """Run `logagg db` on the database of the test."""

    def run(*args: str) -> Result:
        return CliRunner().invoke(cli, ["db", *args, "--database-url", database_url], prog_name="logagg")

    return lambda *args: asyncio.to_thread(run, *args)


async def test_pack(database_url: str, db: Run, sql: asyncpg.Connection) -> None:
    assert (await db("pack")).stdout == "packed 0 batches, 0 records\n"
    one, two = await leave(database_url, [record(message=str(n)) for n in range(1000)], [record()])
    result = await db("pack")
    assert result.exit_code == 0
    assert result.stdout.startswith("packed 2 batches, 1,001 records, ")
    assert result.stderr.startswith(f"batch {one}: 1,000 records, ")
    assert f"batch {two}: 1 record, " in result.stderr
    assert await sql.fetchval("select count(*) from batches where packed_at is null") == 0


async def test_pack_leaves_those_of_living_daemons(database_url: str, db: Run) -> None:
    store = await Store.open(database_url)
    await store._packer.close()
    await store.write([record()])
    await store.roll()
    result = await db("pack")
    assert result.stdout == "packed 0 batches, 0 records\n"
    assert result.stderr == "1 batch is left to the daemons that run; --all packs them, too\n"
    await store.write([record()])
    assert (await db("pack")).stderr.splitlines()[1:] == [
        "1 batch is still open: packed by the daemon when full, or after batch_age, an hour unless set"
    ]
    assert (await db("pack", "--all")).stdout.startswith("packed 1 batch, 1 record, ")
    await store.close()


async def test_pack_says_what_it_cannot_pack(database_url: str, db: Run, sql: asyncpg.Connection) -> None:
    damaged, _ = await leave(database_url, [record(message="gone")], [record()])
    await sql.execute("delete from logs where message = 'gone'")
    result = await db("pack")
    assert result.exit_code == 2
    assert result.stdout.startswith("packed 1 batch, 1 record, ")
    assert f"batch {damaged}: 1 records were written, 0 rows are there: it stays as rows\n" in result.stderr
    assert result.stderr.endswith("logagg: 1 batch was not packed: see above\n")


async def test_unpack(database_url: str, db: Run, sql: asyncpg.Connection) -> None:
    (number,) = await leave_packed(database_url, [record(OLD), record(OLD + DAY)])
    await sql.execute("truncate logs")
    day = ("--since", "2020-03-04", "--until", "2020-03-05", "--utc")
    first, again = await db("unpack", *day), await db("unpack", *day)
    assert (first.exit_code, first.stdout) == (0, "1 row of 1 batch into logs\n")
    assert first.stderr == f"batch {number}: 1 row\n"
    assert again.stdout == "0 rows of 1 batch into logs, 1 were there\n"
    assert (await db("unpack", "--since", "2020-03-04", "--into", "mine")).stdout == "2 rows of 1 batch into mine\n"
    assert await sql.fetchval("select array_agg(timestamp) from mine") == [OLD, OLD + DAY]
    assert await sql.fetchval("select count(*) from kept_days") == 1


async def test_unpack_says_what_it_cannot_read(database_url: str, db: Run, sql: asyncpg.Connection) -> None:
    damaged, _ = await leave_packed(database_url, [record(OLD)], [record(OLD)])
    await sql.execute("update batches set head = 'x' where batch = $1", damaged)
    result = await db("unpack", "--since", "2020-03-04", "--into", "mine")
    assert (result.exit_code, result.stdout) == (2, "1 row of 2 batches into mine\n")
    assert f"batch {damaged}: head cannot be read: " in result.stderr


async def test_prune(database_url: str, db: Run, sql: asyncpg.Connection) -> None:
    await partitions.ensure(sql, OLD, back=0, ahead=1)
    await leave_packed(database_url, [record(OLD)], [record()])
    await leave(database_url, [record(OLD + DAY)])
    await sql.execute("update batches set closed_at = received_max where packed_at is not null")
    would = (await db("prune", "--older-than", "30d", "--dry-run")).stdout
    assert would.startswith("would drop\nbatches     1, with 1 record packed into ")
    assert "\npartitions  logs_20200304, with " in would
    assert would.endswith("kept        logs_20200305: 1 batch is not packed yet\n")
    assert await sql.fetchval("select count(*) from logs") == 3
    assert (await db("prune", "--older-than", "30d")).stdout == would.replace("would drop", "dropped")
    assert await sql.fetchval("select count(*) from logs") == 2
    again = (await db("prune", "--older-than", "30d")).stdout
    assert again.startswith("dropped\nbatches     0, with 0 records packed into 0 bytes\npartitions  none")


async def test_prune_of_a_service(database_url: str, db: Run, sql: asyncpg.Connection) -> None:
    await leave_packed(database_url, [record(OLD, service="chatty"), record(OLD, service="shop"), record(OLD)])
    await sql.execute("update batches set closed_at = received_max")
    chatty = ("prune", "--older-than", "3d", "--service", "chatty")
    assert (await db(*chatty, "--dry-run")).stdout == "would drop 1 record out of 1 batch\n"
    assert await sql.fetchval("select count(*) from logs") == 3
    assert (await db(*chatty)).stdout == "dropped 1 record out of 1 batch\n"
    assert [row[0] for row in await sql.fetch("select service from logs order by id")] == ["shop", None]
    assert (await db(*chatty)).stdout == "dropped 0 records out of 0 batches\n"
    assert (await db("prune", "--older-than", "3d", "--service", "")).stdout == "dropped 1 record out of 1 batch\n"
    await sql.execute("update batches set head = ''")
    failed = await db("prune", "--older-than", "3d", "--service", "shop")
    said = "dropped 0 records out of 0 batches; 1 batch could not be written anew:\n"
    assert (failed.exit_code, said in failed.stderr, "head cannot be read" in failed.stderr) == (2, True, True)
    for wrong in (
        ("--packed-size", "1GB"),
        ("--older-than", "3d", "--environment", "e"),
        ("--older-than", "99d", "--rows-size", "1"),
    ):
        refused = await db("prune", *wrong, "--service", "a")
        assert (refused.exit_code, "goes with --older-than alone" in refused.stderr) == (2, True)


async def test_prune_says_what_it_leaves_alone(database_url: str, store: Store, db: Run) -> None:
    """What is in an open batch; and of a service, what is not packed yet."""
    await leave(database_url, [record(OLD, service="chatty"), record(OLD)])
    await store.write([record(OLD, service="chatty")] * 3000 + [record(OLD, service="shop"), record(service="chatty")])
    is_open = "closed after batch_age, or when its daemon stops\n"
    for service, left in {
        "chatty": f"left alone  1 open batch with 3,000 such records: {is_open}"
        "left alone  1 batch with 1 such record: not packed yet, see logagg db pack\n",
        "shop": f"left alone  1 open batch with 1 such record: {is_open}",
        "": "left alone  1 batch with 1 such record: not packed yet, see logagg db pack\n",
        "other": "",
    }.items():
        said = (await db("prune", "--older-than", "3d", "--service", service, "--dry-run")).stdout
        assert said == f"would drop 0 records out of 0 batches\n{left}"
    of_all = (await db("prune", "--older-than", "3d", "--dry-run")).stdout
    assert of_all.endswith(f"\nleft alone  1 open batch with 3,001 such records: {is_open}")
    assert "left alone" not in (await db("prune", "--rows-size", "1", "--dry-run")).stdout


async def test_prune_does_not_count_an_empty_day(store: Store, db: Run) -> None:
    said = (await db("prune", "--older-than", "1s", "--dry-run")).stdout
    assert said.endswith("\npartitions  none, with 0 bytes of rows and indexes\n")


@pytest.mark.parametrize("span", ["0", "0d", "-1d", "soon", "999999999999d"])
async def test_a_span_of_no_time_is_refused(db: Run, span: str) -> None:
    result = await db("prune", "--older-than", span)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--older-than" in result.stderr


async def test_status_of_both_forms(database_url: str, db: Run, sql: asyncpg.Connection) -> None:
    await partitions.ensure(sql, OLD, back=0, ahead=0)
    await leave_packed(database_url, [record(OLD, message=str(n)) for n in range(1000)])
    await sql.execute("drop table logs_20200304")
    await leave(database_url, [record()] * 10)
    await sql.execute("analyze")
    found = json.loads((await db("status", "-o", "json")).stdout)
    assert (found["records"], found["packed_records"], found["rows_estimate"]) == (1010, 1000, 10)
    assert (found["lag_batches"], found["lag_records"]) == (1, 10)
    assert 0 <= found["lag_seconds"] < 60
    parts = [found[f"{part}_bytes"] for part in ("head", "body", "filter", "summary")]
    assert all(part > 0 for part in parts)
    assert found["packed_bytes"] == sum(parts)
    assert found["packed_bytes_per_record"] == pytest.approx(sum(parts) / 1000, abs=0.1)
    assert found["rows_bytes_per_record"] == pytest.approx(found["rows_bytes"] / 10, abs=0.1)
    assert found["packed_newest_received"] == found["oldest_received"] == OLD.isoformat()
    assert found["rows_oldest_day"] == found["rows_newest_day"] == found["newest_received"][:10]
    text = (await db("status")).stdout
    assert "\nlag             1 batch, 10 records, the oldest closed for " in text
    assert "\npacked          1,000 in " in text


async def test_status_tells_the_days_of_rows_that_outlive_their_batches(
    database_url: str, db: Run, sql: asyncpg.Connection
) -> None:
    await leave_packed(database_url, [record()])
    assert (await db("prune", "--packed-size", "1 B")).exit_code == 0
    (day,) = {f"{received:%Y-%m-%d}" for (received,) in await sql.fetch("select received_at from logs")}
    found = json.loads((await db("status", "-o", "json")).stdout)
    assert (found["records"], found["rows_oldest_day"], found["rows_newest_day"]) == (0, day, day)
    text = (await db("status")).stdout
    assert f"\nrows received   from {day} to {day}, days in UTC\n" in text
    assert "\nreceived        nothing yet\n" in text


async def test_the_size_of_a_packed_form_is_known_without_reading_it(
    database_url: str, sql: asyncpg.Connection
) -> None:
    await leave_packed(database_url, [record(message=str(n) * 99) for n in range(20_000)])
    query = "explain (analyze, buffers) select octet_length(head) + octet_length(body) from batches"
    plan = "\n".join(line for (line,) in await sql.fetch(query))
    size = await sql.fetchval("select octet_length(body) from batches")
    assert size > 8 * 8192
    assert "shared hit=1\n" in plan, plan
