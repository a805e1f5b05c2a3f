"""SQL for users: `logagg db sql`, the role of `logagg db init --reader`, docs/sql.md."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit
from uuid import uuid4

import asyncpg
import pytest
from click.testing import CliRunner, Result

from logagg.cli.main import cli
from logagg.protocols.record import Record, Reject
from logagg.sinks import partitions
from logagg.sinks.reader import make_reader
from logagg.sinks.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


NOW = datetime.now(UTC).replace(microsecond=0)
PAGE = Path(__file__).parents[1] / "docs" / "sql.md"


def logagg(*args: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, list(args), prog_name="logagg", input=stdin)


def record(message: str = "hello", severity: int = 6, attributes: str | None = None) -> Record:
    return Record(NOW, NOW, severity, None, None, "h1", "web", "127.0.0.1", message, attributes, None, None, None)


async def execute(url: str, *statements: str) -> None:
    con = await asyncpg.connect(url)
    for statement in statements:
        await con.execute(statement)
    await con.close()


@pytest.fixture
def filled_url(database_url: str) -> str:
    """A database with three records, a reject, and one packed batch or not, as the store does it."""

    async def fill() -> None:
        store = await Store.open(database_url)
        attributes = '{"path": "/a", "ms": 1.50}'
        records = [record("one", attributes=attributes), record("two, \x1b[2J", 3), record("three")]
        await store.write(records, [Reject(NOW, "tcp", "127.0.0.1", "not JSON", b"x")])
        await store.close()

    asyncio.run(fill())
    return database_url


# --- logagg db sql ---------------------------------------------------------------------------------------------------


def sql(url: str, statement: str, *options: str, stdin: str | None = None) -> Result:
    return logagg("db", "sql", statement, "--database-url", url, *options, stdin=stdin)


def test_rows_as_a_table(filled_url: str) -> None:
    asked = "select level(severity) as level, count(*), null as nothing, message from logs group by 1, 4 order by 4"
    assert sql(filled_url, asked).stdout == (
        "LEVEL  COUNT  NOTHING  MESSAGE\n"
        "INFO       1        -  one\n"
        "INFO       1        -  three\n"
        "ERROR      1        -  two, \\x1b[2J\n"
    )


def test_values_of_every_kind(filled_url: str) -> None:
    asked = (
        "select 1 as a, 12345678901234567890.50 as b, true as c, 'x\"y' as d, '\\x00ff'::bytea as e,"
        " '{\"k\": [1.10]}'::jsonb as f, array[1.5, null] as g, timestamptz '2026-11-20 10:00:00.5+01' as h,"
        " timestamp 'infinity' as i, interval '1 day 2 hours' as j, null as k, 'NaN'::float8 as l, 1 as a,"
        " '1.2.3.4'::inet as m, date '2026-11-20' as n, array['{\"z\": 1}'::json] as o, int4range(1, 3) as p,"
        " timestamptz '0044-03-15 12:00:00+00 BC' as q, row(1, 'r') as r"
    )
    line = sql(filled_url, asked, "-o", "jsonl").stdout
    assert '"b":12345678901234567890.50,' in line
    assert '"f":{"k": [1.10]},' in line
    assert json.loads(line) == {
        "a": 1, "b": 12345678901234567890.50, "c": True, "d": 'x"y', "e": "\\x00ff", "f": {"k": [1.1]},
        "g": [1.5, None], "h": "2026-11-20T09:00:00.5Z", "i": "infinity", "j": "1 day 02:00:00", "k": None, "l": "NaN",
        "a_2": 1, "m": "1.2.3.4", "n": "2026-11-20", "o": [{"z": 1}], "p": "[1, 3)",
        "q": "0044-03-15 12:00:00+00 BC", "r": "(1,r)",
    }  # fmt: skip
    printed = sql(filled_url, "select message, attributes from logs order by id", "-o", "csv").stdout
    assert printed.splitlines()[:2] == ["message,attributes", 'one,"{""ms"": 1.50, ""path"": ""/a""}"']


def test_many_rows_and_none(filled_url: str) -> None:
    many = sql(filled_url, "-", "-o", "jsonl", stdin="select * from generate_series(1, 5000) n;\n")
    assert (many.exit_code, many.stdout.count("\n")) == (0, 5000)
    assert many.stdout.endswith('{"n":5000}\n')
    none = sql(filled_url, "select batch from logs where false", "-o", "csv")
    assert (none.exit_code, none.stdout, none.stderr) == (1, "batch\n", "")
    for asked in (
        "explain select 1",
        "show server_version",
        "values (1)",
        "table logs",
        "with a as (select 1) table a",
    ):
        assert sql(filled_url, asked).exit_code == 0, asked


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("select mesage from logs", 'column "mesage" does not exist (Perhaps you meant to reference the column'),
        ("delete from logs returning id", "cannot execute DELETE in a read-only transaction\n"),
        ("delete from logs", "this statement returns no rows: one of select"),
        ("create table t (a int)", "this statement returns no rows: one of select"),
        ("commit", "this statement returns no rows: one of select"),
        ("select 1; select 2", "these are several statements: `logagg db sql` takes one\n"),
        ("", "this statement returns no rows: one of select"),
        ("select 1/0", "division by zero\n"),
        ("select $1", "the server expects 1 argument for this query"),
    ],
)
def test_what_is_not_run(asked: str, said: str, filled_url: str) -> None:
    done = sql(filled_url, asked)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"logagg: {said}")
    assert sql(filled_url, "select count(*) from logs", "-o", "csv").stdout == "count\n3\n"


def test_the_place_of_an_error(filled_url: str) -> None:
    done = sql(filled_url, "select level(severity),\n  nothing from logs")
    assert done.stderr == 'logagg: column "nothing" does not exist\n    nothing from logs\n    ^\n'


def test_a_statement_ends_in_time(filled_url: str) -> None:
    done = sql(filled_url, "select pg_sleep(60)", "--timeout", "50ms")
    assert (done.exit_code, done.stderr) == (2, "logagg: canceling statement due to statement timeout\n")
    assert sql(filled_url, "select 1", "--timeout", "soon").exit_code == 2


def test_a_closed_pipe_ends_it_quietly(filled_url: str) -> None:
    command = [sys.executable, "-m", "logagg.cli", "db", "sql", "--database-url", filled_url, "-o", "jsonl"]
    asked = "select repeat('x', 1000) from generate_series(1, 100000)"
    with subprocess.Popen([*command, asked], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


# --- The page --------------------------------------------------------------------------------------------------------

BLOCKS = re.findall(r"^```sql\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[" ".join(block.split())[:40] for block in BLOCKS])
def test_a_statement_of_the_page_runs(block: str, filled_url: str) -> None:
    done = sql(filled_url, block)
    assert done.stderr == ""
    # Which batches are packed is for the background to decide; all others find what was written.
    assert done.exit_code == 0 or "packed_at" in block or "where id >=" in block


async def test_the_page_names_every_column(database_url: str) -> None:
    con = await asyncpg.connect(database_url)
    names = await con.fetch("select attname from pg_attribute where attrelid = 'logs'::regclass and attnum > 0")
    await con.close()
    assert {name for (name,) in names} <= set(re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8")))


async def test_the_python_of_the_page_reads_a_packed_batch(database_url: str) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    namespace: dict[str, object] = {}
    exec(block, namespace)  # noqa: S102 -- it is ours
    store = await Store.open(database_url)
    await store.write([record("one", attributes='{"a": 1}'), record("two", 3)])
    await store.close()
    packed = await asyncio.to_thread(logagg, "db", "pack", "--all", "--database-url", database_url)
    assert packed.exit_code == 0, packed.output
    con = await asyncpg.connect(database_url)
    number = await con.fetchval("select batch from batches where packed_at is not null")
    await con.close()
    frame = await namespace["records"](database_url, number)  # type: ignore[operator]  # what the block defines
    assert frame.select("severity", "message", "attributes").sort("message").rows() == [
        (6, "one", '{"a": 1}'),
        (3, "two", None),
    ]


# --- The reader ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def reader(database_url: str) -> AsyncIterator[str]:
    """The name of a role that is not there; what is made of it is dropped after the test."""
    name = f'of "mine"; {uuid4().hex[:8]}\'s'
    yield name
    con = await asyncpg.connect(database_url)
    if await con.fetchval("select true from pg_roles where rolname = $1", name):
        quoted = '"' + name.replace('"', '""') + '"'
        await con.execute(f"drop owned by {quoted}; drop role {quoted}")
    await con.close()


def as_role(url: str, name: str, password: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{quote(name, safe='')}:{password}@{host}").geturl()


async def test_a_reader_can_read_and_nothing_else(store: Store, database_url: str, reader: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\nnot this\n")
    await store.write([record()], [Reject(NOW, "tcp", "127.0.0.1", "not JSON", b"x")])
    options = ("--database-url", database_url, "--reader", reader, "--password-file", str(file))
    made = await asyncio.to_thread(logagg, "db", "init", *options)
    assert made.exit_code == 0, made.output
    assert made.stdout.endswith(f"\nreader {reader}: made\n")
    again = await asyncio.to_thread(logagg, "db", "init", *options, "--reader-timeout", "5s")
    assert again.stdout.endswith(f"\nreader {reader}: there already, brought up to date\n")

    con = await asyncpg.connect(as_role(database_url, reader, "s3cret"))
    counts = "select (select count(*) from logs), (select count(*) from batches), (select count(*) from quarantine)"
    assert tuple(await con.fetchrow(counts)) == (1, 1, 1)
    assert await con.fetchval("select level(severity) from logs") == "INFO"
    assert await con.fetchval("show statement_timeout") == "5s"
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await con.execute("delete from logs")
    await con.execute("set default_transaction_read_only = off")  # what it may is a matter of privileges
    for statement in (
        "insert into logs (id, batch, timestamp, received_at, severity, message) values (1, 1, now(), now(), 6, '')",
        "update logs set message = ''",
        "delete from logs",
        "truncate logs",
        "drop table logs",
        "create table t (a int)",
        "create schema s",
        "alter table logs add a int",
        "update batches set count = 0",
        "delete from quarantine",
        "select * from logagg_migrations",
        "create role another",
        "copy logs to program 'true'",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await con.execute(statement)
    await con.close()


async def test_a_reader_sees_days_that_are_made_later(store: Store, database_url: str, reader: str) -> None:
    owner = await asyncpg.connect(database_url)
    await make_reader(owner, reader, password="s3cret", limit=timedelta(minutes=1))
    later = NOW + timedelta(days=30)
    assert await partitions.ensure(owner, later, back=0, ahead=0) == [f"logs_{later:%Y%m%d}"]
    await store.write([record()._replace(received_at=later)])
    await owner.close()
    con = await asyncpg.connect(as_role(database_url, reader, "s3cret"))
    assert await con.fetchval("select count(*) from logs where received_at = $1", later) == 1
    await con.close()


async def test_a_reader_without_a_password_is_told_how(database_url: str, reader: str) -> None:
    con = await asyncpg.connect(database_url)
    notes = await make_reader(con, reader, password=None, limit=timedelta(minutes=1))
    assert any("\\password" in note for note in notes)
    assert await con.fetchval("select rolpassword is null from pg_authid where rolname = $1", reader)
    await con.close()


async def test_who_is_no_reader(database_url: str) -> None:
    con = await asyncpg.connect(database_url)
    owner = await con.fetchval("select current_user")
    await con.close()
    for name, said in (
        (owner, "owns the tables, or is an administrator"),
        ("", "no name of a role"),
        ("x" * 64, "no name"),
    ):
        done = await asyncio.to_thread(logagg, "db", "init", "--database-url", database_url, "--reader", name)
        assert (done.exit_code, said in done.stderr) == (2, True), done.output
    done = await asyncio.to_thread(logagg, "db", "init", "--database-url", database_url, "--password-file", "x")
    assert (done.exit_code, "--reader NAME" in done.stderr) == (2, True)
    options = ("--reader", "somebody", "--password-file", "/no/such/file")
    done = await asyncio.to_thread(logagg, "db", "init", "--database-url", database_url, *options)
    assert (done.exit_code, "/no/such/file: cannot be read" in done.stderr) == (2, True)
