"""`logagg quarantine` against a real PostgreSQL."""

import asyncio
import csv
import io
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from click.testing import CliRunner, Result

from logagg.cli.main import cli
from logagg.protocols.record import Reject
from logagg.sinks import quarantine
from logagg.sinks.store import Store
from logagg.sinks.writing import poison

if TYPE_CHECKING:
    from logagg.tests.batches import messages, record
else:
    from batches import messages, record

NOW = datetime(2026, 11, 20, 10, 0, 0, 123456, tzinfo=UTC)
BAD = b'\x80\xff \\ \x1b["'
#: Who waits for the test in its database.
WAITING = """
select array_agg(pid) from pg_locks join pg_database d on d.oid = database
where not granted and datname = current_database()
"""
Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def run(database_url: str) -> Run:
    """Run `logagg quarantine` on the database of the test."""

    def call(*args: str) -> Result:
        return CliRunner().invoke(cli, ["quarantine", *args, "--database-url", database_url], prog_name="logagg")

    return lambda *args: asyncio.to_thread(call, *args)


async def put(url: str, *rejects: Reject) -> None:
    """Put these into quarantine: their ids are 1, 2 ..."""
    store = await Store.open(url)
    await store.write([], rejects)
    await store.close()


def reject(raw: bytes, transport: str = "tcp", reason: str = "not JSON", source: str = "10.1.2.3") -> Reject:
    return Reject(NOW, transport, source, reason, raw)


async def left(sql: asyncpg.Connection) -> list[int]:
    return await quarantine.numbers(sql)


# --- Looking ---------------------------------------------------------------------------------------------------------


async def test_list(database_url: str, run: Run) -> None:
    nothing = await run("list")
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (1, "", "nothing in quarantine\n")
    long = "é" * 200
    await put(database_url, reject(BAD), reject(long.encode(), "http", "50% Bad", ""), reject(b"{", "http", "x\x1by"))
    found = [json.loads(line) for line in (await run("list", "-o", "jsonl")).stdout.splitlines()]
    assert [each["id"] for each in found] == [3, 2, 1]
    assert found[2] == {
        "id": 1,
        "received_at": "2026-11-20T10:00:00.123456Z",
        "transport": "tcp",
        "source": "10.1.2.3",
        "reason": "not JSON",
        "size": 8,
        "excerpt": '\\x80\\xff \\\\ \x1b["',
    }
    assert (found[1]["size"], found[1]["excerpt"]) == (400, "é" * 80)
    text = await run("list")
    assert text.exit_code == 0
    header, first, *_ = text.stdout.splitlines()
    assert header.split() == ["ID", "RECEIVED_AT", "TRANSPORT", "SOURCE", "REASON", "SIZE", "EXCERPT"]
    assert first.split()[0] == "3"
    assert "x\\x1by" in first
    assert "\x1b" not in text.stdout
    rows = list(csv.DictReader(io.StringIO((await run("list", "-o", "csv")).stdout)))
    assert [(row["id"], row["reason"]) for row in rows] == [("3", "x\x1by"), ("2", "50% Bad"), ("1", "not JSON")]


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--transport", "http"], [3, 2]),
        (["--transport", "htt"], []),
        (["--reason", "50% b"], [2]),
        (["--reason", "%"], [2]),
        (["--transport", "tcp", "--reason", "JSON"], [1]),
        (["--limit", "0"], [3, 2, 1]),
        (["--limit", "3"], [3, 2, 1]),
        (["-n", "1"], [3]),
    ],
)
async def test_list_some(database_url: str, run: Run, options: list[str], ids: list[int]) -> None:
    await put(database_url, reject(b"1"), reject(b"2", "http", "50% Bad"), reject(b"3", "http", "other"))
    result = await run("list", "-o", "jsonl", *options)
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ids
    assert [each["id"] for each in json.loads((await run("list", "-o", "json", *options)).stdout)] == ids
    assert result.exit_code == (0 if ids else 1)
    assert ("there are older ones" in result.stderr) == (options == ["-n", "1"])


async def test_show(database_url: str, run: Run) -> None:
    await put(database_url, reject(BAD), reject("grün\n\x1b[2J\\".encode(), source=""))
    shown = await run("show", "1")
    assert shown.exit_code == 0
    assert shown.stdout == (
        "id           1\nreceived_at  2026-11-20T10:00:00.123456Z\ntransport    tcp\nsource       10.1.2.3\n"
        'reason       not JSON\nsize         8\n\n\\x80\\xff \\\\ \\x1b["\n'
    )
    assert (await run("show", "2")).stdout.endswith("\n\ngrün\n\\x1b[2J\\\n")
    assert (await run("show", "1", "--raw")).stdout_bytes == BAD


