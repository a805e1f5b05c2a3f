"""The schema of the database, by numbered migrations: `sql/NNNN_name.sql`, each applied once, in one transaction.

What was applied stands in the table `logagg_migrations`. Many may migrate one database at once: they take turns.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import asyncpg

from logagg.sinks.errors import StoreError, StoreUnavailable
from logagg.sinks.locks import MIGRATION, locked

_FILES = Path(__file__).with_name("sql")
_TABLE = """
create table if not exists logagg_migrations (
    number     integer     primary key,
    name       text        not null,
    applied_at timestamptz not null default now(),
    checksum   text        not null
)
"""
#: PostgreSQL 15, as `server_version_num`.
_OLDEST_SERVER = 150000
#: Seconds that one migration may take: years of logs are slow to change.
_LONGEST = 86400.0


class Migration(NamedTuple):
    """One file of `sql/`."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Return the migrations that this program knows, by number."""
    found = []
    for file in _FILES.glob("*.sql"):
        number, _, name = file.stem.partition("_")
        found.append(Migration(int(number), name, file.read_text("utf-8")))
    return sorted(found)


async def applied(connection: asyncpg.Connection) -> dict[int, str]:
    """Return number -> checksum of the migrations that the database has; empty for a database that has none of ours."""
    if await connection.fetchval("select to_regclass('logagg_migrations')") is None:
        return {}
    return dict(await connection.fetch("select number, checksum from logagg_migrations"))


async def migrate(connection: asyncpg.Connection) -> list[Migration]:
    """Bring the database to the schema of this program; return what was applied now.

    Raises StoreError when the database is newer than the program, was made by other files, or its server is too old;
    StoreUnavailable when that is a standby.
    """
    server = await connection.fetchval("select current_setting('server_version_num')::int")
    if server < _OLDEST_SERVER:
        message = f"PostgreSQL {server // 10000} is too old, logagg needs {_OLDEST_SERVER // 10000} to 18"
        raise StoreError(message)
    await refuse_standby(connection)
    known = migrations()
    check(known, await applied(connection))
    async with locked(connection, MIGRATION):
        await connection.execute(_TABLE)
        have = await applied(connection)
        check(known, have)
        missing = [m for m in known if m.number not in have]
        for migration in missing:
            async with connection.transaction():
                await connection.execute(migration.sql, timeout=_LONGEST)
                await connection.execute(
                    "insert into logagg_migrations (number, name, checksum) values ($1, $2, $3)",
                    migration.number,
                    migration.name,
                    migration.checksum,
                )
    return missing


async def refuse_standby(connection: asyncpg.Connection) -> None:
    """Raise StoreUnavailable for a standby, which may become the primary."""
    if await connection.fetchval("select pg_is_in_recovery()"):
        raise StoreUnavailable(
            "this PostgreSQL is a standby, which takes nothing: database_url has to be the address of the primary;"
            " reader_database_url is the setting for a standby"
        )


def check(known: list[Migration], have: dict[int, str]) -> None:
    """Refuse a database that is newer than the program, or that other files made."""
    newest = known[-1].number
    if have and max(have) > newest:
        message = f"the database has schema {max(have)}, this logagg knows {newest}: run a newer logagg"
        raise StoreError(message)
    for migration in known:
        if have.get(migration.number, migration.checksum) != migration.checksum:
            message = f"migration {migration.number} of the database is not the {migration.name} of this logagg"
            raise StoreError(message)
