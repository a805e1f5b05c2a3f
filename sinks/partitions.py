"""The daily partitions of `logs`: made ahead, looked after, and indexed for full-text search where that is asked for.

A day is a UTC day of `received_at`; its partition is `logs_YYYYMMDD`. No statement here waits long for a lock, because
ingest would wait behind it: what cannot be had now is tried again the next time.
"""

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta

import asyncpg

from logagg.sinks.errors import StoreError, reason

DAY = timedelta(days=1)
#: Days before today that have a partition, too, should rows of them come late.
BACK = 1
#: To be said first in a transaction that takes locks which writers need.
PATIENCE = "set local lock_timeout = '1s'"
_NAME = re.compile(r"logs_(\d{8})")
#: Seconds that one index may take to be built or brought up to date.
_LONGEST = 86400.0

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
#: The indexes of the setting rows_gin, by the end of their names: for the words of a message, and for what attributes
#: contain.
_GIN = {"words": "to_tsvector('simple', message)", "attributes": "attributes jsonb_path_ops"}
_VALID = "select indisvalid from pg_index where indexrelid = to_regclass($1)"


class IndexFailed(StoreError):
    """An index cannot be built; nothing of it is left."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name


async def ensure(con: asyncpg.Connection, now: datetime, *, back: int = BACK, ahead: int = 3) -> list[str]:
    """Make the partitions around today that are missing; return the names of those made."""
    today = now.astimezone(UTC).date()
    return await make(con, [today + days * DAY for days in range(-back, ahead + 1)])


async def make(con: asyncpg.Connection, days: Iterable[date]) -> list[str]:
    """Make the partitions of these days where they are missing; return the names of those made."""
    there = set(await names(con))
    made = []
    for day in days:
        name = f"logs_{day.isoformat().replace('-', '')}"
        if name not in there and day < date.max:  # which has no end that could be written
            with another_time():
                await _make(con, name, day)
                made.append(name)
    return made


async def _make(con: asyncpg.Connection, name: str, day: date) -> None:
    """Attach a day's table, which does not stop writers, as `create table ... partition of` does.

    Rows of that day which stand in the default partition move, else the table could not be attached.
    """
    first, end = f"{day}T00:00:00Z", f"{day + DAY}T00:00:00Z"
    inside = f"received_at >= '{first}' and received_at < '{end}'"
    async with con.transaction():
        await con.execute(PATIENCE)
        await con.execute(f"create table {name} (like logs including all)")
        moved = f"with moved as (delete from logs_default where {inside} returning *) "  # noqa: S608 - dates of ours
        await con.execute(moved + f"insert into {name} select * from moved")  # noqa: S608 - a name of ours
        await con.execute(f"alter table logs attach partition {name} for values from ('{first}') to ('{end}')")


async def summarise(con: asyncpg.Connection) -> None:
    """Bring the BRIN indexes up to the rows written since; until then a search reads those rows block by block."""
    for (index,) in await con.fetch(_BRIN):
        try:
            await con.execute("select brin_summarize_new_values($1::bigint::oid::regclass)", index, timeout=600)
        except asyncpg.InternalServerError:  # "could not open relation": another store has dropped the partition
            if await con.fetchval("select exists (select from pg_class where oid = $1::bigint::oid)", index):
                raise


async def index(con: asyncpg.Connection, now: datetime, without: Collection[str] = ()) -> str | None:
    """Build the first index of `rows_gin` that is missing on a day that is over; return its name, None for no need.

    Built CONCURRENTLY: writers do not wait. Those named in `without` are not built. Raises IndexFailed, such as for a
    message of more words than PostgreSQL takes.
    """
    today = now.astimezone(UTC).date()
    for name in sorted(await names(con), reverse=True):
        if (day := day_of(name)) and day < today:
            for end, expression in _GIN.items():
                made = f"{name}_{end}"
                if made not in without and not await con.fetchval(_VALID, made):
                    await _build(con, made, f"{name} using gin ({expression})")
                    return made
    return None


async def _build(con: asyncpg.Connection, name: str, on: str) -> None:
    remove = f"drop index concurrently if exists {name}"  # what an attempt that ended early has left
    await con.execute(remove)
    try:
        await con.execute(f"create index concurrently {name} on {on}", timeout=_LONGEST)
    except asyncpg.PostgresError as error:
        await con.execute(remove)
        raise IndexFailed(name, reason(error)) from error


async def names(con: asyncpg.Connection) -> list[str]:
    """Return the names of the partitions that there are."""
    return [name for (name,) in await con.fetch(_NAMES)]


def day_of(name: str) -> date | None:
    """Return the day that a partition is for; None for the default partition, and for one of somebody else."""
    found = _NAME.fullmatch(name)
    with contextlib.suppress(ValueError):  # eight digits that are no day
        return datetime.strptime(found[1], "%Y%m%d").replace(tzinfo=UTC).date() if found else None
    return None


@contextlib.contextmanager
def another_time() -> Iterator[None]:
    """Let pass what the next round can do: a lock not got, a row that came in between, a table another daemon made."""
    with contextlib.suppress(
        asyncpg.LockNotAvailableError,
        asyncpg.DeadlockDetectedError,
        asyncpg.DependentObjectsStillExistError,
        asyncpg.CheckViolationError,
        asyncpg.DuplicateTableError,
        asyncpg.UndefinedTableError,
        asyncpg.InvalidObjectDefinitionError,  # a partition of the user's has the day already
    ):
        yield