# --- Replaying -------------------------------------------------------------------------------------------------------


async def test_replay_by_transport(database_url: str, run: Run, sql: asyncpg.Connection) -> None:
    await put(
        database_url,
        reject(b'{"message":"one","level":"error","service":"s"}'),
        reject(b'[{"message":"two"},{"message":"three"}]', "http"),
        reject(b"<11>Nov 20 09:00:00 h app[7]: four", "syslog-udp"),
        reject(b'{"message":', reason="as it was"),
    )
    result = await run("replay", "--all")
    assert result.exit_code == 1
    assert result.stdout == "replayed 3 of 4, 4 records; 1 stays\n"
    assert result.stderr.startswith("4 stays: invalid JSON: ")
    assert await messages(sql) == ["one", "two", "three", "four"]
    rows = await sql.fetch("select * from logs order by id")
    assert {(row["received_at"], row["source"]) for row in rows} == {(NOW, "10.1.2.3")}
    assert [row["timestamp"] for row in rows] == [NOW] * 3 + [datetime(2026, 11, 20, 9, tzinfo=UTC)]
    assert [(row["severity"], row["host"], row["service"]) for row in rows[::3]] == [(3, None, "s"), (3, "h", "app")]
    assert await left(sql) == [4]
    assert await sql.fetchval("select reason from quarantine") == "as it was"


async def test_what_is_a_record_only_in_part_stays(database_url: str, run: Run, sql: asyncpg.Connection) -> None:
    await put(database_url, reject(b'{"message":"good"}\n{"message":\n'), reject(b" \n "), reject(b"x", "otlp"))
    result = await run("replay", "1", "2", "3")
    assert (result.exit_code, result.stdout) == (1, "replayed 0 of 3, 0 records; 3 stay\n")
    said = result.stderr.splitlines()
    assert said[0].startswith("1 stays: invalid JSON: ")
    assert said[1:] == [
        "2 stays: 0 records in 3 bytes, at least 1, at most 65,536",
        "3 stays: bytes of otlp: --as says what they are",
    ]
    assert await messages(sql) == []
    assert await left(sql) == [1, 2, 3]


async def test_replay_as(database_url: str, run: Run, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGAGG_ENVIRONMENT", "staging")
    await put(database_url, reject(BAD), reject(b"plain"), reject(b"<3>app: died"), reject(b'{"msg":"j"}', "store"))
    result = await run("replay", "1", "2", "1", "--as", "text")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "replayed 2 of 2, 2 records\n", "")
    assert (await run("replay", "3", "--as", "syslog")).exit_code == 0
    assert (await run("replay", "4", "--as", "json")).exit_code == 0
    rows = await sql.fetch("select message, severity, service, raw, received_at from logs order by message")
    assert [tuple(row) for row in rows] == [
        ("died", 3, "app", None, NOW),
        ("j", 6, None, None, NOW),
        ("plain", 6, None, None, NOW),
        ('�� \\ \x1b["', 6, None, BAD, NOW),
    ]
    assert await sql.fetchval("select array_agg(distinct environment) from logs") == ["staging"]
    assert await left(sql) == []
    again = await run("replay", "--all")
    assert (again.exit_code, again.stdout) == (0, "nothing in quarantine\n")


async def test_a_dry_run_changes_nothing(database_url: str, run: Run, sql: asyncpg.Connection) -> None:
    await put(database_url, reject(b'[{"message":"a"},{"message":"b"}]'), reject(b"x"))
    result = await run("replay", "--all", "--dry-run")
    assert (result.exit_code, result.stdout) == (1, "would replay 1 of 2, 2 records; 1 stays\n")
    assert [line.split(": ")[0] for line in result.stderr.splitlines()] == ["2 stays"]
    each = await run("replay", "--all", "--dry-run", "--verbose")
    assert [line.split(": ")[0] for line in each.stderr.splitlines()] == ["1", "2 stays"]
    assert each.stdout == result.stdout
    assert await left(sql) == [1, 2]
    assert await sql.fetchval("select count(*) from logs") == 0
    assert await sql.fetchval("select count(*) from keys") == 0
    assert await sql.fetchval("select count(*) from batches") == 0
    assert (await run("replay", "1", "--dry-run")).exit_code == 0


