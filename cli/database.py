"""`logagg db`: the commands that talk to PostgreSQL itself, not to the daemon."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from logagg.cli.options import Command, SuggestingGroup, config_option, examples
from logagg.cli.output import compact
from logagg.cli.serving import settings_from
from logagg.cli.terminal import Failure

if TYPE_CHECKING:
    from logagg.sinks.embedded import EmbeddedPostgres

T = TypeVar("T")

#: Seconds to wait for a connection.
_PATIENCE = 20
_NO_SCHEMA = "the database has no tables of logagg yet: run `logagg db init`, or `logagg serve`, which makes them too"


class Place(NamedTuple):
    """Where the database is: an address, or below a folder of our own."""

    url: str | None
    data_dir: Path | None

    def embedded(self) -> "EmbeddedPostgres":
        """Return the embedded PostgreSQL; meant only where there is no address."""
        from logagg.sinks.embedded import EmbeddedPostgres

        return EmbeddedPostgres(self.data_dir)


def place_options(command: Command) -> Command:
    """Add --database-url and --config."""
    option = click.option(
        "--database-url", metavar="URL", help="PostgreSQL to use, instead of the one in the settings."
    )
    return option(config_option(command))


def _place(config: Path | None, database_url: str | None) -> Place:
    if database_url:
        return Place(database_url, None)
    settings = settings_from(config)
    return Place(settings.database_url, settings.data_dir)


@click.group(cls=SuggestingGroup, epilog=examples("logagg db status", 'psql "$(logagg db url)"'))
def db() -> None:
    """Make, update and look at the database itself."""


@db.command(epilog=examples("logagg db init", "logagg db init --database-url postgresql://logs@db/logs"))
@place_options
def init(config: Path | None, database_url: str | None) -> None:
    """Make the tables, or bring them up to date.

    Safe to run again.

    Without an address in the settings this makes the embedded PostgreSQL, too. `logagg serve` does the same by itself.
    """
    click.echo(_run(_place(config, database_url), _migrate, create=True))


@db.command(epilog=examples("logagg db migrate"))
@place_options
def migrate(config: Path | None, database_url: str | None) -> None:
    """Bring existing tables up to date.

    Safe to run again, and by several at once.
    """
    click.echo(_run(_place(config, database_url), _update, create=False))


@db.command(epilog=examples("logagg db status", "logagg db status -o json"))
@place_options
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="The form of what is printed."
)
def status(config: Path | None, database_url: str | None, output: str) -> None:
    """Print what the database holds.

    That is its schema, records, batches, partitions, sizes, quarantine, and the oldest and the newest times.
    The number of rows is an estimate, so that this is quick at any size.
    """
    place = _place(config, database_url)
    found = _run(place, _status, create=False)
    if output == "json":
        times = {name: value.isoformat() for name, value in found.items() if isinstance(value, datetime)}
        click.echo(compact(found | times))
    else:
        click.echo(_status_text(place, found))


@db.command(epilog=examples('psql "$(logagg db url)"', 'pg_dump "$(logagg db url)" > logs.sql'))
@place_options
def url(config: Path | None, database_url: str | None) -> None:
    """Print the address for psql and other programs.

    It has the password in it. Nothing is started: for the embedded PostgreSQL that is where its socket is, while it
    runs. Exits with 2 when it does not.
    """
    place = _place(config, database_url)
    if place.url:
        click.echo(place.url)
        return
    server = place.embedded()
    try:
        running = server.running()
    except PermissionError:
        raise Failure(f"{server.data_dir} belongs to another user: run this as the user of `logagg serve`") from None
    if not running:
        raise Failure(f"the embedded PostgreSQL in {server.data_dir} is not running: start it with `logagg serve`")
    click.echo(server.url)


def _run(place: Place, action: Callable[[Any], Awaitable[T]], *, create: bool) -> T:
    """Connect, act, and turn every failure into one line."""
    import asyncio

    import asyncpg

    from logagg.sinks.embedded import EmbeddedError
    from logagg.sinks.errors import StoreError

    async def connected() -> T:
        async with _connection(place, create=create) as connection:
            return await action(connection)

    try:
        return asyncio.run(connected())
    except (EmbeddedError, StoreError) as error:
        raise Failure(str(error)) from None
    except TimeoutError:
        raise Failure(f"no answer from {_shown(place)} within {_PATIENCE} s") from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise Failure(f"{_shown(place)}: {str(error) or type(error).__name__}") from None
    except ValueError:  # its text may hold a part of the password
        raise Failure(f"{_shown(place)} is not an address of PostgreSQL") from None


@asynccontextmanager
async def _connection(place: Place, *, create: bool) -> AsyncIterator[Any]:
    """Connect; the embedded PostgreSQL is started for as long as this takes, unless it runs already."""
    import asyncio

    import asyncpg

    server = None if place.url else place.embedded()
    if server and not create and not server.cluster.exists():
        raise Failure(
            f"there is no embedded PostgreSQL in {server.data_dir} yet: run `logagg serve` or `logagg db init`"
        )
    address = await asyncio.to_thread(server.start) if server else place.url
    try:
        connection = await asyncpg.connect(address, timeout=_PATIENCE)
        try:
            yield connection
        finally:
            await connection.close(timeout=_PATIENCE)
    finally:
        if server:
            await asyncio.to_thread(server.stop)


async def _migrate(connection: Any) -> str:
    from logagg.sinks import schema

    made = await schema.migrate(connection)
    newest = schema.migrations()[-1].number
    if not made:
        return f"schema {newest}: nothing to do"
    return f"schema {newest}: applied " + ", ".join(f"{each.number} {each.name}" for each in made)


async def _update(connection: Any) -> str:
    from logagg.sinks import schema

    if not await schema.applied(connection):
        raise Failure(_NO_SCHEMA)
    return await _migrate(connection)


async def _status(connection: Any) -> dict[str, Any]:
    from logagg.sinks import schema

    have = await schema.applied(connection)
    if not have:
        raise Failure(_NO_SCHEMA)
    row = await connection.fetchrow(Path(__file__).with_name("status.sql").read_text("utf-8"))
    return {"schema": max(have), "schema_known": schema.migrations()[-1].number, **row}


def _status_text(place: Place, found: dict[str, Any]) -> str:
    hint = "" if found["schema"] >= found["schema_known"] else f" (run `logagg db migrate`: {found['schema_known']})"
    batches = "{batches_open} open, {batches_closed} closed, {batches_packed} packed".format(**found)
    days = f"{found['partitions']}: {found['first_partition']} to {found['last_partition']}"
    lines = {
        "database": f"{_shown(place)}, PostgreSQL {found['server_version']}",
        "schema": f"{found['schema']}{hint}",
        "records": f"{found['records']:,}; rows about {found['rows_estimate']:,}",
        "batches": batches,
        "partitions": days if found["partitions"] else "none",
        "size": f"{_size(found['database_bytes'])}; logs {_size(found['logs_bytes'])}, of which indexes"
        f" {_size(found['logs_index_bytes'])}; batches {_size(found['batches_bytes'])}",
        "quarantine": f"{found['quarantined']:,} records, {_size(found['quarantine_bytes'])}",
        "received": _span(found["oldest_received"], found["newest_received"]),
        "timestamps": _span(found["oldest_timestamp"], found["newest_timestamp"]),
    }
    if found["rows_in_default_partition"]:
        lines["partitions"] += f", and {found['rows_in_default_partition']:,} rows outside of them"
    return "\n".join(f"{name:<11} {value}" for name, value in lines.items())


def _shown(place: Place) -> str:
    """Return where the database is, without a password."""
    if place.url:
        return re.sub(r"(?<=[?&]password=)[^&]*", "***", re.sub(r"(://[^:/@]*):.*@", r"\1:***@", place.url))
    return f"embedded in {place.embedded().data_dir}"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def _span(oldest: datetime | None, newest: datetime | None) -> str:
    if oldest is None or newest is None:
        return "nothing yet"
    return " to ".join(moment.astimezone().strftime("%Y-%m-%d %H:%M:%S%z") for moment in (oldest, newest))
