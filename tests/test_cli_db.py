"""`logagg db` against a real PostgreSQL, and the commands that read settings."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from click.testing import CliRunner, Result

from logagg.cli.main import cli
from logagg.protocols.record import Record, Reject
from logagg.sinks.embedded import EmbeddedPostgres
from logagg.sinks.store import Store

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)


def logagg(*args: str, **env: str) -> Result:
    return CliRunner().invoke(cli, list(args), prog_name="logagg", env=env)


def record(timestamp: datetime = NOW) -> Record:
    received = datetime.now(UTC)
    return Record(timestamp, received, 6, None, None, None, "web", "127.0.0.1", "hello", None, None, None, None)


@pytest.fixture
def execute() -> Callable[[str, str], None]:
    async def work(url: str, statement: str) -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    return lambda url, statement: asyncio.run(work(url, statement))


@pytest.fixture
def empty_url(postgres_url: str, execute: Callable[[str, str], None]) -> Iterator[str]:
    """The address of a database without tables."""
    execute(postgres_url, "create database logagg_cli_empty")
    yield urlsplit(postgres_url)._replace(path="/logagg_cli_empty").geturl()
    execute(postgres_url, "drop database logagg_cli_empty with (force)")


def test_init_and_migrate(empty_url: str) -> None:
    for command in ("migrate", "status"):
        result = logagg("db", command, "--database-url", empty_url)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("logagg: the database has no tables of logagg yet: run `logagg db init`")
    first = logagg("db", "init", LOGAGG_DATABASE_URL=empty_url)
    assert first.exit_code == 0
    assert first.stdout.startswith("schema ")
    assert ": applied 1 logs" in first.stdout
    for command in ("init", "migrate"):
        again = logagg("db", command, "--database-url", empty_url)
        assert (again.exit_code, again.stdout.endswith(": nothing to do\n")) == (0, True)


def test_a_newer_schema_is_refused(database_url: str, execute: Callable[[str, str], None]) -> None:
    execute(database_url, "insert into logagg_migrations (number, name, checksum) values (9999, 'later', '')")
    result = logagg("db", "migrate", "--database-url", database_url)
    assert result.exit_code == 2
    assert "the database has schema 9999" in result.stderr


async def test_status(store: Store, database_url: str) -> None:
    def run(*args: str) -> Awaitable[Result]:
        return asyncio.to_thread(logagg, *args, "--database-url", database_url)

    before = await run("db", "status")
    assert before.exit_code == 0
    assert "\nreceived        nothing yet\n" in before.stdout
    reject = Reject(NOW, "tcp", "127.0.0.1", "not JSON", b"x")
    await store.write([record(), record(datetime(2001, 1, 1, tzinfo=UTC))], [reject])
    text = (await run("db", "status")).stdout
    assert [line[:15].strip() for line in text.splitlines()] == [
        "database", "schema", "records", "batches", "lag", "rows", "rows received", "packed", "partitions",
        "quarantine", "received", "timestamps", "packed received", "packed times",
    ]  # fmt: skip
    assert "1 open, 0 closed, 0 packed\n" in text
    found = json.loads((await run("db", "status", "-o", "json")).stdout)
    assert (found["quarantined"], found["records"], found["rows_estimate"]) == (1, 2, 2)
    assert found["oldest_timestamp"] == "2001-01-01T00:00:00+00:00"
    assert found["newest_timestamp"] == "2026-11-20T10:00:00+00:00"
    assert found["schema"] == found["schema_known"]
    await store.close()
    found = json.loads((await run("db", "status", "-o", "json")).stdout)
    assert (found["batches_open"], found["batches_closed"], found["records"]) == (0, 1, 2)
    assert found["oldest_timestamp"] == "2001-01-01T00:00:00+00:00"


def test_the_address_is_printed_whole_but_never_in_an_error() -> None:
    secret = "postgresql://u:s3c/r3t@127.0.0.1:1/logs"
    assert logagg("db", "url", "--database-url", secret).stdout == f"{secret}\n"
    assert logagg("db", "url", LOGAGG_DATABASE_URL=secret).stdout == f"{secret}\n"
    for url in (
        "postgresql://u:s3cr3t@127.0.0.1:1/logs",
        "postgresql://u:s3cr3t/@127.0.0.1:1/logs",
        "postgresql://u@127.0.0.1:1/logs?password=s3cr3t",
    ):
        result = logagg("db", "status", "--database-url", url)
        assert result.exit_code == 2
        assert result.stderr.startswith("logagg: postgresql://u")
        assert result.stderr.count("\n") == 1
        assert "s3cr3t" not in result.stderr


def test_a_postgresql_that_is_away_is_told_with_its_address() -> None:
    result = logagg("db", "status", "--database-url", "postgresql://u@127.0.0.1:1/logs")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(
        "logagg: postgresql://u@127.0.0.1:1/logs: PostgreSQL does not answer there"
        " (Connect call failed ('127.0.0.1', 1)): check that it runs, "
    )


def test_a_wrong_address_is_one_line(postgres_url: str) -> None:
    missing = urlsplit(postgres_url)._replace(path="/no_such_database").geturl()
    for url in (missing, "nonsense", "postgresql://127.0.0.1:1/x"):
        result = logagg("db", "init", "--database-url", url)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)


@pytest.fixture
def data_dir() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="logagg-cli-")  # not below pytest's: as root nobody else may enter that
    yield folder
    shutil.rmtree(folder)


def test_the_embedded_postgresql(data_dir: str) -> None:
    none_yet = logagg("db", "status", LOGAGG_DATA_DIR=data_dir)
    unnamed, how = (
        ", and no settings file was given (--config or LOGAGG_CONFIG)",
        "run `logagg serve` or `logagg db init`",
    )
    assert none_yet.stderr.startswith(f"logagg: there is no embedded PostgreSQL in {data_dir} yet{unnamed}: {how}")
    (file := Path(data_dir, "logagg.toml")).write_text(f'data_dir = "{data_dir}/other"\n')
    named = logagg("db", "status", LOGAGG_CONFIG=str(file))
    file.unlink()
    assert named.stderr.startswith(f"logagg: there is no embedded PostgreSQL in {data_dir}/other yet: {how}")
    made = logagg("db", "init", LOGAGG_DATA_DIR=data_dir)
    assert made.stdout.startswith("schema ")
    assert made.stderr == f"there is no embedded PostgreSQL in {data_dir} yet{unnamed}: it is made now\n"
    assert logagg("db", "init", LOGAGG_DATA_DIR=data_dir).stderr == ""
    stopped = logagg("db", "url", LOGAGG_DATA_DIR=data_dir)
    assert stopped.stderr == (
        f"logagg: the embedded PostgreSQL in {data_dir} is not running{unnamed}: start it with `logagg serve`,"
        " or set LOGAGG_DATA_DIR\n"
    )
    assert (stopped.exit_code, stopped.stdout) == (2, "")
    with EmbeddedPostgres(Path(data_dir)) as server:
        assert logagg("db", "url", LOGAGG_DATA_DIR=data_dir).stdout == f"{server.url}\n"
        status = logagg("db", "status", LOGAGG_DATA_DIR=data_dir)
        assert status.stdout.startswith(f"database        embedded in {data_dir}, PostgreSQL ")
        assert server.running()


def test_check_config(tmp_path: Path) -> None:
    path = tmp_path / "logagg.toml"
    path.write_text('# ours\nhttp_listen = ":9000"\nrows_retention = "14d"\n')
    result = logagg("check-config", "--config", str(path), LOGAGG_ROWS_RETENTION="3d", LOGAGG_HTPP="x")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["SETTING", "VALUE", "FROM"]
    assert ["http_listen", "127.0.0.1:9000", f"{path}:2"] in lines
    assert ["rows_retention", "3d", "LOGAGG_ROWS_RETENTION"] in lines
    assert ["flush_lanes", "3", "default"] in lines
    assert result.stderr == "warning: LOGAGG_HTPP is set, but there is no such setting\n"
    assert result.exit_code == 0


@pytest.mark.parametrize("command", ["check-config", "serve"])
def test_every_error_in_the_settings_with_its_place(command: str, tmp_path: Path) -> None:
    path = tmp_path / "logagg.toml"
    path.write_text('rows_retention = "soon"\nhttp_liston = ":1"\n')
    result = logagg(command, LOGAGG_CONFIG=str(path), LOGAGG_FLUSH_LANES="99")
    assert (result.exit_code, result.stdout) == (2, "")
    for place in (f"{path}:1: rows_retention: ", f"{path}:2: http_liston: unknown setting", "LOGAGG_FLUSH_LANES: "):
        assert place in result.stderr
    assert result.stderr.startswith("logagg: 3 errors in the settings\n")
    assert result.stderr.count("\n") == 4
    missing = logagg(command, "--config", "/no/such.toml")
    assert missing.stderr == "logagg: /no/such.toml: cannot be read: No such file or directory\n"


def test_a_listener_in_the_open_and_its_certificate_are_told_at_once(tmp_path: Path) -> None:
    missing = str(tmp_path / "no.pem")
    result = logagg("check-config", LOGAGG_TLS_CERTIFICATE=missing, LOGAGG_HTTP_LISTEN="0.0.0.0:1")
    first, *problems = result.stderr.splitlines()
    assert first == "logagg: 2 errors in the settings"
    assert missing in problems[0]
    assert "open to other machines" in problems[1]


async def test_the_first_and_the_last_moment_there_is(store: Store, database_url: str) -> None:
    """They have no local time in Python."""
    await store.write([record(datetime.min.replace(tzinfo=UTC)), record(datetime.max.replace(tzinfo=UTC))])
    said = await asyncio.to_thread(logagg, "db", "status", "--database-url", database_url)
    assert said.exit_code == 0
    assert "1-01-01 00:00:00+0000" in said.stdout
