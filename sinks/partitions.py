"""The daily partitions of `logs`: made ahead, and dropped when they are older than the rows are kept.

A day is a UTC day of `received_at`; its partition is `logs_YYYYMMDD`. No statement here waits long for a lock, because
ingest would wait behind it: what cannot be had now is tried again the next time.
"""

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import asyncpg

_DAY = timedelta(days=1)
_NAME = re.compile(r"logs_(\d{8})")
_PATIENCE = "set local lock_timeout = '1s'"

_NAMES = (
    "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'logs'::regclass"
)


_BRIN = """
select i.indexrelid::bigint
from pg_inherits p
    join pg_index i on i.indrelid = p.inhrelid
    join pg_class c on c.oid = i.indexrelid
    join pg_am a on a.oid = c.relam
where p.inhparent = 'logs'::regclass and a.amname = 'brin'
"""


class Dropped(NamedTuple):
    """What was older than the rows are kept."""

    partitions: list[str]
    #: Partitions that are too old, too, but were in use, or that something of the user's depends on.
    kept: list[str]
    #: Rows that stood in no day's partition.
    rows: int
    #: Batches of which nothing is left.
    batches: int


async def ensure(con: asyncpg.Connection, now: datetime, *, back: int = 1, ahead: int = 3) -> list[str]:
    """Make the partitions around today that are missing; return the names of those made."""
    today = now.astimezone(UTC).date()
    there = set(await _names(con))
    made = []
    for days in range(-back, ahead + 1):
        day = today + days * _DAY
        name = f"logs_{day:%Y%m%d}"
        if name not in there:
            with _another_time():
                await _make(con, name, day)
                made.append(name)
    return made


async def _make(con: asyncpg.Connection, name: str, day: date) -> None:
    """Attach a day's table, which does not stop writers, as `create table ... partition of` does.

    Rows of that day which stand in the default partition move, else the table could not be attached.
    """
    first, end = f"{day}T00:00:00Z", f"{day + _DAY}T00:00:00Z"
    inside = f"received_at >= '{first}' and received_at < '{end}'"
    async with con.transaction():
        await con.execute(_PATIENCE)
        await con.execute(f"create table {name} (like logs including all)")
        moved = f"with moved as (delete from logs_default where {inside} returning *) "  # noqa: S608 - dates of ours
        await con.execute(moved + f"insert into {name} select * from moved")  # noqa: S608 - a name of ours
        await con.execute(f"alter table logs attach partition {name} for values from ('{first}') to ('{end}')")


async def drop_expired(con: asyncpg.Connection, now: datetime, rows_retention: timedelta) -> Dropped:
    """Drop the days that are over for longer than `rows_retention`, and closed batches of which no row is left.

    Rows of the default partition go by the same days. Packed batches stay: they hold their records themselves.
    """
    last = (now - rows_retention).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    old = sorted(n for n in await _names(con) if (day := _day(n)) and day < last.date())
    dropped = []
    for name in old:
        with _another_time():
            async with con.transaction():
                await con.execute(_PATIENCE)
                await con.execute(f"drop table {name}")
                dropped.append(name)
    rows = _count(await con.execute("delete from logs_default where received_at < $1", last))
    if kept := [name for name in old if name not in dropped]:
        return Dropped(dropped, kept, rows, 0)
    gone = "delete from batches where closed_at is not null and packed_at is null and received_max < $1"
    return Dropped(dropped, [], rows, _count(await con.execute(gone, last)))


async def summarise(con: asyncpg.Connection) -> None:
    """Bring the BRIN indexes up to the rows written since; until then a search reads those rows block by block."""
    for (index,) in await con.fetch(_BRIN):
        try:
            await con.execute("select brin_summarize_new_values($1::bigint::oid::regclass)", index, timeout=600)
        except asyncpg.InternalServerError:  # "could not open relation": another store has dropped the partition
            if await con.fetchval("select exists (select from pg_class where oid = $1::bigint::oid)", index):
                raise


async def _names(con: asyncpg.Connection) -> list[str]:
    return [name for (name,) in await con.fetch(_NAMES)]


def _day(name: str) -> date | None:
    found = _NAME.fullmatch(name)
    return datetime.strptime(found[1], "%Y%m%d").replace(tzinfo=UTC).date() if found else None


def _count(status: str) -> int:
    """Return the number in `DELETE 3`."""
    return int(status.rpartition(" ")[2])


@contextlib.contextmanager
def _another_time() -> Iterator[None]:
    """Let pass what the next round can do: a lock not got, a row that came in between, a table another daemon made."""
    with contextlib.suppress(
        asyncpg.LockNotAvailableError,
        asyncpg.DeadlockDetectedError,
        asyncpg.DependentObjectsStillExistError,
        asyncpg.CheckViolationError,
        asyncpg.DuplicateTableError,
        asyncpg.UndefinedTableError,
    ):
        yield