async def test_why_entries_stay_is_said_by_reason(database_url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logagg.cli.quarantine_replay._REASONS", 3)
    blank = [reject(b" " * size) for size in (1, 2, 3, 4, 1, 2, 3)]
    others = [reject(b"x", transport) for transport in ("otlp", "loki", "splunk", "otlp")]
    await put(database_url, *others, *blank)
    for dry in (["--dry-run"], []):
        result = await run("replay", "--all", *dry)
        assert result.stderr.splitlines() == [
            "5, 6, 7, 8, 9 and 2 more stay: 0 records in 1 bytes, at least 1, at most 65,536 (or with other numbers)",
            "1, 4 stay: bytes of otlp: --as says what they are",
            "2 stays: bytes of loki: --as says what they are",
            "... and 1 more for other reasons: --verbose tells all",
        ]
        assert result.stdout.endswith("of 11, 0 records; 11 stay\n")
    assert len((await run("replay", "--all", "--verbose")).stderr.splitlines()) == 11


# --- Letting go ------------------------------------------------------------------------------------------------------


async def test_drop(database_url: str, run: Run, sql: asyncpg.Connection) -> None:
    old = Reject(datetime.now(UTC) - timedelta(days=8), "tcp", "", "not JSON", b"12345")
    await put(database_url, *(reject(b"1234", "http")._replace(received_at=datetime.now(UTC)) for _ in range(4)), old)
    for given, said, ids in (
        (["2", "3", "2"], "2 entries, 8 bytes", [1, 4, 5]),
        (["--older-than", "7d"], "1 entry, 5 bytes", [1, 4]),
        (["--older-than", "7d"], "0 entries, 0 bytes", [1, 4]),
        (["--all"], "2 entries, 8 bytes", []),
    ):
        before = await left(sql)
        dry = await run("drop", *given, "--dry-run")
        assert (dry.exit_code, dry.stdout, dry.stderr) == (0, f"would drop {said}\n", "")
        assert await left(sql) == before
        result = await run("drop", *given)
        assert (result.exit_code, result.stdout, result.stderr) == (0, f"dropped {said}\n", "")
        assert await left(sql) == ids


async def test_records_that_postgresql_refused(database_url: str, run: Run, sql: asyncpg.Connection) -> None:
    told: dict[str, Any] = {"host": "h", "trace_id": "t", "facility": 3, "attributes": '{"a":"\\u0000"}'}
    early = NOW - timedelta(hours=1)
    whole = record(NOW, timestamp=early, message="nul \0 half \ud800", source="10.9.9.9", severity=9, **told)
    await put(database_url, poison(whole, "refused"), poison(record(NOW, raw=b"as it came"), "refused"))
    result = await run("replay", "--all")
    assert (result.exit_code, result.stdout) == (1, "replayed 1 of 2, 1 record; 1 stays\n")
    assert result.stderr.startswith("2 stays: PostgreSQL refused the record, and these are the bytes it came as")
    (row,) = await sql.fetch("select * from logs")
    assert (row["timestamp"], row["received_at"], row["message"]) == (early, NOW, "nul � half �")
    assert (row["severity"], row["facility"], row["host"], row["source"]) == (6, 3, "h", "10.9.9.9")
    assert (row["attributes"], row["trace_id"]) == ('{"a": "�"}', "t")
    assert json.loads(row["raw"])["message"] == "nul \0 half \ud800"


@pytest.mark.parametrize("attributes", ["[1]", "{", "[" * 100_000])
async def test_a_record_whose_attributes_are_none_stays(database_url: str, run: Run, attributes: str) -> None:
    await put(database_url, poison(record(NOW, attributes=attributes), "refused"))
    result = await run("replay", "1")
    assert result.exit_code == 1
    assert result.stderr.startswith("1 stays: ")


async def test_what_postgresql_refuses_once_more(database_url: str, run: Run, sql: asyncpg.Connection) -> None:
    await sql.execute("alter table logs add constraint no_two check (message <> 'two')")
    await put(database_url, reject(b'[{"message":"one"},{"message":"two"}]'))
    result = await run("replay", "--all")
    assert (result.exit_code, result.stdout) == (1, "replayed 0 of 1, 1 record; 1 stays\n")
    assert "1 stays: PostgreSQL refuses it, it has a new ID: CheckViolationError" in result.stderr
    assert await messages(sql) == ["one"]
    assert await left(sql) == [2]
    assert await sql.fetchval("select transport from quarantine") == "store"
    await sql.execute("alter table logs drop constraint no_two")
    assert (await run("replay", "2")).exit_code == 0
    assert await messages(sql) == ["one", "two"]


# --- Killed, twice, at once ------------------------------------------------------------------------------------------


async def test_killed_between_the_write_and_the_delete(database_url: str, run: Run, sql: asyncpg.Connection) -> None:
    await put(database_url, *(reject(b'{"message":"%d"}' % number) for number in range(20)))
    await sql.execute("create table gate (open int)")
    await sql.execute(
        "create function wait() returns trigger language plpgsql as"
        " $$begin if old.id = 5 then perform open from gate; end if; return old; end$$;"
        "create trigger wait before delete on quarantine for each row execute function wait()"
    )
    arguments = ["quarantine", "replay", "--all", "--database-url", database_url]
    async with sql.transaction():
        await sql.execute("lock table gate")
        process = await asyncio.to_thread(subprocess.Popen, [sys.executable, "-m", "logagg.cli", *arguments])
        try:
            while not (waiting := await sql.fetchval(WAITING)):
                assert process.poll() is None
                await asyncio.sleep(0.01)
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)
        assert await sql.fetchval("select bool_and(pg_terminate_backend(pid)) from unnest($1::int[]) pid", waiting)
        assert len(await messages(sql)) == 5
        assert len(await left(sql)) == 16
    result = await run("replay", "--all", "--as", "text")
    assert (result.exit_code, result.stdout) == (0, "replayed 16 of 16, 15 records\n")
    assert await sql.fetchval("select count(*) from logs") == 20
    assert await left(sql) == []


