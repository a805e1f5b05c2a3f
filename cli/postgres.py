"""PostgreSQL for the commands that ask it: where it is, a connection, and what goes wrong with it in one line.

They are `logagg db` and `logagg quarantine`.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from logagg.cli.options import Command, config_option
from logagg.cli.serving import settings_from
from logagg.cli.terminal import Failure, note

if TYPE_CHECKING:
    from logagg.sinks.embedded import EmbeddedPostgres

T = TypeVar("T")

NO_SCHEMA = "the database has no tables of logagg yet: run `logagg db init`, or `logagg serve`, which makes them too"

#: Seconds to wait for a connection.
PATIENCE = 20


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


def place_of(config: Path | None, database_url: str | None) -> Place:
    """Return the database that is named, else that of the settings."""
    if database_url:
        return Place(database_url, None)
    settings = settings_from(config)
    return Place(settings.database_url, settings.data_dir)


def forgotten() -> str:
    """Return what may be why no database is there, to be said before anybody makes a second one, which is empty."""
    context = click.get_current_context(silent=True)
    given = context and context.params.get("config")
    return "" if given else ", and no settings file was given (--config or LOGAGG_CONFIG)"


def run(place: Place, action: Callable[[Any], Awaitable[T]], *, create: bool) -> T:
    """Connect, act, and turn every failure into one line."""
    import asyncio

    import asyncpg

    from logagg.sinks import schema
    from logagg.sinks.embedded import EmbeddedError
    from logagg.sinks.errors import StoreError

    async def act() -> T:
        async with connected(place, create=create) as connection:
            try:
                return await action(connection)
            except asyncpg.ReadOnlySQLTransactionError:
                await schema.refuse_standby(connection)
                raise

    try:
        return asyncio.run(act())
    except (EmbeddedError, StoreError) as error:
        raise Failure(str(error)) from None
    except TimeoutError:
        raise Failure(f"no answer from {shown(place)} within {PATIENCE} s") from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise Failure(f"{shown(place)}: {str(error) or type(error).__name__}") from None
    except ValueError:  # its text may hold a part of the password
        raise Failure(f"{shown(place)} is not an address of PostgreSQL") from None


@asynccontextmanager
async def connected(place: Place, *, create: bool) -> AsyncIterator[Any]:
    """Connect; the embedded PostgreSQL is started for as long as this takes, unless it runs already."""
    import asyncio

    server = None if place.url else place.embedded()
    if server and not create and not server.cluster.exists():
        raise Failure(
            f"there is no embedded PostgreSQL in {server.data_dir} yet{forgotten()}:"
            " run `logagg serve` or `logagg db init` to make one, or set LOGAGG_DATA_DIR"
        )
    if server and not server.cluster.exists():
        note(f"there is no embedded PostgreSQL in {server.data_dir} yet{forgotten()}: it is made now")
    address = await asyncio.to_thread(server.start) if server else place.url
    try:
        connection = await _connection(address, place)
        try:
            yield connection
        finally:
            await connection.close(timeout=PATIENCE)
    finally:
        if server:
            await asyncio.to_thread(server.stop)


async def _connection(address: str | None, place: Place) -> Any:
    import asyncpg

    try:
        return await asyncpg.connect(address, timeout=PATIENCE)
    except TimeoutError:  # an OSError, which has a sentence of its own
        raise
    except OSError as error:
        raise Failure(
            f"{shown(place)}: PostgreSQL does not answer there ({error.strerror or error}): check that it runs,"
            " that it listens on this host and port, and that no firewall is between"
        ) from None


async def check_schema(connection: Any) -> None:
    """Raise Failure unless the tables are those that this program knows."""
    from logagg.sinks import schema

    have = await schema.applied(connection)
    if not have:
        raise Failure(NO_SCHEMA)
    known = schema.migrations()
    schema.check(known, have)
    if len(have) < len(known):
        raise Failure(f"the tables have schema {max(have)}, this logagg needs {len(known)}: run `logagg db migrate`")


def shown(place: Place) -> str:
    """Return where the database is, without a password."""
    if place.url:
        return re.sub(r"(?<=[?&]password=)[^&]*", "***", re.sub(r"(://[^:/@]*):.*@", r"\1:***@", place.url))
    return f"embedded in {place.embedded().data_dir}"


def sized(count: float) -> str:
    """Return a number of bytes for people."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