async def test_several_at_once(database_url: str, run: Run, sql: asyncpg.Connection) -> None:
    await put(database_url, *(reject(b'{"message":"%d"}' % number) for number in range(30)))
    results = await asyncio.gather(*(run("replay", "--all") for _ in range(2)))
    assert [result.exit_code for result in results] == [0, 0]
    assert sorted(map(int, await messages(sql))) == list(range(30))
    assert await left(sql) == []


async def test_an_id_that_is_given_again_is_another_entry(database_url: str, run: Run, sql: asyncpg.Connection) -> None:
    for message in (b"first", b"second"):
        await put(database_url, reject(message))
        assert (await run("replay", "1", "--as", "text")).exit_code == 0
        await sql.execute("truncate quarantine restart identity")
    assert await messages(sql) == ["first", "second"]


# --- What goes wrong -------------------------------------------------------------------------------------------------


async def test_no_such_id(database_url: str, run: Run, sql: asyncpg.Connection) -> None:
    shown = await run("show", "7")
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr == "logagg: not in quarantine: 7; `logagg quarantine list` shows what is\n"
    await put(database_url, reject(b'{"message":"m"}'))
    result = await run("replay", "7", "1", "9")
    assert (result.exit_code, result.stdout) == (2, "replayed 1 of 1, 1 record\n")
    assert result.stderr == "logagg: not in quarantine: 7, 9; `logagg quarantine list` shows what is\n"
    assert await messages(sql) == ["m"]
    await put(database_url, reject(b"x"))
    dropped = await run("drop", "7", "2")
    assert (dropped.exit_code, dropped.stdout) == (2, "dropped 1 entry, 1 bytes\n")
    assert dropped.stderr == "logagg: not in quarantine: 7; `logagg quarantine list` shows what is\n"


@pytest.mark.parametrize(
    "words",
    [
        ["drop"],
        ["drop", "1", "--all"],
        ["drop", "--all", "--older-than", "1d"],
        ["drop", "--older-than", "soon"],
        ["replay"],
        ["replay", "1", "--all"],
        ["replay", "0"],
        ["show", "9223372036854775808"],
        ["show", "x"],
        ["show"],
    ],
)
async def test_usage(run: Run, words: list[str]) -> None:
    result = await run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--help`)" in result.stderr


@pytest.mark.parametrize("words", [["list"], ["show", "1"], ["replay", "--all"], ["drop", "--all"]])
def test_no_schema_and_no_server(empty_database_url: str, words: list[str]) -> None:
    away = "postgresql://u:s3cret@127.0.0.1:1/logs"
    for url, said in ((empty_database_url, "the database has no tables of logagg yet"), (away, "u:***@127.0.0.1:1")):
        result = CliRunner().invoke(cli, ["quarantine", *words, "--database-url", url], prog_name="logagg")
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr
        assert "s3cret" not in result.stderr
